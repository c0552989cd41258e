"""Tables for people and JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


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
    print(json.dumps(value, separators=(",", ":"), ensure_ascii=False), flush=True)
