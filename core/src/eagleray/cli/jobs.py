"""`eagleray jobs`: the jobs of a server."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eagleray.cli.output import print_facts, print_json, print_json_line, print_table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from eagleray.client import Client

app = typer.Typer(help="Jobs of a server.", no_args_is_help=True)

JobId = Annotated[int, typer.Argument(metavar="JOB", help="The job's number.")]
Server = Annotated[
    str | None, typer.Option("--server", help="The server's address; default: EAGLERAY_SERVER, or the last login.")
]
MaybeServer = Annotated[
    str | None, typer.Option("--server", help="Ask this server; default: EAGLERAY_SERVER, else here.")
]
Json = Annotated[bool, typer.Option("--json", help="JSON, for machines.")]
Epochs = Annotated[int | None, typer.Option(help="Epochs in all, to train on.")]
Start = Annotated[bool, typer.Option("--start", help="Put it into the queue at once.")]


def server_of(given: str | None) -> str | None:
    """The server that a command shall speak to which also works without one."""
    return given or os.environ.get("EAGLERAY_SERVER") or None


@contextmanager
def connected(server: str | None) -> Iterator[Client]:
    from eagleray.client import Client  # noqa: PLC0415 - saves other commands httpx, some 100 ms

    with Client(server) as client:
        yield client


@app.command("list")
def show_all(
    status: Annotated[str | None, typer.Option(help="pending, running, completed, failed or cancelled.")] = None,
    phase: Annotated[str | None, typer.Option(help="For example queued.")] = None,
    framework: Annotated[str | None, typer.Option("--framework", "-f", help="Of this framework only.")] = None,
    project: Annotated[str | None, typer.Option(help="Of this project only.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 50,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Jobs, newest first."""
    with connected(server) as client:
        found = list(client.jobs(limit=limit, status=status, phase=phase, framework=framework, project_id=project))
    if as_json:
        print_json(found)
        return
    if not found:
        print("There are no such jobs.")
        return
    print_table(["JOB", "PHASE", "EPOCHS", "MODEL", "FRAMEWORK", "PROJECT", "NOTE"], [_row(job) for job in found])


@app.command("show")
def show_one(job_id: JobId, server: Server = None, as_json: Json = False) -> None:
    """All about one job."""
    with connected(server) as client:
        job = client.job(job_id)
        attempts = client.attempts(job_id)
    if as_json:
        print_json(job | {"attempts": attempts})
        return
    best = job["best"]
    print_facts(
        [
            ("job", f"{job['id']} {job['phase']}"),
            ("why", job["reason"]),
            ("error", job["error_message"] or ""),
            ("hint", job["hint"] or ""),
            ("model", f"{job['framework']} {job['model_name']}, {job['task_type']}"),
            ("dataset", job["dataset_path"]),
            ("epochs", f"{job['epochs_done']} of {job['epochs']}"),
            ("best", f"{best['metric']} {best['value']:.4g} at epoch {best['epoch']}" if best else ""),
            ("priority", str(job["priority"])),
            ("queue", f"{job['queue_position']}" if job["queue_position"] else ""),
            ("project", job["project_id"] or ""),
            ("created", f"{job['created_at']} by {job['created_by'] or '?'}"),
            ("output", job["output_dir"]),
            ("tracking", job["tracking_url"] or ""),
            *(("warning", text) for text in job["warnings"]),
        ]
    )
    if attempts:
        print()
        rows = [[str(each["number"]), each["state"], each["outcome"] or "", each["message"]] for each in attempts]
        print_table(["ATTEMPT", "STATE", "OUTCOME", "MESSAGE"], rows)


@app.command("follow")
def follow_one(
    job_id: JobId,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the workers' log lines.")] = False,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Watch a job to its end: curves on a terminal, lines elsewhere. Ctrl-C leaves it running."""
    from eagleray.cli.follow import follow  # noqa: PLC0415 - draws with rich

    with connected(server) as client:
        follow(client, job_id, as_json=as_json, verbose=verbose)


@app.command()
def logs(
    job_id: JobId,
    attempt: Annotated[int | None, typer.Option(help="Of this attempt only.")] = None,
    rank: Annotated[int | None, typer.Option(help="Of this worker only; -1: the driver.")] = None,
    tail: Annotated[int | None, typer.Option(help="Only the last so many.", min=1)] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """What the workers printed."""
    from eagleray.cli.follow import harmless  # noqa: PLC0415 - see `follow_one`

    with connected(server) as client:
        for line in client.logs(job_id, attempt=attempt, rank=rank, tail=tail):
            if as_json:
                print_json_line(line)
            else:
                print(f"[{line['attempt']}.{line['rank']}] {harmless(line['text'])}")


@app.command()
def metrics(
    job_id: JobId,
    key: Annotated[list[str] | None, typer.Option("--key", "-k", help="Only this figure; may be repeated.")] = None,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """The figures of every epoch."""
    with connected(server) as client:
        found = client.metrics(job_id, keys=key or ())
    if as_json:
        print_json(found)
        return
    by_epoch: dict[int, dict[str, str]] = {}
    for point in found:
        shown = "" if point["value"] is None else f"{float(point['value']):.4g}"
        by_epoch.setdefault(point["epoch"], {})[point["key"]] = shown
    names = list(dict.fromkeys(point["key"] for point in found))
    rows = [[str(epoch), *(by_epoch[epoch].get(name, "") for name in names)] for epoch in sorted(by_epoch)]
    print_table(["EPOCH", *names], rows)


@app.command()
def start(job_id: JobId, server: Server = None, as_json: Json = False) -> None:
    """Put a created job into the queue."""
    _told(server, as_json, lambda client: client.start_job(job_id))


@app.command()
def stop(job_id: JobId, server: Server = None, as_json: Json = False) -> None:
    """End it after a checkpoint; it can be resumed."""
    _told(server, as_json, lambda client: client.stop_job(job_id))


@app.command()
def cancel(job_id: JobId, server: Server = None, as_json: Json = False) -> None:
    """End it at once."""
    _told(server, as_json, lambda client: client.cancel_job(job_id))


@app.command()
def resume(job_id: JobId, epochs: Epochs = None, server: Server = None, as_json: Json = False) -> None:
    """Go on from the last checkpoint."""
    _told(server, as_json, lambda client: client.resume_job(job_id, epochs=epochs))


@app.command()
def retry(job_id: JobId, server: Server = None, as_json: Json = False) -> None:
    """Run a failed job again, with fresh budgets for failures."""
    _told(server, as_json, lambda client: client.retry_job(job_id))


@app.command()
def clone(
    job_id: JobId,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A key of the job that shall differ.")
    ] = None,
    start: Start = False,
    server: Server = None,
    as_json: Json = False,
) -> None:
    """A new job with the description of this one, changed."""
    from eagleray.jobs.spec import parse_setting  # noqa: PLC0415 - keeps pydantic out of the listing commands

    changes = dict(parse_setting(text) for text in settings or [])
    _told(server, as_json, lambda client: client.clone_job(job_id, changes, start=start))


@app.command()
def delete(job_id: JobId, server: Server = None, as_json: Json = False) -> None:
    """Forget a job that has ended, with its files."""
    with connected(server) as client:
        client.delete_job(job_id)
    if as_json:
        print_json({"id": job_id, "deleted": True})
    else:
        print(f"job {job_id} is deleted")


@app.command()
def priority(
    job_id: JobId,
    value: Annotated[int, typer.Argument(metavar="PRIORITY", help="More comes first.")],
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Change the priority of a job that waits."""
    _told(server, as_json, lambda client: client.set_priority(job_id, value))


@app.command()
def download(
    job_id: JobId,
    into: Annotated[Path, typer.Argument(help="File or folder.")] = Path(),
    name: Annotated[str, typer.Option(help="best.pt or last.pt.")] = "best.pt",
    server: Server = None,
    as_json: Json = False,
) -> None:
    """Fetch the best or the last checkpoint's portable file."""
    with connected(server) as client:
        path = client.download(job_id, name, into)
    if as_json:
        print_json({"path": str(path), "size_bytes": path.stat().st_size})
    else:
        print(path)


def submit(values: dict[str, Any], server: str | None, *, as_json: bool, verbose: bool, detach: bool) -> None:
    """`eagleray train` and `run` with a server: make the job there, and watch it."""
    from eagleray.cli.follow import follow  # noqa: PLC0415 - see `follow_one`

    values = dict(values)
    with connected(server) as client:
        if values.get("resume") is not None:
            job = client.resume_job(values["resume"], epochs=values.get("epochs"))
        else:
            job = client.create_job(_with_absolute_paths(values), start=True)
        if detach:
            _show(job, as_json=as_json)
            return
        print(f"job {job['id']} on {client.server}", file=sys.stderr, flush=True)
        follow(client, job["id"], as_json=as_json, verbose=verbose)


def plan(values: dict[str, Any], server: str | None) -> dict[str, Any]:
    """What a server would do with `values`."""
    with connected(server) as client:
        return client.plan_job(_with_absolute_paths(values))


def _with_absolute_paths(values: dict[str, Any]) -> dict[str, Any]:
    """A server does not share this process's folder; a path that is only there is passed on as it is."""
    data = values.get("dataset_path")
    if isinstance(data, str) and Path(data).expanduser().exists():
        return {**values, "dataset_path": str(Path(data).expanduser().resolve())}
    return values


def _told(server: str | None, as_json: bool, tell: Callable[[Client], dict[str, Any]]) -> None:
    with connected(server) as client:
        job = tell(client)
    _show(job, as_json=as_json)


def _show(job: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(job)
    else:
        print(f"job {job['id']} is {job['phase']}" + (f": {job['reason']}" if job["reason"] else ""))


def _row(job: dict[str, Any]) -> list[str]:
    note = job["error_message"] or job["reason"] or ""
    if job["queue_position"]:
        note = f"{job['queue_position']}. in the queue" + (f": {note}" if note else "")
    return [
        str(job["id"]),
        job["phase"],
        f"{job['epochs_done']}/{job['epochs']}",
        job["model_name"],
        job["framework"],
        job["project_id"] or "",
        " ".join(note.split())[:80],
    ]
