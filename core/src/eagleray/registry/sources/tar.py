"""Unpacks a tar archive as a stream: nothing is looked at twice, and no header may be larger than a name needs."""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO, cast

from eagleray.contract.errors import DatasetError
from eagleray.registry.limits import Limits
from eagleray.registry.progress import Progress
from eagleray.registry.sources.budget import Budget
from eagleray.registry.sources.names import HINT, MemberNames

COMPRESSIONS = {b"\x1f\x8b": "tar.gz", b"BZh": "tar.bz2", b"\xfd7zXZ\x00": "tar.xz"}
BROKEN = (
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    ValueError,
    RecursionError,
    OverflowError,
)
BLOCK_BYTES = 512
MAX_HEADER_BYTES = 1 << 20
# xz may ask for gigabytes to unpack with; its usual presets need at most 65 MiB.
XZ_MEMORY_BYTES = 256 << 20
_HEADERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


class BoundedTarInfo(tarfile.TarInfo):
    """tarfile reads a header's whole payload into memory, whatever its size says."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> BoundedTarInfo:
        found = super().frombuf(buf, encoding, errors)
        if found.type in _HEADERS and found.size > MAX_HEADER_BYTES:
            raise DatasetError(f"A header of {found.size:,} bytes is in the archive.", HINT)
        return found


class CountedReader:
    """Reads on, and knows how many bytes that were and whether the last ones were an empty block."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.count = 0
        self._tail = b""

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self.count += len(data)
        self._tail = (self._tail + data)[-BLOCK_BYTES:] if data else self._tail
        return data

    @property
    def ends_empty(self) -> bool:
        return self._tail == bytes(BLOCK_BYTES)


def unpack_tar(archive: Path, into: Path, kind: str, limits: Limits, progress: Progress, what: str) -> None:
    """As `archive.unpack`; `kind` is `tar`, or one of `COMPRESSIONS`."""
    total = archive.stat().st_size
    with archive.open("rb") as file:
        packed = CountedReader(file)
        budget = Budget(what, into, limits, None if kind == "tar" else lambda: packed.count)
        budget.check_disk(total)
        try:
            plain = CountedReader(_decompressed(packed, kind))
            # The mode "r|" never seeks; `BoundedTarInfo` keeps what it holds in memory small.
            with tarfile.open(fileobj=cast(BinaryIO, plain), mode="r|", tarinfo=BoundedTarInfo) as opened:
                _unpack(opened, into, budget, lambda: progress("unpacking", packed.count, total), what)
            _check_end(plain)
        except (*BROKEN, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise DatasetError(
                f"{what} is broken: {str(error)[:200] or type(error).__name__}.", "Fetch or pack it again."
            ) from None


def _unpack(opened: tarfile.TarFile, into: Path, budget: Budget, say: Callable[[], None], what: str) -> None:
    names = MemberNames(what)
    while (member := opened.next()) is not None:
        # The stream keeps every member it has seen, which no one asks for again.
        opened.members.clear()  # type: ignore[attr-defined]
        if member.name in (".", "./"):
            continue
        path = names.add(member.name, is_folder=member.isdir())
        budget.count_file()
        if member.isdir():
            (into / path).mkdir(parents=True, exist_ok=True)
            continue
        content = opened.extractfile(member) if member.isreg() and not member.issparse() and member.size >= 0 else None
        if content is None:
            raise DatasetError(f"{what} holds {member.name!a}, a link, a device or a file with holes.", HINT)
        if budget.copy(content, into / path) != member.size:
            raise EOFError("it ends in the middle of a file")
        say()


def _check_end(plain: CountedReader) -> None:
    """A tar that was cut off between two files lacks the empty block at its end."""
    while plain.read(BLOCK_BYTES):
        pass
    if not plain.ends_empty:
        raise EOFError("its end is missing")


def _decompressed(packed: CountedReader, kind: str) -> IO[bytes]:
    file = cast(BinaryIO, packed)
    if kind == "tar.gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=file, mode="rb"))
    if kind == "tar.bz2":
        return cast(IO[bytes], bz2.BZ2File(file))
    return cast(IO[bytes], XzReader(packed)) if kind == "tar.xz" else file


class XzReader:
    """Unpacks xz, one or several streams, with bounded memory, which LZMAFile has no way to ask for."""

    def __init__(self, packed: CountedReader) -> None:
        self._packed = packed
        self._stream = self._new()

    def read(self, size: int = -1) -> bytes:
        while True:
            if self._stream.eof:
                rest = self._stream.unused_data or self._packed.read(BLOCK_BYTES)
                # Streams may be followed by zeros up to a multiple of four bytes.
                if not rest.strip(b"\0"):
                    return b""
                self._stream = self._new()
                data = self._stream.decompress(rest.lstrip(b"\0"), size)
            else:
                more = self._packed.read(1 << 16) if self._stream.needs_input else b""
                if self._stream.needs_input and not more:
                    raise EOFError("it ends too early")
                data = self._stream.decompress(more, size)
            if data:
                return data

    @staticmethod
    def _new() -> lzma.LZMADecompressor:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)
