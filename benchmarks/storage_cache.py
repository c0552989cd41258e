"""P5: a node's second job on the same dataset and weights ÷ a plain local folder. Target: 1.00, 0 GETs of data.

    .venv/bin/python benchmarks/storage_cache.py [--rounds 9] [--files 5000] [--kb 100] [--weights 64] [--json FILE]

What a worker does before its first step: make its dataset's folder, take its weights as a file of its own, and read all
pictures once. The bucket's data came into the node's cache with a first job; the proxy before the server counts GETs.

    plain      the dataset is a folder of this disk already, the weights a file that is copied
    cached     NodeCache.materialise, fetch_weights from the bucket
    making     the share of it that is not reading: hard links and looks at every file
    again      plain once more: the control
"""

from __future__ import annotations

import argparse
import hashlib
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ratio import compare, interleave, medians, publish, verdict

from eagleray.storage.cache import Files, NodeCache
from eagleray.storage.s3.store import S3Store
from eagleray.storage.store import FileEntry
from eagleray.storage.weights import fetch_weights, keep_weights
from eagleray.testing.s3_proxy import StrictProxy, strict_proxy
from eagleray.testing.s3_server import seaweed

TARGET = 1.0
BUCKET = "bench"


def contents(options: argparse.Namespace) -> Iterator[tuple[str, bytes]]:
    rng = random.Random(0)
    for number in range(options.files):
        yield f"train/images/{number:06d}.jpg", rng.randbytes(options.kb * 1000)


def read_all(folder: Path) -> int:
    return sum(len(path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file())


def plain(root: Path, wanted: int) -> float:
    target = root / "own.pt"
    began = time.perf_counter()
    shutil.copyfile(root / "weights.pt", target)
    found = read_all(root / "dataset")
    seconds = time.perf_counter() - began
    assert found == wanted
    target.unlink()
    return seconds


def cached(root: Path, store: S3Store, files: Files, wanted: int, making: list[float]) -> float:
    """A process's own cache object each time, as a job has it."""
    job = Path(tempfile.mkdtemp(dir=root))
    began = time.perf_counter()
    cache = NodeCache(root / "cache")
    cache.materialise(store, files, job / "dataset")
    weights = fetch_weights(store, "bench", "weights", job / "weights", cache)
    making.append(time.perf_counter() - began)
    found = read_all(job / "dataset")
    seconds = time.perf_counter() - began
    assert found == wanted
    assert weights is not None
    cache.close()
    shutil.rmtree(job)
    return seconds


def measure(root: Path, proxy: StrictProxy, options: argparse.Namespace) -> dict[str, Any]:
    direct = S3Store.open(f"s3://{BUCKET}", proxy.upstream.access)
    files: Files = {}
    for name, data in contents(options):
        path = root / "dataset" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        direct.put_bytes(f"datasets/d/{name}", data)
        entry = FileEntry(sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
        files[name] = (f"datasets/d/{name}", entry)
    (root / "weights.pt").write_bytes(random.Random(1).randbytes(options.weights << 20))
    keep_weights(direct, "bench", "weights", root / "weights.pt")
    wanted = options.files * options.kb * 1000
    store, making = S3Store.open(f"s3://{BUCKET}", proxy.access), []  # type: tuple[S3Store, list[float]]
    first = cached(root, store, files, wanted, making)
    gets_first = proxy.count(lambda request: request.reads_data)
    proxy.forget()
    making.clear()
    ways = {
        "plain": partial(plain, root, wanted),
        "cached": partial(cached, root, store, files, wanted, making),
        "again": partial(plain, root, wanted),
    }
    for way in ways.values():
        way()
    samples = interleave(ways, options.rounds)
    control, ratio = compare(samples, "again", "plain"), compare(samples, "cached", "plain")
    return {
        "GETs of the first": gets_first,
        "GETs of the second": proxy.count(lambda request: request.reads_data) / (options.rounds + 1),
        "control": control,
        "cached/plain": [*ratio, verdict(ratio, control, TARGET)],
        "seconds": {**medians(samples), "first": round(first, 2), "making": round(sum(making) / len(making), 3)},
        "rounds": options.rounds,
        "samples": samples,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--kb", type=int, default=100, help="size of a picture; COCO's are 160 KB on average")
    parser.add_argument("--weights", type=int, default=64, help="MiB of weights")
    parser.add_argument("--json", type=Path, help="keep the raw samples here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="er-bench-") as folder:
        root = Path(folder)
        (root / "s3").mkdir()
        with seaweed(root / "s3") as server, strict_proxy(server) as proxy:
            server.make_bucket(BUCKET)
            result = measure(root, proxy, options)
    publish(result, options.json)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
