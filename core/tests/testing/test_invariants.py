"""The checker of what must hold after a fault: each invariant is broken once, and it says which one."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from eagleray.control.commands import SYSTEM
from eagleray.control.database.opening import open_database
from eagleray.control.plane import ControlPlane
from eagleray.control.queries import Queries
from eagleray.control.settings import ControlSettings
from eagleray.control.specs import CheckedSpec, described
from eagleray.jobs.records import EpochMetrics, encode_metrics
from eagleray.jobs.spec import make_spec
from eagleray.storage import layout
from eagleray.storage.checkpoints import Checkpoints
from eagleray.storage.local import LocalStore
from eagleray.storage.store import TEMPORARY_PREFIX
from eagleray.testing.cluster import SimulatedExecutor
from eagleray.testing.invariants import Answer, History, World, check, violations

EPOCHS = 3
SPEC = {"framework": "echo", "model_name": "echo-linear", "dataset_path": "/data", "epochs": EPOCHS}
GOOD = Answer("GET /jobs/1", 200, 0.1, 5.0, request_id="r1")


@dataclass
class Scene:
    """A job that failed after two epochs, went on behind its checkpoint and is completed; nothing is wrong."""

    folder: Path
    engine: Engine
    store: LocalStore
    history: History
    world: World
    job_id: int

    @property
    def prefix(self) -> str:
        return layout.job_prefix(self.job_id, None)

    def file(self, key: str) -> Path:
        return self.store.root / key

    def execute(self, statement: str, **values: Any) -> None:
        with self.engine.connect() as connection, connection.begin():
            assert connection.execute(text(statement), values).rowcount, statement

    def found(self) -> list[str]:
        return violations(self.history, self.world)


def _check(values: Mapping[str, Any]) -> CheckedSpec:
    return described(make_spec(values).model_copy(update={"task_type": "image-classification"}))


class _Job:
    """Says what drivers say, and saves what workers save."""

    def __init__(self, plane: ControlPlane, executor: SimulatedExecutor, store: LocalStore, folder: Path) -> None:
        self.plane, self.executor, self.store, self.folder = plane, executor, store, folder
        self.id = int(plane.create_job(SYSTEM, SPEC, start=True, idempotency_key="once")["id"])
        self.attempt, self.seq = 0, 0

    def begin(self, resumed_from: int | None) -> None:
        self.plane.dispatcher.tick()
        self.attempt, self.seq = self.attempt + 1, 0
        self.say({"type": "phase", "phase": "running", "message": ""})
        self.say({"type": "attempt", "attempt": self.attempt, "resumed_from_epoch": resumed_from})

    def say(self, event: dict[str, Any]) -> None:
        self.seq += 1
        self.plane.record(self.id, self.attempt, [{"seq": self.seq, **event}])

    def epoch(self, epoch: int, *, saved: bool = True) -> None:
        metrics = {"loss": 1.0 / epoch}
        self.say({"type": "epoch", "epoch": epoch, "metrics": metrics, "best": {}})
        if saved:
            (self.folder / "model.npz").write_bytes(b"epoch %d" % epoch)
            checkpoints = Checkpoints(self.store, layout.job_prefix(self.id, None))
            facts: dict[str, Any] = {"is_best": True, "best_value": 1.0, "best_epoch": epoch}
            facts |= {"job_id": self.id, "attempt": self.attempt, "epoch": epoch}
            checkpoints.commit(self.folder, metrics=metrics, portable_file="model.npz", **facts)
            self.say({"type": "checkpoint", "epoch": epoch, "best": True})

    def end(self, outcome: str, failure: dict[str, Any] | None = None) -> None:
        self.say({"type": "finished", "outcome": outcome, "failure": failure})
        self.executor.ended(f"{self.id}-{self.attempt}")
        self.plane.dispatcher.tick()
        self.plane.dispatcher.tick()


def _train(job: _Job) -> None:
    job.begin(None)
    job.epoch(1)
    job.epoch(2, saved=False)
    job.say({"type": "log", "rank": 0, "lines": ["hello"]})
    job.end("failed", {"kind": "worker-lost", "message": "killed"})
    job.begin(1)
    job.epoch(2)
    job.epoch(3)
    job.end("completed")


def _keep_figures(store: LocalStore, job_id: int) -> None:
    rows = encode_metrics(EpochMetrics(epoch=epoch, attempt=1, metrics={"loss": 1.0}) for epoch in (1, 2, 3))
    store.put_bytes(layout.metrics_key(layout.job_prefix(job_id, None)), rows)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Database and store of a run that each test then spoils in a copy of its own."""
    folder = tmp_path_factory.mktemp("trained")
    engine, store = open_database(f"sqlite:///{folder / 'x.db'}", folder), LocalStore(folder / "store")
    executor, saved = SimulatedExecutor(), folder / "saved"
    saved.mkdir()
    settings = ControlSettings(poll_s=0.0, grace_s=0.0, max_drivers=4)
    plane = ControlPlane(engine, executor, store, _check, settings=settings)
    plane.start(owner_timeout_s=1, dispatch=False)
    job = _Job(plane, executor, store, saved)
    _train(job)
    plane.close()
    engine.dispose()
    _keep_figures(store, job.id)
    return folder


@pytest.fixture
def scene(trained: Path, tmp_path: Path) -> Iterator[Scene]:
    folder = shutil.copytree(trained, tmp_path / "copy")
    engine, store = open_database(f"sqlite:///{folder / 'x.db'}", folder), LocalStore(folder / "store")
    history, job_id = History(), 1
    history.submitted(job_id, "once")
    history.answered(GOOD)
    history.saw_end(job_id, "completed")
    for point in Queries(engine).metrics(job_id):
        history.saw_metric(job_id, point.key, point.epoch)
    for line in Queries(engine).logs(job_id):
        history.saw_line(job_id, line.id, line.text)
    yield Scene(folder, engine, store, history, World(engine, store), job_id)
    engine.dispose()


def test_a_job_that_failed_and_went_on_breaks_nothing(scene: Scene) -> None:
    assert scene.found() == []
    check(scene.history, scene.world)


def _lose(scene: Scene) -> None:
    scene.history.submitted(scene.job_id + 1)


def _make_two_of_one_key(scene: Scene) -> None:
    scene.history.submitted(scene.job_id + 1, "once")


def _end_twice(scene: Scene) -> None:
    scene.execute(
        "INSERT INTO events (job_id, attempt, type, time, data) SELECT job_id, attempt, type, time, data FROM events "
        "WHERE type = 'phase' AND data LIKE '%completed%'"
    )


def _complete_two_runs(scene: Scene) -> None:
    scene.execute("UPDATE attempts SET outcome = 'completed'")


def _never_end(scene: Scene) -> None:
    scene.execute("UPDATE training_jobs SET phase = 'running', status = 'running'")


def _end_otherwise(scene: Scene) -> None:
    scene.history.saw_end(scene.job_id, "failed")


@pytest.mark.parametrize(
    "fault", [_lose, _make_two_of_one_key, _end_twice, _complete_two_runs, _never_end, _end_otherwise]
)
def test_i1_a_submit_that_does_not_end_exactly_once_is_found(scene: Scene, fault: Callable[[Scene], None]) -> None:
    fault(scene)
    assert any(found.startswith("I1") for found in scene.found()), scene.found()


def test_i1_a_job_that_was_asked_to_go_on_may_end_once_more(scene: Scene) -> None:
    _end_twice(scene)
    scene.history.resumed.append(scene.job_id)
    assert scene.found() == []


@pytest.mark.parametrize("name", ["attempts/2/epoch-00003/model.npz", "last.pt", "best.pt"])
def test_i2_bytes_that_are_not_the_recorded_ones_are_found(scene: Scene, name: str) -> None:
    scene.file(f"{scene.prefix}/{name}").write_bytes(b"epoch 4")
    assert [found[:2] for found in scene.found()] == ["I2"]


def test_i2_a_file_of_a_checkpoint_that_is_gone_is_found(scene: Scene) -> None:
    scene.file(f"{scene.prefix}/attempts/2/epoch-00003/model.npz").unlink()
    assert [found[:2] for found in scene.found()] == ["I2"]


def _resume_from_nothing(scene: Scene) -> None:
    scene.execute("UPDATE events SET data = '{\"resumed_from_epoch\": null}' WHERE type = 'attempt' AND attempt = 2")


def _skip_an_epoch(scene: Scene) -> None:
    scene.execute("DELETE FROM events WHERE type = 'epoch' AND attempt = 2 AND data LIKE '%\"epoch\": 2%'")


def _lose_figures_in_the_store(scene: Scene) -> None:
    path = scene.file(layout.metrics_key(scene.prefix))
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))


def _stop_early(scene: Scene) -> None:
    scene.execute("UPDATE training_jobs SET epochs_done = 2")


@pytest.mark.parametrize("fault", [_resume_from_nothing, _skip_an_epoch, _lose_figures_in_the_store, _stop_early])
def test_i3_epochs_that_are_lost_or_trained_from_the_wrong_place_are_found(
    scene: Scene, fault: Callable[[Scene], None]
) -> None:
    fault(scene)
    assert {found[:2] for found in scene.found()} == {"I3"}


def _halve_a_manifest(scene: Scene) -> None:
    path = scene.file(layout.manifest_key(scene.prefix, 1, 1))
    path = path if path.exists() else scene.file(layout.manifest_key(scene.prefix, 2, 2))
    path.write_bytes(path.read_bytes()[:40])


def _leave_files_without_a_manifest(scene: Scene) -> None:
    scene.store.put_bytes(f"{scene.prefix}/attempts/1/epoch-00009/model.npz", b"half")


def _halve_the_record(scene: Scene) -> None:
    scene.file(layout.job_record_key(scene.job_id)).write_bytes(b'{"id": 1')


def _halve_the_figures(scene: Scene) -> None:
    path = scene.file(layout.metrics_key(scene.prefix))
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize(
    "fault", [_halve_a_manifest, _leave_files_without_a_manifest, _halve_the_record, _halve_the_figures]
)
def test_i4_what_is_half_written_is_found(scene: Scene, fault: Callable[[Scene], None]) -> None:
    fault(scene)
    assert "I4" in {found[:2] for found in scene.found()}, scene.found()


def test_i5_a_process_a_lease_and_an_old_temporary_file_are_found(scene: Scene) -> None:
    scene.execute("UPDATE attempts SET released = 0 WHERE number = 2")
    scene.file(f"{scene.prefix}/{TEMPORARY_PREFIX}x").write_bytes(b"half")
    world = replace(scene.world, processes=lambda: ["RayTrainWorker"], temporary_ttl_s=0.0)
    time.sleep(0.02)  # older than no time at all
    assert [found[:2] for found in violations(scene.history, world)] == ["I5"] * 3


def test_i5_what_goes_while_it_is_waited_for_is_no_violation(scene: Scene) -> None:
    left = ["RayTrainWorker", "RayTrainWorker"]
    world = replace(scene.world, processes=lambda: [left.pop()] if left else [])
    check(scene.history, world, patience_s=10)


@pytest.mark.parametrize(
    "answer",
    [
        replace(GOOD, status=0),
        replace(GOOD, seconds=6.0),
        replace(GOOD, request_id=""),
        replace(GOOD, status=500),
        replace(GOOD, status=503, code="Internal Server Error"),
    ],
)
def test_i6_an_answer_that_is_late_or_says_not_what_is_wrong_is_found(scene: Scene, answer: Answer) -> None:
    scene.history.answered(answer)
    assert [found[:2] for found in scene.found()] == ["I6"]


def test_i6_a_refusal_with_code_and_id_is_an_answer_and_nobody_answers_while_the_server_is_away(scene: Scene) -> None:
    scene.history.answered(replace(GOOD, status=503, code="control-plane-away"))
    scene.history.outage(100.0, 200.0)
    scene.history.answered(replace(GOOD, status=0, at=150.0))
    scene.history.answered(replace(GOOD, status=503, request_id="", at=199.95))
    assert scene.found() == []


def _lose_a_figure_that_nobody_has_read(scene: Scene) -> None:
    scene.execute("DELETE FROM metrics WHERE epoch = 2")
    scene.history.metrics.clear()


def _lose_a_line(scene: Scene) -> None:
    scene.execute("DELETE FROM log_lines")


def _change_a_line(scene: Scene) -> None:
    scene.execute("UPDATE log_lines SET text = 'other'")


def _see_a_figure_that_is_gone(scene: Scene) -> None:
    scene.history.saw_metric(scene.job_id, "accuracy", 2)


def _keep_a_figure_twice(scene: Scene) -> None:
    with scene.engine.connect() as connection, connection.begin():
        for statement in (
            "CREATE TABLE loose AS SELECT * FROM metrics",
            "INSERT INTO loose SELECT * FROM metrics WHERE epoch = 2",
            "DROP TABLE metrics",
            "ALTER TABLE loose RENAME TO metrics",
        ):
            connection.execute(text(statement))


@pytest.mark.parametrize(
    "fault",
    [
        _lose_a_figure_that_nobody_has_read,
        _lose_a_line,
        _change_a_line,
        _see_a_figure_that_is_gone,
        _keep_a_figure_twice,
    ],
)
def test_i7_what_was_acknowledged_and_is_gone_or_there_twice_is_found(
    scene: Scene, fault: Callable[[Scene], None]
) -> None:
    fault(scene)
    assert "I7" in {found[:2] for found in scene.found()}, scene.found()


def test_a_failed_check_names_every_violation(scene: Scene) -> None:
    scene.history.mark("killed the worker")
    scene.history.submitted(99)
    scene.history.answered(replace(GOOD, status=500))
    with pytest.raises(AssertionError, match=r"(?s)2 violations.*I6.*I1: job 99.*killed the worker"):
        check(scene.history, scene.world)
