"""How an attempt ended, by its record in the store, where its driver could not tell us."""

from __future__ import annotations

from eagleray.contract.errors import EaglerayError
from eagleray.contract.failures import FailureKind
from eagleray.control.lifecycle import FACTS, Ending
from eagleray.execution.failures import Failure
from eagleray.jobs.phases import Phase
from eagleray.jobs.records import JobRecords
from eagleray.storage.store import Store


def stored_ending(store: Store, job_id: int, number: int) -> Ending | None:
    """None: the store does not know either."""
    try:
        record = JobRecords(store).load(job_id)
    except EaglerayError:
        return None
    attempt = next((attempt for attempt in record.attempts if attempt.number == number), None)
    if attempt is None or attempt.outcome is None or not record.phase.is_terminal:
        return None
    facts = record.model_dump(mode="json", include=set(FACTS))
    # Before the run began these were not known there.
    facts = {name: value for name, value in facts.items() if value != ""}
    if record.phase is Phase.COMPLETED:
        return Ending("completed", facts=facts)
    if record.phase is Phase.CANCELLED:
        return Ending("stopped", facts=facts)
    kinds = {kind.value for kind in FailureKind}
    kind = FailureKind(attempt.outcome) if attempt.outcome in kinds else FailureKind.WORKER_LOST
    return Ending("failed", Failure(kind, attempt.message or record.error_message or "It failed."), facts)
