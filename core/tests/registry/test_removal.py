"""What first imports and removals that broke off have left is deleted by name, and swept when it is old."""

from __future__ import annotations

from pathlib import Path

import pytest

from eagleray.contract.errors import UnknownNameError
from eagleray.registry import DatasetRegistry, ImportOptions, lease, sweep_datasets
from eagleray.registry.models import NotOwnedError
from eagleray.storage.local import LocalStore


class Killed(BaseException):
    pass


class KilledStore(LocalStore):
    """Its process is killed when it first does `method` to a key that ends with `end`."""

    def __init__(self, root: Path, method: str, end: str) -> None:
        super().__init__(root)
        self.at: tuple[str, str] | None = (method, end)

    def _meet(self, method: str, key: str) -> None:
        if self.at is not None and (self.at == ("", "") or (method == self.at[0] and key.endswith(self.at[1]))):
            self.at = ("", "")
            raise Killed

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        self._meet("put_bytes", key)
        super().put_bytes(key, data, if_absent=if_absent)

    def delete(self, key: str) -> None:
        self._meet("delete", key)
        super().delete(key)

    def delete_prefix(self, prefix: str) -> None:
        self._meet("delete_prefix", prefix)
        super().delete_prefix(prefix)


@pytest.fixture(autouse=True)
def dead_holders(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' writers die without their process."""
    monkeypatch.setattr(lease, "_is_dead", lambda content: True)


def left_by(kind: str, root: Path, folder: Path) -> LocalStore:
    """The store after a process was killed in a first import, before its record, or in a removal."""
    method, end = {
        "import": ("put_bytes", "versions/1.json"),
        "name": ("put_bytes", "dataset.json"),
        "removal": ("delete_prefix", "images"),
    }[kind]
    if kind == "removal":
        DatasetRegistry(LocalStore(root)).import_folder(folder, name="coins")
    dying = DatasetRegistry(KilledStore(root, method, end))
    with pytest.raises(Killed):
        if kind == "removal":
            dying.delete("coins")
        else:
            dying.import_folder(folder, name="coins")
    return LocalStore(root)


@pytest.mark.parametrize("kind", ["import", "name", "removal"])
def test_what_broke_off_is_deleted_by_its_name(kind: str, tmp_path: Path, folder: Path) -> None:
    store = left_by(kind, tmp_path / "store", folder)
    assert list(store.list("dataset_names"))
    DatasetRegistry(store).delete("coins")
    assert [info.key for info in store.list("")] == []


def test_what_broke_off_is_deleted_by_its_id(tmp_path: Path, folder: Path) -> None:
    store = left_by("import", tmp_path / "store", folder)
    (dataset_id,) = store.list_folders("datasets")
    DatasetRegistry(store).delete(dataset_id)
    assert [info.key for info in store.list("")] == []


@pytest.mark.parametrize("kind", ["import", "name", "removal"])
def test_what_broke_off_long_ago_is_swept(kind: str, tmp_path: Path, folder: Path) -> None:
    store = left_by(kind, tmp_path / "store", folder)
    assert sweep_datasets(store, 60.0) == []
    (swept,) = sweep_datasets(store, -1.0, dry_run=True)
    assert list(store.list("dataset_names"))
    assert sweep_datasets(store, -1.0) == [swept]
    assert [info.key for info in store.list("")] == []


def test_a_dataset_with_a_version_is_never_swept(registry: DatasetRegistry, folder: Path) -> None:
    registry.import_folder(folder, name="coins")
    before = [info.key for info in registry.store.list("")]
    assert sweep_datasets(registry.store, -1.0) == []
    assert [info.key for info in registry.store.list("")] == before


def test_an_import_that_ends_while_the_sweep_waits_for_it_stays(
    registry: DatasetRegistry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eagleray.registry import removal

    real = removal.lease_of

    def import_first(*args: object) -> object:
        monkeypatch.setattr(removal, "lease_of", real)
        registry.import_folder(folder, name="coins")
        return real(*args)  # type: ignore[arg-type]

    registry.store.put_bytes("dataset_names/coins.json", b'{"id": "0b7c1f0e-6f0e-4c39-9a53-3a3b3c8f1a11"}')
    monkeypatch.setattr(removal, "lease_of", import_first)
    assert sweep_datasets(registry.store, -1.0) == []
    assert [record.name for record in registry.list()] == ["coins"]


def test_what_was_never_there_cannot_be_deleted(registry: DatasetRegistry) -> None:
    for name in ("coins", "0b7c1f0e-6f0e-4c39-9a53-3a3b3c8f1a11"):
        with pytest.raises(UnknownNameError):
            registry.delete(name)


def test_who_may_change_only_their_own_adds_no_version_to_anothers(registry: DatasetRegistry, folder: Path) -> None:
    anna, eve = (ImportOptions(created_by=name, only_own=True) for name in ("anna", "eve"))
    registry.import_folder(folder, name="coins", options=anna)
    (folder / "notes.md").write_text("changed")
    with pytest.raises(NotOwnedError, match="imported by someone else"):
        registry.import_folder(folder, name="coins", options=eve)
    assert registry.import_folder(folder, name="coins", options=anna).version.number == 2
