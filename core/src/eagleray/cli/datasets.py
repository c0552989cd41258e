"""`eagleray datasets`: import, look at, compare and remove datasets and their versions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from eagleray.cli import dataset_files
from eagleray.cli.dataset_display import print_classes, print_comparison, print_imported, print_version
from eagleray.cli.dataset_options import (
    AllowLoss,
    Classes,
    Format,
    Json,
    Ref,
    Rename,
    Splits,
    Task,
    Validation,
    edit_of,
    open_registry,
)
from eagleray.cli.output import print_json, print_table
from eagleray.cli.progress import shown_progress
from eagleray.contract.errors import ConfigError

# How far a change of a dataset has come is nobody's business but the registry's.
_OWN = {"layout_sha256", "moving_to", "last_number", "deleted"}

app = typer.Typer(help="Datasets and their versions.", no_args_is_help=True)


@app.command("import")
def import_one(
    source: Annotated[
        str, typer.Argument(help="A folder, a .zip or .tar archive, s3://bucket/prefix, or an https address.")
    ],
    name: Annotated[str | None, typer.Option("--name", "-n", help="Default: made of the source's name.")] = None,
    task: Task = None,
    format: Format = None,
    validation: Validation = None,
    classes: Classes = None,
    rename: Rename = None,
    splits: Splits = None,
    fix: Annotated[bool, typer.Option("--fix", help="Keep a mended copy instead of refusing faults.")] = False,
    note: Annotated[str, typer.Option(help="A sentence that is kept with the version.")] = "",
    allow_loss: AllowLoss = False,
    as_json: Json = False,
) -> None:
    """Check a dataset and keep it as the newest version of its name.

    The same content again makes no new version, and files that did not change are stored once. Nothing is kept of a
    dataset with faults; `eagleray datasets validate SOURCE` lists all of them.
    """
    from eagleray.registry import ImportOptions  # noqa: PLC0415 - see `open_registry`

    edit = edit_of(validation, classes, rename, splits)
    options = ImportOptions(task=task, format=format, edit=edit, mend=fix, note=note, allow_loss=allow_loss)
    with shown_progress(hidden=as_json) as progress:
        imported = open_registry().import_dataset(source, name=name, options=options, progress=progress)
    print_imported(imported, as_json=as_json)


@app.command("list")
def show_all(as_json: Json = False) -> None:
    """Every dataset, with the figures of its newest version."""
    registry = open_registry()
    found = registry.list()
    if as_json:
        print_json([record.model_dump(mode="json", exclude=_OWN) for record in found])
        return
    if not found:
        print(f"There is no dataset in {registry.store.location}. Try: eagleray datasets import FOLDER")
        return
    rows = [
        [
            record.name,
            str(record.layout),
            record.task,
            record.format,
            f"{record.num_images:,}",
            f"{record.num_annotations:,}",
            str(len(record.classes)),
            f"{record.updated_at:%Y-%m-%d %H:%M}",
        ]
        for record in found
    ]
    print_table(["name", "version", "task", "format", "images", "annotations", "classes", "updated"], rows)


@app.command("show")
def show_one(
    dataset: Ref,
    files: Annotated[bool, typer.Option("--files", help="Also every file, with its size and sha256.")] = False,
    as_json: Json = False,
) -> None:
    """One version, with its splits and classes; and which versions there are."""
    registry = open_registry()
    version = registry.show(dataset)
    versions = registry.versions(version.dataset_id)
    listing = registry.files(f"{version.dataset_id}@{version.number}") if files else {}
    if as_json:
        shown: dict[str, Any] = version.model_dump(mode="json") | {"versions": [each.number for each in versions]}
        if files:
            shown["files"] = {path: entry.model_dump() for path, entry in listing.items()}
        print_json(shown)
        return
    print_version(version)
    print()
    splits = [
        [name, f"{facts.num_images:,}", f"{facts.num_annotations:,}", f"{facts.num_backgrounds:,}"]
        for name, facts in version.splits.items()
    ]
    print_table(["split", "images", "annotations", "backgrounds"], splits)
    print()
    print_classes(version)
    print()
    rows = [[str(each), f"{each.created_at:%Y-%m-%d %H:%M}", f"{each.num_images:,}", each.note] for each in versions]
    print_table(["version", "created", "images", "note"], rows)
    for path, entry in listing.items():
        print(f"{entry.sha256}  {entry.size_bytes:>12,}  {path}")


@app.command("compare")
def compare(
    a: Annotated[str, typer.Argument(help="NAME@VERSION, or just a version's number of the second's dataset.")],
    b: Annotated[str, typer.Argument(help="NAME@VERSION, or NAME for its newest version.")],
    as_json: Json = False,
) -> None:
    """What differs in B, seen from A: files added, removed, changed and renamed, and the objects of each class."""
    if a.isdigit():
        a = f"{b.partition('@')[0]}@{a}"
    found = open_registry().compare(a, b)
    if as_json:
        print_json(found.plain())
    else:
        print_comparison(found)


@app.command("export")
def export(
    dataset: Ref,
    into: Annotated[Path, typer.Argument(help="A folder that is not there yet, or is empty.")],
    format: Annotated[str | None, typer.Option("--format", "-f", help="In this format instead of its own.")] = None,
    allow_loss: AllowLoss = False,
    as_json: Json = False,
) -> None:
    """Write the files of a version into a folder, each one verified."""
    with shown_progress(hidden=as_json) as progress:
        version = open_registry().export(
            dataset, into.expanduser().absolute(), format=format, allow_loss=allow_loss, progress=progress
        )
    if as_json:
        print_json({"dataset": str(version), "into": str(into), "format": format or version.format})
        return
    print(f"{version}: {version.num_images:,} images as {format or version.format}, in {into}")


@app.command("delete")
def delete(
    dataset: Annotated[str, typer.Argument(help="NAME for all of it, NAME@VERSION for one version.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Delete a dataset, or one version of it. Its bytes go, unless another version has them too."""
    from eagleray.registry import parse_reference  # noqa: PLC0415 - see `open_registry`

    registry = open_registry()
    reference = parse_reference(dataset)
    if reference.version is None:
        record = registry.remains(reference.dataset)
        count = registry.count_versions(record)
        what = f"{record.name}, with {count} version{'' if count == 1 else 's'}"
    else:
        record = registry.find(reference.dataset)
        what = f"{registry.show(dataset)}, one of {registry.count_versions(record)} versions"
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"This would delete {what}.", "Add --yes to do so.")
        typer.confirm(f"Delete {what}?", abort=True)
    with shown_progress(hidden=as_json) as progress:
        registry.delete(record.id, version=reference.version, progress=progress)
    if as_json:
        print_json({"deleted": dataset})
    else:
        print(f"Deleted {what}.")


dataset_files.register(app)
