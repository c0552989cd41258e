"""Unpacks a zip archive. What its directory says is checked before, what its bytes are while they come."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

from eagleray.contract.errors import DatasetError
from eagleray.registry.limits import Limits
from eagleray.registry.progress import Progress
from eagleray.registry.sources.budget import Budget
from eagleray.registry.sources.names import HINT, MemberNames

_END = struct.Struct("<4s4H2LH")
_END_64_PLACE = struct.Struct("<4sLQL")
_END_64 = struct.Struct("<4sQ2H2L4Q")
_ENTRY_BYTES = 46
_ENTRY = struct.Struct("<28x3H12x")
_ENCRYPTED = 0x1
# Not LZMA: its header may ask for gigabytes to unpack with.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2)
BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, struct.error, OverflowError, ValueError, LookupError)


def unpack_zip(archive: Path, into: Path, limits: Limits, progress: Progress, what: str) -> None:
    """As `archive.unpack`."""
    packed_bytes = archive.stat().st_size
    budget = Budget(what, into, limits, lambda: packed_bytes)
    with archive.open("rb") as file:
        try:
            _check_directory(file, limits, what)
            with zipfile.ZipFile(file) as opened:
                _unpack(opened, into, budget, progress, what)
        except (*BROKEN, OSError) as error:
            # bz2's own complaints are an OSError without a number; the disk's have one.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DatasetError(
                f"{what} is broken: {str(error)[:200] or type(error).__name__}.", "Fetch or pack it again."
            ) from None


def _unpack(opened: zipfile.ZipFile, into: Path, budget: Budget, progress: Progress, what: str) -> None:
    members = opened.infolist()
    names = MemberNames(what)
    # The name as it was packed: zipfile cuts it off at a NUL.
    paths = [
        (member, names.add(member.orig_filename, is_folder=member.orig_filename.endswith("/"))) for member in members
    ]
    for member, _ in paths:
        _check(member, what)
    total = sum(member.file_size for member in members)
    budget.expect(total)
    for member, path in paths:
        budget.count_file()
        if member.is_dir():
            (into / path).mkdir(parents=True, exist_ok=True)
            continue
        with opened.open(member) as source:
            budget.copy(source, into / path)
        progress("unpacking", budget.size_bytes, total)


def _check(member: zipfile.ZipInfo, what: str) -> None:
    if member.flag_bits & _ENCRYPTED:
        raise DatasetError(f"{what} is encrypted.", "Pack it again without a password.")
    if member.compress_type not in METHODS:
        raise DatasetError(f"{what} is packed by a method (number {member.compress_type}) that is not read here.", HINT)
    # What a Unix packer wrote; zero where another one did.
    mode = member.external_attr >> 16
    if mode and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise DatasetError(f"{what} holds {member.filename!a}, a link or a device.", HINT)


def _check_directory(file: BinaryIO, limits: Limits, what: str) -> None:
    """Count the entries before zipfile makes an object of each: a million of them are half a gigabyte."""
    size_bytes = file.seek(0, 2)
    file.seek(max(0, size_bytes - (1 << 16) - _END.size))
    tail = file.read()
    place = tail.rfind(b"PK\x05\x06")
    if place < 0 or len(tail) - place < _END.size:
        raise DatasetError(f"{what} is not a whole zip archive: its directory is missing.", "Fetch or pack it again.")
    *_, directory_bytes, _offset, _comment_bytes = _END.unpack_from(tail, place)
    end = size_bytes - len(tail) + place
    if place >= _END_64_PLACE.size and tail[place - _END_64_PLACE.size :].startswith(b"PK\x06\x07"):
        end -= _END_64_PLACE.size + _END_64.size
        file.seek(max(0, end))
        *_, directory_bytes, _offset = _END_64.unpack(file.read(_END_64.size))
    if directory_bytes > end:
        raise DatasetError(f"{what} is not a whole zip archive: its directory is cut off.", "Fetch or pack it again.")
    # Every entry has at least its fixed part, so only a directory larger than this can hold too many.
    if directory_bytes > _ENTRY_BYTES * limits.max_files:
        file.seek(end - directory_bytes)
        _count_entries(file, directory_bytes, limits, what)
    file.seek(0)


def _count_entries(file: BinaryIO, directory_bytes: int, limits: Limits, what: str) -> None:
    count = done = 0
    while done < directory_bytes:
        head = file.read(_ENTRY_BYTES)
        if len(head) < _ENTRY_BYTES:
            return
        rest = sum(_ENTRY.unpack(head))
        file.seek(rest, 1)
        done += _ENTRY_BYTES + rest
        count += 1
        if count > limits.max_files:
            raise DatasetError(f"{what} holds more than {limits.max_files:,} files.", "Import a part of it.")
