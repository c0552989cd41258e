"""The part of the suite that needs the plugin and nothing of its framework."""

from __future__ import annotations

import importlib
import importlib.util
import re
import subprocess
import sys

import pytest
from pydantic import BaseModel

from eagleray.contract import ConfigError, Framework, ModelStatus
from eagleray.environments.lock import read_lock
from eagleray.plugins.catalogue import config_model, validate_config
from eagleray.plugins.validity import faults_of
from eagleray.testing.conformance.schema import incomplete, untrue
from eagleray.testing.conformance.suite import Conformance

HEAVY = ("torch", "torchvision", "tensorflow", "jax", "ray", "cv2", "matplotlib", "scipy", "pandas", "sklearn")
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


class DescriptorConformance(Conformance):
    """What a host sees of the plugin, where its framework is not installed."""

    @pytest.fixture(scope="class")
    @classmethod
    def configs(cls, framework: Framework) -> dict[str, type[BaseModel]]:
        return {task: config_model(framework, task) for task in framework.tasks}

    def test_c1_the_description_is_accepted(self, framework: Framework) -> None:
        """C1"""
        assert faults_of(framework) == []

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

    def test_c24_the_lock_pins_all_with_hashes_and_the_drivers_ray(self, framework: Framework) -> None:
        """C24"""
        lock = read_lock(framework.environment.lock)
        assert all(pin.hashes for pin in lock.requirements)
