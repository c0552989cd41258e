"""How long work says where it is."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """`done` of `total` (None: not known) of `stage`, such as `downloading`; bytes or files, as the stage says."""
        ...


def quiet(stage: str, done: int, total: int | None) -> None:
    """Says nothing."""
