"""A running Ray cluster: a head without CPUs, and a node from a venv that has just Ray and the core."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uv

from .conftest import Home

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
    """Several `ray start`s: a head without CPUs, and nodes from a venv without any plugin."""

    environ: dict[str, str]
    dashboard: str
    address: str

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


def make_plain_venv(folder: Path) -> Path:
    """A venv with the core, hence Ray, and no plugin."""
    tool = uv.find_uv_bin()
    subprocess.run([tool, "venv", "-q", "--python", sys.executable, folder], check=True)
    subprocess.run([tool, "pip", "install", "-q", "--python", folder / "bin" / "python", CORE], check=True)
    return folder


@contextmanager
def start_cluster(
    home: Home,
    folder: Path,
    node: Path,
    on_head: Mapping[str, str] | None = None,
    on_nodes: Sequence[Mapping[str, str]] = ({},),
) -> Iterator[RunningCluster]:
    """A head, and nodes with two CPUs in all from the venv `node`; variables of the head alone, and of each node."""
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
        "RAY_RUNTIME_ENV_PLUGINS": '[{"class": "eagleray.execution.runtime_env.EnvironmentPlugin"}]',
    }
    temp = Path("/tmp") / f"er-{os.getpid()}"
    ports = ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0", "--disable-usage-stats"]
    head = [Path(sys.executable).with_name("ray"), "start", "--block", "--head", f"--port={gcs}", "--num-cpus=0"]
    head += [f"--dashboard-port={dashboard}", f"--temp-dir={temp}", f"--ray-client-server-port={client}", *ports]
    cpus = f"--num-cpus={2 // len(on_nodes)}"
    worker = [node / "bin" / "ray", "start", "--block", f"--address=127.0.0.1:{gcs}", cpus, *ports]
    log = (folder / "ray.log").open("w")
    started = []
    try:
        for command, more in ((head, on_head or {}), *((worker, variables) for variables in on_nodes)):
            started.append(
                subprocess.Popen(
                    list(map(str, command)),
                    env={**environ, **more},
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )
            _wait_for(folder / "ray.log", len(started))
        yield RunningCluster(environ, f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}")
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
