"""From what a person typed to a folder with the dataset in it, gone again afterwards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

from eagleray.contract.errors import ConfigError, DatasetError
from eagleray.datasets.report import shown
from eagleray.registry.limits import Limits
from eagleray.registry.models import Source
from eagleray.registry.progress import Progress
from eagleray.registry.sources.archive import unpack
from eagleray.registry.sources.bucket import fetch_prefix
from eagleray.registry.sources.temporary import temporary_folder
from eagleray.storage.opening import open_store

# A folder of such a name is a part of a dataset, not a wrapper around one.
PARTS = frozenset({"train", "val", "valid", "validation", "test", "images", "labels", "annotations", "jpegimages"})
SUFFIXES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".tbz2", ".txz")


@dataclass(frozen=True)
class SourceRules:
    """What a caller may import from.

    Attributes:
        paths: files and folders of this machine.
        buckets: names of buckets; None: all that the credentials open.
        hosts: `host` or `host:port` that need not be public.
    """

    paths: bool = True
    buckets: frozenset[str] | None = None
    hosts: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Opened:
    """A dataset's folder on this machine, and where it came from."""

    folder: Path
    source: Source


@contextmanager
def open_source(text: str, scratch: Path, rules: SourceRules, limits: Limits, progress: Progress) -> Iterator[Opened]:
    """The dataset at `text`: a folder, an archive, `s3://bucket/prefix` or an https address.

    Raises:
        ConfigError: the caller may not import from there.
        DatasetError: it is not there, or cannot be fetched or unpacked; nothing of it stays.
    """
    if "://" not in text and not re.match(r"[a-z][a-z0-9+.-]+:", text):
        if not rules.paths:
            raise ConfigError(f"{shown(text)} is a path.", "Upload the dataset, or name an https address.")
        with _open_path(Path(text).expanduser().absolute(), scratch, limits, progress) as folder:
            yield Opened(folder, Source(type="folder", location=text))
        return
    with temporary_folder(scratch) as temporary:
        if text.startswith("s3://"):
            yield Opened(_fetch_bucket(text, temporary, rules, limits, progress), Source(type="s3", location=text))
        else:
            yield _fetch_address(text, temporary, rules, limits, progress)


@contextmanager
def open_archive(archive: Path, scratch: Path, limits: Limits, progress: Progress, *, what: str = "") -> Iterator[Path]:
    """The folder of the dataset that was packed. Raises DatasetError."""
    with temporary_folder(scratch) as temporary:
        unpack(archive, temporary, limits, progress, what=what)
        yield dataset_folder(temporary)


@contextmanager
def _open_path(path: Path, scratch: Path, limits: Limits, progress: Progress) -> Iterator[Path]:
    if path.is_file() and path.suffix.lower() not in (".yaml", ".yml"):
        with open_archive(path, scratch, limits, progress) as folder:
            yield folder
    elif path.exists():
        yield path if path.is_dir() else path.parent
    else:
        raise DatasetError(f"There is nothing at {shown(path)}.", "Name a folder, an archive, or an address.")


def _fetch_bucket(text: str, into: Path, rules: SourceRules, limits: Limits, progress: Progress) -> Path:
    bucket = urlsplit(text).netloc
    if rules.buckets is not None and bucket not in rules.buckets:
        raise ConfigError(
            f"Nothing may be imported from the bucket {shown(bucket)}.",
            "Whoever runs the server may allow it: EAGLERAY_DATASET_BUCKETS=bucket,…",
        )
    fetch_prefix(open_store(text), into, limits, progress)
    return dataset_folder(into)


def _fetch_address(text: str, into: Path, rules: SourceRules, limits: Limits, progress: Progress) -> Opened:
    # Everyday commands need no HTTP client, which takes 0.1 s to import.
    from eagleray.registry.sources.address import HostRules  # noqa: PLC0415
    from eagleray.registry.sources.web import Download  # noqa: PLC0415

    archive, folder = into / "archive", into / "content"
    folder.mkdir()
    Download(text, HostRules(rules.hosts), limits, progress).run(archive)
    parts = urlsplit(text)
    location = f"{parts.scheme}://{parts.hostname}{parts.path}"
    unpack(archive, folder, limits, progress, what=shown(location))
    archive.unlink()
    host = (parts.hostname or "").lower()
    is_roboflow = host == "roboflow.com" or host.endswith(".roboflow.com")
    source = Source(type="roboflow" if is_roboflow else "url", location=location)
    return Opened(dataset_folder(folder), source)


def dataset_folder(folder: Path) -> Path:
    """`folder`, or the one in it that wraps everything; packers like to add one."""
    for _ in range(8):
        inside = [path for path in folder.iterdir() if not path.name.startswith((".", "__MACOSX"))]
        if len(inside) != 1 or not inside[0].is_dir() or inside[0].name.lower() in PARTS:
            break
        folder = inside[0]
    return folder


def name_from(text: str) -> str:
    """A dataset's name made of where it comes from: `s3://b/data/My coins/` → `My-coins`."""
    path = unquote(urlsplit(text).path) if "://" in text else str(Path(text).expanduser().absolute())
    last = PurePosixPath(path.replace("\\", "/")).name
    for suffix in SUFFIXES:
        if last.lower().endswith(suffix):
            last = last[: -len(suffix)]
            break
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", last).strip("-._")[:100]
    if not name:
        raise ConfigError(f"{shown(text)} gives the dataset no name.", "Name it: --name NAME")
    return name
