"""One S3 server for all tests of a session; every test has a prefix of its own in its bucket."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from eagleray.settings import S3Access
from eagleray.storage.s3.options import MIB, S3Options
from eagleray.storage.s3.store import S3Store
from eagleray.testing.s3_proxy import Request, StrictProxy, strict_proxy
from eagleray.testing.s3_server import SeaweedServer, seaweed

BUCKET = "eagleray-tests"
# The rules as they are, on a shorter scale of time; parts as small as R2 takes them.
FAST = S3Options(
    connect_timeout_s=2.0,
    read_timeout_s=5.0,
    base_s=0.01,
    cap_s=0.2,
    write_interval_s=0.12,
    single_put_max_bytes=8 * MIB,
    part_bytes=5 * MIB,
    single_copy_max_bytes=12 * MIB,
    copy_part_bytes=6 * MIB,
)
OpenS3 = Callable[..., S3Store]


def is_put(request: Request) -> bool:
    return request.method == "PUT"


def is_data(request: Request) -> bool:
    return request.reads_data


def is_part(request: Request) -> bool:
    return request.method == "PUT" and "uploadId" in request.query


def is_completion(request: Request) -> bool:
    return request.method == "POST" and "uploadId" in request.query


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    with seaweed(tmp_path_factory.mktemp("s3")) as server:
        server.make_bucket(BUCKET)
        yield server


@pytest.fixture
def proxy(s3_server: SeaweedServer) -> Iterator[StrictProxy]:
    with strict_proxy(s3_server, write_interval_s=0.1, stall_s=20) as running:
        yield running


@pytest.fixture
def open_s3(s3_server: SeaweedServer, tmp_path: Path) -> Iterator[OpenS3]:
    """Opens stores at one prefix, new for this test: `open_s3(access=…, options=…)`."""
    prefix = uuid.uuid4().hex
    opened: list[S3Store] = []

    def opener(access: S3Access | None = None, options: S3Options = FAST) -> S3Store:
        store = S3Store.open(f"s3://{BUCKET}/{prefix}", access or s3_server.access, options, state=tmp_path / "uploads")
        opened.append(store)
        return store

    yield opener
    for store in opened:
        store.close()


@pytest.fixture
def store(open_s3: OpenS3, proxy: StrictProxy) -> S3Store:
    """A bucket behind the proxy."""
    return open_s3(proxy.access)


@pytest.fixture
def big(tmp_path: Path) -> tuple[Path, bytes]:
    """Five parts, the last a short one."""
    data = random.Random(7).randbytes(21 * MIB)
    (tmp_path / "big.bin").write_bytes(data)
    return tmp_path / "big.bin", data
