"""P5: the start of a node's second job on a bucket's dataset and weights ÷ on plain local folders. Target: 1.00.

    .venv/bin/python benchmarks/storage_start.py [--rounds 6] [--pictures 2000] [--environments DIR] [--json FILE]

The clock starts with `eagleray train` on a Ray head of this script's own, and stops when the worker's log has the line
that echo prints once its pictures are read and its weights are loaded, before its first step. The first job of each way
is not measured: it fills the node's cache. What the second share of a start is by itself, `storage_cache.py` says.

    plain      the store is a folder, the dataset a folder of pictures
    bucket     the store is SeaweedFS on ports 33000–33999, behind a proxy that counts; the dataset is a version in it
    again      plain once more: the control
"""

from __future__ import annotations

import argparse
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from ratio import compare, interleave, medians, publish, verdict
from runs import EAGLERAY, Home, echo, first_line, private_cluster, temporary_home

from eagleray.registry import DatasetRegistry
from eagleray.storage.local import LocalStore
from eagleray.storage.s3.store import S3Store
from eagleray.storage.store import Store
from eagleray.storage.weights import keep_weights
from eagleray.testing.data import write_classification_dataset
from eagleray.testing.echo_model import new_state, save_model
from eagleray.testing.s3_proxy import Request, StrictProxy, strict_proxy
from eagleray.testing.s3_server import seaweed

TARGET = 1.0
BUCKET, NAME = "bench", "shapes"
INPUTS, HIDDEN, CLASSES = 16 * 16 * 3, 4096, ("a", "b")


def of_data(request: Request) -> bool:
    """Of a file of the dataset or of the weights; manifests and the `.sha256` are read by every job."""
    small = request.key.endswith((".json", ".sha256"))
    return request.reads_data and not small and ("/datasets/" in request.key or "/pretrained_weights/" in request.key)


def fill(home: Home, stores: list[Store], pictures: Path) -> None:
    weights = home.path / "weights.npz"
    save_model(new_state(INPUTS, len(CLASSES), HIDDEN, 0).parameters, "image-classification", CLASSES, weights)
    for store in stores:
        keep_weights(store, "echo", "echo-linear", weights)
    DatasetRegistry(stores[-1]).import_folder(pictures, name=NAME)


def measure(home: Home, environ: dict[str, str], proxy: StrictProxy, options: argparse.Namespace) -> dict[str, Any]:
    pictures = write_classification_dataset(home.path / "many", images=options.pictures, size=64, classes=CLASSES)
    bucket = S3Store.open(f"s3://{BUCKET}/x", proxy.upstream.access)
    fill(home, [LocalStore(home.path / "storage"), bucket], pictures)
    bucket.close()

    def train(data: str) -> list[str]:
        return [EAGLERAY, *echo(home, 1, data=data, pretrained=True, noise_lines=1, hidden=HIDDEN)]

    in_bucket = environ | {"EAGLERAY_STORAGE": f"s3://{BUCKET}/x"}
    ways = {
        "plain": partial(first_line, home, environ, train(str(pictures))),
        "bucket": partial(first_line, home, in_bucket, train(f"{NAME}@1")),
        "again": partial(first_line, home, environ, train(str(pictures))),
    }
    ways["plain"]()
    first = ways["bucket"]()
    gets_first = proxy.count(of_data)
    proxy.forget()
    samples = interleave(ways, options.rounds)
    control, ratio = compare(samples, "again", "plain"), compare(samples, "bucket", "plain")
    return {
        "GETs of the first": gets_first,
        "GETs of the others": proxy.count(of_data),
        "control": control,
        "bucket/plain": [*ratio, verdict(ratio, control, TARGET)],
        "seconds": {**medians(samples), "first": round(first, 2)},
        "rounds": options.rounds,
        "samples": samples,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--pictures", type=int, default=2000)
    parser.add_argument("--environments", help="a folder of built environments; default: built first")
    parser.add_argument("--port", type=int, default=27380, help="first of some 600 free ports")
    parser.add_argument("--json", type=Path, help="keep the raw samples here")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="er-s3-") as folder,
        temporary_home(options.environments) as home,
        seaweed(Path(folder)) as server,
        strict_proxy(server) as proxy,
    ):
        server.make_bucket(BUCKET)
        home.environ.update(proxy.environ)
        with private_cluster(home, options.port) as environ:
            result = measure(home, environ, proxy, options)
    publish(result, options.json)


if __name__ == "__main__":
    main()
