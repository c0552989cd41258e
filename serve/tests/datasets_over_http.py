"""Uploads and imports as a client makes them."""

from __future__ import annotations

import hashlib
import io
import time
import zipfile
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

PART = 1000


def packed(folder: Path) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.writestr(zipfile.ZipInfo(path.relative_to(folder).as_posix()), path.read_bytes())
    return file.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def send(client: TestClient, upload_id: str, data: bytes, start: int) -> dict[str, Any]:
    part = data[start : start + PART]
    headers = {"X-Part-Sha256": sha256(part), "Content-Type": "application/octet-stream"}
    answer = client.put(f"/api/v1/uploads/{upload_id}/parts/{start}", content=part, headers=headers)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def uploaded(client: TestClient, data: bytes) -> str:
    body = {"size_bytes": len(data), "sha256": sha256(data), "filename": "coins.zip"}
    upload_id = str(client.post("/api/v1/uploads", json=body).json()["id"])
    for start in range(0, len(data), PART):
        send(client, upload_id, data, start)
    return upload_id


def ended(client: TestClient, answer: Any) -> dict[str, Any]:
    """The import once it has ended."""
    assert answer.status_code == 202, answer.text
    for _ in range(300):
        found: dict[str, Any] = client.get(answer.headers["location"]).json()
        if found["state"] not in ("waiting", "running"):
            return found
        time.sleep(0.05)
    raise AssertionError(found)


def imported(client: TestClient, folder: Path, **wanted: Any) -> dict[str, Any]:
    upload_id = uploaded(client, packed(folder))
    return ended(client, client.post("/api/v1/datasets", json={"upload_id": upload_id, "name": "coins", **wanted}))
