"""P3: a plugin's environment, built by us ÷ by `uv venv` and `uv pip install` of the same lock, in one run.

    .venv/bin/python benchmarks/environments.py [--lock eagleray_ultralytics:locks/runtime.txt] [--rounds 5]
                                                [--imports ultralytics] [--folder DIR]

Every way starts without an environment and with uv's cache warm (one build before the clock starts fills it). A round
runs the ways in order and then in reverse (ABBA), so that drift of the machine falls on all alike. `control` is the
plain way measured twice: how far it lies from 1 is what this machine cannot tell apart.

    find            ours as jobs build it, where the check sees that the modules are there ÷ plain
    import          ours as `eagleray envs build` does, where the check imports Ray and the modules ÷ plain
    import_matched  the same ÷ plain followed by the same imports, which a first job pays in any case
    repeat_s        what the second job pays, in seconds

`--ways plain find plain_again` leaves the slow imports out.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import uv

from eagleray.environments.builder import Check, build, is_ready
from eagleray.environments.lock import Lock, parse_lock, read_lock

WAYS = ("plain", "find", "import", "plain_imports", "plain_again")
RATIOS = {
    "find": ("find", "plain"),
    "import": ("import", "plain"),
    "import_matched": ("import", "plain_imports"),
    "control": ("plain_again", "plain"),
}


def ours(lock: Lock, imports: tuple[str, ...], check: Check, folder: Path) -> None:
    build(lock, root=folder, imports=imports, say=lambda line: None, check=check)


def plain(lock_file: Path, imports: tuple[str, ...], folder: Path) -> None:
    tool, python = uv.find_uv_bin(), str(folder / "venv" / "bin" / "python")
    base = str(Path(getattr(sys, "_base_executable", sys.executable)).resolve())
    commands = [
        [tool, "venv", "--quiet", "--python", base, str(folder / "venv")],
        [tool, "pip", "install", "--quiet", "--python", python, "--requirement", str(lock_file)],
    ]
    if imports:
        commands.append([python, "-I", "-c", "".join(f"import {name}\n" for name in imports)])
    for command in commands:
        subprocess.run(command, check=True, cwd=folder)


def seconds(way: Callable[[Path], None], folder: Path) -> float:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    began = time.perf_counter()
    way(folder)
    taken = time.perf_counter() - began
    shutil.rmtree(folder)
    return taken


def interval(ratios: list[float], resamples: int = 2000) -> list[float]:
    """[low, geometric mean, high]: a 95 % bootstrap interval, with a fixed seed."""
    logs, chance = [math.log(ratio) for ratio in ratios], random.Random(0)
    means = sorted(statistics.fmean(chance.choices(logs, k=len(logs))) for _ in range(resamples))
    points = (means[int(0.025 * resamples)], statistics.fmean(logs), means[int(0.975 * resamples)])
    return [round(math.exp(point), 3) for point in points]


def measure(lock: Lock, imports: tuple[str, ...], chosen: list[str], rounds: int, folder: Path) -> dict[str, object]:
    lock_file = folder / "lock.txt"
    lock_file.write_text(lock.text)
    everything = ("ray", *imports)
    ways: dict[str, Callable[[Path], None]] = {
        "plain": partial(plain, lock_file, ()),
        "find": partial(ours, lock, imports, "find"),
        "import": partial(ours, lock, imports, "import"),
        "plain_imports": partial(plain, lock_file, everything),
        "plain_again": partial(plain, lock_file, ()),
    }
    for name in chosen:
        seconds(ways[name], folder / "env")
    taken: dict[str, list[float]] = {name: [] for name in chosen}
    for number in range(rounds):
        both = dict.fromkeys(chosen, 0.0)
        for name in (*chosen, *reversed(chosen)):
            both[name] += seconds(ways[name], folder / "env") / 2
        for name, value in both.items():
            taken[name].append(value)
        print(f"round {number + 1}/{rounds}", {name: round(value, 2) for name, value in both.items()}, file=sys.stderr)
    ratios = {
        name: interval([ours_s / peer_s for ours_s, peer_s in zip(taken[way], taken[peer], strict=True)])
        for name, (way, peer) in RATIOS.items()
        if {way, peer} <= taken.keys()
    }
    return {
        "ratios": ratios,
        "seconds": {name: round(statistics.median(values), 2) for name, values in taken.items()},
        "repeat_s": repeat(lock, folder / "repeat"),
    }


def repeat(lock: Lock, root: Path) -> float:
    """Checking the lock and finding its environment, as every later job does."""
    build(lock, root=root, imports=(), say=lambda line: None, check="find")
    began = time.perf_counter()
    assert is_ready(parse_lock(lock.text, lock.reference), root) is not None
    return round(time.perf_counter() - began, 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lock", default="eagleray_ultralytics:locks/runtime.txt")
    parser.add_argument("--imports", nargs="*", default=["ultralytics"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="on the filesystem of uv's cache; default: a temporary folder")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        result = measure(read_lock(options.lock), tuple(options.imports), options.ways, options.rounds, Path(folder))
    print(json.dumps({"lock": options.lock, "rounds": options.rounds, **result}))


if __name__ == "__main__":
    main()
