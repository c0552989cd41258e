"""How much may still be unpacked, counted as it comes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from eagleray.contract.errors import DatasetError
from eagleray.registry.limits import Limits
from eagleray.storage.disk import DiskFullError

CHUNK_BYTES = 1 << 20
PART = "Import a part of it."


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Budget:
    """Counts files and bytes of one source against its limits.

    Args:
        what: the source, to be named in errors.
        packed_bytes: how many packed bytes have been read so far; None where nothing is packed.
    """

    def __init__(self, what: str, folder: Path, limits: Limits, packed_bytes: Callable[[], int] | None = None) -> None:
        self._what = what
        self._folder = folder
        self._limits = limits
        self._packed_bytes = packed_bytes
        self._unchecked_bytes = 0
        self.files = 0
        self.size_bytes = 0

    def count_file(self) -> None:
        """Raises DatasetError."""
        self.files += 1
        if self.files > self._limits.max_files:
            raise DatasetError(f"{self._what} holds more than {self._limits.max_files:,} files.", PART)

    def count_bytes(self, count: int) -> None:
        """Raises DatasetError, or DiskFullError where the disk would get full."""
        self.size_bytes += count
        self._unchecked_bytes += count
        if self.size_bytes > self._limits.max_bytes:
            raise DatasetError(f"{self._what} unpacks to more than {self._limits.max_bytes:,} bytes.", PART)
        if self._packed_bytes is not None and self.size_bytes > self._limits.dense_bytes:
            ratio = self.size_bytes / max(1, self._packed_bytes())
            if ratio > self._limits.max_ratio:
                raise DatasetError(
                    f"{self._what} unpacks to {ratio:,.0f} times its size, more than a dataset does.",
                    f"At most {self._limits.max_ratio:g} times; unpack it yourself and import the folder.",
                )
        if self._unchecked_bytes > 64 << 20:
            self.check_disk(0)

    def expect(self, size_bytes: int) -> None:
        """Refuse at once what says of itself that it is too much. Raises DatasetError, DiskFullError."""
        if size_bytes > self._limits.max_bytes:
            raise DatasetError(f"{self._what} has {size_bytes:,} bytes, more than {self._limits.max_bytes:,}.", PART)
        self.check_disk(size_bytes)

    def check_disk(self, needed_bytes: int) -> None:
        """Raises DiskFullError where the disk has not `needed_bytes` and some more."""
        self._unchecked_bytes = 0
        free = shutil.disk_usage(self._folder).free
        if free < needed_bytes + self._limits.min_free_bytes:
            raise DiskFullError(
                f"{self._what} does not fit: {self._folder} has {free:,} bytes free, {needed_bytes:,} are needed.",
                "Free some space there, or set EAGLERAY_HOME to a folder on a larger disk.",
            )

    def copy(self, source: Readable, into: Path) -> int:
        """Write what `source` gives, to its end, into a new file; how many bytes that were."""
        into.parent.mkdir(parents=True, exist_ok=True)
        with into.open("xb") as file:
            return self._copy(source, file)

    def _copy(self, source: Readable, file: BinaryIO) -> int:
        size_bytes = 0
        while chunk := source.read(CHUNK_BYTES):
            size_bytes += len(chunk)
            self.count_bytes(len(chunk))
            file.write(chunk)
        return size_bytes
