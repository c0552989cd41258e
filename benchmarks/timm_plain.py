"""The peer of `timm_epoch.py` and `timm_two_workers.py`: a plain loop of timm's factories, as its train script is one.

Runs with the Python of the timm plugin's environment, by itself or under torchrun, and imports nothing of eagleray.
Prints one JSON object: `seconds` of each epoch, and `images`, those of an epoch over all workers.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import timm
import torch
import torch.distributed as distributed
from timm.data import ImageDataset, create_loader, resolve_model_data_config
from timm.loss import LabelSmoothingCrossEntropy
from timm.models import resolve_model_input_args
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, accuracy, distribute_bn, random_seed, reduce_tensor
from torch.nn.parallel import DistributedDataParallel


def loaders(options: argparse.Namespace, data: dict[str, Any], world: int) -> tuple[Any, Any]:
    common = {
        "input_size": data["input_size"],
        "mean": data["mean"],
        "std": data["std"],
        "num_workers": options.workers,
        "device": torch.device("cpu"),
        "batch_size": options.batch // world,
    }
    train = create_loader(
        ImageDataset(str(options.data / "train")),
        is_training=True,
        no_aug=options.no_aug,
        interpolation="bilinear" if options.no_aug else "random",
        distributed=True,  # alone, too: the sampler's order is what both ways share
        **common,
    )
    train.sampler.seed = options.seed
    val = create_loader(
        ImageDataset(str(options.data / "valid")),
        interpolation=data["interpolation"],
        crop_pct=data["crop_pct"],
        distributed=world > 1,
        **common,
    )
    return train, val


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64, help="over all workers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lr", type=float, default=0.001)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--no-aug", action="store_true")
    parser.add_argument("--save", type=Path, help="the last epoch's weights")
    options = parser.parse_args()
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    random_seed(options.seed, rank)
    arguments = resolve_model_input_args(options.model, {"img_size": options.size, "in_chans": 3})
    classes = sum(1 for _ in (options.data / "train").iterdir())
    model = timm.create_model(**arguments, num_classes=classes)
    data = resolve_model_data_config(model, {"img_size": options.size, "in_chans": 3})
    alone = {"store": distributed.HashStore(), "rank": 0, "world_size": 1} if world == 1 else {}
    distributed.init_process_group("gloo", **alone)
    train, val = loaders(options, data, world)
    runner = DistributedDataParallel(model) if world > 1 else model
    optimizer = create_optimizer_v2(model, opt="adamw", lr=options.lr, weight_decay=0.05)
    schedule, _ = create_scheduler_v2(
        optimizer, "cosine", num_epochs=options.epochs, step_on_epochs=False, updates_per_epoch=len(train)
    )
    criterion = LabelSmoothingCrossEntropy(smoothing=0.1)
    seconds, updates = [], 0
    for epoch in range(options.epochs):
        began = time.perf_counter()
        train.sampler.set_epoch(epoch)
        runner.train()
        losses = AverageMeter()
        for pictures, targets in train:
            optimizer.zero_grad()
            loss = criterion(runner(pictures), targets)
            loss.backward()
            optimizer.step()
            losses.update(loss.item(), len(pictures))
            updates += 1
            schedule.step_update(updates)
        if world > 1:
            distribute_bn(model, world, True)
        validate(model, val, world)
        if rank == 0 and options.save:
            state = {"state_dict": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
            torch.save(state, options.save)
        seconds.append(time.perf_counter() - began)
    if rank == 0:
        print(json.dumps({"seconds": seconds, "images": len(train) * options.batch}), flush=True)
    distributed.destroy_process_group()


def validate(model: torch.nn.Module, loader: Any, world: int) -> float:
    model.eval()
    top1 = AverageMeter()
    with torch.inference_mode():
        for pictures, targets in loader:
            output = model(pictures)
            torch.nn.functional.cross_entropy(output, targets)
            found = accuracy(output, targets, topk=(1, 5))[0]
            top1.update(float(reduce_tensor(found, world) if world > 1 else found), len(pictures))
    return float(top1.avg)


if __name__ == "__main__":
    main()
