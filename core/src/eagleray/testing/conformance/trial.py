"""One case on one made dataset: attempts of it, and how they are compared."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from eagleray.contract import Dataset, Framework, ModelStatus
from eagleray.testing.attempt import AttemptSpec
from eagleray.testing.attempts import Outcome, Runner
from eagleray.testing.conformance.case import Case, differences


class Trial:
    """A case with its dataset below `folder`; attempts are made in subfolders of it."""

    def __init__(self, plugin: str, framework: Framework, runner: Runner, case: Case, folder: Path) -> None:
        self.plugin, self.framework, self.runner, self.case, self.folder = plugin, framework, runner, case, folder
        self.dataset = case.write_dataset(folder / "data", case.images)
        self.dataset_before = files_of(self.dataset.path)
        cards = [card for card in framework.models if card.task == case.task]
        self.model = case.model or next(card.name for card in cards if card.status is ModelStatus.TRAINABLE)

    def needs(self, capability: str) -> None:
        """Skip the test where the framework says that it has not got `capability`."""
        if absent := getattr(self.framework.capabilities, capability):
            pytest.skip(f"{self.framework.name} has no {capability.replace('_', ' ')}: {absent.reason}")

    def spec(self, name: str, dataset: Dataset | None = None, **changes: Any) -> AttemptSpec:
        """The case's attempt `name`; `changes` are of `AttemptSpec`'s fields."""
        case = self.case
        values: dict[str, Any] = {
            "config": case.config,
            "epochs": case.epochs,
            "batch_size": case.batch_size,
            "learning_rate": case.learning_rate,
            "weights": case.weights,
            "prompt": case.prompt,
            "threshold": case.threshold,
        }
        if changes.get("resume"):
            values["weights"] = None
        return AttemptSpec(
            plugin=self.plugin,
            framework=self.framework.name,
            folder=self.folder / name,
            task=case.task,
            model=self.model,
            dataset=dataset or self.dataset,
            **values | changes,
        )

    def run(self, name: str, **changes: Any) -> Outcome:
        return self.runner.run(self.spec(name, **changes))

    def succeed(self, name: str, **changes: Any) -> Outcome:
        """The outcome of an attempt that must not raise."""
        return without_error(self.run(name, **changes))

    def unlike(self, one: Outcome, other: Outcome) -> list[str]:
        """Metrics of the epochs that both have, and the final ones, that differ by more than the case's tolerance."""
        epochs = {report.epoch: report.metrics for report in other.reports}
        found = []
        for report in one.reports:
            if report.epoch in epochs:
                told = self.case.told(report.metrics), self.case.told(epochs[report.epoch])
                found += [f"epoch {report.epoch}: {text}" for text in differences(*told, self.case.tolerance)]
        finals = self.case.told(one.final or {}), self.case.told(other.final or {})
        return found + [f"at the end: {text}" for text in differences(*finals, self.case.tolerance)]

    def a_picture(self) -> Path:
        """A picture of the validation split."""
        folder = self.dataset.path / self.dataset.splits["val"].images
        return min(path for path in folder.rglob("*") if path.suffix in {".png", ".jpg", ".jpeg"})


def without_error(outcome: Outcome) -> Outcome:
    assert outcome.error is None, f"{outcome.error['traceback'] or outcome.error['message']}\n{outcome.output}"
    return outcome


def files_of(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file below `folder`."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def damaged_copies(checkpoint: Path, folder: Path) -> Mapping[str, Path]:
    """Copies of `checkpoint`: empty, all files torn or garbage, and each file alone garbage."""
    files = sorted(path.relative_to(checkpoint) for path in checkpoint.rglob("*") if path.is_file())
    copies = {name: folder / name for name in ("empty", "all-torn", "all-garbage")}
    copies |= {f"garbage-{number}": folder / f"garbage-{number}" for number in range(len(files))}
    copies["empty"].mkdir(parents=True)
    for name, copy in copies.items():
        if name == "empty":
            continue
        shutil.copytree(checkpoint, copy)
        for number, file in enumerate(files):
            if name == "all-torn":
                content = (copy / file).read_bytes()
                (copy / file).write_bytes(content[: len(content) // 2])
            elif name in ("all-garbage", f"garbage-{number}"):
                (copy / file).write_bytes(b"PK\x03\x04 this is no checkpoint")
    return copies
