"""Several workers of one job as processes of this machine: `python workers.py JOB`, where JOB is a pickled `Job`."""

from __future__ import annotations

import faulthandler
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Job:
    """One worker's part; `drawn` lists the samples that it saw, epoch by epoch, once it has run."""

    folder: Path
    kind: str
    dataset: Any
    rank: int
    world_size: int
    port: int
    changes: dict[str, Any] = field(default_factory=dict)
    stop_after_steps: int | None = None


def run(folder: Path, kind: str, dataset: Any, world_size: int, port: int, **options: Any) -> list[dict[str, Any]]:
    """What each worker reports: `epochs`, `drawn`, and `state`, rank 0's last checkpoint."""
    processes = []
    for rank in range(world_size):
        job = folder / f"job-{rank}.pickle"
        job.parent.mkdir(parents=True, exist_ok=True)
        job.write_bytes(pickle.dumps(Job(folder / f"rank-{rank}", kind, dataset, rank, world_size, port, **options)))
        command = [sys.executable, str(HERE / "workers.py"), str(job)]
        processes.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    try:
        outputs = [process.communicate(timeout=400)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert all(process.returncode == 0 for process in processes), "\n".join(output[-3000:] for output in outputs)
    return [pickle.loads((folder / f"rank-{rank}" / "result.pickle").read_bytes()) for rank in range(world_size)]


def main(path: Path) -> None:
    sys.path.insert(0, str(HERE))
    from workers import Job as _Job  # the name under which it was pickled

    job: _Job = pickle.loads(path.read_bytes())
    import conftest
    import torch

    from eagleray.testing.host import RecordingHost

    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(300)
    size, rank = str(job.world_size), str(job.rank)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(job.port), RANK=rank, LOCAL_RANK=rank)
    os.environ.update(WORLD_SIZE=size, LOCAL_WORLD_SIZE=size)
    if job.world_size > 1:
        torch.distributed.init_process_group("gloo", rank=job.rank, world_size=job.world_size)
    from eagleray_huggingface.tasks import base

    drawn: list[str] = []
    load = base.Samples.__getitem__

    def watched(self: Any, index: int) -> Any:
        if self.train:
            drawn.append(self.pictures[index].path.name)
        return load(self, index)

    base.Samples.__getitem__ = watched  # type: ignore[method-assign]
    host = RecordingHost(job.folder / "host", stop_after_steps=job.stop_after_steps)
    context = conftest.tiny_context(
        job.folder,
        job.kind,
        job.dataset,
        host,
        rank=job.rank,
        world_size=job.world_size,
        local_rank=job.rank,
        **job.changes,
    )
    final = conftest.train(context)
    result = {
        "epochs": [(report.epoch, report.metrics) for report in host.reports],
        "drawn": drawn,
        "final": final,
        "state": conftest.state_of(host)["state_dict"] if host.reports else {},
        "saved": [report.checkpoint for report in host.reports],
    }
    (job.folder / "result.pickle").write_bytes(pickle.dumps(result))
    if job.world_size > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
