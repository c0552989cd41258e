"""What happens to jobs: so far, and as it happens (Server-Sent Events, or a WebSocket)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Annotated

from fastapi import APIRouter, Header, Response, WebSocket
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocketDisconnect

from eagleray.contract.errors import EaglerayError
from eagleray.control.commands import Caller
from eagleray.control.views import JOBS_PATH, EventView
from eagleray_serve import examples
from eagleray_serve.answers import Page, answer_items, described
from eagleray_serve.auth import Key, Reader, check_scope
from eagleray_serve.bodies import MAX_ID, After, JobId, Limit
from eagleray_serve.edge import address_of
from eagleray_serve.errors import of_error
from eagleray_serve.parts import Parts, Shared
from eagleray_serve.streams import EventStream

router = APIRouter(tags=["events"])
RETRY_MS = 2000
LastEventId = Annotated[
    str | None,
    Header(pattern=r"^\d{1,18}$", description="The stream goes on behind this event; browsers send it by themselves."),
]
STREAM = described(examples.EVENT_STREAM, 404, media_type="text/event-stream", what="Events, without end.")


@router.get(
    f"{JOBS_PATH}/{{job_id}}/events",
    response_model=Page[EventView],
    responses=described(examples.page(examples.EVENT, "41"), 404),
)
def list_job_events(job_id: JobId, parts: Shared, caller: Reader, after: After = None, limit: Limit = 100) -> Response:
    """What has happened to a job so far; `after` is an event's `seq`."""
    parts.queries.get_job(job_id, caller.projects)
    return _page(parts.queries.events(caller.projects, job_id, int(after or 0), limit), limit)


@router.get(
    "/api/v1/events",
    response_model=Page[EventView],
    responses=described(examples.page(examples.EVENT, "41")),
)
def list_events(parts: Shared, caller: Reader, after: After = None, limit: Limit = 100) -> Response:
    """What has happened to all jobs that this key sees; `after` is an event's `seq`."""
    return _page(parts.queries.events(caller.projects, None, int(after or 0), limit), limit)


@router.get(f"{JOBS_PATH}/{{job_id}}/events/stream", response_class=Response, responses=STREAM)
async def stream_job_events(
    job_id: JobId, parts: Shared, caller: Reader, key: Key, last_event_id: LastEventId = None, after: After = None
) -> Response:
    """A job's events as they happen, to its end. 204 where it has ended and there is nothing new."""
    job = await asyncio.to_thread(parts.queries.get_job, job_id, caller.projects)
    seq = int(last_event_id or after or 0)
    if job.phase.is_terminal and not await parts.feed.stored(caller.projects, job_id, seq):
        return Response(status_code=204)
    parts.feed.check_room()
    return _Stream(_sent(parts, _stream(parts, caller, key, job_id, seq)))


@router.get("/api/v1/events/stream", response_class=Response, responses=STREAM)
async def stream_events(
    parts: Shared, caller: Reader, key: Key, last_event_id: LastEventId = None, after: After = None
) -> Response:
    """Events of all jobs that this key sees, as they happen; without a number, from now on."""
    given = last_event_id or after
    seq = int(given) if given else await asyncio.to_thread(parts.queries.newest_seq)
    parts.feed.check_room()
    return _Stream(_sent(parts, _stream(parts, caller, key, None, seq)))


@router.websocket(f"{JOBS_PATH}/{{job_id}}/events/ws")
async def socket_job_events(websocket: WebSocket, job_id: int) -> None:
    """As `…/events/stream`, over a WebSocket: one JSON object a message. `?after=` goes on behind an event."""
    await _serve_socket(websocket, job_id if 1 <= job_id <= MAX_ID else 0)


@router.websocket("/api/v1/events/ws")
async def socket_events(websocket: WebSocket) -> None:
    await _serve_socket(websocket, None)


class _Stream(EventSourceResponse):
    """Closes its generator also where the client is let go in mid-event, not whenever it is collected."""

    def __init__(self, chunks: AsyncGenerator[bytes, None]) -> None:
        super().__init__(chunks)
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._chunks):
            await super().__call__(scope, receive, send)


def _page(events: list[EventView], limit: int) -> Response:
    return answer_items(events, str(events[-1].seq) if len(events) == limit else None)


def _stream(parts: Parts, caller: Caller, key: str | None, job_id: int | None, seq: int) -> EventStream:
    async def allowed() -> bool:
        """With the same rights: what the stream may show was decided when it began."""
        return await parts.authenticator.holder(key or "") == caller

    return EventStream(parts.feed, parts.queries, parts.http, caller.projects, allowed, job_id, seq)


async def _sent(parts: Parts, stream: EventStream) -> AsyncGenerator[bytes, None]:
    left = parts.http.stream_bytes
    parts.meter.streams.inc()
    try:
        async with aclosing(stream.events()) as events:
            async for event in events:
                if event is None:
                    chunk = format_sse_event(comment="listening", retry=RETRY_MS)
                else:
                    chunk = format_sse_event(data_str=event.model_dump_json(), event=event.type, id=str(event.seq))
                left -= len(chunk)
                yield chunk
                if left <= 0:
                    # Serve's proxy holds what a slow client has not read yet; the client comes back for the rest.
                    return
    finally:
        parts.meter.streams.dec()


async def _serve_socket(websocket: WebSocket, job_id: int | None) -> None:
    parts: Parts = websocket.app.state.parts
    try:
        scheme, _, token = websocket.headers.get("authorization", "").partition(" ")
        key = token if scheme.lower() == "bearer" else websocket.headers.get("x-api-key")
        caller = check_scope(await parts.authenticator.caller(key, address_of(websocket.scope)), "read")
        if job_id is not None:
            await asyncio.to_thread(parts.queries.get_job, job_id, caller.projects)
        parts.feed.check_room()
    except EaglerayError as error:
        await _deny(websocket, error)
        return
    given = websocket.query_params.get("after", "")
    seq = int(given) if given.isascii() and given.isdigit() and len(given) < 19 else None
    if seq is None:
        seq = 0 if job_id is not None else await asyncio.to_thread(parts.queries.newest_seq)
    await websocket.accept()
    sending = asyncio.create_task(_send(websocket, parts, _stream(parts, caller, key, job_id, seq)))
    listening = asyncio.create_task(_until_closed(websocket))
    _, unfinished = await asyncio.wait({sending, listening}, return_when=asyncio.FIRST_COMPLETED)
    for task in unfinished:
        task.cancel()
    for task in (sending, listening):
        with suppress(asyncio.CancelledError, WebSocketDisconnect, TimeoutError, RuntimeError):
            await task


async def _send(websocket: WebSocket, parts: Parts, stream: EventStream) -> None:
    parts.meter.streams.inc()
    try:
        async with aclosing(stream.events()) as events:
            async for event in events:
                if event is not None:
                    await websocket.send_text(event.model_dump_json())
        if stream.refused:
            await websocket.close(1008, "The key is not good any more.")
        else:
            await websocket.close(1000)
    except EaglerayError as error:
        await websocket.close(1013, error.message[:100])
    finally:
        parts.meter.streams.dec()


async def _until_closed(websocket: WebSocket) -> None:
    """What a client says is not read; only that it goes matters."""
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass


async def _deny(websocket: WebSocket, error: EaglerayError) -> None:
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(of_error(websocket.scope["state"]["request_id"], error))
    else:
        await websocket.close(1008, error.message[:100])
