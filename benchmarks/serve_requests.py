"""P8: requests per second of `GET /api/v1/training/jobs/{id}`, against a no-op FastAPI app on the same Ray Serve.

    python benchmarks/serve_requests.py [--rounds 6] [--seconds 2] [--haproxy] [--json FILE]

Target: requests per second of ours ÷ those of the no-op app ≥ 0.7, which is seconds per request ÷ ≤ 1.43. Stated beside
it: bare uvicorn with the same no-op app, and with `--haproxy` Serve's own proxy in C. All of it runs ABBA in one run,
with an A/A control (the no-op app against itself). Replicas have rate limits that the load cannot reach.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ratio import compare, interleave, medians, show, verdict

TARGET = 0.7
NOOP = """
from fastapi import FastAPI
app = FastAPI()

@app.get("/noop")
def noop() -> dict[str, bool]:
    return {"ok": True}
"""


@dataclass
class Load:
    """Keep-alive connections that each ask for `path` again and again; no client library, so that its cost is small."""

    port: int
    path: str
    key: str
    concurrency: int
    seconds: float
    latencies: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        """Seconds per request."""
        started = time.perf_counter()
        count = asyncio.run(self._all())
        return (time.perf_counter() - started) / count

    async def _all(self) -> int:
        ends_at = time.perf_counter() + self.seconds
        return sum(await asyncio.gather(*(self._one(ends_at) for _ in range(self.concurrency))))

    async def _one(self, ends_at: float) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        head = f"GET {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nX-API-Key: {self.key}\r\n\r\n".encode()
        count = 0
        while (now := time.perf_counter()) < ends_at:
            writer.write(head)
            await _answer(reader)
            self.latencies.append(time.perf_counter() - now)
            count += 1
        writer.close()
        return count


async def _answer(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if not head.startswith(b"http/1.1 200"):
        raise RuntimeError(head.decode())
    if b"transfer-encoding: chunked" in head:
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readexactly(2)
    else:
        await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))


@contextmanager
def server(home: Path, port: int, haproxy: bool) -> Iterator[None]:
    limits = {"KEY_RATE_PER_S": "1000000", "ADDRESS_RATE_PER_S": "1000000"}
    os.environ.update({f"EAGLERAY_HTTP_{name}": value for name, value in limits.items()})
    os.environ["EAGLERAY_HOME"] = str(home)
    if haproxy:
        os.environ["RAY_SERVE_ENABLE_HA_PROXY"] = "1"
    subprocess.run([sys.executable, "-m", "eagleray_serve", "up", "--port", str(port), "--num-cpus", "3"], check=True)
    try:
        yield
    finally:
        subprocess.run([sys.executable, "-m", "eagleray_serve", "down"], check=True)


def deploy_noop(home: Path) -> None:
    """Beside ours on the same Serve, with the same options."""
    from eagleray_serve.local.state import ServerFolder
    from eagleray_serve.local.up import join_ray

    folder = ServerFolder(home)
    state = folder.load()
    assert state is not None
    ray = join_ray(state, folder)
    from fastapi import FastAPI
    from ray import serve

    from eagleray_serve.deployment import HEAD, MAX_ONGOING

    def app() -> FastAPI:
        found = FastAPI()

        def noop() -> dict[str, bool]:
            return {"ok": True}

        found.get("/")(noop)
        return found

    options: dict[str, Any] = {"num_cpus": 0, "resources": HEAD}
    deployment = serve.deployment(serve.ingress(app)(), max_ongoing_requests=MAX_ONGOING, ray_actor_options=options)
    serve.run(deployment.bind(), name="noop", route_prefix="/noop", blocking=False)
    ray.shutdown()


@contextmanager
def bare_uvicorn(folder: Path, port: int) -> Iterator[None]:
    (folder / "noop_app.py").write_text(NOOP)
    command = [sys.executable, "-m", "uvicorn", "noop_app:app", "--port", str(port), "--log-level", "warning"]
    process = subprocess.Popen([*command, "--no-access-log"], cwd=folder)
    try:
        time.sleep(4)
        yield
    finally:
        process.terminate()
        process.wait(10)


def create_job(port: int, key: str) -> int:
    from eagleray.client import Client

    with Client(f"http://127.0.0.1:{port}", key) as client:
        return int(client.create_job({"framework": "echo", "model_name": "echo-linear", "dataset_path": "/data"})["id"])


def measure(port: int, bare_port: int, key: str, job: int, concurrency: int, seconds: float, rounds: int) -> Any:
    paths = {
        "api": (port, f"/api/v1/training/jobs/{job}"),
        "noop": (port, "/noop/"),
        "noop again": (port, "/noop/"),
        "uvicorn": (bare_port, "/noop"),
    }
    loads = {name: Load(*where, key, concurrency, seconds) for name, where in paths.items()}
    for load in loads.values():
        load()
        load.latencies.clear()
    ways: dict[str, Callable[[], float]] = dict(loads)
    samples = interleave(ways, rounds)
    ratio, control = compare(samples, "api", "noop"), compare(samples, "noop again", "noop")
    return {
        "concurrency": concurrency,
        "requests_per_s": {name: round(1 / statistics.median(values)) for name, values in samples.items()},
        "latency_ms": {name: percentiles(load.latencies) for name, load in loads.items()},
        "seconds ÷ no-op": ratio,
        "rate ÷ no-op": [round(1 / each, 3) for each in reversed(ratio)],
        "rate ÷ uvicorn": [round(1 / each, 3) for each in reversed(compare(samples, "api", "uvicorn"))],
        "control": control,
        "verdict": verdict(ratio, control, 1 / TARGET),
        "medians": medians(samples),
        "samples": samples,
    }


def percentiles(latencies: list[float]) -> dict[str, float]:
    cuts = statistics.quantiles(latencies, n=100)
    return {"p50": round(1000 * cuts[49], 2), "p99": round(1000 * cuts[98], 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--concurrency", default="1,8,32")
    parser.add_argument("--port", type=int, default=32050)
    parser.add_argument("--haproxy", action="store_true")
    parser.add_argument("--json", type=Path, help="keep the raw samples here")
    options = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        with server(home, options.port, options.haproxy), bare_uvicorn(home, options.port + 1):
            key = (home / "admin.key").read_text().strip()
            job = create_job(options.port, key)
            deploy_noop(home)
            for concurrency in map(int, options.concurrency.split(",")):
                found = measure(options.port, options.port + 1, key, job, concurrency, options.seconds, options.rounds)
                show(found)
                results.append(found)
    if options.json:
        options.json.write_text(json.dumps({"haproxy": options.haproxy, "results": results}), encoding="utf-8")


if __name__ == "__main__":
    main()
