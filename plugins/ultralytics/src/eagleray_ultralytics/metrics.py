"""Metric names that stay the same from task to task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# Ultralytics marks box, mask and keypoint figures by a letter; a task's own figures also get the plain name.
PRIMARY = {"object-detection": "(B)", "image-segmentation": "(M)", "keypoint-detection": "(P)"}


def stable(task: str, metrics: Mapping[str, Any]) -> dict[str, float]:
    """Ultralytics' metrics plus, for a task's own figures, the name without `(B)`, `(M)` or `(P)`."""
    out = {name: float(value) for name, value in metrics.items() if value is not None}
    letter = PRIMARY.get(task)
    if letter:
        out |= {name.removesuffix(letter): value for name, value in out.items() if name.endswith(letter)}
    return {name: value for name, value in out.items() if not math.isnan(value) or name.startswith("train/")}
