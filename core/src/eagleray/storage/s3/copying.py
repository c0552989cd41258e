"""Copies inside a bucket; no byte travels."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from eagleray.contract.errors import StorageError
from eagleray.storage.s3.bucket import Bucket
from eagleray.storage.s3.options import MAX_SINGLE_BYTES


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
    upload = bucket.call("create_multipart_upload", key, Metadata=head.get("Metadata", {}))["UploadId"]
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
        bucket.call("complete_multipart_upload", key, paced=True, UploadId=upload, MultipartUpload={"Parts": parts})
    except BaseException:
        with suppress(StorageError):
            bucket.call("abort_multipart_upload", key, UploadId=upload)
        raise
