"""The tutorial's files are those of the finished example, and the example keeps the contract."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "eagleray-torchvision"
SHOWN = re.compile(r"^`(?P<path>[\w./]+)`\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def shown() -> dict[str, str]:
    page = (ROOT / "docs" / "plugin-tutorial.md").read_text(encoding="utf-8")
    return {match["path"]: match["text"] for match in SHOWN.finditer(page)}


def run_tests(*options: str, scratch: Path) -> str:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(scratch), *options]
    environ = {**os.environ, "PYTHONPATH": str(EXAMPLE / "src")}
    done = subprocess.run(command, cwd=EXAMPLE, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("path", sorted(shown()))
def test_a_file_of_the_tutorial_is_the_finished_one(path: str) -> None:
    assert shown()[path] == (EXAMPLE / path).read_text(encoding="utf-8")


def test_the_tutorial_shows_every_file_of_the_package() -> None:
    written = {str(path.relative_to(EXAMPLE)) for path in EXAMPLE.rglob("*.py") if "__pycache__" not in path.parts}
    assert written | {"pyproject.toml"} == set(shown())


def test_the_example_describes_itself_as_the_contract_wants(tmp_path: Path) -> None:
    assert " passed" in run_tests("-m", "not framework", scratch=tmp_path / "t")


@pytest.mark.framework
@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_example_trains_resumes_and_predicts_as_the_contract_wants(tmp_path: Path) -> None:
    said = run_tests("-m", "framework", scratch=tmp_path / "t")
    assert " passed" in said and "failed" not in said
