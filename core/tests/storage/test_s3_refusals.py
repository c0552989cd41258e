"""What a bucket or its address refuses, how that is said, and R2's rules as the proxy holds them."""

from __future__ import annotations

import hashlib
import os
import pickle
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from eagleray.contract.errors import StorageError
from eagleray.settings import S3Access, load_s3_access
from eagleray.storage.opening import open_store, store_access
from eagleray.storage.s3.bucket import Bucket
from eagleray.storage.s3.location import S3Location, parse_location
from eagleray.storage.s3.options import MIB
from eagleray.storage.s3.store import S3Store
from eagleray.storage.s3.upload import base64_of
from eagleray.storage.store import NotFoundError
from eagleray.testing.s3_proxy import StrictProxy
from eagleray.testing.s3_server import READER_KEY, READER_SECRET, SECRET_KEY, SeaweedServer

from .conftest import BUCKET, FAST, OpenS3

# What is refused, and how it is said


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


REFUSALS: dict[str, tuple[Callable[[S3Access], S3Access], str, str]] = {
    "wrong key": (
        lambda access: replace(access, access_key_id="NOBODY"),
        "does not accept the access key",
        "AWS_ACCESS_KEY_ID",
    ),
    "wrong secret": (
        lambda access: replace(access, secret_access_key="wrong"),
        "does not accept the credentials",
        "AWS_SECRET_ACCESS_KEY",
    ),
    "no secret": (
        lambda access: replace(access, secret_access_key=None),
        "no complete credentials",
        "AWS_SECRET_ACCESS_KEY",
    ),
    "endpoint": (
        lambda access: replace(access, endpoint_url=f"http://127.0.0.1:{closed_port()}"),
        "Nothing answers at http",
        "AWS_S3_ENDPOINT_URL",
    ),
    "no address": (lambda access: replace(access, endpoint_url="nonsense"), "'nonsense'", "https://<account>"),
    "no profile": (lambda access: replace(access, profile="nobody"), "nobody", "EAGLERAY_S3_PROFILE"),
}


@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.parametrize("method", ["check", "get", "head", "put", "list"])
def test_a_refusal_says_what_is_wrong_and_what_to_set(
    s3_server: SeaweedServer, open_s3: OpenS3, case: str, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    change, message, hint = REFUSALS[case]
    store = open_s3(change(s3_server.access))
    calls: dict[str, Callable[[], object]] = {
        "check": store.check,
        "get": lambda: store.get_bytes("a"),
        "head": lambda: store.exists("a"),
        "put": lambda: store.put_bytes("a", b"x"),
        "list": lambda: list(store.list("")),
    }
    started = time.monotonic()
    with pytest.raises(StorageError) as caught:
        calls[method]()
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert SECRET_KEY not in str(caught.value)
    assert time.monotonic() - started < 10
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("method", ["get_bytes", "exists"])
def test_a_bucket_that_is_not_there_is_named(s3_server: SeaweedServer, method: str) -> None:
    store = S3Store.open("s3://not-there/x", s3_server.access, FAST)
    with pytest.raises(StorageError, match="no bucket 'not-there'") as caught:
        getattr(store, method)("a")
    assert not isinstance(caught.value, NotFoundError)
    store.close()


def test_a_missing_permission_is_named(s3_server: SeaweedServer, open_s3: OpenS3) -> None:
    open_s3().put_bytes("a", b"x")
    reader = open_s3(replace(s3_server.access, access_key_id=READER_KEY, secret_access_key=READER_SECRET))
    assert reader.get_bytes("a") == b"x"
    with pytest.raises(StorageError, match="may not write 'b'") as caught:
        reader.put_bytes("b", b"x")
    assert "s3:PutObject" in caught.value.hint
    with pytest.raises(StorageError, match="may not delete"):
        reader.delete("a")


@pytest.mark.parametrize(
    ("text", "bucket", "prefix"),
    [("s3://bkt", "bkt", ""), ("s3://bkt/", "bkt", ""), ("s3://b-k.t/a/b/", "b-k.t", "a/b")],
)
def test_an_address_is_a_bucket_and_a_prefix(text: str, bucket: str, prefix: str) -> None:
    assert parse_location(text) == S3Location(bucket, prefix)


@pytest.mark.parametrize(
    "text", ["s3://", "s3:///x", "s3://Bucket", "s3://a", "s3://bkt/../x", "s3://bkt//x/./y", "s3://b..t"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(StorageError):
        parse_location(text)


def test_credentials_in_an_address_are_refused_without_being_shown() -> None:
    with pytest.raises(StorageError) as caught:
        parse_location("s3://KEY:verysecret@bucket/x")
    assert "verysecret" not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(
    ("endpoint", "region", "expected"),
    [
        ("https://abc123.r2.cloudflarestorage.com", None, "auto"),
        ("https://abc123.eu.r2.cloudflarestorage.com", None, "auto"),
        ("https://abc123.r2.cloudflarestorage.com", "auto", "auto"),
        ("http://127.0.0.1:9000", None, "us-east-1"),
        ("http://127.0.0.1:9000", "eu-west-1", "eu-west-1"),
        (None, "eu-west-1", "eu-west-1"),
    ],
)
def test_r2s_region_is_auto_by_itself(
    endpoint: str | None, region: str | None, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    access = S3Access(endpoint, region, access_key_id="a", secret_access_key="b")
    assert Bucket(S3Location("bkt"), access, FAST).region == expected


def test_the_environment_says_how_buckets_are_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    assert load_s3_access() == S3Access()
    values = {
        "AWS_S3_ENDPOINT_URL": "http://x",
        "AWS_REGION": "auto",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "verysecret",
        "AWS_SESSION_TOKEN": "verysecret",
        "EAGLERAY_S3_PROFILE": "mine",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    access = load_s3_access()
    assert access == S3Access("http://x", "auto", "mine", "key", "verysecret", "verysecret")
    assert "verysecret" not in repr(access)


def test_what_another_node_needs_are_keys_not_a_profile(
    s3_server: SeaweedServer, open_s3: OpenS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = s3_server.access
    (tmp_path / "credentials").write_text(
        f"[mine]\naws_access_key_id = {access.access_key_id}\naws_secret_access_key = {access.secret_access_key}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    here = open_s3(S3Access(access.endpoint_url, "auto", profile="mine"))
    here.put_bytes("a", b"x")
    travels = store_access(here)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    there = open_store(here.location, travels)
    assert there.get_bytes("a") == b"x"


def test_a_key_that_is_too_long_with_the_prefix_is_refused(s3_server: SeaweedServer) -> None:
    long = "/".join(["p" * 200] * 4)
    store = S3Store.open(f"s3://{BUCKET}/{long}", s3_server.access, FAST)
    with pytest.raises(StorageError, match="longer than the 1024 bytes"):
        store.put_bytes("/".join(["k" * 200] * 2), b"")
    store.close()


# The proxy itself: what it is for


def raw(proxy: StrictProxy, **settings: Any) -> Any:
    return boto3.Session(proxy.access.access_key_id, proxy.access.secret_access_key).client(
        "s3", endpoint_url=proxy.endpoint, region_name=settings.pop("region", "auto"), config=Config(**settings)
    )


def test_the_proxy_refuses_what_r2_refuses(proxy: StrictProxy) -> None:
    cases = [
        ({}, {}, "NotImplemented"),  # botocore's CRC trailers
        ({"request_checksum_calculation": "when_required"}, {}, "NothingGuardsTheBody"),
        ({"request_checksum_calculation": "when_required", "region": "us-west-2"}, {}, "InvalidRegionName"),
        ({"request_checksum_calculation": "when_required"}, {"Metadata": {"a": "x" * 9000}}, "MetadataTooLarge"),
    ]
    for settings, arguments, code in cases:
        client = raw(proxy, **settings)
        with pytest.raises(ClientError) as caught:
            client.put_object(Bucket=BUCKET, Key="x", Body=b"x", **arguments)
        assert caught.value.response["Error"]["Code"] == code
        client.close()


def test_the_proxy_refuses_unequal_parts(proxy: StrictProxy, open_s3: OpenS3, big: tuple[Path, bytes]) -> None:
    store = open_s3(proxy.access)
    upload = store.bucket.call("create_multipart_upload", "u", ChecksumAlgorithm="SHA256")["UploadId"]
    parts = []
    for number, size in enumerate((5 * MIB, 6 * MIB, MIB), 1):
        data = big[1][:size]
        checksum = base64_of(hashlib.sha256(data).digest())
        etag = store.bucket.call(
            "upload_part", "u", UploadId=upload, PartNumber=number, Body=data, ChecksumSHA256=checksum
        )["ETag"]
        parts.append({"PartNumber": number, "ETag": etag, "ChecksumSHA256": checksum})
    with pytest.raises(StorageError, match="InvalidPart"):
        store.bucket.call("complete_multipart_upload", "u", UploadId=upload, MultipartUpload={"Parts": parts})
