"""Curves of figures in a terminal, drawn with braille dots."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

# Dot bits of a braille cell, by row (top first) and column; the cell is 2 dots wide and 4 high.
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
_EMPTY = 0x2800


def curve(values: Sequence[float], width: int, height: int) -> list[str]:
    """`values` from left to right as `height` lines of `width` characters.

    Neighbours are joined by vertical strokes. Figures that are not finite leave a gap. More values than dots are
    thinned, so that the first and the last one are always there.
    """
    cells = [[0] * width for _ in range(height)]
    finite = [value for value in values if math.isfinite(value)]
    if not finite or width < 1 or height < 1:
        return [""] * height
    low, high = min(finite), max(finite)
    columns, rows = 2 * width, 4 * height
    previous: int | None = None
    for column in range(min(columns, len(values)) if len(values) < columns else columns):
        index = column if len(values) <= columns else round(column * (len(values) - 1) / (columns - 1))
        value = values[index]
        if not math.isfinite(value):
            previous = None
            continue
        share = 0.5 if high == low else (high - value) / (high - low)
        row = min(int(share * (rows - 1) + 0.5), rows - 1)
        for each in _between(previous, row):
            cells[each // 4][column // 2] |= _DOTS[each % 4][column % 2]
        previous = row
    return ["".join(chr(_EMPTY + cell) for cell in line) for line in cells]


def labelled(name: str, points: Mapping[int, float], width: int, height: int = 3) -> list[str]:
    """A curve with its name, its range and its last figure.

    Args:
        points: figure by epoch.
    """
    epochs = sorted(points)
    values = [points[epoch] for epoch in epochs]
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return []
    lines = curve(values, width, height)
    marks = [f"{max(finite):.4g}", *[""] * (height - 2), f"{min(finite):.4g}"] if height > 1 else [f"{finite[-1]:.4g}"]
    margin = max(len(mark) for mark in marks)
    head = f"{name}  {values[-1]:.4g}  (epochs {epochs[0]}–{epochs[-1]})"
    return [head, *(f"{mark.rjust(margin)} ┤{line}" for mark, line in zip(marks, lines, strict=True))]


def _between(previous: int | None, row: int) -> range:
    """Rows of the stroke that joins `row` to the one before it."""
    if previous is None or abs(previous - row) <= 1:
        return range(row, row + 1)
    return range(row, previous) if row < previous else range(previous + 1, row + 1)
