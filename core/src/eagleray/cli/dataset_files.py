"""`eagleray datasets validate | preview | convert`: of a folder, or of a version."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eagleray.cli.dataset_display import print_imported
from eagleray.cli.dataset_options import (
    AllowLoss,
    Classes,
    Format,
    Json,
    Place,
    Rename,
    Splits,
    Task,
    Validation,
    edit_of,
    folder_of,
    is_here,
    open_registry,
    version_of,
)
from eagleray.cli.jobs import MaybeServer, server_of
from eagleray.cli.output import print_json
from eagleray.cli.progress import shown_progress
from eagleray.contract.errors import ConfigError

if TYPE_CHECKING:
    from eagleray.datasets import Edit


def validate(
    dataset: Place,
    task: Task = None,
    format: Format = None,
    fix: Annotated[
        bool, typer.Option("--fix", help="Make a mended copy: the newest version, or, of a folder, --into.")
    ] = False,
    into: Annotated[Path | None, typer.Option("--into", help="Where the mended copy of a folder goes.")] = None,
    allow_loss: AllowLoss = False,
    server: MaybeServer = None,
    as_json: Json = False,
) -> None:
    """All that is wrong or odd about a dataset, file by file and row by row. Errors end in exit code 3."""
    from eagleray.datasets import fix as write_mended  # noqa: PLC0415 - see `open_registry`
    from eagleray.datasets import validate as report_on  # noqa: PLC0415 - see `open_registry`
    from eagleray.registry import ImportOptions  # noqa: PLC0415 - see `open_registry`

    remote = server_of(server)
    if remote and not is_here(dataset):
        _validate_remotely(remote, dataset, task, format, fix, allow_loss, as_json)
        return
    registry = open_registry()
    version = version_of(registry, dataset)
    if fix and version is not None:
        with shown_progress(hidden=as_json) as progress:
            imported = registry.mend(dataset, options=ImportOptions(allow_loss=allow_loss), progress=progress)
        print_imported(imported, as_json=as_json)
        return
    if fix and into is None:
        raise ConfigError(
            "A folder is never changed in its place.",
            f"Say where the mended copy goes: eagleray datasets validate {dataset} --fix --into FOLDER",
        )
    with folder_of(registry, dataset, version, hidden=as_json) as folder:
        # A version was kept for its own task in its own format; only what is asked for otherwise is looked at so.
        wanted = (task or version.task, format or version.format) if version else (task, format)
        report = report_on(folder, *wanted)
        report = report.model_copy(update={"path": Path(str(version))}) if version else report
        mended = write_mended(report, into, allow_loss=allow_loss) if fix and into is not None else None
    shown = report if mended is None else mended.report
    if as_json:
        print_json((report if mended is None else mended).model_dump(mode="json"))
    else:
        print(report.text())
        for sentence in mended.done if mended else ():
            print(f"mended: {sentence}")
        if mended:
            print(mended.report.text())
    if not shown.ok:
        raise typer.Exit(3)


def preview(
    dataset: Place,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The picture to write; default: NAME.png.")] = None,
    images: Annotated[int, typer.Option(help="How many pictures.", min=1, max=400)] = 16,
    seed: Annotated[int, typer.Option(help="Another seed shows other pictures.")] = 0,
    task: Task = None,
    format: Format = None,
    server: MaybeServer = None,
    as_json: Json = False,
) -> None:
    """A contact sheet: pictures with boxes, masks and keypoints drawn, and histograms of classes and sizes."""
    from eagleray.datasets import preview as write_sheet  # noqa: PLC0415 - see `open_registry`

    remote = server_of(server)
    if remote and not is_here(dataset):
        _show_preview(_preview_remotely(remote, dataset, out, images, seed, task, format, as_json), as_json)
        return
    registry = open_registry()
    version = version_of(registry, dataset)
    target = out or Path(f"{version.name}-{version.number}.png" if version else f"{Path(dataset).resolve().name}.png")
    with folder_of(registry, dataset, version, hidden=as_json) as folder:
        written = write_sheet(
            folder,
            target,
            task=task or (version.task if version else None),
            format=format or (version.format if version else None),
            images=images,
            seed=seed,
        )
    _show_preview(written, as_json)


def _show_preview(written: Path, as_json: bool) -> None:
    if as_json:
        print_json({"preview": str(written)})
    else:
        print(f"preview: {written}")


def convert(
    dataset: Place,
    target: Annotated[str, typer.Argument(metavar="FORMAT", help="dice, yolo, coco, voc, imagefolder, csv or jsonl.")],
    into: Annotated[Path, typer.Argument(help="A folder that is not there yet, or is empty.")],
    task: Task = None,
    format: Format = None,
    validation: Validation = None,
    classes: Classes = None,
    rename: Rename = None,
    splits: Splits = None,
    allow_loss: AllowLoss = False,
    server: MaybeServer = None,
    as_json: Json = False,
) -> None:
    """Write a dataset in another format, with other classes or splits if wished. Nothing is lost unless asked for."""
    from eagleray.datasets import Placing  # noqa: PLC0415 - see `open_registry`
    from eagleray.datasets import convert as write_as  # noqa: PLC0415 - see `open_registry`

    edit = edit_of(validation, classes, rename, splits)
    remote = server_of(server)
    if remote and not is_here(dataset):
        _convert_remotely(remote, dataset, target, into, task, format, edit, validation, allow_loss, as_json)
        return
    registry = open_registry()
    version = version_of(registry, dataset)
    with folder_of(registry, dataset, version, hidden=as_json) as folder:
        report = write_as(
            folder,
            target,
            into,
            source_format=format or (version.format if version else None),
            task=task or (version.task if version else None),
            allow_loss=allow_loss,
            edit=edit,
            # A version's files are the node cache's own.
            placing=Placing.COPY if version is None else Placing.OWN,
        )
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        print(report.text())


def _validate_remotely(
    server: str, dataset: str, task: str | None, format: str | None, fix: bool, allow_loss: bool, as_json: bool
) -> None:
    from eagleray.cli import dataset_remote as remote  # noqa: PLC0415 - see `open_registry`
    from eagleray.datasets import ValidationReport  # noqa: PLC0415 - see `open_registry`

    remote.refuse(server, format=format)
    with remote.remote_version(server, dataset) as version, shown_progress(hidden=as_json) as progress:
        if fix:
            print_imported(remote.mend_remotely(version, allow_loss=allow_loss, progress=progress), as_json=as_json)
            return
        datasets = version.client.datasets
        begun = datasets.validate(version.dataset, version.number, task=task, pictures=True)
        report = ValidationReport.model_validate(datasets.report(datasets.wait(begun, progress=progress)))
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        print(report.text())
    if not report.ok:
        raise typer.Exit(3)


def _preview_remotely(
    server: str,
    dataset: str,
    out: Path | None,
    images: int,
    seed: int,
    task: str | None,
    format: str | None,
    hidden: bool,
) -> Path:
    from eagleray.cli import dataset_remote as remote  # noqa: PLC0415 - see `open_registry`

    remote.refuse(server, task=task, format=format)
    with remote.remote_version(server, dataset) as version, shown_progress(hidden=hidden) as progress:
        datasets = version.client.datasets
        begun = datasets.preview(version.dataset, version.number, images=images, seed=seed)
        done = datasets.wait(begun, progress=progress)
        return datasets.result(done, out or Path(f"{version.dataset}-{version.number}.png"))


def _convert_remotely(
    server: str,
    dataset: str,
    target: str,
    into: Path,
    task: str | None,
    format: str | None,
    edit: Edit | None,
    validation: float | None,
    allow_loss: bool,
    as_json: bool,
) -> None:
    from eagleray.cli import dataset_remote as remote  # noqa: PLC0415 - see `open_registry`

    remote.refuse(server, format=format)
    changes = {"task": task, "allow_loss": allow_loss, **remote.changes_of(edit, validation)}
    with remote.remote_version(server, dataset) as version, shown_progress(hidden=as_json) as progress:
        done = remote.export_remotely(version, into, progress, format=target, **changes)
    lost = done["lost"] if done else []
    if as_json:
        print_json({"dataset": str(version), "into": str(into), "format": target, "lost": lost})
        return
    print(f"{version} as {target}, in {into}")
    for sentence in lost:
        print(f"lost: {sentence}")


def register(app: typer.Typer) -> None:
    for command in (validate, preview, convert):
        app.command(command.__name__)(command)
