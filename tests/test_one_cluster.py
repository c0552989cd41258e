"""Whole jobs on a real Ray that each run starts, with the numpy-only framework in a real environment of its own."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import pytest

from .conftest import Home

pytestmark = pytest.mark.cluster
ECHO = ("train", "--framework", "echo", "--model", "echo-linear", "--batch-size", "4", "--no-pretrained")


def test_a_job_ends_with_checkpoints_metrics_logs_and_a_record(home: Home, pictures: Path) -> None:
    code, training = home.run(*ECHO, "--data", str(pictures), "--epochs", "2", "--set", "noise_lines=3")
    assert code == 0, training.errors
    record = home.record(1)
    assert (record["status"], record["epochs_done"], len(record["attempts"])) == ("completed", 2, 1)
    assert [row["epoch"] for row in home.metrics(1)] == [1, 2]
    assert {path.name for path in home.job(1).glob("*.pt")} == {"best.pt", "last.pt"}
    assert "echo epoch 2 line 3" in (home.job(1) / "logs" / "attempt-1-worker-0.log").read_text()
    assert training.events[-1]["event"] == "summary"
    assert record["dataset"]["images"] == training.of("job")[0]["dataset"]["images"] > 0


def test_a_killed_worker_is_replaced_and_ends_where_an_unharmed_run_ends(
    home: Home, pictures: Path, tmp_path: Path
) -> None:
    """C17"""
    arguments = (*ECHO, "--data", str(pictures), "--epochs", "4", "--seed", "5")
    code, _ = home.run(*arguments)
    assert code == 0
    code, training = home.run(*arguments, "--set", "kill_at_epoch=3", "--set", f"kill_marker={tmp_path / 'killed'}")
    assert code == 0, training.errors
    attempts = home.record(2)["attempts"]
    assert [attempt["resumed_from_epoch"] for attempt in attempts] == [None, 2]
    assert [attempt["outcome"] for attempt in attempts] == ["worker-lost", "completed"]
    assert [row["metrics"] for row in home.metrics(2)] == [row["metrics"] for row in home.metrics(1)]


def test_ctrl_c_stops_gracefully_and_the_job_resumes_to_its_end(home: Home, pictures: Path) -> None:
    """C7"""
    arguments = (*ECHO, "--data", str(pictures), "--epochs", "4", "--set", "delay_s=0.3")
    training = home.start(*arguments)
    training.until(lambda event: event["event"] == "epoch" and event["epoch"] == 2)
    training.send(signal.SIGINT)
    assert training.wait() == 130
    record = home.record(1)
    assert (record["status"], record["resumable"], record["epochs_done"]) == ("cancelled", True, 2)
    code, resumed = home.run("train", "--resume", "1")
    assert code == 0, resumed.errors
    assert resumed.of("attempt")[0]["resumed_from_epoch"] == 2
    assert [row["epoch"] for row in home.metrics(1)] == [1, 2, 3, 4]


def test_a_second_ctrl_c_ends_at_once(home: Home, pictures: Path) -> None:
    training = home.start(*ECHO, "--data", str(pictures), "--epochs", "50", "--set", "delay_s=30")
    training.until(lambda event: event["event"] == "phase" and event["phase"] == "running")
    started = time.monotonic()
    training.send(signal.SIGINT)
    training.until(lambda event: event["event"] == "phase" and event["phase"] == "stopping")
    training.send(signal.SIGINT)
    assert training.wait() == 130
    assert time.monotonic() - started < 25, "a batch takes 30 s, so it was waited for"
    assert home.record(1)["status"] == "cancelled"


def test_a_killed_driver_leaves_nothing_running_and_its_job_resumes(home: Home, pictures: Path) -> None:
    training = home.start(*ECHO, "--data", str(pictures), "--epochs", "3", "--set", "delay_s=0.3")
    training.until(lambda event: event["event"] == "checkpoint" and event["epoch"] == 1)
    os.kill(training.process.pid, signal.SIGKILL)
    training.process.wait()
    code, resumed = home.run("train", "--resume", "1")
    assert code == 0, resumed.errors
    assert resumed.of("attempt")[0]["resumed_from_epoch"] >= 1
    assert [row["epoch"] for row in home.metrics(1)] == [1, 2, 3]


def test_an_adapter_that_raises_fails_its_job_with_a_sentence_and_its_traceback_is_kept(
    home: Home, pictures: Path
) -> None:
    """C16"""
    code, training = home.run(*ECHO, "--data", str(pictures), "--epochs", "2", "--set", "fail_at_epoch=1")
    assert code == 9
    assert training.events[-1]["error"]["code"] == "training" or '"training"' in training.errors
    assert home.record(1)["status"] == "failed"
    assert len(home.record(1)["attempts"]) == 1, "the same input raises again, so there is no second attempt"
    assert "Traceback" in (home.job(1) / "logs" / "attempt-1-error.txt").read_text()


def test_more_than_the_machine_can_ever_have_is_refused_before_a_job_is_made(home: Home, pictures: Path) -> None:
    code, training = home.run(*ECHO, "--data", str(pictures), "--cpus-per-worker", "4096")
    assert code == 8
    assert "can ever have" in training.errors + str(training.events)
    assert not (home.path / "storage" / "jobs").exists()


def test_what_a_killed_driver_left_in_the_temp_folder_goes_with_the_next_start(home: Home, pictures: Path) -> None:
    left = Path(tempfile.gettempdir()) / "eagleray-4194305-left"  # no process has an id above 2**22
    left.mkdir(exist_ok=True)
    code, training = home.run(*ECHO, "--data", str(pictures), "--epochs", "1")
    assert code == 0, training.errors
    assert not left.exists()
    assert not list((home.path / "work").iterdir())
