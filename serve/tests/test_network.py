"""What only shows with a real connection, a real proxy's headers, or a real bucket."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from eagleray.control.commands import SYSTEM
from eagleray.plugins.host import Catalogue
from eagleray.settings import Settings
from eagleray.storage import layout
from eagleray.storage.checkpoints import Checkpoints
from eagleray.storage.s3.store import S3Store
from eagleray.testing.s3_server import seaweed
from eagleray_serve.app import make_app

from .conftest import OPEN, SPEC, Serve, connect
from .fake import FakePlane

CONTENT = bytes(range(256)) * 8
PATH = "/api/v1/training/jobs/1/checkpoints/best.pt"


@pytest.mark.parametrize(("proxies", "codes"), [(("10.0.0.1",), [200] * 6), ((), [200, 200, 429, 429, 429, 429])])
def test_only_a_trusted_proxy_says_who_its_clients_are(
    proxies: tuple[str, ...], codes: list[int], build: Callable[..., FastAPI]
) -> None:
    app = build(address_rate_per_s=2, trusted_proxies=proxies)
    with TestClient(app, "http://localhost", client=("10.0.0.1", 1000)) as client:
        given = [client.get("/health", headers={"X-Forwarded-For": f"203.0.113.{n}"}).status_code for n in range(6)]
    assert given == codes


def test_a_body_that_stops_coming_is_not_waited_for(serve: Serve, keys: dict[str, str]) -> None:
    address = serve(body_timeout_s=0.3)
    host, port = address.split(":")
    head = f"POST /api/v1/training/jobs HTTP/1.1\r\nHost: {address}\r\nX-API-Key: {keys['writer']}\r\n"
    with socket.create_connection((host, int(port)), timeout=20) as slow:
        slow.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{".encode())
        assert b" 408 " in slow.recv(1000).splitlines()[0]


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    with seaweed(tmp_path_factory.mktemp("s3")) as server:
        server.make_bucket("models")
        yield S3Store.open("s3://models/eagleray", server.access, state=tmp_path_factory.mktemp("state"))


@pytest.fixture
def in_a_bucket(
    bucket: S3Store, plane: FakePlane, catalogue: Catalogue, settings: Settings, keys: dict[str, str], tmp_path: Path
) -> Iterator[TestClient]:
    """The app on a bucket with a job's checkpoint in it."""
    plane.create_job(SYSTEM, SPEC)
    (tmp_path / "checkpoint").mkdir()
    (tmp_path / "checkpoint/model.npz").write_bytes(CONTENT)
    Checkpoints(bucket, layout.job_prefix(1, "orchard")).commit(
        tmp_path / "checkpoint",
        job_id=1,
        attempt=1,
        epoch=2,
        metrics={"accuracy": 0.5},
        portable_file="model.npz",
        is_best=True,
        best_value=0.5,
        best_epoch=2,
    )
    with connect(make_app(plane, plane.queries, catalogue, bucket, settings, OPEN), keys["writer"]) as client:
        yield client


def test_a_bucket_is_read_through_whole_and_in_part(in_a_bucket: TestClient) -> None:
    whole = in_a_bucket.get(PATH)
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert not [name for name in whole.headers if name.startswith("x-amz")]
    part = in_a_bucket.get(PATH, headers={"Range": "bytes=1-3"})
    assert (part.status_code, part.content) == (206, CONTENT[1:4])
    assert part.headers["content-range"] == f"bytes 1-3/{len(CONTENT)}"
    rest = in_a_bucket.get(PATH, headers={"Range": "bytes=2000-", "If-Range": whole.headers["etag"]})
    assert (rest.status_code, rest.content) == (206, CONTENT[2000:])
    beyond = in_a_bucket.get(PATH, headers={"Range": "bytes=999999-"})
    assert (beyond.status_code, beyond.json()["code"]) == (416, "range")


def test_a_presigned_address_needs_no_key_and_only_reads(in_a_bucket: TestClient) -> None:
    url = in_a_bucket.get(f"{PATH}/url", params={"expires_s": 60}).json()["url"]
    assert httpx.get(url).content == CONTENT
    assert httpx.get(url, headers={"Range": "bytes=1-3"}).content == CONTENT[1:4]
    assert httpx.put(url, content=b"other").status_code == 403
    assert httpx.get(url.partition("?")[0]).status_code == 403
