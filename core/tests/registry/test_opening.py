from __future__ import annotations

import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from eagleray.contract.errors import ConfigError, DatasetError
from eagleray.registry import DatasetRegistry, ImportOptions, Limits, SourceRules
from eagleray.registry.files import dump_files, sha256_of
from eagleray.registry.placing import Layout
from eagleray.registry.progress import quiet
from eagleray.registry.sources.opening import dataset_folder, name_from, open_source
from eagleray.registry.sources.temporary import temporary_folder
from eagleray.storage.store import FileEntry

Read = Callable[[Path], dict[str, bytes]]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("/data/My coins/", "My-coins"),
        ("coins.tar.gz", "coins"),
        ("COINS.ZIP", "COINS"),
        ("s3://bucket/raw/coins", "coins"),
        ("https://example.org/a/coins%20v2.zip?token=secret", "coins-v2"),
        ("https://example.org/a/..%2F..%2Fetc%2Fpasswd", "passwd"),
        ("/data/.hidden", "hidden"),
    ],
)
def test_a_source_gives_a_name_that_is_one(source: str, name: str) -> None:
    assert name_from(source) == name


@pytest.mark.parametrize("source", ["https://example.org/", "s3://bucket", "/data/___/", "https://example.org/%20"])
def test_a_source_without_a_name_asks_for_one(source: str) -> None:
    with pytest.raises(ConfigError, match="gives the dataset no name"):
        name_from(source)


def test_a_folder_that_only_wraps_the_dataset_is_passed_through(tmp_path: Path) -> None:
    (tmp_path / "a/b/train").mkdir(parents=True)
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / ".DS_Store").touch()
    assert dataset_folder(tmp_path) == tmp_path / "a/b"


def test_paths_of_the_machine_are_not_for_others(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match="is a path"),
        open_source(str(tmp_path), tmp_path, SourceRules(paths=False), Limits(), quiet),
    ):
        pass


def test_what_a_killed_import_left_goes_with_the_next(tmp_path: Path) -> None:
    code = f"""
        import os
        from pathlib import Path
        from eagleray.registry.sources.temporary import temporary_folder
        with temporary_folder(Path({str(tmp_path)!r})) as folder:
            (folder / "half").write_text("half")
            os.kill(os.getpid(), 9)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)])
    assert len(list(tmp_path.rglob("half"))) == 1
    with temporary_folder(tmp_path) as mine:
        assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [mine.name]
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_not_swept(tmp_path: Path) -> None:
    with temporary_folder(tmp_path) as mine, temporary_folder(tmp_path):
        assert mine.is_dir()


def test_an_import_may_be_edited_and_named_for_another_task(registry: DatasetRegistry, folder: Path) -> None:
    whole = registry.import_folder(folder, name="coins").version
    options = ImportOptions(task="zero-shot-object-detection")
    other = registry.import_folder(folder, name="coins", options=options)
    assert (other.created, other.version.task) == (True, "zero-shot-object-detection")
    assert other.version.num_annotations == whole.num_annotations


def test_class_counts_of_a_version_add_up(registry: DatasetRegistry, folder: Path) -> None:
    version = registry.import_folder(folder, name="coins").version
    assert sum(version.class_counts.values()) == version.num_annotations
    assert set(version.class_counts) == {"a", "b"}


def test_other_counts_of_the_same_bytes_are_the_same_version(registry: DatasetRegistry, folder: Path) -> None:
    """The digest is of what is trained on, so a better way of counting makes no new versions."""
    first = registry.import_folder(folder, name="coins").version
    second = registry.import_folder(folder, name="others").version
    assert first.digest == second.digest


def entries(count: int) -> dict[str, FileEntry]:
    return {
        f"train/images/{number:07d}.jpg": FileEntry.model_construct(sha256=f"{number:064x}", size_bytes=number)
        for number in range(count)
    }


@pytest.mark.parametrize("count", [1000, 100_000])
def test_a_large_dataset_is_placed_and_listed_in_linear_time_and_memory(count: int) -> None:
    """A tenth of a million files; a million takes ten times of both."""
    files = entries(count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    data = dump_files(files)
    assert len(data) < 200 * count
    layout = Layout("0" * 36, 1, files)
    assert sum(1 for key, _ in layout.locate(1, files).values() if "/images/" in key) == count
    assert len(sha256_of(data)) == 64
    grown_mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_mib < 20 + count * 2000 / (1 << 20)


def test_too_many_files_are_refused_before_any_is_read(
    registry: DatasetRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "many").mkdir()
    for number in range(60):
        (tmp_path / "many" / f"{number}.txt").touch()
    monkeypatch.setattr("eagleray.registry.check.check_dataset", None)
    with pytest.raises(DatasetError, match="more than 50 files"):
        registry.import_folder(tmp_path / "many", name="many", limits=Limits(max_files=50))
