"""Uploads that go on where they ended: announced, sent in parts, then imported by POST /api/v1/datasets."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Header, Path, Request, Response
from pydantic import BaseModel, Field

from eagleray_serve import dataset_examples as examples
from eagleray_serve.answers import answer, described
from eagleray_serve.auth import Reader, Writer
from eagleray_serve.bodies import MAX_INTEGER, Body, Text
from eagleray_serve.examples import body as example_of
from eagleray_serve.parts import Shared

router = APIRouter(prefix="/api/v1/uploads", tags=["uploads"])
UploadId = Annotated[str, Path(pattern=r"^[0-9a-f]{32}$", description="The upload's id.", examples=["a" * 32])]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="Of all bytes, in hex.")]


class UploadView(BaseModel):
    """An upload; `received` are the bytes that are there, as `[start, end)`, in order."""

    id: str
    filename: str
    size_bytes: int
    sha256: str
    created_at: datetime
    received: list[list[int]]


class CreateUpload(Body):
    size_bytes: int = Field(ge=1, le=MAX_INTEGER)
    sha256: Sha256
    filename: Text = Field(default="", description="Only shown.")


@router.post(
    "",
    status_code=201,
    response_model=UploadView,
    responses=described(examples.UPLOAD, status=201, what="Made."),
    openapi_extra=example_of(examples.CREATE_UPLOAD),
)
def create_upload(body: CreateUpload, parts: Shared, caller: Writer) -> Response:
    """Announce an archive. It is kept for a week."""
    upload = parts.datasets.announce(body.size_bytes, body.sha256, body.filename)
    return answer(upload, 201, {"Location": f"/api/v1/uploads/{upload.id}"})


@router.get("/{upload_id}", response_model=UploadView, responses=described(examples.UPLOAD, 404))
def get_upload(upload_id: UploadId, parts: Shared, caller: Reader) -> Response:
    """Which bytes have come: what is missing in `received` is still to be sent."""
    return answer(parts.datasets.uploads.show(upload_id))


@router.put(
    "/{upload_id}/parts/{start}",
    response_model=UploadView,
    responses=described(examples.UPLOAD, 404, 409, 413),
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}, "example": "…"}},
        }
    },
)
async def put_part(
    upload_id: UploadId,
    start: Annotated[int, Path(ge=0, le=MAX_INTEGER, description="Offset of its first byte.", examples=[0])],
    request: Request,
    parts: Shared,
    caller: Writer,
    x_part_sha256: Annotated[str, Header(pattern=r"^[0-9a-f]{64}$", description="Of this part, in hex.")],
) -> Response:
    """Send a part of at most 8 MiB. The same part again is fine."""
    data = b"".join([chunk async for chunk in request.stream()])
    uploads = parts.datasets.uploads
    return answer(await asyncio.to_thread(uploads.put, upload_id, start, data, x_part_sha256))


@router.delete("/{upload_id}", response_model=dict[str, str], responses=described({"deleted": "a" * 32}))
def delete_upload(upload_id: UploadId, parts: Shared, caller: Writer) -> Response:
    """Give it up."""
    parts.datasets.uploads.delete(upload_id)
    return answer({"deleted": upload_id})
