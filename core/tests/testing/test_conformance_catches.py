"""The suite is worth its name: a plugin with one defect fails the one test that is about it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from eagleray.testing.conformance import FrameworkConformance
from eagleray.testing.conformance.schema import incomplete, untrue
from eagleray.testing.conformance.suite import missing_tests

# Number of the behaviour → what the adapter does wrong, as methods of a subclass of the echo adapter.
DEFECTS = {
    "c7": "def _resumed(self, path):\n        state = super()._resumed(path)\n"
    "        state.velocity = {name: value * 0 for name, value in state.velocity.items()}\n        return state",
    "c12": "def train(self):\n        self.context.host.stop_after_steps = None\n        super().train()",
    "c14": 'def load_data(self):\n        super().load_data()\n        (Path.home() / "cache").write_text("x")',
    "c25": 'def validate(self):\n        return {**super().validate(), "val_loss": float("nan")}',
    "c26": "def load_model(self):\n        self.context.seed = 0\n        super().load_model()",
    "c28": "def _resumed(self, path):\n        try:\n            return super()._resumed(path)\n"
    "        except Exception:\n            return self.state",
    "c30": "def load_data(self):\n        super().load_data()\n        try:\n"
    '            socket.create_connection(("telemetry.example.org", 443))\n        except OSError:\n            pass',
    "c31": "def load_data(self):\n        super().load_data()\n"
    "        threading.Thread(target=time.sleep, args=(9,)).start()",
    "c34": "def _step(self, batch):\n        self.group.others = []\n        return super()._step(batch)",
    "c36": "def _train_epoch(self, epoch):\n        self.group.any = lambda flag: flag\n"
    "        return super()._train_epoch(epoch)",
}
PLUGIN = """
import dataclasses, socket, threading, time
from pathlib import Path
from eagleray.testing.echo import FRAMEWORK

def register_frameworks(register):
    register(dataclasses.replace(FRAMEWORK, adapter="{name}.adapter:Adapter"))
"""
ADAPTER = """
import socket, threading, time
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
    for number, body in DEFECTS.items():
        name = f"defect_{number}"
        package = tmp_path / name
        package.mkdir()
        (package / "__init__.py").write_text(PLUGIN.format(name=name))
        (package / "adapter.py").write_text(ADAPTER.format(body=body))
        text += TESTS.format(name=name)
    file = tmp_path / "test_defects.py"
    file.write_text(text)
    chosen = " or ".join(f"(Test_defect_{number} and test_{number}_)" for number in DEFECTS)
    command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "t")]
    environ = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([*command, "-k", chosen, str(file)], env=environ, capture_output=True, text=True, check=False)
    failed = set(re.findall(r"^FAILED .*::Test_defect_(c\d+)::", done.stdout, re.MULTILINE))
    assert failed == set(DEFECTS), done.stdout[-3000:]


def test_a_deleted_or_replaced_standard_test_is_seen() -> None:
    class Without(FrameworkConformance):
        test_c3_the_steps_are_called_in_order = None  # type: ignore[assignment]

        def test_c30_nobody_is_called(self) -> None:  # type: ignore[override]
            pass

    assert missing_tests(Without) == [
        "test_c3_the_steps_are_called_in_order is deleted",
        "test_c30_nobody_is_called is replaced without xfail(reason=…)",
    ]


def test_a_standard_test_that_is_expected_to_fail_says_why() -> None:
    class Excused(FrameworkConformance):
        @pytest.mark.xfail(reason="the library asks for its licence server")
        def test_c30_nobody_is_called(self) -> None:  # type: ignore[override]
            pass

    assert missing_tests(Excused) == []


def test_a_schema_that_lacks_something_or_lies_is_seen() -> None:
    from pydantic import BaseModel, ConfigDict, Field, field_validator

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
