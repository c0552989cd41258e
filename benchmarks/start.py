"""P2: command → first training step on a running cluster, ours ÷ a bare Ray Train script's. Target: ≤ 1.0.

    .venv/bin/python benchmarks/start.py [--rounds 5] [--environments DIR] [--port 26380] [--json FILE]

It starts a Ray head of its own on ports above 20000 and ends only that. The environment is warm: one run of each way
comes before the clock. The clock of every way starts with its command and stops when its worker has written a file on
its own disk, looked for every 5 ms, so no way is charged for how its output travels:

    bare      ray job submit -- python bare.py         first line of the loop, numpy imported
    submit    ray job submit -- eagleray run job.yaml  first line that echo prints in its first epoch
    train     eagleray train, with RAY_ADDRESS         the same
    again     bare once more: the control

Nothing is subtracted from ours, though echo also reads its pictures and makes its model before that line.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from functools import partial
from pathlib import Path

from ratio import compare, interleave, medians, publish, verdict
from runs import EAGLERAY, RAY, Home, echo, first_line, private_cluster, seconds_until, started, temporary_home

TARGET = 1.0
BARE = str(Path(__file__).with_name("bare.py"))
JOB = """\
framework: echo
model_name: echo-linear
dataset_path: {pictures}
epochs: 1
batch_size: 4
pretrained: false
advanced_config: {{noise_lines: 1}}
"""
marks = itertools.count()


def bare(home: Home, environ: dict[str, str], before: list[str]) -> float:
    mark = home.path / f"mark-{next(marks)}"
    began = time.perf_counter()
    with started([*before, sys.executable, BARE, str(mark), "0"], environ):
        return seconds_until(mark.exists, began)


def measure(home: Home, environ: dict[str, str], rounds: int) -> dict[str, object]:
    job = home.path / "job.yaml"
    job.write_text(JOB.format(pictures=home.pictures))
    submit = [RAY, "job", "submit", "--"]
    client = environ | {"RAY_ADDRESS": environ["RAY_API_SERVER_ADDRESS"]}
    ways = {
        "bare": partial(bare, home, client, submit),
        "submit": partial(first_line, home, client, [*submit, EAGLERAY, "run", str(job)]),
        "train": partial(first_line, home, environ, [EAGLERAY, *echo(home, 1, noise_lines=1)]),
        "again": partial(bare, home, client, submit),
    }
    for name in ("bare", "submit", "train"):
        print(f"warm-up {name} {ways[name]():.2f} s", file=sys.stderr, flush=True)
    samples = interleave(ways, rounds)
    control = compare(samples, "again", "bare")
    result: dict[str, object] = {"control": control}
    for name in ("submit", "train"):
        ratio = compare(samples, name, "bare")
        result[f"{name}/bare"] = [*ratio, verdict(ratio, control, TARGET)]
    return {**result, "seconds": medians(samples), "rounds": rounds, "samples": samples}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--environments", help="a folder of built environments; default: built first")
    parser.add_argument("--port", type=int, default=26380, help="first of some 600 free ports")
    parser.add_argument("--json", type=Path, help="keep the raw samples here")
    options = parser.parse_args()
    with temporary_home(options.environments) as home, private_cluster(home, options.port) as environ:
        result = measure(home, environ, options.rounds)
    publish(result, options.json)


if __name__ == "__main__":
    main()
