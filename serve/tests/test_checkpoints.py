"""Checkpoints over HTTP: listed, and fetched whole or in part."""

from __future__ import annotations

import functools
import http.server
import threading
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from eagleray.control.commands import SYSTEM
from eagleray.storage import layout
from eagleray.storage.checkpoints import Checkpoints
from eagleray.storage.local import LocalStore

from .conftest import SPEC
from .fake import FakePlane

CONTENT = bytes(range(256)) * 8
PATH = "/api/v1/training/jobs/1/checkpoints"


@pytest.fixture(autouse=True)
def trained(plane: FakePlane, store: LocalStore, tmp_path: Path) -> None:
    plane.create_job(SYSTEM, SPEC)
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    (folder / "model.npz").write_bytes(CONTENT)
    Checkpoints(store, layout.job_prefix(1, "orchard")).commit(
        folder,
        job_id=1,
        attempt=1,
        epoch=2,
        metrics={"accuracy": 0.5},
        portable_file="model.npz",
        is_best=True,
        best_value=0.5,
        best_epoch=2,
    )


def test_checkpoints_are_listed_with_their_files(writer: TestClient) -> None:
    found = writer.get(PATH).json()
    assert [(each["attempt"], each["epoch"], each["size_bytes"]) for each in found["items"]] == [(1, 2, len(CONTENT))]
    assert [each["name"] for each in found["artifacts"]] == ["best.pt", "last.pt"]


@pytest.mark.parametrize("name", ["best.pt", "last.pt", "1/2/model.npz"])
def test_files_come_whole_and_as_attachments(writer: TestClient, name: str) -> None:
    answer = writer.get(f"{PATH}/{name}")
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["content-disposition"].startswith("attachment; filename=")
    assert answer.headers["content-type"] == "application/octet-stream"


@pytest.mark.parametrize(
    ("range_", "status", "content"),
    [
        ("bytes=0-9", 206, CONTENT[:10]),
        ("bytes=2000-", 206, CONTENT[2000:]),
        ("bytes=-5", 206, CONTENT[-5:]),
        ("bytes=10-999999", 206, CONTENT[10:]),
        ("bytes=999999-", 416, None),
        ("bytes=9-3", 416, None),
        ("bytes=-0", 416, None),
        ("lines=1-2", 200, CONTENT),
        ("bytes=" + ",".join(f"{n}-{n}" for n in range(10_000)), 200, CONTENT),
    ],
)
def test_one_range_is_honoured(writer: TestClient, range_: str, status: int, content: bytes | None) -> None:
    answer = writer.get(f"{PATH}/best.pt", headers={"Range": range_})
    assert answer.status_code == status
    if content is None:
        assert answer.json()["code"] == "range"
        assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"
    else:
        assert answer.content == content


def test_a_range_of_a_file_that_changed_is_the_whole_file(writer: TestClient) -> None:
    headers = {"Range": "bytes=5-", "If-Range": '"other"'}
    assert writer.get(f"{PATH}/best.pt", headers=headers).content == CONTENT


@pytest.mark.parametrize("name", ["1/3/model.npz", "1/2/other", "1/2/../../../manifest.json", "1/2/manifest.json"])
def test_only_files_of_a_manifest_are_there(writer: TestClient, name: str) -> None:
    assert writer.get(f"{PATH}/{name}").status_code == 404


def test_a_folder_has_no_presigned_addresses(writer: TestClient) -> None:
    answer = writer.get(f"{PATH}/best.pt/url")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")


def test_a_bucket_presigns(writer: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def presign(self: LocalStore, key: str, expires_s: int) -> str:
        return f"https://bucket/{key}?for={expires_s}"

    monkeypatch.setattr(LocalStore, "presign", presign)
    answer = writer.get(f"{PATH}/best.pt/url", params={"expires_s": 60}).json()
    assert answer["url"] == "https://bucket/checkpoints/projects/orchard/jobs/1/best.pt?for=60"


def test_a_bucket_is_read_through_with_its_ranges(
    writer: TestClient, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key of this server is enough: the client need not reach the bucket."""
    bucket = f"{store.root}/checkpoints/projects/orchard/jobs/1"
    handler = functools.partial(RangeRequestHandler, directory=bucket)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/best.pt"
        monkeypatch.setattr(LocalStore, "local_path", lambda *_: None)
        monkeypatch.setattr(LocalStore, "presign", lambda *_: address)
        whole = writer.get(f"{PATH}/best.pt")
        part = writer.get(f"{PATH}/best.pt", headers={"Range": "bytes=1-3"})
        server.shutdown()
    assert (whole.status_code, whole.content) == (200, CONTENT)
    assert (part.status_code, part.content) == (206, CONTENT[1:4])
    assert "x-bucket" not in part.headers


class RangeRequestHandler(http.server.SimpleHTTPRequestHandler):
    """As much of S3 as a download needs."""

    def do_GET(self) -> None:
        content = Path(str(self.directory), self.path.lstrip("/")).read_bytes()
        given = self.headers.get("Range")
        first, last = (int(part) for part in given[6:].split("-")) if given else (0, len(content) - 1)
        body = content[first : last + 1]
        self.send_response(206 if given else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Bucket", "not for clients")
        if given:
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
