"""The peer of `start.py`: Ray Train as it is, one worker, which writes a file and sleeps.

    python bare.py MARK SLEEP_S

This is what a user writes without eagleray: nothing is tuned, and nothing is left out but the framework.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import ray.train
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


def loop(config: dict[str, str]) -> None:
    import numpy

    Path(config["mark"]).write_text(numpy.__version__)
    time.sleep(float(config["sleep_s"]))
    ray.train.report({"loss": 0.0})


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        DataParallelTrainer(
            loop,
            train_loop_config={"mark": sys.argv[1], "sleep_s": sys.argv[2]},
            scaling_config=ray.train.ScalingConfig(num_workers=1),
            run_config=ray.train.RunConfig(storage_path=folder),
        ).fit()


if __name__ == "__main__":
    main()
