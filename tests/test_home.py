"""What the fixture `home` holds every job of a test to."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from .conftest import QUICK_START, Training, documented_events, folders_of, undocumented

PAGE = "| event | holds |\n|---|---|\n| `epoch` | `epoch`, `metrics` |\n| `summary` | the whole record |\n\ntext\n"


def test_the_folder_of_a_local_cluster_belongs_to_the_driver_whose_id_it_carries(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    own = Path(tempfile.mkdtemp(prefix=f"eagleray-{os.getpid()}-"))
    tempfile.mkdtemp(prefix=f"eagleray-{os.getpid()}1-")
    assert folders_of(os.getpid()) == [own]


@pytest.mark.parametrize(("number", "killed"), [(signal.SIGKILL, True), (signal.SIGTERM, False)])
def test_only_a_driver_that_was_killed_may_leave_its_folder(number: signal.Signals, killed: bool) -> None:
    process = subprocess.Popen(["sleep", "60"], text=True)
    process.send_signal(number)
    process.wait()
    assert Training(process).was_killed is killed


@pytest.mark.parametrize(
    ("event", "known"),
    [
        ({"event": "epoch", "epoch": 1, "metrics": {}, "more": 1}, True),
        ({"event": "epoch", "epoch": 1}, False),
        ({"event": "worker"}, False),
        ({"event": "summary"}, True),
        ({"error": {}}, True),
    ],
)
def test_an_event_that_the_table_lacks_or_that_holds_less_than_it_says_is_seen(
    event: dict[str, object], known: bool
) -> None:
    assert (undocumented([event], PAGE) == []) is known


def test_the_quick_start_has_a_table_of_events() -> None:
    known = documented_events(QUICK_START.read_text())
    assert known["epoch"] >= {"epoch", "seconds", "metrics", "best"}
    assert len(known) > 8
