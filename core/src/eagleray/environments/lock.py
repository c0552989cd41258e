"""Locked requirements: what may stand in one, and the name of the environment that is built from it.

What was checked is what is installed: uv is given the normalised text, never the file itself, so no line can mean
one thing here and another to uv.
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib import metadata, resources

from eagleray.contract.errors import EnvironmentBuildError, PluginError

MAX_LOCK_BYTES = 1 << 20

# A marker may hold names, quoted strings, comparisons and brackets: no option, address or path fits into it.
_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)(?P<extras>\[[A-Za-z0-9._,\s-]*\])?"
    r"\s*==\s*(?P<version>[A-Za-z0-9][A-Za-z0-9.!+_-]*)"
    r"\s*(?:;\s*(?P<marker>[A-Za-z0-9_.\s'\"<>=!~(),+*-]+?))?"
    r"(?P<hashes>(?:\s+--hash=sha(?:256:[0-9a-f]{64}|384:[0-9a-f]{96}|512:[0-9a-f]{128}))*)\s*",
    re.ASCII,
)
_VALID_LINE = "A line is `name==version --hash=sha256:…`, with a marker if need be; no address, path or other option."
# Stems that say nothing; the package's own name stands for them in the environment's name.
_NAMELESS = frozenset({"runtime", "requirements", "lock"})


@dataclass(frozen=True)
class Requirement:
    """One pin: `name==version`, its marker (or ""), sorted hashes (`sha256:…`), and first line (from 1)."""

    name: str
    version: str
    marker: str
    hashes: tuple[str, ...]
    line: int

    def __str__(self) -> str:
        marker = f" ; {self.marker}" if self.marker else ""
        return f"{self.name}=={self.version}{marker}" + "".join(f" --hash={value}" for value in self.hashes)


@dataclass(frozen=True)
class Lock:
    """A checked lock. `reference` is the `package:path` it came from; `text` is the file's own text."""

    text: str
    reference: str
    requirements: tuple[Requirement, ...]

    @cached_property
    def normalised(self) -> str:
        """One requirement a line, sorted; comments, order and layout do not matter to it."""
        return "".join(f"{line}\n" for line in sorted(map(str, self.requirements)))

    @property
    def label(self) -> str:
        """`eagleray_ultralytics:locks/runtime.txt` → `ultralytics`; `eagleray.testing:locks/echo.txt` → `echo`."""
        package, _, path = self.reference.rpartition(":")
        stem = path.rpartition("/")[2].partition(".")[0]
        name = package.rpartition(".")[2].removeprefix("eagleray_") if stem in _NAMELESS else stem
        return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "environment"

    def versions(self, name: str) -> set[str]:
        """The versions pinned for a package; several where markers tell them apart."""
        return {pin.version for pin in self.requirements if pin.name == name}


def read_lock(reference: str) -> Lock:
    """The lock that a plugin ships, checked.

    Args:
        reference: `"package:path"`, the path inside the package.

    Raises:
        PluginError: it is not there, or a line is not a pin with hashes; the message names the line.
        EnvironmentBuildError: it does not pin the Ray that runs here.
    """
    lock = parse_lock(_read(reference), reference)
    pinned, running = lock.versions("ray"), ray_version()
    if pinned != {running}:
        found = f"pins ray {', '.join(sorted(pinned))}" if pinned else "has no ray"
        raise EnvironmentBuildError(
            f"The lock {reference} {found}, and Ray {running} runs here; a worker must have the same.",
            f"Install the plugin's release for ray=={running}, or lock it again with scripts/lock.sh.",
        )
    return lock


def parse_lock(text: str, reference: str) -> Lock:
    """Check a lock's text, line by line.

    Raises:
        PluginError: a line is not `name==version` with at least one hash, or there is no requirement at all.
    """
    requirements = tuple(_parse_line(line, number, reference) for number, line in _logical_lines(text))
    if not requirements:
        raise PluginError(f"The lock {reference} has no requirement in it.", _VALID_LINE)
    return Lock(text, reference, requirements)


def environment_name(lock: Lock) -> str:
    """`{label}-{16 hex}`: the same pins, Ray, Python and platform always give the same name, anything else another."""
    identity = "\n".join((lock.normalised, *_platform()))
    return f"{lock.label}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}"


@lru_cache
def ray_version() -> str:
    """The installed Ray's version, without importing Ray (which takes seconds)."""
    return metadata.version("ray")


@lru_cache
def _platform() -> tuple[str, ...]:
    return (
        f"ray {ray_version()}",
        f"{platform.python_implementation()} {platform.python_version()}",
        f"{platform.system()} {platform.machine()}",
    )


def _read(reference: str) -> str:
    package, separator, path = reference.partition(":")
    parts = path.split("/")
    if not (package and separator and path) or ".." in parts or "" in parts or "\\" in path:
        raise PluginError(
            f"'{reference}' does not name a lock.", "It is `package:path`, such as `eagleray_timm:locks/runtime.txt`."
        )
    try:
        place = resources.files(package)
        # One part at a time: a package without an __init__.py takes no more.
        for part in parts:
            place = place.joinpath(part)
        data = place.read_bytes()
    except (ImportError, OSError, TypeError, ValueError) as error:
        raise PluginError(
            f"The lock {reference} cannot be read: {error}.", "It must be shipped in the plugin's wheel."
        ) from error
    if len(data) > MAX_LOCK_BYTES:
        raise PluginError(f"The lock {reference} has {len(data)} bytes.", f"At most {MAX_LOCK_BYTES} are read.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PluginError(f"The lock {reference} is not UTF-8 text: {error}.") from error


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Lines joined at a trailing backslash, without comments and blanks, each with the number of its first one."""
    start, parts = 0, list[str]()
    # Only newlines end a line: `str.splitlines` would also split at characters that uv does not.
    for number, raw in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        line = re.sub(r"(^|\s)#.*", "", raw).strip()
        start = start if parts else number
        if line.endswith("\\"):
            parts.append(line[:-1])
            continue
        parts.append(line)
        if logical := " ".join(part.strip() for part in parts if part.strip()):
            yield start, logical
        parts = []
    if logical := " ".join(part.strip() for part in parts if part.strip()):
        yield start, logical


def _parse_line(line: str, number: int, reference: str) -> Requirement:
    where, shown = f"Line {number} of the lock {reference}", line if len(line) <= 120 else f"{line[:117]}…"
    found = _REQUIREMENT.fullmatch(line)
    if not found or "--" in (found["marker"] or ""):
        raise PluginError(f"{where} is not a pinned requirement: '{shown}'.", _VALID_LINE)
    hashes = tuple(sorted(value.removeprefix("--hash=") for value in found["hashes"].split()))
    if not hashes:
        raise PluginError(f"{where} has no hash: '{shown}'.", _VALID_LINE)
    name = re.sub(r"[-_.]+", "-", found["name"]).lower()
    marker = " ".join((found["marker"] or "").split())
    return Requirement(name, found["version"], marker, hashes, number)
