"""One job on two worker processes of a real Ray cluster, with the reference framework and with timm."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from eagleray.storage.s3.store import S3Store
from eagleray.testing.s3_server import SeaweedServer, seaweed

from .conftest import EAGLERAY, Home
from .ray_cluster import start_cluster

pytestmark = [pytest.mark.cluster, pytest.mark.slow]
ECHO = ("train", "--framework", "echo", "--model", "echo-linear", "--batch-size", "4", "--no-pretrained")


def test_two_workers_end_where_one_does_also_when_one_is_killed(home: Home, pictures: Path, tmp_path: Path) -> None:
    arguments = (*ECHO, "--data", str(pictures), "--epochs", "4", "--seed", "5")
    killed = ("--set", "kill_at_epoch=3", "--set", f"kill_marker={tmp_path / 'killed'}")
    for more in ((), ("--workers", "2"), ("--workers", "2", *killed)):
        code, training = home.run(*arguments, *more)
        assert code == 0, training.errors
    alone, together, lost = ([row["metrics"] for row in home.metrics(number)] for number in (1, 2, 3))
    assert [row.keys() for row in together] == [row.keys() for row in alone]
    for one, two in zip(alone, together, strict=True):
        assert two == pytest.approx(one, abs=1e-9)
    assert lost == together
    attempts = home.record(3)["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["worker-lost", "completed"]
    assert attempts[1]["resumed_from_epoch"] == 2


def test_a_range_of_workers_takes_what_there_is(home: Home, pictures: Path) -> None:
    code, training = home.run(*ECHO, "--data", str(pictures), "--epochs", "2", "--workers", "1-64")
    assert code == 0, training.errors
    started = {event["rank"] for event in training.of("worker")}
    assert len(started) >= 2, "this machine has room for more than one"
    assert [row["epoch"] for row in home.metrics(1)] == [1, 2]


@pytest.mark.framework
@pytest.mark.timeout(1800)
def test_two_workers_of_timm_learn_what_one_learns_from_the_whole_batch(home: Home, pictures: Path) -> None:
    timm = ("train", "--framework", "timm", "--model", "test_vit", "--no-pretrained", "--batch-size", "6")
    plain = ("--set", "img_size=32", "--set", "opt=sgd", "--learning-rate", "0.05", "--seed", "3")
    arguments = (*timm, *plain, "--data", str(pictures), "--epochs", "2")
    for more in ((), ("--workers", "2")):
        code, training = home.run(*arguments, *more)
        assert code == 0, training.errors
    alone, together = ([row["metrics"] for row in home.metrics(number)] for number in (1, 2))
    for one, two in zip(alone, together, strict=True):
        assert two == pytest.approx(one, rel=1e-3, abs=1e-4)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SeaweedServer]:
    folder = tmp_path / "s3"
    folder.mkdir()
    with seaweed(folder) as running:
        running.make_bucket("jobs")
        yield running


def test_two_nodes_without_a_shared_folder_train_one_job(
    home: Home, pictures: Path, tmp_path: Path, plain_venv: Path, server: SeaweedServer
) -> None:
    home.environ |= {**server.environ, "EAGLERAY_STORAGE": "s3://jobs/team"}
    command = [EAGLERAY, "datasets", "import", str(pictures), "--name", "shapes"]
    subprocess.run(command, env=home.environ, check=True, capture_output=True, timeout=120)
    spec = {"framework": "echo", "model_name": "echo-linear", "dataset_path": "shapes@1", "epochs": 3, "batch_size": 4}
    job = tmp_path / "job.yaml"
    job.write_text(
        yaml.safe_dump(
            {**spec, "pretrained": False, "scaling": {"num_workers": 2}, "advanced_config": {"noise_lines": 1}}
        )
    )
    nodes = [tmp_path / name for name in ("left", "right")]
    for node in nodes:
        node.mkdir()
    with start_cluster(
        home, tmp_path, plain_venv, on_nodes=[{"EAGLERAY_HOME": str(node)} for node in nodes]
    ) as cluster:
        submitted = cluster.submit("eagleray", "run", str(job), job_id="nodes-1")
    assert submitted.returncode == 0, submitted.stdout[-3000:] + (tmp_path / "ray.log").read_text()[-2000:]
    store = S3Store.open("s3://jobs/team", server.access)
    rows = store.get_bytes("checkpoints/test-jobs/job_1/metrics.jsonl").splitlines()
    assert [json.loads(row)["epoch"] for row in rows] == [1, 2, 3]
    logs = {info.key.rpartition("/")[2] for info in store.list("checkpoints/test-jobs/job_1/logs")}
    store.close()
    assert {"attempt-1-worker-0.log", "attempt-1-worker-1.log"} <= logs
    for node in nodes:
        assert list((node / "envs").glob("echo-*")), "each node has an environment of its own"
        assert any(path.is_file() for path in (node / "cache").rglob("*")), "and has fetched the data itself"
