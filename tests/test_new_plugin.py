"""`eagleray plugins new` makes a package that passes the suite, installs and trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import uv

from eagleray.contract import ConfigError
from eagleray.environments.lock import parse_lock
from eagleray.environments.plugin_lock import requirements_of
from eagleray.plugins.scaffold import write_plugin

from .conftest import Home

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
TASKS = ("image-classification", "object-detection")


def run(*command: str | Path, cwd: Path, **environ: str) -> str:
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env={**os.environ, **environ}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return done.stdout


def test_the_command_says_what_to_do_next(tmp_path: Path) -> None:
    said = run(BIN / "eagleray", "plugins", "new", "my-shapes", cwd=tmp_path)
    assert (tmp_path / "eagleray-my-shapes" / "pyproject.toml").is_file()
    assert "pip install -e" in said and "--framework my-shapes" in said


@pytest.mark.parametrize("task", TASKS)
def test_a_new_package_keeps_the_contract_from_the_start(task: str, tmp_path: Path) -> None:
    folder = write_plugin("shapes", task, tmp_path)
    pytest_here = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    said = run(*pytest_here, "--basetemp", tmp_path / "t", cwd=folder, PYTHONPATH=str(folder / "src"))
    assert " passed" in said and "failed" not in said
    assert "3 skipped" in said, "what the template cannot is skipped, and nothing else"


@pytest.mark.parametrize("task", TASKS)
def test_a_new_packages_code_is_typed_and_clean(task: str, tmp_path: Path) -> None:
    folder = write_plugin("shapes", task, tmp_path)
    settings = ("--config", ROOT / "pyproject.toml")
    run(BIN / "ruff", "check", *settings, "--config", "lint.isort.known-first-party=['eagleray']", "src", cwd=folder)
    run(BIN / "ruff", "format", "--check", *settings, "src", "tests", cwd=folder)
    core = find_spec("eagleray")
    assert core is not None and core.origin is not None
    path = f"{folder / 'src'}:{Path(core.origin).parents[1]}"
    run(BIN / "mypy", "--strict", "--follow-imports=silent", "-p", "eagleray_shapes", cwd=folder, MYPYPATH=path)


def test_its_lock_pins_what_its_own_project_and_the_core_need(tmp_path: Path) -> None:
    folder = write_plugin("shapes", TASKS[0], tmp_path)
    text = (folder / "src" / "eagleray_shapes" / "locks" / "runtime.txt").read_text()
    pinned = {pin.name for pin in parse_lock(text, "eagleray_shapes:locks/runtime.txt").requirements}
    wanted = requirements_of(folder)
    assert wanted[0] == "numpy>=2,<3" and {"numpy", "ray", "pydantic"} <= pinned


@pytest.mark.parametrize(
    ("name", "task", "says"),
    [
        ("My Shapes", TASKS[0], "no name for a plugin"),
        ("shapes", "keypoint-detection", "no template for keypoint-detection"),
        ("shapes", "detektion", "Unknown task"),
    ],
)
def test_a_wrong_name_or_task_is_refused_and_nothing_written(name: str, task: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        write_plugin(name, task, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_never_overwritten(tmp_path: Path) -> None:
    write_plugin("shapes", TASKS[0], tmp_path)
    with pytest.raises(ConfigError, match="exists"):
        write_plugin("shapes", TASKS[0], tmp_path)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_from_nothing_to_a_trained_model_in_a_venv_of_its_own(tmp_path: Path, home: Home, pictures: Path) -> None:
    """A person's steps, each by its command: make, install, lock, test, train."""
    venv = tmp_path / "venv"
    run(uv.find_uv_bin(), "venv", "-q", "--python", sys.executable, venv, cwd=tmp_path)
    install = (uv.find_uv_bin(), "pip", "install", "-q", "--python", venv / "bin" / "python")
    run(*install, f"{ROOT / 'core'}[testing]", cwd=tmp_path)
    run(venv / "bin" / "eagleray", "plugins", "new", "shapes", cwd=tmp_path)
    folder = tmp_path / "eagleray-shapes"
    run(*install, "-e", folder, cwd=folder)
    run(venv / "bin" / "eagleray", "plugins", "lock", folder, cwd=tmp_path)
    said = run(venv / "bin" / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    assert " passed" in said
    offered = json.loads(run(venv / "bin" / "eagleray", "plugins", "list", "--json", cwd=tmp_path))
    assert "shapes" in {framework["name"] for framework in offered["frameworks"]}
    train = ("train", "--framework", "shapes", "--model", "shapes-small", "--data", str(pictures), "--no-pretrained")
    done = subprocess.run(
        [venv / "bin" / "eagleray", *train, "--epochs", "3", "--batch-size", "4", "--json"],
        env=home.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert {path.name for path in home.job(1).glob("*.pt")} == {"best.pt", "last.pt"}
