"""Two workers ÷ one on this machine's cores, ours against torchrun's.

    .venv/bin/python benchmarks/timm_two_workers.py --python ENVIRONMENT/bin/python [--rounds 3] [--port 35100]
                                                    [--json FILE]

`ours` is the plugin's adapter with one and with two workers (gloo), `theirs` a plain loop of timm's factories alone
and under torchrun. The figure is (ours two ÷ ours one) ÷ (theirs two ÷ theirs one) in images a second; as all four
train the same pictures, that is their seconds the other way round. Target: 0.95 or more. `again` is the peer alone
once more.
"""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ratio import CONTROL, compare, interleave, interval, medians, show
from timm_runs import arguments, run, write_pictures

TARGET = 0.95


def gains(one: Sequence[float], two: Sequence[float]) -> list[float]:
    """Images a second of two workers ÷ those of one, round by round."""
    return [alone / both for alone, both in zip(one, two, strict=True)]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--port", type=int, default=35100)
    given = parser.parse_args()
    ports = itertools.count(given.port)
    with tempfile.TemporaryDirectory(prefix="er-bench-") as name:
        data = write_pictures(Path(name) / "data", given.images, 128, (128, 128))
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
        peer, mine, python = "timm_plain.py", "timm_job.py", given.python
        theirs = [*options, "--save", str(Path(name) / "peer.pt")]  # a checkpoint each epoch, as ours
        ways = {
            "theirs 1": lambda: run(python, peer, theirs),
            "ours 1": lambda: run(python, mine, options),
            "theirs 2": lambda: run(python, peer, theirs, workers=2, port=next(ports), torchrun=True),
            "ours 2": lambda: run(python, mine, options, workers=2, port=next(ports)),
            "again": lambda: run(python, peer, theirs),
        }
        samples = interleave(ways, given.rounds)
    control = compare(samples, "again", "theirs 1")
    ours, peers = gains(samples["ours 1"], samples["ours 2"]), gains(samples["theirs 1"], samples["theirs 2"])
    ratio = interval([gain / other for gain, other in zip(ours, peers, strict=True)])
    clear = CONTROL[0] <= control[1] <= CONTROL[1]
    result = {
        "control": control,
        "ours, two ÷ one": interval(ours),
        "theirs, two ÷ one": interval(peers),
        "ours/theirs": [*ratio, "noisy" if not clear else "met" if ratio[2] >= TARGET else "missed"],
        "seconds": medians(samples),
        "samples": samples,
    }
    assert all(math.isfinite(value) for value in ratio)
    show(result)
    if given.json:
        given.json.write_text(json.dumps(result))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
