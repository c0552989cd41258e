"""The part of the suite that needs the plugin and nothing of its framework."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pluggy
import pytest
from pydantic import BaseModel, ValidationError

from eagleray.contract import PROJECT, ConfigError, Framework, ModelStatus, hooks
from eagleray.environments.lock import read_lock
from eagleray.plugins.catalogue import config_model, validate_config
from eagleray.plugins.validity import faults_of
from eagleray.testing.conformance.schema import incomplete, untrue
from eagleray.testing.conformance.suite import Conformance

HEAVY = (
    *("torch", "torchvision", "tensorflow", "jax", "ray", "huggingface_hub"),
    *("numpy", "PIL", "cv2", "matplotlib", "scipy", "pandas", "sklearn"),
)
LISTING = """
import importlib, sys
plugin, *heavy = sys.argv[1:]
found = []
importlib.import_module(plugin).register_frameworks(found.append)
for framework in found:
    for reference in framework.configs.values():
        importlib.import_module(reference.partition(":")[0])
print("loaded:", *sorted(set(heavy) & set(sys.modules)))
"""


Values = tuple[str, Mapping[str, Any]]


class DescriptorConformance(Conformance):
    """What a host sees of the plugin, where its framework is not installed.

    Attributes:
        taken: tasks and values of `advanced_config`, as JSON has them, that each must take as they are.
        refused: the same that each must refuse.
    """

    taken: ClassVar[Sequence[Values]] = ()
    refused: ClassVar[Sequence[Values]] = ()

    @pytest.fixture(scope="class")
    @classmethod
    def configs(cls, framework: Framework) -> dict[str, type[BaseModel]]:
        return {task: config_model(framework, task) for task in framework.tasks}

    def test_c1_the_description_is_accepted(self, framework: Framework) -> None:
        """C1"""
        assert faults_of(framework) == []

    def test_c1_its_hooks_are_those_of_the_contract(self, framework: Framework) -> None:
        """C1"""
        manager = pluggy.PluginManager(PROJECT)
        manager.add_hookspecs(hooks)
        manager.register(importlib.import_module(type(self).plugin))
        manager.check_pending()
        found: list[Framework] = []
        manager.hook.register_frameworks(register=found.append)
        assert [each.name for each in found if each == framework] == [framework.name]

    def test_c2_listing_and_planning_import_nothing_heavy(self, framework: Framework) -> None:
        """C2"""
        heavy = [*HEAVY, *framework.environment.imports]
        done = subprocess.run(
            [sys.executable, "-c", LISTING, type(self).plugin, *heavy], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1].removeprefix("loaded:").split() == []

    def test_c2_the_modules_of_a_worker_are_there(self, framework: Framework) -> None:
        """C2"""
        references = [framework.adapter, *filter(None, [framework.predictor])]
        missing = [name for name in references if importlib.util.find_spec(name.partition(":")[0]) is None]
        assert missing == []

    def test_c15_the_variables_name_no_other_place_than_the_work_folder(self, framework: Framework) -> None:
        """C15"""
        text = " ".join(framework.environment.env_vars.values())
        assert set(re.findall(r"\{[^}]*\}?", text)) <= {"{work_dir}"}

    def test_c16_a_model_that_cannot_be_trained_says_why(self, framework: Framework) -> None:
        """C16"""
        silent = [
            card.name for card in framework.models if card.status is not ModelStatus.TRAINABLE and not card.reason
        ]
        assert silent == []

    def test_c21_what_is_absent_says_why(self, framework: Framework) -> None:
        """C21"""
        can = framework.capabilities
        absent = [can.several_workers, can.resume, can.auto_batch_size]
        assert all(found is None or found.reason.strip() for found in absent)

    def test_c23_every_tasks_schema_is_complete(self, configs: dict[str, type[BaseModel]]) -> None:
        """C23"""
        assert {task: incomplete(model) for task, model in configs.items()} == {task: [] for task in configs}

    def test_c23_the_schemas_bounds_are_those_of_the_validation(self, configs: dict[str, type[BaseModel]]) -> None:
        """C23"""
        assert {task: untrue(model) for task, model in configs.items()} == {task: [] for task in configs}

    def test_c23_a_misspelt_key_is_refused_with_the_nearest(self, framework: Framework) -> None:
        """C23"""
        for task in framework.tasks:
            key = next(iter(config_model(framework, task).model_fields), "")
            with pytest.raises(ConfigError, match=re.escape(key) if key else "unknown key"):
                validate_config(framework, task, {f"{key}x": 1})

    def test_c23_what_is_no_value_is_refused(self, configs: dict[str, type[BaseModel]]) -> None:
        """C23"""
        assert [(task, values) for task, values in self.refused if _takes(configs[task], values)] == []

    def test_c38_values_reach_the_worker_as_they_are(self, configs: dict[str, type[BaseModel]]) -> None:
        """C38"""
        for task, values in self.taken:
            given = configs[task].model_validate(dict(values))
            sent = json.loads(json.dumps(given.model_dump(mode="json", exclude_unset=True)))
            assert sent == values, task
            assert configs[task].model_validate(sent) == given, (task, values)

    def test_c38_defaults_that_are_sent_back_are_no_change(self, configs: dict[str, type[BaseModel]]) -> None:
        """C38"""
        for task, model in configs.items():
            shown = json.loads(json.dumps(model().model_dump(mode="json"), allow_nan=False))
            assert model.model_validate(shown).model_dump() == model().model_dump(), task

    def test_c39_the_keys_of_the_learning_rate_are_keys_of_a_config(
        self, framework: Framework, configs: dict[str, type[BaseModel]]
    ) -> None:
        """C39"""
        keys = {key for model in configs.values() for key in model.model_fields}
        assert set(framework.learning_rate_keys) <= keys

    def test_c40_lists_can_show_what_it_is_and_under_which_licence(self, framework: Framework) -> None:
        """C40"""
        assert all(text.strip() for text in (framework.version, framework.licence, framework.description))

    def test_c24_the_lock_pins_all_with_hashes_and_the_drivers_ray(self, framework: Framework) -> None:
        """C24"""
        lock = read_lock(framework.environment.lock)
        assert all(pin.hashes for pin in lock.requirements)


def _takes(model: type[BaseModel], values: Mapping[str, Any]) -> bool:
    try:
        model.model_validate(dict(values))
    except ValidationError:
        return False
    return True
