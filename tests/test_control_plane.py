"""The control plane on a real Ray: jobs go their whole way, and nothing that is killed loses one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Home

pytestmark = pytest.mark.cluster
TOKEN = "c" * 40


def _free_port() -> int:
    """Below the range that Ray gives to its workers, and in this file's own."""
    for port in range(31000, 31999):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


CLIENT = """
import json, sys, ray
from eagleray.control.actor import connect
from eagleray.control.commands import SYSTEM
from eagleray.contract.errors import EaglerayError
ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
commands = connect()
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    name, arguments, keywords = json.loads(line)
    if name == "pid":
        from eagleray.control.remote import NAME, NAMESPACE
        from ray.util.state import list_actors
        found = [a for a in list_actors(filters=[("name", "=", NAME), ("state", "=", "ALIVE")])]
        answer = {"value": found[0].pid if found else None}
    else:
        own = [] if name in ("record", "admission", "wait_for_events", "health") else [SYSTEM]
        try:
            answer = {"value": getattr(commands, name)(*own, *arguments, **keywords)}
        except EaglerayError as error:
            answer = {"error": [error.code, error.message]}
    print(json.dumps(answer), flush=True)
"""


@dataclass
class Cluster:
    """A head of two CPUs, and a process that is connected to it and calls the control plane."""

    environ: dict[str, str]
    home: Home
    client: subprocess.Popen[str]

    def call(self, name: str, *arguments: Any, **keywords: Any) -> Any:
        import json

        assert self.client.stdin is not None and self.client.stdout is not None
        self.client.stdin.write(json.dumps([name, arguments, keywords]) + "\n")
        self.client.stdin.flush()
        # Ray prints there too, of a worker that died, say.
        answer = json.loads(next(line for line in self.client.stdout if line.startswith("{")))
        assert "value" in answer, answer
        return answer["value"]

    def job(self, job_id: int) -> Any:
        from eagleray.control.database.opening import open_read_only
        from eagleray.control.queries import Queries

        engine = open_read_only(f"sqlite:///{self.home.path}/control/eagleray.db", self.home.path)
        try:
            return Queries(engine).get_job(job_id), Queries(engine).attempts(job_id), Queries(engine)
        finally:
            engine.dispose()

    def until(self, job_id: int, wanted: Callable[[Any], bool], timeout_s: float = 240) -> Any:
        deadline = time.monotonic() + timeout_s
        while True:
            view, attempts, _ = self.job(job_id)
            if wanted(view):
                return view
            assert time.monotonic() < deadline, (view, attempts)
            time.sleep(0.2)


@pytest.fixture
def cluster(home: Home, tmp_path: Path) -> Iterator[Cluster]:
    gcs, temp = _free_port(), Path("/tmp") / f"ec-{os.getpid()}"
    environ = {
        **home.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }
    head = [str(Path(sys.executable).with_name("ray")), "start", "--block", "--head", f"--port={gcs}", "--num-cpus=2"]
    head += [
        f"--dashboard-port={gcs + 1}",
        f"--temp-dir={temp}",
        "--disable-usage-stats",
        f"--ray-client-server-port={gcs + 2}",
    ]
    head += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
    log = (tmp_path / "ray.log").open("w")
    ray = subprocess.Popen(head, env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    environ |= {"RAY_ADDRESS": f"127.0.0.1:{gcs}", "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{gcs + 1}"}
    client = None
    said = (tmp_path / "client.log").open("w")
    try:
        deadline = time.monotonic() + 90
        while "Ray runtime started" not in (tmp_path / "ray.log").read_text():
            assert time.monotonic() < deadline, (tmp_path / "ray.log").read_text()[-3000:]
            time.sleep(0.3)
        client = subprocess.Popen(
            [sys.executable, "-c", CLIENT],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        )
        assert client.stdout is not None
        assert "ready" in client.stdout.readline(), (tmp_path / "client.log").read_text()[-3000:]
        yield Cluster(environ, home, client)
    finally:
        if client is not None:
            client.kill()
            client.communicate()
        ray.send_signal(signal.SIGTERM)
        try:
            ray.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(ray.pid, signal.SIGKILL)
            ray.wait()
        log.close()
        said.close()
        subprocess.run(["rm", "-rf", str(temp)], check=False)


def spec(pictures: Path, **advanced: Any) -> dict[str, Any]:
    epochs = advanced.pop("epochs", 4)
    return {
        "framework": "echo",
        "model_name": "echo-linear",
        "dataset_path": str(pictures),
        "epochs": epochs,
        "batch_size": 4,
        "pretrained": False,
        "advanced_config": advanced,
    }


def worker_pids(folder: str) -> list[int]:
    """Ray Train's workers of the cluster whose environment names `folder`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                title, environ = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
            except OSError:
                continue
            if b"RayTrainWorker" in title and folder.encode() in environ:
                found.append(int(entry.name))
    return found


@pytest.mark.timeout(1800)
def test_jobs_go_their_whole_way_whatever_is_killed(
    cluster: Cluster, home: Home, pictures: Path, tmp_path: Path
) -> None:
    """One story, for a start of the cluster takes as long as all its steps."""
    one_job_for_one_key_runs_to_its_end(cluster, pictures)
    a_control_plane_that_dies_adopts_what_runs(cluster, pictures)
    a_worker_that_dies_is_followed_from_the_checkpoint(cluster, home, pictures)
    last = stop_saves_and_resume_goes_on(cluster, pictures)
    a_job_of_ray_job_submit_is_one_like_any_other(cluster, pictures, tmp_path, last + 1)
    cancel_is_at_once(cluster, home, pictures)


def begin(cluster: Cluster, pictures: Path, **config: Any) -> int:
    return int(cluster.call("create_job", spec(pictures, **config), start=True)["id"])


def one_job_for_one_key_runs_to_its_end(cluster: Cluster, pictures: Path) -> None:
    job_id = cluster.call("create_job", spec(pictures, noise_lines=3), start=True, idempotency_key="one")["id"]
    again = cluster.call("create_job", spec(pictures, noise_lines=3), start=True, idempotency_key="one")["id"]
    assert again == job_id
    view = cluster.until(job_id, lambda view: view.phase.is_terminal)
    assert (view.phase, view.epochs_done, view.attempt_count) == ("completed", 4, 1), view
    _, _, queries = cluster.job(job_id)
    assert [point.epoch for point in queries.metrics(job_id, ["accuracy"])] == [1, 2, 3, 4]
    assert "echo epoch 2 line 3" in [line.text for line in queries.logs(job_id, rank=0)]
    assert view.artifacts.last and Path(view.artifacts.last).is_file()


def a_control_plane_that_dies_adopts_what_runs(cluster: Cluster, pictures: Path) -> None:
    job_id = begin(cluster, pictures, delay_s=0.5)
    cluster.until(job_id, lambda view: view.epochs_done >= 1)
    pid = cluster.call("pid")
    os.kill(pid, signal.SIGKILL)
    view = cluster.until(job_id, lambda view: view.phase.is_terminal)
    assert (view.phase, view.attempt_count) == ("completed", 1)
    _, _, queries = cluster.job(job_id)
    assert [point.epoch for point in queries.metrics(job_id, ["accuracy"])] == [1, 2, 3, 4]
    assert cluster.call("pid") not in (None, pid)


def a_worker_that_dies_is_followed_from_the_checkpoint(cluster: Cluster, home: Home, pictures: Path) -> None:
    job_id = begin(cluster, pictures, delay_s=0.5)
    cluster.until(job_id, lambda view: view.resumable and view.epochs_done >= 2)
    for worker in worker_pids(str(home.path)):
        os.kill(worker, signal.SIGKILL)
    view = cluster.until(job_id, lambda view: view.phase.is_terminal)
    _, attempts, queries = cluster.job(job_id)
    assert (view.phase, [attempt.outcome for attempt in attempts]) == ("completed", ["worker-lost", "completed"])
    assert attempts[1].resumed_from_epoch is not None and attempts[1].resumed_from_epoch >= 1
    assert [point.epoch for point in queries.metrics(job_id, ["accuracy"])] == [1, 2, 3, 4]


def stop_saves_and_resume_goes_on(cluster: Cluster, pictures: Path) -> int:
    job_id = begin(cluster, pictures, delay_s=0.5)
    cluster.until(job_id, lambda view: view.resumable and view.epochs_done >= 1)
    cluster.call("stop_job", job_id)
    view = cluster.until(job_id, lambda view: view.phase.is_terminal)
    assert (view.phase, view.resumable) == ("cancelled", True)
    cluster.call("resume_job", job_id)
    view = cluster.until(job_id, lambda view: view.phase.is_terminal)
    assert (view.phase, view.epochs_done) == ("completed", 4)
    return job_id


def a_job_of_ray_job_submit_is_one_like_any_other(
    cluster: Cluster, pictures: Path, tmp_path: Path, job_id: int
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(yaml.safe_dump(spec(pictures, epochs=2)))
    submitted = subprocess.run(
        ["ray", "job", "submit", "--submission-id", "mine", "--", "eagleray", "run", str(file)],
        env=cluster.environ,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=300,
    )
    assert submitted.returncode == 0, submitted.stdout[-3000:]
    view = cluster.until(job_id, lambda view: view.phase.is_terminal)
    _, attempts, _ = cluster.job(job_id)
    assert (view.phase, [attempt.submission_id for attempt in attempts]) == ("completed", ["mine"])


def cancel_is_at_once(cluster: Cluster, home: Home, pictures: Path) -> None:
    job_id = begin(cluster, pictures, delay_s=20.0)
    cluster.until(job_id, lambda view: view.phase == "running")
    cluster.call("cancel_job", job_id)
    deadline = time.monotonic() + 40
    while worker_pids(str(home.path)):
        assert time.monotonic() < deadline, "its worker still runs"
        time.sleep(0.5)
    assert cluster.job(job_id)[0].phase == "cancelled"
