"""`eagleray train` and `eagleray run`: a job from flags, or from a file."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from eagleray.cli import jobs
from eagleray.cli.completion import framework_names, model_names, task_names
from eagleray.cli.output import json_text, print_json_line, summary_lines, while_it_is_read
from eagleray.contract.errors import ConfigError, StorageError
from eagleray.settings import load_settings

Json = Annotated[bool, typer.Option("--json", help="One JSON object a line, for machines.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check everything and show the plan; start nothing.")]
Server = Annotated[
    str | None, typer.Option("--server", help="Train on this server, and watch; default: EAGLERAY_SERVER, else here.")
]
Detach = Annotated[bool, typer.Option("--detach", help="With a server: do not watch.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the workers' log lines.")]
Framework = Annotated[
    str | None, typer.Option("--framework", "-f", help="For example ultralytics.", autocompletion=framework_names)
]
Model = Annotated[str | None, typer.Option("--model", "-m", help="For example yolo11n.", autocompletion=model_names)]
Data = Annotated[str | None, typer.Option("--data", "-d", help="NAME, NAME@VERSION, a folder, or an address.")]
Task = Annotated[
    str | None,
    typer.Option(help="For example object-detection; default: the model's first.", autocompletion=task_names),
]
Pretrained = Annotated[
    bool | None, typer.Option("--pretrained/--no-pretrained", help="Start from pretrained weights, or from scratch.")
]


def train(
    framework: Framework = None,
    model: Model = None,
    data: Data = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs in all.")] = None,
    batch_size: Annotated[str | None, typer.Option(help="Images a step, or auto.")] = None,
    task: Task = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: the framework's own.")] = None,
    project: Annotated[str | None, typer.Option(help="Keep the job under this project.")] = None,
    dataset_format: Annotated[str | None, typer.Option(help="For example coco; default: recognised.")] = None,
    pretrained: Pretrained = None,
    weights: Annotated[Path | None, typer.Option(help="Start from this weights file.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of all random numbers.")] = None,
    workers: Annotated[str | None, typer.Option(help="Number of workers, or a range such as 1-4.")] = None,
    gpus_per_worker: Annotated[float | None, typer.Option(help="GPUs for each worker.")] = None,
    cpus_per_worker: Annotated[float | None, typer.Option(help="CPUs for each worker.")] = None,
    accelerator_type: Annotated[str | None, typer.Option(help="For example A100.")] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Epochs between checkpoints.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A key of the job or of advanced_config.")
    ] = None,
    resume: Annotated[int | None, typer.Option(help="Continue this job.")] = None,
    as_json: Json = False,
    dry_run: DryRun = False,
    verbose: Verbose = False,
    server: Server = None,
    detach: Detach = False,
) -> None:
    """Train a model. Without a cluster in RAY_ADDRESS a local one is started for the run."""
    values: dict[str, Any] = {
        "framework": framework,
        "model_name": model,
        "dataset_path": data,
        "epochs": epochs,
        "batch_size": _batch_size(batch_size),
        "task_type": task,
        "learning_rate": learning_rate,
        "project_id": project,
        "dataset_format": dataset_format,
        "pretrained": str(weights) if weights else pretrained,
        "seed": seed,
        "checkpoint_every": checkpoint_every,
        "resume": resume,
    }
    scaling = {
        "num_workers": _workers(workers),
        "gpus_per_worker": gpus_per_worker,
        "cpus_per_worker": cpus_per_worker,
        "accelerator_type": accelerator_type,
    }
    values = {key: value for key, value in values.items() if value is not None}
    if given := {key: value for key, value in scaling.items() if value is not None}:
        values["scaling"] = given
    _apply_settings(values, settings or [])
    start(values, as_json=as_json, dry_run=dry_run, verbose=verbose, server=server, detach=detach)


def run(
    job: Annotated[Path, typer.Argument(help="YAML or JSON file of the job; its keys: docs/job-spec.md.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Overrides a key of the file.")
    ] = None,
    as_json: Json = False,
    dry_run: DryRun = False,
    verbose: Verbose = False,
    server: Server = None,
    detach: Detach = False,
) -> None:
    """Run the job of a file; also as `ray job submit -- eagleray run job.yaml`."""
    from eagleray.jobs.spec import read_spec  # noqa: PLC0415 - keeps pydantic models out of the listing commands

    values = read_spec(job)
    _apply_settings(values, settings or [])
    start(values, as_json=as_json, dry_run=dry_run, verbose=verbose, server=server, detach=detach)


def start(
    values: dict[str, Any],
    *,
    as_json: bool,
    dry_run: bool,
    verbose: bool,
    server: str | None = None,
    detach: bool = False,
) -> None:
    """Plan the job of `values` and, unless it is a dry run, train it to its end: here, or on a server."""
    server = jobs.server_of(server)
    if server and not _is_ray_job():
        if dry_run and values.get("resume") is None:
            _show_plan(jobs.plan(values, server), as_json=as_json)
        elif not dry_run:
            jobs.submit(values, server, as_json=as_json, verbose=verbose, detach=detach)
        else:
            raise ConfigError("A server cannot plan a resumed job.", "Try: eagleray jobs show JOB")
        return
    from eagleray.jobs.plan import describe, plan_job  # noqa: PLC0415
    from eagleray.jobs.records import JobRecords  # noqa: PLC0415
    from eagleray.jobs.resume import resumed_spec  # noqa: PLC0415
    from eagleray.jobs.spec import make_spec  # noqa: PLC0415
    from eagleray.plugins.host import discover  # noqa: PLC0415
    from eagleray.storage.opening import open_store  # noqa: PLC0415

    settings = load_settings()
    store = open_store(settings.storage)
    if not dry_run and values.get("resume") is None and _is_ray_job():
        # Only inside `ray job submit` are Ray and the control plane worth importing before the plan.
        from eagleray.control.attempt import run_registered  # noqa: PLC0415

        if record := _shown(lambda display: run_registered(values, settings, store, display), as_json, verbose):
            show_summary(record, as_json=as_json)
            return
    resumed = None
    if values.get("resume") is not None:
        resumed = JobRecords(store).load(_job_id(values["resume"]))
        values = resumed_spec(resumed, values)
    catalogue = discover(settings)
    plan = plan_job(make_spec(values), catalogue, store, import_addresses=not dry_run)
    if dry_run:
        _check_this_machine(plan)
        _show_plan(describe(plan, settings), as_json=as_json)
        return
    from eagleray.execution.driver import JobDriver  # noqa: PLC0415

    rules = catalogue.failure_rules(plan.packages[-1])

    def train_here(display: Any) -> Any:
        return JobDriver(
            plan, store, settings, display, callbacks=catalogue.callbacks(), resumed=resumed, rules=rules
        ).run()

    show_summary(_shown(train_here, as_json, verbose), as_json=as_json)


def _check_this_machine(plan: Any) -> None:
    """Refuse workers that a local cluster could never hold, as the run would; its GPUs are known once Ray has started.

    Raises:
        ClusterError: says how many would fit.
    """
    if "RAY_ADDRESS" in os.environ:
        return
    from eagleray.execution.room import Gang, check  # noqa: PLC0415 - see `start`

    cpus = plan.resources_per_worker["CPU"]
    check(Gang(plan.spec.scaling.min_workers, {"CPU": cpus}), [{"CPU": float(os.cpu_count() or 1)}], [])


def _is_ray_job() -> bool:
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def _shown(run: Callable[[Any], Any], as_json: bool, verbose: bool) -> Any:
    from eagleray.cli.display import make_display  # noqa: PLC0415 - see `start`

    display = make_display(as_json=as_json, verbose=verbose)
    try:
        return run(display)
    finally:
        display.close()


def show_summary(record: Any, *, as_json: bool) -> None:
    with while_it_is_read():
        if as_json:
            print_json_line({"event": "summary", **record.model_dump(mode="json")})
        else:
            print("\n".join(_summary(record)))
    if record.epochs_done and not record.artifacts.last:
        raise StorageError(
            f"Job {record.id} has trained {record.epochs_done} epochs, but no checkpoint of it is in the store.",
            "The warnings say why, and where the newest one is kept.",
        )
    if record.phase.value == "cancelled":
        raise typer.Exit(130)


def _summary(record: Any) -> list[str]:
    lines = summary_lines(record.model_dump(mode="json"))
    lines += [f"  metrics   {record.output_dir}/metrics.jsonl", f"  logs      {record.output_dir}/logs"]
    lines.append("next:")
    if record.resumable:
        lines.append(f"  eagleray train --resume {record.id}")
    elif record.phase.value == "completed":
        lines.append(f"  eagleray train --resume {record.id} --epochs {2 * record.epochs}    # train on")
    lines.append(f"  eagleray models show {record.model_name} --framework {record.framework}")
    return lines


def _show_plan(plan: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json_line(plan)
        return
    for key, value in plan.items():
        if key == "spec":
            continue
        shown = json_text(value) if isinstance(value, dict | list) else value
        sys.stdout.write(f"{key:22}{shown}\n")
    sys.stdout.write("nothing was started (--dry-run)\n")


def _apply_settings(values: dict[str, Any], settings: list[str]) -> None:
    """`--set`: a key of the job where it is one (dots reach into `scaling`), else one of `advanced_config`."""
    from eagleray.jobs.spec import JobSpec, parse_setting  # noqa: PLC0415 - see `start`

    for text in settings:
        key, value = parse_setting(text)
        first, _, rest = key.partition(".")
        if first in JobSpec.model_fields and not rest:
            values[first] = value
        elif first in {"scaling", "advanced_config"} and rest:
            _group(values, first, text)[rest] = value
        else:
            _group(values, "advanced_config", text)[key] = value


def _group(values: dict[str, Any], name: str, setting: str) -> dict[str, Any]:
    group = values.setdefault(name, {})
    if not isinstance(group, dict):
        raise ConfigError(
            f"--set {setting} goes into {name}, which is {group!r} and no keys with values.",
            f"Write keys below {name}, or leave it out.",
        )
    return group


def _batch_size(text: str | None) -> int | str | None:
    if text is None or text == "auto":
        return text
    try:
        return int(text)
    except ValueError:
        raise ConfigError(
            f"--batch-size '{text}' is neither a number nor 'auto'.", "Example: --batch-size 16"
        ) from None


def _workers(text: str | None) -> int | list[int] | None:
    if text is None:
        return None
    try:
        numbers = [int(part) for part in text.split("-")]
    except ValueError:
        numbers = []
    if len(numbers) not in (1, 2):
        raise ConfigError(
            f"--workers '{text}' is neither a number nor a range.", "Examples: --workers 2, --workers 1-4"
        )
    return numbers[0] if len(numbers) == 1 else numbers


def _job_id(value: Any) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise ConfigError(f"resume = {value!r} is not a job's number.", "Example: --resume 7")


def register(app: typer.Typer) -> None:
    app.command("train")(train)
    app.command("run")(run)
