"""The control plane killed at any arrow, in any order: a state machine of hypothesis over a simulated cluster.

Invariants (facts of the fault table): I1 every job that was acknowledged ends in exactly one terminal phase and each
attempt runs once; I3 an attempt resumes at the last committed checkpoint, and the epochs are all there at the end;
I7 what was acknowledged of metrics is there, once.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Stage
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from eagleray.contract.errors import EaglerayError
from eagleray.contract.failures import FailureKind
from eagleray.control.commands import SYSTEM
from eagleray.control.errors import FencedError
from eagleray.control.executor import RunState
from eagleray.jobs.phases import Phase
from eagleray.storage import failpoints

from .conftest import Driver, House

EPOCHS = 3
ARROWS = ("control.before_commit", "control.after_commit", "control.before_submit", "control.after_submit")
MORE_ARROWS = ("control.before_stop", "control.after_stop")


class SimulatedDriver:
    """A driver that outlives control planes: trains epoch by epoch and resends what was not acknowledged."""

    def __init__(self, house: House, submission: str, checkpoint: int) -> None:
        job_id, _, number = submission.partition("-")
        self.line = Driver(house, int(job_id), int(number))
        self.submission = submission
        self.epoch = checkpoint
        self.unsent: list[dict[str, object]] = [
            {"type": "phase", "phase": "running", "message": ""},
            {"type": "attempt", "attempt": int(number), "resumed_from_epoch": checkpoint or None},
        ]
        self.over = False

    def train(self) -> None:
        if self.epoch < EPOCHS:
            self.epoch += 1
            metrics = {"type": "epoch", "epoch": self.epoch, "metrics": {"loss": float(self.epoch)}, "best": {}}
            self.unsent += [metrics, {"type": "checkpoint", "epoch": self.epoch, "best": False}]
        if self.epoch == EPOCHS:
            self.end("completed")

    def end(self, outcome: str, kind: FailureKind | None = None) -> None:
        failure = {"kind": kind.value, "message": "why"} if kind else None
        self.unsent.append({"type": "finished", "outcome": outcome, "failure": failure})
        self.over = True


class ControlPlaneMachine(RuleBasedStateMachine):
    jobs = Bundle("jobs")

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.patch = pytest.MonkeyPatch()
        self.house = House(Path(self.folder.name))
        self.house.start()
        self.drivers: dict[str, SimulatedDriver] = {}
        self.checkpoints: dict[int, int] = {}
        self.acknowledged: set[int] = set()
        self.terminal: dict[int, Phase] = {}
        self.restarted: set[int] = set()

    def teardown(self) -> None:
        self.house.executor.away = False
        self._settle()
        self.house.close()
        self.patch.undo()
        self.folder.cleanup()

    @rule(target=jobs, priority=st.integers(-1, 1), failures=st.integers(0, 1))
    def create(self, priority: int, failures: int) -> object:
        job_id = self.house.create(priority=priority, epochs=EPOCHS, max_failures=failures)
        self.acknowledged.add(job_id)
        return job_id

    @rule()
    def tick(self) -> None:
        self._guarded(lambda: self.house.tick())

    @rule(arrow=st.sampled_from((*ARROWS, *MORE_ARROWS)))
    def crash_at(self, arrow: str) -> None:
        """The next time the control plane gets there it dies; another one starts over the same rows."""
        self.patch.setenv(failpoints.ENVIRONMENT_VARIABLE, f"{arrow}:raise")
        self._guarded(lambda: self.house.tick())
        self.patch.delenv(failpoints.ENVIRONMENT_VARIABLE)
        self.house.restart()

    @rule()
    def restart(self) -> None:
        self.house.restart()

    @rule(data=st.data())
    def train(self, data: st.DataObject) -> None:
        running = [driver for driver in self._drivers() if not driver.over]
        if running:
            driver = data.draw(st.sampled_from(running))
            driver.train()
            self.checkpoints[driver.line.job_id] = driver.epoch
            self._talk(driver)

    @rule(data=st.data(), kind=st.sampled_from([FailureKind.WORKER_LOST, FailureKind.PREEMPTION, FailureKind.DATA]))
    def fail(self, data: st.DataObject, kind: FailureKind) -> None:
        running = [driver for driver in self._drivers() if not driver.over]
        if running:
            driver = data.draw(st.sampled_from(running))
            driver.end("failed", kind)
            self._talk(driver)

    @rule(data=st.data())
    def die_silently(self, data: st.DataObject) -> None:
        if self.drivers:
            driver = data.draw(st.sampled_from(sorted(self._drivers(), key=lambda driver: driver.submission)))
            self._gone(driver)

    @rule()
    def restart_head(self) -> None:
        # A run that ended with the head before anyone heard of it, or wrote it down, may run again under its name.
        unheard = [
            attempt.submission_id
            for job_id in self.acknowledged
            for attempt in self.house.queries.attempts(job_id)
            if attempt.last_seen_at is None
        ]
        for name in unheard:
            self.house.executor.starts.pop(name, None)
        self.house.executor.restart_head()
        self.drivers.clear()

    @rule(away=st.booleans())
    def reach(self, away: bool) -> None:
        self.house.executor.away = away

    @rule(seconds=st.sampled_from([1, 50, 1000]))
    def pass_time(self, seconds: int) -> None:
        self.house.clock.pass_s(seconds)

    @rule(job_id=jobs)
    def stop(self, job_id: int) -> None:
        self._command(lambda: self.house.plane.stop_job(SYSTEM, job_id))

    @rule(job_id=jobs)
    def cancel(self, job_id: int) -> None:
        self._command(lambda: self.house.plane.cancel_job(SYSTEM, job_id))

    @rule(job_id=consumes(jobs))
    def resume(self, job_id: int) -> None:
        def resume() -> None:
            self.house.plane.resume_job(SYSTEM, job_id)
            self.terminal.pop(job_id, None)

        self._command(resume)

    @invariant()
    def each_attempt_runs_once(self) -> None:
        assert all(count == 1 for count in self.house.executor.starts.values()), self.house.executor.starts

    @invariant()
    def at_most_one_driver_of_a_job(self) -> None:
        alive = [
            name.partition("-")[0] for name, run in self.house.executor.runs.items() if run.state is RunState.RUNNING
        ]
        assert len(alive) == len(set(alive)), alive

    @invariant()
    def an_end_is_final(self) -> None:
        for job_id in self.acknowledged:
            phase = self.house.job(job_id).phase
            if job_id in self.terminal:
                assert phase is self.terminal[job_id]
            elif phase.is_terminal:
                self.terminal[job_id] = phase

    @precondition(lambda self: bool(self.acknowledged))
    @invariant()
    def acknowledged_metrics_are_there_once(self) -> None:
        for job_id in self.acknowledged:
            epochs = [point.epoch for point in self.house.queries.metrics(job_id)]
            assert epochs == sorted(set(epochs))
            assert len(epochs) >= self.house.job(job_id).epochs_done

    def _drivers(self) -> list[SimulatedDriver]:
        """Those of runs that Ray has, stopping ones included; new ones start where the last checkpoint is."""
        for name, run in self.house.executor.runs.items():
            if run.state is RunState.RUNNING and name not in self.drivers:
                self.drivers[name] = SimulatedDriver(self.house, name, self.checkpoints.get(int(name.split("-")[0]), 0))
        for name in self.house.executor.stops:
            driver = self.drivers.get(name)
            if driver and not driver.over:
                driver.end("stopped")
        return list(self.drivers.values())

    def _talk(self, driver: SimulatedDriver) -> None:
        try:
            while driver.unsent:
                driver.line.say(driver.unsent[0])
                driver.unsent.pop(0)
        except FencedError:
            self._gone(driver)
        except EaglerayError:
            driver.line.seq -= 1

    def _gone(self, driver: SimulatedDriver) -> None:
        self.house.executor.ended(driver.submission, "gone")
        self.drivers.pop(driver.submission, None)

    def _command(self, command: object) -> None:
        assert callable(command)
        try:
            command()
        except EaglerayError:
            pass

    def _guarded(self, work: object) -> None:
        assert callable(work)
        try:
            work()
        except failpoints.FailpointReached:
            pass

    def _settle(self) -> None:
        """Left alone, with a cluster that answers, every job comes to its end."""
        for _ in range(60):
            self.house.clock.pass_s(120)
            self.house.tick(2)
            for driver in self._drivers():
                if not driver.over:
                    driver.train()
                    self.checkpoints[driver.line.job_id] = driver.epoch
                self._talk(driver)
                if driver.over:
                    self._gone(driver)
            if all(self.house.job(job_id).phase.is_terminal for job_id in self.acknowledged):
                break
        for job_id in self.acknowledged:
            view = self.house.job(job_id)
            assert view.phase.is_terminal, (view.phase, view.reason, self.house.queries.attempts(job_id))
            if view.phase is Phase.COMPLETED:
                assert [point.epoch for point in self.house.queries.metrics(job_id)] == list(range(1, EPOCHS + 1))
            for attempt in self.house.queries.attempts(job_id):
                if attempt.resumed_from_epoch is not None:
                    assert attempt.resumed_from_epoch <= EPOCHS
        self.each_attempt_runs_once()


ControlPlaneMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    # Every step writes a database, so making a failure smaller would take longer than reading it.
    phases=(Stage.explicit, Stage.reuse, Stage.generate),
)
TestControlPlane = ControlPlaneMachine.TestCase
