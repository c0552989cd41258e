"""The main job: yolo11n on pictures of real pixels, in Ultralytics' own environment, on a real Ray."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .conftest import Home, Training

pytestmark = [pytest.mark.cluster, pytest.mark.framework, pytest.mark.slow, pytest.mark.timeout(1800)]
SCRIPT = Path(__file__).parents[1] / "examples" / "make_dataset.sh"
YOLO = ("train", "--framework", "ultralytics", "--model", "yolo11n", "--no-pretrained", "--epochs", "2")
# Small pictures made large make an epoch long enough to be killed in.
SIZES = ("--batch-size", "2", "--set", "imgsz=320")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "digits"
    environ = {**os.environ, "EAGLERAY_BIN": str(Path(sys.executable).parent)}
    subprocess.run(["bash", SCRIPT, folder, "--images", "16", "--size", "64"], env=environ, check=True)
    return folder


def test_a_job_ends_with_its_weights_metrics_plots_and_a_warning_of_what_had_no_effect(
    home: Home, digits: Path
) -> None:
    code, training = home.run(*YOLO, *SIZES, "--data", str(digits), "--learning-rate", "0.02")
    assert code == 0, training.errors
    record, job = home.record(1), home.job(1)
    assert (record["status"], record["epochs_done"]) == ("completed", 2)
    assert {path.name for path in job.glob("*.pt")} == {"best.pt", "last.pt"}
    assert [row["epoch"] for row in home.metrics(1)] == [1, 2]
    assert {"metrics/mAP50", "metrics/mAP50-95", "train/box_loss"} <= home.metrics(1)[-1]["metrics"].keys()
    assert {"results.png", "results.csv", "confusion_matrix.png", "args.yaml"} <= {
        path.name for path in (job / "files").iterdir()
    }
    (warning,) = [message for message in record["warnings"] if "learning_rate=0.02" in message]
    assert "optimizer=auto" in warning
    assert warning in [event["message"] for event in training.of("warning")]


def test_a_worker_killed_in_its_second_epoch_is_replaced_by_one_that_goes_on_after_the_first(
    home: Home, digits: Path
) -> None:
    training = home.start(*YOLO, *SIZES, "--data", str(digits))
    os.kill(worker_in_second_epoch(training), signal.SIGKILL)
    assert not [event for event in training.of("epoch") if event["epoch"] == 2], "it was killed too late"
    assert training.wait() == 0, training.errors
    attempts = home.record(1)["attempts"]
    assert [attempt["outcome"] for attempt in attempts] == ["worker-lost", "completed"]
    assert [attempt["resumed_from_epoch"] for attempt in attempts] == [None, 1]
    assert [(row["epoch"], row["attempt"]) for row in home.metrics(1)] == [(1, 1), (2, 2)]


def worker_in_second_epoch(training: Training) -> int:
    """The process id of the worker, once the first epoch is stored and the second one runs."""
    worker: dict[str, Any] = training.until(lambda event: event.get("event") == "worker")

    def both_seen(_: dict[str, Any]) -> bool:
        stored = any(event["epoch"] == 1 for event in training.of("checkpoint"))
        return stored and any(event["epoch"] == 2 for event in training.of("progress"))

    training.until(both_seen)
    return int(worker["pid"])
