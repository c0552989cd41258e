"""How long `eagleray plugins list` takes, as a ratio to `python -c "import typer, pydantic"`. Target: ≤ 1.5.

    python benchmarks/listing.py [--pairs 20] [--out samples.json]

Processes run ABBA, with an A/A control (the peer against itself) in the same run; the figure is the median of the
pairs' ratios with a bootstrap interval. Where the control lies outside 0.95–1.05 the result is noise, not a verdict.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TARGET = 1.5
PEER = [sys.executable, "-c", "import typer, pydantic"]
OURS = [sys.executable, "-c", "import sys; from eagleray.cli.app import main; sys.exit(main(['plugins', 'list']))"]


def seconds(command: list[str], environment: dict[str, str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.perf_counter() - started


def measure(a: list[str], b: list[str], pairs: int, environment: dict[str, str]) -> list[tuple[float, float]]:
    """`(seconds of a, seconds of b)` per pair, in the order ABBA."""
    samples = []
    for number in range(pairs):
        if number % 2:
            second = seconds(b, environment)
            samples.append((seconds(a, environment), second))
        else:
            first = seconds(a, environment)
            samples.append((first, seconds(b, environment)))
    return samples


def ratio(samples: list[tuple[float, float]]) -> tuple[float, float, float]:
    """Median of b ÷ a, and the 95 % bootstrap interval of that median."""
    ratios = [second / first for first, second in samples]
    rng = random.Random(0)
    medians = sorted(statistics.median(rng.choices(ratios, k=len(ratios))) for _ in range(2000))
    return statistics.median(ratios), medians[50], medians[1949]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=20)
    parser.add_argument("--out", type=Path, help="keep the raw samples as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"EAGLERAY_HOME": home}
        for command in (PEER, OURS):
            seconds(command, environment)
        control_samples = measure(PEER, PEER, options.pairs, environment)
        samples = measure(PEER, OURS, options.pairs, environment)
    control, *_ = ratio(control_samples)
    middle, low, high = ratio(samples)
    if options.out:
        options.out.write_text(json.dumps({"control": control_samples, "listing": samples}), encoding="utf-8")
    print(f"A/A control   {control:.3f}")
    print(f"plugins list  {middle:.3f}  [{low:.3f}, {high:.3f}]  target ≤ {TARGET}")
    if not 0.95 <= control <= 1.05:
        print("noisy: the control is outside 0.95–1.05, so this is no verdict")
    else:
        print("met" if low <= TARGET else "missed")


if __name__ == "__main__":
    main()
