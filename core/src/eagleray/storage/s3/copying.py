"""Copies inside a bucket; no byte travels."""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from eagleray.contract.errors import StorageError
from eagleray.storage.s3.bucket import Bucket
from eagleray.storage.s3.options import MAX_SINGLE_BYTES
from eagleray.storage.s3.retries import BROKEN, code_of
from eagleray.storage.s3.upload import WRITER
from eagleray.storage.store import NotFoundError


def copy_object(bucket: Bucket, source_key: str, key: str) -> None:
    """Write `key` with the bytes and metadata of `source_key`. Raises NotFoundError."""
    head = bucket.call("head_object", source_key)
    source = {"Bucket": bucket.location.bucket, "Key": bucket.full_key(source_key)}
    size_bytes = int(head["ContentLength"])
    with bucket.pacer.turn(key):
        if size_bytes <= min(bucket.options.single_copy_max_bytes, MAX_SINGLE_BYTES):
            bucket.call("copy_object", key, paced=True, CopySource=source, CopySourceIfMatch=head["ETag"])
        else:
            _in_parts(bucket, source, key, size_bytes, head)


def _in_parts(bucket: Bucket, source: dict[str, str], key: str, size_bytes: int, head: dict[str, Any]) -> None:
    part_bytes = bucket.options.parts_of(size_bytes, bucket.options.copy_part_bytes)
    writer = secrets.token_hex(8)
    metadata = {**head.get("Metadata", {}), WRITER: writer}
    upload = bucket.call("create_multipart_upload", key, Metadata=metadata)["UploadId"]
    parts = []
    try:
        for number, start in enumerate(range(0, size_bytes, part_bytes), 1):
            last = min(start + part_bytes, size_bytes) - 1
            copied = bucket.call(
                "upload_part_copy",
                key,
                UploadId=upload,
                PartNumber=number,
                CopySource=source,
                CopySourceIfMatch=head["ETag"],
                CopySourceRange=f"bytes={start}-{last}",
            )
            parts.append({"PartNumber": number, "ETag": copied["CopyPartResult"]["ETag"]})
        _complete(bucket, key, upload, parts, writer)
    except BaseException:
        with suppress(StorageError):
            bucket.call("abort_multipart_upload", key, UploadId=upload)
        raise


def _complete(bucket: Bucket, key: str, upload: str, parts: list[dict[str, Any]], writer: str) -> None:
    try:
        bucket.attempt("complete_multipart_upload", key, paced=True, UploadId=upload, MultipartUpload={"Parts": parts})
    except (ClientError, BotoCoreError, *BROKEN) as error:
        # The answer to a success got lost, and the upload is gone when it is asked for again.
        if code_of(error) == "NoSuchUpload" and _was_made_by(writer, bucket, key):
            return
        raise bucket.explain(error, "complete_multipart_upload", key) from error


def _was_made_by(writer: str, bucket: Bucket, key: str) -> bool:
    try:
        return bool(bucket.call("head_object", key).get("Metadata", {}).get(WRITER) == writer)
    except NotFoundError:
        return False
