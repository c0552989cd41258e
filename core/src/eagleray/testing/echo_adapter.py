"""The echo framework on a worker: the five steps."""

from __future__ import annotations

import os
import signal
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from eagleray.contract import CheckpointError, TrainingAdapter, WeightsError
from eagleray.testing.echo_config import EchoConfig
from eagleray.testing.echo_data import Samples, read_samples
from eagleray.testing.echo_group import EchoGroup, join
from eagleray.testing.echo_model import (
    Parameters,
    State,
    descend,
    gradients,
    load_model,
    load_state,
    loss_and_accuracy,
    new_state,
    save_model,
    save_state,
)

DEFAULT_LEARNING_RATE = 0.05


class EchoAdapter(TrainingAdapter):
    """Trains a classifier of a picture's class, or of its first object's."""

    train_samples: Samples
    val_samples: Samples
    state: State
    group: EchoGroup

    @property
    def config(self) -> EchoConfig:
        assert isinstance(self.context.config, EchoConfig)
        return self.context.config

    def load_data(self) -> None:
        self.train_samples = read_samples(self.context.dataset, "train")
        self.val_samples = read_samples(self.context.dataset, "val")

    def load_model(self) -> None:
        inputs = self.train_samples.pixels.shape[1]
        self.state = new_state(inputs, len(self.context.dataset.classes), self.config.hidden, self.context.seed)
        if self.context.resume:
            self.state = self._resumed(self.context.resume.path / "state.npz")
        elif self.context.weights:
            self.state.parameters = self._pretrained(self.context.weights)

    def train(self) -> None:
        with join(self.context.rank, self.context.world_size) as self.group:
            self._train()

    def _train(self) -> None:
        first = self.context.resume.epoch + 1 if self.context.resume else 1
        for epoch in range(first, self.context.epochs + 1):
            before = self.state.copy()
            loss = self._train_epoch(epoch)
            if loss is None:
                # What a stop cut short is repeated by the resumed run, so none of it may remain.
                self.state = before
                return
            val_loss, accuracy = loss_and_accuracy(
                self.state.parameters, self.val_samples.pixels, self.val_samples.labels
            )
            self.state.keep_best(accuracy)
            metrics = {"loss": loss, "val_loss": val_loss, "accuracy": accuracy}
            self.context.report(epoch, metrics, save=self.save_checkpoint)

    def validate(self) -> Mapping[str, float]:
        val_loss, accuracy = loss_and_accuracy(self.state.best, self.val_samples.pixels, self.val_samples.labels)
        return {"val_loss": val_loss, "accuracy": accuracy}

    def save_checkpoint(self, path: Path) -> None:
        save_state(self.state, path / "state.npz")
        save_model(self.state.parameters, self.context.task, self.context.dataset.classes, path / "model.npz")

    def _train_epoch(self, epoch: int) -> float | None:
        """The epoch's mean loss per picture, or None where a stop cut it short."""
        for line in range(self.config.noise_lines):
            print(f"echo epoch {epoch} line {line + 1}", flush=True)
        size = self._batch_size
        # Every worker draws the same order and takes its own share of each batch.
        order = self.state.rng.permutation(len(self.train_samples.labels))
        steps = -(-len(order) // size)
        total = 0.0
        for number in range(steps):
            if self.group.any(self.context.should_stop):
                return None
            self._fault(epoch)
            time.sleep(self.config.delay_s)
            batch = order[number * size : (number + 1) * size]
            loss = self._step(batch)
            total += loss * len(batch)
            self.context.progress(epoch, number + 1, steps, {"loss": loss})
        return total / len(order)

    def _step(self, batch: NDArray[np.int64]) -> float:
        """Learn from this worker's share of `batch`, indices into the samples; the mean loss over all workers."""
        share = batch[self.context.rank :: self.context.world_size]
        samples, state = self.train_samples, self.state
        loss, slopes = gradients(state.parameters, samples.pixels[share], samples.labels[share])
        sums = self.group.sum({**slopes, "": np.array([loss])})
        means = {name: value / len(batch) for name, value in sums.items()}
        mean_loss = float(means.pop("")[0])
        descend(state, means, self.context.learning_rate or DEFAULT_LEARNING_RATE, self.config.momentum)
        return mean_loss

    @property
    def _batch_size(self) -> int:
        # `auto` is absent from the capabilities, so the host lets only numbers through.
        assert isinstance(self.context.batch_size, int)
        return self.context.batch_size

    def _fault(self, epoch: int) -> None:
        if epoch == self.config.fail_at_epoch:
            raise RuntimeError(f"echo fails in epoch {epoch}, as its config asks")
        marker = self.config.kill_marker
        if epoch == self.config.kill_at_epoch and not (marker and marker.exists()):
            if marker:
                marker.write_text(str(epoch), encoding="utf-8")
            os.kill(os.getpid(), signal.SIGKILL)

    def _resumed(self, path: Path) -> State:
        try:
            state = load_state(path)
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise CheckpointError(f"The checkpoint '{path}' cannot be read: {error}.") from error
        if different := _difference(state.parameters, self.state.parameters):
            raise CheckpointError(f"The checkpoint does not belong to this job: {different}.")
        return state

    def _pretrained(self, path: Path) -> Parameters:
        try:
            parameters, _ = load_model(path)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise WeightsError(f"The weights '{path}' cannot be read: {error}.", "Name a model.npz.") from error
        if different := _difference(parameters, self.state.parameters):
            raise WeightsError(f"The weights '{path.name}' do not fit: {different}.", "Use --no-pretrained.")
        return parameters


def _difference(given: Parameters, wanted: Parameters) -> str:
    given_shapes = {name: value.shape for name, value in given.items()}
    wanted_shapes = {name: value.shape for name, value in wanted.items()}
    return "" if given_shapes == wanted_shapes else f"its arrays are {given_shapes}, the model's are {wanted_shapes}"
