"""The Python client: its errors, its repetitions, its streams and downloads, without a server."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from eagleray.client import Client, ServerError, UnreachableError, credentials
from eagleray.client.events import parse

Answer = Callable[[httpx.Request], httpx.Response]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EAGLERAY_HOME", str(tmp_path / "home"))
    for name in ("EAGLERAY_SERVER", "EAGLERAY_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("eagleray.client.transport.time.sleep", lambda _: None)


def client(answer: Answer) -> Client:
    return Client("http://server", "secret", transport=httpx.MockTransport(answer))


def problem(status: int, code: str, **fields: object) -> httpx.Response:
    body = {"status": status, "code": code, "message": "No.", "hint": "Do this.", "request_id": "r1", "errors": []}
    return httpx.Response(status, json={**body, **fields})


def test_a_refusal_keeps_the_servers_words() -> None:
    with pytest.raises(ServerError) as caught:
        client(lambda _: problem(409, "conflict")).start_job(7)
    error = caught.value
    assert (error.message, error.hint, error.code, error.http_status) == ("No.", "Do this.", "conflict", 409)


def test_a_mistake_ends_the_cli_with_the_code_it_has_without_a_server() -> None:
    for code, exit_code in (("config", 2), ("dataset", 3), ("invalid-request", 2), ("conflict", 11)):
        with pytest.raises(ServerError) as caught:
            client(lambda _, code=code: problem(422, code)).start_job(7)  # type: ignore[misc]
        assert caught.value.exit_code == exit_code


def test_a_page_of_something_else_is_not_taken_for_an_answer() -> None:
    with pytest.raises(ServerError, match="502"):
        client(lambda _: httpx.Response(502, text="<html>bad gateway</html>")).start_job(7)
    with pytest.raises(ServerError):
        client(lambda _: httpx.Response(200, text="<html>welcome</html>")).job(7)


def test_the_key_travels_as_a_header() -> None:
    seen = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(200, json={"status": "healthy"})

    client(answer).health()
    assert seen == ["Bearer secret"]


def failing(times: int, then: httpx.Response, seen: list[httpx.Request]) -> Answer:
    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        if len(seen) <= times:
            raise httpx.ConnectError("refused")
        return then

    return answer


def test_reading_is_repeated_and_commands_are_not() -> None:
    seen: list[httpx.Request] = []
    assert client(failing(3, httpx.Response(200, json={"id": 7}), seen)).job(7) == {"id": 7}
    assert len(seen) == 4
    seen.clear()
    with pytest.raises(UnreachableError, match="http://server"):
        client(failing(3, httpx.Response(200, json={}), seen)).stop_job(7)
    assert len(seen) == 1


def test_creating_is_repeated_under_one_key() -> None:
    seen: list[httpx.Request] = []
    client(failing(2, httpx.Response(201, json={"id": 7}), seen)).create_job({"framework": "echo"}, start=True)
    assert len(seen) == 3
    assert len({request.headers["idempotency-key"] for request in seen}) == 1
    assert json.loads(seen[0].content) == {"framework": "echo", "start": True, "priority": 0}


def test_a_busy_server_is_asked_again() -> None:
    answers = iter([httpx.Response(429, headers={"Retry-After": "2"}), httpx.Response(200, json={"id": 7})])
    assert client(lambda _: next(answers)).job(7) == {"id": 7}


def test_a_server_that_is_not_well_says_which_part_is_not() -> None:
    body = {"status": "degraded", "parts": {"control": {"ok": False, "message": "away"}}}
    assert client(lambda _: httpx.Response(503, json=body)).ready() == body
    refusal = problem(503, "unavailable")
    refusal.headers["Content-Type"] = "application/problem+json"
    with pytest.raises(ServerError):
        client(lambda _: refusal).ready()


def test_pages_are_read_to_their_end_or_the_limit() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        after = int(request.url.params.get("after", 1000))
        size = int(request.url.params["limit"])
        ids = list(range(after - 1, max(after - 1 - size, 599), -1))
        following = str(ids[-1]) if ids and ids[-1] > 600 else None
        return httpx.Response(200, json={"items": [{"id": each} for each in ids], "next": following})

    assert [job["id"] for job in client(answer).jobs()] == list(range(999, 599, -1))
    assert [job["id"] for job in client(answer).jobs(limit=250)] == list(range(999, 749, -1))


def test_events_are_parsed_whatever_stands_between_them() -> None:
    lines = [
        ": hello",
        "",
        "id: 1",
        "event: epoch",
        'data: {"seq": 1,',
        'data: "n": 2}',
        "",
        "retry: 5",
        "",
        "data: {}",
    ]
    assert list(parse(lines)) == [{"seq": 1, "n": 2}]


class Broken(httpx.SyncByteStream):
    """An answer whose connection breaks after what it holds."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __iter__(self) -> Iterator[bytes]:
        yield self._content
        raise httpx.ReadError("reset")


def test_a_broken_stream_goes_on_behind_its_last_event() -> None:
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        last = int(request.headers.get("last-event-id", 0))
        asked.append(last)
        if last == 3:
            return httpx.Response(204)
        content = f'id: {last + 1}\ndata: {{"seq": {last + 1}}}\n\n'.encode()
        return httpx.Response(200, stream=Broken(content))

    assert [event["seq"] for event in client(answer).follow(7)] == [1, 2, 3]
    assert asked == [0, 1, 2, 3]


def test_a_stream_that_ends_by_itself_is_asked_for_the_rest() -> None:
    """A server ends long streams; only 204 says that the job is over."""
    contents = {0: b'data: {"seq": 5}\n\n', 5: b'data: {"seq": 6}\n\n'}

    def answer(request: httpx.Request) -> httpx.Response:
        last = int(request.headers.get("last-event-id", 0))
        return httpx.Response(200, content=contents[last]) if last in contents else httpx.Response(204)

    assert [event["seq"] for event in client(answer).follow(7)] == [5, 6]


def test_a_stream_that_is_refused_is_not_waited_for() -> None:
    with pytest.raises(ServerError):
        list(client(lambda _: problem(404, "unknown-name")).follow(7))


def test_a_download_goes_on_where_it_broke(tmp_path: Path) -> None:
    content = bytes(range(256)) * 4
    asked = []

    def answer(request: httpx.Request) -> httpx.Response:
        given = request.headers.get("range")
        asked.append(given)
        if given is None:
            return httpx.Response(200, headers={"ETag": '"v1"'}, stream=Broken(content[:100]))
        assert request.headers["if-range"] == '"v1"'
        return httpx.Response(206, headers={"ETag": '"v1"'}, content=content[100:])

    path = client(answer).download(7, "best.pt", tmp_path)
    assert (path, path.read_bytes(), asked) == (tmp_path / "best.pt", content, [None, "bytes=100-"])
    assert [each.name for each in tmp_path.iterdir()] == ["best.pt"]


def test_a_download_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ServerError):
        client(lambda _: problem(404, "unknown-name")).download(7, "best.pt", tmp_path / "x.pt")
    assert not list(tmp_path.iterdir())


def test_kept_keys_are_the_owners_alone() -> None:
    path = credentials.keep_key("http://a", "key-a")
    credentials.keep_key("http://b", "key-b")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert credentials.find_server() == "http://b"
    assert credentials.find_key("http://a") == "key-a"
    assert credentials.find_key("http://a.evil") is None
    credentials.forget_key("http://b")
    assert credentials.find_server() == credentials.DEFAULT_SERVER


def test_the_environment_is_stronger_than_what_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    credentials.keep_key("http://a", "key-a")
    monkeypatch.setenv("EAGLERAY_SERVER", "http://c/")
    monkeypatch.setenv("EAGLERAY_API_KEY", "key-c")
    assert (credentials.find_server(), credentials.find_key("http://c")) == ("http://c", "key-c")
    assert credentials.find_server("http://d") == "http://d"
