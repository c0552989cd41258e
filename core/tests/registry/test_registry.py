from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from eagleray.contract.errors import ConfigError, DatasetError, StorageError, UnknownNameError
from eagleray.registry import DatasetRegistry, Limits

Read = Callable[[Path], dict[str, bytes]]


def keys_of(registry: DatasetRegistry, folder: str) -> list[str]:
    dataset_id = registry.list()[0].id
    root = f"datasets/{dataset_id}/{folder}"
    return [info.key.removeprefix(f"{root}/") for info in registry.store.list(root)]


def relabel(folder: Path, row: str = "0 0.5 0.5 0.1 0.1\n") -> None:
    (folder / "train/labels/train-0000.txt").write_text(row)


def inodes(folder: Path) -> set[int]:
    return {path.stat().st_ino for path in folder.rglob("*") if path.is_file()}


def test_what_is_exported_in_another_format_shares_nothing_with_the_nodes_cache(
    registry: DatasetRegistry, folder: Path, tmp_path: Path
) -> None:
    registry.import_folder(folder, name="coins")
    for name in ("one", "two"):
        registry.export("coins", tmp_path / name, format="coco")
    files = registry._settings.cache / "files"
    assert inodes(files)
    assert not inodes(tmp_path / "one") & (inodes(tmp_path / "two") | inodes(files))


def test_an_imported_dataset_is_listed_with_its_figures(registry: DatasetRegistry, folder: Path) -> None:
    imported = registry.import_folder(folder, name="coins")
    (record,) = registry.list()
    assert imported.created
    assert str(imported.version) == "coins@1"
    assert (record.name, record.format, record.num_images, record.classes) == ("coins", "dice", 8, ("a", "b"))
    assert record.num_annotations == imported.version.num_annotations > 0
    assert record.source_type == "folder"
    assert record.storage_path == f"{registry.store.location}/datasets/{record.id}"


def test_it_lies_in_the_store_as_the_layout_says(registry: DatasetRegistry, folder: Path) -> None:
    registry.import_folder(folder, name="coins")
    assert "train/images/train-0000.png" in keys_of(registry, "images")
    assert set(keys_of(registry, "annotations")) >= {"data.yaml", "valid/labels/valid-0000.txt"}
    assert not keys_of(registry, "objects")
    assert re.fullmatch(r"1-[0-9a-f]{16}\.jsonl 1\.json", " ".join(keys_of(registry, "versions")))


def test_the_same_content_again_makes_no_new_version(registry: DatasetRegistry, folder: Path) -> None:
    registry.import_folder(folder, name="coins")
    again = registry.import_folder(folder, name="coins")
    assert not again.created
    assert "no new version" in str(again)
    assert [version.number for version in registry.versions("coins")] == [1]


def test_other_classes_are_another_version_though_no_picture_changed(registry: DatasetRegistry, folder: Path) -> None:
    first = registry.import_folder(folder, name="coins").version
    text = (folder / "data.yaml").read_text()
    (folder / "data.yaml").write_text(text.replace("0: a", "0: penny"))
    second = registry.import_folder(folder, name="coins").version
    assert (second.number, second.classes) == (2, ("penny", "b"))
    assert first.digest != second.digest


def test_unchanged_files_are_stored_once(registry: DatasetRegistry, folder: Path) -> None:
    registry.import_folder(folder, name="coins")
    before = len(keys_of(registry, "images")) + len(keys_of(registry, "annotations"))
    relabel(folder)
    registry.import_folder(folder, name="coins")
    assert len(keys_of(registry, "objects")) == 1
    assert len(keys_of(registry, "images")) + len(keys_of(registry, "annotations")) == before


def test_every_version_comes_back_as_it_was(
    registry: DatasetRegistry, folder: Path, tmp_path: Path, contents: Read
) -> None:
    states = []
    for step in range(4):
        if step:
            relabel(folder, f"1 0.5 0.5 0.{step} 0.1\n")
        if step == 2:
            (folder / "train/images/train-0001.png").rename(folder / "train/images/renamed.png")
            (folder / "train/labels/train-0001.txt").rename(folder / "train/labels/renamed.txt")
        registry.import_folder(folder, name="coins")
        states.append(contents(folder))
    for number, state in enumerate(states, start=1):
        registry.export(f"coins@{number}", tmp_path / str(number))
        assert contents(tmp_path / str(number)) == state


def test_going_back_to_older_content_stores_no_bytes_again(registry: DatasetRegistry, folder: Path) -> None:
    old = (folder / "train/labels/train-0000.txt").read_text()
    registry.import_folder(folder, name="coins")
    relabel(folder)
    registry.import_folder(folder, name="coins")
    relabel(folder, old)
    third = registry.import_folder(folder, name="coins")
    assert third.created
    assert third.version.digest == registry.show("coins@1").digest
    assert len(keys_of(registry, "objects")) == 1


def test_a_swap_of_two_files_keeps_both(
    registry: DatasetRegistry, folder: Path, tmp_path: Path, contents: Read
) -> None:
    registry.import_folder(folder, name="coins")
    old = contents(folder)
    one, other = folder / "train/images/train-0000.png", folder / "train/images/train-0001.png"
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    registry.import_folder(folder, name="coins")
    registry.export("coins", tmp_path / "new")
    registry.export("coins@1", tmp_path / "old")
    assert contents(tmp_path / "new") == contents(folder)
    assert contents(tmp_path / "old") == old


def test_a_file_may_become_a_folder_of_the_same_name(
    registry: DatasetRegistry, folder: Path, tmp_path: Path, contents: Read
) -> None:
    (folder / "notes.txt").write_text("one")
    registry.import_folder(folder, name="coins")
    (folder / "notes.txt").unlink()
    (folder / "notes.txt").mkdir()
    (folder / "notes.txt/a.txt").write_text("two")
    registry.import_folder(folder, name="coins")
    for reference in ("coins@1", "coins@2"):
        registry.export(reference, tmp_path / reference)
    assert contents(tmp_path / "coins@2") == contents(folder)
    assert contents(tmp_path / "coins@1")["notes.txt"] == b"one"


def test_a_faulty_dataset_is_refused_and_leaves_nothing(registry: DatasetRegistry, folder: Path) -> None:
    relabel(folder, "7 0.5 0.5 0.1 0.1\n")
    with pytest.raises(DatasetError, match=r"train-0000\.txt:1"):
        registry.import_folder(folder, name="coins")
    assert not registry.list()
    assert not list(registry.store.list(""))


def test_a_dataset_is_found_by_name_in_any_case_and_by_id(registry: DatasetRegistry, folder: Path) -> None:
    version = registry.import_folder(folder, name="Coins").version
    assert registry.show("coins") == registry.show(version.dataset_id) == registry.show(f"{version.dataset_id}@1")
    assert not registry.import_folder(folder, name="COINS").created


def test_an_unknown_dataset_names_the_nearest(registry: DatasetRegistry, folder: Path) -> None:
    registry.import_folder(folder, name="coins")
    with pytest.raises(UnknownNameError, match="Did you mean 'coins'"):
        registry.show("coin")
    with pytest.raises(UnknownNameError, match="has no version 7"):
        registry.show("coins@7")


def test_a_folder_may_become_a_file_of_the_same_name(
    registry: DatasetRegistry, folder: Path, tmp_path: Path, contents: Read
) -> None:
    (folder / "notes.txt").mkdir()
    (folder / "notes.txt/a.txt").write_text("one")
    registry.import_folder(folder, name="coins")
    (folder / "notes.txt/a.txt").unlink()
    (folder / "notes.txt").rmdir()
    (folder / "notes.txt").write_text("two")
    registry.import_folder(folder, name="coins")
    for reference in ("coins@1", "coins@2"):
        registry.export(reference, tmp_path / reference)
    assert contents(tmp_path / "coins@2") == contents(folder)
    assert contents(tmp_path / "coins@1")["notes.txt/a.txt"] == b"one"


def test_a_comparison_names_what_was_added_removed_changed_and_renamed(registry: DatasetRegistry, folder: Path) -> None:
    registry.import_folder(folder, name="coins")
    relabel(folder)
    (folder / "train/images/train-0002.png").rename(folder / "train/images/moved.png")
    (folder / "train/labels/train-0002.txt").rename(folder / "train/labels/moved.txt")
    (folder / "train/images/train-0003.png").unlink()
    (folder / "train/labels/train-0003.txt").unlink()
    (folder / "notes.md").write_text("new")
    registry.import_folder(folder, name="coins")
    found = registry.compare("coins@1", "coins@2")
    assert found.added == ("notes.md",)
    assert found.removed == ("train/images/train-0003.png", "train/labels/train-0003.txt")
    assert found.changed == ("train/labels/train-0000.txt",)
    assert found.renamed["train/images/train-0002.png"] == "train/images/moved.png"
    assert not found.same
    assert registry.compare("coins@2", "coins@2").same


def test_an_older_version_is_deleted_with_what_only_it_had(
    registry: DatasetRegistry, folder: Path, tmp_path: Path, contents: Read
) -> None:
    registry.import_folder(folder, name="coins")
    relabel(folder)
    registry.import_folder(folder, name="coins")
    registry.delete("coins", version=1)
    assert [version.number for version in registry.versions("coins")] == [2]
    assert not keys_of(registry, "objects")
    registry.export("coins", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(folder)


def test_deleting_the_newest_version_brings_the_one_before_back(
    registry: DatasetRegistry, folder: Path, tmp_path: Path, contents: Read
) -> None:
    registry.import_folder(folder, name="coins")
    state = contents(folder)
    relabel(folder)
    (folder / "more.md").write_text("more")
    registry.import_folder(folder, name="coins")
    registry.delete("coins", version=2)
    registry.export("coins", tmp_path / "out")
    assert contents(tmp_path / "out") == state
    assert not keys_of(registry, "objects")
    assert "more.md" not in keys_of(registry, "annotations")


def test_a_version_number_is_never_given_twice(registry: DatasetRegistry, folder: Path) -> None:
    registry.import_folder(folder, name="coins")
    relabel(folder)
    registry.import_folder(folder, name="coins")
    registry.delete("coins", version=2)
    relabel(folder, "1 0.5 0.5 0.2 0.2\n")
    assert registry.import_folder(folder, name="coins").version.number == 3


def test_the_only_version_goes_with_its_dataset(registry: DatasetRegistry, folder: Path) -> None:
    registry.import_folder(folder, name="coins")
    with pytest.raises(ConfigError, match="the only version"):
        registry.delete("coins", version=1)
    registry.delete("coins")
    assert not registry.list()
    assert not list(registry.store.list(""))
    assert registry.import_folder(folder, name="coins").version.number == 1


def test_export_never_writes_into_a_folder_that_holds_something(registry: DatasetRegistry, folder: Path) -> None:
    registry.import_folder(folder, name="coins")
    with pytest.raises(ConfigError, match="not an empty folder"):
        registry.export("coins", folder)


def test_damaged_bytes_are_never_exported(registry: DatasetRegistry, folder: Path, tmp_path: Path) -> None:
    record = registry.import_folder(folder, name="coins").version
    registry.store.put_bytes(f"datasets/{record.dataset_id}/images/train/images/train-0000.png", b"other")
    with pytest.raises(StorageError, match=r"train-0000\.png of coins@1"):
        registry.export("coins", tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_a_link_that_leads_out_of_the_folder_is_refused(
    registry: DatasetRegistry, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "train/labels/x.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(DatasetError, match="leads out of"):
        registry.import_folder(folder, name="coins")


def test_files_of_other_kinds_stay_out(registry: DatasetRegistry, folder: Path) -> None:
    (folder / "model.pkl").write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    version = registry.import_folder(folder, name="coins").version
    assert "model.pkl" in " ".join(version.warnings)
    assert "model.pkl" not in registry.files("coins")


def test_more_files_or_bytes_than_the_limits_allow_are_refused(registry: DatasetRegistry, folder: Path) -> None:
    with pytest.raises(DatasetError, match="more than 5 files"):
        registry.import_folder(folder, name="coins", limits=Limits(max_files=5))
    with pytest.raises(DatasetError, match="larger than 100 bytes"):
        registry.import_folder(folder, name="coins", limits=Limits(max_bytes=100))


def test_a_job_may_name_a_path_a_dataset_or_a_version(
    registry: DatasetRegistry, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = registry.import_folder(folder, name="coins").version
    assert registry.resolve("coins") == registry.resolve("coins@1") == registry.resolve(version.dataset_id) == version
    assert registry.resolve(str(folder)) == folder
    with pytest.raises(UnknownNameError):
        registry.resolve("dimes")
    monkeypatch.chdir(folder.parent)
    (folder.parent / "coins").mkdir()
    assert registry.resolve("coins") == Path("coins")
