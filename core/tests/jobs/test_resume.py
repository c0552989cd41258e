"""A job is continued with its own spec: what may change changes, and what is only repeated is no change."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from eagleray.contract.errors import ConfigError
from eagleray.jobs.phases import Phase
from eagleray.jobs.records import JobRecord
from eagleray.jobs.resume import resumed_spec
from eagleray.jobs.spec import make_spec


def record_of(dataset_path: str, dataset: dict[str, Any] | None = None, **values: Any) -> JobRecord:
    """The record of a job as its driver writes it: canonical task, absolute paths."""
    spec = make_spec(
        {
            "framework": "echo",
            "model_name": "echo-linear",
            "dataset_path": dataset_path,
            "task_type": "object-detection",
            "dataset_format": "dice",
            "epochs": 3,
            "scaling": {"gpus_per_worker": 1, "cpus_per_worker": 4},
            **values,
        }
    )
    fields = spec.model_dump(include=set(JobRecord.model_fields) - {"spec"})
    return JobRecord.model_validate(
        {**fields, "id": 1, "spec": spec.plain(), "dataset": dataset or {}, "phase": Phase.CANCELLED, "epochs_done": 1}
    )


def test_a_part_of_scaling_changes_alone() -> None:
    spec = make_spec(resumed_spec(record_of("/data"), {"scaling": {"num_workers": 2}}))
    scaling = spec.scaling
    assert (scaling.num_workers, scaling.gpus_per_worker, scaling.cpus_per_worker) == (2, 1.0, 4.0)


@pytest.mark.parametrize("name", ["good", "./good/", "good/data.yaml"])
def test_the_dataset_may_be_named_as_it_was(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record = record_of(str(tmp_path / "good"))
    assert resumed_spec(record, {"dataset_path": name, "resume": 1})["dataset_path"] == str(tmp_path / "good")


@pytest.mark.parametrize("name", ["cats", "cats@2", "ds-1", "ds-1@2"])
def test_a_version_may_be_named_as_it_was(name: str) -> None:
    record = record_of("ds-1@2", {"id": "ds-1", "name": "cats", "version": 2})
    assert resumed_spec(record, {"dataset_path": name})["dataset_path"] == "ds-1@2"


@pytest.mark.parametrize(
    "repeated",
    [{"task_type": "detect"}, {"framework": "echo"}, {"learning_rate": 1}, {"advanced_config": {"imgsz": 32}}],
    ids=lambda repeated: next(iter(repeated)),
)
def test_what_is_only_repeated_is_no_change(repeated: dict[str, Any]) -> None:
    record = record_of("/data", learning_rate=1.0, advanced_config={"imgsz": 32, "seed": 1})
    assert resumed_spec(record, repeated) == {**record.spec, "resume": 1}


def test_a_weights_file_may_be_named_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    record = record_of("/data", pretrained=str(tmp_path / "my.pt"))
    assert resumed_spec(record, {"pretrained": "my.pt"})["pretrained"] == str(tmp_path / "my.pt")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"dataset_path": "/other"}, "dataset_path ('/other' instead of '/data')"),
        ({"task_type": "classify"}, "task_type ('image-classification' instead of 'object-detection')"),
        ({"batch_size": 8}, "batch_size ('8' instead of '16')"),
    ],
)
def test_what_cannot_change_is_refused_with_both_values(change: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        resumed_spec(record_of("/data"), change)
    assert sentence in refused.value.message


def test_another_version_is_refused() -> None:
    record = record_of("ds-1@2", {"id": "ds-1", "name": "cats", "version": 2})
    with pytest.raises(ConfigError, match="cats@3"):
        resumed_spec(record, {"dataset_path": "cats@3"})


def test_an_unknown_key_is_named_as_in_a_new_job() -> None:
    with pytest.raises(ConfigError, match="did you mean 'epochs'"):
        resumed_spec(record_of("/data"), {"epoch": 5})


def test_a_complete_job_needs_more_epochs() -> None:
    record = record_of("/data")
    record.phase, record.epochs_done = Phase.COMPLETED, 3
    with pytest.raises(ConfigError, match="is complete"):
        resumed_spec(record, {"epochs": 3})
    assert resumed_spec(record, {"epochs": 5})["epochs"] == 5
