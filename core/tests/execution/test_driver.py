"""A job's driver from its start to its end, with Ray, the environment and the workers faked."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from eagleray.contract.errors import CheckpointError, TrainingError
from eagleray.execution import driver as module
from eagleray.execution.cluster import Node
from eagleray.execution.driver import JobDriver
from eagleray.execution.failures import WorkerRaised
from eagleray.execution.trainer import WorkerGroupSpec
from eagleray.jobs.phases import Phase
from eagleray.jobs.plan import JobPlan, plan_job
from eagleray.jobs.records import JobRecord, JobRecords
from eagleray.jobs.run_record import RunRecord
from eagleray.jobs.spec import make_spec
from eagleray.plugins.host import discover
from eagleray.settings import Settings, load_settings
from eagleray.storage.checkpoints import Checkpoints
from eagleray.storage.local import LocalStore
from eagleray.testing.data import write_classification_dataset

Event = dict[str, Any]
DONE = {"stopped": False, "metrics": {"accuracy": 1.0}, "warnings": [], "epoch": 2}
BEST = {"value": None, "epoch": 0, "metric": "accuracy"}


class FakeCluster:
    """Nodes by id; those that are left out do not count."""

    local = False
    driver_node_id, driver_address = "head", "127.0.0.1"

    def __init__(self, *nodes: Node, lacks: str = "") -> None:
        self._nodes = nodes or (Node("a", "10.0.0.1", {"CPU": 2.0}),)
        self._lacks = lacks

    def nodes(self) -> list[Node]:
        return list(self._nodes)

    def check_room(self, gang: Any) -> None: ...

    def fits_without(self, left_out: set[str], gang: Any) -> bool:
        return any(node.node_id not in left_out for node in self._nodes)

    def waits_for(self, gang: Any) -> str:
        return self._lacks


class House:
    """A store, a planned job, and workers whose `fit` each test writes.

    Attributes:
        fits: what each attempt does, in order; the last one goes on.
        groups: what workers each attempt asked for.
        shown: events that reached the display.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        self.settings = settings
        self.store = LocalStore(Path(settings.storage))
        write_classification_dataset(folder / "pictures", images=8, size=16)
        values = {"framework": "echo", "model_name": "echo-linear", "epochs": 2, "batch_size": 4}
        self.spec: dict[str, Any] = {**values, "dataset_path": str(folder / "pictures"), "pretrained": False}
        self.cluster = FakeCluster()
        self.fits: list[Callable[[Any], Any]] = [self.trains]
        self.groups: list[WorkerGroupSpec] = []
        self.shown: list[Event] = []
        self.made: JobDriver | None = None

    def plan(self, **values: Any) -> JobPlan:
        return plan_job(make_spec({**self.spec, **values}), discover(self.settings), self.store)

    def run(self, *, show: Callable[[Event], None] | None = None, **options: Any) -> JobRecord:
        plan = self.plan(resume=options["resumed"].id if options.get("resumed") else None)
        cluster: Any = self.cluster
        self.made = JobDriver(plan, self.store, self.settings, show or self.shown.append, cluster=cluster, **options)
        return self.made.run()

    def fit(self, loop: Any, payload: Any, *, workers: WorkerGroupSpec, on_report: Any, **_: Any) -> Any:
        self.groups.append(workers)
        step = self.fits.pop(0) if len(self.fits) > 1 else self.fits[0]
        return step(on_report)

    def record(self, job_id: int = 1) -> JobRecord:
        return JobRecords(self.store).load(job_id)

    def checkpoint(self, epoch: int, attempt: int = 1) -> None:
        folder = self.settings.home / f"made-{attempt}-{epoch}"
        folder.mkdir(parents=True)
        (folder / "model.pt").write_bytes(b"m")
        facts: dict[str, Any] = {"metrics": {}, "is_best": False, "best_value": None, "best_epoch": None}
        checkpoints = Checkpoints(self.store, "checkpoints/test-jobs/job_1")
        checkpoints.commit(folder, job_id=1, attempt=attempt, epoch=epoch, portable_file="model.pt", **facts)

    def worker_starts(self) -> None:
        assert self.made is not None
        log = str(self.settings.home / "worker.log")
        self.made._receive({"type": "hello", "rank": 0, "pid": 1, "node": "n", "log": log, "inode": [0, 0]})
        self.made._receive({"type": "phase", "phase": "running", "message": "loading data and model"})

    def trains(self, report: Callable[[Mapping[str, Any]], None]) -> Any:
        """One epoch, to the end."""
        self.worker_starts()
        report({"epoch": 1, "metrics": {"loss": 1.0}, "best": BEST, "seconds": 1.0})
        return DONE

    def messages(self) -> list[str]:
        return [event["message"] for event in self.shown if event["event"] in ("phase", "warning")]


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setenv("EAGLERAY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("EAGLERAY_STORAGE", str(tmp_path / "store"))
    made = House(tmp_path, load_settings())
    monkeypatch.setattr(module, "prepare_nodes", lambda *_: "/env/bin/python")
    monkeypatch.setattr(module, "check_nodes", lambda *_: None)
    monkeypatch.setattr(module, "settle", lambda *_, **__: None)
    monkeypatch.setattr(module, "fit", made.fit)
    return made


def fails(error: str, message: str, *, node: str = "", hint: str = "") -> Callable[[Any], Any]:
    def fit(report: Any) -> Any:
        raise WorkerRaised.of(error=error, message=message, hint=hint, node=node)

    return fit


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


class Watching:
    """Callbacks that remember what was called, and can do something at the end."""

    def __init__(self, at_end: Callable[[], None] = lambda: None) -> None:
        self.calls: list[str] = []
        self._at_end = at_end

    def on_train_begin(self, run: Any) -> None:
        self.calls.append("begin")

    def on_epoch_end(self, run: Any, epoch: int, metrics: Mapping[str, float]) -> None:
        self.calls.append(f"epoch {epoch}")

    def on_train_end(self, run: Any, status: str, metrics: Mapping[str, float]) -> None:
        self.calls.append(f"end {status}")
        self._at_end()


def test_a_display_that_is_gone_ends_no_job_and_silences_no_callback(house: House) -> None:
    def broken(event: Event) -> None:
        raise BrokenPipeError

    watching = Watching()
    record = house.run(show=broken, callbacks=[watching])
    assert (record.phase, house.record().phase) == (Phase.COMPLETED, Phase.COMPLETED)
    assert watching.calls == ["begin", "epoch 1", "end completed"]


def test_callbacks_run_in_the_driver_and_none_can_end_a_run(house: House) -> None:
    """C20"""

    class Raising:
        processes: list[int] = []

        def __getattr__(self, hook: str) -> Callable[..., None]:
            def raises(*_: Any) -> None:
                self.processes.append(os.getpid())
                raise RuntimeError(hook)

            return raises

    raising, watching = Raising(), Watching()
    record = house.run(callbacks=[raising, watching])
    assert record.phase is Phase.COMPLETED
    assert watching.calls == ["begin", "epoch 1", "end completed"]
    assert raising.processes == [os.getpid()] * 3
    said = [message for message in house.messages() if "Raising." in message]
    assert [message.split()[0] for message in said[:2]] == ["Raising.on_train_begin", "Raising.on_epoch_end"]


def test_ctrl_c_after_the_end_only_cuts_short_what_follows(house: House) -> None:
    watching = Watching(at_end=interrupt)
    record = house.run(callbacks=[watching])
    assert (record.phase, house.record().phase) == (Phase.COMPLETED, Phase.COMPLETED)


def test_ctrl_c_during_the_last_flush_leaves_the_job_completed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RunRecord, "flush", lambda *_: interrupt())
    assert house.run().phase is Phase.COMPLETED


def test_a_stop_between_attempts_begins_no_other(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    def settle(*_: Any, stopping: Callable[[], bool], **__: Any) -> None:
        interrupt()
        assert stopping()

    monkeypatch.setattr(module, "settle", settle)
    # Even where there would have been no other: it is what was asked for, not a failure.
    house.spec["max_failures"] = 0
    house.fits = [fails("OSError", "Connection reset by peer")]
    record = house.run()
    assert (record.phase, len(record.attempts)) == (Phase.CANCELLED, 1)


def test_a_stop_during_the_wait_for_the_next_attempt_begins_none(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JobDriver, "_wait", lambda *_: interrupt())
    house.fits = [fails("OSError", "Connection reset by peer")]
    record = house.run()
    assert (record.phase, len(record.attempts)) == (Phase.CANCELLED, 1)


def test_a_job_that_waits_for_room_says_so_and_stops_at_once(house: House) -> None:
    house.cluster = FakeCluster(lacks="waits for room: 1 worker(s)")

    def never(report: Any) -> Any:
        interrupt()
        threading.Event().wait(60)

    house.fits = [never]
    started = time.monotonic()
    record = house.run()
    assert time.monotonic() - started < 10
    assert (record.phase, record.attempts[0].outcome) == (Phase.CANCELLED, "stopped")
    assert "waits for room: 1 worker(s)" in house.messages()


def test_a_second_ctrl_c_ends_the_attempt_as_cancelled(house: House) -> None:
    def train(report: Any) -> Any:
        house.worker_starts()
        interrupt()
        time.sleep(0.1)
        interrupt()
        threading.Event().wait(60)

    house.fits = [train]
    record = house.run()
    assert (record.phase, record.attempts[0].outcome) == (Phase.CANCELLED, "cancelled")
    assert record.attempts[0].ended_at is not None


@pytest.mark.parametrize("named", ["a", "10.0.0.1"], ids=["by its id", "by its address"])
def test_a_bad_node_is_left_out_where_another_one_fits(house: House, named: str) -> None:
    house.cluster = FakeCluster(Node("a", "10.0.0.1", {}), Node("b", "10.0.0.2", {}))
    house.fits = [fails("RuntimeError", "uncorrectable ECC error", node=named), house.trains]
    assert house.run().phase is Phase.COMPLETED
    assert [group.avoid_nodes for group in house.groups] == [(), ("a",)]
    assert any(message.startswith("Node 10.0.0.1 is left out from now on.") for message in house.messages())


def test_the_last_node_that_fits_is_never_left_out(house: House) -> None:
    house.fits = [fails("RuntimeError", "uncorrectable ECC error", node="a")]
    with pytest.raises(TrainingError, match="ECC"):
        house.run()
    assert [group.avoid_nodes for group in house.groups] == [(), ()]


def test_checkpoints_whose_manifests_are_all_unreadable_are_never_trained_over(house: House) -> None:
    house.run()
    house.checkpoint(1)
    house.store.put_bytes("checkpoints/test-jobs/job_1/attempts/1/epoch-00001/manifest.json", b"{")
    last = house.store.get_bytes("checkpoints/test-jobs/job_1/last.pt")
    with pytest.raises(CheckpointError, match="None of the checkpoints"):
        house.run(resumed=house.record())
    assert house.store.get_bytes("checkpoints/test-jobs/job_1/last.pt") == last


def test_a_failed_job_with_a_checkpoint_says_how_to_go_on(house: House) -> None:
    def train(report: Any) -> Any:
        house.checkpoint(1)
        return fails("ValueError", "shape", hint="Mend it.")(report)

    house.fits = [train]
    with pytest.raises(TrainingError) as failed:
        house.run()
    assert failed.value.hint.startswith("Mend it.")
    assert failed.value.hint.endswith("eagleray train --resume 1")
    assert "/checkpoints/test-jobs/job_1/logs" in failed.value.hint
    assert house.record().resumable


def test_epochs_without_a_checkpoint_are_nothing_to_resume_from(house: House) -> None:
    def train(report: Any) -> Any:
        house.trains(report)
        return fails("ValueError", "shape")(report)

    house.fits = [train]
    with pytest.raises(TrainingError) as failed:
        house.run()
    assert "--resume" not in failed.value.hint
    assert not house.record().resumable


def test_the_attempt_of_a_killed_driver_is_lost(house: House) -> None:
    house.run()
    records = JobRecords(house.store)
    record = records.load(1)
    record.phase, record.attempts[0].outcome, record.attempts[0].ended_at = Phase.RUNNING, None, None
    records.save(record)
    resumed = house.run(resumed=records.load(1))
    assert [attempt.outcome for attempt in resumed.attempts] == ["lost", "completed"]
    assert resumed.attempts[0].ended_at is not None


def test_work_folders_go_once_ray_has_ended_the_workers(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    work = house.settings.work / "job-1-1-0"

    class Connected:
        def __enter__(self) -> Any:
            return house.cluster

        def __exit__(self, *_: object) -> None:
            # A worker that lives until now still writes.
            work.mkdir(parents=True)

    monkeypatch.setattr("eagleray.execution.cluster.connect", lambda packages: Connected())
    house.made = JobDriver(house.plan(), house.store, house.settings, house.shown.append)
    house.made.run()
    assert not work.exists()
