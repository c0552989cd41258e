"""What the plugin tells a host that has no timm installed."""

from __future__ import annotations

import pytest

from eagleray.contract import Framework, ProcessGroup
from eagleray.plugins.catalogue import config_model
from eagleray.testing.attempt import find_framework
from eagleray.testing.conformance import DescriptorConformance
from eagleray_timm.config import ClassificationConfig
from eagleray_timm.options import GROUPS

TASK = "image-classification"


class TestDescriptor(DescriptorConformance):
    plugin = "eagleray_timm"
    taken = (
        (TASK, {"aa": "rand-m9-mstd0.5-inc1"}),
        (TASK, {"aa": "augmix-m5-w4-d2"}),
        (TASK, {"aa": "original-mstd0.5"}),
        (TASK, {"freeze": "backbone"}),
        (TASK, {"freeze": 2}),
        (TASK, {"freeze": ["conv_stem", "blocks.0"]}),
        (TASK, {"class_weights": {"cat": 2.0}}),
        (TASK, {"multi_label": True, "loss": "asl", "class_weights": "neg_pos"}),
        (TASK, {"compile": "reduce-overhead"}),
        (TASK, {"scale": [0.5, 1.0]}),
    )
    refused = (
        (TASK, {"opt": "adamx"}),
        (TASK, {"momentum": 1.0}),
        (TASK, {"img_size": 8}),
        (TASK, {"smoothing": 1.0}),
        (TASK, {"grad_accum_steps": 0}),
        (TASK, {"layer_decay": 0.0}),
        (TASK, {"aa": "randaugment"}),
        (TASK, {"in_chans": 2}),
        (TASK, {"sched": "plateau"}),
        (TASK, {"freeze": -1}),
        (TASK, {"epochs": 3}),
        (TASK, {"mean": [0.5, 0.5]}),
        (TASK, {"class_weights": "neg_pos"}),
        (TASK, {"class_weights": {"a": -1.0}}),
        (TASK, {"loss": "zlpr"}),
        (TASK, {"multi_label": True, "loss": "ce"}),
        (TASK, {"multi_label": True, "loss": "zlpr", "mixup": 0.2}),
        (TASK, {"loss": "asl", "cutmix": 1.0}),
        (TASK, {"eval_metric": "mAP"}),
    )


@pytest.fixture(scope="module")
def framework() -> Framework:
    return find_framework("eagleray_timm", "")


def test_well_over_a_thousand_architectures_each_with_its_size(framework: Framework) -> None:
    plain = [card for card in framework.models if "." not in card.name]
    assert len(plain) > 1300
    assert all(card.parameters and card.parameters > 1000 and "pixels" in card.description for card in plain)


def test_resnet_and_efficientnet_come_first(framework: Framework) -> None:
    names = [card.name for card in framework.models if "." not in card.name]
    assert names[0].startswith("resnet")
    assert names.index("resnet50") < names.index("efficientnet_b0") < names.index("vit_base_patch16_224")


def test_a_name_stands_for_its_default_weights_and_other_tags_have_cards_of_their_own(framework: Framework) -> None:
    cards = {card.name: card for card in framework.models}
    assert cards["resnet50"].weights == "resnet50.a1_in1k" and "tv_in1k" in cards["resnet50"].description
    assert cards["resnet50.tv_in1k"].weights == "resnet50.tv_in1k"
    assert "resnet50.a1_in1k" not in cards
    assert cards["resnet50"].parameters == 25_557_032


def test_several_workers_and_resume_are_there(framework: Framework) -> None:
    absent = framework.capabilities
    assert absent.several_workers is None and absent.resume is None
    assert framework.process_group is ProcessGroup.INIT


def test_caches_of_the_hub_lie_in_the_work_folder(framework: Framework) -> None:
    env = framework.environment.env_vars
    assert env["HF_HOME"].startswith("{work_dir}/") and env["TORCH_HOME"].startswith("{work_dir}/")


def test_every_key_of_the_config_has_a_group(framework: Framework) -> None:
    properties = config_model(framework, TASK).model_json_schema()["properties"]
    assert len(properties) > 70
    assert all("group" in field for field in properties.values())
    assert {field["group"] for field in properties.values()} == {group.__doc__ for group in GROUPS}


def test_the_figure_that_chooses_the_best_follows_the_labels() -> None:
    assert ClassificationConfig().fitness == "accuracy_top1"
    assert ClassificationConfig(multi_label=True).fitness == "mAP"
    assert ClassificationConfig(eval_metric="f1").fitness == "f1"
