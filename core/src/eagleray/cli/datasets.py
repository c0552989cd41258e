"""`eagleray datasets`: import, look at, compare and remove datasets and their versions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from eagleray.cli import dataset_files
from eagleray.cli.dataset_display import print_comparison, print_datasets, print_imported, print_whole_version
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
from eagleray.cli.jobs import MaybeServer, connected, server_of
from eagleray.cli.output import print_json
from eagleray.cli.progress import shown_progress
from eagleray.contract.errors import ConfigError

if TYPE_CHECKING:
    from eagleray.registry import Reference

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
    server: MaybeServer = None,
    as_json: Json = False,
) -> None:
    """Check a dataset and keep it as the newest version of its name.

    The same content again makes no new version, and files that did not change are stored once. Nothing is kept of a
    dataset with faults; `eagleray datasets validate SOURCE` lists all of them.
    """
    edit = edit_of(validation, classes, rename, splits)
    with shown_progress(hidden=as_json) as progress:
        if remote := server_of(server):
            from eagleray.cli.dataset_remote import changes_of, import_remotely  # noqa: PLC0415 - see `open_registry`

            wish = {"name": name, "task": task, "format": format, "mend": fix, "note": note, "allow_loss": allow_loss}
            imported = import_remotely(remote, source, {**wish, **changes_of(edit, validation)}, progress)
        else:
            from eagleray.registry import ImportOptions  # noqa: PLC0415 - see `open_registry`

            options = ImportOptions(task=task, format=format, edit=edit, mend=fix, note=note, allow_loss=allow_loss)
            imported = open_registry().import_dataset(source, name=name, options=options, progress=progress)
    print_imported(imported, as_json=as_json)


@app.command("list")
def show_all(server: MaybeServer = None, as_json: Json = False) -> None:
    """Every dataset, with the figures of its newest version."""
    if remote := server_of(server):
        with connected(remote) as client:
            where, found = remote, client.datasets.all()
    else:
        registry = open_registry()
        where, records = registry.store.location, registry.list()
        found = [record.model_dump(mode="json", exclude=_OWN) | {"version": record.layout} for record in records]
    if as_json:
        print_json(found)
    elif found:
        print_datasets(found)
    else:
        print(f"There is no dataset in {where}. Try: eagleray datasets import FOLDER")


@app.command("show")
def show_one(
    dataset: Ref,
    files: Annotated[bool, typer.Option("--files", help="Also every file, with its size and sha256.")] = False,
    server: MaybeServer = None,
    as_json: Json = False,
) -> None:
    """One version, with its splits and classes; and which versions there are."""
    listing: dict[str, Any] = {}
    if remote := server_of(server):
        from eagleray.cli.dataset_remote import remote_version  # noqa: PLC0415 - see `open_registry`
        from eagleray.registry import DatasetVersion  # noqa: PLC0415 - see `open_registry`

        with remote_version(remote, dataset) as found:
            version = found.read()
            versions = [DatasetVersion.model_validate(each) for each in found.client.datasets.versions(found.dataset)]
            if files:
                every = found.client.datasets.files(found.dataset, found.number)
                listing = {entry.pop("path"): entry for entry in every}
    else:
        registry = open_registry()
        version = registry.show(dataset)
        versions = list(registry.versions(version.dataset_id))
        if files:
            kept = registry.files(f"{version.dataset_id}@{version.number}")
            listing = {path: entry.model_dump() for path, entry in kept.items()}
    if as_json:
        shown: dict[str, Any] = version.model_dump(mode="json") | {"versions": [each.number for each in versions]}
        print_json(shown | ({"files": listing} if files else {}))
        return
    print_whole_version(version, versions)
    for path, entry in listing.items():
        print(f"{entry['sha256']}  {entry['size_bytes']:>12,}  {path}")


@app.command("compare")
def compare(
    a: Annotated[str, typer.Argument(help="NAME@VERSION, or just a version's number of the second's dataset.")],
    b: Annotated[str, typer.Argument(help="NAME@VERSION, or NAME for its newest version.")],
    server: MaybeServer = None,
    as_json: Json = False,
) -> None:
    """What differs in B, seen from A: files added, removed, changed and renamed, and the objects of each class."""
    if a.isdigit():
        a = f"{b.partition('@')[0]}@{a}"
    if remote := server_of(server):
        from eagleray.cli.dataset_remote import compare_remotely  # noqa: PLC0415 - see `open_registry`

        found = compare_remotely(remote, a, b)
    else:
        found = open_registry().compare(a, b).plain()
    if as_json:
        print_json(found)
    else:
        print_comparison(found)


@app.command("export")
def export(
    dataset: Ref,
    into: Annotated[Path, typer.Argument(help="A folder that is not there yet, or is empty.")],
    format: Annotated[str | None, typer.Option("--format", "-f", help="In this format instead of its own.")] = None,
    allow_loss: AllowLoss = False,
    server: MaybeServer = None,
    as_json: Json = False,
) -> None:
    """Write the files of a version into a folder, each one verified."""
    with shown_progress(hidden=as_json) as progress:
        if remote := server_of(server):
            from eagleray.cli.dataset_remote import export_remotely, remote_version  # noqa: PLC0415 - see `open_registry`

            with remote_version(remote, dataset) as found:
                version = found.read()
                other = format if format != version.format else None
                changes = {"allow_loss": allow_loss} if other else {}
                export_remotely(found, into, progress, format=other, **changes)
        else:
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
    server: MaybeServer = None,
    as_json: Json = False,
) -> None:
    """Delete a dataset, or one version of it. Its bytes go, unless another version has them too."""
    from eagleray.registry import parse_reference  # noqa: PLC0415 - see `open_registry`

    reference = parse_reference(dataset)
    with shown_progress(hidden=as_json) as progress:
        if remote := server_of(server):
            with connected(remote) as client:
                count = len(client.datasets.versions(reference.dataset))
                what = _confirmed(reference, count, yes=yes)
                client.datasets.delete(reference.dataset, reference.version, progress=progress)
        else:
            registry = open_registry()
            if reference.version is None:
                record = registry.remains(reference.dataset)
            else:
                registry.show(dataset)
                record = registry.find(reference.dataset)
            what = _confirmed(reference, registry.count_versions(record), yes=yes)
            registry.delete(record.id, version=reference.version, progress=progress)
    if as_json:
        print_json({"deleted": dataset})
    else:
        print(f"Deleted {what}.")


def _confirmed(reference: Reference, count: int, *, yes: bool) -> str:
    """What will be deleted, once whoever types has agreed. Raises ConfigError where nobody can be asked."""
    versions = f"{count} version{'' if count == 1 else 's'}"
    what = f"{reference}, with {versions}" if reference.version is None else f"{reference}, one of {versions}"
    if not yes:
        if not sys.stdin.isatty():
            raise ConfigError(f"This would delete {what}.", "Add --yes to do so.")
        typer.confirm(f"Delete {what}?", abort=True)
    return what


dataset_files.register(app)
