"""Which model is meant, and how it is configured."""

from __future__ import annotations

import dataclasses

import pytest

from eagleray.contract import ConfigError, Framework, ModelCard, ModelStatus, PluginError, UnknownNameError
from eagleray.plugins.catalogue import config_model, config_schema, find_models, resolve_model, validate_config
from eagleray.plugins.host import Catalogue, PluginFramework
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


def test_the_schema_forbids_unknown_keys() -> None:
    assert config_schema(ECHO, "detect")["additionalProperties"] is False


@pytest.mark.parametrize("reference", ["no_such_module:Config", "pathlib:NoSuch", "pathlib:Path"])
def test_a_config_that_is_no_pydantic_model_is_the_plugins_fault(reference: str) -> None:
    framework = dataclasses.replace(ECHO, configs={"image-classification": reference})
    with pytest.raises(PluginError, match=reference):
        config_model(framework, "image-classification")
