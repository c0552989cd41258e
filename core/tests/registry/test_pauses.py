"""A writer that stood still for longer than its lease, and wakes when another has taken over, replaces nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from eagleray.registry import DatasetRegistry, removal
from eagleray.registry.lease import DatasetBusyError, Lease
from eagleray.storage.local import LocalStore
from eagleray.testing.data import write_detection_dataset

Read = Callable[[Path], dict[str, bytes]]
TTL_S = 0.6


class PausingStore(LocalStore):
    """Its process stands still from the first request that `where` picks until `go_on` is set."""

    def __init__(self, root: Path, where: Callable[[str, str], bool]) -> None:
        super().__init__(root)
        self._where = where
        self.stands = threading.Event()
        self.go_on = threading.Event()

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in ("put_bytes", "put_file", "copy", "delete", "delete_prefix", "list", "get_bytes"):
            return found

        def request(*args: Any, **kwargs: Any) -> Any:
            if not self.stands.is_set() and self._where(name, str(args[-1] if name == "copy" else args[0])):
                self.stands.set()
            if self.stands.is_set():
                self.go_on.wait(30)
            return found(*args, **kwargs)

        return request


@pytest.fixture(autouse=True)
def short_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(removal, "Lease", partial(Lease, ttl_s=TTL_S))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Two datasets with the same paths and other bytes."""
    one = write_detection_dataset(tmp_path / "one", images=5, size=32)
    other = write_detection_dataset(tmp_path / "other", images=5, size=40)
    for number, label in enumerate(sorted((other / "train/labels").iterdir())):
        label.write_text(f"0 0.5 0.5 0.{number + 1} 0.1\n")
    return one, other


def overtaken(
    paused: PausingStore, doing: Callable[[], object], meanwhile: Callable[[], object]
) -> BaseException | None:
    """What `doing` met, with `meanwhile` done as it stood still."""
    met: list[BaseException] = []

    def run() -> None:
        try:
            doing()
        except BaseException as error:
            met.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert paused.stands.wait(10)
    meanwhile()
    paused.go_on.set()
    thread.join(30)
    return met[0] if met else None


@pytest.mark.parametrize("picked", range(3))
def test_a_first_import_that_wakes_late_leaves_the_version_of_another_whole(
    picked: int, folders: tuple[Path, Path], tmp_path: Path, contents: Read
) -> None:
    seen = iter(range(100))
    root = tmp_path / "store"
    paused = PausingStore(root, lambda name, key: name == "put_file" and next(seen) == picked)
    late, registry = DatasetRegistry(paused), DatasetRegistry(LocalStore(root))
    one, other = folders
    met = overtaken(
        paused,
        lambda: late.import_folder(one, name="coins"),
        lambda: registry.import_folder(other, name="coins"),
    )
    assert isinstance(met, DatasetBusyError)
    assert [str(version) for version in registry.versions("coins")] == ["coins@1"]
    registry.export("coins@1", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(other)


def test_a_layout_that_wakes_late_moves_nothing_of_a_newer_one(
    folders: tuple[Path, Path], tmp_path: Path, contents: Read
) -> None:
    root = tmp_path / "store"
    one, other = folders
    registry = DatasetRegistry(LocalStore(root))
    registry.import_folder(one, name="coins")
    first = contents(one)
    for label in (one / "train/labels").iterdir():
        label.write_text("1 0.5 0.5 0.3 0.3\n")
    (one / "train/labels/train-0000.txt").write_text("0 0.4 0.4 0.3 0.3\n")
    paused = PausingStore(root, lambda name, key: name == "list" and key.endswith("/objects") and manifest.exists())
    manifest = root / f"datasets/{registry.find('coins').id}/versions/2.json"
    met = overtaken(
        paused,
        lambda: DatasetRegistry(paused).import_folder(one, name="coins"),
        lambda: registry.import_folder(other, name="coins"),
    )
    assert isinstance(met, DatasetBusyError)
    for number, state in ((1, first), (2, contents(one)), (3, contents(other))):
        registry.export(f"coins@{number}", tmp_path / f"out-{number}")
        assert contents(tmp_path / f"out-{number}") == state


def test_a_pause_in_which_nobody_came_costs_nothing(folders: tuple[Path, Path], tmp_path: Path, contents: Read) -> None:
    root = tmp_path / "store"
    paused = PausingStore(root, lambda name, key: name == "put_file")
    registry = DatasetRegistry(LocalStore(root))
    met = overtaken(
        paused,
        lambda: DatasetRegistry(paused).import_folder(folders[0], name="coins"),
        lambda: paused.go_on.wait(2 * TTL_S),
    )
    assert met is None
    registry.export("coins@1", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(folders[0])


def test_a_failed_import_leaves_nothing_in_the_way_of_the_next(
    folders: tuple[Path, Path], tmp_path: Path, contents: Read
) -> None:
    class Failing(LocalStore):
        def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
            if key.endswith("versions/1.json"):
                raise RuntimeError("after every file was stored")
            super().put_bytes(key, data, if_absent=if_absent)

    one, other = folders
    with pytest.raises(RuntimeError):
        DatasetRegistry(Failing(tmp_path / "store")).import_folder(one, name="coins")
    registry = DatasetRegistry(LocalStore(tmp_path / "store"))
    registry.import_folder(other, name="coins")
    registry.export("coins", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(other)
