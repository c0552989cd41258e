"""A server's API as Python methods. Values in and out are plain data with the API's field names."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from eagleray.client.credentials import find_key, find_server
from eagleray.client.datasets import Datasets
from eagleray.client.downloads import download
from eagleray.client.errors import ServerError, UnreachableError
from eagleray.client.events import Event, parse
from eagleray.client.transport import Transport, pause

JOBS = "/api/v1/training/jobs"
Fields = dict[str, Any]


class Client:
    """Speaks with one server.

    Args:
        server: its address; default: EAGLERAY_SERVER, else the one last logged in to, else http://127.0.0.1:8000.
        api_key: default: EAGLERAY_API_KEY, else what `eagleray login` or `eagleray up` kept for this server.
        timeout_s: longest wait for an answer to begin.
        transport: for tests: what carries the requests instead of the network.

    Every method raises `ServerError` where the server refuses, and `UnreachableError` where none answers.
    """

    def __init__(
        self,
        server: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.server = find_server(server)
        self._http = Transport(self.server, find_key(self.server, api_key), timeout_s, transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    @cached_property
    def datasets(self) -> Datasets:
        return Datasets(self._http)

    # Jobs

    def create_job(
        self, spec: Mapping[str, Any], *, start: bool = False, priority: int = 0, idempotency_key: str | None = None
    ) -> Fields:
        """A new job. Repeating the call with the same `idempotency_key` (default: a new one) makes no second job."""
        body = {**spec, "start": start, "priority": priority}
        return self._post(JOBS, body, idempotency_key or uuid.uuid4().hex)

    def plan_job(self, spec: Mapping[str, Any], *, priority: int = 0) -> Fields:
        """What would run, and why it would wait; nothing is made."""
        body = {**spec, "priority": priority}
        planned: Fields = self._http.call("POST", f"{JOBS}:plan", body=body, repeat=True)
        return planned

    def jobs(self, *, limit: int | None = None, **filters: str | None) -> Iterator[Fields]:
        """Jobs, newest first, page by page.

        Args:
            limit: at most so many; None: all.
            filters: status, phase, framework, model_name, task_type, project_id, created_by or session_id.
        """
        yield from self._pages(JOBS, filters, limit)

    def job(self, job_id: int) -> Fields:
        return self._get(f"{JOBS}/{job_id}")

    def start_job(self, job_id: int) -> Fields:
        """Put a created job into the queue."""
        return self._post(f"{JOBS}/{job_id}/start")

    def stop_job(self, job_id: int) -> Fields:
        """End it after a checkpoint; it can be resumed."""
        return self._post(f"{JOBS}/{job_id}/stop")

    def cancel_job(self, job_id: int) -> Fields:
        """End it at once."""
        return self._post(f"{JOBS}/{job_id}/cancel")

    def resume_job(self, job_id: int, *, epochs: int | None = None) -> Fields:
        """Go on from the last checkpoint, up to `epochs` where more are wanted."""
        return self._post(f"{JOBS}/{job_id}/resume", {} if epochs is None else {"epochs": epochs})

    def retry_job(self, job_id: int) -> Fields:
        """Run a failed job again."""
        return self._post(f"{JOBS}/{job_id}/retry")

    def clone_job(
        self,
        job_id: int,
        changes: Mapping[str, Any] | None = None,
        *,
        start: bool = False,
        idempotency_key: str | None = None,
    ) -> Fields:
        """A new job like this one, but for `changes`."""
        body = {"changes": dict(changes or {}), "start": start}
        return self._post(f"{JOBS}/{job_id}/clone", body, idempotency_key or uuid.uuid4().hex)

    def delete_job(self, job_id: int) -> None:
        self._http.call("DELETE", f"{JOBS}/{job_id}")

    def set_priority(self, job_id: int, priority: int, *, version: int | None = None) -> Fields:
        """Where `version` is given, only if the job still has it."""
        headers = {} if version is None else {"If-Match": f'"{version}"'}
        changed: Fields = self._http.call("PATCH", f"{JOBS}/{job_id}", body={"priority": priority}, headers=headers)
        return changed

    def attempts(self, job_id: int) -> list[Fields]:
        return self._items(f"{JOBS}/{job_id}/attempts")

    # What a job leaves behind

    def metrics(
        self,
        job_id: int,
        *,
        keys: Sequence[str] = (),
        first_epoch: int | None = None,
        last_epoch: int | None = None,
        max_points: int | None = None,
    ) -> list[Fields]:
        """Figures by epoch; of more than `max_points` epochs, so many spread evenly."""
        query = {"first_epoch": first_epoch, "last_epoch": last_epoch, "max_points": max_points}
        return self._items(f"{JOBS}/{job_id}/metrics", {**query, "keys": list(keys) or None})

    def logs(
        self,
        job_id: int,
        *,
        attempt: int | None = None,
        rank: int | None = None,
        tail: int | None = None,
        after: str | None = None,
    ) -> Iterator[Fields]:
        """Log lines in their order.

        Args:
            rank: of this worker; -1: the driver's.
            tail: only the last so many.
            after: those behind the line with this `id`.
        """
        query = {"attempt": attempt, "rank": rank, "tail": tail, "after": after}
        yield from self._pages(f"{JOBS}/{job_id}/logs", query, tail)

    def checkpoints(self, job_id: int) -> list[Fields]:
        return self._items(f"{JOBS}/{job_id}/checkpoints")

    def download(self, job_id: int, name: str, into: Path) -> Path:
        """Fetch `best.pt` or `last.pt`; goes on where a broken transfer ended. Returns the file."""
        return download(self._http, f"{JOBS}/{job_id}/checkpoints/{quote(name, safe='')}", name, into)

    def events(self, job_id: int | None = None, *, after: int = 0) -> Iterator[Event]:
        """What has happened so far."""
        path = f"{JOBS}/{job_id}/events" if job_id is not None else "/api/v1/events"
        yield from self._pages(path, {"after": after or None}, None)

    def follow(self, job_id: int | None = None, *, after: int = 0, patience_s: float = 300.0) -> Iterator[Event]:
        """Events as they happen: of a job up to its end, else of all jobs without end.

        A broken connection is made again, and goes on behind the last event.

        Args:
            patience_s: for so long a server may be away.
        """
        path = f"{JOBS}/{job_id}/events/stream" if job_id is not None else "/api/v1/events/stream"
        lost_at, attempt = 0.0, 0
        while True:
            try:
                with self._http.stream(path, headers={"Last-Event-ID": str(after)} if after else {}) as answer:
                    if answer.status_code == 204:
                        return
                    for event in parse(answer.iter_lines()):
                        attempt = 0
                        after = int(event["seq"])
                        yield event
            except httpx.TransportError as error:
                lost_at, attempt = (lost_at if attempt else time.monotonic()), attempt + 1
                if time.monotonic() - lost_at > patience_s:
                    raise self._http.unreachable(error) from None
                pause(attempt)
            except ServerError as error:
                lost_at, attempt = (lost_at if attempt else time.monotonic()), attempt + 1
                if error.http_status not in (429, 500, 502, 503, 504) or time.monotonic() - lost_at > patience_s:
                    raise
                pause(attempt)

    # What can be trained

    def frameworks(self) -> list[Fields]:
        return self._items("/api/v1/frameworks")

    def catalogue(self) -> Fields:
        """Frameworks as `items`, and plugins that are there and cannot be used as `quarantined` and `blocked`."""
        return self._get("/api/v1/frameworks")

    def framework(self, name: str) -> Fields:
        return self._get(f"/api/v1/frameworks/{quote(name, safe='')}")

    def config_schema(self, framework: str, task: str) -> Fields:
        """JSON Schema of `advanced_config`."""
        return self._get(f"/api/v1/frameworks/{quote(framework, safe='')}/tasks/{quote(task, safe='')}/schema")

    def models(self, *, framework: str | None = None, task: str | None = None, name: str | None = None) -> list[Fields]:
        return self._items("/api/v1/models", {"framework": framework, "task": task, "name": name})

    # Projects, users and keys

    def projects(self) -> list[Fields]:
        return self._items("/api/v1/projects")

    def create_project(self, name: str, **fields: Any) -> Fields:
        return self._post("/api/v1/projects", {"name": name, **fields})

    def update_project(self, project_id: str, **fields: Any) -> Fields:
        changed: Fields = self._http.call("PATCH", f"/api/v1/projects/{quote(project_id, safe='')}", body=fields)
        return changed

    def delete_project(self, project_id: str) -> None:
        self._http.call("DELETE", f"/api/v1/projects/{quote(project_id, safe='')}")

    def users(self) -> list[Fields]:
        return self._items("/api/v1/users")

    def create_user(self, name: str, *, projects: Sequence[str] | None = None) -> Fields:
        """Args: projects: the user's keys reach only these, whatever they say themselves; None: all."""
        body = {"name": name, "projects": None if projects is None else list(projects)}
        return self._post("/api/v1/users", body)

    def delete_user(self, user_id: int) -> None:
        self._http.call("DELETE", f"/api/v1/users/{user_id}")

    def keys(self) -> list[Fields]:
        return self._items("/api/v1/keys")

    def create_key(
        self,
        name: str,
        *,
        scopes: Sequence[str] = ("read", "write"),
        projects: Sequence[str] | None = None,
        user_id: int | None = None,
        expires_at: str | None = None,
    ) -> Fields:
        """A new key; the answer's `key` is shown this once.

        Never repeated by itself: a second request makes a second key. Where the answer was lost, revoke the one that
        `keys` lists and nobody has.

        Args:
            projects: it sees only these; None: all.
        """
        body = {
            "name": name,
            "scopes": list(scopes),
            "projects": None if projects is None else list(projects),
            "user_id": user_id,
            "expires_at": expires_at,
        }
        return self._post("/api/v1/keys", body)

    def revoke_key(self, key_id: int) -> None:
        self._http.call("DELETE", f"/api/v1/keys/{key_id}")

    # The server

    def health(self) -> Fields:
        return self._get("/health")

    def ready(self) -> Fields:
        """Each part's state; `status` is `ok`, or `degraded` where one is not well."""
        found: Fields = self._http.call("GET", "/api/v1/health", takes=(503,))
        return found

    def whoami(self) -> Fields:
        """The key that this client uses, without its secret."""
        return self._get("/api/v1/whoami")

    def wait_until_up(self, timeout_s: float) -> None:
        """Return once the server answers. Raises UnreachableError."""
        ends_at = time.monotonic() + timeout_s
        while True:
            try:
                self.health()
                return
            except (UnreachableError, ServerError):
                if time.monotonic() > ends_at:
                    raise
                time.sleep(0.5)

    def _get(self, path: str) -> Fields:
        found: Fields = self._http.call("GET", path)
        return found

    def _items(self, path: str, query: Mapping[str, Any] | None = None) -> list[Fields]:
        items: list[Fields] = self._http.call("GET", path, query=query)["items"]
        return items

    def _post(self, path: str, body: Mapping[str, Any] | None = None, idempotency_key: str | None = None) -> Fields:
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        made: Fields = self._http.call("POST", path, body=body, headers=headers)
        return made

    def _pages(self, path: str, query: Mapping[str, Any], limit: int | None) -> Iterator[Fields]:
        left, after = limit, query.get("after")
        while left is None or left > 0:
            size = min(left or 200, 200)
            page = self._http.call("GET", path, query={**query, "after": after, "limit": size})
            yield from page["items"]
            after = page.get("next")
            if after is None:
                return
            if left is not None:
                left -= len(page["items"])
