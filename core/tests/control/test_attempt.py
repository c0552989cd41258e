"""One attempt's process, with the cluster and the training faked: what the control plane hears, whatever happens."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from eagleray.contract.errors import DatasetError, TrainingError
from eagleray.contract.failures import FailureKind
from eagleray.control import attempt as module
from eagleray.control.attempt import Attempt, Orders
from eagleray.control.commands import SYSTEM
from eagleray.control.errors import ControlPlaneAwayError
from eagleray.control.executor import RunState, RunStatus
from eagleray.control.ray_executor import entrypoint
from eagleray.control.remote import START_S
from eagleray.execution.cluster import Node
from eagleray.execution.failures import Failure
from eagleray.jobs.phases import Phase
from eagleray.jobs.plan import plan_job
from eagleray.jobs.records import JobRecord, JobRecords
from eagleray.jobs.run_record import RunRecord
from eagleray.settings import Settings
from eagleray.testing.data import write_classification_dataset

from .conftest import SPEC, House


class FakeCluster:
    def nodes(self) -> list[Node]:
        return [Node("id-of-7", "10.0.0.7", {"CPU": 2.0})]


class FakeDriver:
    """Emits what a real one does; `behaviour` decides how it ends."""

    behaviour: Any = None
    made: list[FakeDriver] = []

    def __init__(self, plan: Any, store: Any, settings: Any, emit: Any, **options: Any) -> None:
        self.emit, self.options, self.plan = emit, options, plan
        self.failure: Failure | None = None
        self.cancelled = threading.Event()
        FakeDriver.made.append(self)

    def cancel(self, *, fenced: bool = False) -> None:
        self.fenced = fenced
        self.cancelled.set()

    def run(self) -> JobRecord:
        record: JobRecord = self.options["resumed"]
        self.emit({"event": "phase", "phase": "queued", "status": "pending", "message": "starts at once"})
        self.emit({"event": "job", "job_id": record.id, "dataset": {"images": 24}, "output_dir": "/out", "epochs": 2})
        self.emit({"event": "phase", "phase": "preparing", "status": "pending", "message": "environment"})
        self.emit({"event": "environment", "line": "installing numpy"})
        self.emit({"event": "attempt", "attempt": self.options["attempt"], "resumed_from_epoch": None})
        self.emit({"event": "phase", "phase": "running", "status": "running", "message": "loading"})
        FakeDriver.behaviour(self)
        record.phase = Phase.COMPLETED
        record.epochs_done, record.dataset, record.output_dir = 2, {"images": 24}, "/out"
        return record


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    write_classification_dataset(tmp_path / "pictures", images=12, size=16)
    return tmp_path / "pictures"


@pytest.fixture
def settings(house: House) -> Settings:
    return Settings(home=house.folder / "home", storage=str(house.folder / "store"), blocked_plugins=frozenset())


@pytest.fixture(autouse=True)
def fakes(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def connected(packages: Any) -> Iterator[FakeCluster]:
        yield FakeCluster()

    def commands(**_: Any) -> Any:
        return house.plane

    monkeypatch.setattr("eagleray.execution.cluster.connect", connected)
    monkeypatch.setattr(module, "find", commands)
    monkeypatch.setattr(module, "JobDriver", FakeDriver)
    monkeypatch.setattr(FakeDriver, "made", [])
    monkeypatch.setattr(FakeDriver, "behaviour", lambda driver: None)


def submitted(house: House, pictures: Path) -> Orders:
    job_id = house.create(dataset_path=str(pictures), pretrained=False)
    house.tick()
    return Orders(job_id, 1, avoid_nodes=house.executor.submissions[f"{job_id}-1"].avoid_nodes)


def test_a_run_is_told_from_its_first_word_to_its_last(house: House, pictures: Path, settings: Settings) -> None:
    orders = submitted(house, pictures)
    record = Attempt(orders, settings, house.store, lambda _: None).run()
    view = house.job(orders.job_id)
    assert (record.phase, view.phase, view.epochs_done) == (Phase.COMPLETED, Phase.COMPLETED, 2)
    assert (view.dataset, view.output_dir) == ({"images": 24}, "/out")
    assert [(line.rank, line.text) for line in house.queries.logs(orders.job_id)] == [(-1, "installing numpy")]
    assert FakeDriver.made[0].options["attempt"] == 1


def test_the_workers_failure_arrives_with_its_kind(
    house: House, pictures: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(driver: FakeDriver) -> None:
        driver.failure = Failure(FailureKind.OUT_OF_MEMORY, "CUDA out of memory.", "Lower batch_size.")
        raise TrainingError("CUDA out of memory.")

    monkeypatch.setattr(FakeDriver, "behaviour", out_of_memory)
    orders = submitted(house, pictures)
    with pytest.raises(TrainingError):
        Attempt(orders, settings, house.store, lambda _: None).run()
    view = house.job(orders.job_id)
    assert (view.phase, view.failure_kind, view.hint) == (Phase.FAILED, "out-of-memory", "Lower batch_size.")


def test_a_bad_node_is_named_by_its_id(
    house: House, pictures: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ecc(driver: FakeDriver) -> None:
        driver.failure = Failure(FailureKind.BAD_NODE, "ECC", node="10.0.0.7")
        raise TrainingError("ECC")

    monkeypatch.setattr(FakeDriver, "behaviour", ecc)
    orders = submitted(house, pictures)
    with pytest.raises(TrainingError):
        Attempt(orders, settings, house.store, lambda _: None).run()
    house.executor.ended(f"{orders.job_id}-1")
    house.executor.nodes.append(("node-1", {"CPU": 8.0}))
    house.tick(2)
    assert house.executor.submissions[f"{orders.job_id}-2"].avoid_nodes == ("id-of-7",)


def test_what_is_wrong_before_the_training_is_told_too(house: House, settings: Settings, tmp_path: Path) -> None:
    orders = submitted(house, tmp_path / "nowhere")
    with pytest.raises(DatasetError):
        Attempt(orders, settings, house.store, lambda _: None).run()
    view = house.job(orders.job_id)
    assert (view.phase, view.failure_kind) == (Phase.FAILED, "data")
    assert "nowhere" in str(view.error_message)


def test_an_interrupt_is_a_stop(
    house: House, pictures: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(driver: FakeDriver) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(FakeDriver, "behaviour", interrupted)
    orders = submitted(house, pictures)
    with pytest.raises(KeyboardInterrupt):
        Attempt(orders, settings, house.store, lambda _: None).run()
    assert house.job(orders.job_id).phase is Phase.CANCELLED


def test_a_fenced_attempt_ends_its_driver_which_writes_nothing_more(
    house: House, pictures: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = submitted(house, pictures)

    def cancelled_meanwhile(driver: FakeDriver) -> None:
        house.plane.cancel_job(SYSTEM, orders.job_id)
        driver.emit({"event": "warning", "message": "still there"})
        assert driver.cancelled.wait(10)
        raise TrainingError("cancelled")

    monkeypatch.setattr(FakeDriver, "behaviour", cancelled_meanwhile)
    with pytest.raises(TrainingError):
        Attempt(orders, settings, house.store, lambda _: None).run()
    assert FakeDriver.made[0].fenced
    assert house.job(orders.job_id).phase is Phase.CANCELLED


def test_a_ray_job_of_a_user_registers_waits_and_runs(
    house: House, pictures: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"metadata": {"job_submission_id": "mine"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(config))
    house.executor.runs["mine"] = RunStatus(RunState.RUNNING)
    shown: list[dict[str, Any]] = []
    ticking = threading.Timer(1.5, lambda: house.tick())
    ticking.start()
    values = {**SPEC, "dataset_path": str(pictures), "pretrained": False}
    record = module.run_registered(values, settings, house.store, shown.append)
    ticking.join()
    assert record is not None and record.phase is Phase.COMPLETED
    assert house.attempt(record.id).submission_id == "mine"
    assert any(event["event"] == "phase" and event["message"] == "waits for its turn" for event in shown)


class Starting:
    """A control plane that comes up while it is waited for, or does not."""

    def __init__(self, house: House, comes_up: bool) -> None:
        self._house, self._comes_up = house, comes_up
        self.patience_s: list[float] = []

    def find(self, *, patience_s: float = 0.0) -> Any:
        self.patience_s.append(patience_s)
        if self._comes_up and patience_s:
            return self._house.plane
        raise ControlPlaneAwayError("The control plane does not answer: it is starting.", "")


@pytest.mark.parametrize(("comes_up", "said"), [(True, ["is waited for"]), (False, ["is waited for", "without it"])])
def test_a_job_that_comes_before_its_clusters_control_plane_waits_for_it(
    house: House, settings: Settings, monkeypatch: pytest.MonkeyPatch, comes_up: bool, said: list[str]
) -> None:
    starting = Starting(house, comes_up)
    monkeypatch.setattr(module, "find", starting.find)
    monkeypatch.setattr(module, "is_expected", lambda: True)
    shown: list[dict[str, Any]] = []
    found = module._control_plane(shown.append)
    assert (found is house.plane) is comes_up
    assert starting.patience_s == [0.0, START_S]
    assert len(shown) == len(said)
    assert all(
        event["event"] == "warning" and part in event["message"] for event, part in zip(shown, said, strict=True)
    )


def test_where_none_is_to_be_expected_nobody_waits(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find", Starting(house, comes_up=True).find)
    monkeypatch.setattr(module, "is_expected", lambda: False)
    assert module._control_plane(lambda _: pytest.fail("nothing is to be said")) is None


def test_outside_of_a_ray_job_nothing_is_registered(
    house: House, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR", raising=False)
    assert module.run_registered({**SPEC}, settings, house.store, lambda _: None) is None


def test_what_only_the_store_knows_of_the_end_is_believed(house: House) -> None:
    job_id, _ = house.running()
    records = JobRecords(house.store)
    record = records.load(job_id)
    record.phase = Phase.FAILED
    from eagleray.jobs.records import AttemptRecord

    record.attempts = [AttemptRecord(number=1, outcome="out-of-memory", message="too big")]
    records.save(record)
    house.executor.ended(f"{job_id}-1")
    house.tick(3)
    assert (house.job(job_id).phase, house.job(job_id).failure_kind) == (Phase.FAILED, "out-of-memory")


def test_it_is_heard_of_before_its_data_is_read(
    house: House, pictures: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = submitted(house, pictures)
    heard: list[bool] = []

    def slow(*arguments: Any, **options: Any) -> Any:
        deadline = time.monotonic() + 10
        while house.attempt(orders.job_id).last_seen_at is None and time.monotonic() < deadline:
            time.sleep(0.05)
        heard.append(house.attempt(orders.job_id).last_seen_at is not None)
        return plan_job(*arguments, **options)

    monkeypatch.setattr(module, "plan_job", slow)
    Attempt(orders, settings, house.store, lambda _: None).run()
    assert heard == [True]


def test_a_spec_larger_than_a_command_line_is_trained_as_it_is(
    house: House, pictures: Path, settings: Settings
) -> None:
    names = ["x" * 1000 for _ in range(300)]
    job_id = house.create(dataset_path=str(pictures), pretrained=False, session_id="".join(names))
    house.tick()
    submission = house.executor.submissions[f"{job_id}-1"]
    assert len(entrypoint(submission, settings.home, settings.storage)) < 1000
    Attempt(Orders(job_id, 1), settings, house.store, lambda _: None).run()
    assert FakeDriver.made[0].plan.spec.session_id == "".join(names)


def test_what_becomes_known_while_it_runs_is_shown_while_it_runs(
    house: House, pictures: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    orders = submitted(house, pictures)
    assert house.job(orders.job_id).dataset_format == ""

    def running(driver: FakeDriver) -> None:
        run = RunRecord.start(house.store, driver.plan, JobRecords(house.store).load(orders.job_id), driver.emit)
        run.set_tracking_url("http://mlflow/run/7")
        deadline = time.monotonic() + 10
        while house.job(orders.job_id).tracking_url is None and time.monotonic() < deadline:
            time.sleep(0.05)
        view = house.job(orders.job_id)
        assert (view.phase, view.dataset_format) == (Phase.RUNNING, "imagefolder")
        assert view.tracking_url == "http://mlflow/run/7"

    monkeypatch.setattr(FakeDriver, "behaviour", running)
    Attempt(orders, settings, house.store, lambda _: None).run()
