"""What Ray's job server answers, as the control plane reads it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.job_submission import JobStatus

from eagleray.contract.errors import ClusterError
from eagleray.control import attempt, ray_executor
from eagleray.control.attempt import Orders
from eagleray.control.executor import ExecutorAwayError, RunState, Submission
from eagleray.control.ray_executor import RayJobExecutor, entrypoint
from eagleray.settings import Settings

SUBMISSION = Submission("7-2", 7, 2, ("a", "b"))


class Server:
    """Ray's client with canned answers: a job server of one process."""

    def __init__(self) -> None:
        self.jobs: dict[str, Any] = {}
        self.submitted: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.late = False

    def _answer(self) -> None:
        if self.error:
            raise self.error

    def submit_job(self, **options: Any) -> None:
        self._answer()
        if options["submission_id"] in self.jobs:
            raise RuntimeError("Request failed with status code 500: Job with submission_id 7-2 already exists.")
        self.jobs[options["submission_id"]] = SimpleNamespace(
            status=JobStatus.PENDING, message="", metadata=options["metadata"]
        )
        self.submitted.append(options)

    def get_job_info(self, name: str) -> Any:
        self._answer()
        if name not in self.jobs or self.late:
            self.late = False
            raise RuntimeError(f"Request failed with status code 404: Job {name} does not exist")
        return self.jobs[name]

    def stop_job(self, name: str) -> None:
        self._answer()
        if name not in self.jobs:
            raise RuntimeError(f"Request failed with status code 404: Job {name} does not exist")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    made = Server()
    monkeypatch.setattr(ray_executor, "JobSubmissionClient", lambda address: made)
    return made


@pytest.fixture
def executor(server: Server) -> RayJobExecutor:
    return RayJobExecutor("127.0.0.1:1", Path("/home"), "/store")


def test_an_attempt_is_submitted_once_however_often_it_is_asked_for(server: Server, executor: RayJobExecutor) -> None:
    executor.submit(SUBMISSION)
    executor.submit(SUBMISSION)
    server.late = True  # the look came before the other one's submission
    executor.submit(SUBMISSION)
    assert [options["submission_id"] for options in server.submitted] == ["7-2"]


def test_it_is_stopped_by_an_interrupt_with_time_to_save(server: Server, executor: RayJobExecutor) -> None:
    executor.submit(SUBMISSION)
    variables = server.submitted[0]["runtime_env"]["env_vars"]
    assert variables == {"RAY_JOB_STOP_SIGNAL": "SIGINT", "RAY_JOB_STOP_WAIT_TIME_S": "60"}


def test_its_orders_travel_on_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[Orders, str, Path]] = []

    class Taken:
        def __init__(self, orders: Orders, settings: Settings, store: Any, show: Any) -> None:
            made.append((orders, settings.storage, settings.home))

        def run(self) -> Any:
            raise ClusterError("seen enough")

    monkeypatch.setattr(attempt, "Attempt", Taken)
    for name in ("HOME", "STORAGE"):
        monkeypatch.setenv(f"EAGLERAY_{name}", "/elsewhere")
    words = shlex.split(entrypoint(SUBMISSION, Path("/my home"), "/a store"))
    assert words[:4] == ["exec", sys.executable, "-m", "eagleray.control.attempt"]
    attempt.main(words[4:])
    assert made == [(Orders(7, 2, avoid_nodes=("a", "b")), "/a store", Path("/my home"))]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (JobStatus.PENDING, RunState.PENDING),
        (JobStatus.RUNNING, RunState.RUNNING),
        (JobStatus.STOPPED, RunState.ENDED),
        (JobStatus.SUCCEEDED, RunState.ENDED),
        (JobStatus.FAILED, RunState.ENDED),
    ],
)
def test_every_status_of_ray_has_a_meaning(
    server: Server, executor: RayJobExecutor, status: JobStatus, state: RunState
) -> None:
    server.jobs["7-2"] = SimpleNamespace(status=status, message="why\nit ended")
    found = executor.statuses(["7-2", "8-1"])
    assert (found["7-2"].state, found["7-2"].message) == (state, "why it ended")
    assert "8-1" not in found, "Ray answers that it does not know it"
    assert set(ray_executor._STATES) == set(JobStatus)


@pytest.mark.parametrize(
    "error",
    [
        ConnectionError("Failed to connect to Ray"),
        RuntimeError("Request failed with status code 503: starting"),
        RuntimeError("Request failed with status code 401: no token"),
        ValueError("Expecting value: line 1 column 1"),
    ],
    ids=["connection", "503", "401", "not-json"],
)
def test_what_is_no_answer_is_unreachable_and_not_unknown(
    server: Server, executor: RayJobExecutor, error: Exception
) -> None:
    server.error = error
    with pytest.raises(ExecutorAwayError):
        executor.statuses(["7-2"])
    with pytest.raises(ExecutorAwayError):
        executor.submit(SUBMISSION)


def test_a_refusal_is_no_silence(server: Server, executor: RayJobExecutor) -> None:
    server.submit_job = lambda **_: (_ for _ in ()).throw(  # type: ignore[method-assign]
        RuntimeError("Request failed with status code 400: bad runtime_env")
    )
    with pytest.raises(ClusterError, match="bad runtime_env"):
        executor.submit(SUBMISSION)


def test_a_strangers_ray_job_under_an_attempts_name_is_not_taken_for_it(
    server: Server, executor: RayJobExecutor
) -> None:
    server.jobs["7-2"] = SimpleNamespace(status=JobStatus.RUNNING, message="", metadata=None)
    with pytest.raises(ClusterError, match="named '7-2' is there already, and it is not eagleray's"):
        executor.submit(SUBMISSION)


def test_stopping_what_is_gone_is_fine(executor: RayJobExecutor) -> None:
    executor.stop("7-2")


def test_one_job_without_an_answer_hides_no_other(server: Server, executor: RayJobExecutor) -> None:
    server.jobs = {"1-1": SimpleNamespace(status=JobStatus.SUCCEEDED, message="")}
    whole = server.get_job_info

    def broken(name: str) -> Any:
        if name == "2-1":
            raise RuntimeError("Request failed with status code 500: its node is gone")
        return whole(name)

    server.get_job_info = broken  # type: ignore[method-assign]
    found = executor.statuses(["1-1", "2-1"])
    assert (found["1-1"].state, found["2-1"].state) == (RunState.ENDED, RunState.RUNNING)
