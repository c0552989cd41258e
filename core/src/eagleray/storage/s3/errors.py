"""What S3 refuses, in sentences. No credential is ever part of one."""

from __future__ import annotations

from botocore.exceptions import (
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
)

from eagleray.contract.errors import StorageError
from eagleray.settings import S3Access
from eagleray.storage.s3.location import S3Location
from eagleray.storage.s3.retries import code_of, is_outage, status_of
from eagleray.storage.store import StoreUnreachableError

# What a request does, in words, and the permission that allows it.
OPERATIONS = {
    "put_object": ("write", "s3:PutObject"),
    "get_object": ("read", "s3:GetObject"),
    "head_object": ("look for", "s3:GetObject and s3:ListBucket"),
    "copy_object": ("copy", "s3:GetObject and s3:PutObject"),
    "delete_object": ("delete", "s3:DeleteObject"),
    "delete_objects": ("delete", "s3:DeleteObject"),
    "list_objects_v2": ("list", "s3:ListBucket"),
    "list_multipart_uploads": ("list the uploads of", "s3:ListBucketMultipartUploads"),
    "list_parts": ("list the parts of", "s3:ListMultipartUploadParts"),
    "create_multipart_upload": ("write", "s3:PutObject"),
    "upload_part": ("write", "s3:PutObject"),
    "upload_part_copy": ("copy", "s3:GetObject and s3:PutObject"),
    "complete_multipart_upload": ("write", "s3:PutObject"),
    "abort_multipart_upload": ("end the upload of", "s3:AbortMultipartUpload"),
}
_KEYS_HINT = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with EAGLERAY_S3_PROFILE."
_WRONG_KEY = {"InvalidAccessKeyId", "InvalidToken", "ExpiredToken", "TokenRefreshRequired"}
_WRONG_SECRET = {"SignatureDoesNotMatch", "AuthorizationHeaderMalformed"}


def translate(error: Exception, operation: str, key: str, location: S3Location, access: S3Access) -> StorageError:
    """The sentence for what `operation` on `key` met.

    Args:
        access: named in hints as far as it is no secret.
    """
    verb = OPERATIONS.get(operation, (operation, ""))[0]
    doing = f"{verb} '{key}' in {location}" if key else f"{verb} {location}"
    server = access.endpoint_url or "Amazon S3"
    return (
        _of_client(error, server)
        or _of_answer(error, operation, doing, location, server)
        or StorageError(f"Cannot {doing}: {_brief(error, access)}", f"The answer came from {server}.")
    )


def _of_client(error: Exception, server: str) -> StorageError | None:
    """Where there was no answer to begin with."""
    if isinstance(error, NoCredentialsError | PartialCredentialsError):
        return StorageError("There are no complete credentials for S3.", _KEYS_HINT)
    if isinstance(error, ProfileNotFound):
        return StorageError(str(error), "Name one of ~/.aws/config with EAGLERAY_S3_PROFILE, or unset it.")
    if isinstance(error, EndpointConnectionError | ConnectTimeoutError):
        return StoreUnreachableError(
            f"Nothing answers at {server}.",
            "Check AWS_S3_ENDPOINT_URL (for R2: https://<account>.r2.cloudflarestorage.com) and the network.",
        )
    if is_outage(error) and not status_of(error):
        return StoreUnreachableError(f"The line to {server} broke: {type(error).__name__}.", "Try again later.")
    return None


def _of_answer(error: Exception, operation: str, doing: str, location: S3Location, server: str) -> StorageError | None:
    code, status = code_of(error), status_of(error)
    if is_outage(error):
        return StoreUnreachableError(
            f"Cannot {doing}: {server} refuses for now ({code or status}).", "It was asked several times; try later."
        )
    if code in _WRONG_KEY:
        return StorageError(f"{server} does not accept the access key ({code}).", _KEYS_HINT)
    if code in _WRONG_SECRET:
        return StorageError(
            f"{server} does not accept the credentials ({code}).",
            f"The secret key is wrong, or AWS_REGION (for R2: auto). {_KEYS_HINT}",
        )
    if code == "RequestTimeTooSkewed":
        return StorageError(f"The clock of this machine differs from that of {server}.", "Set the clock.")
    if code == "NoSuchBucket":
        return StorageError(
            f"There is no bucket '{location.bucket}' at {server}.",
            "Make it there, or name another in EAGLERAY_STORAGE=s3://bucket/prefix.",
        )
    if code in {"PermanentRedirect", "301", "IllegalLocationConstraintException"} or status == 301:
        return StorageError(f"The bucket '{location.bucket}' is in another region.", "Set AWS_REGION to it.")
    if status == 403:
        return StorageError(
            f"The credentials may not {doing}.",
            f"Allow {OPERATIONS.get(operation, ('', 'it'))[1]} on the bucket '{location.bucket}', or use other keys.",
        )
    return None


def _brief(error: Exception, access: S3Access) -> str:
    text = " ".join(str(error).split())[:300]
    for secret in (access.secret_access_key, access.session_token, access.access_key_id):
        if secret:
            text = text.replace(secret, "***")
    return text
