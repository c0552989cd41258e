"""Whatever step a writer dies at, the versions before it are whole, and the next writer mends the rest."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eagleray.registry import DatasetRegistry, lease
from eagleray.storage.failpoints import NAMES
from eagleray.storage.local import LocalStore
from eagleray.testing.data import write_detection_dataset

Read = Callable[[Path], dict[str, bytes]]
CHANGES = ("put_bytes", "put_file", "copy", "delete", "delete_prefix")


class Died(Exception):
    """The process would be gone."""


class DyingStore(LocalStore):
    """Dies before its `left`-th change, and does nothing from then on."""

    def __init__(self, root: Path, left: int) -> None:
        super().__init__(root)
        self.left = left

    def __getattribute__(self, name: str) -> Any:
        found = super().__getattribute__(name)
        if name not in CHANGES:
            return found

        def change(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left < 0:
                raise Died(name)
            return found(*args, **kwargs)

        return change


def edit(folder: Path) -> None:
    """Change one file, swap two, rename one, remove one, add one."""
    (folder / "train/labels/train-0000.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    one, other = folder / "train/images/train-0001.png", folder / "train/images/train-0002.png"
    first = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(first)
    (folder / "train/images/train-0003.png").rename(folder / "train/images/renamed.png")
    (folder / "train/labels/train-0003.txt").rename(folder / "train/labels/renamed.txt")
    (folder / "notes.md").write_text("new")


def whole(registry: DatasetRegistry, reference: str, state: dict[str, bytes], into: Path, contents: Read) -> None:
    registry.export(reference, into)
    assert contents(into) == state


def no_orphans(registry: DatasetRegistry) -> None:
    """Every object but the records is one that a version needs."""
    with registry._writing("coins", "folder", lambda *_: None) as (_, writer):
        assert writer.sweep() == 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_detection_dataset(tmp_path / "source", images=5, size=32)


@pytest.fixture(autouse=True)
def dead_holders(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' writers die without their process."""
    monkeypatch.setattr(lease, "_is_dead", lambda content: True)


def died(do: Callable[..., object], *args: Any, **kwargs: Any) -> bool:
    try:
        do(*args, **kwargs)
    except Died:
        return True
    return False


def test_an_import_that_dies_at_any_change_harms_nothing(folder: Path, tmp_path: Path, contents: Read) -> None:
    step = 0
    while True:
        root = tmp_path / f"store-{step}"
        source = tmp_path / f"source-{step}"
        subprocess.run(["cp", "-r", folder, source], check=True)
        DatasetRegistry(LocalStore(root)).import_folder(source, name="coins")
        first = contents(source)
        edit(source)
        dying = DatasetRegistry(DyingStore(root, step))
        was_killed = died(dying.import_folder, source, name="coins")
        registry = DatasetRegistry(LocalStore(root))
        whole(registry, "coins@1", first, tmp_path / f"after-{step}", contents)
        for version in registry.versions("coins")[:-1]:
            whole(registry, str(version), contents(source), tmp_path / f"new-{step}", contents)
        registry.import_folder(source, name="coins")
        assert [version.number for version in registry.versions("coins")] == [2, 1]
        whole(registry, "coins@1", first, tmp_path / f"old-{step}", contents)
        whole(registry, "coins@2", contents(source), tmp_path / f"again-{step}", contents)
        no_orphans(registry)
        if not was_killed:
            break
        step += 1
    assert step > 15


def test_a_first_import_that_dies_at_any_change_shows_nothing_or_all(
    folder: Path, tmp_path: Path, contents: Read
) -> None:
    step = 0
    while True:
        root = tmp_path / f"store-{step}"
        dying = DatasetRegistry(DyingStore(root, step))
        was_killed = died(dying.import_folder, folder, name="coins")
        registry = DatasetRegistry(LocalStore(root))
        for record in registry.list():
            whole(registry, record.name, contents(folder), tmp_path / f"early-{step}", contents)
        registry.import_folder(folder, name="coins")
        assert [version.number for version in registry.versions("coins")] == [1]
        whole(registry, "coins", contents(folder), tmp_path / f"out-{step}", contents)
        no_orphans(registry)
        if not was_killed:
            break
        step += 1
    assert step > 15


@pytest.mark.parametrize("removed", [1, 2, 3])
def test_deleting_a_version_that_dies_at_any_change_harms_no_other(
    removed: int, folder: Path, tmp_path: Path, contents: Read
) -> None:
    step = 0
    while True:
        root = tmp_path / f"store-{step}"
        source = tmp_path / f"source-{step}"
        subprocess.run(["cp", "-r", folder, source], check=True)
        registry = DatasetRegistry(LocalStore(root))
        states = {}
        old = (source / "train/labels/train-0000.txt").read_bytes()
        for number in (1, 2, 3):
            if number == 2:
                edit(source)
            if number == 3:
                # Bytes that versions 1 and 3 share, and 2 has not.
                (source / "train/labels/train-0000.txt").write_bytes(old)
                (source / "more.md").write_text("more")
            registry.import_folder(source, name="coins")
            states[number] = contents(source)
        dying = DatasetRegistry(DyingStore(root, step))
        was_killed = died(dying.delete, "coins", version=removed)
        for version in registry.versions("coins"):
            out = tmp_path / f"out-{step}-{version.number}"
            whole(registry, str(version), states[version.number], out, contents)
        if removed in [version.number for version in registry.versions("coins")]:
            registry.delete("coins", version=removed)
        for version in registry.versions("coins"):
            out = tmp_path / f"end-{step}-{version.number}"
            whole(registry, str(version), states[version.number], out, contents)
        no_orphans(registry)
        if not was_killed:
            break
        step += 1
    assert step > 3


def test_a_removal_that_dies_at_any_change_leaves_all_or_nothing(folder: Path, tmp_path: Path, contents: Read) -> None:
    step = 0
    while True:
        root = tmp_path / f"store-{step}"
        registry = DatasetRegistry(LocalStore(root))
        registry.import_folder(folder, name="coins")
        dying = DatasetRegistry(DyingStore(root, step))
        was_killed = died(dying.delete, "coins")
        for record in registry.list():
            whole(registry, record.name, contents(folder), tmp_path / f"out-{step}", contents)
        registry.import_folder(folder, name="coins")
        whole(registry, "coins", contents(folder), tmp_path / f"again-{step}", contents)
        no_orphans(registry)
        if not was_killed:
            break
        step += 1
    assert step > 3


@pytest.mark.fault
@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith("dataset.")])
def test_a_process_that_is_killed_at_a_failpoint_harms_nothing(
    name: str, folder: Path, tmp_path: Path, contents: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    store = LocalStore(tmp_path / "store")
    registry = DatasetRegistry(store)
    registry.import_folder(folder, name="coins")
    first = contents(folder)
    edit(folder)
    code = f"""
        import sys
        from pathlib import Path
        from eagleray.registry import DatasetRegistry
        from eagleray.storage.local import LocalStore
        registry = DatasetRegistry(LocalStore(Path({str(store.root)!r})))
        registry.import_folder(Path({str(folder)!r}), name="coins")
        registry.delete("coins", version=2)
        registry.delete("coins")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env={**os.environ, "EAGLERAY_FAILPOINTS": f"{name}:kill"}
    )
    assert result.returncode == -signal.SIGKILL
    if name == "dataset.removal_begun":
        assert not registry.list()
    else:
        whole(registry, "coins@1", first, tmp_path / "out", contents)
    registry.import_folder(folder, name="coins")
    whole(registry, "coins", contents(folder), tmp_path / "again", contents)
    no_orphans(registry)
