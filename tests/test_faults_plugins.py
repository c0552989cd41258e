"""F26: a plugin of a stranger that misbehaves takes its own job with it, and nothing else (I1 to I7 after each)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .running_server import DRIVER, JOBS, WORKER, Running, home_at, server_of
from .stranger_plugin import write_stranger

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(900)]
SHOUTED_BYTES = 100_000_000
LOG_BYTES = 2 << 20
# A driver takes some 150 MB, and its line to the control plane is bounded by 64 MiB.
DRIVER_BYTES = 500 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, environments: Path) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("plugins")
    path = write_stranger(folder / "stranger")
    home = home_at(folder, environments, path, EAGLERAY_CONTROL_LOG_BYTES=str(LOG_BYTES))
    with server_of(home) as found:
        yield found


@pytest.fixture(autouse=True)
def core_is_unaffected(server: Running, pictures: Path) -> Iterator[None]:
    """The invariants hold, every part of the server is well, and the next job of another plugin runs."""
    yield
    health = server.request("GET", "/api/v1/health").json()
    assert {name for name, part in health["parts"].items() if not part["ok"]} == set(), health
    server.check()


def stranger(server: Running, pictures: Path, trouble: str, **changes: Any) -> int:
    config = {"trouble": trouble}
    return server.create(pictures, framework="stranger", epochs=3, advanced_config=config, **changes)


def test_one_that_raises_fails_with_its_own_words_and_is_not_tried_again(server: Running, pictures: Path) -> None:
    """C16"""
    job = server.ended(stranger(server, pictures, "raise"))
    assert (job["status"], job["failure_kind"], job["attempt_count"]) == ("failed", "plugin", 1), job
    assert "a stranger's own mistake" in job["error_message"]
    text = (server.home.job(job["id"]) / "logs" / "attempt-1-error.txt").read_text()
    assert "in _raise" in text, "the traceback is kept"


@pytest.mark.parametrize("trouble", ["segfault", "leave"])
def test_one_that_dies_is_tried_again_as_often_as_was_asked_and_then_fails(
    server: Running, pictures: Path, trouble: str
) -> None:
    """C17"""
    job = server.ended(stranger(server, pictures, trouble, max_failures=1))
    assert (job["status"], job["failure_kind"]) == ("failed", "worker-lost"), job
    attempts = server.attempts(job["id"])
    assert [each["outcome"] for each in attempts] == ["worker-lost", "worker-lost"]
    # What was saved before its death is kept: another try would begin there.
    assert attempts[1]["resumed_from_epoch"] == 1
    assert job["resumable"]


def test_one_that_prints_a_hundred_megabytes_at_once_costs_neither_memory_nor_its_job(
    server: Running, pictures: Path
) -> None:
    """C18"""
    job_id = stranger(server, pictures, "shout")
    with peak_memory(server, DRIVER) as peak:
        job = server.ended(job_id)
    assert (job["status"], job["epochs_done"]) == ("completed", 3), job
    assert 0 < peak[0] < DRIVER_BYTES
    lines = server.request("GET", f"{JOBS}/{job_id}/logs", params={"rank": 0, "tail": 1000}).json()["items"]
    assert any("more lines are in the log file" in line["text"] for line in lines[-2:]), lines[-2:]
    whole = server.home.job(job_id) / "logs" / "attempt-1-worker-0.log"
    assert whole.stat().st_size >= SHOUTED_BYTES
    database = server.home.path / "control" / "eagleray.db"
    assert database.stat().st_size < 10 * LOG_BYTES


def test_one_that_hangs_while_it_is_imported_is_ended_by_a_cancel(server: Running, pictures: Path) -> None:
    job = server.create(pictures, framework="hanging", epochs=1)
    deadline = time.monotonic() + 120
    while not server.processes(WORKER):
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.2)
    # Meanwhile others train.
    assert server.ended(server.create(pictures, epochs=1))["status"] == "completed"
    assert server.request("POST", f"{JOBS}/{job}/cancel").status_code == 200
    assert server.ended(job)["status"] == "cancelled"


@contextmanager
def peak_memory(server: Running, text: bytes) -> Iterator[list[int]]:
    """Resident bytes of the largest process whose command line holds `text`, in a list of one, while the block runs."""
    peak, over = [0], threading.Event()

    def watch() -> None:
        while not over.wait(0.2):
            for pid in server.processes(text):
                try:
                    status = Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue
                found = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
                peak[0] = max(peak[0], *(int(number) << 10 for number in found), 0)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()
