"""Unpacks an archive from a stranger into an empty folder. Told by its bytes, never by its name."""

from __future__ import annotations

from pathlib import Path

from eagleray.contract.errors import DatasetError
from eagleray.datasets.report import shown
from eagleray.registry.limits import Limits
from eagleray.registry.progress import Progress
from eagleray.registry.sources.tar import COMPRESSIONS, unpack_tar
from eagleray.registry.sources.zip import unpack_zip
from eagleray.storage.disk import disk_errors

HINT = "Import a folder, or a .zip, .tar, .tar.gz, .tar.bz2 or .tar.xz of one."
# Known, and not read here.
OTHERS = {
    b"\x28\xb5\x2f\xfd": "zstd",
    b"7z\xbc\xaf\x27\x1c": "7-Zip",
    b"Rar!\x1a\x07": "RAR",
    b"\x1f\x9d": "compress",
}


def is_archive(path: Path) -> bool:
    return _kind(path) in ("zip", "tar", *COMPRESSIONS.values())


def unpack(archive: Path, into: Path, limits: Limits, progress: Progress, *, what: str = "") -> None:
    """Unpack every file of `archive` into the empty folder `into`.

    Args:
        what: the archive's name for messages; default: its file's name.

    Raises:
        DatasetError: it is no archive, is broken or encrypted, holds anything but plain files and folders, a name that
            leads out, or is meant to fill the disk; `into` then holds a part of it, to be thrown away.
        StorageError: the disk is full.
    """
    what = what or shown(archive.name)
    kind = _kind(archive)
    with disk_errors(f"unpack {what}", into):
        if kind == "zip":
            unpack_zip(archive, into, limits, progress, what)
        elif kind == "tar" or kind in COMPRESSIONS.values():
            unpack_tar(archive, into, kind, limits, progress, what)
        else:
            named = f"a {kind} archive, which is not read here" if kind else "not an archive"
            raise DatasetError(f"{what} is {named}.", f"Unpack it first. {HINT}" if kind else HINT)


def _kind(path: Path) -> str:
    with disk_errors(f"read {path.name}", path.parent), path.open("rb") as file:
        head = file.read(512)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")):
        return "zip"
    if head[257:262] == b"ustar":
        return "tar"
    for magic, name in {**COMPRESSIONS, **OTHERS}.items():
        if head.startswith(magic):
            return name
    return ""
