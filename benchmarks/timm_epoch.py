"""P1 for timm: an epoch of our job's loop ÷ one of a plain loop of timm's factories, and whether the weights agree.

    .venv/bin/python benchmarks/timm_epoch.py --python ENVIRONMENT/bin/python [--rounds 4] [--epochs 5] [--json FILE]

Both run resnet18 from scratch on the same made JPEGs with the same interpreter, batch, seed, optimizer and schedule,
on the CPU; validation, figures and a checkpoint lie in every epoch. `again` is the peer once more: the control. The
weights are compared after runs without augmentation, where both see the same pixels: ours draws a picture's
augmentation from (seed, epoch, picture), timm's from one stream. Target: 1.00 within the interval.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from ratio import compare, interleave, medians, show, verdict
from timm_runs import arguments, run, write_pictures

COMPARE = """
import sys, json, torch
ours, theirs = (torch.load(path, map_location="cpu", weights_only=True)["state_dict"] for path in sys.argv[1:])
worst = max(float((ours[name].double() - theirs[name].double()).abs().max()) for name in ours)
print(json.dumps({"same_names": list(ours) == list(theirs), "tensors": len(ours),
    "equal": sum(torch.equal(ours[name], theirs[name]) for name in ours), "largest_difference": worst}))
"""


def weights(python: str, options: list[str], folder: Path) -> dict[str, Any]:
    """Both ways' last weights, tensor by tensor."""
    files = [folder / "ours.pt", folder / "theirs.pt"]
    for script, file in zip(("timm_job.py", "timm_plain.py"), files, strict=True):
        run(python, script, [*options, "--no-aug", "--save", str(file)])
    done = subprocess.run([python, "-c", COMPARE, *map(str, files)], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--images", type=int, default=512)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="er-bench-") as name:
        folder = Path(name)
        data = write_pictures(folder / "data", given.images, 128, (128, 128))
        options = [
            "--data",
            str(data),
            "--model",
            given.model,
            "--epochs",
            str(given.epochs),
            "--workers",
            str(given.workers),
        ]
        save = ["--save", str(folder / "peer.pt")]
        ways = {
            "theirs": partial(run, given.python, "timm_plain.py", [*options, *save]),
            "ours": partial(run, given.python, "timm_job.py", options),
            "again": partial(run, given.python, "timm_plain.py", [*options, *save]),
        }
        samples = interleave(ways, given.rounds)
        same = weights(given.python, [*options[:4], "--epochs", "3"], folder)
    control, ratio = compare(samples, "again", "theirs"), compare(samples, "ours", "theirs")
    result = {
        "control": control,
        "ours/theirs": [*ratio, verdict(ratio, control, 1.0)],
        "weights": same,
        "seconds": medians(samples),
        "samples": samples,
    }
    show(result)
    if given.json:
        given.json.write_text(json.dumps(result))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
