"""A softmax classifier, with or without a hidden layer, and its training state."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Parameters = dict[str, Array]


@dataclass
class State:
    """All that the next epoch depends on: two states that are equal train on alike, to the last bit.

    Attributes:
        parameters: `weight` `[inputs, classes]` and `bias` `[classes]`; with a hidden layer also `weight0`, `bias0`.
        velocity: the momentum's sums, same names and shapes.
        best: the parameters of the epoch with the best accuracy.
    """

    parameters: Parameters
    velocity: Parameters
    best: Parameters
    best_accuracy: float
    rng: np.random.Generator

    def copy(self) -> State:
        rng = np.random.Generator(np.random.PCG64())
        rng.bit_generator.state = self.rng.bit_generator.state
        return State(_copy(self.parameters), _copy(self.velocity), _copy(self.best), self.best_accuracy, rng)

    def keep_best(self, accuracy: float) -> None:
        if accuracy > self.best_accuracy:
            self.best_accuracy = accuracy
            self.best = _copy(self.parameters)


def new_state(inputs: int, classes: int, hidden: int, seed: int) -> State:
    """A state before the first epoch; weights as by Glorot and Bengio (2010), normal."""
    rng = np.random.Generator(np.random.PCG64(seed))
    parameters: Parameters = {}
    if hidden:
        parameters["weight0"] = rng.normal(0, np.sqrt(2 / (inputs + hidden)), (inputs, hidden))
        parameters["bias0"] = np.zeros(hidden)
    last = hidden or inputs
    parameters["weight"] = rng.normal(0, np.sqrt(2 / (last + classes)), (last, classes))
    parameters["bias"] = np.zeros(classes)
    velocity = {name: np.zeros_like(value) for name, value in parameters.items()}
    return State(parameters, velocity, _copy(parameters), -1.0, rng)


def loss_and_accuracy(parameters: Parameters, pixels: Array, labels: NDArray[np.int64]) -> tuple[float, float]:
    """Mean cross-entropy in nats, and the share of right answers in 0..1."""
    logarithms = _log_softmax(_forward(parameters, pixels)[1])
    loss = -float(np.mean(logarithms[np.arange(len(labels)), labels]))
    return loss, float(np.mean(np.argmax(logarithms, axis=1) == labels))


def gradients(parameters: Parameters, pixels: Array, labels: NDArray[np.int64]) -> tuple[float, Parameters]:
    """The sum over a batch `[B, inputs]`, maybe an empty one, of the cross-entropy and of its slopes."""
    inner, scores = _forward(parameters, pixels)
    logarithms = _log_softmax(scores)
    rows = np.arange(len(labels))
    slope = np.exp(logarithms)
    slope[rows, labels] -= 1
    slopes = {"weight": inner.T @ slope, "bias": slope.sum(axis=0)}
    if "weight0" in parameters:
        inner_slope = (slope @ parameters["weight"].T) * (1 - inner**2)
        slopes |= {"weight0": pixels.T @ inner_slope, "bias0": inner_slope.sum(axis=0)}
    return -float(np.sum(logarithms[rows, labels])), slopes


def descend(state: State, slopes: Parameters, learning_rate: float, momentum: float) -> None:
    """One step of SGD with momentum along a batch's mean slopes."""
    for name, slope in slopes.items():
        state.velocity[name] = momentum * state.velocity[name] - learning_rate * slope
        state.parameters[name] = state.parameters[name] + state.velocity[name]


def probabilities(parameters: Parameters, pixels: Array) -> Array:
    """`[B, classes]`, each row adding up to 1."""
    return np.asarray(np.exp(_log_softmax(_forward(parameters, pixels)[1])))


def save_state(state: State, path: Path) -> None:
    groups = {"parameters": state.parameters, "velocity": state.velocity, "best": state.best}
    arrays = {f"{group}/{name}": value for group, values in groups.items() for name, value in values.items()}
    facts = {"best_accuracy": state.best_accuracy, "rng": state.rng.bit_generator.state}
    np.savez(path, facts=np.array(json.dumps(facts)), **arrays)  # type: ignore[arg-type]


def load_state(path: Path) -> State:
    """The state that `save_state` wrote. Raises OSError, ValueError or KeyError where the file is not one."""
    # Opened here, since numpy leaves a file open that it cannot read.
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        groups: dict[str, Parameters] = {"parameters": {}, "velocity": {}, "best": {}}
        for key in file.files:
            group, slash, name = key.partition("/")
            if slash:
                groups[group][name] = file[key]
        facts = json.loads(str(file["facts"]))
    rng = np.random.Generator(np.random.PCG64())
    rng.bit_generator.state = facts["rng"]
    return State(**groups, best_accuracy=facts["best_accuracy"], rng=rng)


def save_model(parameters: Parameters, task: str, classes: tuple[str, ...], path: Path) -> None:
    """The portable file: the parameters, and what a predictor must know beside them."""
    facts = {"task": task, "classes": classes}
    np.savez(path, facts=np.array(json.dumps(facts)), **parameters)  # type: ignore[arg-type]


def load_model(path: Path) -> tuple[Parameters, dict[str, Any]]:
    """Parameters and facts of a portable file. Raises OSError, ValueError or BadZipFile where it is not one."""
    # Opened here, since numpy leaves a file open that it cannot read.
    with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
        parameters = {name: file[name] for name in file.files if name != "facts"}
        facts = json.loads(str(file["facts"])) if "facts" in file.files else {}
    return parameters, facts


def _forward(parameters: Parameters, pixels: Array) -> tuple[Array, Array]:
    """What goes into the last layer `[B, last]`, and the scores `[B, classes]`."""
    inner = np.tanh(pixels @ parameters["weight0"] + parameters["bias0"]) if "weight0" in parameters else pixels
    return inner, inner @ parameters["weight"] + parameters["bias"]


def _log_softmax(scores: Array) -> Array:
    shifted = scores - scores.max(axis=1, keepdims=True, initial=-np.inf)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)))


def _copy(parameters: Parameters) -> Parameters:
    return {name: value.copy() for name, value in parameters.items()}
