"""P7: a run that uploads a checkpoint every epoch ÷ the same run that writes to a folder only. Target: 1.00.

    .venv/bin/python benchmarks/storage_checkpoint.py [--rounds 5] [--epochs 10] [--mib 16] [--json FILE]

Both are `eagleray train` of the echo framework on a Ray head of this script's own, with a checkpoint of `--mib` every
epoch. The bucket is SeaweedFS on ports 33000–33999, with the default settings: every checkpoint is hashed, committed by
a conditional put and copied to last.pt, and no key is written twice a second.

    training   first to last epoch's end: what uploading costs training itself
    whole      the command, from its start to its end: with the wait for the last upload
    again      the folder once more: the control
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from ratio import Samples, compare, interleave, medians, publish, verdict
from runs import EAGLERAY, Home, echo, events, private_cluster, started, temporary_home

from eagleray.storage.checkpoints import Checkpoints
from eagleray.storage.opening import open_store
from eagleray.testing.s3_server import SeaweedServer, seaweed

TARGET = 1.0
BUCKET = "bench"
INPUTS = 16 * 16 * 3  # of the echo framework


def run(environ: dict[str, str], command: list[str], training: dict[str, list[float]], name: str) -> float:
    began = time.perf_counter()
    at: list[float] = []
    with started([EAGLERAY, *command, "--json"], environ) as process:
        for event in events(process):
            if event.get("event") == "epoch":
                at.append(event["at"])
            if event.get("event") == "warning":
                raise SystemExit(f"{name}: {event['message']}")
    training.setdefault(name, []).append(at[-1] - at[0])
    return time.perf_counter() - began


def measure(home: Home, environ: dict[str, str], server: SeaweedServer, options: argparse.Namespace) -> dict[str, Any]:
    # A state is the layer, its momentum and the best so far, in float64.
    hidden = max(1, round(options.mib * (1 << 20) / (8 * INPUTS * 3)))
    command = echo(home, options.epochs, hidden=hidden, delay_s=options.delay)
    bucket = {**environ, "EAGLERAY_STORAGE": f"s3://{BUCKET}/x"}
    training: Samples = {}
    ways = {
        "folder": partial(run, environ, command, training, "folder"),
        "bucket": partial(run, bucket, command, training, "bucket"),
        "again": partial(run, environ, command, training, "again"),
    }
    ways["folder"]()
    ways["bucket"]()
    training.clear()
    whole = interleave(ways, options.rounds)
    os.environ.update(server.environ)
    newest = Checkpoints(open_store(bucket["EAGLERAY_STORAGE"]), "checkpoints/test-jobs/job_1").newest_valid(print)
    if newest is None or newest.epoch != options.epochs:
        raise SystemExit("the last checkpoint is not in the bucket")
    result: dict[str, Any] = {"checkpoint MiB": round(newest.size_bytes / (1 << 20), 1)}
    for name, samples in (("training", training), ("whole", whole)):
        control = compare(samples, "again", "folder")
        ratio = compare(samples, "bucket", "folder")
        result[f"{name} control"] = control
        result[f"{name} bucket/folder"] = [*ratio, verdict(ratio, control, TARGET)]
        result[f"{name} seconds"] = medians(samples)
    return {**result, "rounds": options.rounds, "samples": {"training": training, "whole": whole}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--mib", type=float, default=16.0, help="size of a checkpoint")
    parser.add_argument("--delay", type=float, default=0.3, help="seconds that echo sleeps in each of its 4 steps")
    parser.add_argument("--environments", help="a folder of built environments; default: built first")
    parser.add_argument("--json", type=Path, help="keep the raw samples here")
    parser.add_argument("--port", type=int, default=28380, help="first of some 600 free ports")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="er-s3-") as folder,
        temporary_home(options.environments) as home,
        seaweed(Path(folder)) as server,
    ):
        server.make_bucket(BUCKET)
        home.environ.update(server.environ)
        with private_cluster(home, options.port) as environ:
            result = measure(home, environ, server, options)
    publish(result, options.json)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
