"""Runs the tests of `in_environment/` with the Python of the plugin's own environment, which has no pytest."""

from __future__ import annotations

import os
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from eagleray.environments.builder import build
from eagleray.environments.lock import read_lock
from eagleray.settings import load_settings
from eagleray_ultralytics.framework import describe

HERE = Path(__file__).parent
SOURCES = (HERE.parents[1] / "ultralytics" / "src", HERE.parents[2] / "core" / "src")
# Pure Python, so the two environments can share them.
BORROWED = ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments")


@pytest.fixture(scope="session")
def environment_python() -> str:
    """The environment's Python, built where it is not kept; EAGLERAY_TEST_ULTRALYTICS_PYTHON names another one."""
    if given := os.environ.get("EAGLERAY_TEST_ULTRALYTICS_PYTHON"):
        return given
    environment = describe("0").environment
    root = load_settings().environments
    return str(build(read_lock(environment.lock), root=root, imports=environment.imports, say=print).python)


def borrow_pytest(folder: Path) -> None:
    """Link this environment's pytest into `folder`, and nothing else of it."""
    for name in BORROWED:
        spec = find_spec(name)
        assert spec is not None and spec.origin is not None
        source = Path(spec.origin)
        taken = source.parent if source.name == "__init__.py" else source
        folder.joinpath(taken.name).symlink_to(taken)


@pytest.mark.framework
@pytest.mark.timeout(1800)
def test_the_adapter_in_its_own_environment(environment_python: str, tmp_path: Path) -> None:
    borrowed = tmp_path / "borrowed"
    borrowed.mkdir()
    borrow_pytest(borrowed)
    command = [environment_python, "-m", "pytest", "-c", os.devnull, "-p", "no:cacheprovider", "-q"]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (*SOURCES, borrowed)))}
    done = subprocess.run(
        [*command, "--rootdir", HERE, HERE / "in_environment"], env=env, cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
