"""Uploads that go on where they ended: parts in the store, so any process of any node may take the next one.

uploads/{id}/session.json                     how large it will be, and its sha256
uploads/{id}/parts/{start}-{size}-{sha256}    a part; its key says what its bytes must be
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from collections import OrderedDict
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Lock

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from eagleray.contract.errors import ConfigError, EaglerayError, UnknownNameError
from eagleray.registry.limits import Limits
from eagleray.storage.disk import disk_errors
from eagleray.storage.failpoints import failpoint
from eagleray.storage.store import NotFoundError, Store

UPLOADS = "uploads"
MAX_PART_BYTES = 8 << 20
MAX_PARTS = 10_000
# More than so many parts can hold would never become whole.
MAX_BYTES = MAX_PARTS * MAX_PART_BYTES
# The parts that came by way of other processes are asked for so often.
LIST_AGAIN_S = 20.0
KNOWN_UPLOADS = 64
TTL = timedelta(days=7)
_ID = re.compile(r"[0-9a-f]{32}")
_PART = re.compile(r".*/parts/(\d{16})-(\d{1,9})-([0-9a-f]{64})")


class UploadError(EaglerayError):
    """A part, or the whole, is not what was announced."""

    code = "upload"
    exit_code = 3
    http_status = 409


class Upload(BaseModel):
    """An upload that has begun.

    Attributes:
        received: `[start, end)` of the bytes that are there, joined where they meet, in order.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    filename: str = ""
    size_bytes: int = Field(ge=1)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    created_at: datetime
    received: tuple[tuple[int, int], ...] = ()

    @property
    def is_whole(self) -> bool:
        return self.received == ((0, self.size_bytes),)


class Part(BaseModel):
    """What a part's key says."""

    model_config = ConfigDict(frozen=True)

    key: str
    start: int
    size_bytes: int
    sha256: str

    @property
    def end(self) -> int:
        return self.start + self.size_bytes


@dataclass
class Known:
    """An upload as this process saw it last, its own parts since then included; `parts` by key."""

    upload: Upload
    parts: dict[str, Part]
    listed_at: float = field(default_factory=time.monotonic)

    def with_received(self) -> Upload:
        joined: list[tuple[int, int]] = []
        for part in sorted(self.parts.values(), key=lambda part: part.start):
            if joined and part.start <= joined[-1][1]:
                joined[-1] = (joined[-1][0], max(joined[-1][1], part.end))
            else:
                joined.append((part.start, part.end))
        return self.upload.model_copy(update={"received": tuple(joined)})


class Uploads:
    """The uploads of a store. Safe for threads."""

    def __init__(self, store: Store, limits: Limits = Limits()) -> None:
        self._store = store
        self._limits = limits
        self._known: OrderedDict[str, Known] = OrderedDict()
        self._lock = Lock()

    def create(self, size_bytes: int, sha256: str, *, filename: str = "") -> Upload:
        """Begin one.

        Args:
            sha256: of all its bytes, in hex.

        Raises:
            ConfigError: it is too large, or `sha256` is not one.
        """
        most = min(self._limits.max_bytes, MAX_BYTES)
        if size_bytes > most:
            raise ConfigError(
                f"An upload of {size_bytes:,} bytes is too large.",
                f"At most {most:,}. Lay what is larger into a bucket, and import it from there.",
            )
        try:
            upload = Upload(
                id=secrets.token_hex(16),
                filename=filename[:255],
                size_bytes=size_bytes,
                sha256=sha256.lower(),
                created_at=datetime.now(UTC),
            )
        except ValidationError as error:
            what = error.errors(include_url=False)[0]
            raise ConfigError(
                f"An upload cannot have {what['loc'][0]} = {what['input']!r}.",
                "It is announced by its size in bytes and the sha256 of all of them, in hex.",
            ) from None
        self._store.put_bytes(self._session_key(upload.id), upload.model_dump_json(exclude={"received"}).encode())
        return upload

    def show(self, upload_id: str) -> Upload:
        """What has come so far. Raises UnknownNameError."""
        return self._look(upload_id).with_received()

    def put(self, upload_id: str, start: int, data: bytes, sha256: str) -> Upload:
        """Take the bytes from `start` on. The same part again is fine.

        `received` of the answer may lack what other processes took in the last seconds; `show` lacks nothing.

        Raises:
            UnknownNameError: there is no such upload.
            ConfigError: the part is empty, too large, or outside the upload.
            UploadError: its bytes do not have that sha256, or others came for the same place before.
        """
        known = self._recent(upload_id)
        upload = known.upload
        end = start + len(data)
        if not 0 <= start < end <= upload.size_bytes or len(data) > MAX_PART_BYTES:
            raise ConfigError(
                f"Bytes {start:,} to {end:,} are not a part of an upload of {upload.size_bytes:,} bytes.",
                f"A part has 1 to {MAX_PART_BYTES:,} bytes and lies inside the upload.",
            )
        found = hashlib.sha256(data).hexdigest()
        if found != sha256.lower():
            raise UploadError(f"The part at {start:,} was damaged on its way: its sha256 is {found}.", "Send it again.")
        key = f"{self._prefix(upload_id)}/parts/{start:016d}-{len(data)}-{found}"
        with self._lock:
            parts = list(known.parts.values())
        others = [part for part in parts if part.key != key and part.start < end and start < part.end]
        if others:
            raise UploadError(
                f"Other bytes came before for {others[0].start:,} to {others[0].end:,}.",
                "Ask which bytes are there, and send those that are missing.",
            )
        if len(parts) >= MAX_PARTS:
            raise UploadError(f"The upload has {MAX_PARTS:,} parts.", "Begin again, with larger parts.")
        self._store.put_bytes(key, data)
        failpoint("upload.after_part")
        with self._lock:
            # Another thread may have listed the parts meanwhile, before this one was there.
            known = self._known.get(upload_id, known)
            known.parts[key] = Part(key=key, start=start, size_bytes=len(data), sha256=found)
            return known.with_received()

    def finish(self, upload_id: str, into: Path) -> Upload:
        """Write the whole into the new file `into`, verified. The upload stays until it is deleted.

        Raises:
            UploadError: bytes are missing, or together they do not have the sha256 that was announced.
        """
        upload = self.show(upload_id)
        if not upload.is_whole:
            raise UploadError(
                f"The upload is not whole: {_shown(upload.received)} of {upload.size_bytes:,} bytes have come.",
                "Send the missing bytes first.",
            )
        digest = hashlib.sha256()
        done = 0
        with disk_errors("put an upload together", into.parent), into.open("xb") as file:
            for part in self._parts(upload_id):
                data = self._store.get_bytes(part.key)
                if part.start != done or hashlib.sha256(data).hexdigest() != part.sha256:
                    raise UploadError(f"The part at {part.start:,} is damaged or overlaps another.", "Begin again.")
                file.write(data)
                digest.update(data)
                done = part.end
        if digest.hexdigest() != upload.sha256:
            into.unlink()
            raise UploadError(
                f"The upload's sha256 is {digest.hexdigest()}, not the announced {upload.sha256}.",
                "The file changed while it was sent: begin again.",
            )
        return upload

    def delete(self, upload_id: str) -> None:
        """Remove it; one that is not there is fine."""
        if _ID.fullmatch(upload_id):
            with self._lock:
                self._known.pop(upload_id, None)
            self._store.delete(self._session_key(upload_id))
            self._store.delete_prefix(self._prefix(upload_id))

    def sweep(self, *, now: datetime | None = None) -> int:
        """Remove uploads that began more than a week ago, and parts without an upload; how many."""
        now = now or datetime.now(UTC)
        removed = 0
        for upload_id in self._store.list_folders(UPLOADS):
            try:
                stays = now - self._session(upload_id).created_at < TTL
            except UnknownNameError:
                stays = False
            if not stays:
                self.delete(upload_id)
                removed += 1
        return removed

    def _recent(self, upload_id: str) -> Known:
        """Listing every part for each of thousands would take hours in a bucket."""
        with self._lock:
            known = self._known.get(upload_id)
        if known is None or time.monotonic() - known.listed_at > LIST_AGAIN_S:
            known = self._look(upload_id)
        return known

    def _look(self, upload_id: str) -> Known:
        """As the store has it now. Raises UnknownNameError."""
        known = Known(self._session(upload_id), {part.key: part for part in self._parts(upload_id)})
        with self._lock:
            self._known[upload_id] = known
            self._known.move_to_end(upload_id)
            while len(self._known) > KNOWN_UPLOADS:
                self._known.popitem(last=False)
        return known

    def _session(self, upload_id: str) -> Upload:
        if _ID.fullmatch(upload_id):
            try:
                return Upload.model_validate_json(self._store.get_bytes(self._session_key(upload_id)))
            except (NotFoundError, ValidationError):
                pass
        raise UnknownNameError(f"There is no upload {upload_id[:80]!a}.", "It may be too old. Begin a new one.")

    def _parts(self, upload_id: str) -> list[Part]:
        """In the order of their bytes."""
        parts = []
        for info in self._store.list(f"{self._prefix(upload_id)}/parts"):
            if match := _PART.fullmatch(info.key):
                parts.append(Part(key=info.key, start=int(match[1]), size_bytes=int(match[2]), sha256=match[3]))
        return parts

    def _prefix(self, upload_id: str) -> str:
        return f"{UPLOADS}/{upload_id}"

    def _session_key(self, upload_id: str) -> str:
        return f"{self._prefix(upload_id)}/session.json"


def _shown(received: tuple[tuple[int, int], ...]) -> str:
    return ", ".join(f"{start:,} to {end:,}" for start, end in received[:5]) or "none"
