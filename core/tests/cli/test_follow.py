"""What a follower sees of a job, on a terminal, in a pipe and as JSON."""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import typer
from rich.console import Console

from eagleray.cli import follow as following
from eagleray.cli.display import JsonDisplay, LineDisplay
from eagleray.cli.follow import CurvesDisplay, follow, shown
from eagleray.client import Client

EPOCH = {
    "event": "epoch",
    "epochs": 9,
    "seconds": 2.0,
    "best": {"metric": "accuracy", "epoch": 1, "value": 0.5},
}
UNKNOWN = [
    {"event": "submission", "number": 1, "submission_id": "7-1"},
    {"event": "verbose"},
    {"event": "line"},
    {"event": "attempt", "attempt": 2, "number": 2},
    {"event": "progress", "epoch": 1},
    {"event": "epoch", "epoch": 1},
    {"event": "warning"},
]


@pytest.mark.parametrize("event", UNKNOWN, ids=lambda event: event["event"])
def test_an_event_of_another_release_is_not_shown_and_breaks_nothing(
    event: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LineDisplay(verbose=True).line(event) == ""
    display, _ = on_a_terminal(monkeypatch)
    display(event)
    display.close()


def on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> tuple[CurvesDisplay, io.StringIO]:
    screen = io.StringIO()
    terminal = functools.partial(Console, file=screen, force_terminal=True, width=80, height=40)
    monkeypatch.setattr(following, "Console", terminal)
    return CurvesDisplay(), screen


def test_a_terminal_shows_curves_and_the_newest_state(monkeypatch: pytest.MonkeyPatch) -> None:
    display, screen = on_a_terminal(monkeypatch)
    for epoch in range(1, 6):
        figures = {"accuracy": epoch / 10, "train_loss": 1 / epoch}
        display(EPOCH | {"epoch": epoch, "metrics": figures})
    display({"event": "progress", "epoch": 6, "epochs": 9, "step": 3, "steps": 40})
    display({"event": "warning", "message": "odd \x1b]0;title\x07picture"})
    display.close()
    text = screen.getvalue()
    assert "accuracy  0.5  (epochs 1–5)" in text
    assert "train_loss  0.2  (epochs 1–5)" in text
    assert any("⠁" <= character <= "⣿" for character in text)
    assert "epoch 6/9  step 3/40" in text
    assert "warning: odd" in text
    assert "\x1b]0;" not in text, "a worker cannot name the window"


class Interrupted(httpx.SyncByteStream):
    """A stream with one event, during which Ctrl-C is pressed."""

    def __iter__(self) -> Iterator[bytes]:
        event = {"seq": 1, "type": "phase", "attempt": None, "time": "now", "data": {"phase": "running"}}
        yield f"data: {json.dumps(event)}\n\n".encode()
        raise KeyboardInterrupt


@pytest.mark.parametrize("as_json", [False, True])
def test_leaving_a_job_says_that_it_goes_on(as_json: bool, capfd: pytest.CaptureFixture[str]) -> None:
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Interrupted()))
    with pytest.raises(typer.Exit) as left:
        follow(Client("http://server", "key", transport=transport), 7, as_json=as_json, verbose=False)
    said, noted = capfd.readouterr()
    assert left.value.exit_code == 0
    assert "job 7 goes on" in noted
    assert [json.loads(line)["phase"] for line in said.splitlines()] == ["running"] if as_json else said == "running\n"
    print("still here")
    assert capfd.readouterr().out == "still here\n", "standard output is where it was"


@pytest.mark.parametrize("as_json", [False, True])
def test_a_reader_that_goes_leaves_the_job_running(
    as_json: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def gone(display: Any, event: dict[str, Any]) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(JsonDisplay if as_json else LineDisplay, "__call__", gone)
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Interrupted()))
    with pytest.raises(typer.Exit) as left:
        follow(Client("http://server", "key", transport=transport), 7, as_json=as_json, verbose=False)
    assert left.value.exit_code == 0
    assert "job 7 goes on" in capfd.readouterr().err


def test_an_epoch_without_a_best_figure_is_shown() -> None:
    event = {"type": "epoch", "attempt": 1, "time": "now", "data": {**EPOCH, "epoch": 1, "best": {}, "metrics": {}}}
    assert LineDisplay().line(shown(event)).startswith("epoch 1/9  2s")
