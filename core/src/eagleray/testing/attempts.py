"""Starts attempts in the plugin's own Python and reads what they did."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from eagleray.contract import Resume
from eagleray.testing.attempt import AttemptSpec

KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")


@dataclass(frozen=True)
class Epoch:
    """One `context.report`; `checkpoint` is the folder that was saved, on rank 0."""

    epoch: int
    metrics: Mapping[str, float]
    checkpoint: Path | None


@dataclass(frozen=True)
class Outcome:
    """What one attempt did.

    Attributes:
        final: what `validate` returned; None where it was not called.
        error: `type`, `code`, `message`, `traceback` of what it raised.
        calls: the adapter's steps, in order.
        writes: paths outside its folders that were opened for writing, and files left behind outside the work folder.
        network: hosts that were called.
        left: non-daemon threads and child processes at the end.
        result: all of the above and what the other actions say, as the attempt wrote it.
        output: the end of what was printed.
    """

    reports: tuple[Epoch, ...]
    steps: tuple[tuple[int, int, int], ...]
    final: Mapping[str, float] | None
    error: Mapping[str, str] | None
    calls: tuple[str, ...]
    best: Path | None
    writes: tuple[str, ...]
    network: tuple[str, ...]
    left: tuple[str, ...]
    result: Mapping[str, Any]
    output: str

    def resume(self) -> Resume:
        """The newest checkpoint, as a later attempt is given it."""
        saved = [report for report in self.reports if report.checkpoint]
        assert saved, f"no checkpoint was saved: {self.output}"
        assert saved[-1].checkpoint is not None
        return Resume(saved[-1].checkpoint, saved[-1].epoch, saved[-1].metrics)


@dataclass(frozen=True)
class Runner:
    """Runs attempts by `python`; `code` is a folder with the packages that travel to a worker."""

    python: str
    code: Path
    timeout_s: float = 300

    def run(self, spec: AttemptSpec) -> Outcome:
        """Run one attempt to its end; fails where it takes longer than the limit or dies."""
        return self.run_together([spec])[0]

    def run_workers(self, spec: AttemptSpec, count: int) -> list[Outcome]:
        """Run `count` workers of one attempt at once, each in a subfolder `rank-N`.

        A wish to stop reaches the first worker a batch later than the others, as it may on a cluster.
        """
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        specs = [
            replace(spec, folder=spec.folder / f"rank-{rank}", rank=rank, world_size=count, port=port)
            for rank in range(count)
        ]
        if spec.stop_after_steps is not None:
            specs[0] = replace(specs[0], stop_after_steps=spec.stop_after_steps + 1)
        return self.run_together(specs)

    def run_together(self, specs: Sequence[AttemptSpec]) -> list[Outcome]:
        processes = [self._start(spec) for spec in specs]
        deadline = time.monotonic() + self.timeout_s
        try:
            for spec, process in zip(specs, processes, strict=True):
                try:
                    process.wait(max(1.0, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    raise AssertionError(
                        f"rank {spec.rank} did not end within {self.timeout_s:g} s: {_output(spec)}"
                    ) from None
        finally:
            survivors = [_end(process) for process in processes]
        return [_outcome(spec, survived) for spec, survived in zip(specs, survivors, strict=True)]

    def _start(self, spec: AttemptSpec) -> subprocess.Popen[bytes]:
        for name in ("home", "tmp", "work"):
            (spec.folder / name).mkdir(parents=True)
        job = spec.folder / "job.pickle"
        job.write_bytes(pickle.dumps(spec))
        private = {name: str(spec.folder / "home") for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
        environ = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ} | private
        environ |= {"TMPDIR": str(spec.folder / "tmp"), "PYTHONPATH": str(self.code), "PYTHONDONTWRITEBYTECODE": "1"}
        with (spec.folder / "output.txt").open("wb") as output:
            return subprocess.Popen(
                [self.python, "-m", "eagleray.testing.attempt", str(job)],
                env=environ,
                cwd=spec.folder / "work",
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


def code_folder(folder: Path, packages: Sequence[str]) -> Path:
    """Link `packages` (import names, found here but not imported) into `folder`, and nothing that lies beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in packages:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(f"No module named '{name}' in {sys.executable}.", name=name)
        source = Path(spec.origin)
        taken = source.parent if source.name == "__init__.py" else source
        with contextlib.suppress(FileExistsError):
            (folder / taken.name).symlink_to(taken)
    return folder


def _end(process: subprocess.Popen[bytes]) -> bool:
    """Kill what is left of the process's session; whether anything was."""
    process.poll()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    finally:
        process.wait()
    return True


def _outcome(spec: AttemptSpec, survived: bool) -> Outcome:
    file = spec.folder / "result.json"
    assert file.is_file(), f"the attempt's process died: {_output(spec)}"
    result: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    log = spec.folder / "watch.jsonl"
    seen = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    left = [*result["left"]["threads"], *result["left"]["processes"], *(["a process after its end"] * survived)]
    found = [path for name in ("home", "tmp") for path in (spec.folder / name).rglob("*") if not path.is_dir()]
    written = [entry["what"] for entry in seen if entry["kind"] == "write"] + [str(path) for path in found]
    return Outcome(
        reports=tuple(
            Epoch(row["epoch"], row["metrics"], Path(row["checkpoint"]) if row["checkpoint"] else None)
            for row in result.get("reports", ())
        ),
        steps=tuple(tuple(step) for step in result.get("steps", ())),
        final=result.get("final"),
        error=result.get("error"),
        calls=tuple(result.get("calls", ())),
        best=Path(result["best"]) if result.get("best") else None,
        writes=tuple(dict.fromkeys(written)),
        network=tuple(dict.fromkeys(entry["what"] for entry in seen if entry["kind"] == "call")),
        left=tuple(left),
        result=result,
        output=_output(spec),
    )


def _output(spec: AttemptSpec) -> str:
    file = spec.folder / "output.txt"
    return file.read_text(encoding="utf-8", errors="replace")[-3000:] if file.is_file() else ""
