"""What the plugin tells a host that has no Ultralytics installed."""

from __future__ import annotations

import pytest

from eagleray.contract import Framework, ModelStatus
from eagleray.plugins.catalogue import config_model
from eagleray.testing.attempt import find_framework
from eagleray.testing.conformance import DescriptorConformance

DETECTION, SEGMENTATION = "object-detection", "image-segmentation"
POSE, CLASSIFICATION = "keypoint-detection", "image-classification"
TASKS = (DETECTION, SEGMENTATION, POSE, CLASSIFICATION)


class TestDescriptor(DescriptorConformance):
    plugin = "eagleray_ultralytics"
    taken = (
        (DETECTION, {"amp": False}),
        (DETECTION, {"amp": "bf16"}),
        (DETECTION, {"fraction": 20}),
        (DETECTION, {"scale": [0.5, 2.0]}),
        (DETECTION, {"freeze": [0, "23.cv2"]}),
        (DETECTION, {"conf": 0.2}),
    )
    refused = (
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
    )


@pytest.fixture(scope="module")
def framework() -> Framework:
    return find_framework("eagleray_ultralytics", "")


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
    assert set(framework.learning_rate_keys) == {"lr0"} & set(config_model(framework, task).model_fields)


def test_the_licence_is_shown(framework: Framework) -> None:
    assert framework.licence == "AGPL-3.0"


def test_the_network_and_global_settings_are_off(framework: Framework) -> None:
    env = framework.environment.env_vars
    assert env["YOLO_OFFLINE"] == "true" and env["YOLO_AUTOINSTALL"] == "false"
    assert env["ULTRALYTICS_SAFE_LOAD"] == "true" and env["YOLO_CONFIG_DIR"].startswith("{work_dir}/")


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_the_well_known_keys_and_a_best_metric_that_grows(framework: Framework, task: str) -> None:
    assert {"imgsz", "lr0", "optimizer", "patience"} <= config_model(framework, task).model_fields.keys()
    assert framework.best_metrics[task].mode == "max"


def test_defaults_are_those_of_ultralytics(framework: Framework) -> None:
    detection = config_model(framework, DETECTION)().model_dump()
    assert (detection["imgsz"], detection["mosaic"], detection["optimizer"]) == (640, 1.0, "auto")
    assert config_model(framework, CLASSIFICATION)().model_dump()["imgsz"] == 224
