"""The three real frameworks train at once on one cluster, each in an environment of its own."""

from __future__ import annotations

import re
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from eagleray.control.ray_executor import STOP_VARIABLES

from .conftest import Home
from .ray_cluster import start_cluster

pytestmark = [pytest.mark.cluster, pytest.mark.framework, pytest.mark.slow, pytest.mark.timeout(1800)]
JOBS: dict[str, dict[str, Any]] = {
    "ultralytics": {"model_name": "yolo11n-cls", "advanced_config": {"imgsz": 32, "workers": 0, "plots": False}},
    "timm": {"model_name": "test_vit", "advanced_config": {"img_size": 32}},
    "huggingface": {
        "model_name": "WinKawaks/vit-tiny-patch16-224",
        "advanced_config": {"image_size": 32, "workers": 0},
    },
}


def job_file(framework: str, pictures: Path, folder: Path) -> Path:
    """A job of many epochs, so that it still trains when the last of the three begins."""
    common = {"task_type": "image-classification", "dataset_path": str(pictures), "epochs": 5000, "batch_size": 8}
    file = folder / f"{framework}.yaml"
    file.write_text(
        yaml.safe_dump({"framework": framework, **common, "pretrained": False, "seed": 1, **JOBS[framework]})
    )
    return file


def torches(environments: Path) -> set[str]:
    """The environments below `environments` whose torch a process has loaded now, one environment for each process."""
    torch = re.compile(rf"{re.escape(str(environments))}/([^/]+)/lib/\S*/torch/lib/libtorch_cpu\.so$", re.MULTILINE)
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                loaded = set(torch.findall((entry / "maps").read_text()))
                assert len(loaded) <= 1, f"{loaded} in one process"
                found |= loaded
    return found


def test_the_three_frameworks_train_at_once_each_in_its_own_environment(
    home: Home, pictures: Path, tmp_path: Path, plain_venv: Path
) -> None:
    # Ray's own 3 s from SIGTERM to SIGKILL are too short for a last checkpoint; docs/cluster.md has these settings.
    with start_cluster(home, tmp_path, plain_venv, STOP_VARIABLES) as cluster, ThreadPoolExecutor(3) as threads:
        cluster.add_node(plain_venv, 2)
        runs = {
            name: threads.submit(
                cluster.submit, "eagleray", "run", str(job_file(name, pictures, tmp_path)), job_id=name, timeout_s=1500
            )
            for name in JOBS
        }
        try:
            until_all_train(home, runs)
            seen = torches((home.path / "envs").resolve())
        finally:
            for name in JOBS:
                cluster.stop(name)
        output = {name: run.result().stdout for name, run in runs.items()}
    records = {record["spec"]["framework"]: record for record in (home.record(number) for number in (1, 2, 3))}
    assert {name: record["status"] for name, record in records.items()} == dict.fromkeys(JOBS, "cancelled"), output
    environments = {record["environment"]["name"] for record in records.values()}
    assert len(environments) == 3
    assert seen == environments


def until_all_train(home: Home, runs: dict[str, Future[CompletedProcess[str]]]) -> None:
    deadline = time.monotonic() + 1200
    # The file is there, empty, before the first epoch is.
    while not all((home.job(number) / "metrics.jsonl").exists() and home.metrics(number) for number in (1, 2, 3)):
        for name, run in runs.items():
            assert not run.done(), f"{name} ended first: {run.result().stdout[-3000:]}"
        assert time.monotonic() < deadline
        time.sleep(0.5)
