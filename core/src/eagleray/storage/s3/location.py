"""`s3://bucket/prefix`, taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from eagleray.contract.errors import StorageError
from eagleray.storage.store import check_key

SCHEME = "s3://"


@dataclass(frozen=True)
class S3Location:
    """`prefix` has no slash at its ends and may be empty."""

    bucket: str
    prefix: str = ""

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")

    def full(self, key: str) -> str:
        """The object's key in the bucket; an empty key is the prefix itself."""
        return "/".join(part for part in (self.prefix, key) if part)


def parse_location(text: str) -> S3Location:
    """The bucket and prefix of an address.

    Raises:
        StorageError: it is not such an address, or holds credentials.
    """
    rest = text.removeprefix(SCHEME)
    if "@" in rest.partition("/")[0] or urlsplit(text).password:
        # The text itself is not shown: it may hold a secret.
        raise StorageError(
            "The storage address holds credentials.",
            "Write s3://bucket/prefix, and set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
        )
    bucket, _, prefix = rest.partition("/")
    # Amazon's rules for names, which R2 and others share.
    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", bucket) or ".." in bucket:
        raise StorageError(
            f"'{bucket[:80]}' in '{text[:120]}' is not the name of a bucket.",
            "Write s3://bucket/prefix; a bucket's name is 3 to 63 lower-case letters, digits, '-' and '.'.",
        )
    prefix = prefix.strip("/")
    if prefix:
        check_key(prefix)
    return S3Location(bucket, prefix)
