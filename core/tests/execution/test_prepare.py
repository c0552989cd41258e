"""The environment on the nodes: built where a worker may land, its log passed on while it is made."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest

from eagleray.contract.errors import EnvironmentBuildError
from eagleray.execution import prepare as module
from eagleray.execution.cluster import Node
from eagleray.execution.prepare import build_in_steps, prepare_nodes
from eagleray.execution.room import Gang
from eagleray.execution.runtime_env import SWITCH
from eagleray.plugins.host import discover
from eagleray.settings import load_settings

GANG = Gang(1, {"CPU": 1.0})
PLUGIN = '[{"class":"eagleray.execution.runtime_env.EnvironmentPlugin"}]'


class HeadOnly:
    driver_node_id, driver_address = "head", "10.0.0.1"

    def nodes(self) -> list[Node]:
        return [Node("head", "10.0.0.1", {"CPU": 0.0})]


@pytest.fixture(autouse=True)
def nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "build_here", lambda *_: pytest.fail("nothing shall be built here"))
    monkeypatch.setattr(module, "BATCH_S", 0.01)


def prepared() -> str:
    cluster: Any = HeadOnly()
    environment = discover(load_settings()).framework("echo").framework.environment
    return prepare_nodes(cluster, environment, GANG, lambda _: None)


def test_a_head_that_takes_no_worker_builds_nothing_and_names_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, PLUGIN)
    python = prepared()
    assert python.startswith(f"{load_settings().environments}/echo-")
    assert python.endswith("/bin/python")


def test_nodes_to_come_that_could_not_build_it_are_said_before_they_are_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    with pytest.raises(EnvironmentBuildError, match="nodes that join later would not build"):
        prepared()


def test_lines_arrive_while_the_environment_is_built() -> None:
    heard = threading.Event()

    def build(say: Any) -> str:
        say("resolving")
        assert heard.wait(10)
        say("installed")
        return "/env/bin/python"

    steps = build_in_steps(build)
    assert next(steps) == {"lines": ["resolving"]}
    heard.set()
    assert list(steps) == [{"lines": ["installed"]}, {"python": "/env/bin/python"}]


def test_a_build_that_fails_ends_with_its_sentence() -> None:
    def build(say: Any) -> str:
        say("resolving")
        raise EnvironmentBuildError("No network.")

    assert list(build_in_steps(build)) == [{"lines": ["resolving"]}, {"error": "No network."}]


@pytest.fixture
def rayless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Streams are iterators that are always ready."""
    monkeypatch.setattr("ray.wait", lambda streams, timeout: (streams[:1], streams[1:]))
    monkeypatch.setattr("ray.get", lambda value: value)


@pytest.mark.usefixtures("rayless")
def test_each_nodes_lines_carry_its_address() -> None:
    said: list[str] = []
    streams: dict[str, Iterator[Any]] = {
        "10.0.0.2": iter([{"lines": ["a", "b"]}, {"python": "/p"}]),
        "10.0.0.3": iter([{"lines": ["c"]}, {"python": "/q"}]),
    }
    assert module._collect(streams, said.append) == {"10.0.0.2": "/p", "10.0.0.3": "/q"}
    assert said == ["10.0.0.2: a", "10.0.0.2: b", "10.0.0.3: c"]


@pytest.mark.usefixtures("rayless")
def test_a_node_that_cannot_build_it_is_named() -> None:
    with pytest.raises(EnvironmentBuildError, match=r"Node 10\.0\.0\.2 could not .*: No network"):
        module._collect({"10.0.0.2": iter([{"error": "No network."}])}, print)


def test_a_node_that_does_not_end_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.wait", lambda streams, timeout: ([], streams))
    with pytest.raises(EnvironmentBuildError, match=r"not built in time on 10\.0\.0\.2"):
        module._collect({"10.0.0.2": iter([])}, print)
