from __future__ import annotations

import io

import pytest

from eagleray.cli.progress import shown_progress, size


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_stages_with_their_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with shown_progress() as progress:
        progress("downloading", 5 << 20, 10 << 20)
        progress("reading", 3, 17)
        progress("waiting for process 7 on host", 0, None)
    shown = terminal.getvalue()
    assert "5.0 MiB of 10.0 MiB" in shown
    assert "3 of 17" in shown
    assert "waiting for process 7" in shown


def test_a_pipe_and_json_see_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream, hidden in ((io.StringIO(), False), (Terminal(), True)):
        monkeypatch.setattr("sys.stderr", stream)
        with shown_progress(hidden=hidden) as progress:
            progress("downloading", 1, 2)
        assert stream.getvalue() == ""


def test_sizes_are_read_in_units() -> None:
    assert [size(count) for count in (0, 1023, 1024, 5 << 20, 3 << 40)] == [
        "0 bytes",
        "1023 bytes",
        "1.0 KiB",
        "5.0 MiB",
        "3072.0 GiB",
    ]
