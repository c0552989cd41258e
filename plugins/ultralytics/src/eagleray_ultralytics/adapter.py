"""Ultralytics' own trainer, driven through the five steps of the contract.

Nothing of the training loop is replaced: the arguments are those that `yolo train` would use, and callbacks listen.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from ultralytics import YOLO, YOLOWorld

from eagleray.contract import (
    ConfigError,
    EaglerayError,
    ModelStatus,
    PluginError,
    TrainingAdapter,
    TrainingContext,
    TrainingError,
    WeightsError,
)
from eagleray_ultralytics import checkpoint, group
from eagleray_ultralytics.batch_norm import over_all_workers
from eagleray_ultralytics.data import link_boxes, link_folders
from eagleray_ultralytics.data_parallel import alone, parallel
from eagleray_ultralytics.framework import OPEN_VOCABULARY, read_models
from eagleray_ultralytics.isolation import isolate, no_downloads
from eagleray_ultralytics.metrics import stable
from eagleray_ultralytics.tasks import TASKS
from eagleray_ultralytics.weights import place_text_encoder, pretrained_file

KEPT_FILES = ("*.png", "*.jpg", "results.csv", "args.yaml")
CPU_BATCH_SIZE = 16


class Stopped(Exception):
    """Leaves Ultralytics' loop between two batches, so that a half-trained epoch is neither saved nor reported."""


@contextmanager
def plain_errors(batch_size: object) -> Iterator[None]:
    """Let only builtin exceptions and the contract's own cross: the host's side knows no others."""
    try:
        yield
    except (EaglerayError, Stopped):
        raise
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"The GPU's memory was not enough for batch_size {batch_size}: {str(error).splitlines()[0]}",
            "Lower batch_size or imgsz (--batch-size 8, --set imgsz=480).",
        ) from None
    except Exception as error:
        if type(error).__module__ == "builtins":
            raise
        raise TrainingError(f"Ultralytics failed: {type(error).__name__}: {error}") from None


class UltralyticsAdapter(TrainingAdapter):
    """Trains a YOLO model, as the only worker or as one of several with a device each."""

    def __init__(self, context: TrainingContext) -> None:
        super().__init__(context)
        if context.world_size != group.size():
            raise PluginError(
                f"{context.world_size} workers were asked for, and {group.size()} are in the process group.",
                "Start them through eagleray, which makes the group.",
            )
        if context.model.status is ModelStatus.PREDICT_ONLY:
            raise ConfigError(f"{context.model.name} cannot be trained: {context.model.reason}.")
        self.run_dir = context.work_dir / "run"
        self._model: Any = None
        self._exact: Mapping[str, Any] | None = None
        self._finished = context.resume is not None and context.resume.epoch >= context.epochs
        self._stopped = False
        self._data = Path()
        self._epoch = -1
        self._step = 0
        self._validated = False
        self._metrics: dict[str, float] = {}
        self._random: list[Any] = []
        self._checkpoints = checkpoint.Writer()
        isolate(context.work_dir)

    def load_data(self) -> None:
        """Link the dataset into the work folder, where Ultralytics may write beside it."""
        target = self.context.work_dir / "dataset"
        link = link_folders if self.context.task == "image-classification" else link_boxes
        self._data = link(self.context.dataset, target)

    def load_model(self) -> None:
        """Take the checkpoint to resume, else pretrained weights, else the model's description."""
        context = self.context
        row = next(row for row in read_models() if (row["name"], row["task"]) == (context.model.name, context.task))
        open_vocabulary = context.model.name.startswith(OPEN_VOCABULARY)
        if open_vocabulary:
            place_text_encoder(context)
        make = YOLOWorld if open_vocabulary else YOLO
        task: dict[str, Any] = {} if open_vocabulary else {"task": TASKS[context.task]}
        if context.resume:
            state = checkpoint.read(context.resume)
            self._exact = state.pop(checkpoint.EXACT, None)
            file = checkpoint.place(context.resume, state, self._arguments(state["train_args"]), self.run_dir)
            self._model = make(file, **task)
        elif context.pretrained:
            weights = pretrained_file(context)
            try:
                self._model = make(weights, **task)
            except Exception as error:
                raise WeightsError(f"The weights {weights} cannot be loaded: {error}") from None
            if self._model.task != TASKS[context.task]:
                raise WeightsError(f"The weights {weights} are for {self._model.task}, not for {context.task}.")
        else:
            self._model = make(row["file"], **task)
        for event in EVENTS:
            self._model.add_callback(event, getattr(self, f"_{event}"))

    def train(self) -> None:
        """Run Ultralytics' trainer to the end, or until the host wants to stop."""
        if self._finished:
            return
        context = self.context
        arguments = {"resume": True, "data": str(self._data), "save_dir": str(self.run_dir)}
        if context.resume is None:
            arguments = self._arguments({})
        before = set(threading.enumerate())
        try:
            with no_downloads(), plain_errors(context.batch_size), self._several_workers():
                self._model.train(self._trainer_class, **arguments)
        except Stopped:
            self._stopped = True
        finally:
            self._close(before)

    @property
    def _trainer(self) -> Any:
        return getattr(self._model, "trainer", None)

    @property
    def _trainer_class(self) -> type[Any] | None:
        """The task's trainer as one of several workers; None leaves the choice to Ultralytics."""
        return parallel(self._model._smart_load("trainer")) if self.context.world_size > 1 else None

    def _several_workers(self) -> AbstractContextManager[None]:
        together = self.context.world_size > 1 and self.context.config.sync_batch_norm
        return over_all_workers() if together else nullcontext()

    def validate(self) -> Mapping[str, float]:
        """The figures of the best model, which becomes `best`; after a stop, the last epoch's figures."""
        if self._stopped or self.context.rank > 0:
            return self._metrics
        best = self.run_dir / "weights" / "best.pt"
        if self._finished:
            with no_downloads(), plain_errors(self.context.batch_size), alone():
                found = YOLO(best).val(**self._validation_arguments()).results_dict
        else:
            found = {**self._trainer.metrics, "fitness": self._trainer.validator.metrics.fitness}
        if best.is_file():
            self.context.publish_best(best)
        return stable(self.context.task, found)

    def save_checkpoint(self, path: Path) -> None:
        """Write `state.pt`, `model.pt` and, where it is another epoch's, `best.pt` into `path`."""
        self._checkpoints.write(self._trainer, path, self._random)

    def _arguments(self, previous: Mapping[str, Any]) -> dict[str, Any]:
        """Ultralytics' arguments for this job; `previous` are those of the checkpoint to resume."""
        context = self.context
        values = context.config.model_dump(exclude={"sync_batch_norm"})
        if context.learning_rate is not None:
            values["lr0"] = context.learning_rate
        self._warn_of_ignored(values)
        return values | {
            "data": str(self._data),
            "epochs": context.epochs,
            "batch": self._batch_size(previous),
            "device": context.device.removeprefix("cuda:"),
            "seed": context.seed,
            "pretrained": context.pretrained,
            "save_dir": str(self.run_dir),
            "project": str(context.work_dir),
            "name": self.run_dir.name,
            "exist_ok": True,
        }

    def _warn_of_ignored(self, values: Mapping[str, Any]) -> None:
        """`optimizer=auto` chooses rate and momentum itself, and says so in the worker's log alone."""
        given = {"learning_rate": self.context.learning_rate}
        given |= {key: values[key] for key in ("lr0", "momentum") if key in self.context.config.model_fields_set}
        ignored = " and ".join(f"{key}={value}" for key, value in given.items() if value is not None)
        if values["optimizer"] == "auto" and ignored:
            self.context.warn(
                f"{ignored} has no effect: optimizer=auto of Ultralytics chooses its own. "
                "Name an optimizer to use it: --set optimizer=AdamW"
            )

    def _batch_size(self, previous: Mapping[str, Any]) -> int:
        size = self.context.batch_size
        if size != "auto":
            return size
        if int(previous.get("batch", 0)) > 0:
            return int(previous["batch"])
        if self.context.device != "cpu":
            if self.context.world_size > 1:
                raise ConfigError(
                    "batch_size=auto measures the memory of a single worker's GPU.",
                    f"Name the batch of all {self.context.world_size} workers together: --batch-size 64.",
                )
            return -1
        self.context.warn(f"batch_size=auto measures a GPU's memory; on a CPU it is {CPU_BATCH_SIZE}.")
        return CPU_BATCH_SIZE

    def _validation_arguments(self) -> dict[str, Any]:
        wanted = ("imgsz", "split", "conf", "iou", "max_det", "workers", "single_cls", "plots")
        values = {name: value for name, value in self.context.config.model_dump().items() if name in wanted}
        device = self.context.device.removeprefix("cuda:")
        return values | {"data": str(self._data), "device": device, "save_dir": str(self.run_dir)}

    def _on_train_start(self, trainer: Any) -> None:
        if self._exact:
            checkpoint.restore(trainer, self._exact, self.context.rank, self.context.world_size)
            self._exact = None

    def _on_train_epoch_start(self, trainer: Any) -> None:
        self._step = 0
        self._validated = False

    def _on_train_batch_end(self, trainer: Any) -> None:
        self._stop_if_asked()
        self._step += 1
        losses = trainer.label_loss_items(trainer.tloss)
        self.context.progress(trainer.epoch + 1, self._step, len(trainer.train_loader), losses)

    def _on_train_epoch_end(self, trainer: Any) -> None:
        self._epoch = trainer.epoch

    def _on_val_batch_end(self, validator: Any) -> None:
        # Several workers validate different numbers of batches, so they cannot agree here.
        if self.context.world_size == 1:
            self._stop_if_asked()

    def _on_val_end(self, validator: Any) -> None:
        self._validated = True

    def _on_fit_epoch_end(self, trainer: Any) -> None:
        # Ultralytics calls this once more after the run, for the best model and with the next epoch's number.
        if trainer.epoch != self._epoch:
            return
        validated = {**trainer.metrics, "fitness": trainer.fitness} if self._validated else {}
        raw = {**trainer.label_loss_items(trainer.tloss), **validated, **trainer.lr}
        self._metrics = stable(self.context.task, raw)
        self._random = group.gathered(checkpoint.random_state(trainer))
        self.context.report(trainer.epoch + 1, self._metrics, save=self.save_checkpoint)
        self._stop_if_asked(ending=trainer.stop)

    def _stop_if_asked(self, ending: bool = False) -> None:
        """Leave the loop, all workers in the same batch, unless the first one ends by itself."""
        stop, ends = group.any_of(self.context.should_stop, ending)
        if stop and not ends:
            raise Stopped

    def _close(self, before: set[threading.Thread]) -> None:
        """Free the loaders' processes, wait for plots that are being drawn, and keep the run's files."""
        for name in ("train_loader", "test_loader"):
            loader = getattr(self._trainer, name, None)
            if loader is not None:
                loader.close()
        for thread in set(threading.enumerate()) - before:
            if not thread.daemon:
                thread.join(timeout=60)
        for pattern in KEPT_FILES:
            for file in sorted(self.run_dir.glob(pattern)):
                self.context.keep_file(file)


EVENTS = tuple(name[1:] for name in vars(UltralyticsAdapter) if name.startswith("_on_"))
