"""One attempt of a job in a process of its own, as a worker runs it, without Ray.

`python -m eagleray.testing.attempt JOB` reads what to do, runs in the plugin's own Python and writes what happened as
plain data. It needs the contract and the plugin; pytest stays with the caller (`eagleray.testing.attempts`).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import pickle
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from eagleray.contract import (
    Dataset,
    EaglerayError,
    Framework,
    ProcessGroup,
    Resume,
    TrainingContext,
)
from eagleray.testing.host import RecordingHost
from eagleray.testing.watch import watch

SETTLE_S = 5.0


@dataclass(frozen=True)
class AttemptSpec:
    """What to run.

    Attributes:
        folder: this attempt's own: `work`, `host`, `home` and `tmp` are made in it.
        action: `train`, `predict` or `damage`.
        damages: for `damage`: folders with checkpoints to be refused, by name; `resume` gives their epoch.
        images: for `predict`: what to show to the predictor of `portable_file`.
        port: where the workers meet; rank 0 listens.
    """

    plugin: str
    framework: str
    folder: Path
    task: str = ""
    model: str = ""
    config: Mapping[str, Any] = field(default_factory=dict)
    dataset: Dataset | None = None
    action: str = "train"
    epochs: int = 1
    batch_size: int = 4
    learning_rate: float | None = None
    seed: int = 0
    weights: Path | None = None
    resume: Resume | None = None
    stop_after_steps: int | None = None
    rank: int = 0
    world_size: int = 1
    port: int = 0
    damages: Mapping[str, Path] = field(default_factory=dict)
    portable_file: Path = Path()
    images: tuple[Path | bytes, ...] = ()
    threshold: float = 0.25
    prompt: str = ""


def main(job: Path) -> None:
    """Run the job that is pickled in `job`; its result goes to `result.json` beside it."""
    spec: AttemptSpec = pickle.loads(job.read_bytes())
    for name in ("work", "host", "home", "tmp"):
        (spec.folder / name).mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {}
    os.chdir(spec.folder / "work")
    framework = find_framework(spec.plugin, spec.framework)
    for name, value in framework.environment.env_vars.items():
        os.environ[name] = value.replace("{work_dir}", str(spec.folder / "work"))
    if spec.world_size > 1:
        _meet(spec, framework.process_group)
    action: Callable[[], dict[str, Any]] = {
        "train": lambda: _train(spec, framework),
        "damage": lambda: _damage(spec, framework),
        "predict": lambda: _predict(spec, framework),
    }[spec.action]
    watch(spec.folder / "watch.jsonl", [spec.folder / name for name in ("work", "host", "tmp", "result.json")])

    caught = _caught_signals()

    def target() -> None:
        result["main_thread"] = threading.current_thread() is threading.main_thread()
        try:
            result.update(action())
        except BaseException as error:
            result["error"] = _as_data(error)
        result["signals"] = [number.name for number in _caught_signals() if number not in caught]

    # As on a worker: not the main thread, so a signal handler cannot be set.
    before = set(threading.enumerate())
    thread = threading.Thread(target=target)
    thread.start()
    thread.join()
    result["left"] = _left_behind(before)
    (spec.folder / "result.json").write_text(json.dumps(result), encoding="utf-8")


def find_framework(plugin: str, name: str) -> Framework:
    """The framework `name` that the module `plugin` registers; an empty name means its only one."""
    found: list[Framework] = []
    importlib.import_module(plugin).register_frameworks(found.append)
    chosen = [framework for framework in found if name in ("", framework.name)]
    if len(chosen) != 1:
        names = ", ".join(framework.name for framework in found)
        raise LookupError(f"{plugin} registers {names or 'no framework'}; framework_name is '{name}'")
    return chosen[0]


def load(reference: str) -> Any:
    """The object that `"module:Name"` means."""
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


def _meet(spec: AttemptSpec, policy: ProcessGroup) -> None:
    """What the host does about `torch.distributed` for several workers (`execution/torch_backend.py`)."""
    if policy is ProcessGroup.NONE:
        return
    size, rank = str(spec.world_size), str(spec.rank)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(spec.port), WORLD_SIZE=size, RANK=rank)
    os.environ.update(LOCAL_RANK=rank, LOCAL_WORLD_SIZE=size, NODE_RANK="0")
    if policy is ProcessGroup.INIT:
        distributed = importlib.import_module("torch.distributed")
        distributed.init_process_group("gloo", init_method="env://", rank=spec.rank, world_size=spec.world_size)


def _train(spec: AttemptSpec, framework: Framework) -> dict[str, Any]:
    host = RecordingHost(spec.folder / "host", stop_after_steps=spec.stop_after_steps, rank=spec.rank)
    result: dict[str, Any] = {}
    calls: list[str] = []
    try:
        resume = spec.resume
        if resume:
            # A copy of this attempt's own, elsewhere than where it was written.
            resume = replace(resume, path=Path(shutil.copytree(resume.path, spec.folder / "work" / "resume")))
        adapter = load(framework.adapter)(_context(spec, framework, host, spec.folder / "work", resume))
        for step in ("load_data", "load_model", "train"):
            calls.append(step)
            getattr(adapter, step)()
        last = host.reports[-1].epoch if host.reports else (spec.resume.epoch if spec.resume else 0)
        if spec.stop_after_steps is None or last >= spec.epochs:
            calls.append("validate")
            result["final"] = {name: float(value) for name, value in adapter.validate().items()}
    finally:
        result |= {
            "calls": calls,
            "reports": [
                {
                    "epoch": report.epoch,
                    "metrics": dict(report.metrics),
                    "checkpoint": str(report.checkpoint) if report.checkpoint else None,
                }
                for report in host.reports
            ],
            "steps": host.steps,
            "warnings": host.warnings,
            "files": sorted(host.files),
            "best": str(host.best) if host.best else None,
        }
    return result


def _context(
    spec: AttemptSpec, framework: Framework, host: RecordingHost, work_dir: Path, resume: Resume | None
) -> TrainingContext:
    assert spec.dataset is not None
    card = next(card for card in framework.models if (card.name, card.task) == (spec.model, spec.task))
    weights = None
    if spec.weights:
        weights = work_dir / "weights" / f"{card.weights or card.name}.pt"
        weights.parent.mkdir(parents=True)
        shutil.copyfile(spec.weights, weights)
    return TrainingContext(
        job_id=1,
        attempt=2 if spec.resume else 1,
        task=spec.task,
        model=card,
        epochs=spec.epochs,
        batch_size=spec.batch_size,
        config=load(framework.configs[spec.task]).model_validate(dict(spec.config)),
        dataset=spec.dataset,
        work_dir=work_dir,
        host=host,
        learning_rate=spec.learning_rate,
        seed=spec.seed,
        pretrained=weights is not None,
        weights=weights,
        resume=resume,
        rank=spec.rank,
        world_size=spec.world_size,
        local_rank=spec.rank,
    )


def _damage(spec: AttemptSpec, framework: Framework) -> dict[str, Any]:
    """How each damaged checkpoint is met: its error as data, or None where it was taken."""
    assert spec.resume is not None
    met: dict[str, Any] = {}
    for name, folder in spec.damages.items():
        host = RecordingHost(spec.folder / "host" / name)
        work = spec.folder / "work" / name
        work.mkdir()
        context = _context(spec, framework, host, work, replace(spec.resume, path=folder))
        try:
            adapter = load(framework.adapter)(context)
            adapter.load_data()
            adapter.load_model()
            met[name] = None
        except BaseException as error:
            met[name] = _as_data(error)
    return {"damages": met}


def _predict(spec: AttemptSpec, framework: Framework) -> dict[str, Any]:
    predictor = load(framework.predictor)(spec.portable_file, "cpu")
    options: dict[str, Any] = {"threshold": spec.threshold, "prompt": spec.prompt}
    answers = [predictor.predict(image, **options) for image in spec.images]
    result = {"task": predictor.task, "classes": list(predictor.classes), "answers": answers}
    try:
        predictor.predict(b"not a picture", **options)
    except BaseException as error:
        result["no_picture"] = _as_data(error)
    broken = spec.folder / "tmp" / spec.portable_file.name
    broken.write_bytes(b"not a model")
    try:
        load(framework.predictor)(broken, "cpu")
    except BaseException as error:
        result["broken"] = _as_data(error)
    finally:
        broken.unlink()
    return result


def _as_data(error: BaseException) -> dict[str, Any]:
    known = isinstance(error, EaglerayError)
    return {
        "type": type(error).__name__,
        "code": error.code if isinstance(error, EaglerayError) else "",
        "message": error.message if isinstance(error, EaglerayError) else str(error),
        "traceback": "" if known else "".join(traceback.format_exception(error)),
    }


def _caught_signals() -> list[signal.Signals]:
    """Signals for which this process has a handler, native code's included; Python itself knows only its own."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    caught = int(next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16)
    return [number for number in signal.Signals if caught >> (number - 1) & 1]


def _left_behind(before: set[threading.Thread]) -> dict[str, list[str]]:
    """Threads that keep a process alive and child processes that are still there after some seconds."""
    gc.collect()
    deadline = time.monotonic() + SETTLE_S
    while True:
        threads = [thread.name for thread in threading.enumerate() if thread not in before and not thread.daemon]
        processes = _children()
        if (not threads and not processes) or time.monotonic() > deadline:
            return {"threads": threads, "processes": processes}
        time.sleep(0.1)


def _children() -> list[str]:
    """Command lines of this process's children; multiprocessing's tracker, which ends with us, is none."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if parent == str(os.getpid()) and command and "resource_tracker" not in command:
            found.append(command[:200])
    return found


if __name__ == "__main__":
    # By its real name, so that what was pickled by the caller is what is unpickled here.
    from eagleray.testing import attempt

    attempt.main(Path(sys.argv[1]))
