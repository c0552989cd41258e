"""Whole jobs on datasets of a bucket: the real server, behind a proxy that counts what is asked of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eagleray.registry import DatasetRegistry
from eagleray.settings import load_settings
from eagleray.storage.s3.store import S3Store
from eagleray.testing.s3_proxy import Request, StrictProxy, strict_proxy
from eagleray.testing.s3_server import SeaweedServer, seaweed

from .conftest import Home

pytestmark = pytest.mark.cluster
ECHO = ("train", "--framework", "echo", "--model", "echo-linear", "--batch-size", "4", "--no-pretrained")
LOCATION = "s3://jobs/team"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SeaweedServer]:
    folder = tmp_path / "s3"
    folder.mkdir()
    with seaweed(folder) as running:
        running.make_bucket("jobs")
        yield running


@pytest.fixture
def proxy(server: SeaweedServer) -> Iterator[StrictProxy]:
    with strict_proxy(server) as running:
        yield running


@pytest.fixture
def store(server: SeaweedServer) -> Iterator[S3Store]:
    opened = S3Store.open(LOCATION, server.access)
    yield opened
    opened.close()


@pytest.fixture
def s3_home(home: Home, proxy: StrictProxy) -> Home:
    home.environ.update(proxy.environ, EAGLERAY_STORAGE=LOCATION)
    return home


def reads_a_dataset(request: Request) -> bool:
    folders = ("/images/", "/annotations/", "/objects/")
    return request.reads_data and "/datasets/" in f"/{request.key}" and any(one in request.key for one in folders)


def trained(home: Home, store: S3Store, job_id: int, *arguments: str) -> dict[str, Any]:
    """The record of a job that went through."""
    code, training = home.run(*ECHO, "--epochs", "1", *arguments)
    assert code == 0, (training.events[-2:], training.errors)
    record: dict[str, Any] = json.loads(store.get_bytes(f"jobs/{job_id}.json"))
    assert (record["status"], record["epochs_done"]) == ("completed", 1)
    return record


@pytest.fixture
def registry(store: S3Store, tmp_path: Path) -> DatasetRegistry:
    return DatasetRegistry(store, replace(load_settings(), home=tmp_path / "importer"))


def test_jobs_train_on_a_version_of_the_bucket_and_fetch_it_once(
    s3_home: Home, registry: DatasetRegistry, store: S3Store, proxy: StrictProxy, pictures: Path
) -> None:
    version = registry.import_folder(pictures, name="shapes").version

    trained(s3_home, store, 1, "--data", "shapes@1")
    assert proxy.count(reads_a_dataset) >= version.num_files
    assert store.exists("checkpoints/test-jobs/job_1/last.pt")

    proxy.forget()
    trained(s3_home, store, 2, "--data", "shapes@1", "--project", "birds")
    assert proxy.count(reads_a_dataset) == 0, "the node has it already"
    assert store.exists("checkpoints/projects/birds/jobs/2/last.pt")


def test_a_job_imports_what_an_address_in_the_bucket_names(
    s3_home: Home, registry: DatasetRegistry, server: SeaweedServer, store: S3Store, pictures: Path
) -> None:
    raw = S3Store.open("s3://jobs/raw/leaves", server.access)
    for path in pictures.rglob("*.*"):
        raw.put_file(path.relative_to(pictures).as_posix(), path)
    raw.close()
    record = trained(s3_home, store, 1, "--data", "s3://jobs/raw/leaves")
    version = registry.show("leaves@1")
    assert (record["dataset"]["digest"], version.source.type) == (version.digest, "s3")
    assert store.exists("checkpoints/test-jobs/job_1/last.pt")
    assert not (s3_home.path / "storage").exists()
