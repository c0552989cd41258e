"""A proxy before the tests' S3 server: as strict as Cloudflare R2 where that is lenient, and faulty on demand.

Signatures stay valid, since paths, queries and the Host header go through as they came.
"""

from __future__ import annotations

import http.client
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from eagleray.settings import S3Access
from eagleray.testing.s3_server import SeaweedServer

MAX_KEY_BYTES, MAX_METADATA_BYTES, MAX_PARTS = 1024, 8192, 10_000
MIN_PART_BYTES, MAX_PUT_BYTES = 5 << 20, 5 << 30


@dataclass(frozen=True)
class Request:
    """One request as it came; `status` is what was answered, 0 where the line was cut instead."""

    method: str
    key: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes = field(repr=False)
    status: int = 0

    @property
    def writes_object(self) -> bool:
        """Whether it makes an object: a put, a copy, or the completion of parts."""
        parts = "uploadId" in self.query
        return bool(self.key) and ((self.method == "PUT" and not parts) or (self.method == "POST" and parts))

    @property
    def reads_data(self) -> bool:
        """A GET of an object's bytes; not a listing."""
        return self.method == "GET" and bool(self.key) and "uploadId" not in self.query


class Fault(Enum):
    """What is done to a request instead of passing it through."""

    SLOW_DOWN = "503 SlowDown, the server never sees it"
    FAIL = "500 InternalError, the server never sees it"
    FLIP_UP = "a bit of the request's body flips"
    FLIP_DOWN = "a bit of the answer's body flips"
    TRUNCATE = "half of the answer's body, then the line is cut"
    STALL = "half of the answer's body, then nothing more"
    LOST_ACK = "the server does it, and the line is cut before the answer"


@dataclass
class _Injection:
    fault: Fault
    when: Callable[[Request], bool]
    times: int | None
    probability: float


class StrictProxy:
    """Holds R2's rules, counts requests, makes faults.

    Args:
        write_interval_s: a second write of one key within it is answered by 429, as R2 does within a second.
    """

    def __init__(self, server: SeaweedServer, *, write_interval_s: float = 1.0, stall_s: float = 30.0) -> None:
        self.upstream = server
        self.write_interval_s = write_interval_s
        self.stall_s = stall_s
        self.requests: list[Request] = []
        self._injections: list[_Injection] = []
        self._lock = threading.Lock()
        self._written: dict[str, float] = {}
        self._parts: dict[str, dict[int, int]] = {}
        self._random = random.Random(0)
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, self))
        self._http.daemon_threads = True
        self.closing = threading.Event()
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    @property
    def access(self) -> S3Access:
        return replace(self.upstream.access, endpoint_url=self.endpoint)

    @property
    def environ(self) -> dict[str, str]:
        return {**self.upstream.environ, "AWS_S3_ENDPOINT_URL": self.endpoint}

    def close(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(5)

    def inject(
        self,
        fault: Fault,
        when: Callable[[Request], bool] = lambda request: True,
        *,
        times: int | None = None,
        probability: float = 1.0,
    ) -> None:
        """Do `fault` to requests that `when` picks: the first `times` of them (None: all), each with `probability`."""
        self._injections.append(_Injection(fault, when, times, probability))

    def heal(self) -> None:
        self._injections.clear()

    def forget(self) -> None:
        self.requests.clear()

    def count(self, when: Callable[[Request], bool]) -> int:
        return sum(when(request) for request in list(self.requests))

    def fault_of(self, request: Request) -> Fault | None:
        with self._lock:
            for injection in self._injections:
                picked = injection.times != 0 and injection.when(request)
                if picked and self._random.random() < injection.probability:
                    if injection.times is not None:
                        injection.times -= 1
                    return injection.fault
        return None

    def refusal(self, request: Request) -> tuple[int, str] | None:
        """The status and code with which R2 refuses `request`, if it does."""
        return self._bad_header(request) or self._bad_part(request) or self._too_soon(request)

    def _bad_header(self, request: Request) -> tuple[int, str] | None:
        headers = request.headers
        trailers = "x-amz-trailer" in headers or "aws-chunked" in headers.get("content-encoding", "")
        if trailers or any(name.startswith("x-amz-checksum-crc") for name in headers):
            return 501, "NotImplemented"
        scope = re.search(r"Credential=[^/]+/\d+/([^/]*)/", headers.get("authorization", ""))
        if scope and scope[1] != "auto":
            return 400, "InvalidRegionName"
        if len(request.key.encode()) > MAX_KEY_BYTES:
            return 400, "KeyTooLongError"
        metadata = sum(len(name) + len(value) for name, value in headers.items() if name.startswith("x-amz-meta-"))
        if metadata > MAX_METADATA_BYTES:
            return 400, "MetadataTooLarge"
        return None

    def _bad_part(self, request: Request) -> tuple[int, str] | None:
        carries_data = request.method == "PUT" and "x-amz-copy-source" not in request.headers
        if carries_data and request.key and "x-amz-checksum-sha256" not in request.headers:
            return 400, "NothingGuardsTheBody"  # R2 would take it; we never send it
        if carries_data and len(request.body) > MAX_PUT_BYTES:
            return 400, "EntityTooLarge"
        upload = request.query.get("uploadId", "")
        with self._lock:
            sizes = self._parts.setdefault(upload, {})
            if request.method == "PUT" and upload:
                number = int(request.query["partNumber"])
                sizes[number] = _part_bytes(request)
                return (400, "InvalidArgument") if number > MAX_PARTS else None
            if request.method == "POST" and upload and sizes:
                *full, last = [sizes[number] for number in sorted(sizes)]
                if full and (len(set(full)) > 1 or last > full[0]):
                    return 400, "InvalidPart"
                if full and full[0] < MIN_PART_BYTES:
                    return 400, "EntityTooSmall"
        return None

    def _too_soon(self, request: Request) -> tuple[int, str] | None:
        if not request.writes_object:
            return None
        with self._lock:
            now = time.monotonic()
            last = self._written.get(request.key, -1e9)
            if now - last < self.write_interval_s:
                return 429, "TooManyRequests"
            self._written[request.key] = now
        return None


def _part_bytes(request: Request) -> int:
    source = re.fullmatch(r"bytes=(\d+)-(\d+)", request.headers.get("x-amz-copy-source-range", ""))
    return int(source[2]) - int(source[1]) + 1 if source else len(request.body)


@contextmanager
def strict_proxy(
    server: SeaweedServer, *, write_interval_s: float = 1.0, stall_s: float = 30.0
) -> Iterator[StrictProxy]:
    proxy = StrictProxy(server, write_interval_s=write_interval_s, stall_s=stall_s)
    try:
        yield proxy
    finally:
        proxy.close()


class _Handler(BaseHTTPRequestHandler):
    """One connection of a client, and one to the server behind the proxy."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, proxy: StrictProxy, *arguments: Any) -> None:
        self.proxy = proxy
        super().__init__(*arguments)

    def setup(self) -> None:
        super().setup()
        self.upstream = http.client.HTTPConnection("127.0.0.1", self.proxy.upstream.port, timeout=60)

    def finish(self) -> None:
        self.upstream.close()
        with suppress(OSError, ValueError):
            super().finish()

    def log_message(self, *arguments: object) -> None:
        return

    def handle_any(self) -> None:
        request = self._request()
        fault = self.proxy.fault_of(request)
        refusal = self.proxy.refusal(request)
        if fault in (Fault.SLOW_DOWN, Fault.FAIL):
            refusal = (503, "SlowDown") if fault is Fault.SLOW_DOWN else (500, "InternalError")
        if refusal:
            self._refuse(request, *refusal)
            return
        try:
            status, headers, body = self._forward(request, _flipped(request.body) if fault is Fault.FLIP_UP else None)
        except (OSError, http.client.HTTPException):
            self._cut(request)
            return
        if fault is Fault.LOST_ACK:
            self._cut(request)
        else:
            self._answer(request, status, headers, body, fault)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

    def _request(self) -> Request:
        address = urlsplit(self.path)
        _, _, key = address.path.lstrip("/").partition("/")
        query = {name: values[0] for name, values in parse_qs(address.query, keep_blank_values=True).items()}
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        return Request(self.command, unquote(key), query, headers, body)

    def _forward(self, request: Request, body: bytes | None) -> tuple[int, list[tuple[str, str]], bytes]:
        self.upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in ("expect", "connection"):
                self.upstream.putheader(name, value)
        self.upstream.endheaders(request.body if body is None else body)
        response = self.upstream.getresponse()
        return response.status, response.getheaders(), response.read()

    def _answer(
        self, request: Request, status: int, headers: list[tuple[str, str]], body: bytes, fault: Fault | None
    ) -> None:
        self.proxy.requests.append(replace(request, body=b"", status=status))
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        announced = {name.lower(): value for name, value in headers}.get("content-length", str(len(body)))
        self.send_header("Content-Length", announced if self.command == "HEAD" else str(len(body)))
        self.end_headers()
        if fault is Fault.FLIP_DOWN:
            body = _flipped(body)
        if fault in (Fault.TRUNCATE, Fault.STALL):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if fault is Fault.STALL:
                self.proxy.closing.wait(self.proxy.stall_s)
            self._hang_up()
            return
        with suppress(OSError):
            self.wfile.write(body)

    def _refuse(self, request: Request, status: int, code: str) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        self._answer(
            request, status, [("Content-Type", "application/xml")], body if self.command != "HEAD" else b"", None
        )

    def _cut(self, request: Request) -> None:
        self.proxy.requests.append(replace(request, body=b"", status=0))
        self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def _flipped(body: bytes) -> bytes:
    if not body:
        return body
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
