"""Reading an object to its end, on over broken lines, and knowing its bytes by their sha256."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError, IncompleteReadError

from eagleray.contract.errors import StorageError
from eagleray.storage.s3.bucket import Bucket, Response
from eagleray.storage.s3.retries import BROKEN, RetryAfter, decide, status_of
from eagleray.storage.store import CHUNK_BYTES, FileEntry, StoreUnreachableError

TRIES = 3  # whole reads of an object whose bytes were wrong
SHA256 = "sha256"  # our own metadata: the server's checksum of a multipart object is none of the whole


@dataclass(frozen=True)
class ReadObject:
    """What was read, and the sha256 that it was stored with, where that is known."""

    entry: FileEntry
    stored_sha256: str | None


class _ChangedError(Exception):
    """The object was replaced between two parts of one reading."""


def read(bucket: Bucket, key: str, start: Callable[[], Callable[[bytes], Any]], expected: str | None) -> ReadObject:
    """Read `key`; `start` is called at the beginning of every try and gives what takes the chunks.

    Bytes that are not the expected sha256 (else the one they were stored with) are read again, three times in all;
    then they are given back as they are, for the caller to judge.

    Raises:
        NotFoundError: there is no such object.
        StoreUnreachableError: the line broke too often.
    """
    tried = 0
    while True:
        tried += 1
        try:
            found = _read_once(bucket, key, start())
        except _ChangedError:
            if tried < TRIES:
                continue
            raise StorageError(f"'{key}' in {bucket.location} changes while it is read.", "Try again later.") from None
        wanted = expected or found.stored_sha256
        if wanted in (None, found.entry.sha256) or tried >= TRIES:
            return found
        bucket.count_retry()


def damaged(bucket: Bucket, key: str, found: str, expected: str) -> StorageError:
    return StorageError(
        f"'{key}' in {bucket.location} is damaged: its sha256 is {found}, not {expected}.",
        "Put the file there again, or delete it.",
    )


def _read_once(bucket: Bucket, key: str, sink: Callable[[bytes], Any]) -> ReadObject:
    digest, size_bytes = hashlib.sha256(), 0
    reading = _Reading(bucket, key)
    for chunk in reading.chunks():
        sink(chunk)
        digest.update(chunk)
        size_bytes += len(chunk)
    return ReadObject(FileEntry(sha256=digest.hexdigest(), size_bytes=size_bytes), reading.stored_sha256)


class _Reading:
    def __init__(self, bucket: Bucket, key: str) -> None:
        self._bucket = bucket
        self._key = key
        self._etag = ""
        self._size_bytes = -1
        self.stored_sha256: str | None = None

    def chunks(self) -> Iterator[bytes]:
        """The object's bytes in order. A line that breaks or stalls is taken up where it broke."""
        offset = tried = 0
        while offset != self._size_bytes:
            before = offset
            try:
                with closing(self._open(offset)["Body"]) as body:
                    while chunk := body.read(CHUNK_BYTES):
                        offset += len(chunk)
                        yield chunk
                if offset < self._size_bytes:
                    raise IncompleteReadError(actual_bytes=offset, expected_bytes=self._size_bytes)
            except (ClientError, BotoCoreError, *BROKEN) as error:
                # What got through is progress: only breaks in a row without any count.
                tried = 1 if offset > before else tried + 1
                self._wait(error, tried)

    def _open(self, offset: int) -> Response:
        arguments: dict[str, Any] = {"Range": f"bytes={offset}-", "IfMatch": self._etag} if offset else {}
        try:
            response = self._bucket.attempt("get_object", self._key, **arguments)
        except (ClientError, BotoCoreError, *BROKEN) as error:
            if offset and status_of(error) in (404, 412, 416):
                raise _ChangedError from error
            raise self._bucket.explain(error, "get_object", self._key) from error
        if offset and response["ContentLength"] != self._size_bytes - offset:
            raise _ChangedError  # a server that ignores ranges begins anew
        if not offset:
            self._etag = response["ETag"]
            self._size_bytes = int(response["ContentLength"])
            self.stored_sha256 = response.get("Metadata", {}).get(SHA256)
        return response

    def _wait(self, error: Exception, tried: int) -> None:
        decision = decide(error, tried, self._bucket.options, met=True)
        if not isinstance(decision, RetryAfter):
            raise StoreUnreachableError(
                f"'{self._key}' in {self._bucket.location} broke off {tried} times while it was read.",
                "Check the network, then try again.",
            ) from error
        self._bucket.count_retry()
        time.sleep(decision.wait_s)
