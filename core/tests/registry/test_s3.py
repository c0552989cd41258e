"""Versions on a real S3 server: the whole life of a dataset, and an import from a bucket."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from eagleray.contract.errors import ConfigError, DatasetError
from eagleray.registry import DatasetRegistry, SourceRules
from eagleray.settings import load_settings
from eagleray.storage.cache import NodeCache
from eagleray.storage.s3.store import S3Store
from eagleray.testing.s3_server import SeaweedServer, seaweed

Read = Callable[[Path], dict[str, bytes]]
BUCKET = "datasets"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    with seaweed(tmp_path_factory.mktemp("s3")) as running:
        running.make_bucket(BUCKET)
        yield running


@pytest.fixture
def bucket(server: SeaweedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Store]:
    """A prefix of this test's own, also for whoever opens the same address from the environment."""
    access = server.access
    monkeypatch.setenv("AWS_S3_ENDPOINT_URL", str(access.endpoint_url))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", str(access.access_key_id))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", str(access.secret_access_key))
    monkeypatch.setenv("EAGLERAY_HOME", str(tmp_path / "home"))
    store = S3Store.open(f"s3://{BUCKET}/{uuid.uuid4().hex}", access, state=tmp_path / "uploads")
    yield store
    store.close()


@pytest.fixture
def versions(bucket: S3Store, tmp_path: Path) -> DatasetRegistry:
    return DatasetRegistry(bucket, replace(load_settings(), home=tmp_path / "home"))


def test_a_dataset_lives_its_whole_life_in_a_bucket(
    versions: DatasetRegistry, bucket: S3Store, folder: Path, tmp_path: Path, contents: Read
) -> None:
    first = contents(folder)
    assert versions.import_folder(folder, name="coins").created
    assert not versions.import_folder(folder, name="coins").created
    (folder / "train/labels/train-0000.txt").write_text("0 .5 .5 .1 .1\n")
    second = versions.import_folder(folder, name="coins").version
    assert versions.compare("coins@1", "coins@2").changed == ("train/labels/train-0000.txt",)
    versions.export("coins@1", tmp_path / "one")
    assert contents(tmp_path / "one") == first
    versions.fetch(second, NodeCache(tmp_path / "cache"), tmp_path / "two")
    assert contents(tmp_path / "two") == contents(folder)
    versions.delete("coins", version=1)
    assert not list(bucket.list(f"datasets/{second.dataset_id}/objects"))
    versions.delete("coins")
    assert not list(bucket.list(""))


def test_a_dataset_is_imported_from_a_prefix_of_a_bucket(
    versions: DatasetRegistry, bucket: S3Store, folder: Path, tmp_path: Path, contents: Read
) -> None:
    for path in folder.rglob("*.*"):
        bucket.put_file(f"raw/My coins/{path.relative_to(folder).as_posix()}", path)
    imported = versions.import_dataset(f"{bucket.location}/raw/My coins")
    assert (imported.version.name, imported.version.source.type) == ("My-coins", "s3")
    versions.export("My-coins", tmp_path / "out")
    assert contents(tmp_path / "out") == contents(folder)
    assert not list((tmp_path / "home/imports").glob("*"))


def test_a_prefix_with_nothing_in_it_is_told(versions: DatasetRegistry, bucket: S3Store) -> None:
    with pytest.raises(DatasetError, match="nothing at"):
        versions.import_dataset(f"{bucket.location}/nothing")


def test_another_bucket_is_refused_for_others(versions: DatasetRegistry, bucket: S3Store) -> None:
    rules = SourceRules(paths=False, buckets=frozenset({"allowed"}))
    with pytest.raises(ConfigError, match="Nothing may be imported"):
        versions.import_dataset(f"{bucket.location}/x", rules=rules)
