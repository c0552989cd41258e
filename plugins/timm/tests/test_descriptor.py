"""What the plugin tells a host that has no timm installed."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pluggy
import pytest
from pydantic import BaseModel, ValidationError

import eagleray_timm
from eagleray.contract import PROJECT, ConfigError, Framework, ProcessGroup, hooks
from eagleray.contract.validation import validate
from eagleray_timm.config import ClassificationConfig
from eagleray_timm.options import GROUPS

TASK = "image-classification"


@pytest.fixture(scope="module")
def framework() -> Framework:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(hooks)
    manager.register(eagleray_timm)
    manager.check_pending()
    found: list[Framework] = []
    manager.hook.register_frameworks(register=found.append)
    assert len(found) == 1
    return found[0]


def test_listing_imports_nothing_heavy() -> None:
    code = (
        "import sys, eagleray_timm as p, eagleray_timm.config\n"
        "p.register_frameworks(lambda f: f.models)\n"
        "print(sorted({'torch', 'timm', 'numpy', 'PIL', 'matplotlib', 'ray'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_well_over_a_thousand_architectures_each_with_its_size(framework: Framework) -> None:
    plain = [card for card in framework.models if "." not in card.name]
    assert len(plain) > 1300
    assert all(card.parameters and card.parameters > 1000 and "pixels" in card.description for card in plain)


def test_resnet_and_efficientnet_come_first(framework: Framework) -> None:
    names = [card.name for card in framework.models if "." not in card.name]
    assert names[0].startswith("resnet")
    assert names.index("resnet50") < names.index("efficientnet_b0") < names.index("vit_base_patch16_224")


def test_a_name_makes_one_card(framework: Framework) -> None:
    names = [card.name for card in framework.models]
    assert len(names) == len(set(names))


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


def test_the_config_is_named_and_every_field_is_described_and_grouped(framework: Framework) -> None:
    module, _, name = framework.configs[TASK].partition(":")
    model: type[BaseModel] = getattr(import_module(module), name)
    properties = model.model_json_schema()["properties"]
    assert len(properties) > 70
    assert all({"description", "default", "group"} <= field.keys() for field in properties.values())
    assert {field["group"] for field in properties.values()} == {group.__doc__ for group in GROUPS}


@pytest.mark.parametrize(
    "values",
    [
        {"opt": "adamx"},
        {"momentum": 1.0},
        {"img_size": 8},
        {"smoothing": 1.0},
        {"grad_accum_steps": 0},
        {"layer_decay": 0.0},
        {"aa": "randaugment"},
        {"in_chans": 2},
        {"sched": "plateau"},
        {"freeze": -1},
        {"epochs": 3},
        {"mean": [0.5, 0.5]},
        {"class_weights": "neg_pos"},
        {"class_weights": {"a": -1.0}},
        {"loss": "zlpr"},
        {"multi_label": True, "loss": "ce"},
        {"multi_label": True, "loss": "zlpr", "mixup": 0.2},
        {"loss": "asl", "cutmix": 1.0},
        {"eval_metric": "mAP"},
    ],
)
def test_a_wrong_value_or_combination_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ClassificationConfig(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"aa": "rand-m9-mstd0.5-inc1"},
        {"aa": "augmix-m5-w4-d2"},
        {"aa": "original-mstd0.5"},
        {"freeze": "backbone"},
        {"freeze": 2},
        {"freeze": ["conv_stem", "blocks.0"]},
        {"class_weights": {"cat": 2.0}},
        {"multi_label": True, "loss": "asl", "class_weights": "neg_pos"},
        {"compile": "reduce-overhead"},
        {"scale": [0.5, 1.0]},
    ],
)
def test_values_of_every_kind_are_taken_as_they_are(values: dict[str, object]) -> None:
    assert ClassificationConfig(**values).model_dump(exclude_unset=True) == values


def test_a_misspelt_key_names_the_nearest_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'mixup'"):
        validate(ClassificationConfig, {"mixupp": 0.2}, what="advanced_config")


def test_the_figure_that_chooses_the_best_follows_the_labels() -> None:
    assert ClassificationConfig().fitness == "accuracy_top1"
    assert ClassificationConfig(multi_label=True).fitness == "mAP"
    assert ClassificationConfig(eval_metric="f1").fitness == "f1"
