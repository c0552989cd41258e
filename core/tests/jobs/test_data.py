from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from eagleray.contract.errors import ClusterError, DatasetError, UnknownNameError
from eagleray.datasets import DatasetReport
from eagleray.jobs.data import VersionReport, address_of, read_data
from eagleray.jobs.spec import JobSpec
from eagleray.registry import DatasetRegistry
from eagleray.registry.progress import quiet
from eagleray.settings import Settings, load_settings
from eagleray.storage.local import LocalStore
from eagleray.testing.data import write_classification_dataset, write_detection_dataset


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("EAGLERAY_HOME", str(tmp_path / "home"))
    return replace(load_settings(), home=tmp_path / "home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_detection_dataset(tmp_path / "coins")


def read(
    store: LocalStore, path: str, task: str = "object-detection", formats: tuple[str, ...] = ("dice",)
) -> DatasetReport:
    spec = JobSpec(framework="f", model_name="m", dataset_path=path)
    return read_data(spec, task, formats, store, rules=None, progress=quiet)


def test_a_version_is_planned_from_its_manifest_alone(store: LocalStore, settings: Settings, folder: Path) -> None:
    version = DatasetRegistry(store, settings).import_dataset(folder).version
    plain = read(store, str(folder))
    store.delete_prefix(f"datasets/{version.dataset_id}/images")
    report = read(store, "coins@1")
    assert isinstance(report, VersionReport)
    assert report.counts() == {**plain.counts(), "id": version.dataset_id, "name": "coins", "version": 1} | {
        "digest": version.digest
    }
    assert address_of(report) == f"{version.dataset_id}@1"


def test_a_folder_stays_a_folder(store: LocalStore, settings: Settings, folder: Path) -> None:
    report = read(store, str(folder))
    assert not isinstance(report, VersionReport)
    assert address_of(report) == str(folder.resolve())


def test_a_name_that_is_neither_a_dataset_nor_a_folder_is_told_as_both(store: LocalStore, settings: Settings) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown dataset 'dimes'\. There is no folder 'dimes' either\."):
        read(store, "dimes")


def test_a_version_for_another_task_is_refused(store: LocalStore, settings: Settings, folder: Path) -> None:
    DatasetRegistry(store, settings).import_dataset(folder)
    with pytest.raises(DatasetError, match="was imported for object-detection"):
        read(store, "coins", "image-segmentation")
    assert read(store, "coins", "zero-shot-object-detection").dataset.task == "zero-shot-object-detection"


def test_a_format_that_cannot_become_what_the_plugin_wants_is_refused(
    store: LocalStore, settings: Settings, folder: Path
) -> None:
    with pytest.raises(DatasetError, match="cannot become one of imagefolder"):
        read(store, str(folder), formats=("imagefolder",))


def payload_of(report: DatasetReport, formats: list[str]) -> dict[str, Any]:
    version = report.version if isinstance(report, VersionReport) else None
    facts = asdict(report.dataset)
    facts["path"] = str(facts["path"])
    chosen = version.model_dump(include={"dataset_id", "number", "digest"}) if version else None
    return {"dataset": facts, "dataset_version": chosen, "dataset_formats": formats}


def test_a_worker_gets_a_version_by_its_nodes_cache(
    store: LocalStore, settings: Settings, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from eagleray.execution.worker_data import dataset_of

    DatasetRegistry(store, settings).import_dataset(folder)
    report = read(store, "coins")
    payload = payload_of(report, ["dice"])
    with ExitStack() as held:
        first = dataset_of(payload, settings, tmp_path / "work1", store, held)
        assert first == replace(report.dataset, path=tmp_path / "work1" / "dataset")
        # A second job on the node: not one byte of data is fetched.
        monkeypatch.setattr(store, "fetch_file", None)
        second = dataset_of(payload, settings, tmp_path / "work2", store, held)
    for path in folder.rglob("*.*"):
        assert (second.path / path.relative_to(folder)).read_bytes() == path.read_bytes()


def test_a_worker_gets_the_form_that_its_framework_trains_from(
    store: LocalStore, settings: Settings, folder: Path, tmp_path: Path
) -> None:
    from eagleray.execution.worker_data import dataset_of

    DatasetRegistry(store, settings).import_dataset(folder)
    with ExitStack() as held:
        for number, name in enumerate((str(folder), "coins")):
            payload = payload_of(read(store, name, formats=("coco",)), ["coco"])
            found = dataset_of(payload, settings, tmp_path / f"work{number}", store, held)
            assert (found.format, found.num_images) == ("coco", 8)


def test_a_worker_that_does_not_see_the_folder_says_what_to_do(
    store: LocalStore, settings: Settings, folder: Path, tmp_path: Path
) -> None:
    from eagleray.execution.worker_data import dataset_of

    payload = payload_of(read(store, str(folder)), ["dice"])
    folder.rename(tmp_path / "elsewhere")
    with ExitStack() as held, pytest.raises(ClusterError, match="not visible") as caught:
        dataset_of(payload, settings, tmp_path / "work", store, held)
    assert "datasets import" in caught.value.hint


def test_a_version_made_anew_under_the_same_number_is_not_trained_on(
    store: LocalStore, settings: Settings, folder: Path, tmp_path: Path
) -> None:
    from eagleray.execution.worker_data import dataset_of

    DatasetRegistry(store, settings).import_dataset(folder)
    payload = payload_of(read(store, "coins"), ["dice"])
    payload["dataset_version"]["digest"] = "0" * 64
    with ExitStack() as held, pytest.raises(DatasetError, match="no longer what this job was planned with"):
        dataset_of(payload, settings, tmp_path / "work", store, held)


def test_classification_versions_keep_their_splits(store: LocalStore, settings: Settings, tmp_path: Path) -> None:
    folder = write_classification_dataset(tmp_path / "shapes")
    DatasetRegistry(store, settings).import_dataset(folder)
    report = read(store, "shapes", "image-classification", ("imagefolder",))
    assert report.dataset.splits == read(store, str(folder), "image-classification", ("imagefolder",)).dataset.splits
