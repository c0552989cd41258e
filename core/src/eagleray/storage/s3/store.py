"""A store in a bucket of S3, R2 or any server that speaks their language."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any

from eagleray.contract.errors import StorageError
from eagleray.settings import S3Access
from eagleray.storage.disk import disk_errors, remove_older, temporary_file
from eagleray.storage.s3.bucket import Bucket
from eagleray.storage.s3.copying import copy_object
from eagleray.storage.s3.download import SHA256, damaged, read
from eagleray.storage.s3.location import S3Location, parse_location
from eagleray.storage.s3.options import MAX_SINGLE_BYTES, S3Options
from eagleray.storage.s3.upload import MultipartUpload, hash_file, put
from eagleray.storage.store import FileEntry, NotFoundError, ObjectIdentity, ObjectInfo, check_key

MAX_PRESIGN_S = 7 * 24 * 3600
_DELETE_AT_ONCE = 1000  # S3's and R2's limit


class S3Store:
    """Keys lie below the location's prefix. Safe for threads; the first request makes the client.

    Args:
        state: a folder of this node, where uploads in parts are noted so that another process can go on with them.
    """

    def __init__(
        self, location: S3Location, access: S3Access, options: S3Options | None = None, state: Path | None = None
    ) -> None:
        self._options = options or S3Options()
        self._state = state
        self.bucket = Bucket(location, access, self._options)

    @classmethod
    def open(
        cls, location: str, access: S3Access, options: S3Options | None = None, state: Path | None = None
    ) -> S3Store:
        """The store at `s3://bucket/prefix`. Raises StorageError where that is none."""
        return cls(parse_location(location), access, options, state)

    @property
    def location(self) -> str:
        return str(self.bucket.location)

    @property
    def write_interval_s(self) -> float:
        return self._options.write_interval_s

    def close(self) -> None:
        """Close its connections. A process that ends need not."""
        self.bucket.close()

    def check(self) -> None:
        self.bucket.call("list_objects_v2", Prefix=self.bucket.location.full(""), MaxKeys=1)

    def put_bytes(self, key: str, data: bytes, *, if_absent: bool = False) -> None:
        writer = secrets.token_hex(8)
        put(self.bucket, check_key(key), data, _entry_of(data), if_absent=if_absent, writer=writer)

    def put_file(self, key: str, path: Path, *, if_absent: bool = False) -> FileEntry:
        check_key(key)
        writer = secrets.token_hex(8)
        with disk_errors(f"read {path.name}", path.parent):
            size_bytes = path.stat().st_size
            if size_bytes <= min(self._options.single_put_max_bytes, MAX_SINGLE_BYTES):
                data = path.read_bytes()
                entry = _entry_of(data)
                put(self.bucket, key, data, entry, if_absent=if_absent, writer=writer)
                return entry
            file = hash_file(path, self._options.parts_of(size_bytes, self._options.part_bytes))
            with self.bucket.pacer.turn(key):
                upload = MultipartUpload(self.bucket, key, path, file, self._state, writer)
                upload.run(if_absent=if_absent)
            return file.entry

    def get_bytes(self, key: str) -> bytes:
        buffer = BytesIO()

        def start() -> Callable[[bytes], Any]:
            buffer.seek(0)
            buffer.truncate()
            return buffer.write

        found = read(self.bucket, check_key(key), start, None)
        if found.stored_sha256 not in (None, found.entry.sha256):
            raise damaged(self.bucket, key, found.entry.sha256, str(found.stored_sha256))
        return buffer.getvalue()

    def digest(self, key: str) -> FileEntry:
        return read(self.bucket, check_key(key), lambda: len, None).entry

    def fetch_file(self, key: str, into: Path, *, sha256: str | None) -> None:
        check_key(key)
        with disk_errors(f"fetch {key}", into.parent):
            into.parent.mkdir(parents=True, exist_ok=True)
            with temporary_file(into.parent) as temporary, temporary.open("wb") as file:

                def start() -> Callable[[bytes], Any]:
                    file.seek(0)
                    file.truncate()
                    return file.write

                found = read(self.bucket, key, start, sha256)
                expected = sha256 or found.stored_sha256
                if expected not in (None, found.entry.sha256):
                    raise damaged(self.bucket, key, found.entry.sha256, str(expected))
                file.close()
                temporary.replace(into)

    def fetch_many(self, files: Mapping[str, tuple[str, FileEntry]], into: Path) -> None:
        # obstore is needed for this alone, and takes its time to import.
        from eagleray.storage.s3.bulk import fetch_many  # noqa: PLC0415

        fetch_many(self, {check_key(name): (check_key(key), entry) for name, (key, entry) in files.items()}, into)

    def identify(self, key: str) -> ObjectIdentity:
        head = self.bucket.call("head_object", check_key(key))
        return ObjectIdentity(int(head["ContentLength"]), head.get("Metadata", {}).get(SHA256), str(head["ETag"]))

    def copy(self, source_key: str, key: str) -> None:
        copy_object(self.bucket, check_key(source_key), check_key(key))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        base = self._base(prefix)
        cut = len(self._base(""))
        found = [
            ObjectInfo(entry["Key"][cut:], int(entry["Size"]), entry["LastModified"].timestamp())
            for page in self._pages(Prefix=base)
            for entry in page.get("Contents", [])
            # Other programs mark a "folder" by an empty object whose key ends with a slash.
            if not entry["Key"].endswith("/")
        ]
        # S3 and R2 list in order already; SeaweedFS puts "a/b" before "a-b".
        return iter(sorted(found, key=lambda info: info.key))

    def list_folders(self, prefix: str) -> Sequence[str]:
        base = self._base(prefix)
        folders = [
            entry["Prefix"]
            for page in self._pages(Prefix=base, Delimiter="/")
            for entry in page.get("CommonPrefixes", [])
        ]

        def holds_something(folder: str) -> bool:
            # SeaweedFS names folders whose last object is gone.
            page = self.bucket.call("list_objects_v2", Prefix=folder, MaxKeys=2)
            return any(not entry["Key"].endswith("/") for entry in page.get("Contents", []))

        with ThreadPoolExecutor(8) as pool:
            kept = list(pool.map(holds_something, folders))
        return sorted(folder[len(base) : -1] for folder, keep in zip(folders, kept, strict=True) if keep)

    def exists(self, key: str) -> bool:
        try:
            self.bucket.call("head_object", check_key(key))
        except NotFoundError:
            return False
        return True

    def delete(self, key: str) -> None:
        try:
            self.bucket.call("delete_object", check_key(key))
        except NotFoundError:
            return

    def delete_prefix(self, prefix: str) -> None:
        check_key(prefix)
        keys = [self.bucket.location.full(info.key) for info in self.list(prefix)]
        for start in range(0, len(keys), _DELETE_AT_ONCE):
            objects = [{"Key": key} for key in keys[start : start + _DELETE_AT_ONCE]]
            answer = self.bucket.call(
                "delete_objects", ChecksumAlgorithm="SHA256", Delete={"Objects": objects, "Quiet": True}
            )
            if errors := answer.get("Errors"):
                raise StorageError(
                    f"{len(errors)} objects below '{prefix}' in {self.location} could not be deleted "
                    f"({errors[0].get('Code', 'no reason given')}).",
                    "Allow s3:DeleteObject, or delete them by other means.",
                )

    def local_path(self, key: str) -> Path | None:
        check_key(key)
        return None

    def presign(self, key: str, expires_s: int) -> str | None:
        if not 0 < expires_s <= MAX_PRESIGN_S:
            raise StorageError(f"An address cannot be valid for {expires_s} s.", f"Valid: 1 to {MAX_PRESIGN_S} s.")
        parameters = {"Bucket": self.bucket.location.bucket, "Key": self.bucket.full_key(check_key(key))}
        return str(self.bucket.client.generate_presigned_url("get_object", parameters, ExpiresIn=expires_s))

    def sweep_unfinished(self, older_than_s: float) -> int:
        """Ends uploads in parts that nobody completed: their parts are paid for and not listed."""
        before = datetime.now(UTC) - timedelta(seconds=older_than_s)
        base, ended = self._base(""), 0
        marker: dict[str, str] = {}
        while True:
            page = self.bucket.call("list_multipart_uploads", Prefix=base, **marker)
            for upload in page.get("Uploads", []):
                if upload["Initiated"] < before:
                    self.bucket.call("abort_multipart_upload", upload["Key"][len(base) :], UploadId=upload["UploadId"])
                    ended += 1
            if not page.get("IsTruncated"):
                break
            marker = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}
        for note in self._state.glob("*.json") if self._state else ():
            remove_older(note, older_than_s)
        return ended

    def portable_access(self) -> S3Access | None:
        """See `Bucket.portable_access`."""
        return self.bucket.portable_access()

    def _base(self, prefix: str) -> str:
        """What the keys of the folder `prefix` begin with."""
        if prefix:
            check_key(prefix)
        full = self.bucket.location.full(prefix)
        return f"{full}/" if full else ""

    def _pages(self, **arguments: Any) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            page = self.bucket.call("list_objects_v2", **arguments, **token)
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}


def _entry_of(data: bytes) -> FileEntry:
    return FileEntry(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
