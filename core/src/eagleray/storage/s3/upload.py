"""Writing files into a bucket: in one put, or in equal parts that a later try takes up."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from eagleray.contract.errors import StorageError
from eagleray.storage.failpoints import failpoint
from eagleray.storage.s3.bucket import Bucket
from eagleray.storage.s3.download import SHA256
from eagleray.storage.s3.retries import BROKEN, code_of, status_of
from eagleray.storage.store import CHUNK_BYTES, AlreadyExistsError, FileEntry, NotFoundError, check_key

WRITER = "writer"  # metadata: who made a conditional put, so that a lost acknowledgement is known again


@dataclass(frozen=True)
class HashedFile:
    """A file's identity, and the sha256 of each of its parts of `part_bytes`."""

    entry: FileEntry
    part_bytes: int
    parts: tuple[bytes, ...]


def hash_file(path: Path, part_bytes: int) -> HashedFile:
    """Read the file once for both. Raises OSError."""
    whole, size_bytes, parts = hashlib.sha256(), 0, []
    with path.open("rb") as file:
        while True:
            part, left = hashlib.sha256(), part_bytes
            while left and (chunk := file.read(min(CHUNK_BYTES, left))):
                whole.update(chunk)
                part.update(chunk)
                size_bytes += len(chunk)
                left -= len(chunk)
            if left == part_bytes:
                break
            parts.append(part.digest())
    return HashedFile(FileEntry(sha256=whole.hexdigest(), size_bytes=size_bytes), part_bytes, tuple(parts))


def base64_of(sha256: str | bytes) -> str:
    """As S3 wants a checksum."""
    return base64.b64encode(binascii.unhexlify(sha256) if isinstance(sha256, str) else sha256).decode()


def is_ours(bucket: Bucket, key: str, entry: FileEntry, writer: str) -> bool:
    """Whether what lies at `key` is this very write, whose acknowledgement was lost."""
    try:
        head = bucket.call("head_object", key)
    except NotFoundError:
        return False
    metadata = head.get("Metadata", {})
    same = metadata.get(SHA256) == entry.sha256 and int(head["ContentLength"]) == entry.size_bytes
    return same and (not writer or metadata.get(WRITER) == writer)


@dataclass
class UploadState:
    """What is known on this disk of an upload in parts: enough for another process to go on with it.

    Attributes:
        etags: by part number, as the server gave them. R2's are no checksums, so they are kept to be compared.
    """

    upload_id: str
    part_bytes: int
    writer: str
    etags: dict[int, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> UploadState | None:
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{**values, "etags": {int(number): etag for number, etag in values["etags"].items()}})
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def save(self, path: Path) -> None:
        # Losing it costs an upload from the beginning, so a failure to write it is no failure.
        with suppress(OSError):
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            part.write_text(json.dumps(asdict(self)), encoding="utf-8")
            part.replace(path)


class MultipartUpload:
    """One file on its way to `key` in parts."""

    def __init__(self, bucket: Bucket, key: str, path: Path, file: HashedFile, state: Path | None, writer: str) -> None:
        self._bucket = bucket
        self._key = check_key(key)
        self._path = path
        self._file = file
        name = hashlib.sha256(f"{bucket.location}\n{key}\n{file.entry.sha256}".encode()).hexdigest()[:40]
        self._state_path = state / f"{name}.json" if state else None
        self._writer = writer
        self._state: UploadState | None = None

    def run(self, *, if_absent: bool) -> None:
        """Upload what the server does not have yet, then make the object.

        Raises:
            AlreadyExistsError: with `if_absent`, where another object is there.
            StorageError: the parts that were acknowledged stay, and the same upload again goes on from them.
        """
        state = self._resumed() or self._begun()
        missing = [number for number in range(1, len(self._file.parts) + 1) if number not in state.etags]
        with ThreadPoolExecutor(self._bucket.options.upload_threads, "eagleray-upload") as pool:
            for number, etag in pool.map(lambda number: (number, self._put_part(state, number)), missing):
                state.etags[number] = etag
                self._save(state)
                failpoint("s3.after_part")
        self._complete(state, if_absent)
        self._forget()

    def _resumed(self) -> UploadState | None:
        state = UploadState.load(self._state_path) if self._state_path else None
        if state is None or state.part_bytes != self._file.part_bytes:
            return None
        try:
            listed = dict(self._listed(state.upload_id))
        except NotFoundError:
            return None
        state.etags = {number: etag for number, etag in state.etags.items() if listed.get(number) == etag}
        return state

    def _listed(self, upload_id: str) -> Iterator[tuple[int, str]]:
        marker = 0
        while True:
            page = self._bucket.call("list_parts", self._key, UploadId=upload_id, PartNumberMarker=marker)
            for part in page.get("Parts", []):
                if part["Size"] == self._part_size(part["PartNumber"]):
                    yield part["PartNumber"], part["ETag"]
            if not page.get("IsTruncated"):
                return
            marker = page["NextPartNumberMarker"]

    def _begun(self) -> UploadState:
        response = self._bucket.call(
            "create_multipart_upload",
            self._key,
            ChecksumAlgorithm="SHA256",
            Metadata={SHA256: self._file.entry.sha256, WRITER: self._writer},
        )
        state = UploadState(response["UploadId"], self._file.part_bytes, self._writer)
        self._save(state)
        return state

    def _put_part(self, state: UploadState, number: int) -> str:
        size = self._part_size(number)
        with self._path.open("rb") as file:
            file.seek((number - 1) * self._file.part_bytes)
            data = file.read(size)
        sha256 = self._file.parts[number - 1]
        if hashlib.sha256(data).digest() != sha256:
            raise StorageError(
                f"'{self._path}' changed while it was stored.", "Store it again once nothing writes to it."
            )
        response = self._bucket.call(
            "upload_part",
            self._key,
            UploadId=state.upload_id,
            PartNumber=number,
            Body=data,
            ChecksumSHA256=base64_of(sha256),
        )
        return str(response["ETag"])

    def _complete(self, state: UploadState, if_absent: bool) -> None:
        parts = [
            {"PartNumber": number, "ETag": etag, "ChecksumSHA256": base64_of(self._file.parts[number - 1])}
            for number, etag in sorted(state.etags.items())
        ]
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        try:
            self._bucket.attempt(
                "complete_multipart_upload",
                self._key,
                paced=True,
                UploadId=state.upload_id,
                MultipartUpload={"Parts": parts},
                **condition,
            )
        except (ClientError, BotoCoreError, *BROKEN) as error:
            # Its own success, of which it did not hear: the upload is gone, or the object is there.
            repeated = code_of(error) == "NoSuchUpload" or status_of(error) == 412
            if repeated and is_ours(self._bucket, self._key, self._file.entry, state.writer if if_absent else ""):
                return
            if repeated:
                self._abort(state)
            if code_of(error) == "NoSuchUpload":
                raise StorageError(
                    f"The upload of '{self._key}' was ended by someone else.", "Store it again."
                ) from error
            raise self._bucket.explain(error, "complete_multipart_upload", self._key) from error

    def _abort(self, state: UploadState) -> None:
        self._forget()
        with suppress(StorageError):
            self._bucket.call("abort_multipart_upload", self._key, UploadId=state.upload_id)

    def _part_size(self, number: int) -> int:
        return min(self._file.part_bytes, self._file.entry.size_bytes - (number - 1) * self._file.part_bytes)

    def _save(self, state: UploadState) -> None:
        if self._state_path:
            state.save(self._state_path)

    def _forget(self) -> None:
        if self._state_path:
            self._state_path.unlink(missing_ok=True)


def put(bucket: Bucket, key: str, data: Any, entry: FileEntry, *, if_absent: bool, writer: str) -> None:
    """Write `data`, bytes or an open file, in one request that the server checks by its sha256.

    Raises:
        AlreadyExistsError: with `if_absent`, where another object is there.
    """
    metadata = {SHA256: entry.sha256, **({WRITER: writer} if if_absent else {})}
    with bucket.pacer.turn(key) as contended:
        if if_absent and contended and _exists(bucket, key):
            # Another writer of this process was first; no need to wait for a turn to be refused.
            raise AlreadyExistsError(f"'{key}' exists already.")
        try:
            bucket.attempt(
                "put_object",
                check_key(key),
                paced=True,
                Body=data,
                ChecksumSHA256=base64_of(entry.sha256),
                Metadata=metadata,
                **({"IfNoneMatch": "*"} if if_absent else {}),
            )
        except (ClientError, BotoCoreError, *BROKEN) as error:
            if status_of(error) == 412 and is_ours(bucket, key, entry, writer):
                return
            raise bucket.explain(error, "put_object", key) from error


def _exists(bucket: Bucket, key: str) -> bool:
    try:
        bucket.call("head_object", key)
    except NotFoundError:
        return False
    return True
