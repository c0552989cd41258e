"""Several workers as processes of this machine: `python workers.py JOBS`, where JOBS is a pickled list of `Job`.

Starting a process takes longer than a tiny job, so that one group of workers does several in turn.
"""

from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Job:
    """What a group of workers does.

    Attributes:
        changes: of `conftest.make_context`.
        lost: `(rank, batch)`: whose loss is not a number in which batch of the run, counted from 0; rank -1: nobody's.
    """

    folder: Path
    dataset: Any
    changes: dict[str, Any] = field(default_factory=dict)
    lost: tuple[int, int] = (-1, 0)


def run(folder: Path, jobs: Sequence[Job], world_size: int) -> list[list[dict[str, Any]]]:
    """For each job what each worker reports: see `work`."""
    folder.mkdir(parents=True)
    file = folder / "jobs.pickle"
    file.write_bytes(pickle.dumps(list(jobs)))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    size = {"WORLD_SIZE": str(world_size), "LOCAL_WORLD_SIZE": str(world_size)}
    printed = [folder / f"output-{rank}.txt" for rank in range(world_size)]
    processes = []
    for rank in range(world_size):
        own = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": str(rank), "LOCAL_RANK": str(rank)}
        # A pipe that is full while another worker's is read would hold up both.
        with printed[rank].open("w") as output:
            command = [sys.executable, str(HERE / "workers.py"), str(file)]
            environ = {**os.environ, **size, **own}
            processes.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environ))
    try:
        codes: list[int | None] = [process.wait(timeout=400) for process in processes]
    except subprocess.TimeoutExpired:
        codes = [process.poll() for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert codes == [0] * world_size, "\n".join([f"ended with {codes}", *(end_of(file) for file in printed)])
    return [
        [pickle.loads((job.folder / f"rank-{rank}" / "result.pickle").read_bytes()) for rank in range(world_size)]
        for job in jobs
    ]


def end_of(file: Path) -> str:
    return file.read_text(encoding="utf-8", errors="replace")[-3000:]


def main(path: Path) -> None:
    sys.path.insert(0, str(HERE))
    # Before torch and Ultralytics, which read variables when they are imported.
    import conftest
    import workers  # noqa: F401  the name under which the jobs were pickled

    jobs: list[Job] = pickle.loads(path.read_bytes())
    import torch

    torch.set_num_threads(1)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if world_size > 1:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=world_size)
    else:
        in_the_order_of_several()
    for job in jobs:
        with lost_loss(job.lost[1]) if job.lost[0] == rank else nullcontext():
            work(job, conftest, rank, world_size)
    if world_size > 1:
        torch.distributed.destroy_process_group()


def work(job: Job, conftest: Any, rank: int, world_size: int) -> None:
    """Run the job; its result goes to its folder.

    The result: `epochs` (number and figures), `validated` (numbers of the pictures), `weights` in the end and `before`.
    """
    from eagleray.testing.host import RecordingHost
    from eagleray_ultralytics.adapter import UltralyticsAdapter

    folder = job.folder / f"rank-{rank}"
    host = RecordingHost(folder / "host", rank=rank)
    place = {"rank": rank, "local_rank": rank, "world_size": world_size}
    context = conftest.make_context(folder, job.dataset, host, **place, **job.changes)
    adapter = UltralyticsAdapter(context)
    before: dict[str, Any] = {}

    def remember(trainer: Any) -> None:
        before.update(weights_of(trainer))

    adapter.load_data()
    adapter.load_model()
    adapter._model.add_callback("on_train_start", remember)
    adapter.train()
    final = adapter.validate()
    result = {
        "epochs": [(report.epoch, dict(report.metrics)) for report in host.reports],
        "validated": [number for batch in adapter._trainer.test_loader.batch_sampler.sampler for number in batch],
        "weights": weights_of(adapter._trainer),
        "before": before,
        "final": dict(final),
    }
    (folder / "result.pickle").write_bytes(pickle.dumps(result))


def weights_of(trainer: Any) -> dict[str, Any]:
    from ultralytics.utils.torch_utils import unwrap_model

    return {name: value.detach().clone() for name, value in unwrap_model(trainer.model).state_dict().items()}


def in_the_order_of_several() -> None:
    """Let Ultralytics' own trainers take the batches that several workers would share."""
    from ultralytics.models.yolo.classify import ClassificationTrainer
    from ultralytics.models.yolo.detect import DetectionTrainer

    from eagleray_ultralytics.shares import Shares, share

    for trainer in (ClassificationTrainer, DetectionTrainer):
        original = trainer.get_dataloader

        def ordered(self: Any, *args: Any, original: Any = original, **options: Any) -> Any:
            loader = original(self, *args, **options)
            if options["mode"] == "train":
                share(loader, Shares(len(loader.dataset), self.batch_size, 0, 1, self.args.seed))
            return loader

        trainer.get_dataloader = ordered


def lost_loss(batch: int) -> AbstractContextManager[Any]:
    """While inside, this worker's loss is no number in one batch."""
    from eagleray_ultralytics.shared_loss import SharedLoss

    original, calls = SharedLoss.__call__, iter(range(sys.maxsize))

    def lost(self: Any, preds: Any, found: Any) -> Any:
        loss, items = original(self, preds, found)
        return (loss * float("nan") if next(calls) == batch else loss), items

    return patch.object(SharedLoss, "__call__", lost)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
