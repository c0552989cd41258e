"""What may be in a process, and who may import whom."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORE = ROOT / "core/src"
HEAVY = ("torch", "torchvision", "ultralytics", "timm", "transformers", "accelerate", "ray")

# Runs the CLI as a user does, then says which of the heavy packages came along.
LIST_PLUGINS = """
import json, sys
sys.argv = ["eagleray", "plugins", "list"]
from eagleray.cli.app import main
try:
    code = main()
except SystemExit as end:
    code = end.code
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""

# Imports every named module in one process and says, for each that failed or brought Ray along, what happened.
ON_RAY = {f"eagleray.control.{name}" for name in ("actor", "attempt", "ray_executor", "remote")}
IMPORT_ALL = """
import importlib, json, sys
wrong = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except BaseException as error:
        wrong[name] = f"{type(error).__name__}: {error}"
    if "ray" in sys.modules:
        wrong[name] = "imports ray"
        break
print(json.dumps(wrong))
"""


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, cwd=ROOT)


def core_modules() -> list[str]:
    """Dotted names of the core's modules outside execution and of the control plane's side that is on Ray."""
    paths = [path.relative_to(CORE).with_suffix("") for path in sorted((CORE / "eagleray").rglob("*.py"))]
    names = [".".join(path.parts).removesuffix(".__init__") for path in paths if path.parts[1] != "execution"]
    return [name for name in names if name not in ON_RAY]


def imported_wrongly(*modules: str) -> dict[str, str]:
    result = python("-W", "error", "-c", IMPORT_ALL, *modules)
    assert result.returncode == 0, result.stderr
    wrong: dict[str, str] = json.loads(result.stdout.splitlines()[-1])
    return wrong


def test_listing_plugins_loads_no_framework_and_no_ray() -> None:
    result = python("-c", LIST_PLUGINS)
    assert result.returncode == 0, result.stderr
    code, loaded = json.loads(result.stdout.splitlines()[-1])
    assert code in (0, None)
    assert "eagleray" in loaded
    assert not set(HEAVY) & set(loaded)


def test_outside_execution_every_module_imports_without_ray() -> None:
    modules = core_modules()
    assert "eagleray.contract.adapter" in modules
    assert imported_wrongly(*modules) == {}


def test_a_module_that_imports_ray_or_fails_is_reported() -> None:
    wrong = imported_wrongly("eagleray.no_such_module", "ray.train")
    assert wrong["ray.train"] == "imports ray"
    assert wrong["eagleray.no_such_module"].startswith("ModuleNotFoundError")


def test_the_import_contracts_hold() -> None:
    result = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
    )
    assert result.returncode == 0, result.stdout + result.stderr
