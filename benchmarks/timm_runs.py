"""What the timm benchmarks share: pictures, and both ways run by the Python of the plugin's environment."""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import subprocess
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageFilter

HERE = Path(__file__).resolve().parent
SOURCES = os.pathsep.join(str(HERE.parent / part) for part in ("core/src", "plugins/timm/src"))
CLASSES = 4


def arguments(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True, help="of the timm plugin's environment")
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--workers", type=int, default=0, help="processes that load pictures")
    parser.add_argument("--json", type=Path, help="keep the raw samples here")
    return parser


def write_pictures(root: Path, train: int, valid: int, size: tuple[int, int]) -> Path:
    """Soft coloured noise as JPEGs, whose decoding costs what a photograph's does; each class has its own tint."""
    rng = random.Random(0)
    for split, count in (("train", train), ("valid", valid)):
        for number in range(count):
            tint = number % CLASSES
            small = (max(2, size[0] // 6), max(2, size[1] // 6))
            noise = Image.frombytes("RGB", small, rng.randbytes(small[0] * small[1] * 3))
            picture = noise.resize(size, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1))
            picture.paste(((60 * tint, 255 - 60 * tint, 128)), (0, 0, size[0] // 3, size[1] // 3))
            folder = root / split / f"class-{tint}"
            folder.mkdir(parents=True, exist_ok=True)
            picture.save(folder / f"{number:05d}.jpg", quality=90)
    return root


def run(
    python: str, script: str, options: Sequence[str], *, workers: int = 1, port: int = 0, torchrun: bool = False
) -> float:
    """Mean seconds of an epoch, the first left out, of `script` with one or several workers on this machine."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    environ |= {"PYTHONPATH": SOURCES} if script == "timm_job.py" else {}
    command = [python, str(HERE / script), *options]
    if torchrun:
        place = ["--nproc-per-node", str(workers), "--master-port", str(port)]
        command = [python, "-m", "torch.distributed.run", *place, *command[1:]]
        return read(finished([start(command, environ)]))
    if workers == 1:
        return read(finished([start(command, environ)]))
    environ |= {"WORLD_SIZE": str(workers), "LOCAL_WORLD_SIZE": str(workers)}
    environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return read(finished([start(command, environ | {"RANK": str(rank)}) for rank in range(workers)]))


def start(command: list[str], environ: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(command, env=environ, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def finished(processes: Sequence[subprocess.Popen[str]]) -> str:
    """What the first process printed; ends the benchmark where one failed."""
    printed = [process.communicate() for process in processes]
    for process, (_, errors) in zip(processes, printed, strict=True):
        if process.returncode:
            raise SystemExit(errors[-3000:])
    return printed[0][0]


def read(printed: str) -> float:
    seconds = json.loads(next(line for line in printed.splitlines() if line.startswith("{")))["seconds"]
    return statistics.fmean(seconds[1:])
