"""Tracking against a real MLflow server, which is killed while a job trains."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uv

from eagleray.contract.callbacks import RunInfo
from eagleray.tracking.mlflow_run import MlflowTracking

from .conftest import Home

pytestmark = pytest.mark.slow
MLFLOW = "mlflow==3.17.2"


@dataclass
class Server:
    """`mlflow server` from a venv of its own, on one port and one SQLite file, so that it can come back."""

    folder: Path
    mlflow: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        database, artifacts = f"sqlite:///{self.folder}/mlflow.db", self.folder / "artifacts"
        self.process = subprocess.Popen(
            [str(self.mlflow), "server", "--host", "127.0.0.1", "--port", str(self.port), "--workers", "1"]
            + ["--backend-store-uri", database, "--artifacts-destination", str(artifacts)],
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"{self.address}/health", timeout=2):
                    return
            except OSError:
                assert time.monotonic() < deadline and self.process.poll() is None, "mlflow server did not start"
                time.sleep(0.3)

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def run(self, job_id: int) -> Any:
        client = self.client()
        (found,) = client.search_runs(["1"], filter_string=f"tags.`eagleray.job` = '{job_id}'")
        return found

    def client(self) -> Any:
        from mlflow import MlflowClient

        return MlflowClient(self.address)

    def epochs(self, job_id: int, metric: str) -> list[int]:
        history = self.client().get_metric_history(self.run(job_id).info.run_id, metric)
        return sorted(row.step for row in history)


@pytest.fixture(scope="session")
def mlflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    venv = tmp_path_factory.mktemp("mlflow") / "venv"
    subprocess.run([uv.find_uv_bin(), "venv", "-q", "--python", sys.executable, venv], check=True)
    subprocess.run([uv.find_uv_bin(), "pip", "install", "-q", "--python", venv / "bin" / "python", MLFLOW], check=True)
    return venv / "bin" / "mlflow"


@pytest.fixture
def server(mlflow: Path, tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "mlflow"
    folder.mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    found = Server(folder, mlflow, port)
    found.start()
    yield found
    found.kill()


@dataclass
class Heard:
    """What a run is told by its callbacks."""

    urls: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def info(self, location: Path, attempt: int = 1) -> RunInfo:
        spec = {"framework": "echo", "epochs": 4, "advanced_config": {"lr": 0.1}}
        return RunInfo(7, attempt, spec, str(location), self.urls.append, self.warnings.append)


def train(tracking: MlflowTracking, info: RunInfo, epochs: range) -> None:
    for epoch in epochs:
        tracking.on_epoch_end(info, epoch, {"metrics/mAP50(B)": epoch / 10})


def test_a_server_that_is_killed_and_comes_back_has_every_epoch_and_plot(server: Server, tmp_path: Path) -> None:
    heard, location = Heard(), tmp_path / "job"
    (location / "files").mkdir(parents=True)
    (location / "files" / "results.csv").write_text("epoch\n")
    tracking, info = MlflowTracking(server.address), heard.info(location)
    tracking.on_train_begin(info)
    train(tracking, info, range(1, 3))
    deadline = time.monotonic() + 60
    while not heard.urls:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    server.kill()
    train(tracking, info, range(3, 5))
    time.sleep(2)
    server.start()
    tracking.on_train_end(info, "completed", {})
    run = server.run(7)
    assert server.epochs(7, "metrics/mAP50_B_") == [1, 2, 3, 4]
    assert (run.info.status, run.data.params["advanced_config.lr"]) == ("FINISHED", "0.1")
    assert run.data.tags["eagleray.best"] == f"{location}/best.pt"
    assert [entry.path for entry in server.client().list_artifacts(run.info.run_id, "files")] == ["files/results.csv"]
    assert not heard.warnings


def test_a_server_that_stays_away_costs_the_job_one_warning(server: Server, tmp_path: Path) -> None:
    heard = Heard()
    tracking, info = MlflowTracking(server.address, drain_s=3), heard.info(tmp_path)
    server.kill()
    started = time.monotonic()
    tracking.on_train_begin(info)
    train(tracking, info, range(1, 5))
    assert time.monotonic() - started < 1, "a step of the job waited for MLflow"
    tracking.on_train_end(info, "completed", {})
    assert time.monotonic() - started < 30
    assert len(heard.warnings) == 1 and f"{tmp_path}/metrics.jsonl" in heard.warnings[0]


def test_a_resumed_job_goes_on_in_its_run(server: Server, tmp_path: Path) -> None:
    heard = Heard()
    for attempt, epochs in ((1, range(1, 3)), (2, range(3, 5))):
        tracking, info = MlflowTracking(server.address), heard.info(tmp_path, attempt)
        tracking.on_train_begin(info)
        train(tracking, info, epochs)
        tracking.on_train_end(info, "completed", {})
    assert server.epochs(7, "metrics/mAP50_B_") == [1, 2, 3, 4]
    assert heard.urls[0] == heard.urls[1]
    assert not heard.warnings


def test_a_whole_job_is_tracked_and_its_record_links_the_run(server: Server, home: Home, pictures: Path) -> None:
    home.environ["MLFLOW_TRACKING_URI"] = server.address
    status, training = home.run(
        *("train", "--framework", "echo", "--model", "echo-linear", "--data", str(pictures)),
        *("--epochs", "3", "--batch-size", "4", "--no-pretrained"),
    )
    assert status == 0, training.errors
    record = home.record(1)
    run = server.run(1)
    assert record["tracking_url"] == f"{server.address}/#/experiments/1/runs/{run.info.run_id}"
    assert server.epochs(1, "accuracy") == [1, 2, 3]
    assert not record["warnings"]
