"""What drivers tell, written down once each: events in, rows out."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from eagleray.contract.failures import FailureKind
from eagleray.control.commands import Plain
from eagleray.control.errors import FencedError
from eagleray.control.lifecycle import ENDED, FACTS, REGISTERED, RUNNING, Ending, finish
from eagleray.control.rows import AttemptRow, JobRow
from eagleray.control.settings import ControlSettings
from eagleray.control.writing import Transaction
from eagleray.execution.failures import Failure
from eagleray.jobs.phases import TRANSITIONS, Phase

MAX_LINE = 10_000
# Lone surrogates (a file's name in another encoding) and NUL, which databases and JSON readers refuse.
_UNKEEPABLE = re.compile("[\0\ud800-\udfff]")


def record(
    transaction: Transaction, settings: ControlSettings, job_id: int, number: int, events: Sequence[Plain]
) -> int:
    """Apply the events that are new; the highest `seq` kept. Raises FencedError."""
    job = JobRow.load(transaction, job_id)
    attempt = AttemptRow.load(transaction, job_id, number)
    last = max((int(event["seq"]) for event in events), default=0)
    if last and last <= attempt["last_seq"]:
        return int(attempt["last_seq"])  # its acknowledgement was lost
    check_current(job, attempt)
    attempt["last_seen_at"] = transaction.now
    attempt["lease_until"] = transaction.now + timedelta(seconds=settings.lease_s)
    recorder = _Recorder(job, attempt, settings)
    for event in scrubbed(events):
        if int(event["seq"]) > attempt["last_seq"]:
            recorder.take(event)
            attempt["last_seq"] = int(event["seq"])
    attempt.save()
    job.save()
    return int(attempt["last_seq"])


def scrubbed(value: Any) -> Any:
    """`value` with U+FFFD in place of every character that cannot be kept."""
    return value if _is_keepable(value) else _scrub(value)


def _is_keepable(value: Any) -> bool:
    """Whether there is nothing to scrub, by an encoder in C: a tenth of the time of looking at every value."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError):
        return False
    return "\\u0000" not in text and (text.isascii() or _UNKEEPABLE.search(text) is None)


def _scrub(value: Any) -> Any:
    if isinstance(value, str):
        return _UNKEEPABLE.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, Mapping):
        return {_scrub(key): _scrub(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(_scrub, value))
    return value


def check_current(job: JobRow, attempt: AttemptRow) -> None:
    """Raises FencedError where `attempt` speaks for a job that has gone on without it."""
    if attempt["number"] == job["current_attempt"] and attempt["state"] != ENDED:
        return
    number, newest = attempt["number"], job["current_attempt"]
    why = f"attempt {newest} has taken its place" if newest != number else f"it is over ({attempt['outcome']})"
    raise FencedError(f"Attempt {number} of job {job['id']} may say nothing more: {why}.", "Its driver ends now.")


class _Recorder:
    def __init__(self, job: JobRow, attempt: AttemptRow, settings: ControlSettings) -> None:
        self._job = job
        self._attempt = attempt
        self._settings = settings
        self._by_type: Mapping[str, Callable[[Plain], None]] = {
            "phase": self._phase,
            "attempt": self._started,
            "facts": self._facts,
            "worker": self._worker,
            "epoch": self._epoch,
            "progress": self._progress,
            "log": self._log,
            "checkpoint": self._checkpoint,
            "warning": lambda event: self._job.warn(str(event["message"])),
            "finished": self._finished,
            "heartbeat": lambda event: None,
        }

    def take(self, event: Plain) -> None:
        # A newer driver may know more types than this release.
        self._by_type.get(str(event["type"]), self._other)(event)

    def _note(self, event: Plain) -> None:
        data = {name: value for name, value in event.items() if name not in ("seq", "type")}
        self._job.event(str(event["type"]), data, self._attempt["number"])

    def _other(self, event: Plain) -> None:
        self._note(event)

    def _phase(self, event: Plain) -> None:
        if self._attempt["state"] not in (RUNNING, REGISTERED):
            self._attempt["state"], self._attempt["started_at"] = RUNNING, self._job.transaction.now
        job = self._job
        if event["phase"] not in {phase.value for phase in Phase}:
            self._note(event)
            return
        phase = Phase(event["phase"])
        message = str(event.get("message", ""))
        if phase in (Phase.RUNNING, Phase.STOPPING) and phase in TRANSITIONS[job.phase]:
            job.advance(phase, message)
        elif phase is job.phase and message and message != job["reason"]:
            job["reason"] = message
            self._note(event)

    def _started(self, event: Plain) -> None:
        resumed_from = event.get("resumed_from_epoch")
        self._attempt["resumed_from_epoch"] = resumed_from
        self._job["epochs_done"] = int(resumed_from or 0)
        self._job["resumable"] = bool(resumed_from)
        self._job["progress"] = None
        for row in event.get("saved") or []:
            self._keep(int(row["epoch"]), row["metrics"], int(event["saved_by_attempt"]))
        self._note({name: value for name, value in event.items() if not name.startswith("saved")})

    def _facts(self, event: Plain) -> None:
        for name in FACTS & event.keys():
            self._job[name] = event[name]

    def _worker(self, event: Plain) -> None:
        if event.get("rank") == 0 and event.get("node"):
            self._attempt["node_id"] = event["node"]
        self._note(event)

    def _epoch(self, event: Plain) -> None:
        job, epoch = self._job, int(event["epoch"])
        metrics = self._keep(epoch, event["metrics"], self._attempt["number"])
        job["epochs_done"], job["metrics"], job["progress"] = epoch, metrics, None
        best = event.get("best") or {}
        if best.get("value") is not None:
            job["best"] = best
        self._note(event)

    def _keep(self, epoch: int, given: Mapping[str, Any], attempt: int) -> dict[str, float]:
        metrics = {str(key): float(value) for key, value in given.items()}
        for key, value in metrics.items():
            self._job.transaction.metrics.append(
                {
                    "job_id": self._job["id"],
                    "key": key,
                    "epoch": epoch,
                    "value": None if math.isnan(value) else value,
                    "attempt": attempt,
                    "time": self._job.transaction.now,
                }
            )
        return metrics

    def _progress(self, event: Plain) -> None:
        names = ("epoch", "epochs", "step", "steps", "metrics")
        self._job["progress"] = {name: event[name] for name in names if name in event}
        self._note(event)

    def _log(self, event: Plain) -> None:
        lines = [str(line)[:MAX_LINE] for line in event["lines"]]
        limit = self._settings.log_bytes
        kept = 0
        for line in lines:
            if self._attempt["log_bytes"] > limit:
                break
            self._attempt["log_bytes"] = self._attempt["log_bytes"] + len(line) + 64
            if self._attempt["log_bytes"] > limit:
                line = "… more lines are in the log file in the store only"
            kept += 1
            self._job.transaction.lines.append(
                {
                    "job_id": self._job["id"],
                    "attempt": self._attempt["number"],
                    "rank": int(event["rank"]),
                    "time": self._job.transaction.now,
                    "text": line,
                }
            )
        if kept:
            self._job.event("log", {"rank": int(event["rank"]), "lines": kept}, self._attempt["number"])

    def _checkpoint(self, event: Plain) -> None:
        self._job["resumable"] = True
        # A new checkpoint is progress, and progress buys new patience.
        self._job["failure_counts"] = {}
        self._note(event)

    def _finished(self, event: Plain) -> None:
        failure = event.get("failure")
        ending = Ending(str(event["outcome"]), failure_of(failure) if failure else None, dict(event.get("facts") or {}))
        finish(self._job, self._attempt, ending)


def failure_of(facts: Mapping[str, Any]) -> Failure:
    """A failure that has crossed the border; kinds of a newer driver count as the plugin's."""
    kinds = {kind.value for kind in FailureKind}
    kind = FailureKind(facts["kind"]) if facts.get("kind") in kinds else FailureKind.PLUGIN
    texts = {name: str(facts.get(name) or "") for name in ("message", "hint", "error", "traceback", "node")}
    return Failure(kind, **texts)
