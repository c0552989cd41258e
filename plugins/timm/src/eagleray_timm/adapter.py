"""timm's factories driven through the five steps of the contract."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from timm.models import split_model_name_tag
from timm.utils import random_seed

from eagleray.contract import (
    ConfigError,
    DatasetError,
    EaglerayError,
    TrainingAdapter,
    TrainingContext,
    TrainingError,
)
from eagleray_timm import checkpoint, plots
from eagleray_timm.config import ClassificationConfig
from eagleray_timm.evaluation import Figures, evaluate
from eagleray_timm.group import Group
from eagleray_timm.learner import Learner
from eagleray_timm.loader import Loader, Plan, cores, keep_sockets_short, make_loader, process_count
from eagleray_timm.model import build_model, data_config, portable, read_portable
from eagleray_timm.recipe import class_weights, make_loss
from eagleray_timm.samples import Samples, class_names, read_samples
from eagleray_timm.seeds import seed_epoch
from eagleray_timm.weights import pretrained_state

# A GPU's loss is read so rarely that reading it does not slow it down.
STEPS_BETWEEN_LOSSES = 20


@contextmanager
def plain_errors(batch_size: object) -> Iterator[None]:
    """Let only builtin exceptions and the contract's own cross: the host's side knows no others."""
    try:
        yield
    except DatasetError as error:
        # One from a loader's process carries that process's traceback before the sentence.
        _, found, sentence = error.message.rpartition("DatasetError: ")
        raise DatasetError(sentence.strip() if found else error.message, error.hint) from None
    except EaglerayError:
        raise
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"The GPU's memory was not enough for batch_size {batch_size}: {str(error).splitlines()[0]}",
            "Lower batch_size, or make up for it by grad_accum_steps (--batch-size 32 --set grad_accum_steps=2).",
        ) from None
    except Exception as error:
        if type(error).__module__ == "builtins":
            raise
        raise TrainingError(f"timm failed: {type(error).__name__}: {error}") from None


class TimmAdapter(TrainingAdapter):
    """Trains an image classifier on one device of each worker."""

    def __init__(self, context: TrainingContext) -> None:
        super().__init__(context)
        if not isinstance(context.batch_size, int) or context.batch_size < context.world_size:
            raise ConfigError(
                f"batch_size {context.batch_size} is not enough for {context.world_size} workers.",
                f"It is over all workers: at least {context.world_size}.",
            )
        self.config: ClassificationConfig = context.config
        self.device = torch.device(context.device)
        self.batch_size = context.batch_size
        self.classes = class_names(context.dataset, multi_label=self.config.multi_label)
        self.best_file = context.work_dir / checkpoint.BEST
        self.record = checkpoint.Record()
        self._samples: dict[str, Samples] = {}
        self._loaders: dict[str, Loader] = {}
        self._steps: list[int] = []
        self._prepare_process()
        self.group = Group(context)

    def load_data(self) -> None:
        """Read the rows of every split."""
        context = self.context
        for split in context.dataset.splits:
            self._samples[split] = read_samples(context.dataset, split, multi_label=self.config.multi_label)
        for split in ("train", "val"):
            if split not in self._samples:
                raise DatasetError(f"The dataset {context.dataset.path} has no {split} split.")
        count = len(self._samples["train"])
        if count < 2 * context.world_size:
            raise DatasetError(
                f"{count} training pictures are too few for {context.world_size} workers.", "Each needs two or more."
            )
        self._steps = Plan(count, self.batch_size, context.world_size).sizes

    def load_model(self) -> None:
        """Build the model and what trains it: from the checkpoint to resume, pretrained weights, or random ones."""
        context = self.context
        name = context.model.weights or context.model.name
        # As timm's train script does before it makes the model.
        random_seed(context.seed, context.rank)
        with plain_errors(self.batch_size):
            state = pretrained_state(context) if context.pretrained and context.resume is None else None
            model = build_model(name, self.config, len(self.classes), state)
            self.data = data_config(model, self.config)
            train = self._samples["train"]
            positives = train.positives(len(self.classes))
            weights = class_weights(self.config, self.classes, positives, len(train))
            self.learner = Learner(
                model,
                make_loss(self.config, weights, self.device),
                context,
                self.group,
                device=self.device,
                batch_size=self.batch_size,
                updates_per_epoch=math.ceil(len(self._steps) / self.config.grad_accum_steps),
            )
            if context.resume:
                self._resume()

    def train(self) -> None:
        """Train to the end, until the host wants to stop, or until `patience` epochs have brought nothing."""
        first = self.record.epoch + 1
        try:
            with plain_errors(self.batch_size):
                for epoch in range(first, self.context.epochs + 1):
                    if self._exhausted() or not self._epoch(epoch):
                        return
        finally:
            self._close_loaders()

    def validate(self) -> Mapping[str, float]:
        """The figures of the best model, which becomes `best`; those of a test split have names of their own."""
        learner = self.learner
        try:
            with plain_errors(self.batch_size):
                if self.context.rank == 0:
                    learner.model.load_state_dict(read_portable(self.best_file)["state_dict"])
                self.group.copy_from_first(learner.model.state_dict().values())
                learner.model.eval()
                figures = self._evaluate(learner.model, "val", stoppable=False)
                assert figures is not None
                metrics = dict(figures.metrics)
                if "test" in self._samples:
                    tested = self._evaluate(learner.model, "test", stoppable=False)
                    assert tested is not None
                    metrics |= {
                        f"test/{name.removeprefix('metrics/').removeprefix('val/')}": value
                        for name, value in tested.metrics.items()
                    }
                if self.context.rank == 0:
                    self._keep(figures)
        finally:
            self._close_loaders()
        return metrics

    def _close_loaders(self) -> None:
        for loader in self._loaders.values():
            loader.close()
        self._loaders.clear()

    def save_checkpoint(self, path: Path) -> None:
        """Write `state.pt`, `model.pt` and, where another epoch is the best, `best.pt` into `path`."""
        checkpoint.write(path, self.learner, self.record, self._portable(), self.best_file)

    def _epoch(self, epoch: int) -> bool:
        """One epoch with its validation, reported; False where the run is to end before it is done."""
        context, learner = self.context, self.learner
        loss = self._train_epoch(epoch)
        if loss is None:
            return False
        lr = learner.lr
        learner.end_epoch(epoch)
        figures = self._evaluate(learner.evaluated, "val", stoppable=True)
        if figures is None:
            return False
        learner.next_epoch(epoch)
        metrics = {"train/loss": loss, **figures.metrics, "lr": lr}
        if self.record.add(epoch, metrics):
            # Not written over: a checkpoint may share the file.
            self.best_file.unlink(missing_ok=True)
        context.report(epoch, metrics, save=self.save_checkpoint)
        if context.rank == 0 and not self.best_file.exists():
            # No checkpoint was due.
            torch.save(self._portable(), self.best_file)
        return True

    def _train_epoch(self, epoch: int) -> float | None:
        """The epoch's mean loss over all pictures, or None where a stop cut it short."""
        context, learner, accumulate = self.context, self.learner, self.config.grad_accum_steps
        loader = self._loader("train")
        seed_epoch(context.seed, epoch, context.rank)
        learner.start_epoch(epoch)
        total = torch.zeros((), dtype=torch.float64, device=self.device)
        shown: dict[str, float] = {}
        batches = loader.batches(epoch)
        for step in range(len(self._steps)):
            if self.group.any(context.should_stop):
                return None
            pictures, targets = next(batches)
            together = self._steps[step - step % accumulate : step - step % accumulate + accumulate]
            last = (step + 1) % accumulate == 0 or step + 1 == len(self._steps)
            weight = len(pictures) * context.world_size / sum(together)
            loss = learner.learn(pictures, targets, weight, update=last)
            total += loss * len(pictures)
            if self.device.type != "cuda" or step % STEPS_BETWEEN_LOSSES == 0:
                shown = {"train/loss": float(loss), "lr": learner.lr}
            context.progress(epoch, step + 1, len(self._steps), shown)
        mean = float(self.group.sum(total)) / sum(self._steps)
        if not math.isfinite(mean):
            raise TrainingError(
                f"The loss of epoch {epoch} is {mean}.",
                "Lower the learning rate, lengthen the warm-up (--set warmup_epochs=3), clip gradients "
                "(--set clip_grad=1.0) or train without mixed precision (--set amp=off).",
            )
        return mean

    def _evaluate(self, model: Any, split: str, *, stoppable: bool) -> Figures | None:
        return evaluate(
            model,
            self._loader(split),
            self.config,
            self.group,
            self.learner.precision,
            device=self.device,
            num_classes=len(self.classes),
            should_stop=(lambda: self.context.should_stop) if stoppable else (lambda: False),
            place=self.learner.place,
        )

    def _loader(self, split: str) -> Loader:
        """The split's loader, made when it is first needed: its processes would idle before."""
        if split not in self._loaders:
            context, training = self.context, split == "train"
            processes = process_count(self.config, self.device, local_world_size())
            if processes:
                keep_sockets_short(context.work_dir)
            size = self.batch_size * (1 if training else self.config.val_batch_factor)
            self._loaders[split] = make_loader(
                self._samples[split],
                self.config,
                self.data,
                plan=Plan(len(self._samples[split]), size, context.world_size),
                rank=context.rank,
                device=self.device,
                processes=processes,
                num_classes=len(self.classes),
                seed=context.seed if training else None,
            )
        return self._loaders[split]

    def _exhausted(self) -> bool:
        patience = self.config.patience
        return 0 < patience <= self.record.epoch - self.record.best_epoch

    def _resume(self) -> None:
        resume = self.context.resume
        assert resume is not None
        self.record, state = checkpoint.read(resume, self._architecture(), self.classes)
        checkpoint.restore(self.learner, state, resume)
        if self.context.rank == 0:
            shutil.copyfile(checkpoint.best_of(resume), self.best_file)

    def _architecture(self) -> str:
        return str(split_model_name_tag(self.context.model.name)[0])

    def _portable(self) -> dict[str, Any]:
        name = self._architecture()
        return portable(self.learner.saved, name, self.classes, self.data, self.config.multi_label)

    def _keep(self, figures: Figures) -> None:
        """Hand the best model, tables and the picture to the host."""
        context, folder = self.context, self.context.work_dir
        context.publish_best(self.best_file)
        files = [plots.write_results(folder / "results.csv", self.record.rows)]
        files.append(plots.write_classes(folder / "classes.csv", figures, self.classes))
        if figures.matrix is not None:
            files += plots.write_matrix(folder, figures.matrix, self.classes)
        for file in files:
            context.keep_file(file)

    def _prepare_process(self) -> None:
        """Threads and CUDA for one worker of maybe several on this node."""
        if self.context.world_size > 1 and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, cores() // local_world_size()))
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
            torch.backends.cudnn.benchmark = not self.config.deterministic
            if self.config.deterministic:
                torch.use_deterministic_algorithms(True, warn_only=True)


def local_world_size() -> int:
    """Workers of this run on this node; the host sets the variable."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
