"""The outermost layer: request ids, safe headers, hosts, limits on bodies and time, and no traceback for anybody."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import Callable
from http import HTTPStatus

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from eagleray.contract.errors import EaglerayError
from eagleray.registry.uploads import MAX_PART_BYTES
from eagleray_serve.errors import TooManyRequestsError, of_error, problem
from eagleray_serve.limits import RateLimit
from eagleray_serve.settings import HttpSettings

logger = logging.getLogger(__name__)
SAFE_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# Ids of clients are taken over where they can do no harm in a log.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
UPLOADS_PATH = "/api/v1/uploads/"
Observe = Callable[[Scope, int, float], None]


class BodyError(EaglerayError):
    """The body is too large (413), too slow (408) or encoded (415)."""

    code = "body"

    def __init__(self, message: str, hint: str = "", http_status: int = 413) -> None:
        super().__init__(message, hint)
        self.args = (message, hint, http_status)
        self.http_status = http_status


class Edge:
    """ASGI middleware around the whole app.

    Args:
        observe: told of every finished request: its scope, the status, and the seconds until the answer began.
    """

    def __init__(self, app: ASGIApp, settings: HttpSettings, addresses: RateLimit, observe: Observe) -> None:
        self._app = app
        self._settings = settings
        self._addresses = addresses
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)
        scope.setdefault("state", {})["request_id"] = request_id
        refusal = self._refusal(scope, headers, request_id)
        if refusal is not None:
            await refusal(scope, receive, self._decorated(scope, send, request_id))
            self._observe(scope, refusal.status_code, 0.0)
        elif scope["type"] == "websocket":
            await self._app(scope, receive, self._patient(send))
        else:
            await self._answer(scope, receive, send, request_id)

    def _refusal(self, scope: Scope, headers: Headers, request_id: str) -> Response | None:
        if not self._host_is_known(headers.get("host", "")):
            return problem(
                request_id,
                HTTPStatus.BAD_REQUEST,
                "unknown-host",
                "This server does not answer to that host name.",
                "Its names are set by EAGLERAY_HTTP_ALLOWED_HOSTS.",
            )
        try:
            self._addresses.spend(address_of(scope))
        except TooManyRequestsError as error:
            return of_error(request_id, error)
        return None

    def _host_is_known(self, host: str) -> bool:
        name = re.sub(r":\d*$", "", host.lower())
        for pattern in self._settings.allowed_hosts:
            if pattern in ("*", name) or (pattern.startswith("*.") and name.endswith(pattern[1:])):
                return True
        return False

    async def _answer(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        started, status = time.perf_counter(), 0
        begun = asyncio.Event()
        decorated = self._decorated(scope, self._patient(send), request_id)

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                begun.set()
                self._observe(scope, status, time.perf_counter() - started)
            await decorated(message)

        response: Response | None = None
        deadline = asyncio.get_running_loop().call_later(
            self._settings.request_timeout_s, _cancel_unless, begun, asyncio.current_task()
        )
        try:
            await self._app(scope, self._bounded(scope, receive), watched)
        except asyncio.CancelledError:
            if begun.is_set() or deadline.when() > asyncio.get_running_loop().time():
                raise
            response = problem(
                request_id,
                HTTPStatus.GATEWAY_TIMEOUT,
                "timeout",
                f"The answer took more than {self._settings.request_timeout_s:g} s.",
                "What was asked for may still happen: look, then ask again with the same Idempotency-Key.",
            )
        except BodyError as error:
            response = of_error(request_id, error)
        except (TimeoutError, ClientDisconnect):
            logger.info("request %s: the client has gone, or does not read its answer", request_id)
        except Exception:
            logger.exception("request %s failed", request_id)
            response = problem(
                request_id,
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "internal",
                "Something unexpected went wrong.",
                "The server's log has the details under this request id.",
            )
        finally:
            deadline.cancel()
        if response is not None and not begun.is_set():
            await response(scope, receive, watched)

    def _decorated(self, scope: Scope, send: Send, request_id: str) -> Send:
        async def decorated(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                headers["X-Request-ID"] = request_id
                for name, value in SAFE_HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        return decorated

    def _patient(self, send: Send) -> Send:
        """`send` that gives up on a client that does not read."""

        async def patient(message: Message) -> None:
            async with asyncio.timeout(self._settings.send_timeout_s):
                await send(message)

        return patient

    def _bounded(self, scope: Scope, receive: Receive) -> Receive:
        """`receive` with limits on the body's size and on the wait for its next part."""
        headers = Headers(scope=scope)
        limit, size_bytes, ended = self._settings.body_limit_bytes, 0, False
        if scope["method"] == "PUT" and scope["path"].startswith(UPLOADS_PATH):
            # Its route reads the body by itself, once the key was seen to be good.
            limit = max(limit, MAX_PART_BYTES)
        announced = headers.get("content-length", "0")
        encoded = headers.get("content-encoding", "identity").lower() not in ("identity", "")

        async def bounded() -> Message:
            nonlocal size_bytes, ended
            if ended:
                return await receive()
            if encoded:
                raise BodyError("Encoded bodies are not taken.", "Send it without Content-Encoding.", 415)
            if announced.isdigit() and int(announced) > limit:
                raise BodyError(f"The body has {announced} bytes, more than {limit}.")
            try:
                async with asyncio.timeout(self._settings.body_timeout_s):
                    message = await receive()
            except TimeoutError:
                raise BodyError("The body did not arrive in time.", "Send it again.", 408) from None
            size_bytes += len(message.get("body", b""))
            ended = message["type"] != "http.request" or not message.get("more_body")
            if size_bytes > limit:
                raise BodyError(f"The body has more than {limit} bytes.")
            return message

        return bounded


def address_of(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _cancel_unless(begun: asyncio.Event, task: asyncio.Task[None] | None) -> None:
    if task is not None and not begun.is_set():
        task.cancel()
