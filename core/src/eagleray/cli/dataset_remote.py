"""`eagleray datasets` with a server: the same commands, done there; what lies here is packed and sent."""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eagleray.cli.jobs import connected
from eagleray.contract.errors import ConfigError, DatasetError
from eagleray.registry import DatasetVersion, Imported, Limits, Progress, parse_reference
from eagleray.registry.check import list_contents
from eagleray.registry.sources.archive import unpack
from eagleray.registry.sources.opening import name_from

if TYPE_CHECKING:
    from eagleray.client import Client
    from eagleray.datasets import Edit

Fields = dict[str, Any]


@dataclass(frozen=True)
class RemoteVersion:
    """A version of a server's dataset."""

    client: Client
    dataset: str
    number: int

    def __str__(self) -> str:
        return f"{self.dataset}@{self.number}"

    def read(self) -> DatasetVersion:
        return DatasetVersion.model_validate(self.client.datasets.version(self.dataset, self.number))


@contextmanager
def remote_version(server: str, reference: str) -> Iterator[RemoteVersion]:
    """The version that `reference` names at the server; the newest where it names none."""
    parsed = parse_reference(reference)
    with connected(server) as client:
        found = client.datasets.show(parsed.dataset)
        yield RemoteVersion(client, found["name"], parsed.version or int(found["version"]))


def import_remotely(server: str, source: str, wish: Fields, progress: Progress) -> Imported:
    """Have `source` imported by the server; a path of this machine is sent to it."""
    wish = {**wish, "name": wish["name"] or name_from(source)}
    with connected(server) as client:
        if "://" in source:
            begun = client.datasets.import_dataset({**wish, "source": source})
        else:
            with _archive_of(Path(source).expanduser(), progress) as archive:
                upload_id = client.datasets.upload(archive, progress=progress)
            begun = client.datasets.import_dataset({**wish, "upload_id": upload_id})
        return _imported(client, client.datasets.wait(begun, progress=progress))


def mend_remotely(version: RemoteVersion, *, allow_loss: bool, progress: Progress) -> Imported:
    begun = version.client.datasets.mend(version.dataset, version.number, allow_loss=allow_loss)
    return _imported(version.client, version.client.datasets.wait(begun, progress=progress))


def export_remotely(
    version: RemoteVersion, into: Path, progress: Progress, *, format: str | None = None, **changes: Any
) -> Fields | None:
    """The version's files in the folder `into`; in another format, or changed, what is lost is in the answer."""
    # Saves commands without a server the formats.
    from eagleray.datasets.writing import new_folder  # noqa: PLC0415

    into = into.expanduser().absolute()
    datasets = version.client.datasets
    done = None
    with new_folder(into) as folder, tempfile.TemporaryDirectory(prefix="eagleray-", dir=into.parent) as temporary:
        archive = Path(temporary) / "archive.zip"
        if format is None:
            progress("downloading", 0, None)
            datasets.archive(version.dataset, version.number, archive)
        else:
            begun = datasets.convert(version.dataset, version.number, format, **changes)
            done = datasets.wait(begun, progress=progress)
            datasets.result(done, archive)
        unpack(archive, folder, Limits(), progress, what=str(version))
    return done


def compare_remotely(server: str, a: str, b: str) -> Fields:
    """Raises ConfigError: they are versions of two datasets, which a server does not compare."""
    one, other = parse_reference(a), parse_reference(b)
    with connected(server) as client:
        if one.dataset != other.dataset:
            raise ConfigError(f"A server compares versions of one dataset, not {a} with {b}.", f"Example: {b}@1 {b}@2")
        newest = one.version or int(client.datasets.show(one.dataset)["version"])
        return client.datasets.compare(one.dataset, newest, other.version)


def changes_of(edit: Edit | None, validation: float | None) -> Fields:
    """What shall be otherwise in a copy, as the API says it."""
    if edit is None:
        return {}
    return {
        "validation": validation,
        "keep_classes": list(edit.keep) if edit.keep else None,
        "rename_classes": dict(edit.rename),
        "splits": dict(edit.splits),
    }


def refuse(server: str, **given: object) -> None:
    """Raises ConfigError where one of the options is given, which a server does not take."""
    for name, value in given.items():
        if value is not None:
            raise ConfigError(
                f"--{name} does not work with a stored version of a server: it was kept for its own {name}.",
                f"Leave it out, or export the version from {server} and work on the folder.",
            )


def _imported(client: Client, done: Fields) -> Imported:
    version = RemoteVersion(client, done["name"], done["version"]).read()
    return Imported(version, created=done["created"], done=tuple(done["mended"]))


@contextmanager
def _archive_of(path: Path, progress: Progress) -> Iterator[Path]:
    """`path` where it is an archive, else the folder packed so that the same files give the same bytes."""
    if not path.exists():
        raise DatasetError(f"There is nothing at {path}.", "Name a folder, an archive, or an address.")
    if path.is_file() and path.suffix.lower() not in (".yaml", ".yml"):
        yield path
        return
    folder = path if path.is_dir() else path.parent
    files = list_contents(folder, Limits()).taken
    with tempfile.TemporaryDirectory(prefix="eagleray-") as temporary:
        archive = Path(temporary) / f"{folder.resolve().name}.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as packed:
            for done, (name, file) in enumerate(sorted(files.items()), start=1):
                _add(packed, name, file)
                progress("packing", done, len(files))
        yield archive


def _add(packed: zipfile.ZipFile, name: str, file: Path) -> None:
    # Without its time: another copy of the same files is the same upload.
    info = zipfile.ZipInfo(name)
    info.file_size = file.stat().st_size
    with file.open("rb") as source, packed.open(info, "w") as member:
        while chunk := source.read(1 << 20):
            member.write(chunk)
