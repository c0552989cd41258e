"""A job goes only where the table leads."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from eagleray.jobs.phases import TRANSITIONS, IllegalPhaseError, JobStatus, Phase, advance, resume

LEGAL = [(a, b) for a in Phase for b in TRANSITIONS[a] if not a.is_terminal]
ILLEGAL = [(a, b) for a in Phase for b in Phase if (a, b) not in LEGAL]


def test_every_phase_stands_in_the_table() -> None:
    assert set(TRANSITIONS) == set(Phase)


@pytest.mark.parametrize(
    ("status", "phases"),
    [
        (JobStatus.PENDING, {Phase.CREATED, Phase.QUEUED, Phase.PREPARING}),
        (JobStatus.RUNNING, {Phase.RUNNING, Phase.STOPPING}),
        (JobStatus.COMPLETED, {Phase.COMPLETED}),
        (JobStatus.FAILED, {Phase.FAILED}),
        (JobStatus.CANCELLED, {Phase.CANCELLED}),
    ],
)
def test_a_status_covers_its_phases(status: JobStatus, phases: set[Phase]) -> None:
    assert {phase for phase in Phase if phase.status is status} == phases


def test_the_usual_way_leads_to_completed() -> None:
    phase = Phase.CREATED
    for following in (Phase.QUEUED, Phase.PREPARING, Phase.RUNNING, Phase.COMPLETED):
        phase = advance(phase, following)
    assert phase.is_terminal


def test_a_graceful_stop_ends_cancelled_and_can_be_resumed() -> None:
    phase = advance(advance(Phase.RUNNING, Phase.STOPPING), Phase.CANCELLED)
    assert resume(phase) is Phase.QUEUED


@pytest.mark.parametrize("phase", [phase for phase in Phase if not phase.is_terminal])
def test_whatever_is_not_finished_can_fail_or_be_cancelled_but_not_resumed(phase: Phase) -> None:
    assert advance(phase, Phase.FAILED) is Phase.FAILED
    assert advance(phase, Phase.CANCELLED) is Phase.CANCELLED
    with pytest.raises(IllegalPhaseError, match="cannot be resumed"):
        resume(phase)


@pytest.mark.parametrize(("current", "following"), ILLEGAL)
def test_anything_else_is_refused_by_name(current: Phase, following: Phase) -> None:
    with pytest.raises(IllegalPhaseError) as caught:
        advance(current, following)
    assert current.value in caught.value.message
    assert following.value in caught.value.message
    assert caught.value.hint


def test_only_a_run_that_was_under_way_completes() -> None:
    assert {a for a in Phase if Phase.COMPLETED in TRANSITIONS[a]} == {Phase.RUNNING, Phase.STOPPING}


class JobLife(RuleBasedStateMachine):
    """Any sequence of requests, legal or not: the phase changes only as the table says."""

    def __init__(self) -> None:
        super().__init__()
        self.phase = Phase.CREATED
        self.ran_since_queued = False

    @rule(following=st.sampled_from(Phase))
    def ask(self, following: Phase) -> None:
        before = self.phase
        try:
            self.phase = advance(before, following)
        except IllegalPhaseError:
            assert before.is_terminal or following not in TRANSITIONS[before]
            return
        assert not before.is_terminal
        if following is Phase.COMPLETED:
            assert self.ran_since_queued
        self.ran_since_queued = following in (Phase.RUNNING, Phase.STOPPING)

    @precondition(lambda self: self.phase.is_terminal)
    @rule()
    def resume(self) -> None:
        self.phase = resume(self.phase)
        assert self.phase.status is JobStatus.PENDING
        self.ran_since_queued = False

    @invariant()
    def a_terminal_phase_names_its_status(self) -> None:
        assert self.phase.is_terminal == (self.phase.value == self.phase.status.value and self.phase != Phase.RUNNING)


TestJobLife = JobLife.TestCase
