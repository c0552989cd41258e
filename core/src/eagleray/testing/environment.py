"""Tests in a plugin's own environment, and whole jobs in it by the command line.

Its Python has pytest beside it where tests themselves need the framework; mypy checks against the framework there.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from uv import find_uv_bin

from eagleray.contract import Framework
from eagleray.environments.builder import build
from eagleray.environments.lock import read_lock
from eagleray.settings import load_settings
from eagleray.testing.attempts import code_folder

# Pure Python, so two environments can share them.
PYTEST = ("pytest", "_pytest", "py", "pluggy", "iniconfig", "packaging", "pygments", "pytest_timeout")


# A framework may lack annotations and export names without saying so; what it says of its types holds for the plugin.
MYPY = """
[mypy]
strict = True
plugins = pydantic.mypy
follow_untyped_imports = True
disallow_untyped_calls = False
implicit_reexport = True
warn_return_any = False
disallow_subclassing_any = False
disallow_untyped_decorators = False
[mypy-eagleray.*]
ignore_errors = True
"""


def python_of(framework: Framework) -> str:
    """The interpreter that has what `framework` needs.

    `EAGLERAY_TEST_<NAME>_PYTHON` names one; else it is this one where the framework can be found here, else that of
    the environment that the plugin's lock describes, built where it is not kept.
    """
    variable = f"EAGLERAY_TEST_{framework.name.upper().replace('-', '_')}_PYTHON"
    if given := os.environ.get(variable):
        return given
    environment = framework.environment
    if all(find_spec(name) is not None for name in environment.imports):
        return sys.executable
    root = load_settings().environments
    return str(build(read_lock(environment.lock), root=root, imports=environment.imports, say=print).python)


def unpack(folder: Path, *requirements: str) -> Path:
    """`folder` with the files of packages, `name==version`, in it: data and weights that no interpreter imports."""
    command = [find_uv_bin(), "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *requirements]
    subprocess.run(command, check=True)
    return folder


def train(framework: Framework, home: Path, *arguments: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The record of a job that `eagleray train` has completed on a local Ray.

    Args:
        home: an empty folder for its store and its state; environments are this machine's.
        arguments: of the command, beside the framework.
        config: for `--set`.

    Raises:
        AssertionError: it has not completed; carries the end of the output.
    """
    home.mkdir()
    (home / "envs").symlink_to(load_settings().environments)
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "EAGLERAY_"))}
    settings = [part for key, value in config.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    command = [Path(sys.executable).with_name("eagleray"), "train", "--framework", framework.name, *arguments]
    done = subprocess.run(
        [*map(str, command), *settings, "--json"],
        env={**environ, "EAGLERAY_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    record: dict[str, Any] = json.loads((home / "storage" / "jobs" / "1.json").read_text(encoding="utf-8"))
    assert record["status"] == "completed", record
    return record


def run_pytest(python: str, tests: Path, packages: Sequence[str], scratch: Path, *options: str) -> str:
    """Run the tests in the folder `tests` by `python`, which needs no pytest of its own; what was printed.

    Args:
        packages: import names of the code under test: the plugin's, beside the core's.
        scratch: an empty folder.

    Raises:
        AssertionError: a test failed; carries the end of the output.
    """
    code = code_folder(scratch / "code", ["eagleray", *packages, *PYTEST])
    command = [python, "-m", "pytest", "-c", os.devnull, "-p", "no:cacheprovider", "-q", "--rootdir", str(tests)]
    environ = {**os.environ, "PYTHONPATH": str(code)}
    done = subprocess.run(
        [*command, *options, str(tests)], env=environ, cwd=scratch, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    return done.stdout


def check_types(python: str, package: str, scratch: Path) -> None:
    """Check the plugin's `package`, strictly, against the framework as it lies in the environment of `python`.

    Args:
        package: import name; its code is found here, as is mypy.
        scratch: an empty folder.

    Raises:
        AssertionError: mypy has found something; carries what.
    """
    code = code_folder(scratch / "code", ["eagleray", package])
    (scratch / "mypy.ini").write_text(MYPY, encoding="utf-8")
    options = ["--config-file", "mypy.ini", "--cache-dir", "cache", "--python-executable", python]
    environ = {**os.environ, "MYPYPATH": str(code)}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *options, "-p", package],
        env=environ,
        cwd=scratch,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
