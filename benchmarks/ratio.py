"""How the benchmarks here compare: ways in alternating order, a control, and an interval."""

from __future__ import annotations

import json
import math
import random
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# A control further from 1 than this cannot tell a difference of that size apart.
CONTROL = (0.95, 1.05)

Samples = dict[str, list[float]]


def interleave(ways: Mapping[str, Callable[[], float]], rounds: int) -> Samples:
    """Seconds of each way, one run a round; every other round goes backwards (ABBA).

    Drift of the machine that is even over two rounds so falls on all ways alike.
    """
    taken: Samples = {name: [] for name in ways}
    for number in range(rounds):
        for name in reversed(list(ways)) if number % 2 else ways:
            taken[name].append(ways[name]())
            print(f"round {number + 1}/{rounds} {name} {taken[name][-1]:.2f} s", file=sys.stderr, flush=True)
    return taken


def interval(ratios: Sequence[float], resamples: int = 2000) -> list[float]:
    """[low, geometric mean, high]: a 95 % bootstrap interval, with a fixed seed."""
    logs, chance = [math.log(ratio) for ratio in ratios], random.Random(0)
    means = sorted(statistics.fmean(chance.choices(logs, k=len(logs))) for _ in range(resamples))
    points = (means[int(0.025 * resamples)], statistics.fmean(logs), means[int(0.975 * resamples)])
    return [round(math.exp(point), 3) for point in points]


def compare(samples: Samples, way: str, peer: str) -> list[float]:
    return interval([ours / theirs for ours, theirs in zip(samples[way], samples[peer], strict=True)])


def verdict(ratio: Sequence[float], control: Sequence[float], target: float) -> str:
    """`met`, `missed`, or `noisy` where the control says that this machine cannot tell."""
    if not CONTROL[0] <= control[1] <= CONTROL[1]:
        return "noisy"
    return "met" if ratio[0] <= target else "missed"


def medians(samples: Samples) -> dict[str, float]:
    return {name: round(statistics.median(values), 2) for name, values in samples.items()}


def show(result: Mapping[str, Any]) -> None:
    """The figures without the raw samples, one a line, on stderr."""
    for key, value in result.items():
        if key != "samples":
            print(f"{key:18} {value}", file=sys.stderr)


def publish(result: Mapping[str, Any], path: Path | None) -> None:
    """Show the figures on stderr, print all as JSON on stdout, and keep that in `path` where one is given."""
    show(result)
    text = json.dumps(result)
    if path:
        path.write_text(text)
    print(text)
