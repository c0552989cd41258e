"""How much a source may be, however it is packed."""

from __future__ import annotations

from dataclasses import dataclass

GIB = 1 << 30


@dataclass(frozen=True)
class Limits:
    """Bounds that are held while bytes arrive, not only on what a header promises.

    Attributes:
        max_bytes: of a dataset once unpacked, and of an archive.
        max_files: files in a dataset, folders and left-out files included.
        max_ratio: unpacked ÷ packed bytes, once more than `dense_bytes` are out: labels alone may pack very well.
        max_seconds: for a download in all.
        min_free_bytes: what must stay free on the disk that is unpacked to.
    """

    max_bytes: int = 512 * GIB
    max_files: int = 1_000_000
    max_ratio: float = 200.0
    dense_bytes: int = 256 << 20
    max_seconds: float = 6 * 3600.0
    min_free_bytes: int = 256 << 20
