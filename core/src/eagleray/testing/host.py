"""A training's other side without Ray: for tests of an adapter."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from eagleray.contract import PluginError, Resume, TrainingAdapter, TrainingContext


@dataclass(frozen=True)
class Report:
    """One `context.report`; `checkpoint` is the folder that the adapter filled, if it was asked to."""

    epoch: int
    metrics: Mapping[str, float]
    checkpoint: Path | None


@dataclass
class RecordingHost:
    """A `TrainingHost` that keeps all it is told, and checkpoints under `folder`.

    Attributes:
        folder: a temporary folder of the test's.
        stop_after_steps: from that many progress reports on, `should_stop` is true; None: never.
        save_every: a checkpoint is due every that many epochs.
        rank: of the worker; only rank 0 is asked to save.
        steps: `(epoch, step, steps)` of every progress report.
    """

    folder: Path
    stop_after_steps: int | None = None
    save_every: int = 1
    rank: int = 0
    reports: list[Report] = field(default_factory=list)
    steps: list[tuple[int, int, int]] = field(default_factory=list)
    weights: list[Path] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)
    best: Path | None = None
    warnings: list[str] = field(default_factory=list)

    def report(self, epoch: int, metrics: Mapping[str, float], save: Callable[[Path], None] | None) -> None:
        """Raises PluginError where epochs do not follow one another."""
        if self.reports and epoch != self.reports[-1].epoch + 1:
            raise PluginError(f"Epoch {epoch} was reported after epoch {self.reports[-1].epoch}.")
        checkpoint = None
        if save is not None and self.rank == 0 and epoch % self.save_every == 0:
            checkpoint = self.folder / "checkpoints" / f"epoch-{epoch}"
            checkpoint.mkdir(parents=True)
            save(checkpoint)
        self.reports.append(Report(epoch, dict(metrics), checkpoint))

    def progress(self, epoch: int, step: int, steps: int, metrics: Mapping[str, float]) -> None:
        self.steps.append((epoch, step, steps))

    def should_stop(self) -> bool:
        return self.stop_after_steps is not None and len(self.steps) >= self.stop_after_steps

    def keep_weights(self, path: Path) -> None:
        self.weights.append(self._kept(path, "weights", path.name))

    def keep_file(self, path: Path, name: str) -> None:
        self.files[name] = self._kept(path, "files", name)

    def publish_best(self, path: Path) -> None:
        self.best = self._kept(path, "best", path.name)

    def warn(self, message: str) -> None:
        self.warnings.append(message)

    def resume(self) -> Resume:
        """The last checkpoint as a later attempt is given it: a copy of its own.

        Raises:
            PluginError: the adapter has saved none.
        """
        for report in reversed(self.reports):
            if report.checkpoint is not None:
                copy = self.folder / "resume"
                shutil.rmtree(copy, ignore_errors=True)
                shutil.copytree(report.checkpoint, copy)
                return Resume(copy, report.epoch, report.metrics)
        raise PluginError("The adapter has saved no checkpoint.", "Pass save=self.save_checkpoint to context.report.")

    def _kept(self, path: Path, kind: str, name: str) -> Path:
        target = self.folder / kind / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        return target


def run_adapter(adapter_class: type[TrainingAdapter], context: TrainingContext) -> Mapping[str, float]:
    """Call the steps in the host's order; the final metrics, none where the run was stopped before its end."""
    adapter = adapter_class(context)
    adapter.load_data()
    adapter.load_model()
    adapter.train()
    host = context.host
    finished = not isinstance(host, RecordingHost) or bool(host.reports and host.reports[-1].epoch >= context.epochs)
    if context.should_stop and not finished:
        return {}
    return {name: float(value) for name, value in adapter.validate().items()}
