"""Our side of the timm benchmarks: the plugin's adapter through its five steps, without Ray.

Runs with the Python of the timm plugin's environment, with the core and the plugin on PYTHONPATH; the arguments are
those of `timm_plain.py`. One process for each worker, told by RANK and WORLD_SIZE as a host tells them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch.distributed as distributed

from eagleray.contract import Dataset, Split, TrainingContext
from eagleray.testing.host import RecordingHost, run_adapter
from eagleray_timm.adapter import TimmAdapter
from eagleray_timm.config import ClassificationConfig
from eagleray_timm.framework import TASK, describe


class Clock(RecordingHost):
    """Notes when each epoch has been reported and saved."""

    at: list[float]

    def report(self, epoch: int, metrics: Mapping[str, float], save: Callable[[Path], None] | None) -> None:
        super().report(epoch, metrics, save if int(os.environ.get("RANK", "0")) == 0 else None)
        self.at.append(time.perf_counter())
        for old in self.reports[:-1]:
            # As the peer does, which writes over its one file.
            if old.checkpoint is not None:
                shutil.rmtree(old.checkpoint, ignore_errors=True)


def split(root: Path, name: str) -> Split:
    count = sum(1 for path in (root / name).rglob("*") if path.is_file())
    return Split(name, count, count)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--no-aug", action="store_true")
    parser.add_argument("--save", type=Path)
    options = parser.parse_args()
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if world > 1:
        distributed.init_process_group("gloo")
    classes = tuple(sorted(path.name for path in (options.data / "train").iterdir()))
    splits = {"train": split(options.data, "train"), "val": split(options.data, "valid")}
    folder = Path(tempfile.mkdtemp(prefix="er-timm-"))
    (folder / "work").mkdir()
    host = Clock(folder)
    host.at = []
    config = ClassificationConfig(
        img_size=options.size,
        workers=options.workers,
        no_aug=options.no_aug,
        # Else a JPEG of twice the size is decoded at half of it, and the peer sees other pixels.
        fast_decode=not options.no_aug,
        train_interpolation="bilinear" if options.no_aug else "random",
        warmup_epochs=0,
    )
    context = TrainingContext(
        job_id=1,
        attempt=1,
        task=TASK,
        model=next(card for card in describe("0").models if card.name == options.model),
        epochs=options.epochs,
        batch_size=options.batch,
        learning_rate=options.lr,
        config=config,
        dataset=Dataset(options.data, "imagefolder", TASK, classes, splits),
        work_dir=folder / "work",
        host=host,
        seed=options.seed,
        pretrained=False,
        rank=rank,
        world_size=world,
        local_rank=rank,
    )
    try:
        run_adapter(TimmAdapter, context)
        if rank == 0:
            if options.save:
                shutil.copyfile(host.resume().path / "model.pt", options.save)
            # The first epoch's start is not reported, so it has no length here.
            seconds = [end - start for start, end in zip(host.at, host.at[1:], strict=False)]
            print(json.dumps({"seconds": seconds, "images": splits["train"].num_images}), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if world > 1:
            distributed.destroy_process_group()


if __name__ == "__main__":
    main()
