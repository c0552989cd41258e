"""A running Ray cluster: a head without CPUs, and a node from a venv that has just Ray and the core."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import httpx
import uv
import yaml

from eagleray.execution.starting import start_again

from .conftest import Home

CONFIG = Path(__file__).parents[1] / "serve" / "config.yaml"
CORE = Path(__file__).parents[1] / "core"
PORTS = ("--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0", "--disable-usage-stats")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class RunningCluster:
    """Several `ray start`s: a head without CPUs, and nodes from a venv without any plugin."""

    environ: dict[str, str]
    dashboard: str
    address: str
    log: Path
    # Each in a process group of its own, the head first.
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self, command: Sequence[object], more: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """`ray start --block …`, until it runs."""
        process = start_again(lambda: self._begin(list(map(str, command)), {**self.environ, **more}))
        self.started.append(process)
        return process

    def _begin(self, command: list[str], environ: dict[str, str]) -> subprocess.Popen[bytes]:
        with self.log.open("a") as log:
            process = subprocess.Popen(
                command, env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        while process.poll() is None:
            if self.log.read_text().count("Ray runtime started") > len(self.started):
                return process
            time.sleep(0.5)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # what it had begun
        raise AssertionError(self.log.read_text()[-3000:])

    def add_node(
        self, venv: Path, cpus: int, more: Mapping[str, str] = MappingProxyType({})
    ) -> subprocess.Popen[bytes]:
        command = [venv / "bin" / "ray", "start", "--block", f"--address={self.address}", f"--num-cpus={cpus}", *PORTS]
        return self.start(command, more)

    def deploy(self) -> int:
        """`serve deploy serve/config.yaml`; its port once it answers, another than the file's, which may be taken."""
        config, port = yaml.safe_load(CONFIG.read_text()), _free_port()
        config["http_options"]["port"] = port
        file = self.log.with_name("config.yaml")
        file.write_text(yaml.safe_dump(config))
        serve = [str(Path(sys.executable).with_name("serve")), "deploy", "--address", self.dashboard, str(file)]
        done = subprocess.run(serve, env=self.environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        deadline = time.monotonic() + 120
        while True:
            with suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=10).status_code == 200:
                    return port
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.5)

    def submit(self, *command: str, job_id: str, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        ray = Path(sys.executable).with_name("ray")
        return subprocess.run(
            [ray, "job", "submit", "--address", self.dashboard, "--submission-id", job_id, "--", *command],
            env=self.environ,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
        )

    def stop(self, job_id: str) -> None:
        """`ray job stop`, until the job has ended."""
        ray = str(Path(sys.executable).with_name("ray"))
        command = [ray, "job", "stop", "--address", self.dashboard, job_id]
        subprocess.run(command, env=self.environ, check=True, stdout=subprocess.DEVNULL, timeout=120)


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
    head = [Path(sys.executable).with_name("ray"), "start", "--block", "--head", f"--port={gcs}", "--num-cpus=0"]
    head += [f"--dashboard-port={dashboard}", f"--temp-dir={temp}", f"--ray-client-server-port={client}", *PORTS]
    cluster = RunningCluster(environ, f"http://127.0.0.1:{dashboard}", f"127.0.0.1:{gcs}", folder / "ray.log")
    try:
        cluster.start(head, on_head or {})
        for variables in on_nodes:
            cluster.add_node(node, 2 // len(on_nodes), variables)
        yield cluster
    finally:
        for process in reversed(cluster.started):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        subprocess.run(["rm", "-rf", str(temp)], check=False)
