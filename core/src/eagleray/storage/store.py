"""What a store is: keys, bytes, and the two refusals that callers act on."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, Field

from eagleray.contract.errors import StorageError

MAX_KEY_BYTES = 1024  # S3's and R2's limit, held on folders too so that a store can move to a bucket
MAX_NAME_BYTES = 255  # a file system's limit on one name
TEMPORARY_PREFIX = ".eagleray-tmp-"  # names of files that are still being written; no key may hold one
CHUNK_BYTES = 1 << 20
_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")


class AlreadyExistsError(StorageError):
    """A conditional write found the key taken."""

    code = "already-exists"
    http_status = 409


class NotFoundError(StorageError):
    """There is nothing under the key."""

    code = "not-found"
    http_status = 404


class StoreUnreachableError(StorageError):
    """The store did not answer, or refused for now, as often as it was asked; later it may."""

    code = "storage-unreachable"


class FileEntry(BaseModel):
    """What identifies a file's bytes: their sha256 in lower-case hex, and how many they are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object in a listing; `modified_at` in seconds since 1970."""

    key: str
    size_bytes: int
    modified_at: float = 0.0


@dataclass(frozen=True, slots=True)
class ObjectIdentity:
    """What a store says of an object without reading it.

    Attributes:
        sha256: that of its bytes when they were put; None where the store does not keep it.
        version: changes whenever the object is written.
    """

    size_bytes: int
    sha256: str | None
    version: str


class Store(Protocol):
    """Keys are `/`-separated; a prefix is a whole folder (`a/b`, never half a name) or empty for everything.

    Every method raises StorageError where the store refuses: a bad key, no space, no permission.
    """

    @property
    def location(self) -> str:
        """What a person types to open this store."""
        ...

    @property
    def write_interval_s(self) -> float:
        """Seconds that two writes of one key lie apart; a writer in a hurry waits. 0 where there is no such limit."""
        ...

    def check(self) -> None:
        """Ask whether the store can be reached and read, without writing. Raises StorageError where it cannot."""
        ...

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        """Write all or nothing. With `if_absent`, one of racing writers wins and the others get AlreadyExistsError."""
        ...

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> FileEntry:
        """As `put_bytes`, streamed; returns the identity of the bytes that were written."""
        ...

    def get_bytes(self, key: str) -> bytes:
        """Raises NotFoundError."""
        ...

    def fetch_file(self, key: str, into: Path, *, sha256: str | None) -> None:
        """Make the file `into`, whole or not at all; another sha256 is a StorageError. Raises NotFoundError."""
        ...

    def fetch_many(self, files: Mapping[str, tuple[str, FileEntry]], into: Path) -> None:
        """Make each file `into/{name}` of `{name: (key, entry)}`, verified, many at once.

        Where one fails, those that are there are whole and verified, and the rest is missing. Raises NotFoundError.
        """
        ...

    def identify(self, key: str) -> ObjectIdentity:
        """What the object is, without reading it. Raises NotFoundError."""
        ...

    def digest(self, key: str) -> FileEntry:
        """Read the object to its end and identify its bytes. Raises NotFoundError."""
        ...

    def copy(self, source_key: str, key: str) -> None:
        """Write `key` with the bytes of `source_key`, inside the store. Raises NotFoundError."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """What lies in the folder `prefix` and below, sorted by key."""
        ...

    def list_folders(self, prefix: str) -> Sequence[str]:
        """Names, sorted, of the folders directly in `prefix` that hold something."""
        ...

    def exists(self, key: str) -> bool: ...

    def delete(self, key: str) -> None:
        """A key that is not there is fine."""
        ...

    def delete_prefix(self, prefix: str) -> None:
        """Delete the folder `prefix` and all below it. An empty prefix is refused."""
        ...

    def presign(self, key: str, expires_s: int) -> str | None:
        """An address that anyone may read the object at for so long; None where the store has none to give."""
        ...

    def sweep_unfinished(self, older_than_s: float) -> int:
        """Remove what writers that died left half-written so long ago; how many."""
        ...

    def local_path(self, key: str) -> Path | None:
        """The object's own file, to read only, where the store is a folder of this machine."""
        ...


def check_key(key: str) -> str:
    """`key`, where it is one that every store takes.

    Raises:
        StorageError: it is empty, absolute, too long, has an empty part, `.` or `..`, a backslash or a control
            character, or a part that begins like a temporary file.
    """
    parts = key.split("/")
    try:
        length = len(key.encode())
    except UnicodeEncodeError:
        length = -1
    bad = (
        not 0 < length <= MAX_KEY_BYTES
        or _FORBIDDEN.search(key)
        or any(part in ("", ".", "..") or part.startswith(TEMPORARY_PREFIX) for part in parts)
        or (length > MAX_NAME_BYTES and any(len(part.encode()) > MAX_NAME_BYTES for part in parts))
    )
    if bad:
        raise StorageError(
            f"{key[:80]!r} is not a storage key.",
            f"A key is at most {MAX_KEY_BYTES} bytes: names of at most {MAX_NAME_BYTES} joined by '/', "
            "without '..', '\\' or control characters.",
        )
    return key


def file_entry(path: Path) -> FileEntry:
    """The identity of a file's bytes. Raises OSError."""
    digest = hashlib.sha256()
    size_bytes = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
    return FileEntry(sha256=digest.hexdigest(), size_bytes=size_bytes)
