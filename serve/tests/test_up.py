"""`eagleray up` of a server that is up: what it notices, mends and makes. Ray itself is not asked here."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import httpx
import pytest

from eagleray.contract.errors import ClusterError
from eagleray.control.errors import ControlPlaneAwayError
from eagleray.settings import Settings
from eagleray_serve.first_key import ensure_admin_key
from eagleray_serve.local import up as module
from eagleray_serve.local.state import ServerFolder, ServerState
from eagleray_serve.local.up import Wanted, http_arguments, up
from eagleray_serve.settings import load_http_settings

from .conftest import Serve
from .fake import FakePlane


class Calls(list[str]):
    """What was started again, and what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, name: str) -> Any:
        return lambda *_: self.append(name)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    found = Calls()
    for name in ("_deploy", "_restart_control", "_start_ray"):
        monkeypatch.setattr(module, name, found.note(name))
    monkeypatch.setattr(module, "alive", lambda pid: True)
    monkeypatch.setattr(module, "marked", lambda mark: [1])
    return found


@pytest.fixture
def running(serve: Serve, plane: FakePlane, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> ServerState:
    monkeypatch.setenv("EAGLERAY_HOME", str(settings.home))
    ensure_admin_key(plane, plane.queries, settings.home)
    state = ServerState(
        mark="m", pid=1, server=f"http://{serve()}", address="a", dashboard="d", temp_dir="/tmp/none", started_at="now"
    )
    ServerFolder(settings.home).save(state)
    return state


def test_a_server_that_is_well_is_left_alone(running: ServerState, calls: Calls, settings: Settings) -> None:
    found = up(Wanted(), settings, calls.said.append)
    assert (found["started"], found["not_ok"], "key" in found) == (False, {}, False)
    assert (calls, calls.said) == ([], [])


def test_a_control_plane_that_is_away_is_named_and_started_again(
    running: ServerState, calls: Calls, settings: Settings, plane: FakePlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy = plane.health

    def away() -> None:
        raise ControlPlaneAwayError("The control plane does not answer: there is none on this cluster.")

    def restart(*_: object) -> None:
        calls.append("_restart_control")
        monkeypatch.setattr(plane, "health", healthy)

    monkeypatch.setattr(plane, "health", away)
    monkeypatch.setattr(module, "_restart_control", restart)
    found = up(Wanted(), settings, calls.said.append)
    assert (found["started"], found["not_ok"], calls) == (False, {}, ["_restart_control"])
    assert "control: The control plane does not answer" in calls.said[0]


def test_what_up_cannot_mend_is_told(running: ServerState, calls: Calls, settings: Settings, plane: FakePlane) -> None:
    plane.healthy = False
    assert "control.queue" in up(Wanted(), settings, calls.said.append)["not_ok"]
    assert calls == []


def test_an_api_that_does_not_answer_is_deployed_again(
    running: ServerState, calls: Calls, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = iter([False, True, True])
    monkeypatch.setattr(module, "_answers", lambda *_: next(answers))
    assert up(Wanted(), settings, calls.said.append)["not_ok"] == {}
    assert calls == ["_deploy"]


def test_another_admins_key_can_be_made_and_the_first_stays_good(
    running: ServerState, calls: Calls, settings: Settings, plane: FakePlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ray:
        def shutdown(self) -> None:
            calls.append("left Ray")

    first = (settings.home / "admin.key").read_text().strip()
    (settings.home / "admin.key").unlink()
    monkeypatch.setattr(module, "join_ray", lambda *_: Ray())
    monkeypatch.setattr("eagleray.control.actor.connect", lambda **_: plane)
    found = up(Wanted(new_admin_key=True), settings, calls.said.append)
    assert calls == ["left Ray"]
    for key in (first, found["key"]):
        answer = httpx.get(f"{running.server}/api/v1/keys", headers={"X-API-Key": key})
        assert (answer.status_code, len(answer.json()["items"])) == (200, 2)
    assert (settings.home / "admin.key").read_text().strip() == found["key"] != first


def test_the_host_that_is_listened_on_may_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = http_arguments(Wanted(host="10.0.0.7"))
    assert load_http_settings(arguments).allowed_hosts == ("localhost", "127.0.0.1", "[::1]", "10.0.0.7")
    monkeypatch.setenv("EAGLERAY_HTTP_ALLOWED_HOSTS", "train.example.org")
    monkeypatch.setenv("EAGLERAY_HTTP_MAX_STREAMS", "7")
    found = load_http_settings(http_arguments(Wanted(host="10.0.0.7")))
    assert (found.allowed_hosts, found.max_streams) == (("train.example.org",), 7)


@pytest.mark.parametrize(("misses", "tries"), [(2, 3), (3, 3)])
def test_a_ray_that_misses_its_own_time_is_started_again_twice(
    misses: int, tries: int, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[int] = []
    started = ServerState(mark="m", pid=1, server="s", address="a", dashboard="d", temp_dir="t", started_at="now")

    def begin(*_: object) -> ServerState:
        begun.append(1)
        if len(begun) <= misses:
            raise ClusterError("Ray did not start: Exception: The current node timed out during startup. Perhaps")
        return started

    monkeypatch.setattr(module, "_begin_ray", begin)
    said = Calls()
    with pytest.raises(ClusterError) if misses == tries else nullcontext():
        assert module._start_ray(Wanted(), settings, ServerFolder(settings.home), said.append) is started
    assert len(begun) == tries


def test_a_ray_that_fails_otherwise_is_not_started_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []

    def begin(*_: object) -> ServerState:
        begun.append(1)
        raise ClusterError("Ray did not start: no space left on device")

    monkeypatch.setattr(module, "_begin_ray", begin)
    with pytest.raises(ClusterError, match="no space left"):
        module._start_ray(Wanted(), settings, ServerFolder(settings.home), Calls().append)
    assert len(begun) == 1
