"""Which model is meant, and how it is configured."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from eagleray.contract import (
    ConfigError,
    Framework,
    ModelCard,
    ModelStatus,
    OpenModels,
    PluginError,
    UnknownNameError,
)
from eagleray.plugins.catalogue import (
    config_model,
    config_schema,
    find_card,
    find_models,
    resolve_model,
    validate_config,
)
from eagleray.plugins.host import Catalogue, PluginFramework
from eagleray.plugins.validity import faults_of
from eagleray.testing.echo import FRAMEWORK as ECHO

TASKS = ("object-detection", "image-segmentation", "image-classification")
YOLO = dataclasses.replace(
    ECHO,
    name="yolo",
    tasks=TASKS,
    configs=dict.fromkeys(TASKS, "eagleray.testing.echo_config:EchoConfig"),
    models=(
        ModelCard("yolo11n", "image-segmentation", weights="yolo11n-seg"),
        ModelCard("yolo11n", "object-detection", weights="yolo11n"),
        ModelCard("sam2_t", "image-segmentation", status=ModelStatus.PREDICT_ONLY, reason="it has no trainer."),
        ModelCard("world", "object-detection", status=ModelStatus.NEEDS, reason="it needs the package clip."),
    ),
)


def catalogue(*frameworks: Framework) -> Catalogue:
    return Catalogue({found.name: PluginFramework(found, "d", "1", "p") for found in frameworks})


@pytest.mark.parametrize(
    ("name", "task", "meant"),
    [
        ("yolo11n", None, "object-detection"),
        ("yolo11n", "segment", "image-segmentation"),
        ("yolo11n-seg", None, "image-segmentation"),
        ("yolo11n-seg.pt", None, "image-segmentation"),
        ("yolo11n.pt", None, "object-detection"),
    ],
)
def test_a_name_means_the_first_task_and_a_weights_name_its_own(name: str, task: str | None, meant: str) -> None:
    card = resolve_model(YOLO, name, task)
    assert (card.name, card.task) == ("yolo11n", meant)


@pytest.mark.parametrize(
    ("name", "task", "error", "words"),
    [
        ("yolo11m", None, UnknownNameError, "Did you mean 'yolo11n'"),
        ("yolo11n", "classify", ConfigError, "It is for: object-detection, image-segmentation"),
        ("yolo11n-seg", "detect", ConfigError, "It is for: image-segmentation"),
        ("yolo11n", "segmentatoin", UnknownNameError, "Did you mean 'segmentation'"),
        ("sam2_t", None, ConfigError, "it has no trainer"),
    ],
)
def test_what_cannot_be_trained_says_why(name: str, task: str | None, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        resolve_model(YOLO, name, task)


def test_a_model_that_needs_something_may_be_tried() -> None:
    assert resolve_model(YOLO, "world", None).status is ModelStatus.NEEDS


def test_filters_combine() -> None:
    every = catalogue(YOLO, ECHO)
    assert len(find_models(every)) == len(YOLO.models) + len(ECHO.models)
    assert [(owner.name, card.name) for owner, card in find_models(every, "yolo", "detect", "YOLO")] == [
        ("yolo", "yolo11n")
    ]
    assert {card.name for _, card in find_models(every, name="*_t")} == {"sam2_t"}
    assert find_models(every, name="nothing") == []


def test_every_wrong_key_is_named_with_its_value() -> None:
    with pytest.raises(ConfigError) as caught:
        validate_config(ECHO, "classify", {"momentun": 0.5, "hidden": -7})
    assert "'momentun'; did you mean 'momentum'?" in caught.value.message
    assert "'hidden' = -7" in caught.value.message


def test_valid_values_become_the_plugins_model() -> None:
    config = validate_config(ECHO, "classify", {"hidden": 8})
    assert config.model_dump()["hidden"] == 8


def test_a_learning_rate_given_twice_is_refused_with_both_values() -> None:
    named = dataclasses.replace(ECHO, learning_rate_keys=("momentum",))
    with pytest.raises(ConfigError, match=r"learning_rate = 0\.02 and echo's momentum = 0\.5 are the same thing"):
        validate_config(named, "classify", {"momentum": 0.5}, learning_rate=0.02)
    assert validate_config(named, "classify", {"momentum": 0.5})
    assert validate_config(named, "classify", {}, learning_rate=0.02)


def test_the_schema_forbids_unknown_keys() -> None:
    assert config_schema(ECHO, "detect")["additionalProperties"] is False


@pytest.mark.parametrize("reference", ["no_such_module:Config", "pathlib:NoSuch", "pathlib:Path"])
def test_a_config_that_is_no_pydantic_model_is_the_plugins_fault(reference: str) -> None:
    framework = dataclasses.replace(ECHO, configs={"image-classification": reference})
    with pytest.raises(PluginError, match=reference):
        config_model(framework, "image-classification")


OPEN = OpenModels(r"[\w.-]+/[\w.-]+", "fetched from the hub by its id")


def test_a_name_outside_the_catalogue_needs_a_framework_that_is_open_and_a_task() -> None:
    with pytest.raises(UnknownNameError):
        find_card(YOLO, "org/model", "detect")
    card = find_card(dataclasses.replace(YOLO, open_models=OPEN), "org/model", "detect")
    assert (card.name, card.task, card.weights, card.parameters) == ("org/model", "object-detection", "org/model", None)
    with pytest.raises(ConfigError, match="--task"):
        find_card(dataclasses.replace(YOLO, open_models=OPEN), "org/model")


def test_an_open_framework_still_names_the_nearest_of_its_catalogue() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'yolo11n'"):
        find_card(dataclasses.replace(YOLO, open_models=OPEN), "yolo11m", "detect")


def test_a_folder_is_a_model_by_its_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    framework = dataclasses.replace(YOLO, open_models=OPEN)
    card = find_card(framework, "mine", "detect")
    assert card.name == str((tmp_path / "mine").resolve()) and not card.weights.startswith("/")


def test_a_task_that_the_open_framework_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not offer"):
        find_card(dataclasses.replace(YOLO, open_models=OPEN), "org/model", "mask-generation")


def test_an_open_pattern_that_is_no_expression_is_a_fault() -> None:
    faults = faults_of(dataclasses.replace(YOLO, open_models=OpenModels("(", "")))
    assert any("no regular expression" in fault for fault in faults)
