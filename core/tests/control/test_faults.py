"""A real control plane killed, its disk filled and its server stopped (F4, F5, F11, F20–F23, F28)."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from eagleray.control.database.opening import open_database
from eagleray.control.queries import Queries
from eagleray.storage.failpoints import ENVIRONMENT_VARIABLE

pytestmark = pytest.mark.fault
SCRIPT = Path(__file__).with_name("standalone.py")
KILLS = int(os.environ.get("EAGLERAY_TEST_KILLS", "5"))


def start(folder: Path, what: str, count: int = 1, *before: str, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*before, sys.executable, str(SCRIPT), str(folder), what, str(count)],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(folder: Path, what: str, count: int = 1, *, failing: str = "") -> tuple[int, str]:
    process = start(folder, what, count, **({ENVIRONMENT_VARIABLE: failing} if failing else {}))
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def acknowledged(output: str) -> list[int]:
    return [int(line.split()[1]) for line in output.splitlines() if line.startswith("made ")]


def known(folder: Path, url: str | None = None) -> list[int]:
    engine = open_database(url or f"sqlite:///{folder / 'eagleray.db'}", folder)
    try:
        return sorted(view.id for view in Queries(engine).list_jobs(limit=100_000)[0])
    finally:
        engine.dispose()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "plane"
    made.mkdir()
    return made


@pytest.mark.parametrize(
    "arrow", ["control.before_submit", "control.after_submit", "control.before_commit", "control.after_commit"]
)
def test_killed_at_any_arrow_it_submits_exactly_once(folder: Path, arrow: str) -> None:
    assert run(folder, "create")[0] == 0
    code, output = run(folder, "tick", failing=f"{arrow}:kill")
    assert code == -signal.SIGKILL, output
    for _ in range(2):
        code, output = run(folder, "tick", 2)
        assert code == 0, output
    runs = {path.name: path.read_text() for path in (folder.parent / "plane-runs").iterdir()}
    assert runs == {"1-1": "started\n"}


@pytest.mark.parametrize("arrow", ["control.before_commit", "job.after_create"])
def test_killed_while_it_creates_nothing_that_was_not_acknowledged_runs(folder: Path, arrow: str) -> None:
    code, output = run(folder, "create", failing=f"{arrow}:kill")
    assert (code, acknowledged(output)) == (-signal.SIGKILL, []), output
    assert run(folder, "tick", 2)[0] == 0
    assert list((folder.parent / "plane-runs").iterdir()) == []
    _, output = run(folder, "create")
    assert known(folder) == acknowledged(output)


@pytest.mark.parametrize("arrow", ["control.before_stop", "control.after_stop"])
def test_killed_around_a_stop_it_asks_again(folder: Path, arrow: str) -> None:
    run(folder, "create")
    run(folder, "tick", 2)
    assert run(folder, "stop", failing=f"{arrow}:kill")[0] == -signal.SIGKILL
    assert run(folder, "tick", 2)[0] == 0
    assert (folder.parent / "plane-runs" / "1-1.stopped").exists()


@pytest.mark.slow
def test_a_writer_killed_again_and_again_loses_nothing_that_it_acknowledged(folder: Path) -> None:
    chance, made = random.Random(7), []
    for _ in range(KILLS):
        process = start(folder, "create", 100_000)
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        time.sleep(chance.uniform(0.05, 0.6))
        process.kill()
        output, _ = process.communicate()
        made += acknowledged(output)
    found = known(folder)
    assert set(made) <= set(found)
    assert len(made) > KILLS
    with sqlite3.connect(folder / "eagleray.db") as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


def test_a_lost_write_ahead_log_leaves_a_database_that_opens(folder: Path) -> None:
    process = start(folder, "create", 100_000)
    assert process.stdout is not None
    while not process.stdout.readline().startswith("made 5"):
        pass
    process.kill()
    process.communicate()
    (folder / "eagleray.db-wal").unlink()
    known(folder)
    code, output = run(folder, "create")
    assert code == 0 and acknowledged(output), output


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_refuses_and_forgets_nothing_and_goes_on_when_there_is_room(small_disk: Path) -> None:
    filler = small_disk / "filler"
    code, output = run(small_disk, "create", 3)
    assert code == 0, output
    free = shutil.disk_usage(small_disk).free
    filler.write_bytes(b"x" * max(free - 300_000, 0))
    process = start(small_disk, "create", 2000)
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("refused"):
            break
    assert lines[-1] == "refused DatabaseBusyError\n", lines[-3:]
    filler.unlink()
    lines += [process.stdout.readline() for _ in range(20)]
    process.kill()
    process.communicate()
    assert any(line.startswith("made") for line in lines[-10:]), "it goes on by itself"
    assert set(acknowledged(output) + acknowledged("".join(lines))) <= set(known(small_disk))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("fiu-run") is None, reason="needs Debian's fiu-utils")
def test_failing_writes_and_syncs_leave_a_database_that_opens_with_all_that_was_acknowledged(folder: Path) -> None:
    _, output = run(folder, "create", 3)
    made = acknowledged(output)
    for seed in range(3):
        faults = ["-c", "enable_random name=posix/io/rw/pwrite,probability=0.02,failinfo=5"]
        faults += ["-c", "enable_random name=posix/io/sync/*,probability=0.02,failinfo=28"]
        process = start(folder, "create", 200, "fiu-run", "-x", *faults, PYTHONHASHSEED=str(seed))
        try:
            output, _ = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            output, _ = process.communicate()
        made += acknowledged(output)
        with sqlite3.connect(folder / "eagleray.db") as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
        assert set(made) <= set(known(folder))


def test_a_second_control_plane_waits_for_the_first_and_takes_over(folder: Path) -> None:
    first = start(folder, "create", 100_000)
    assert first.stdout is not None and first.stdout.readline() == "ready\n"
    second = start(folder, "create", 1)
    time.sleep(1.5)
    assert second.poll() is None, "it waits"
    first.kill()
    made = acknowledged(first.communicate()[0])
    output, _ = second.communicate(timeout=60)
    assert second.returncode == 0
    assert set(made + acknowledged(output)) <= set(known(folder))
