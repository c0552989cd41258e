"""The five steps of a training, on a worker."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from eagleray.contract import CheckpointError, TrainingAdapter, WeightsError
from eagleray_torchvision import data, model
from eagleray_torchvision.config import Config
from eagleray_torchvision.score import score

LEARNING_RATES = {"sgd": 0.005, "adamw": 0.0001}
STATE, PORTABLE = "state.pt", "model.pt"
MAX_NORM = 10.0


class TorchvisionAdapter(TrainingAdapter):
    """Trains one of torchvision's detectors on one device."""

    train_samples: list[data.Sample]
    val_samples: list[data.Sample]
    model: Any
    optimizer: torch.optim.Optimizer
    best: dict[str, torch.Tensor]
    best_map: float

    @property
    def config(self) -> Config:
        assert isinstance(self.context.config, Config)
        return self.context.config

    def load_data(self) -> None:
        self.train_samples = data.read_split(self.context.dataset, "train")
        self.val_samples = data.read_split(self.context.dataset, "val")

    def load_model(self) -> None:
        context, config = self.context, self.config
        torch.manual_seed(context.seed)
        self.model = model.build(context.model.name, len(context.dataset.classes), config.image_size)
        if context.pretrained and not context.resume:
            self._start_from_weights()
        self.model.to(context.device)
        rate = context.learning_rate or LEARNING_RATES[config.optimizer]
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if config.optimizer == "sgd":
            options = {"lr": rate, "momentum": config.momentum, "weight_decay": config.weight_decay}
            self.optimizer = torch.optim.SGD(parameters, **options)
        else:
            self.optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=config.weight_decay)
        self.best, self.best_map = self._weights(), -1.0
        if context.resume:
            self._resume(context.resume.path / STATE)

    def train(self) -> None:
        first = self.context.resume.epoch + 1 if self.context.resume else 1
        for epoch in range(first, self.context.epochs + 1):
            loss = self._train_epoch(epoch)
            if loss is None:
                return  # told to stop: a half-trained epoch is neither saved nor reported
            metrics = {"loss": loss, **self._evaluate()}
            if metrics["map"] > self.best_map:
                self.best, self.best_map = self._weights(), metrics["map"]
            self.context.report(epoch, metrics, save=self.save_checkpoint)

    def validate(self) -> Mapping[str, float]:
        self.model.load_state_dict(self.best)
        return self._evaluate()

    def save_checkpoint(self, path: Path) -> None:
        """Everything that the next epoch depends on, and the portable file."""
        weights = self._weights()
        state = {"model": weights, "best": self.best, "best_map": self.best_map, "random": torch.get_rng_state()}
        torch.save(state | {"optimizer": self.optimizer.state_dict()}, path / STATE)
        facts = {"name": self.context.model.name, "task": self.context.task, "image_size": self.config.image_size}
        torch.save(facts | {"model": weights, "classes": list(self.context.dataset.classes)}, path / PORTABLE)

    def _train_epoch(self, epoch: int) -> float | None:
        """The epoch's mean loss, or None where a stop cut it short."""
        size, device = self.context.batch_size, self.context.device
        assert isinstance(size, int)
        base = self.context.learning_rate or LEARNING_RATES[self.config.optimizer]
        for group in self.optimizer.param_groups:
            group["lr"] = base * 0.5 * (1 + math.cos(math.pi * (epoch - 1) / self.context.epochs))
        self.model.train()
        order = torch.randperm(len(self.train_samples)).tolist()
        steps, total = math.ceil(len(order) / size), 0.0
        for step in range(1, steps + 1):
            if self.context.should_stop:
                return None
            batch = [self.train_samples[index] for index in order[(step - 1) * size : step * size]]
            pairs = [data.load(sample, mirror=bool(torch.rand(()) < self.config.flip)) for sample in batch]
            images = [image.to(device) for image, _ in pairs]
            targets = [{name: value.to(device) for name, value in target.items()} for _, target in pairs]
            loss = sum(self.model(images, targets).values(), torch.zeros((), device=device))
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), MAX_NORM)
            self.optimizer.step()
            total += float(loss.detach()) * len(batch)
            self.context.progress(epoch, step, steps, {"loss": float(loss.detach())})
        return total / len(order)

    @torch.inference_mode()
    def _evaluate(self) -> dict[str, float]:
        self.model.eval()
        targets, found = [], []
        for sample in self.val_samples:
            image, target = data.load(sample)
            answer = self.model([image.to(self.context.device)])[0]
            targets.append(target)
            found.append({name: value.cpu() for name, value in answer.items()})
        return score(targets, found, len(self.context.dataset.classes))

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def _start_from_weights(self) -> None:
        if self.context.weights is None:
            raise WeightsError(
                f"The weights of {self.context.model.name} are not in the store.",
                f"Put torchvision's file at {self.context.weights_location}, or train with --no-pretrained.",
            )
        if not model.start_from(self.model, model.read(self.context.weights)):
            raise WeightsError(f"No tensor of '{self.context.weights.name}' fits {self.context.model.name}.")

    def _resume(self, path: Path) -> None:
        state = model.read(path)
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.best, self.best_map = state["best"], float(state["best_map"])
            torch.set_rng_state(state["random"])
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(f"The checkpoint '{path}' is of another job: {reason}", "Start a new job.") from error
