"""What the plugin tells a host that has no Ultralytics installed."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pluggy
import pytest
from pydantic import BaseModel, ValidationError

import eagleray_ultralytics
from eagleray.contract import PROJECT, Framework, ModelStatus, hooks

DETECTION, SEGMENTATION = "object-detection", "image-segmentation"
POSE, CLASSIFICATION = "keypoint-detection", "image-classification"
TASKS = (DETECTION, SEGMENTATION, POSE, CLASSIFICATION)


@pytest.fixture
def framework() -> Framework:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hooks)
    manager.register(eagleray_ultralytics)
    manager.check_pending()
    found: list[Framework] = []
    manager.hook.register_frameworks(register=found.append)
    assert len(found) == 1
    return found[0]


def config(framework: Framework, task: str) -> type[BaseModel]:
    module, _, name = framework.configs[task].partition(":")
    model: type[BaseModel] = getattr(import_module(module), name)
    return model


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys, eagleray_ultralytics as p, eagleray_ultralytics.config\n"
        "p.register_frameworks(lambda f: f.models)\n"
        "print(sorted({'torch', 'ultralytics', 'numpy', 'cv2', 'matplotlib', 'ray'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("name", "task"),
    [
        *(("yolo11n", task) for task in TASKS),
        ("yolo11s", DETECTION),
        ("yolo11m", DETECTION),
        ("yolo_world_v2_s", DETECTION),
        ("sam2_t", SEGMENTATION),
    ],
)
def test_every_model_of_the_prototype_is_there(framework: Framework, name: str, task: str) -> None:
    assert (name, task) in {(card.name, card.task) for card in framework.models}


def test_a_name_and_a_task_make_one_card(framework: Framework) -> None:
    keys = [(card.name, card.task) for card in framework.models]
    assert len(keys) == len(set(keys))


@pytest.mark.parametrize("family", ["yolo11", "yolo26"])
def test_two_generations_come_in_five_sizes_for_four_tasks(framework: Framework, family: str) -> None:
    cards = [card for card in framework.models if card.name.removesuffix(card.name[-1]) == family]
    assert {(card.name[-1], card.task) for card in cards} == {(size, task) for size in "nsmlx" for task in TASKS}
    assert all(card.weights and card.parameters for card in cards)


def test_sizes_grow_with_their_letter(framework: Framework) -> None:
    sizes = {card.name: card.parameters or 0 for card in framework.models if card.task == DETECTION}
    counts = [sizes[f"yolo11{letter}"] for letter in "nsmlx"]
    assert counts == sorted(counts) and counts[0] == 2_624_080


def test_what_cannot_be_trained_says_why(framework: Framework) -> None:
    cards = {card.name: card for card in framework.models}
    assert cards["sam2_t"].status is ModelStatus.PREDICT_ONLY and "no trainer" in cards["sam2_t"].reason
    assert cards["yolo_world_v2_s"].status is ModelStatus.NEEDS and "CLIP" in cards["yolo_world_v2_s"].reason


@pytest.mark.parametrize("task", TASKS)
def test_the_name_of_the_jobs_learning_rate_is_a_key_of_every_task(framework: Framework, task: str) -> None:
    assert set(framework.learning_rate_keys) == {"lr0"} & set(config(framework, task).model_fields)


def test_the_licence_is_shown(framework: Framework) -> None:
    assert framework.licence == "AGPL-3.0"


def test_the_network_and_global_settings_are_off(framework: Framework) -> None:
    env = framework.environment.env_vars
    assert env["YOLO_OFFLINE"] == "true" and env["YOLO_AUTOINSTALL"] == "false"
    assert env["ULTRALYTICS_SAFE_LOAD"] == "true" and env["YOLO_CONFIG_DIR"].startswith("{work_dir}/")


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_a_config_with_described_fields_and_a_best_metric(framework: Framework, task: str) -> None:
    properties = config(framework, task).model_json_schema()["properties"]
    assert {"imgsz", "lr0", "optimizer", "patience"} <= set(properties)
    assert all(field.get("description") and "default" in field for field in properties.values())
    assert framework.best_metrics[task].mode == "max"


def test_defaults_are_those_of_ultralytics(framework: Framework) -> None:
    detection = config(framework, DETECTION)().model_dump()
    assert (detection["imgsz"], detection["mosaic"], detection["optimizer"]) == (640, 1.0, "auto")
    assert config(framework, CLASSIFICATION)().model_dump()["imgsz"] == 224


@pytest.mark.parametrize(
    ("task", "values"),
    [
        (DETECTION, {"imgsz": 16}),
        (DETECTION, {"hsv_h": 1.5}),
        (DETECTION, {"optimizer": "adamx"}),
        (DETECTION, {"fraction": 0.0}),
        (DETECTION, {"mozaic": 1.0}),
        (DETECTION, {"epochs": 3}),
        (DETECTION, {"overlap_mask": True}),
        (CLASSIFICATION, {"mosaic": 1.0}),
        (SEGMENTATION, {"mask_ratio": 0}),
        (POSE, {"kobj": -1.0}),
    ],
)
def test_a_wrong_value_or_another_tasks_key_is_refused(
    framework: Framework, task: str, values: dict[str, object]
) -> None:
    with pytest.raises(ValidationError):
        config(framework, task)(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"amp": False},
        {"amp": "bf16"},
        {"fraction": 20},
        {"scale": [0.5, 2.0]},
        {"freeze": [0, "23.cv2"]},
        {"conf": 0.2},
    ],
)
def test_values_of_every_kind_are_taken_as_they_are(framework: Framework, values: dict[str, object]) -> None:
    assert config(framework, DETECTION)(**values).model_dump(exclude_unset=True) == values
