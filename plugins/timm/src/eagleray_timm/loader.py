"""Batches of a split: decoded and augmented in processes of their own, normalised on the device.

Every epoch shows every picture once, also with several workers and where the batches do not divide them.
"""

from __future__ import annotations

import math
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageOps
from timm.data import create_transform
from timm.data.loader import PrefetchLoader, fast_collate
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from eagleray.contract import DatasetError
from eagleray_timm.config import ClassificationConfig
from eagleray_timm.samples import Samples
from eagleray_timm.seeds import seed_picture, undisturbed

Key = tuple[int, int]  # epoch, number of the picture
MAX_PROCESSES = 8
# A Unix socket's path ends at 107 characters; the last part is what multiprocessing puts behind the temporary folder.
LONGEST_TEMPORARY_FOLDER = 107 - len("/pymp-12345678/listener-12345678")


@dataclass(frozen=True)
class Plan:
    """How `count` pictures are cut into batches over all workers.

    The last batch is smaller. Where it would leave a worker with fewer than two pictures, which a batch norm cannot
    take, the last two are evened out.
    """

    count: int
    batch_size: int
    world_size: int = 1

    @property
    def sizes(self) -> list[int]:
        """Pictures of each batch, over all workers."""
        full, rest = divmod(self.count, self.batch_size)
        sizes = [self.batch_size] * full
        if not rest:
            return sizes
        if not full or rest >= self.world_size * min(2, self.batch_size // self.world_size):
            return [*sizes, rest]
        both = sizes.pop() + rest
        return [*sizes, (both + 1) // 2, both // 2] if both // 2 >= self.world_size else [*sizes, both]

    def share(self, size: int, rank: int) -> int:
        """How many pictures of a batch of `size` the worker `rank` gets."""
        return len(range(rank, size, self.world_size))


class EpochSampler(Sampler[list[Key]]):
    """The keys of each batch of one rank. The order is DistributedSampler's for the same seed, epochs from 1."""

    def __init__(self, plan: Plan, rank: int, *, shuffle: bool, seed: int) -> None:
        self.plan, self.rank, self.shuffle, self.seed = plan, rank, shuffle, seed
        self.epoch = 1

    def __len__(self) -> int:
        return sum(1 for size in self.plan.sizes if self.plan.share(size, self.rank))

    def __iter__(self) -> Iterator[list[Key]]:
        order = list(range(self.plan.count))
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed + self.epoch - 1)
            order = torch.randperm(self.plan.count, generator=generator).tolist()
        start = 0
        for size in self.plan.sizes:
            mine = order[start : start + size][self.rank :: self.plan.world_size]
            start += size
            if mine:
                yield [(self.epoch, index) for index in mine]


class Pictures(Dataset[tuple[torch.Tensor, Any]]):
    """A picture (uint8 `[C, H, W]`, 0..255) and its class number, or its labels as float `[classes]`."""

    def __init__(
        self,
        samples: Samples,
        transform: Callable[[Image.Image], Any],
        *,
        mode: str,
        num_labels: int,
        seed: int | None,
        enough: int,
    ) -> None:
        """`num_labels` is 0 where each picture has one label; `seed` is None where nothing is random.

        A JPEG of twice `enough` pixels a side, or more, is decoded at a half, a quarter or an eighth of its size; 0:
        never.
        """
        self.samples, self.transform, self.mode, self.num_labels, self.seed = samples, transform, mode, num_labels, seed
        self.enough = enough

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, Any]:
        epoch, index = key
        if self.seed is None:
            return self.transform(self._open(index)), self._target(index)
        if get_worker_info() is not None:
            return self._augmented(self.seed, epoch, index), self._target(index)
        with undisturbed():
            return self._augmented(self.seed, epoch, index), self._target(index)

    def _augmented(self, seed: int, epoch: int, index: int) -> torch.Tensor:
        seed_picture(seed, epoch, index)
        return self.transform(self._open(index))

    def _open(self, index: int) -> Image.Image:
        path = self.samples.paths[index]
        try:
            with Image.open(path) as opened:
                if self.enough:
                    opened.draft(opened.mode, (self.enough, self.enough))
                # As the predictor sees it: upright.
                ImageOps.exif_transpose(opened, in_place=True)
                return opened.convert(self.mode)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise DatasetError(f"{path} cannot be read: {error}.", "Replace or remove the picture.") from None

    def _target(self, index: int) -> Any:
        labels = self.samples.labels[index]
        if not self.num_labels:
            return labels[0]
        target = torch.zeros(self.num_labels)
        target[list(labels)] = 1.0
        return target


class Loader:
    """A split's batches on the device: float `[B, C, H, W]`, normalised, and their targets."""

    def __init__(self, loader: DataLoader[Any], on_device: PrefetchLoader, sampler: EpochSampler) -> None:
        self._loader, self._on_device, self._sampler = loader, on_device, sampler
        self.plan = sampler.plan

    def batches(self, epoch: int = 1) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The batches of this rank in `epoch`."""
        self._sampler.epoch = epoch
        return iter(self._on_device)

    def close(self) -> None:
        """End the loader's processes."""
        iterator = getattr(self._loader, "_iterator", None)
        if iterator is not None and hasattr(iterator, "_shutdown_workers"):
            iterator._shutdown_workers()
            self._loader._iterator = None


def cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_count(config: ClassificationConfig, device: torch.device, local_world_size: int) -> int:
    """Processes that load pictures for one worker.

    A GPU's host has idle cores; on a CPU the training itself fills them, so one in four is given to loading.
    """
    if config.workers is not None:
        return config.workers
    share = cores() // max(1, local_world_size)
    return min(MAX_PROCESSES, share if device.type == "cuda" else share // 4)


def keep_sockets_short(work_dir: Path) -> None:
    """Let processes hand tensors over where the temporary folder's path is too long for a socket.

    Without it a loader's process cannot bind its socket, says so in its log only, and training waits for ever. The
    folder is named relative to the current one, which loader processes inherit.
    """
    config: dict[str, Any] = multiprocessing.current_process()._config  # type: ignore[attr-defined]
    if len(tempfile.gettempdir()) <= LONGEST_TEMPORARY_FOLDER or "tempdir" in config:
        return
    config["tempdir"] = os.path.relpath(tempfile.mkdtemp(prefix="pymp-", dir=work_dir))


def _pair(values: Sequence[float] | None) -> tuple[float, float] | None:
    return None if values is None else (values[0], values[1])


def training_transform(config: ClassificationConfig, data: Mapping[str, Any]) -> Callable[[Image.Image], Any]:
    """timm's training transform up to uint8 tensors; `data` is a model's data configuration."""
    return create_transform(
        data["input_size"],
        is_training=True,
        no_aug=config.no_aug,
        train_crop_mode=config.train_crop_mode,
        scale=_pair(config.scale),
        ratio=_pair(config.ratio),
        hflip=config.hflip,
        vflip=config.vflip,
        color_jitter=config.color_jitter,
        color_jitter_prob=config.color_jitter_prob,
        grayscale_prob=config.grayscale_prob,
        gaussian_blur_prob=config.gaussian_blur_prob,
        auto_augment=config.aa,
        interpolation=config.train_interpolation,
        mean=data["mean"],
        std=data["std"],
        use_prefetcher=True,
    )


def enough_pixels(config: ClassificationConfig, data: Mapping[str, Any], *, training: bool) -> int:
    """Pixels a side from which even the smallest crop is not enlarged."""
    size = max(data["input_size"][-2:])
    if not training:
        return math.ceil(size / data["crop_pct"])
    if config.no_aug:
        return size
    area = (config.scale or (0.08 if config.train_crop_mode == "rrc" else 0.8,))[0]
    ratio = (config.ratio or (0.75,))[0]
    return math.ceil(size / math.sqrt(min(area, 1.0) * min(ratio, 1.0)))


def evaluation_transform(data: Mapping[str, Any]) -> Callable[[Image.Image], Any]:
    """timm's evaluation transform up to uint8 tensors."""
    return create_transform(
        data["input_size"],
        interpolation=data["interpolation"],
        crop_pct=data["crop_pct"],
        crop_mode=data["crop_mode"],
        mean=data["mean"],
        std=data["std"],
        use_prefetcher=True,
    )


def make_loader(
    samples: Samples,
    config: ClassificationConfig,
    data: Mapping[str, Any],
    *,
    plan: Plan,
    rank: int,
    device: torch.device,
    processes: int,
    num_classes: int,
    seed: int | None,
) -> Loader:
    """The loader of a split; `seed` is None for evaluation: in order, without augmentation."""
    training = seed is not None
    channels = data["input_size"][0]
    pictures = Pictures(
        samples,
        training_transform(config, data) if training else evaluation_transform(data),
        mode="L" if channels == 1 else "RGB",
        num_labels=num_classes if config.multi_label else 0,
        seed=seed,
        enough=enough_pixels(config, data, training=training) if config.fast_decode else 0,
    )
    sampler = EpochSampler(plan, rank, shuffle=training, seed=seed or 0)
    loader = DataLoader(
        pictures,
        batch_sampler=sampler,
        num_workers=processes,
        collate_fn=fast_collate,
        pin_memory=device.type == "cuda",
        persistent_workers=processes > 0,
        prefetch_factor=config.prefetch if processes else None,
        # Its own: an iterator draws a number at its start, which a resumed run would draw at another time.
        generator=torch.Generator(),
    )
    on_device = PrefetchLoader(
        loader,
        mean=data["mean"],
        std=data["std"],
        channels=channels,
        device=device,
        re_prob=config.reprob if training and not config.no_aug else 0.0,
        re_mode=config.remode,
        re_count=config.recount,
    )
    return Loader(loader, on_device, sampler)
