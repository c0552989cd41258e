"""Attack S5: a dataset's address reaches public hosts only; and what a broken connection leaves is fetched on."""

from __future__ import annotations

import hashlib
import ipaddress
import random
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from eagleray.contract.errors import DatasetError, StorageError
from eagleray.registry import Limits
from eagleray.registry.progress import quiet
from eagleray.registry.sources.address import HostRules, is_public
from eagleray.registry.sources.web import Download

CONTENT = random.Random(0).randbytes(300_000)
PORTS = iter(range(34000, 34200))
Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """A server on loopback that answers as `answer` says, and keeps the headers of every request."""

    port: int
    answer: Answer
    requests: list[dict[str, str]] = field(default_factory=list)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str = "/coins.zip", scheme: str = "http") -> str:
        return f"{scheme}://{self.host}{path}"


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    running: list[ThreadingHTTPServer] = []

    def start(answer: Answer, context: ssl.SSLContext | None = None) -> Server:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.requests.append(dict(self.headers))
                server.answer(self)

            def log_message(self, *args: object) -> None:
                return

        for port in PORTS:
            try:
                opened = ThreadingHTTPServer(("127.0.0.1", port), Handler)
                break
            except OSError:
                continue
        opened.handle_error = lambda *args: None  # type: ignore[method-assign]
        if context is not None:
            opened.socket = context.wrap_socket(opened.socket, server_side=True)
        server = Server(port, answer)
        running.append(opened)
        threading.Thread(target=opened.serve_forever, args=(0.05,), daemon=True).start()
        return server

    yield start
    for opened in running:
        opened.shutdown()
        opened.server_close()


def whole(handler: BaseHTTPRequestHandler) -> None:
    """The content, or the part that was asked for."""
    start = int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").rstrip("-"))
    handler.send_response(206 if start else 200)
    handler.send_header("Content-Length", str(len(CONTENT) - start))
    handler.send_header("ETag", '"one"')
    if start:
        handler.send_header("Content-Range", f"bytes {start}-{len(CONTENT) - 1}/{len(CONTENT)}")
    handler.end_headers()
    handler.wfile.write(CONTENT[start:])


def status(code: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


def in_turn(*answers: Answer) -> Answer:
    left = list(answers)

    def answer(handler: BaseHTTPRequestHandler) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(handler)

    return answer


def fetch(
    address: str, into: Path, *, rules: HostRules, limits: Limits = Limits(), waits: list[float] | None = None
) -> bytes:
    Download(address, rules, limits, quiet, sleep=(waits if waits is not None else []).append).run(into / "file")
    return (into / "file").read_bytes()


def trusting(*servers: Server) -> HostRules:
    return HostRules(frozenset(server.host for server in servers))


def always(*addresses: str) -> Callable[[str, int], list[str]]:
    return lambda host, port: list(addresses)


def test_a_file_comes_from_a_trusted_host(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(whole)
    assert fetch(server.url(), tmp_path, rules=trusting(server)) == CONTENT
    assert server.requests[0]["Host"] == server.host


@pytest.mark.parametrize(
    "address",
    [
        "file:///etc/passwd",
        "gopher://127.0.0.1:{port}/x",
        "ftp://127.0.0.1:{port}/x",
        "data:text/plain,hello",
        "javascript:alert(1)",
        "http://example.org/x",
        "http://127.0.0.1:{port}/x",
        "https://",
        "https:///x",
        "https://[::1",
        "https://exa mple.org/",
        "https://user:secret@example.org/x",
        "https://127.0.0.1:{port}/x",
        "https://127.1:{port}/x",
        "https://0:{port}/x",
        "https://0x7f000001:{port}/x",
        "https://2130706433:{port}/x",
        "https://0177.0.0.1:{port}/x",
        "https://localhost:{port}/x",
        "https://localhost.:{port}/x",
        "https://[::1]:{port}/x",
        "https://[::ffff:127.0.0.1]:{port}/x",
        "https://[::ffff:7f00:1]:{port}/x",
        "https://[::]:{port}/x",
        "https://169.254.169.254/latest/meta-data/",
        "https://[fd00:ec2::254]/latest/meta-data/",
        "https://10.0.0.1/x",
        "https://172.16.0.1/x",
        "https://192.168.1.1/x",
        "https://100.100.100.200/x",
        "https://168.63.129.16/x",
        "https://224.0.0.1/x",
        "https://[64:ff9b::127.0.0.1]/x",
        "https://[2002:7f00:1::]/x",
        "https://[fe80::1%25eth0]/x",
    ],
)
def test_no_other_address_is_connected_to(address: str, serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(whole)
    with pytest.raises(DatasetError) as caught:
        fetch(address.format(port=server.port), tmp_path, rules=HostRules())
    assert not server.requests
    assert "secret" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fe80::1", "fc00::1", "fec0::1", "0.0.0.0", "255.255.255.255"]
    + ["192.0.0.192", "198.18.0.1", "203.0.113.1", "::ffff:10.0.0.1", "2001:0:7f00:1::", "64:ff9b:1::1", "240.0.0.1"],
)
def test_private_and_wrapped_addresses_are_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "140.82.112.3", "2606:4700:4700::1111", "64:ff9b::1.1.1.1"])
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_one_private_address_among_public_ones_is_enough_to_refuse(tmp_path: Path) -> None:
    rules = HostRules(resolve=always("1.1.1.1", "127.0.0.1"))
    with pytest.raises(DatasetError, match=r"127\.0\.0\.1"):
        fetch("https://example.org/x", tmp_path, rules=rules)


def test_a_name_that_changes_its_meaning_is_refused_at_the_second_look(
    serve: Callable[..., Server], tmp_path: Path
) -> None:
    server = serve(whole)
    answers = iter([["1.1.1.1"], ["127.0.0.1"], ["127.0.0.1"]])
    rules = HostRules(resolve=lambda host, port: next(answers))
    with pytest.raises(DatasetError, match="not a public host"):
        fetch(f"https://rebinding.test:{server.port}/x", tmp_path, rules=rules)
    assert not server.requests


def test_the_connection_goes_to_the_address_that_was_checked(serve: Callable[..., Server], tmp_path: Path) -> None:
    """A name that the system's own resolver does not know at all is reached by what the check found."""
    server = serve(whole)
    rules = HostRules(frozenset({f"data.test:{server.port}"}), always("127.0.0.1"))
    assert fetch(f"http://data.test:{server.port}/x", tmp_path, rules=rules) == CONTENT
    assert server.requests[0]["Host"] == f"data.test:{server.port}"


@pytest.mark.parametrize(
    "target", ["http://127.0.0.1:{port}/", "https://[::1]:{port}/", "file:///etc/passwd", "//localhost:{port}/"]
)
def test_a_redirect_is_checked_like_the_first_one(target: str, serve: Callable[..., Server], tmp_path: Path) -> None:
    secret = serve(whole)
    server = serve(status(302, Location=target.format(port=secret.port)))
    with pytest.raises(DatasetError):
        fetch(server.url(), tmp_path, rules=trusting(server))
    assert not secret.requests


def test_a_redirect_to_a_trusted_host_is_followed(serve: Callable[..., Server], tmp_path: Path) -> None:
    end = serve(whole)
    server = serve(status(302, Location=end.url("/there")))
    assert fetch(server.url(), tmp_path, rules=trusting(server, end)) == CONTENT


def test_redirects_without_end_are_refused(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(status(302, Location="/again"))
    with pytest.raises(DatasetError, match="redirected more than 5 times"):
        fetch(server.url(), tmp_path, rules=trusting(server))


def cut_at(place: int) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.send_header("ETag", '"one"')
        handler.end_headers()
        handler.wfile.write(CONTENT[:place])
        handler.close_connection = True

    return answer


def test_a_broken_download_goes_on_where_it_ended(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(in_turn(cut_at(100_000), whole))
    assert fetch(server.url(), tmp_path, rules=trusting(server)) == CONTENT
    second = server.requests[1]
    assert int(second["Range"].removeprefix("bytes=").rstrip("-")) <= 100_000
    assert second["If-Range"] == '"one"'
    assert second["Accept-Encoding"] == "identity"


def test_a_file_that_changed_meanwhile_is_fetched_from_its_start(serve: Callable[..., Server], tmp_path: Path) -> None:
    def changed(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "5")
        handler.end_headers()
        handler.wfile.write(b"fresh")

    server = serve(in_turn(cut_at(100_000), changed))
    assert fetch(server.url(), tmp_path, rules=trusting(server)) == b"fresh"


def test_another_range_than_asked_for_is_never_appended(serve: Callable[..., Server], tmp_path: Path) -> None:
    def wrong(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(206)
        handler.send_header("Content-Length", "3")
        handler.send_header("Content-Range", f"bytes 7-9/{len(CONTENT)}")
        handler.end_headers()
        handler.wfile.write(b"bad")

    server = serve(in_turn(cut_at(100_000), wrong, whole))
    assert fetch(server.url(), tmp_path, rules=trusting(server)) == CONTENT


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_host_that_asks_to_come_again_is_asked_again(code: int, serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(in_turn(status(code, Retry_After="7"), whole))
    waits: list[float] = []
    assert fetch(server.url(), tmp_path, rules=trusting(server), waits=waits) == CONTENT
    assert waits == [7.0]


def test_a_host_that_never_answers_well_ends_in_a_sentence(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(status(503))
    with pytest.raises(DatasetError, match="after 5 tries: the host answered 503"):
        fetch(server.url(), tmp_path, rules=trusting(server))
    assert len(server.requests) == 5


def test_an_absent_file_is_asked_for_once(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(status(404))
    with pytest.raises(DatasetError, match="answered 404"):
        fetch(server.url("/x?token=secret"), tmp_path, rules=trusting(server))
    assert len(server.requests) == 1


def test_what_is_too_large_is_refused_before_and_while_it_comes(serve: Callable[..., Server], tmp_path: Path) -> None:
    def without_length(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(CONTENT)
        handler.close_connection = True

    for answer in (whole, without_length):
        server = serve(answer)
        with pytest.raises(DatasetError, match=r"more than 1,000"):
            fetch(server.url(), tmp_path, rules=trusting(server), limits=Limits(max_bytes=1000))
        assert (tmp_path / "file").stat().st_size <= 1000
        (tmp_path / "file").unlink()


def test_what_does_not_fit_the_disk_is_refused_before_it_comes(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(whole)
    with pytest.raises(StorageError, match="does not fit"):
        fetch(server.url(), tmp_path, rules=trusting(server), limits=Limits(min_free_bytes=1 << 60))


def test_a_slow_host_is_given_up_in_time(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(whole)
    with pytest.raises(DatasetError, match="longer than 0 s"):
        fetch(server.url(), tmp_path, rules=trusting(server), limits=Limits(max_seconds=0))


def test_a_compressed_answer_is_refused(serve: Callable[..., Server], tmp_path: Path) -> None:
    server = serve(status(200, Content_Encoding="gzip"))
    with pytest.raises(DatasetError, match="compressed"):
        fetch(server.url(), tmp_path, rules=trusting(server))


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    """A certificate for data.test, trusted by nobody until SSL_CERT_FILE names it."""
    command = "openssl req -x509 -newkey rsa:2048 -nodes -keyout key -out cert -days 2 -subj /CN=data.test"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=DNS:data.test"], cwd=tmp_path, check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert", tmp_path / "key")
    return context


def test_https_is_checked_against_the_name_not_the_address(
    serve: Callable[..., Server], tmp_path: Path, certificate: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert"))
    server = serve(whole, certificate)
    for host in ("data.test", "other.test"):
        rules = HostRules(frozenset({f"{host}:{server.port}"}), always("127.0.0.1"))
        (tmp_path / host).mkdir()
        if host == "data.test":
            found = fetch(f"https://{host}:{server.port}/x", tmp_path / host, rules=rules)
            assert hashlib.sha256(found).digest() == hashlib.sha256(CONTENT).digest()
        else:
            with pytest.raises(DatasetError, match="certificate"):
                fetch(f"https://{host}:{server.port}/x", tmp_path / host, rules=rules)
    assert len(server.requests) == 1


def test_a_proxy_of_the_environment_is_not_asked(
    serve: Callable[..., Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would resolve the name by itself, after our check."""
    server, proxy = serve(whole), serve(whole)
    monkeypatch.setenv("HTTP_PROXY", f"http://{proxy.host}")
    monkeypatch.setenv("ALL_PROXY", f"http://{proxy.host}")
    fetch(server.url(), tmp_path, rules=trusting(server))
    assert (len(server.requests), len(proxy.requests)) == (1, 0)


def test_the_address_that_is_kept_holds_no_secret() -> None:
    from eagleray.registry.sources.address import described

    assert described(httpx.URL("https://user:pw@h.org/a.zip?X-Amz-Signature=s#f")) == "https://h.org/a.zip"
