"""Requests with their retries, and answers with their errors."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from eagleray.client.errors import UnreachableError, server_error

TRIES = 5
BUSY = (429, 502, 503)
Query = Mapping[str, Any]


class Transport:
    """Speaks HTTP with one server.

    A request that may be repeated is repeated, with growing pauses, where the server is away or busy: reading, and
    whatever carries an `Idempotency-Key`.
    """

    def __init__(self, server: str, key: str | None, timeout_s: float, transport: httpx.BaseTransport | None) -> None:
        self.server = server
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._http = httpx.Client(
            base_url=server, headers=headers, timeout=httpx.Timeout(timeout_s, connect=5.0), transport=transport
        )

    def close(self) -> None:
        self._http.close()

    def call(
        self,
        method: str,
        path: str,
        *,
        query: Query | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        repeat: bool = False,
        takes: Sequence[int] = (),
    ) -> Any:
        """The answer's JSON; None where it has no content.

        Args:
            repeat: asking twice does no harm.
            takes: statuses of errors with which the route answers as well; what is a problem stays one.

        Raises:
            ServerError: the server refuses, in its own words.
            UnreachableError: no server answers.
        """
        repeatable = repeat or method == "GET" or "Idempotency-Key" in (headers or {})
        params = {name: value for name, value in (query or {}).items() if value is not None}
        for attempt in range(1, TRIES + 1):
            last = attempt == TRIES or not repeatable
            try:
                answer = self._http.request(method, path, params=params, headers=headers, **_content_of(body))
            except httpx.TransportError as error:
                if last:
                    raise self.unreachable(error) from None
                pause(attempt)
                continue
            if answer.status_code in takes and answer.headers.get("Content-Type") == "application/json":
                return answer.json()
            if answer.status_code in BUSY and not last:
                pause(attempt, answer.headers.get("Retry-After"))
                continue
            return _content(answer)
        raise AssertionError("unreachable")

    @contextmanager
    def stream(
        self, path: str, *, query: Query | None = None, headers: Mapping[str, str] | None = None,
        timeout_s: float = 60.0,
    ) -> Iterator[httpx.Response]:  # fmt: skip
        """An answer that is read as it comes. Raises as `call` does, before the first byte."""
        params = {name: value for name, value in (query or {}).items() if value is not None}
        timeout = httpx.Timeout(timeout_s, connect=5.0)
        with self._http.stream("GET", path, params=params, headers=headers, timeout=timeout) as answer:
            if answer.is_error:
                answer.read()
                _content(answer)
            yield answer

    def unreachable(self, error: Exception) -> UnreachableError:
        return UnreachableError(
            f"No server answers at {self.server}: {' '.join(str(error).split()) or type(error).__name__}.",
            "Start one with: eagleray up; or name another with --server or EAGLERAY_SERVER.",
        )


def _content_of(body: Any) -> dict[str, Any]:
    """Bytes go as they are, anything else as JSON."""
    return {"content": body} if isinstance(body, bytes) else {"json": body}


def pause(attempt: int, retry_after: str | None = None) -> None:
    """Wait as the server asks, else longer with each attempt; spread, so that clients do not come all at once."""
    asked = float(retry_after) if retry_after and retry_after.isdigit() else 0.0
    time.sleep(max(min(asked, 30.0), random.uniform(0.5, 1.0) * min(0.2 * 2**attempt, 10.0)))


def _content(answer: httpx.Response) -> Any:
    if answer.is_error:
        raise server_error(answer.status_code, _json(answer), answer.text)
    return _json(answer) if answer.content else None


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        if not answer.is_error:
            raise server_error(answer.status_code, None, answer.text) from None
        return None
