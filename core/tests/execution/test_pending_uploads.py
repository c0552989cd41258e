"""Before a job goes on, what its attempts left on a node is brought into the store; an outage is waited for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from eagleray.contract.errors import StorageError
from eagleray.execution import pending_uploads
from eagleray.execution.pending_uploads import settle
from eagleray.settings import Settings
from eagleray.storage.checkpoints import Checkpoints
from eagleray.storage.local import LocalStore
from eagleray.storage.pending import Outbox

PREFIX = "checkpoints/test-jobs/job_7"


class OneNode:
    """A cluster of the driver's node alone."""

    driver_node_id = "here"

    def nodes(self) -> list[Any]:
        return []


class AwayStore(LocalStore):
    def __init__(self, root: Path, refusals: int) -> None:
        super().__init__(root)
        self.refusals = refusals

    def check(self) -> None:
        if self.refusals:
            self.refusals -= 1
            raise StorageError("Nothing answers.")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(tmp_path / "home", "", frozenset())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending_uploads, "POLL_S", 0.01)


def leave(store: LocalStore, settings: Settings, epoch: int) -> None:
    outbox = Outbox(settings.pending, store.location, 7, 1, PREFIX)
    facts: dict[str, Any] = {
        "metrics": {},
        "portable_file": "model.pt",
        "best_value": None,
        "best_epoch": None,
        "recent": {},
    }
    outbox.add("checkpoint", lambda folder: (folder / "model.pt").write_bytes(b"m"), facts, epoch=epoch)
    outbox.close()


def run(store: LocalStore, settings: Settings) -> list[str]:
    said: list[str] = []
    settle(OneNode(), store, settings, 7, said.append)  # type: ignore[arg-type]
    return said


def test_a_resume_finds_the_newer_checkpoint_that_was_kept_on_this_node(tmp_path: Path, settings: Settings) -> None:
    store = LocalStore(tmp_path / "store")
    leave(store, settings, 8)
    said = run(store, settings)
    newest = Checkpoints(store, PREFIX).newest_valid(pytest.fail)
    assert newest is not None
    assert newest.epoch == 8
    assert said == ["The checkpoint of epoch 8 was still on this node; it is in the store now."]
    assert run(store, settings) == []


def test_a_store_that_is_away_is_waited_for_and_that_is_said_once(tmp_path: Path, settings: Settings) -> None:
    store = AwayStore(tmp_path / "store", refusals=3)
    leave(store, settings, 8)
    said = run(store, settings)
    assert said[0] == "The next attempt waits for the store: Nothing answers."
    assert len(said) == 2
    assert Checkpoints(store, PREFIX).all()


def test_a_store_that_stays_away_is_an_error_in_the_end(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_uploads, "STORE_TIMEOUT_S", 0.05)
    with pytest.raises(StorageError, match="Nothing answers"):
        run(AwayStore(tmp_path / "store", refusals=10**6), settings)


def test_a_stop_is_heard_while_the_store_is_waited_for(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_uploads, "POLL_S", 30.0)
    store: Any = AwayStore(tmp_path / "store", refusals=10**6)
    cluster: Any = OneNode()
    started = time.monotonic()
    settle(cluster, store, settings, 7, lambda _: None, stopping=lambda: time.monotonic() - started > 0.1)
    assert time.monotonic() - started < 5


def test_a_stop_is_heard_while_a_node_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.wait", lambda references, timeout: ([], references))
    assert pending_uploads._result("never ready", stopping=lambda: True) is None
