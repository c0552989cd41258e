"""What a person, or a machine, sees of a running job."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from eagleray.cli.output import json_text

Event = dict[str, Any]
# Figures shown beside the epoch; all of them stand in metrics.jsonl.
MAX_COLUMNS = 5


class Display(Protocol):
    def __call__(self, event: Event) -> None: ...

    def close(self) -> None: ...


class JsonDisplay:
    """One JSON object a line on stdout, and nothing else: what Ray prints by itself goes to stderr meanwhile."""

    def __init__(self) -> None:
        sys.stdout.flush()
        self._own = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def __call__(self, event: Event) -> None:
        self._own.write(json_text(event) + "\n")
        self._own.flush()

    def close(self) -> None:
        sys.stdout.flush()
        os.dup2(self._own.fileno(), 1)
        # What its reader (`| head`) did not wait for.
        with suppress(BrokenPipeError):
            self._own.close()


def chosen_metrics(metrics: dict[str, float], best_metric: str) -> list[str]:
    """The few figures worth a column: the one that chooses `best`, then losses and the first others."""
    names = [best_metric] if best_metric in metrics else []
    rest = [name for name in metrics if name not in names and not name.startswith("lr")]
    names += sorted(rest, key=lambda name: "loss" not in name)
    return names[:MAX_COLUMNS]


def duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole}s" if whole < 60 else f"{whole // 60}m{whole % 60:02d}s"


def step_of(event: Event) -> str:
    return f"epoch {event['epoch']}/{event['epochs']}  step {event['step']}/{event['steps']}"


class LineDisplay:
    """Plain lines, for logs and pipes."""

    def __init__(self, *, verbose: bool = False) -> None:
        self._verbose = verbose
        self._epoch_seconds: deque[float] = deque(maxlen=5)
        self._last_step = 0.0
        self._by_type: Mapping[str, Callable[[Event], str]] = {
            "job": self._job,
            "phase": self._phase,
            "environment": self._environment,
            "attempt": self._attempt,
            "warning": self._warning,
            "log": self._log,
            "progress": self._progress,
            "epoch": self._epoch,
        }

    def close(self) -> None:
        return None

    def __call__(self, event: Event) -> None:
        text = self.line(event)
        if text:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def line(self, event: Event) -> str:
        """What there is to say of `event`; nothing where it is of another release and lacks what is shown here."""
        show = self._by_type.get(str(event["event"]))
        try:
            return show(event) if show else ""
        except KeyError:
            return ""

    def _job(self, event: Event) -> str:
        counts = event["dataset"]
        return (
            f"job {event['job_id']}{' (resumed)' if event['resumed'] else ''}: {event['framework']} {event['model']}, "
            f"{event['task']}, {event['epochs']} epochs\n"
            f"dataset: {counts['images']} images, {counts['annotations']} annotations"
        )

    def _phase(self, event: Event) -> str:
        return f"{event['phase']}" + (f": {event['message']}" if event.get("message") else "")

    def _environment(self, event: Event) -> str:
        return f"  environment: {event['line']}"

    def _attempt(self, event: Event) -> str:
        if event["resumed_from_epoch"]:
            return f"attempt {event['attempt']}: continues after epoch {event['resumed_from_epoch']}"
        return "" if event["attempt"] == 1 else f"attempt {event['attempt']}: starts from the beginning"

    def _warning(self, event: Event) -> str:
        return f"warning: {event['message']}"

    def _log(self, event: Event) -> str:
        return "\n".join(f"  [worker {event['rank']}] {line}" for line in event["lines"]) if self._verbose else ""

    def _progress(self, event: Event) -> str:
        if time.monotonic() - self._last_step < 10:
            return ""
        self._last_step = time.monotonic()
        return f"  {step_of(event)}"

    def _epoch(self, event: Event) -> str:
        self._epoch_seconds.append(event["seconds"])
        self._last_step = time.monotonic()
        left = (event["epochs"] - event["epoch"]) * sum(self._epoch_seconds) / len(self._epoch_seconds)
        figures = "  ".join(
            f"{name} {event['metrics'][name]:.4g}" for name in chosen_metrics(event["metrics"], event["best"]["metric"])
        )
        star = " *best" if event["best"]["epoch"] == event["epoch"] else ""
        eta = f"  ETA {duration(left)}" if left else ""
        return f"epoch {event['epoch']}/{event['epochs']}  {duration(event['seconds'])}  {figures}{star}{eta}"


class LiveDisplay:
    """A live table of epochs with a progress bar, on a terminal."""

    def __init__(self, *, verbose: bool = False) -> None:
        self._console = Console()
        self._lines = LineDisplay(verbose=verbose)
        self._epochs: deque[Event] = deque(maxlen=15)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._total = self._progress.add_task("epochs", total=None)
        self._step = self._progress.add_task("steps", total=None)
        self._live = Live(Text(""), console=self._console, refresh_per_second=4)
        self._live.start()

    def close(self) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        kind = event["event"]
        if kind == "progress":
            self._progress.update(self._step, completed=event["step"], total=event["steps"])
        elif kind == "epoch":
            self._epochs.append(event)
            self._progress.update(self._total, completed=event["epoch"], total=event["epochs"])
        elif text := self._lines.line(event):
            self._console.print(Text(text))
        self._live.update(Group(self._table(), self._progress) if self._epochs or kind == "progress" else Text(""))

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False)
        table.add_column("epoch", justify="right")
        table.add_column("time", justify="right")
        if not self._epochs:
            return table
        names = chosen_metrics(self._epochs[-1]["metrics"], self._epochs[-1]["best"]["metric"])
        for name in names:
            table.add_column(name, justify="right")
        for event in self._epochs:
            best = event["best"]["epoch"] == event["epoch"]
            cells = [f"{event['metrics'][name]:.4g}" if name in event["metrics"] else "" for name in names]
            table.add_row(
                f"{event['epoch']}/{event['epochs']}",
                duration(event["seconds"]),
                *cells,
                style="bold green" if best else None,
            )
        return table


def make_display(*, as_json: bool, verbose: bool) -> Display:
    if as_json:
        return JsonDisplay()
    return LiveDisplay(verbose=verbose) if sys.stdout.isatty() else LineDisplay(verbose=verbose)
