"""Tables for people and JSON for machines."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


def json_text(value: Any, *, indent: int | None = None) -> str:
    """`value` as JSON: for eyes with `indent`, else one line of ASCII, which passes any pipe.

    JSON knows no NaN: it becomes text, `"NaN"`, as in a job's record.
    """
    for_eyes = indent is not None
    separators = None if for_eyes else (",", ":")
    try:
        return json.dumps(value, indent=indent, separators=separators, ensure_ascii=not for_eyes, allow_nan=False)
    except ValueError:
        return json_text(_finite(value), indent=indent)


@contextmanager
def while_it_is_read() -> Iterator[None]:
    """Print inside; once the reader (`| head`) has gone, that is lost, and everything after it."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in its buffer would fail again when the interpreter flushes it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_json(value: Any) -> None:
    print(json_text(value, indent=2))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table: framed on a terminal, else columns of text that `awk` and `grep` can read."""
    if sys.stdout.isatty():
        _framed(columns, rows)
        return
    widths = [max(len(row[index]) for row in [columns, *rows]) for index in range(len(columns))]
    for row in [columns, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def print_facts(facts: Sequence[tuple[str, str]]) -> None:
    """Names and values, aligned; empty values are left out."""
    shown = [(name, value) for name, value in facts if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        print(f"{name.ljust(width)}  {value}")


def parameters(count: int | None) -> str:
    """`2624080` as `2.6 M`; empty where it is not known."""
    if count is None:
        return ""
    for size, letter in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f} {letter}"
    return str(count)


def _framed(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415 - saves every piped listing some 60 ms
    from rich.table import Table  # noqa: PLC0415 - as above
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(*columns)
    for row in rows:
        # Text, since a plugin's words may hold brackets, which rich would read as markup.
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def print_json_line(value: Any) -> None:
    """One object on a line of its own, at once."""
    print(json_text(value), flush=True)


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else ("Infinity" if value > 0 else "-Infinity")
    if isinstance(value, dict):
        return {_finite(key): _finite(part) for key, part in value.items()}
    return [_finite(part) for part in value] if isinstance(value, list | tuple) else value


def summary_lines(job: Mapping[str, Any]) -> list[str]:
    """How a job has ended, from its record as plain data, or as a server has it."""
    lines = [f"\njob {job['id']} {job['phase']}: {job['epochs_done']} of {job['epochs']} epochs"]
    if best := job["best"]:
        lines.append(f"  best      {best['metric']} {best['value']:.4g} at epoch {best['epoch']}")
    return [*lines, *(f"  {name}.pt   {path}" for name, path in job["artifacts"].items() if path)]
