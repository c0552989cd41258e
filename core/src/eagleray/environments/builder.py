"""Build a plugin's environment once on this node, whoever asks and however often.

In place, under a lock, and the READY marker last: whatever dies on the way leaves a folder without the marker, which
nobody uses and the next builder deletes.
"""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import uv

from eagleray.contract.errors import EnvironmentBuildError
from eagleray.environments.lock import Lock, environment_name
from eagleray.environments.locking import LockTimeoutError, exclusive
from eagleray.environments.process import ProcessFailedError, stream
from eagleray.environments.ready import (
    BuiltEnvironment,
    build_lock_path,
    is_ready,
    python_of,
    read_marker,
    write_marker,
)

__all__ = ["BuiltEnvironment", "build", "is_ready"]

# Where the user fetches packages from and how is theirs to say. Everything else that uv reads from the environment
# could change what is installed (a constraint, another target, no hashes), so it does not reach it.
_UV_VARIABLES = (
    "UV_CACHE_DIR",
    "UV_CONCURRENT_",
    "UV_CONFIG_FILE",
    "UV_DEFAULT_INDEX",
    "UV_EXTRA_INDEX_URL",
    "UV_FIND_LINKS",
    "UV_HTTP_",
    "UV_INDEX",
    "UV_INSECURE_HOST",
    "UV_KEYRING_PROVIDER",
    "UV_NATIVE_TLS",
    "UV_NO_CACHE",
    "UV_NO_CONFIG",
    "UV_NO_INDEX",
    "UV_OFFLINE",
    "UV_REQUEST_TIMEOUT",
    "UV_SYSTEM_CERTS",
)
_DROPPED = ("UV_", "PYTHON", "VIRTUAL_ENV", "CONDA_", "PIP_")
Check = Literal["import", "find"]
_CHECKS: dict[Check, str] = {
    "import": "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)",
    "find": "import importlib.util, sys\n"
    "missing = [name for name in sys.argv[1:] if importlib.util.find_spec(name) is None]\n"
    "if missing: sys.exit('not found: ' + ', '.join(missing))",
}
_DISK_FULL = ("No space left on device", "os error 28", "Disk quota exceeded", "os error 122")


def build(
    lock: Lock,
    *,
    root: Path,
    imports: Sequence[str] = (),
    timeout_s: float = 1800,
    say: Callable[[str], None],
    offline: bool = False,
    check: Check = "import",
) -> BuiltEnvironment:
    """The lock's environment under `root`, built unless it is there; others who want the same one wait for it.

    Args:
        imports: modules that must import in it, besides Ray where the lock has it.
        timeout_s: for the building, and before that as long again for somebody else's.
        say: gets every line of progress.
        offline: take packages from uv's cache alone.
        check: `import` imports the modules, which a missing system library fails, also where the environment is there
            but was not imported from yet; `find` only sees that they are there, and leaves the import to the worker.

    Raises:
        EnvironmentBuildError: it could not be built; nothing of it is left behind.
    """
    started = time.monotonic()
    name = environment_name(lock)
    path = root / name
    try:
        with exclusive(
            build_lock_path(root, name),
            timeout_s=timeout_s,
            waiting=lambda: say(f"waiting for another process that builds {name}…"),
        ) as descriptor:
            work = _Build(lock, path, tuple(imports), check, time.monotonic() + timeout_s, say, offline, descriptor)
            if found := is_ready(lock, root):
                _check_further(work)
                return BuiltEnvironment(path, found.python, time.monotonic() - started, reused=True)
            _build_or_remove(work, timeout_s)
    except LockTimeoutError as error:
        raise EnvironmentBuildError(
            f"Another process has been building {name} for more than {timeout_s:g} s.", _raise_limit(timeout_s)
        ) from error
    except OSError as error:
        raise _unwritable(root, error) from error
    seconds = time.monotonic() - started
    say(f"environment {name} is ready after {seconds:.1f} s")
    return BuiltEnvironment(path, python_of(path), seconds, reused=False)


@dataclass(frozen=True)
class _Build:
    """One attempt at building; `descriptor` is the held lock's, which children keep open."""

    lock: Lock
    path: Path
    imports: tuple[str, ...]
    check: Check
    deadline: float
    say: Callable[[str], None]
    offline: bool
    descriptor: int

    def run(self, *argv: str, environ: Mapping[str, str] | None = None) -> None:
        stream(
            argv,
            say=self.say,
            deadline=self.deadline,
            environ={**_environ(), **(environ or {})},
            # Not the caller's folder, whose pyproject.toml or uv.toml would be read.
            directory=self.path.parent,
            keeps_open=(self.descriptor,),
        )


def _build_or_remove(work: _Build, timeout_s: float) -> None:
    name = work.path.name
    try:
        _remove(work.path)
        _install(work)
        _check(work)
        write_marker(work.path, work.lock, imported=work.check == "import")
    except BaseException as error:
        _remove(work.path, quietly=True)
        if isinstance(error, TimeoutError):
            raise EnvironmentBuildError(
                f"The environment {name} was not ready within {timeout_s:g} s.", _raise_limit(timeout_s)
            ) from error
        if isinstance(error, ProcessFailedError):
            raise _install_failed(work, error) from error
        raise


def _check_further(work: _Build) -> None:
    """Import in an environment whose modules were only looked for. A failure leaves it: mend the machine, try again."""
    marker = read_marker(work.path)
    if work.check == "import" and marker is not None and not marker.get("imported"):
        _check(work)
        write_marker(work.path, work.lock, imported=True)


def _install(work: _Build) -> None:
    tool = _uv()
    packages = len(work.lock.requirements)
    work.say(f"building environment {work.path.name} from {packages} pins of {work.lock.reference}")
    _say_if_copied(work, tool)
    base = str(Path(getattr(sys, "_base_executable", "") or sys.executable).resolve())
    work.run(tool, "venv", "--quiet", "--no-project", "--python", base, str(work.path))
    pins = work.path / "lock.txt"
    pins.write_text(work.lock.normalised, encoding="utf-8")
    work.run(
        *(tool, "pip", "sync", "--require-hashes", "--only-binary", ":all:", "--link-mode", "hardlink"),
        *(("--offline",) if work.offline else ()),
        *("--python", str(python_of(work.path)), str(pins)),
    )


def _check(work: _Build) -> None:
    modules = [*(["ray"] if work.lock.versions("ray") else []), *work.imports]
    if not modules:
        return
    work.say(f"checking: {work.check} {', '.join(modules)}")
    try:
        # Some frameworks write settings into the user's folder when they are imported.
        with tempfile.TemporaryDirectory(prefix="eagleray-home-") as home:
            private = {"HOME": home, "XDG_CONFIG_HOME": home, "XDG_CACHE_HOME": home}
            work.run(str(python_of(work.path)), "-I", "-c", _CHECKS[work.check], *modules, environ=private)
    except ProcessFailedError as error:
        raise EnvironmentBuildError(
            f"The packages of {work.lock.reference} were installed, but {' and '.join(modules)} cannot be imported: "
            f"{_last(error)}",
            "The lock lacks a package, or this machine a system library that the error names.",
        ) from error


def _uv() -> str:
    try:
        return str(uv.find_uv_bin())
    except FileNotFoundError as error:
        if found := shutil.which("uv"):
            return found
        raise EnvironmentBuildError("uv is not installed beside eagleray.", "Try: pip install uv") from error


def _environ() -> dict[str, str]:
    """This process's environment without what could change which packages are installed, or what Python imports."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_DROPPED) or name.startswith(_UV_VARIABLES)
    }


def _say_if_copied(work: _Build, tool: str) -> None:
    """Hard links need one filesystem; say it beforehand, for then gigabytes are copied."""
    lines: list[str] = []
    stream(
        (tool, "cache", "dir"),
        say=lines.append,
        deadline=work.deadline,
        environ=_environ(),
        directory=work.path.parent,
    )
    cache = Path(lines[-1]) if lines else work.path.parent
    while not cache.exists() and cache != cache.parent:
        cache = cache.parent
    if cache.stat().st_dev != work.path.parent.stat().st_dev:
        work.say(
            f"uv's cache ({lines[-1]}) is on another filesystem than {work.path.parent}: packages are copied, not "
            "linked. Set UV_CACHE_DIR to a folder beside it to save the space."
        )


def _install_failed(work: _Build, error: ProcessFailedError) -> EnvironmentBuildError:
    output = "\n".join(error.tail)
    if any(sign in output for sign in _DISK_FULL):
        return _disk_full(work.path.parent)
    if "hash mismatch" in output.lower():
        hint = "The index gave other bytes than were locked. Do not trust it; check the mirror you have set."
    elif work.offline:
        hint = "A package is not in uv's cache. Build once with the network on: eagleray envs build"
    else:
        hint = "Check the network and the package index (UV_DEFAULT_INDEX names a mirror), then: eagleray envs build"
    return EnvironmentBuildError(
        f"The packages of {work.lock.reference} could not be installed (uv ended with {error.status}): {_last(error)}",
        hint,
    )


def _unwritable(root: Path, error: OSError) -> EnvironmentBuildError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return _disk_full(root)
    return EnvironmentBuildError(
        f"An environment cannot be built in {root}: {error}.", "Set EAGLERAY_HOME to a folder that you may write."
    )


def _disk_full(root: Path) -> EnvironmentBuildError:
    return EnvironmentBuildError(
        f"The disk of {root} is full; the half-built environment was removed.",
        "Free some space (eagleray envs prune, uv cache prune), or set EAGLERAY_HOME to a larger disk.",
    )


def _raise_limit(timeout_s: float) -> str:
    return f"For a slow network raise the limit, such as EAGLERAY_ENVIRONMENT_TIMEOUT_S={2 * timeout_s:g}."


def _last(error: ProcessFailedError) -> str:
    """The last lines of the output, in one."""
    return " | ".join(line.strip() for line in error.tail[-6:]) or f"no output, status {error.status}"


def _remove(path: Path, *, quietly: bool = False) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(path, ignore_errors=quietly)
