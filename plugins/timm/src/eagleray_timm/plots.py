"""Files that are kept with the job: the table of epochs, the confusion matrix, figures of each class."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from matplotlib.figure import Figure

from eagleray_timm.evaluation import Figures

# More would be smaller than a screen's pixel.
DRAWN_CLASSES = 200
NAMED_CLASSES = 40


def write_table(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a CSV file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_results(path: Path, rows: Sequence[Mapping[str, float]]) -> Path:
    """One row for each epoch."""
    header = list(dict.fromkeys(name for row in rows for name in row))
    return write_table(path, header, ([f"{row[name]:.6g}" if name in row else "" for name in header] for row in rows))


def write_classes(path: Path, figures: Figures, classes: Sequence[str]) -> Path:
    """Pictures, precision, recall and F1 of each class."""
    columns = zip(
        classes, *(part.tolist() for part in (figures.support, figures.predicted, figures.right)), strict=True
    )
    rows = (
        [
            name,
            support,
            f"{right / max(predicted, 1):.6g}",
            f"{right / max(support, 1):.6g}",
            f"{2 * right / max(support + predicted, 1):.6g}",
        ]
        for name, support, predicted, right in columns
    )
    return write_table(path, ["class", "pictures", "precision", "recall", "f1"], rows)


def write_matrix(folder: Path, matrix: torch.Tensor, classes: Sequence[str]) -> list[Path]:
    """The confusion matrix (rows: true class) as a table and, where it can be seen, as a picture."""
    rows = ([name, *counts] for name, counts in zip(classes, matrix.tolist(), strict=True))
    written = [write_table(folder / "confusion_matrix.csv", ["true \\ predicted", *classes], rows)]
    if len(classes) <= DRAWN_CLASSES:
        written.append(draw_matrix(folder / "confusion_matrix.png", matrix, classes))
    return written


def draw_matrix(path: Path, matrix: torch.Tensor, classes: Sequence[str]) -> Path:
    """Draw shares of each true class."""
    count = len(classes)
    side = min(4 + 0.35 * count, 16)
    # Figure itself, not pyplot: no state outside, and no main thread is needed.
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.add_subplot()
    shares = matrix.double() / matrix.sum(1, keepdim=True).clamp(min=1)
    image = axes.imshow(shares.numpy(), cmap="Blues", vmin=0.0, vmax=1.0)
    figure.colorbar(image, ax=axes, shrink=0.8, label="share of the true class")
    axes.set(xlabel="predicted", ylabel="true", title=f"Confusion matrix, {int(matrix.sum())} pictures")
    if count <= NAMED_CLASSES:
        axes.set_xticks(range(count), classes, rotation=90)
        axes.set_yticks(range(count), classes)
    if count <= 20:
        for row in range(count):
            for column in range(count):
                number = int(matrix[row, column])
                if number:
                    colour = "white" if shares[row, column] > 0.5 else "black"
                    axes.text(column, row, str(number), ha="center", va="center", color=colour, fontsize=8)
    figure.savefig(path, dpi=110)
    return path
