"""From a driver's word to a reader: an event through the control plane and SSE, against a no-op SSE endpoint.

    python benchmarks/stream_events.py [--rounds 8] [--events 50] [--port 32060] [--json FILE]

Ours: the seconds from a driver's call of `record` to the event's arrival at a client that follows the job: across Ray's
border, a commit on disk, the replica's wake and its read, Serve's proxy. The peer is a stream of a plain FastAPI app on
the same Ray Serve that says something by itself, so from its `yield` to the client: the proxy and nothing else. One
event at a time, in alternating order, with the peer against itself as control. Stated, without a target.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ratio import compare, interleave, publish
from serve_requests import server

JOBS = "/api/v1/training/jobs"
SUBMISSION = "bench-driver"
GAP_S = 0.02


class Stream:
    """An open stream of events, read line by line; no client library, so that its cost is small."""

    def __init__(self, port: int, path: str, key: str) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-API-Key: {key}\r\n\r\n"
        self._socket.sendall(head.encode())
        self._lines = self._socket.makefile("rb")
        status = self._lines.readline()
        if b" 200 " not in status:
            raise RuntimeError(status.decode())

    def data(self) -> dict[str, Any]:
        """The next event's."""
        for line in self._lines:
            if line.startswith(b"data: "):
                found: dict[str, Any] = json.loads(line[6:])
                return found
        raise RuntimeError("the stream has ended")

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


class Driver:
    """The driver of a job that does nothing but talk; to Ray it is a job that sleeps."""

    def __init__(self, commands: Any, job: int) -> None:
        self._commands, self._job, self._seq = commands, job, 0

    def say(self, **event: Any) -> None:
        self._seq += 1
        self._commands.record(self._job, 1, [{"seq": self._seq, **event}])


def through_the_control_plane(stream: Stream, driver: Driver, events: int) -> float:
    """Seconds from the word to its arrival; the median of some. The clock is the machine's, the same everywhere."""
    taken = []
    for number in range(1, events + 1):
        time.sleep(GAP_S)
        sent = time.monotonic()
        driver.say(type="epoch", epoch=number, metrics={"sent": sent}, best={})
        while stream.data().get("data", {}).get("metrics", {}).get("sent") != sent:
            pass
        taken.append(time.monotonic() - sent)
    return statistics.median(taken)


def through_serve_alone(port: int, key: str, events: int) -> float:
    stream = Stream(port, f"/noop/?events={events}", key)
    try:
        return statistics.median(_waited(stream) for _ in range(events))
    finally:
        stream.close()


def _waited(stream: Stream) -> float:
    sent = float(stream.data()["sent"])
    return time.monotonic() - sent


def deploy_noop(ray: Any) -> None:
    from fastapi import FastAPI
    from fastapi.responses import StreamingResponse
    from ray import serve

    from eagleray_serve.deployment import HEAD, MAX_ONGOING

    def app() -> FastAPI:
        import asyncio

        found = FastAPI()

        async def said(events: int) -> Any:
            for _ in range(events):
                await asyncio.sleep(GAP_S)
                yield f"data: {json.dumps({'sent': time.monotonic()})}\n\n"

        async def noop(events: int) -> Any:
            return StreamingResponse(said(events), media_type="text/event-stream")

        found.add_api_route("/", noop, response_model=None)
        return found

    options: dict[str, Any] = {"num_cpus": 0, "resources": HEAD}
    deployment = serve.deployment(serve.ingress(app)(), max_ongoing_requests=MAX_ONGOING, ray_actor_options=options)
    serve.run(deployment.bind(), name="noop", route_prefix="/noop", blocking=False)


@contextmanager
def talking_driver(home: Path) -> Iterator[tuple[Driver, int]]:
    """A driver, and its job's number."""
    from eagleray_serve.local.state import ServerFolder
    from eagleray_serve.local.up import join_ray

    folder = ServerFolder(home)
    state = folder.load()
    assert state is not None
    ray = join_ray(state, folder)
    deploy_noop(ray)
    from ray.job_submission import JobSubmissionClient

    from eagleray.control.commands import SYSTEM
    from eagleray.control.remote import find

    jobs = JobSubmissionClient(state.dashboard)
    jobs.submit_job(entrypoint="sleep 3600", submission_id=SUBMISSION)
    commands = find()
    spec = {"framework": "echo", "model_name": "echo-linear", "dataset_path": str(home)}
    job = int(commands.create_job(SYSTEM, spec, start=True, submission_id=SUBMISSION)["id"])
    try:
        yield Driver(commands, job), job
    finally:
        jobs.stop_job(SUBMISSION)
        ray.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--events", type=int, default=50, help="per round")
    parser.add_argument("--port", type=int, default=32060)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        with server(home, options.port, haproxy=False), talking_driver(home) as (driver, job):
            key = (home / "admin.key").read_text().strip()
            stream = Stream(options.port, f"{JOBS}/{job}/events/stream", key)
            noop = partial(through_serve_alone, options.port, key, options.events)
            ours = partial(through_the_control_plane, stream, driver, options.events)
            ours(), noop()
            samples = interleave({"ours": ours, "noop": noop, "noop again": noop}, options.rounds)
            stream.close()
    milliseconds = {way: round(1000 * statistics.median(taken), 2) for way, taken in samples.items()}
    result = {
        "ours ÷ no-op": compare(samples, "ours", "noop"),
        "control": compare(samples, "noop again", "noop"),
        "milliseconds": milliseconds,
        "samples": samples,
    }
    publish(result, options.json)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        raise SystemExit(f"{error.cmd[:4]} ended with {error.returncode}") from error
