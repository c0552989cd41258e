"""Writes a plugin's lock in a project of its own: what its extra `runtime` asks for, and what the core needs there."""

from __future__ import annotations

import subprocess
import tempfile
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import uv

from eagleray.contract.errors import ConfigError, EnvironmentBuildError
from eagleray.environments.lock import Lock, parse_lock

EXTRA = "runtime"
LOCK = "locks/runtime.txt"


def requirements_of(project: Path) -> list[str]:
    """What a worker of the project's plugin needs, unpinned: the extra `runtime` and the core's own dependencies.

    Raises:
        ConfigError: the folder has no pyproject.toml, or that names no extra `runtime`.
    """
    file = project / "pyproject.toml"
    if not file.is_file():
        raise ConfigError(f"There is no {file}.", "Go to the plugin's folder, or name it.")
    try:
        extras = tomllib.loads(file.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
        own = list(extras[EXTRA])
    except (KeyError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"{file} has no extra '{EXTRA}': {error}.",
            f'Add [project.optional-dependencies] with {EXTRA} = ["your-library==1.2.3"].',
        ) from error
    # The core travels to a worker as code, so its dependencies must be there without it.
    core = [line for line in metadata.requires("eagleray") or [] if "extra ==" not in line]
    return [*own, *core]


def write_lock(project: Path, *, options: Sequence[str] = ()) -> tuple[Path, Lock]:
    """Resolve the requirements by uv and write them, pinned with hashes, where the plugin's wheel takes them from.

    Raises:
        ConfigError: the project is none.
        EnvironmentBuildError: uv finds no versions that fit together.
    """
    wanted = requirements_of(project)
    packages = [folder for folder in sorted((project / "src").glob("*")) if (folder / "__init__.py").is_file()]
    if len(packages) != 1:
        raise ConfigError(f"{project / 'src'} holds {len(packages)} packages.", "A plugin has one top package.")
    with tempfile.TemporaryDirectory() as scratch:
        source = Path(scratch, "requirements.in")
        source.write_text("\n".join(wanted) + "\n", encoding="utf-8")
        command = [uv.find_uv_bin(), "pip", "compile", "--quiet", "--universal", "--python-version", "3.11"]
        command += ["--generate-hashes", "--no-header", "--no-annotate", "--no-emit-index-url", *options, str(source)]
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split())
        raise EnvironmentBuildError(
            f"No versions fit what {project / 'pyproject.toml'} asks for: {said}",
            f"Loosen a bound of its extra '{EXTRA}'; eagleray itself needs: {', '.join(wanted[-12:])}.",
        )
    target = packages[0] / LOCK
    lock = parse_lock(done.stdout, f"{packages[0].name}:{LOCK}")
    target.parent.mkdir(exist_ok=True)
    target.write_text(done.stdout, encoding="utf-8")
    return target, lock
