"""Commands across the actor's border, with Ray's calls faked."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any, cast

import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError, GetTimeoutError

from eagleray.contract.errors import UnknownNameError
from eagleray.control.answering import answer_of
from eagleray.control.commands import SYSTEM
from eagleray.control.errors import ControlPlaneAwayError, FencedError, UnusableDatabaseError
from eagleray.control.remote import RemoteCommands, commands_of, is_expected, wait_until_up

from .conftest import House


class Handle:
    """An actor whose calls are made at once, in this process."""

    def __init__(self, plane: Any) -> None:
        self.plane = plane
        self.failures: list[Exception] = []
        self.call = self

    def remote(self, method: str, arguments: Any, keywords: Any) -> Any:
        if self.failures:
            return self.failures.pop(0)
        return answer_of(self.plane, method, arguments, keywords)


@pytest.fixture
def handle(house: House, monkeypatch: pytest.MonkeyPatch) -> Handle:
    made = Handle(house.plane)

    def get(answer: Any, timeout: float) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("ray.get", get)
    monkeypatch.setattr("ray.get_actor", lambda name, namespace: made)
    return made


def test_errors_arrive_as_they_were_raised(handle: Handle) -> None:
    commands = commands_of(RemoteCommands())
    with pytest.raises(UnknownNameError, match="Unknown job '99'"):
        commands.start_job(SYSTEM, 99)


def test_a_restart_is_waited_out_where_sending_twice_is_harmless(house: House, handle: Handle) -> None:
    job_id, driver = house.running()
    handle.failures = [ActorUnavailableError("restarting", b"x" * 16)]
    event = {"seq": driver.seq + 1, "type": "heartbeat"}
    assert commands_of(RemoteCommands()).record(job_id, 1, [event]) == driver.seq + 1


def test_what_is_not_harmless_twice_is_left_to_the_caller(handle: Handle) -> None:
    handle.failures = [ActorUnavailableError("restarting", b"x" * 16)]
    with pytest.raises(ControlPlaneAwayError, match="is being restarted") as caught:
        commands_of(RemoteCommands()).create_project(SYSTEM, "birds")
    assert caught.value.retry_after_s == 5


def test_no_answer_in_time_is_no_failure_of_the_command(handle: Handle) -> None:
    handle.failures = [GetTimeoutError("late")]
    with pytest.raises(ControlPlaneAwayError, match="no answer within"):
        commands_of(RemoteCommands()).create_project(SYSTEM, "birds")


def test_a_cluster_without_a_control_plane_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def none(name: str, namespace: str) -> Any:
        raise ValueError(name)

    monkeypatch.setattr("ray.get_actor", none)
    with pytest.raises(ControlPlaneAwayError, match="there is none on this cluster"):
        commands_of(RemoteCommands()).health()


def test_a_control_plane_is_expected_where_there_is_one_and_where_eagleray_up_began(
    handle: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EAGLERAY_CLUSTER", raising=False)
    assert is_expected()

    def none(name: str, namespace: str) -> Any:
        raise ValueError(name)

    monkeypatch.setattr("ray.get_actor", none)
    assert not is_expected()
    monkeypatch.setenv("EAGLERAY_CLUSTER", "1f0c")
    assert is_expected()


def test_a_driver_needs_no_database_package() -> None:
    looked = "import sys, eagleray.control.attempt; sys.exit(bool({'sqlalchemy', 'alembic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", looked], timeout=120).returncode == 0


def test_only_commands_can_be_called(house: House) -> None:
    assert "error" in answer_of(house.plane, "close", (), {})
    with pytest.raises(AttributeError):
        RemoteCommands().close()


def test_fencing_crosses_the_border(house: House, handle: Handle) -> None:
    job_id, _driver = house.running()
    house.plane.cancel_job(SYSTEM, job_id)
    with pytest.raises(FencedError):
        commands_of(RemoteCommands()).record(job_id, 1, [{"seq": 99, "type": "heartbeat"}])


def test_who_may_make_a_control_plane_makes_one_where_there_is_none(
    house: House, handle: Handle, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(name: str, namespace: str) -> Any:
        raise ValueError(name)

    monkeypatch.setattr("ray.get_actor", none)
    made: list[Handle] = []

    def create() -> Handle:
        made.append(handle)
        return handle

    commands = commands_of(RemoteCommands(create=create))
    handle.failures = [ActorDiedError()]
    assert commands.health()["status"] == "ok", "also where one was lost later on"
    assert len(made) == 2


def test_a_fault_of_the_control_planes_own_comes_as_an_error_with_a_code(house: House) -> None:
    answer = answer_of(house.plane, "start_job", (), {})
    assert (answer["error"].code, answer["error"].http_status) == ("internal", 500)
    assert "Traceback" not in str(answer["error"])
    assert pickle.loads(pickle.dumps(answer["error"])).message == answer["error"].message


def test_a_lasting_fault_is_raised_at_once_and_a_passing_one_is_waited_for(house: House) -> None:
    class Plane:
        def __init__(self, *errors: Exception) -> None:
            self.errors = list(errors)

        def health(self) -> dict[str, Any]:
            if self.errors:
                raise self.errors.pop(0)
            return {}

    away = ControlPlaneAwayError("The control plane is starting: the disk is full", "")
    wait_until_up(cast(Any, Plane(away)), 10)
    with pytest.raises(UnusableDatabaseError, match="damaged"):
        wait_until_up(cast(Any, Plane(UnusableDatabaseError("damaged"))), 10)
    with pytest.raises(ControlPlaneAwayError, match="the disk is full"):
        wait_until_up(cast(Any, Plane(away)), 0)
