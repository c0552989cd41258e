"""A version as a zip archive that is made while it is sent."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from pathlib import Path

from eagleray.contract.errors import StorageError
from eagleray.registry import DatasetRegistry, DatasetVersion
from eagleray.registry.sources.temporary import temporary_folder

CHUNK_BYTES = 1 << 20
# A change of the dataset moves bytes, so a key may be gone by the time it is read.
TRIES = 3


class _Sink(io.RawIOBase):
    """Where zipfile writes to: what came since the last `take`."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        found, self._parts = b"".join(self._parts), []
        return found


def zip_of(registry: DatasetRegistry, reference: str, scratch: Path) -> tuple[DatasetVersion, Iterator[bytes]]:
    """The version, and its archive's bytes. Pictures are packed already.

    One file at a time is below `scratch`, verified, and a piece of it in memory. Where one cannot be read the iterator
    raises StorageError: the connection breaks, so the client sees that the archive is not whole.
    """
    version = registry.show(reference)
    places = registry.locate(version)

    def fetch(path: str, into: Path) -> None:
        nonlocal places
        for attempt in range(1, TRIES + 1):
            key, entry = places[path]
            try:
                registry.store.fetch_file(key, into, sha256=entry.sha256)
                return
            except StorageError:
                if attempt == TRIES:
                    raise
                places = registry.locate(version)

    def chunks() -> Iterator[bytes]:
        sink = _Sink()
        with temporary_folder(scratch) as temporary, zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
            for path, (_, entry) in list(places.items()):
                fetch(path, temporary / "file")
                info = zipfile.ZipInfo(path)
                info.file_size = entry.size_bytes
                with (temporary / "file").open("rb") as file, archive.open(info, "w") as member:
                    while chunk := file.read(CHUNK_BYTES):
                        member.write(chunk)
                        yield sink.take()
        yield sink.take()

    return version, chunks()
