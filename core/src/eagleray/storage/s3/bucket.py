"""A bucket and the way to it: one boto3 client, retries, and sentences for what is refused."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, PartialCredentialsError

from eagleray.contract.errors import StorageError
from eagleray.settings import S3Access
from eagleray.storage.s3.errors import translate
from eagleray.storage.s3.location import S3Location
from eagleray.storage.s3.options import S3Options
from eagleray.storage.s3.pacing import WritePacer
from eagleray.storage.s3.retries import BROKEN, RetryAfter, code_of, decide, status_of
from eagleray.storage.store import MAX_KEY_BYTES, AlreadyExistsError, NotFoundError

R2_HOST = ".r2.cloudflarestorage.com"
# Credentials of the machine itself: every node has its own, and they expire, so they do not travel.
_OF_THE_MACHINE = {"iam-role", "container-role", "assume-role-with-web-identity"}
Response = dict[str, Any]


class Bucket:
    """The bucket at `location`; safe for threads. The first request makes the client.

    Attributes:
        retries: requests that were sent again, so far.
    """

    def __init__(self, location: S3Location, access: S3Access, options: S3Options) -> None:
        self.location = location
        self.access = access
        self.options = options
        self.pacer = WritePacer(options.write_interval_s)
        self.retries = 0
        self._lock = threading.Lock()
        self._session: Any = None
        self._client: Any = None
        self._met = False

    @property
    def region(self) -> str:
        host = urlsplit(self.access.endpoint_url or "").hostname or ""
        if self.access.region:
            return self.access.region
        if host.endswith(R2_HOST):
            return "auto"
        return str(self.session.region_name or "us-east-1")

    @property
    def session(self) -> Any:
        with self._lock:
            if self._session is None:
                try:
                    self._session = _session(self.access)
                except BotoCoreError as error:
                    raise translate(error, "list_objects_v2", "", self.location, self.access) from error
            return self._session

    @property
    def client(self) -> Any:
        session = self.session
        region = self.region
        with self._lock:
            if self._client is None:
                try:
                    self._client = session.client(
                        "s3", endpoint_url=self.access.endpoint_url, region_name=region, config=self._config()
                    )
                except (BotoCoreError, ValueError) as error:
                    raise StorageError(
                        f"AWS_S3_ENDPOINT_URL is '{self.access.endpoint_url}', and S3 cannot be reached by it.",
                        "For R2: https://<account>.r2.cloudflarestorage.com; for Amazon leave it unset.",
                    ) from error
            return self._client

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def call(self, operation: str, key: str = "", **arguments: Any) -> Response:
        """Send one request, again where that may help. `key` is below the location; empty for the bucket.

        Raises:
            NotFoundError, AlreadyExistsError: the server's 404 and 412.
            StoreUnreachableError: it did not answer as often as it was asked.
            StorageError: it refuses.
        """
        try:
            return self.attempt(operation, key, **arguments)
        except (ClientError, BotoCoreError, *BROKEN) as error:
            raise self.explain(error, operation, key) from error

    def attempt(self, operation: str, key: str = "", *, paced: bool = False, **arguments: Any) -> Response:
        """As `call`, with botocore's own errors; `paced` where it writes `key`."""
        if key:
            arguments["Key"] = self.full_key(key)
        method = getattr(self.client, operation)
        tried = 0
        while True:
            if paced:
                self.pacer.wait(key)
            tried += 1
            try:
                response: Response = method(Bucket=self.location.bucket, **arguments)
            except (ClientError, BotoCoreError, *BROKEN) as error:
                self._met = self._met or status_of(error) > 0
                decision = decide(error, tried, self.options, met=self._met)
                if not isinstance(decision, RetryAfter):
                    raise
                self.count_retry()
                time.sleep(decision.wait_s)
            else:
                self._met = True
                return response
            finally:
                if paced:
                    self.pacer.written(key)

    def count_retry(self) -> None:
        with self._lock:
            self.retries += 1

    def explain(self, error: Exception, operation: str, key: str) -> StorageError:
        """What `error` means. The answer to a HEAD has no body, so its reason is asked for in another way."""
        if code_of(error) in {"403", "404"} and operation != "list_objects_v2":
            try:
                self.attempt("list_objects_v2", MaxKeys=1, Prefix=self.location.full(""))
            except (ClientError, BotoCoreError, *BROKEN) as other:
                if code_of(other) != "AccessDenied":
                    return translate(other, operation, key, self.location, self.access)
        if status_of(error) == 404 and code_of(error) != "NoSuchBucket":
            return NotFoundError(f"There is no '{key}' in {self.location}.")
        if status_of(error) == 412:
            return AlreadyExistsError(f"'{key}' exists already.")
        return translate(error, operation, key, self.location, self.access)

    def full_key(self, key: str) -> str:
        full = self.location.full(key)
        if len(full.encode()) > MAX_KEY_BYTES:
            raise StorageError(
                f"'{full[:80]}…' is longer than the {MAX_KEY_BYTES} bytes that a bucket takes.",
                "Use a shorter prefix in EAGLERAY_STORAGE, or shorter names.",
            )
        return full

    def portable_access(self) -> S3Access | None:
        """What another node needs to reach the bucket as this process does; None where it has its own role.

        A secret: it goes there as an argument of a remote call only.
        """
        try:
            credentials = self.session.get_credentials()
            if credentials is None or credentials.method in _OF_THE_MACHINE:
                return replace(self.access, region=self.region) if self.access.endpoint_url else None
            frozen = credentials.get_frozen_credentials()
        except BotoCoreError as error:
            raise translate(error, "list_objects_v2", "", self.location, self.access) from error
        return S3Access(self.access.endpoint_url, self.region, None, frozen.access_key, frozen.secret_key, frozen.token)

    def _config(self) -> Config:
        options = self.options
        return Config(
            # R2 refuses botocore's CRC trailers; every put carries its sha256 instead.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=options.connect_timeout_s,
            read_timeout=options.read_timeout_s,
            max_pool_connections=options.fetch_threads + options.upload_threads,
            s3={"addressing_style": "path"} if self.access.endpoint_url else None,
        )


def _session(access: S3Access) -> Any:
    if access.profile:
        return boto3.Session(profile_name=access.profile)
    if bool(access.access_key_id) != bool(access.secret_access_key):
        raise PartialCredentialsError(provider="env", cred_var="AWS_ACCESS_KEY_ID or AWS_SECRET_ACCESS_KEY")
    if access.access_key_id:
        return boto3.Session(access.access_key_id, access.secret_access_key, access.session_token)
    return boto3.Session()
