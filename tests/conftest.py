"""One home for the whole session: plugins' environments are built once, jobs and stores are each test's own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from eagleray.testing.data import write_classification_dataset

QUICK_START = Path(__file__).parents[1] / "docs" / "quick-start.md"
EAGLERAY = str(Path(sys.executable).with_name("eagleray"))


@dataclass
class Training:
    """A run of the CLI with `--json`, in a process group of its own."""

    process: subprocess.Popen[str]
    events: list[dict[str, Any]] = field(default_factory=list)
    errors: str = ""

    def until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """The next event that is `wanted`; fails the test where the run ends before."""
        for event in self.stream():
            if wanted(event):
                return event
        raise AssertionError(f"the run ended first: {self.events[-3:]} {self.errors[-2000:]}")

    def stream(self) -> Iterator[dict[str, Any]]:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            event = json.loads(line)
            self.events.append(event)
            yield event

    def wait(self) -> int:
        for _ in self.stream():
            pass
        assert self.process.stderr is not None
        self.errors = self.process.stderr.read()
        return self.process.wait(60)

    def send(self, number: signal.Signals) -> None:
        """As a terminal does: to the whole process group, Ray's processes included."""
        os.killpg(self.process.pid, number)

    @property
    def was_killed(self) -> bool:
        return self.process.returncode == -signal.SIGKILL

    def of(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event.get("event") == kind]


@dataclass
class Home:
    """An `EAGLERAY_HOME` with a store of its own and the session's environments."""

    path: Path
    environ: dict[str, str]
    trainings: list[Training] = field(default_factory=list)

    def start(self, *arguments: str) -> Training:
        process = subprocess.Popen(
            [EAGLERAY, *arguments, "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environ,
            start_new_session=True,
        )
        training = Training(process)
        self.trainings.append(training)
        return training

    def run(self, *arguments: str) -> tuple[int, Training]:
        training = self.start(*arguments)
        return training.wait(), training

    def record(self, job_id: int) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.path / "storage" / "jobs" / f"{job_id}.json").read_text())
        return record

    def job(self, job_id: int) -> Path:
        return self.path / "storage" / "checkpoints" / "test-jobs" / f"job_{job_id}"

    def metrics(self, job_id: int) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.job(job_id) / "metrics.jsonl").read_text().splitlines()]


def _processes_of(folder: str) -> list[str]:
    """Command lines of processes whose environment names `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if folder.encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:120])
            except OSError:
                continue
    return found


def folders_of(process_id: int) -> list[Path]:
    """What the driver of that id has in the temp folder: the folders of its local cluster carry its id."""
    return list(Path(tempfile.gettempdir()).glob(f"eagleray-{process_id}-*"))


def documented_events(page: str) -> dict[str, set[str]]:
    """Event → what it holds, by the table of docs/quick-start.md."""
    table = page.partition("| event | holds |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE)
    return {name: set(re.findall(r"`(\w+)`", holds)) for name, holds in rows}


def undocumented(events: list[dict[str, Any]], page: str) -> list[str]:
    """Events that the table lacks, or that lack what it says they hold."""
    known = documented_events(page)
    named = [event for event in events if "event" in event]
    return [str(event) for event in named if event["event"] not in known or known[event["event"]] - event.keys()]


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("environments")


@pytest.fixture
def home(tmp_path: Path, environments: Path) -> Iterator[Home]:
    """A home that must be left without any process, work folder, or folder of a local cluster.

    A driver that the test has killed may leave its cluster's folder, which the next local cluster would remove.
    """
    path = tmp_path / "home"
    path.mkdir()
    (path / "envs").symlink_to(environments)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "EAGLERAY_"))}
    # Socket paths end at 107 characters, so Ray's own folder cannot lie in pytest's.
    found = Home(path, {**environ, "EAGLERAY_HOME": str(path), "NO_COLOR": "1"})
    yield found
    for training in found.trainings:
        if training.process.poll() is None:
            os.killpg(training.process.pid, signal.SIGKILL)
            training.process.wait()
        for stream in (training.process.stdout, training.process.stderr):
            if stream is not None:
                stream.close()
    # Ray's two agents of a node that was killed try for 60 s, fixed in Ray's code, to tell a GCS that is gone.
    deadline = time.monotonic() + 90
    while (left := _processes_of(str(path))) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not left, f"processes are left behind: {left}"
    assert not list((path / "work").glob("job-*")), "work folders are left behind"
    for training in found.trainings:
        folders = folders_of(training.process.pid)
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        assert training.was_killed or not folders, f"folders of the local cluster are left behind: {folders}"
        assert not undocumented(training.events, QUICK_START.read_text())


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_classification_dataset(folder, images=24, size=32)
    return folder


@pytest.fixture(scope="session")
def plain_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A venv that has just Ray and the core."""
    from .ray_cluster import make_plain_venv

    return make_plain_venv(tmp_path_factory.mktemp("node") / "venv")
