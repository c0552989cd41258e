"""COCO → YOLO: seconds of Ultralytics' own converter ÷ ours. Target: at least 2 (ours at most 0.5 of theirs).

    python benchmarks/datasets_convert.py --peer-python PYTHON [--images 100000] [--objects 860000] [--outlines 0]

`--peer-python` is an interpreter that has ultralytics. Both read the same made COCO file and write label rows. Theirs
touches no picture; ours looks whether each is there, links it into the new dataset and writes its data.yaml. So ours is
measured twice: `ours` is the whole command, `rows only` leaves the linking out, which is what both do. Each run is a
process of its own, in alternating order, and times the conversion without its imports, on the clock and in seconds of
the processor, which a busy machine changes less; the control is the peer against itself.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from datasets_import import make
from ratio import compare, interleave, medians, show, verdict

TARGET = 0.5
OURS = """
import sys, time
from eagleray.datasets import convert
source, into, task = sys.argv[1:]
started, used = time.perf_counter(), time.process_time()
report = convert(source, "yolo", into, task=task)
print(time.perf_counter() - started, time.process_time() - used, report.annotations)
"""
ROWS_ONLY = f"""
from eagleray.datasets.writing import Files
Files.place = lambda self, source, target: None
{OURS}
"""
THEIRS = """
import sys, time
from pathlib import Path
from ultralytics.data.converter import convert_coco
source, into, task = sys.argv[1:]
started, used = time.perf_counter(), time.process_time()
convert_coco(f"{source}/annotations", into, use_segments=task == "image-segmentation", cls91to80=False)
taken, used = time.perf_counter() - started, time.process_time() - used
print(taken, used, sum(len(path.read_text().splitlines()) for path in Path(into).rglob("*.txt")))
"""


def way(python: str, code: str, source: Path, task: str, objects: int, processor: list[float]) -> Callable[[], float]:
    """Seconds of one conversion; those of the processor are added to `processor`."""

    def run() -> float:
        # On the same file system, or a hard link would become a copy.
        into = Path(tempfile.mkdtemp(dir=source.parent)) / "converted"
        command = [python, "-c", code, str(source), str(into), task]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds, used, rows = done.stdout.split()[-3:]
        assert int(rows) == objects, f"{rows} rows instead of {objects}"
        shutil.rmtree(into.parent)
        processor.append(float(used))
        return float(seconds)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--objects", type=int, default=860_000)
    parser.add_argument("--outlines", type=int, default=0, help="points of each outline; 0: boxes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scratch", type=Path, help="folder for the made set; default: the temp folder")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    task = "image-segmentation" if options.outlines > 2 else "object-detection"
    with tempfile.TemporaryDirectory(dir=options.scratch) as folder:
        source = Path(folder, "coco")
        make(source, options.images, options.objects, options.outlines)
        codes = {
            "ours": (sys.executable, OURS),
            "rows only": (sys.executable, ROWS_ONLY),
            "theirs": (options.peer_python, THEIRS),
            "theirs again": (options.peer_python, THEIRS),
        }
        processor: dict[str, list[float]] = {name: [] for name in codes}
        ways = {name: way(*code, source, task, options.objects, processor[name]) for name, code in codes.items()}
        samples = interleave(ways, options.rounds)
    ratio, control = compare(samples, "ours", "theirs"), compare(samples, "theirs again", "theirs")
    result: dict[str, Any] = {
        "task": task,
        "seconds": medians(samples),
        "ratio": ratio,
        "rows only": compare(samples, "rows only", "theirs"),
        "control": control,
        "verdict": verdict(ratio, control, TARGET),
        "processor": {
            "seconds": medians(processor),
            "ratio": compare(processor, "ours", "theirs"),
            "rows only": compare(processor, "rows only", "theirs"),
            "control": compare(processor, "theirs again", "theirs"),
        },
        "samples": samples,
    }
    show(result)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
