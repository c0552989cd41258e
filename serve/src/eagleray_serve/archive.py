"""A version as a zip archive that is made while it is sent."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Iterator

from eagleray.contract.errors import StorageError
from eagleray.registry import DatasetRegistry, DatasetVersion


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


def zip_of(registry: DatasetRegistry, reference: str) -> tuple[DatasetVersion, Iterator[bytes]]:
    """The version, and its archive's bytes; one file at a time is in memory. Pictures are packed already."""
    version = registry.show(reference)
    places = registry.locate(version)

    def chunks() -> Iterator[bytes]:
        sink = _Sink()
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
            for path, (key, entry) in places.items():
                data = registry.store.get_bytes(key)
                if hashlib.sha256(data).hexdigest() != entry.sha256:
                    # The connection breaks, so the client sees that the archive is not whole.
                    raise StorageError(f"{path} of {version} is damaged, or the dataset was changed meanwhile.")
                archive.writestr(zipfile.ZipInfo(path), data)
                yield sink.take()
        yield sink.take()

    return version, chunks()
