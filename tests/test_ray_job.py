"""`ray job submit -- eagleray run job.yaml` on a running cluster whose worker node has only Ray and the core."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import uv
import yaml

from .conftest import Home

pytestmark = pytest.mark.cluster
CORE = Path(__file__).parents[1] / "core"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(log: Path, nodes: int) -> None:
    deadline = time.monotonic() + 90
    while log.read_text().count("Ray runtime started") < nodes:
        assert time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.5)


@dataclass
class RunningCluster:
    """Two `ray start`s: a head without CPUs, and a node from a venv without any plugin."""

    environ: dict[str, str]
    dashboard: str

    def submit(self, *command: str, job_id: str) -> subprocess.CompletedProcess[str]:
        ray = Path(sys.executable).with_name("ray")
        return subprocess.run(
            [ray, "job", "submit", "--address", self.dashboard, "--submission-id", job_id, "--", *command],
            env=self.environ,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=300,
        )


@pytest.fixture
def running_cluster(home: Home, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    node = tmp_path_factory.mktemp("node") / "venv"
    uv_bin = uv.find_uv_bin()
    subprocess.run([uv_bin, "venv", "-q", "--python", sys.executable, node], check=True)
    subprocess.run([uv_bin, "pip", "install", "-q", "--python", node / "bin" / "python", CORE], check=True)
    gcs, dashboard, client = _free_port(), _free_port(), _free_port()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    token = "t" * 40
    environ = {
        **home.environ,
        "PATH": path,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    }
    temp = Path("/tmp") / f"er-{os.getpid()}"
    ports = ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0", "--disable-usage-stats"]
    head = [Path(sys.executable).with_name("ray"), "start", "--block", "--head", f"--port={gcs}", "--num-cpus=0"]
    head += [f"--dashboard-port={dashboard}", f"--temp-dir={temp}", f"--ray-client-server-port={client}", *ports]
    worker = [node / "bin" / "ray", "start", "--block", f"--address=127.0.0.1:{gcs}", "--num-cpus=2", *ports]
    log = (tmp_path / "ray.log").open("w")
    started = []
    try:
        for command in (head, worker):
            started.append(
                subprocess.Popen(
                    list(map(str, command)),
                    env=environ,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
            _wait_for(tmp_path / "ray.log", len(started))
        yield RunningCluster(environ, f"http://127.0.0.1:{dashboard}")
    finally:
        for process in reversed(started):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        log.close()
        subprocess.run(["rm", "-rf", str(temp)], check=False)


def test_a_job_file_runs_on_a_node_that_has_only_ray_and_the_core(
    home: Home, pictures: Path, tmp_path: Path, running_cluster: RunningCluster
) -> None:
    job = tmp_path / "job.yaml"
    spec = {
        "framework": "echo",
        "model_name": "echo-linear",
        "dataset_path": str(pictures),
        "epochs": 2,
        "batch_size": 4,
        "pretrained": False,
        "project_id": "birds",
    }
    job.write_text(yaml.safe_dump(spec))
    submitted = running_cluster.submit("eagleray", "run", str(job), job_id="echo-1")
    assert submitted.returncode == 0, submitted.stdout[-3000:] + (tmp_path / "ray.log").read_text()[-2000:]
    record = home.record(1)
    assert (record["status"], record["project_id"]) == ("completed", "birds")
    prefix = home.path / "storage" / "checkpoints" / "projects" / "birds" / "jobs" / "1"
    assert {path.name for path in prefix.glob("*.pt")} == {"best.pt", "last.pt"}
    assert "epoch 2/2" in submitted.stdout, "the driver's lines are the job's log"
