"""One description of a job, whatever it was written in."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from eagleray.contract.errors import ConfigError
from eagleray.jobs.spec import JobSpec, make_spec, parse_setting, read_spec

MINIMAL = {"framework": "echo", "model_name": "linear", "dataset_path": "/data"}


def test_yaml_and_json_give_the_same_spec(tmp_path: Path) -> None:
    values = {**MINIMAL, "epochs": 3, "batch_size": "auto", "scaling": {"num_workers": [1, 4]}}
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "job.json").write_text(json.dumps(values))
    assert make_spec(read_spec(tmp_path / "job.yaml")) == make_spec(read_spec(tmp_path / "job.json"))


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"epoch": 3}, "unknown key 'epoch'; did you mean 'epochs'?"),
        ({"scaling": {"num_worker": 2}}, "did you mean 'num_workers'?"),
        ({"epochs": 0}, "'epochs' = 0"),
        ({"epochs": -1}, "'epochs' = -1"),
        ({"batch_size": 0}, "at least 1, or 'auto'"),
        ({"task_type": "detektion"}, "unknown task 'detektion'"),
        ({"project_id": "../x"}, "'project_id' = '../x'"),
        ({"scaling": {"num_workers": [4, 1]}}, "min ≤ max"),
        ({"learning_rate": 0}, "greater than 0"),
        ({"learning_rate": float("inf")}, "'learning_rate' = inf"),
        ({"learning_rate": float("nan")}, "'learning_rate' = nan"),
        ({"scaling": {"gpus_per_worker": float("inf")}}, "'scaling.gpus_per_worker' = inf"),
        (
            {"scaling": {"num_workers": 0}},
            "'scaling.num_workers' = 0: must be a whole number from 1, or a range MIN-MAX",
        ),
        ({"scaling": {"num_workers": [0, 2]}}, "must be a whole number from 1, or a range MIN-MAX"),
    ],
)
def test_a_wrong_key_is_named_with_what_would_be_valid(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_spec({**MINIMAL, **values})
    assert sentence in str(caught.value)


def test_a_wrong_number_of_workers_is_one_sentence() -> None:
    with pytest.raises(ConfigError) as caught:
        make_spec({**MINIMAL, "scaling": {"num_workers": "many"}})
    assert caught.value.message.count("num_workers") == 1


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="'model_name' is missing"):
        make_spec({"framework": "echo", "dataset_path": "/data"})


def test_short_task_names_are_aliases() -> None:
    assert make_spec({**MINIMAL, "task_type": "detect"}).task_type == "object-detection"


def test_a_spec_survives_its_plain_form() -> None:
    spec = make_spec({**MINIMAL, "scaling": {"num_workers": [1, 2], "gpus_per_worker": 1}, "pretrained": False})
    assert make_spec(json.loads(json.dumps(spec.plain()))) == spec


@pytest.mark.parametrize("text", ["[1, 2]", "a: [", "just text", "\t"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "job.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"job\.yaml"):
        read_spec(tmp_path / "job.yaml")


@given(st.dictionaries(st.text(max_size=20), st.one_of(st.none(), st.integers(), st.text(max_size=20)), max_size=5))
def test_any_mapping_is_a_spec_or_our_own_error(values: dict[str, Any]) -> None:
    try:
        assert isinstance(make_spec({**MINIMAL, **values}), JobSpec)
    except ConfigError as error:
        assert error.message


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("imgsz=320", ("imgsz", 320)),
        ("lr0=1e-3", ("lr0", 0.001)),
        ("optimizer=AdamW", ("optimizer", "AdamW")),
        ("cos_lr=True", ("cos_lr", True)),
        ("name=a=b", ("name", "a=b")),
    ],
)
def test_a_setting_is_read_as_json_where_it_is_json(text: str, setting: tuple[str, Any]) -> None:
    assert parse_setting(text) == setting


def test_a_setting_without_equals_is_refused() -> None:
    with pytest.raises(ConfigError, match="key=value"):
        parse_setting("imgsz")
