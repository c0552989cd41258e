"""A resumed job is planned from its checkpoint: what only its beginning needed may be gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eagleray.contract.errors import WeightsError
from eagleray.jobs.plan import JobPlan, describe, plan_job
from eagleray.jobs.records import JobRecords
from eagleray.jobs.spec import make_spec
from eagleray.plugins.host import discover
from eagleray.settings import Settings, load_settings
from eagleray.storage.checkpoints import Checkpoints
from eagleray.storage.opening import open_store
from eagleray.testing.data import write_classification_dataset


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("EAGLERAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EAGLERAY_STORAGE", str(tmp_path / "store"))
    return load_settings()


def plan(settings: Settings, tmp_path: Path, **values: Any) -> JobPlan:
    data = tmp_path / "pictures"
    if not data.exists():
        write_classification_dataset(data, images=8, size=16)
    spec = {"framework": "echo", "model_name": "echo-linear", "dataset_path": str(data), "batch_size": 4, **values}
    return plan_job(make_spec(spec), discover(settings), open_store(settings.storage))


def a_job_with_a_checkpoint(settings: Settings, tmp_path: Path) -> None:
    store = open_store(settings.storage)
    spec = plan(settings, tmp_path).spec
    record = JobRecords(store).create(
        {**spec.model_dump(include={"framework", "model_name", "task_type", "dataset_path", "dataset_format"})}
        | {"epochs": 5, "batch_size": 4}
    )
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "model.pt").write_bytes(b"m")
    Checkpoints(store, record.prefix).commit(
        folder,
        job_id=record.id,
        attempt=2,
        epoch=3,
        metrics={},
        portable_file="model.pt",
        is_best=False,
        best_value=None,
        best_epoch=None,
    )


def test_a_new_job_needs_its_weights_file(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.pt"):
        plan(settings, tmp_path, pretrained=str(tmp_path / "gone.pt"))


def test_a_resumed_job_does_without_the_weights_file_it_began_with(settings: Settings, tmp_path: Path) -> None:
    resumed = plan(settings, tmp_path, pretrained=str(tmp_path / "gone.pt"), resume=1)
    assert resumed.spec.pretrained == str(tmp_path / "gone.pt")


def test_a_dry_run_shows_the_checkpoint_that_a_resumed_job_goes_on_from(settings: Settings, tmp_path: Path) -> None:
    a_job_with_a_checkpoint(settings, tmp_path)
    shown = describe(plan(settings, tmp_path, resume=1), settings)
    assert shown["weights"] == "the checkpoint of epoch 3 (attempt 2) of job 1"
