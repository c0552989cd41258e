"""`serve deploy serve/config.yaml` on a running cluster whose worker node has only Ray and the core."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import yaml

from .conftest import Home
from .ray_cluster import RunningCluster, start_cluster
from .running_server import ENDS, JOBS, SPEC, free_port

pytestmark = pytest.mark.cluster
CONFIG = Path(__file__).parents[1] / "serve" / "config.yaml"


def deploy(cluster: RunningCluster, folder: Path) -> str:
    """The API's address, once it answers. The file as it stands, but for the port, which another server may hold."""
    config, port = yaml.safe_load(CONFIG.read_text()), free_port()
    config["http_options"]["port"] = port
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    serve = [Path(sys.executable).with_name("serve"), "deploy", "--address", cluster.dashboard, folder / "config.yaml"]
    done = subprocess.run(list(map(str, serve)), env=cluster.environ, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + 120
    while True:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", timeout=10).status_code == 200:
                return url
        assert time.monotonic() < deadline, (folder / "ray.log").read_text()[-3000:]
        time.sleep(0.5)


def test_jobs_of_the_api_and_of_ray_job_submit_run_on_one_cluster_and_are_listed_together(
    home: Home, pictures: Path, tmp_path: Path, plain_venv: Path
) -> None:
    with start_cluster(home, tmp_path, plain_venv) as cluster:
        url = deploy(cluster, tmp_path)
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
