"""F8: a node is killed under a job, and the job goes on on another one."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from .conftest import Home
from .ray_cluster import start_cluster
from .running_server import JOBS, Running

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.fault, pytest.mark.timeout(900)]
MARK = "f8"


def test_f8_a_job_goes_on_on_another_node_behind_its_last_checkpoint(
    home: Home, pictures: Path, tmp_path: Path, plain_venv: Path
) -> None:
    home.environ["EAGLERAY_CLUSTER"] = MARK
    with start_cluster(home, tmp_path, plain_venv) as cluster:
        server = Running(home, cluster.deploy(), mark=MARK)
        job = server.create(pictures, epochs=6, advanced_config={"delay_s": 0.3})
        server.until(job, lambda found: found["resumable"] and found["epochs_done"] >= 2)
        server.look(job)
        # `ray start`, its raylet, its agents and its workers at once.
        os.killpg(cluster.started[-1].pid, signal.SIGKILL)
        server.history.mark("killed the only node with CPUs")
        waiting = server.until(job, lambda found: found["phase"] == "queued" or found["attempt_count"] > 1)
        assert waiting["status"] == "pending", waiting
        cluster.add_node(plain_venv, 2)
        done = server.ended(job, timeout_s=300)
        assert (done["status"], done["epochs_done"]) == ("completed", 6), done
        attempts = server.attempts(job)
        assert attempts[0]["outcome"] in ("preemption", "worker-lost"), attempts
        assert attempts[-1]["resumed_from_epoch"] >= 1
        assert server.request("GET", f"{JOBS}/{job}").status_code == 200
        server.check()
