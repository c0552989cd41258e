"""`ray job submit -- eagleray run job.yaml` on a running cluster whose worker node has only Ray and the core."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from .conftest import Home
from .ray_cluster import RunningCluster, start_cluster

pytestmark = pytest.mark.cluster


@pytest.fixture
def running_cluster(home: Home, tmp_path: Path, plain_venv: Path) -> Iterator[RunningCluster]:
    with start_cluster(home, tmp_path, plain_venv) as cluster:
        yield cluster


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


JOINED_LATE = """
import dataclasses, ray, sys
from eagleray.execution.runtime_env import FIELD, field_value
from eagleray.testing.echo import FRAMEWORK

value = field_value(FRAMEWORK.environment)
# Without one of its packages it is an environment that no node has.
value["text"] = "".join(line for line in value["text"].splitlines(keepends=True) if not line.startswith("rich=="))
ray.init(address=sys.argv[1], log_to_driver=False)

@ray.remote(num_cpus=1, runtime_env={FIELD: value})
def python():
    import numpy
    return sys.executable

print(ray.get(python.remote(), timeout=240))
"""


def test_a_node_that_was_not_prepared_builds_the_environment_when_a_worker_starts(
    home: Home, running_cluster: RunningCluster, environments: Path
) -> None:
    before = {path.name for path in environments.glob("echo-*")}
    ran = subprocess.run(
        [sys.executable, "-c", JOINED_LATE, running_cluster.address],
        env=running_cluster.environ,
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    made = {path.name for path in environments.glob("echo-*")} - before
    assert len(made) == 1
    assert ran.stdout.strip() == str(home.path / "envs" / made.pop() / "bin" / "python")
