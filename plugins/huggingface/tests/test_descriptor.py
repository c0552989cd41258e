"""What the plugin tells a host that has no Transformers installed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from eagleray.contract import Framework, ProcessGroup, WeightsError
from eagleray.plugins.catalogue import config_model
from eagleray.testing.attempt import find_framework
from eagleray.testing.conformance import DescriptorConformance
from eagleray_huggingface.remote_code import refuse_remote_code, remote_code_keys

CLASSIFICATION, DETECTION = "image-classification", "object-detection"
SEGMENTATION, TEXT = "image-segmentation", "image-text-to-text"
TASKS = (CLASSIFICATION, DETECTION, SEGMENTATION, TEXT)


class TestDescriptor(DescriptorConformance):
    plugin = "eagleray_huggingface"
    taken = (
        (CLASSIFICATION, {"warmup_steps": 0.1}),
        (CLASSIFICATION, {"augment": {"rand_augment": 2}}),
        (TEXT, {"lora": None}),
        (TEXT, {"lora": {"target_modules": ["q_proj", "v_proj"]}}),
        (DETECTION, {"config_overrides": {"num_queries": 50, "backbone_config": {"depths": [1, 1]}}}),
    )
    refused = (
        (CLASSIFICATION, {"optim": "adamx"}),
        (CLASSIFICATION, {"weight_decay": -0.1}),
        (CLASSIFICATION, {"label_smoothing_factor": 1.0}),
        (CLASSIFICATION, {"num_train_epochs": 3}),
        (CLASSIFICATION, {"augment": {"crop": 0.0}}),
        (CLASSIFICATION, {"augment": {"flip": 0.5}}),
        (DETECTION, {"label_smoothing_factor": 0.1}),
        (DETECTION, {"image_size": 8}),
        (SEGMENTATION, {"kind": "panoptic"}),
        (TEXT, {"lora": {"r": 0}}),
        (TEXT, {"lora": {"rank": 8}}),
        (TEXT, {"augment": {}}),
        (TEXT, {"trust_remote_code": True}),
        (TEXT, {"config_overrides": {"trust_remote_code": True}}),
        (TEXT, {"config_overrides": {"text_config": {"auto_map": {"AutoConfig": "x.Y"}}}}),
    )


@pytest.fixture(scope="module")
def framework() -> Framework:
    return find_framework("eagleray_huggingface", "")


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("google/vit-base-patch16-224", CLASSIFICATION),
        ("facebook/detr-resnet-50", DETECTION),
        ("PekingU/rtdetr_r50vd", DETECTION),
        ("nvidia/segformer-b0-finetuned-ade-512-512", SEGMENTATION),
        ("facebook/mask2former-swin-tiny-coco-instance", SEGMENTATION),
        ("HuggingFaceTB/SmolVLM-256M-Instruct", TEXT),
    ],
)
def test_the_well_known_models_of_every_task_are_there(framework: Framework, name: str, task: str) -> None:
    assert (name, task) in {(card.name, card.task) for card in framework.models}


def test_a_cards_weights_have_its_name(framework: Framework) -> None:
    assert all(card.weights == card.name for card in framework.models)


def test_parameters_are_those_of_the_published_models(framework: Framework) -> None:
    sizes = {card.name: card.parameters for card in framework.models}
    assert sizes["google/vit-base-patch16-224"] == 86_567_656 and sizes["microsoft/resnet-50"] == 25_557_032
    assert all(card.parameters for card in framework.models if card.task != TEXT)


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("org/model", True),
        ("timm/resnet18.a1_in1k", True),
        ("vit-base", False),
        ("a/b/c", False),
        ("../model", False),
        ("org/model name", False),
    ],
)
def test_any_id_of_the_hub_may_be_named(framework: Framework, name: str, fits: bool) -> None:
    assert framework.open_models is not None
    assert bool(re.fullmatch(framework.open_models.pattern, name)) is fits


def test_the_hub_and_telemetry_are_off_and_its_folder_is_the_jobs(framework: Framework) -> None:
    env = framework.environment.env_vars
    assert env["HF_HUB_OFFLINE"] == "1" and env["HF_HUB_DISABLE_TELEMETRY"] == "1"
    assert env["HF_HOME"].startswith("{work_dir}/")


def test_several_workers_are_offered(framework: Framework) -> None:
    assert framework.capabilities.several_workers is None and framework.process_group is ProcessGroup.INIT


@pytest.mark.parametrize("task", TASKS)
def test_every_task_has_the_well_known_keys(framework: Framework, task: str) -> None:
    keys = {"optim", "warmup_steps", "precision", "patience", "config_overrides"}
    assert keys <= config_model(framework, task).model_fields.keys()


def test_code_is_found_at_any_depth() -> None:
    values = {"text_config": {"auto_map": {"AutoModel": "m.M"}}, "layers": [{}, {"custom_pipelines": {"x": 1}}]}
    assert remote_code_keys(values) == ["layers[1].custom_pipelines", "text_config.auto_map"]
    assert remote_code_keys({"auto_map": {}, "trust_remote_code": False}) == []


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "nested/tokenizer_config.json"])
def test_a_model_that_brings_code_is_refused_by_name(tmp_path: Path, file: str) -> None:
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"vision_config": [{"auto_map": {"AutoModel": "modeling.Evil"}}]}))
    with pytest.raises(WeightsError, match=rf"org/evil.*{path.name}.*auto_map"):
        refuse_remote_code(tmp_path, "org/evil")


def test_a_broken_description_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match=r"config\.json"):
        refuse_remote_code(tmp_path, "org/model")
