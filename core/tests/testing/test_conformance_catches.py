"""The suite is worth its name: a plugin with one defect fails the one test that is about it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest
from pluggy import PluginValidationError
from pydantic import BaseModel, ConfigDict, Field, field_validator

from eagleray.contract import hookimpl
from eagleray.testing.conformance import Case, DescriptorConformance, FrameworkConformance
from eagleray.testing.conformance.schema import incomplete, untrue
from eagleray.testing.conformance.suite import missing_tests
from eagleray.testing.conformance.training import cases_of
from eagleray.testing.echo import FRAMEWORK, register_frameworks
from eagleray.testing.echo_config import EchoConfig

# Number of the behaviour, and which defect where there are several → what the adapter does wrong, as methods of a
# subclass of the echo adapter.
DEFECTS = {
    "c7": "def _resumed(self, path):\n        state = super()._resumed(path)\n"
    "        state.velocity = {name: value * 0 for name, value in state.velocity.items()}\n        return state",
    "c12": "def train(self):\n        self.context.host.stop_after_steps = None\n        super().train()",
    "c14": 'def load_data(self):\n        super().load_data()\n        (Path.home() / "cache").write_text("x")',
    "c19": "def load_model(self):\n        super().load_model()\n        faulthandler.enable()",
    "c25": 'def validate(self):\n        return {**super().validate(), "val_loss": float("nan")}',
    "c26": "def load_model(self):\n        self.context.seed = 0\n        super().load_model()",
    "c28": "def _resumed(self, path):\n        try:\n            return super()._resumed(path)\n"
    "        except Exception:\n            return self.state",
    "c30": "def load_data(self):\n        super().load_data()\n        try:\n"
    '            socket.create_connection(("telemetry.example.org", 443))\n        except OSError:\n            pass',
    "c31": "def load_data(self):\n        super().load_data()\n"
    "        threading.Thread(target=time.sleep, args=(9,)).start()",
    "c34": "def _step(self, batch):\n        self.group.others = []\n        return super()._step(batch)",
    # Of an epoch of one batch, or of batches of an even number of pictures, these two would be as good as right.
    "c34_later": "def _train_epoch(self, epoch):\n        self.first = True\n"
    "        return super()._train_epoch(epoch)\n\n    def _step(self, batch):\n        others = self.group.others\n"
    "        self.group.others = others if self.first else []\n        self.first = False\n"
    "        loss = super()._step(batch)\n        self.group.others = others\n        return loss",
    "c34_uneven": "def _step(self, batch):\n"
    "        return super()._step(batch[: len(batch) // self.context.world_size * self.context.world_size])",
    "c36": "def _train_epoch(self, epoch):\n        self.group.any = lambda flag: flag\n"
    "        return super()._train_epoch(epoch)",
}
PLUGIN = """
import dataclasses, socket, threading, time
from pathlib import Path
from eagleray.testing.echo import FRAMEWORK, register_frameworks
from eagleray.testing.echo_config import EchoConfig

def register_frameworks(register):
    register(dataclasses.replace(FRAMEWORK, adapter="{name}.adapter:Adapter"))
"""
ADAPTER = """
import faulthandler, socket, threading, time
from pathlib import Path
from eagleray.testing.echo_adapter import EchoAdapter

class Adapter(EchoAdapter):
    {body}
"""
TESTS = """
class Test_{name}(FrameworkConformance):
    plugin = "{name}"
    cases = (Case("image-classification", config={{"hidden": 2}}),)
    timeout_s = 40
"""


@pytest.mark.slow
def test_a_defect_fails_the_test_of_its_behaviour(tmp_path: Path) -> None:
    text = "from eagleray.testing.conformance import Case, FrameworkConformance\n"
    for defect, body in DEFECTS.items():
        name = f"defect_{defect}"
        package = tmp_path / name
        package.mkdir()
        (package / "__init__.py").write_text(PLUGIN.format(name=name))
        (package / "adapter.py").write_text(ADAPTER.format(body=body))
        text += TESTS.format(name=name)
    file = tmp_path / "test_defects.py"
    file.write_text(text)
    chosen = " or ".join(f"(Test_defect_{defect} and test_{defect.partition('_')[0]}_)" for defect in DEFECTS)
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "t")]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([*command, "-k", chosen, str(file)], env=environ, capture_output=True, text=True, check=False)
    failed = set(re.findall(r"^FAILED .*::Test_defect_(\w+)::", done.stdout, re.MULTILINE))
    assert failed == set(DEFECTS), done.stdout[-3000:]


def test_a_deleted_or_replaced_standard_test_is_refused_with_its_class() -> None:
    """C32"""
    lacking = "test_c3_the_steps_are_called_in_order is deleted; test_c30_nobody_is_called is replaced without xfail"
    with pytest.raises(TypeError, match=lacking):

        class Without(FrameworkConformance):
            test_c3_the_steps_are_called_in_order = None  # type: ignore[assignment]

            def test_c30_nobody_is_called(self) -> None:  # type: ignore[override]
                pass


def test_a_mixin_that_hides_a_standard_test_is_refused() -> None:
    """C32"""

    class Quiet:
        def test_c30_nobody_is_called(self) -> None:
            pass

    with pytest.raises(TypeError, match="test_c30_nobody_is_called is replaced"):

        class Hidden(Quiet, FrameworkConformance):  # type: ignore[misc]
            pass


def test_what_checks_the_standard_tests_cannot_be_replaced_either() -> None:
    """C32"""
    with pytest.raises(TypeError, match="test_c32_no_standard_test_is_deleted_or_replaced is replaced"):

        class Unchecked(FrameworkConformance):
            def test_c32_no_standard_test_is_deleted_or_replaced(self) -> None:
                pass

    with pytest.raises(TypeError, match="__init_subclass__ is replaced"):

        class Unasked(FrameworkConformance):
            def __init_subclass__(cls, **options: object) -> None:
                pass

    with pytest.raises(TypeError, match="pytest_generate_tests is replaced"):

        class Nothing(FrameworkConformance):
            def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
                metafunc.parametrize("case", [])


def test_a_standard_test_that_is_taken_away_later_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """C32"""

    class Later(FrameworkConformance):
        plugin = "eagleray.testing.echo"

    monkeypatch.setattr(Later, "test_c3_the_steps_are_called_in_order", None)
    assert missing_tests(Later) == ["test_c3_the_steps_are_called_in_order is deleted"]
    with pytest.raises(AssertionError):
        Later().test_c32_no_standard_test_is_deleted_or_replaced()


def test_a_standard_test_that_is_expected_to_fail_says_why() -> None:
    class Excused(FrameworkConformance):
        @pytest.mark.xfail(reason="the library asks for its licence server")
        def test_c30_nobody_is_called(self) -> None:  # type: ignore[override]
            pass

    assert missing_tests(Excused) == []


def test_without_cases_every_task_is_tried() -> None:
    """C37"""

    class Bare(FrameworkConformance):
        plugin = "eagleray.testing.echo"

    assert [case.task for case in cases_of(Bare)] == ["image-classification", "object-detection"]
    Bare().test_c37_every_task_is_tried_or_says_why_not(FRAMEWORK)


@pytest.mark.parametrize("reason", ["", "  "])
def test_a_task_without_a_case_and_without_a_reason_is_seen(reason: str) -> None:
    """C37"""

    class Half(FrameworkConformance):
        plugin = "eagleray.testing.echo"
        cases = (Case("object-detection"),)
        untried: ClassVar[Mapping[str, str]] = {"image-classification": reason} if reason else {}

    with pytest.raises(AssertionError, match="no case, and no reason in `untried`: image-classification"):
        Half().test_c37_every_task_is_tried_or_says_why_not(FRAMEWORK)


def test_a_task_may_be_left_out_for_a_reason_that_stays_true() -> None:
    """C37"""

    class Excused(FrameworkConformance):
        plugin = "eagleray.testing.echo"
        untried: ClassVar[Mapping[str, str]] = {"image-classification": "it takes an hour"}

    assert [case.task for case in cases_of(Excused)] == ["object-detection"]
    Excused().test_c37_every_task_is_tried_or_says_why_not(FRAMEWORK)

    class Stale(Excused):
        cases = (Case("object-detection"), Case("image-classification"))

    with pytest.raises(AssertionError, match="names what is tried or no task"):
        Stale().test_c37_every_task_is_tried_or_says_why_not(FRAMEWORK)


class Described(DescriptorConformance):
    plugin = "eagleray.testing.echo"


def test_a_hook_that_is_misspelt_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """C1"""
    plugin = ModuleType("misspelt")
    plugin.register_frameworks = register_frameworks  # type: ignore[attr-defined]
    plugin.register_callback = hookimpl(lambda register: None)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "misspelt", plugin)

    class Misspelt(DescriptorConformance):
        plugin = "misspelt"

    with pytest.raises(PluginValidationError, match="register_callback"):
        Misspelt().test_c1_its_hooks_are_those_of_the_contract(FRAMEWORK)


def test_a_variable_that_names_an_unknown_place_is_seen() -> None:
    """C15"""
    environment = replace(FRAMEWORK.environment, env_vars={"CACHE": "{work_dir}/a", "CONFIG": "{workdir}/b"})
    with pytest.raises(AssertionError, match=r"{workdir}"):
        Described().test_c15_the_variables_name_no_other_place_than_the_work_folder(
            replace(FRAMEWORK, environment=environment)
        )


def test_a_key_of_the_learning_rate_that_no_config_has_is_seen() -> None:
    """C39"""
    with pytest.raises(AssertionError, match="lr0"):
        Described().test_c39_the_keys_of_the_learning_rate_are_keys_of_a_config(
            replace(FRAMEWORK, learning_rate_keys=("lr0",)), {"image-classification": EchoConfig}
        )


@pytest.mark.parametrize("silent", ["version", "licence", "description"])
def test_a_description_that_leaves_something_out_is_seen(silent: str) -> None:
    """C40"""
    nothing: dict[str, Any] = {silent: " "}
    with pytest.raises(AssertionError):
        Described().test_c40_lists_can_show_what_it_is_and_under_which_licence(replace(FRAMEWORK, **nothing))


def test_a_value_that_is_wrongly_taken_changed_on_the_way_or_lost_as_json_is_seen() -> None:
    """C23, C38"""

    class Rounded(BaseModel):
        model_config = ConfigDict(extra="forbid")
        size: int = 1
        share: float = float("inf")

    class Changed(DescriptorConformance):
        taken = (("any", {"size": "2"}),)
        refused = (("any", {"size": 0}),)

    configs: dict[str, type[BaseModel]] = {"any": Rounded}
    with pytest.raises(AssertionError, match="'size': 0"):
        Changed().test_c23_what_is_no_value_is_refused(configs)
    with pytest.raises(AssertionError, match="'size': '2'"):
        Changed().test_c38_values_reach_the_worker_as_they_are(configs)
    with pytest.raises((AssertionError, ValueError)):
        Changed().test_c38_defaults_that_are_sent_back_are_no_change(configs)


def test_a_schema_that_lacks_something_or_lies_is_seen() -> None:
    class Lying(BaseModel):
        silent: int = 1
        bounded: float = Field(default=0.5, ge=0, le=1, description="d")
        strict: float = Field(default=0.5, ge=0, le=1, description="d", json_schema_extra={"maximum": 2})

        @field_validator("bounded", mode="wrap")
        @classmethod
        def anything(cls, value: float, check: object) -> float:
            return value

    class Honest(BaseModel):
        model_config = ConfigDict(extra="forbid")
        bounded: float = Field(default=0.5, ge=0, le=1, description="d")

    assert {clause.split()[0] for clause in incomplete(Lying)} == {"unknown", "'silent'"}
    assert {clause.split()[0] for clause in untrue(Lying)} == {"bounded", "strict"}
    assert incomplete(Honest) == untrue(Honest) == []
