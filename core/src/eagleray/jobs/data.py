"""The dataset of a job: a folder that is read now, or a version whose manifest has all that planning needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from eagleray.contract import Dataset
from eagleray.contract.errors import DatasetError
from eagleray.datasets import DatasetReport, read_dataset
from eagleray.datasets.convert import BOXES
from eagleray.datasets.prepare import form_for
from eagleray.jobs.spec import JobSpec
from eagleray.registry import DatasetRegistry, DatasetVersion, ImportOptions, Progress, SourceRules
from eagleray.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class VersionReport(DatasetReport):
    """A version's figures, from its manifest; `dataset.path` is empty, since each worker fetches the files."""

    version: DatasetVersion

    def counts(self) -> dict[str, object]:
        """As a folder's, and which version it is."""
        return {
            **super().counts(),
            "id": self.version.dataset_id,
            "name": self.version.name,
            "version": self.version.number,
            "digest": self.version.digest,
        }


@dataclass(frozen=True, kw_only=True)
class AddressReport(DatasetReport):
    """A dataset that is at an address still; what is in it shows when it is imported."""

    address: str

    def counts(self) -> dict[str, object]:
        """No figures: where it would be imported from. Neither a password nor a token of the address is repeated."""
        parts = urlsplit(self.address)
        source = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        note = f"would be imported from {source}, and is checked and counted then"
        return {"source": source, "note": note}


def read_data(
    spec: JobSpec,
    task: str,
    wanted_formats: Sequence[str],
    store: Store,
    *,
    rules: SourceRules | None,
    progress: Progress,
    import_addresses: bool = True,
) -> DatasetReport:
    """The dataset that `spec` names, checked for `task`.

    Args:
        import_addresses: False: one at an address is neither fetched nor checked.
        wanted_formats: what the plugin trains from; workers make one of them of any other format.

    Raises:
        DatasetError: it is faulty, is for another task, or cannot become what the plugin wants.
        UnknownNameError: there is no such dataset or version.
    """
    if not import_addresses and "://" in spec.dataset_path:
        unread = Dataset(Path(), spec.dataset_format or "", task, (), {})
        return AddressReport(unread, (), address=spec.dataset_path)
    options = ImportOptions(task=task, format=spec.dataset_format)
    found = DatasetRegistry(store).resolve(spec.dataset_path, options=options, rules=rules, progress=progress)
    if isinstance(found, Path):
        report = read_dataset(found, task, spec.dataset_format)
        what = str(found)
    else:
        report, what = _of_version(found, task), str(found)
    form_for(report.dataset.format, task, wanted_formats, what)
    return report


def address_of(report: DatasetReport) -> str:
    """What names the dataset in a record, also from another folder and when the name is given to another dataset."""
    if isinstance(report, AddressReport):
        return report.address
    if isinstance(report, VersionReport):
        return f"{report.version.dataset_id}@{report.version.number}"
    return str(report.dataset.path.resolve())


def _of_version(version: DatasetVersion, task: str) -> VersionReport:
    if task != version.task and not {task, version.task} <= set(BOXES):
        raise DatasetError(
            f"{version} was imported for {version.task}, and the job is for {task}.",
            f"Import it again for that task: eagleray datasets import SOURCE --name {version.name} --task {task}",
        )
    # The version's own warnings were said when it was imported.
    return VersionReport(replace(version.dataset(Path()), task=task), (), version=version)
