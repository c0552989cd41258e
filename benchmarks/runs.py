"""What the benchmarks share: a home of their own, a Ray head of their own, and runs of the CLI that are watched."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eagleray.testing.data import write_classification_dataset

BIN = Path(sys.executable).parent
EAGLERAY, RAY = str(BIN / "eagleray"), str(BIN / "ray")
PLUGIN = '[{"class":"eagleray.execution.runtime_env.EnvironmentPlugin"}]'


@dataclass(frozen=True)
class Home:
    """A temporary `EAGLERAY_HOME`, whose path in a process's environment says that the process is ours."""

    path: Path
    environ: dict[str, str]

    @property
    def pictures(self) -> Path:
        return self.path / "pictures"

    @property
    def jobs(self) -> Path:
        return self.path / "storage" / "checkpoints" / "test-jobs"

    def worker_logs(self) -> set[Path]:
        return set(self.path.glob("logs/job-*/attempt-*-worker-0.log"))

    def processes(self) -> list[int]:
        """Live processes of this home, this one excepted."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    if str(self.path).encode() in (entry / "environ").read_bytes():
                        found.append(int(entry.name))
                except OSError:
                    continue
        return found


@contextmanager
def temporary_home(environments: str | None) -> Iterator[Home]:
    """A home in a short temporary folder, with `environments` as its built ones; its processes end with it."""
    # So that a benchmark that is ended early ends its Ray, too.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    # Ray's socket paths end at 107 characters, so the folder stays short.
    folder = Path(tempfile.mkdtemp(prefix="er-bench-"))
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "EAGLERAY_"))}
    environ |= {"EAGLERAY_HOME": str(folder), "NO_COLOR": "1", "RAY_USAGE_STATS_ENABLED": "0"}
    home = Home(folder, environ)
    if environments:
        (folder / "envs").symlink_to(Path(environments).resolve())
    write_classification_dataset(home.pictures, images=16, size=32)
    try:
        yield home
    finally:
        end(home)
        shutil.rmtree(folder, ignore_errors=True)


def end(home: Home) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        for process in home.processes():
            try:
                os.kill(process, number)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + 10
        while home.processes() and time.monotonic() < deadline:
            time.sleep(0.1)


@contextmanager
def private_cluster(home: Home, port: int) -> Iterator[dict[str, str]]:
    """A Ray head on ports from `port` upwards, set up as docs/cluster.md says; yields a client's environment."""
    environ = home.environ | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_RUNTIME_ENV_PLUGINS": PLUGIN,
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "PATH": f"{BIN}{os.pathsep}{home.environ['PATH']}",
    }
    ports = (
        "port",
        "dashboard-port",
        "ray-client-server-port",
        "object-manager-port",
        "node-manager-port",
        "dashboard-agent-listen-port",
        "dashboard-agent-grpc-port",
        "runtime-env-agent-port",
        "metrics-export-port",
    )
    options = [f"--{name}={port + number}" for number, name in enumerate(ports)]
    command = [RAY, "start", "--head", "--node-ip-address=127.0.0.1", "--include-dashboard=true", *options]
    command += [f"--min-worker-port={port + 100}", f"--max-worker-port={port + 599}", f"--temp-dir={home.path}/ray"]
    with (home.path / "ray-start.log").open("w") as log:
        if subprocess.run(command, env=environ, stdout=log, stderr=subprocess.STDOUT, timeout=180).returncode:
            raise SystemExit((home.path / "ray-start.log").read_text())
    try:
        yield environ | {
            "RAY_ADDRESS": f"127.0.0.1:{port}",
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{port + 1}",
        }
    finally:
        end(home)


def echo(home: Home, epochs: int, *, data: str | None = None, pretrained: bool = False, **config: float) -> list[str]:
    """Arguments of `eagleray train` for the numpy-only framework, four pictures a step; `data`: default 16 pictures."""
    command = ["train", "--framework", "echo", "--model", "echo-linear", "--data", data or str(home.pictures)]
    command += ["--epochs", str(epochs), "--batch-size", "4", "--pretrained" if pretrained else "--no-pretrained"]
    for name, value in config.items():
        command += ["--set", f"{name}={value}"]
    return command


@contextmanager
def started(command: list[str], environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A command in a process group of its own, waited for at the end, and killed where an error ends the block."""
    process = subprocess.Popen(
        command, env=environ, text=True, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        yield process
        _, errors = process.communicate(timeout=300)
        if process.returncode:
            raise SystemExit(f"{command[:4]} ended with {process.returncode}: {errors[-3000:]}")
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def events(process: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """The objects of a run with `--json`, each as it comes, with `at`, its `time.perf_counter()`."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("{"):
            yield {"at": time.perf_counter(), **json.loads(line)}


def first_line(home: Home, environ: dict[str, str], command: list[str]) -> float:
    """Seconds until the worker of a run of `command` prints echo's first line of its first epoch (`noise_lines=1`)."""

    # Each store counts its jobs from 1, so jobs of two stores write to logs of one name.
    def lines() -> int:
        return sum(log.read_text(errors="replace").count("echo epoch 1 line 1") for log in home.worker_logs())

    known = lines()
    began = time.perf_counter()
    with started(command, environ):
        return seconds_until(lambda: lines() > known, began)


def seconds_until(seen: Callable[[], bool], began: float, timeout_s: float = 300) -> float:
    """Seconds from `began` until `seen`, which is asked every 5 ms."""
    while not seen():
        if time.perf_counter() - began > timeout_s:
            raise SystemExit(f"nothing was seen in {timeout_s:.0f} s")
        time.sleep(0.005)
    return time.perf_counter() - began
