"""`serve deploy serve/config.yaml` on a running cluster whose worker node has only Ray and the core."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import yaml

from .conftest import Home
from .ray_cluster import start_cluster
from .running_server import JOBS, SPEC, Running

pytestmark = pytest.mark.cluster


def test_jobs_of_the_api_and_of_ray_job_submit_run_on_one_cluster_and_are_listed_together(
    home: Home, pictures: Path, tmp_path: Path, plain_venv: Path
) -> None:
    with start_cluster(home, tmp_path, plain_venv) as cluster:
        server = Running(home, cluster.deploy())
        assert httpx.get(f"{server.url}{JOBS}", timeout=30).status_code == 401
        job = server.ended(server.create(pictures, epochs=2))
        assert (job["status"], job["epochs_done"]) == ("completed", 2), job

        spec = {name: value for name, value in SPEC.items() if name != "start"}
        (tmp_path / "job.yaml").write_text(yaml.safe_dump({**spec, "dataset_path": str(pictures), "epochs": 2}))
        submitted = cluster.submit("eagleray", "run", str(tmp_path / "job.yaml"), job_id="by-ray")
        assert submitted.returncode == 0, submitted.stdout[-3000:]
        items = server.get(JOBS).json()["items"]
        assert sorted((each["id"], each["status"]) for each in items) == [(1, "completed"), (2, "completed")]
