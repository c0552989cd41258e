"""`serve deploy serve/config.yaml` on a running cluster whose worker node has only Ray and the core."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest
import yaml

from .conftest import Home
from .ray_cluster import start_cluster
from .running_server import ENDS, JOBS, SPEC

pytestmark = pytest.mark.cluster


def test_jobs_of_the_api_and_of_ray_job_submit_run_on_one_cluster_and_are_listed_together(
    home: Home, pictures: Path, tmp_path: Path, plain_venv: Path
) -> None:
    with start_cluster(home, tmp_path, plain_venv) as cluster:
        url = f"http://127.0.0.1:{cluster.deploy()}"
        assert httpx.get(f"{url}{JOBS}", timeout=30).status_code == 401
        key = {"X-API-Key": (home.path / "admin.key").read_text().strip()}
        body = {**SPEC, "dataset_path": str(pictures), "epochs": 2}
        made = httpx.post(f"{url}{JOBS}", json=body, headers=key, timeout=60)
        assert made.status_code == 201, made.text
        deadline, job = time.monotonic() + 240, made.json()
        while job["status"] not in ENDS:
            assert time.monotonic() < deadline, job
            time.sleep(0.5)
            job = httpx.get(f"{url}{JOBS}/{job['id']}", headers=key, timeout=60).json()
        assert (job["status"], job["epochs_done"]) == ("completed", 2), job

        (tmp_path / "job.yaml").write_text(yaml.safe_dump({name: body[name] for name in body if name != "start"}))
        submitted = cluster.submit("eagleray", "run", str(tmp_path / "job.yaml"), job_id="by-ray")
        assert submitted.returncode == 0, submitted.stdout[-3000:]
        items = httpx.get(f"{url}{JOBS}", headers=key, timeout=60).json()["items"]
        assert sorted((each["id"], each["status"]) for each in items) == [(1, "completed"), (2, "completed")]
