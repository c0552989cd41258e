"""How long work is shown: a bar on a terminal, nothing in a pipe. It goes to stderr, so stdout stays the result's."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from eagleray.registry.progress import Progress

# Stages that count bytes; the others count files.
IN_BYTES = frozenset({"downloading", "unpacking", "storing", "fetching", "reading the archive", "uploading"})


@contextmanager
def shown_progress(*, hidden: bool = False) -> Iterator[Progress]:
    """Something to call with `(stage, done, total)` as often as one likes."""
    if hidden or not sys.stderr.isatty():
        yield _nothing
        return
    from rich.console import Console  # noqa: PLC0415 - saves every command in a pipe some 60 ms
    from rich.progress import BarColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415 - as above
    from rich.progress import Progress as Bars  # noqa: PLC0415 - as above

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
    with Bars(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bars:
        stages: dict[str, Any] = {}

        def show(stage: str, done: int, total: int | None) -> None:
            if stage not in stages:
                stages[stage] = bars.add_task(stage, total=total, figures="")
            bars.update(stages[stage], completed=done, total=total, figures=_figures(stage, done, total))

        yield show


def _nothing(stage: str, done: int, total: int | None) -> None:
    return None


def _figures(stage: str, done: int, total: int | None) -> str:
    if stage not in IN_BYTES:
        return f"{done:,} of {total:,}" if total else ""
    return f"{size(done)} of {size(total)}" if total else size(done)


def size(count: int) -> str:
    """`5242880` as `5.0 MiB`."""
    value = float(count)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{count} bytes" if unit == "bytes" else f"{value:.1f} {unit}"
