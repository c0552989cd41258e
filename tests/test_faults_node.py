"""F8: a node is killed under a job, and the job goes on on another one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from .conftest import Home
from .running_server import JOBS, Running, server_of

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(900)]


class Node:
    """`ray start --address` in a process group of its own, with one CPU."""

    def __init__(self, server: Running, folder: Path, name: str) -> None:
        state, self.log = server.state, folder / f"{name}.log"
        environ = server.home.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN_PATH": str(server.home.path / "server" / "ray-token"),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
            "RAY_RUNTIME_ENV_PLUGINS": '[{"class":"eagleray.execution.runtime_env.EnvironmentPlugin"}]',
            "EAGLERAY_STORAGE": str(server.home.path / "storage"),
            # So that `down` ends what this test would leave.
            "EAGLERAY_CLUSTER": state["mark"],
        }
        command = [str(Path(sys.executable).with_name("ray")), "start", "--block", f"--address={state['address']}"]
        command += ["--node-ip-address=127.0.0.1", "--num-cpus=1", "--disable-usage-stats"]
        command += ["--min-worker-port=0", "--max-worker-port=0", "--dashboard-agent-listen-port=0"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                command, env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while "Ray runtime started" not in self.log.read_text():
            assert time.monotonic() < deadline and self.process.poll() is None, self.log.read_text()[-3000:]
            time.sleep(0.3)

    def kill(self) -> None:
        """kill -9 of the whole group at once: `ray start`, its raylet, its agents and its workers."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(home: Home) -> Iterator[Running]:
    # A head without CPUs of its own, so workers are where they can be killed.
    with server_of(home, cpus=0) as found:
        yield found


def test_f8_a_job_goes_on_on_another_node_behind_its_last_checkpoint(
    server: Running, pictures: Path, tmp_path: Path
) -> None:
    nodes = [Node(server, tmp_path, "first")]
    try:
        job = server.create(pictures, epochs=6, advanced_config={"delay_s": 0.3})
        server.until(job, lambda found: found["resumable"] and found["epochs_done"] >= 2)
        server.look(job)
        nodes[0].kill()
        server.history.mark("killed the only node with CPUs")
        waiting = server.until(job, lambda found: found["phase"] == "queued" or found["attempt_count"] > 1)
        assert waiting["status"] == "pending", waiting
        nodes.append(Node(server, tmp_path, "second"))
        done = server.ended(job, timeout_s=300)
        assert (done["status"], done["epochs_done"]) == ("completed", 6), done
        attempts = server.attempts(job)
        assert attempts[0]["outcome"] in ("preemption", "worker-lost"), attempts
        assert attempts[-1]["resumed_from_epoch"] >= 1
        assert server.request("GET", f"{JOBS}/{job}").status_code == 200
        server.check()
    finally:
        for node in nodes:
            node.kill()
