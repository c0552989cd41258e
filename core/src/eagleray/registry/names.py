"""How a person or a job names a dataset: `coins`, `coins@3`, its id, or its id and a version."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass

from eagleray.contract.errors import ConfigError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Words that stand where a dataset's name stands in the addresses of the HTTP API.
_RESERVED = frozenset({"imports"})
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
NAME_HINT = "A name is 1 to 100 of A–Z, a–z, 0–9, '.', '_' and '-', and begins with a letter or digit."


@dataclass(frozen=True)
class Reference:
    """A dataset, by name or id, and one of its versions; None: the newest."""

    dataset: str
    version: int | None = None

    def __str__(self) -> str:
        return self.dataset if self.version is None else f"{self.dataset}@{self.version}"


def check_name(name: str) -> str:
    """`name`, where a dataset may be called so.

    Raises:
        ConfigError: it holds other characters, is too long, reads like an id, or is a word of the HTTP API.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(f"A dataset cannot be called {_shown(name)}.", NAME_HINT)
    if is_id(name.lower()):
        raise ConfigError(f"A dataset cannot be called {_shown(name)}, which reads like an id.", "Choose another name.")
    if name in _RESERVED:
        raise ConfigError(
            f"A dataset cannot be called '{name}', which is an address of its own in the HTTP API.",
            "Name it otherwise: --name NAME, or `name` over HTTP.",
        )
    return name


def new_id() -> str:
    return str(uuid.uuid4())


def is_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def is_reference(text: str) -> bool:
    """Whether `text` has the form of a reference; there need not be such a dataset."""
    name, at, version = text.partition("@")
    return _NAME.fullmatch(name) is not None and (not at or _VERSION.fullmatch(version) is not None)


def parse_reference(text: str) -> Reference:
    """Raises ConfigError where `text` is neither a name nor an id, or its version is not a number from 1."""
    name, at, version = text.strip().partition("@")
    if not _NAME.fullmatch(name):
        raise ConfigError(f"{_shown(text)} is not a dataset's name or id.", NAME_HINT)
    if at and not _VERSION.fullmatch(version):
        raise ConfigError(f"{_shown(text)} has no version number behind the '@'.", f"Example: {name}@1")
    return Reference(name, int(version) if at else None)


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 80 else f"{text[:80]}…")
