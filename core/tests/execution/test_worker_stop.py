"""A graceful stop keeps every finished epoch, however rarely checkpoints are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from eagleray.contract.errors import WeightsError
from eagleray.execution import worker as module
from eagleray.execution.worker import WorkerHost
from eagleray.settings import Settings
from eagleray.storage.checkpoints import Checkpoints
from eagleray.storage.local import LocalStore

PREFIX = "checkpoints/test-jobs/job_7"


def save(folder: Path) -> None:
    (folder / "model.pt").write_bytes(b"m")


@pytest.fixture
def host(make_host: Callable[..., WorkerHost]) -> Iterator[WorkerHost]:
    made = make_host()
    yield made
    made.finish()


def stop(host: WorkerHost) -> None:
    host._channel.stop_requested.set()


def saved_epochs(host: WorkerHost, tmp_path: Path) -> list[int]:
    host.finish()
    return [manifest.epoch for manifest in Checkpoints(LocalStore(tmp_path / "store"), PREFIX).all()]


def test_a_stop_waits_for_the_epochs_end_while_finished_ones_are_in_no_checkpoint(
    host: WorkerHost, tmp_path: Path
) -> None:
    host.report(1, {}, save)
    stop(host)
    assert not host.should_stop()
    host.report(2, {}, save)
    assert host.should_stop()
    assert saved_epochs(host, tmp_path) == [2]


def test_a_stop_ends_at_once_where_all_finished_epochs_are_saved(host: WorkerHost) -> None:
    host.report(4, {}, save)
    stop(host)
    assert host.should_stop()


def test_a_stop_before_the_first_epochs_end_ends_at_once(host: WorkerHost) -> None:
    stop(host)
    assert host.should_stop()


def test_an_adapter_that_saves_nothing_is_not_kept_from_stopping(host: WorkerHost) -> None:
    host.report(1, {}, None)
    stop(host)
    assert host.should_stop()


def test_a_weights_file_that_another_node_lacks_is_a_sentence(
    told: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ray.util.get_node_ip_address", lambda: "10.0.0.2")
    settings = Settings(tmp_path / "home", "", frozenset())
    facts = told(pretrained=True, weights_file="/mine/my.pt", model={"weights": None, "name": "tiny"})
    with pytest.raises(WeightsError, match=r"'/mine/my\.pt' is not on node 10\.0\.0\.2"):
        module._weights(facts, settings, tmp_path, LocalStore(tmp_path / "store"))
