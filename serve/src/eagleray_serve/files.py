"""Files of the store as answers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
from starlette.requests import Request
from starlette.responses import FileResponse, Response, StreamingResponse

from eagleray.contract.errors import StorageError
from eagleray.storage.store import Store
from eagleray_serve.errors import problem, request_id_of

BYTES = "application/octet-stream"
ONE_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
CHUNK_BYTES = 1 << 18
PRESIGNED_S = 24 * 3600
# What of a bucket's answer is the client's business.
PASSED_ON = ("content-length", "content-range", "etag", "last-modified", "accept-ranges")


async def send_object(store: Store, key: str, filename: str, request: Request) -> Response:
    """The object `key` as a download; one range of it where the request asks for one.

    Several ranges at once are not served: a request with thousands would cost more than the file. The whole file is
    sent instead, as RFC 9110 allows.

    Raises:
        StorageError: the store does not have it or does not answer.
    """
    path = store.local_path(key)
    given = request.headers.get("range", "").strip().lower()
    match = ONE_RANGE.fullmatch(given)
    if match is None or not any(match.groups()):
        _drop(request, "range")
        match = None
    if path is not None:
        return await _of_folder(path, match, filename, request)
    return await _of_bucket(store, key, given if match else "", filename, request)


async def _of_folder(path: Path, match: re.Match[str] | None, filename: str, request: Request) -> Response:
    try:
        found = await asyncio.to_thread(path.stat)
    except OSError as error:
        raise StorageError(f"'{filename}' cannot be read: {error.strerror}.") from None
    if match is not None and not _satisfiable(match[1], match[2], found.st_size):
        return _out_of_range(request, match[0], str(found.st_size))
    return FileResponse(path, media_type=BYTES, filename=filename, stat_result=found)


async def _of_bucket(store: Store, key: str, given: str, filename: str, request: Request) -> Response:
    """Read through: whoever has a key of this server need not reach the bucket."""
    url = await asyncio.to_thread(store.presign, key, PRESIGNED_S)
    if url is None:
        raise StorageError(f"'{key}' cannot be fetched from {store.location}.")
    client = httpx.AsyncClient(timeout=30)
    wanted = {name: request.headers[name] for name in ("if-range",) if name in request.headers}
    answer = await client.send(
        client.build_request("GET", url, headers={**wanted, **({"range": given} if given else {})}), stream=True
    )
    if answer.status_code not in (200, 206):
        await answer.aclose()
        await client.aclose()
        if answer.status_code == 416:
            return _out_of_range(request, given, answer.headers.get("content-range", "").rpartition("/")[2] or "*")
        raise StorageError(f"The store answered {answer.status_code} to a request for '{key}'.")

    async def chunks() -> AsyncIterator[bytes]:
        try:
            async for chunk in answer.aiter_raw(CHUNK_BYTES):
                yield chunk
        finally:
            await answer.aclose()
            await client.aclose()

    headers = {name: answer.headers[name] for name in PASSED_ON if name in answer.headers}
    headers["content-disposition"] = f'attachment; filename="{filename}"'
    return StreamingResponse(chunks(), answer.status_code, headers, media_type=BYTES)


def _satisfiable(first: str, last: str, size_bytes: int) -> bool:
    if not first:
        return int(last) > 0 and size_bytes > 0
    return int(first) < size_bytes and (not last or int(last) >= int(first))


def _out_of_range(request: Request, given: str, size: str) -> Response:
    headers = {"Content-Range": f"bytes */{size}"}
    message = f"The file has {size} bytes, so '{given[:60]}' is not in it."
    return problem(request_id_of(request), 416, "range", message, headers=headers)


def _drop(request: Request, name: str) -> None:
    headers = request.scope["headers"]
    request.scope["headers"] = [(key, value) for key, value in headers if key.lower() != name.encode()]
