"""The figures that S3's use depends on; tests and slow lines change them."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1 << 20
GIB = 1 << 30
MAX_PARTS = 10_000  # S3 and R2
MAX_SINGLE_BYTES = 5 * GIB  # of one put or one copy, S3 and R2


@dataclass(frozen=True)
class S3Options:
    """Sizes, waits and limits.

    Attributes:
        attempts: how often a request is sent that the server refuses for now (429, 5xx, SlowDown).
        unreachable_attempts: how often, where no server answers.
        base_s, cap_s: the n-th wait is drawn from 0 … min(cap, base · 2ⁿ).
        write_interval_s: least time between two writes of one key; R2 answers 429 below a second.
        part_bytes: of a multipart upload; all parts but the last are equal, which R2 insists on.
        single_copy_max_bytes: what is larger is copied in parts, so that no answer is waited for too long.
    """

    connect_timeout_s: float = 5.0
    read_timeout_s: float = 30.0
    attempts: int = 10
    unreachable_attempts: int = 8
    base_s: float = 0.2
    cap_s: float = 10.0
    write_interval_s: float = 1.05
    single_put_max_bytes: int = 32 * MIB
    part_bytes: int = 16 * MIB
    single_copy_max_bytes: int = GIB
    copy_part_bytes: int = 256 * MIB
    upload_threads: int = 4
    fetch_threads: int = 16

    def parts_of(self, size_bytes: int, part_bytes: int) -> int:
        """The bytes of each part: `part_bytes`, or as many more as keep a file within the number of parts."""
        needed = -(-size_bytes // MAX_PARTS)
        return max(part_bytes, -(-needed // MIB) * MIB)
