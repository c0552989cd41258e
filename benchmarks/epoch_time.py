"""P1: an epoch of our yolo11n job ÷ one of Ultralytics' own `yolo train`, and whether the weights come out equal.

    .venv/bin/python benchmarks/epoch_time.py --data DATASET --environments DIR [--epochs 6] [--imgsz 160]
                                              [--batch 16] [--rounds 3] [--json FILE]

DIR holds the built environment of the ultralytics plugin (`eagleray envs build ultralytics`); its `yolo` is the peer,
so both run the same interpreter and the same packages. Both get the same arguments and seed, from scratch, on the CPU
or on the GPU that is there. An epoch is the mean of epochs 2 to N by the clock of the framework itself, the `time`
column of the `results.csv` that both write: validation, checkpoints and reports lie in it. Target: 1.00 within the
interval. `again` is the peer once more: the control.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import shutil
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

from ratio import compare, interleave, medians, publish, verdict
from runs import EAGLERAY, Home, temporary_home

TARGET = 1.0
COMPARE = """
import sys, json, torch
def weights(path):
    saved = torch.load(path, map_location="cpu", weights_only=False)
    return (saved.get("ema") or saved["model"]).float().state_dict()
ours, theirs = map(weights, sys.argv[1:])
worst = max((float((ours[name] - theirs[name]).abs().max()) for name in ours if ours[name].numel()), default=0.0)
print(json.dumps({"same_names": list(ours) == list(theirs), "tensors": len(ours),
    "equal": sum(torch.equal(ours[name], theirs[name]) for name in ours), "largest_difference": worst}))
"""
numbers = itertools.count(1)


def epoch_seconds(results: Path) -> float:
    with results.open() as file:
        times = [float(row["time"]) for row in csv.DictReader(file, skipinitialspace=True)]
    return (times[-1] - times[0]) / (len(times) - 1)


def ours(home: Home, options: argparse.Namespace) -> float:
    job = home.jobs / f"job_{next(numbers)}"
    command = [EAGLERAY, "train", "--framework", "ultralytics", "--model", "yolo11n", "--task", "object-detection"]
    command += ["--data", str(home.path / "data-ours"), "--epochs", str(options.epochs), "--seed", "0"]
    command += ["--batch-size", str(options.batch), "--no-pretrained", "--set", f"imgsz={options.imgsz}"]
    if options.gpu:
        command += ["--gpus-per-worker", "1"]
    subprocess.run(command, env=home.environ, check=True, stdout=subprocess.DEVNULL)
    return epoch_seconds(job / "files" / "results.csv")


def theirs(home: Home, options: argparse.Namespace, yolo: Path, name: str) -> float:
    command = [str(yolo), "detect", "train", "model=yolo11n.yaml", f"data={home.path}/data-theirs/data.yaml"]
    command += [f"epochs={options.epochs}", f"batch={options.batch}", f"imgsz={options.imgsz}", "seed=0"]
    command += ["pretrained=False", f"device={0 if options.gpu else 'cpu'}", f"project={home.path}/{name}"]
    command += ["name=run", "exist_ok=True"]
    environ = home.environ | {"YOLO_CONFIG_DIR": str(home.path / "yolo")}
    (home.path / "yolo").mkdir(exist_ok=True)
    shutil.rmtree(home.path / name, ignore_errors=True)
    with (home.path / "yolo.log").open("w") as log:
        done = subprocess.run(command, env=environ, cwd=home.path, stdout=log, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit((home.path / "yolo.log").read_text()[-3000:])
    return epoch_seconds(home.path / name / "run" / "results.csv")


def same_weights(home: Home, python: Path) -> dict[str, Any]:
    """The last runs' `last.pt`, tensor by tensor, and the peer's against its own repetition."""
    last = max(home.jobs.glob("job_*"), key=lambda job: int(job.name.removeprefix("job_"))) / "last.pt"
    peer, again = (home.path / name / "run" / "weights" / "last.pt" for name in ("theirs", "again"))
    found = {}
    for name, pair in {"ours, theirs": (last, peer), "theirs, again": (peer, again)}.items():
        done = subprocess.run(
            [str(python), "-c", COMPARE, *map(str, pair)], capture_output=True, text=True, check=True, cwd=home.path
        )
        found[name] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a DICE dataset of boxes")
    parser.add_argument("--environments", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--imgsz", type=int, default=160)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gpu", action="store_true", help="one GPU for both")
    parser.add_argument("--json", type=Path, help="keep the raw samples here")
    options = parser.parse_args()
    built = sorted(options.environments.glob("ultralytics-*/READY"))
    if not built:
        raise SystemExit(
            f"{options.environments} holds no built ultralytics environment: eagleray envs build ultralytics"
        )
    binaries = built[-1].parent / "bin"
    with temporary_home(str(options.environments)) as home:
        for copy in ("data-ours", "data-theirs"):
            # Copies, because Ultralytics writes its caches beside the labels.
            shutil.copytree(options.data, home.path / copy, ignore=shutil.ignore_patterns("*.cache"))
        ways = {
            "theirs": partial(theirs, home, options, binaries / "yolo", "theirs"),
            "ours": partial(ours, home, options),
            "again": partial(theirs, home, options, binaries / "yolo", "again"),
        }
        samples = interleave(ways, options.rounds)
        weights = same_weights(home, binaries / "python")
    control, ratio = compare(samples, "again", "theirs"), compare(samples, "ours", "theirs")
    result = {
        "control": control,
        "ours/theirs": [*ratio, verdict(ratio, control, TARGET)],
        "weights": weights,
        "seconds": medians(samples),
        "samples": samples,
    }
    publish(result, options.json)


if __name__ == "__main__":
    main()
