"""Things killed under one server (F1, F2, F6, F7, F12, frozen workers), and the invariants I1 to I7 after each."""

from __future__ import annotations

import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from eagleray.client import Client

from .running_server import DRIVER, JOBS, WORKER, Running, home_at, server_of
from .stranger_plugin import write_stranger

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(900)]
KILLS = int(os.environ.get("EAGLERAY_TEST_KILLS", "3"))
SEED = int(os.environ.get("EAGLERAY_TEST_SEED", "0")) or random.randrange(1, 1_000_000)
LEASE_S, SILENCE_S = 3.0, 8.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, environments: Path) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("faults")
    settings = {"EAGLERAY_CONTROL_LEASE_S": str(LEASE_S), "EAGLERAY_CONTROL_SILENCE_S": str(SILENCE_S)}
    path = write_stranger(folder / "stranger")
    with server_of(home_at(folder, environments, path, **settings)) as found:
        yield found


@pytest.fixture(autouse=True)
def history(server: Running) -> Iterator[None]:
    """The invariants at the end of each test that came to its end."""
    yield
    server.check()


def test_f1_workers_killed_at_random_steps_cost_at_most_what_was_not_saved(server: Running, pictures: Path) -> None:
    print(f"EAGLERAY_TEST_SEED={SEED}")
    chance = random.Random(SEED)
    job = server.create(pictures, epochs=3 * KILLS, max_failures=3 * KILLS, advanced_config={"delay_s": 0.1})
    for number in range(1, KILLS + 1):
        server.until(job, lambda found: (found["attempt_count"], found["phase"]) == (number, "running"))  # noqa: B023 - called at once
        time.sleep(chance.uniform(0.0, 2.0))
        assert server.kill(WORKER), server.log()
        server.until(job, lambda found: found["attempt_count"] > number or found["status"] == "failed")  # noqa: B023 - called at once
    done = server.ended(job)
    assert (done["status"], done["attempt_count"]) == ("completed", KILLS + 1), done
    assert [each["outcome"] for each in server.attempts(job)] == ["worker-lost"] * KILLS + ["completed"]


def test_f2_a_worker_that_dies_anywhere_in_a_checkpoint_leaves_the_earlier_one_or_the_whole_one(
    server: Running, pictures: Path, tmp_path: Path
) -> None:
    deaths = {2: "save", 3: "ckpt.after_file", 4: "ckpt.before_manifest", 5: "ckpt.after_manifest"}
    (tmp_path / "markers").mkdir()
    # Checkpoints are sent beside training: an epoch takes long enough that each has gone before the next is saved.
    config = {"deaths": deaths, "markers": str(tmp_path / "markers"), "delay_s": 0.2}
    job = server.create(pictures, framework="stranger", epochs=6, max_failures=8, advanced_config=config)
    done = server.ended(job)
    assert done["status"] == "completed", done
    attempts = server.attempts(job)
    assert [each["outcome"] for each in attempts] == ["worker-lost"] * len(deaths) + ["completed"]
    # Half a save counts for nothing; what lay whole in the outbox of a dead worker is sent by its successor.
    resumed = [each["resumed_from_epoch"] for each in attempts]
    assert resumed[:2] == [None, 1]
    # Training goes on while the checkpoint of epoch 5 is sent, so that of epoch 6 may lie in the outbox, too.
    assert resumed[-1] >= 5
    assert resumed[1:] == sorted(resumed[1:])


def test_an_epoch_that_was_saved_and_never_told_is_in_the_curve(
    server: Running, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "markers").mkdir()
    config = {"deaths": {2: "ckpt.after_manifest"}, "markers": str(tmp_path / "markers")}
    job = server.create(pictures, framework="stranger", epochs=3, advanced_config=config)
    assert server.ended(job)["status"] == "completed"
    points = server.request("GET", f"{JOBS}/{job}/metrics", params={"keys": "accuracy"}).json()["items"]
    assert [point["epoch"] for point in points] == [1, 2, 3]


def test_f12_an_answer_that_never_arrives_is_asked_for_again_and_makes_one_job(server: Running, pictures: Path) -> None:
    before = job_ids(server)
    with cutting_proxy(server.port, cuts=1) as port:
        with pytest.raises(httpx.TransportError):
            server.create(pictures, key="lost-answer", port=port, epochs=1, start=False)
        first = server.create(pictures, key="lost-answer", port=port, epochs=1, start=False)
    assert server.create(pictures, key="lost-answer", epochs=1, start=False) == first
    assert job_ids(server) == before | {first}
    with cutting_proxy(server.port, cuts=2) as port, Client(f"http://127.0.0.1:{port}", server.key) as client:
        spec = {"framework": "echo", "model_name": "echo-linear", "dataset_path": str(pictures)}
        made = client.create_job(spec)["id"]
    assert job_ids(server) == before | {first, made}, "the Python client asks again by itself"
    for job in (first, made):
        assert server.request("POST", f"{JOBS}/{job}/cancel").status_code == 200


def job_ids(server: Running) -> set[int]:
    return {job["id"] for job in server.request("GET", JOBS, params={"limit": 200}).json()["items"]}


def test_a_frozen_attempt_is_replaced_and_cannot_write_when_it_thaws(server: Running, pictures: Path) -> None:
    job = server.create(pictures, epochs=8, max_failures=4, advanced_config={"delay_s": 0.2})
    server.until(job, lambda found: found["epochs_done"] >= 2)
    drivers, workers = server.kill(DRIVER, signal.SIGSTOP), server.kill(WORKER, signal.SIGSTOP)
    frozen = [*drivers, *workers]
    assert drivers and workers
    try:
        server.until(job, lambda found: found["attempt_count"] == 2 and found["epochs_done"] >= 3)
    finally:
        for pid in frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        server.history.mark(f"SIGCONT to {frozen}")
    done = server.ended(job)
    assert (done["status"], done["epochs_done"], done["attempt_count"]) == ("completed", 8, 2), done
    first, second = server.attempts(job)
    assert (first["outcome"], second["outcome"]) == ("worker-lost", "completed")
    assert second["resumed_from_epoch"] >= 2
    record = server.home.record(job)
    assert (record["status"], record["attempts"][-1]["number"]) == ("completed", 2)
    newest = server.home.job(job) / "attempts" / "2" / "epoch-00008" / "model.npz"
    assert (server.home.job(job) / "last.pt").read_bytes() == newest.read_bytes()


@pytest.mark.parametrize("with_disk", [False, True], ids=["f6_head", "f7_head_and_its_disk"])
def test_a_lost_head_costs_no_job(server: Running, pictures: Path, with_disk: bool) -> None:
    running = server.create(pictures, epochs=6, advanced_config={"delay_s": 0.3})
    # It wants the whole machine, so it waits.
    waiting = server.create(pictures, epochs=1, scaling={"cpus_per_worker": 3})
    server.until(running, lambda found: found["resumable"] and found["epochs_done"] >= 2)
    assert server.until(waiting, lambda found: True)["phase"] == "queued"
    server.look(running)
    server.lose_head(with_disk=with_disk)
    done = server.ended(running)
    assert (done["status"], done["epochs_done"]) == ("completed", 6), done
    attempts = server.attempts(running)
    assert attempts[-1]["resumed_from_epoch"] >= 1
    assert len(attempts) == 2
    assert server.ended(waiting)["status"] == "completed"


@contextmanager
def cutting_proxy(port: int, cuts: int) -> Iterator[int]:
    """A port that passes requests on; the first `cuts` answers never reach the client."""
    listener = socket.create_server(("127.0.0.1", 0))
    left = [cuts]

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=_carry, args=(client, port, left), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def _carry(client: socket.socket, port: int, left: list[int]) -> None:
    with client, socket.create_connection(("127.0.0.1", port)) as server, suppress(OSError):
        upward = threading.Thread(target=_copy, args=(client, server), daemon=True)
        upward.start()
        while data := server.recv(65536):
            if left[0] > 0:
                left[0] -= 1
                break
            client.sendall(data)
        # Closing alone says nothing to the other side while a thread still reads.
        client.shutdown(socket.SHUT_RDWR)


def _copy(source: socket.socket, target: Any) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
