"""A job of a server, watched to its end."""

from __future__ import annotations

import re
import sys
from contextlib import closing, suppress
from typing import Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from eagleray.cli.curves import labelled
from eagleray.cli.display import Display, Event, JsonDisplay, LineDisplay, chosen_metrics, step_of
from eagleray.cli.output import print_json_line, summary_lines, while_it_is_read
from eagleray.client import Client
from eagleray.contract.errors import TrainingError

# What a worker printed may hold control sequences, and a terminal would obey them.
_CONTROL = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")
CURVES = 3


def harmless(text: str) -> str:
    """`text` without anything that a terminal acts on."""
    return _CONTROL.sub("", text)


class CurvesDisplay:
    """The figures of every epoch as curves, with the newest state above them."""

    def __init__(self, *, verbose: bool = False) -> None:
        self._console = Console()
        self._lines = LineDisplay(verbose=verbose)
        self._points: dict[str, dict[int, float]] = {}
        self._best_metric = ""
        self._state = ""
        self._live = Live(Text(""), console=self._console, refresh_per_second=4)
        self._live.start()

    def close(self) -> None:
        self._live.stop()

    def __call__(self, event: Event) -> None:
        if event["event"] == "progress":
            with suppress(KeyError):  # of another release
                self._state = step_of(event)
        elif text := self._lines.line(event):
            if event["event"] == "epoch":
                self._take(event)
                self._state = text
            else:
                self._console.print(Text(harmless(text)))
        self._live.update(self.picture())

    def _take(self, event: Event) -> None:
        self._best_metric = event["best"]["metric"]
        for name, value in event["metrics"].items():
            self._points.setdefault(name, {})[event["epoch"]] = float(value)

    def picture(self) -> Group:
        newest = {name: points[max(points)] for name, points in self._points.items()}
        names = chosen_metrics(newest, self._best_metric)[:CURVES]
        width = max(20, min(self._console.width - 14, 100))
        curves = [line for name in names for line in labelled(name, self._points[name], width)]
        return Group(*(Text(line) for line in curves), Text(harmless(self._state), style="bold"))


def make_follow_display(*, as_json: bool, verbose: bool) -> Display:
    if as_json:
        return JsonDisplay()
    return CurvesDisplay(verbose=verbose) if sys.stdout.isatty() else LineDisplay(verbose=verbose)


def follow(client: Client, job_id: int, *, as_json: bool, verbose: bool) -> None:
    """Show a job's events until it ends; Ctrl-C, and a reader (`| head`) that goes, leave it running.

    Raises:
        TrainingError: it failed.
        typer.Exit: 130 where it was cancelled.
    """
    last_line: str | None = None
    try:
        with closing(make_follow_display(as_json=as_json, verbose=verbose)) as display:
            for event in client.follow(job_id):
                display(shown(event))
                if verbose and event["type"] == "log":
                    last_line = _show_lines(client, job_id, display, last_line)
    except (KeyboardInterrupt, BrokenPipeError):
        note = f"job {job_id} goes on; eagleray jobs follow {job_id}, or: eagleray jobs stop {job_id}"
        print(note, file=sys.stderr, flush=True)
        raise typer.Exit(0) from None
    _conclude(client.job(job_id), as_json=as_json)


def shown(event: dict[str, Any]) -> Event:
    """A server's event as the display knows it."""
    data = dict(event["data"])
    if event["type"] == "log":
        return {"event": "lines", **data}
    found = {"event": event["type"], "attempt": event["attempt"], "time": event["time"], **data}
    if event["type"] == "epoch":
        found["best"] = {"metric": "", "epoch": 0, "value": None} | (found.get("best") or {})
        found["metrics"] = {name: float(value) for name, value in found.get("metrics", {}).items()}
    if event["type"] == "phase":
        found.setdefault("message", found.get("reason", ""))
    return found


def _show_lines(client: Client, job_id: int, display: Display, after: str | None) -> str | None:
    for line in client.logs(job_id, after=after, tail=20 if after is None else None):
        display({"event": "log", "rank": line["rank"], "lines": [harmless(line["text"])]})
        after = str(line["id"])
    return after


def _conclude(job: dict[str, Any], *, as_json: bool) -> None:
    with while_it_is_read():
        if as_json:
            print_json_line({"event": "summary", **job})
        else:
            print("\n".join(summary_lines(job)))
    if job["status"] == "failed":
        raise TrainingError(
            f"Job {job['id']} failed: {job['error_message'] or 'no reason was given'}",
            job.get("hint") or f"Its log: eagleray jobs logs {job['id']}",
        )
    if job["status"] == "cancelled":
        raise typer.Exit(130)
