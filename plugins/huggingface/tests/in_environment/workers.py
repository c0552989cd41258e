"""Several workers of one job as processes of this machine: `python workers.py JOBS`, where JOBS is a pickled list.

Starting a process takes longer than a tiny job, so that one group of workers may do several jobs in turn.
"""

from __future__ import annotations

import faulthandler
import os
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Job:
    """What a group of workers does.

    Attributes:
        kind: of `conftest.TINY`, or empty where `changes` name the model.
        still: whether normalisation over a batch uses what is kept, as each worker sees its own part only.
    """

    folder: Path
    kind: str
    dataset: Any
    changes: dict[str, Any] = field(default_factory=dict)
    stop_after_steps: int | None = None
    still: bool = False


def run(folder: Path, kind: str, dataset: Any, world_size: int, port: int, **options: Any) -> list[dict[str, Any]]:
    """What each worker of one job reports: see `run_all`."""
    return run_all(folder, [Job(folder, kind, dataset, **options)], world_size, port)[0]


def run_all(folder: Path, jobs: Sequence[Job], world_size: int, port: int) -> list[list[dict[str, Any]]]:
    """For each job what each worker reports: `epochs`, `drawn` (its samples), and `state`, rank 0's last checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    processes = []
    for rank in range(world_size):
        mine = folder / f"jobs-{rank}.pickle"
        mine.write_bytes(pickle.dumps([replace(job, folder=job.folder / f"rank-{rank}") for job in jobs]))
        size, number = str(world_size), str(rank)
        environ = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": number}
        environ |= {"LOCAL_RANK": number, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size}
        command = [sys.executable, str(HERE / "workers.py"), str(mine)]
        # A pipe that is full while another worker's is read would hold up both.
        with (folder / f"output-{rank}.txt").open("w") as output:
            processes.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environ))
    try:
        codes = [process.wait(timeout=900) for process in processes]
    finally:
        for process in processes:
            process.kill()
    printed = [(folder / f"output-{rank}.txt").read_text()[-3000:] for rank in range(world_size)]
    assert not any(codes), "\n".join(printed)
    return [
        [pickle.loads((job.folder / f"rank-{rank}" / "result.pickle").read_bytes()) for rank in range(world_size)]
        for job in jobs
    ]


def keep_normalisation_still(replace_by: Any) -> None:
    """Let batch normalisation stay in evaluation mode; `replace_by` is `setattr`, or a test's own."""
    import torch

    replace_by(torch.nn.BatchNorm2d, "train", lambda self, mode=True: torch.nn.Module.train(self, False))


def main(path: Path) -> None:
    sys.path.insert(0, str(HERE))
    import workers  # noqa: F401  the name under which the jobs were pickled

    jobs: list[Job] = pickle.loads(path.read_bytes())
    import torch

    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(800)
    rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    if world_size > 1:
        torch.distributed.init_process_group("gloo", rank=rank, world_size=world_size)
    if any(job.still for job in jobs):
        keep_normalisation_still(setattr)
    drawn = watch_samples()
    for job in jobs:
        drawn.clear()
        work(job, {"rank": rank, "world_size": world_size, "local_rank": rank}, drawn)
    if world_size > 1:
        torch.distributed.destroy_process_group()


def watch_samples() -> list[str]:
    """The names of the training pictures that are loaded from now on."""
    from eagleray_huggingface.tasks import base

    drawn: list[str] = []
    load = base.Samples.__getitem__

    def watched(self: Any, index: int) -> Any:
        if self.train:
            drawn.append(self.pictures[index].path.name)
        return load(self, index)

    base.Samples.__getitem__ = watched  # type: ignore[method-assign]
    return drawn


def work(job: Job, place: dict[str, int], drawn: list[str]) -> None:
    """Run the job as the worker at `place`; its result goes to its folder."""
    import conftest

    from eagleray.testing.host import RecordingHost

    host = RecordingHost(job.folder / "host", stop_after_steps=job.stop_after_steps)
    if job.kind:
        context = conftest.tiny_context(job.folder, job.kind, job.dataset, host, **place, **job.changes)
    else:
        context = conftest.make_context(job.folder, job.dataset, host, **place, **job.changes)
    result = {
        "final": conftest.train(context),
        "epochs": [(report.epoch, report.metrics) for report in host.reports],
        "drawn": list(drawn),
        "state": conftest.state_of(host)["state_dict"] if host.reports else {},
        "saved": [report.checkpoint for report in host.reports],
    }
    (job.folder / "result.pickle").write_bytes(pickle.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
