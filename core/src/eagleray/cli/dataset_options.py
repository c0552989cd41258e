"""What the commands of `eagleray datasets` have in common: their options, and what a DATASET stands for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from eagleray.cli.progress import shown_progress
from eagleray.contract.errors import ConfigError
from eagleray.settings import load_settings

if TYPE_CHECKING:
    from eagleray.datasets import Edit
    from eagleray.registry import DatasetRegistry, DatasetVersion

Json = Annotated[bool, typer.Option("--json", help="One JSON document, for machines.")]
Task = Annotated[
    str | None, typer.Option("--task", "-t", help="For example object-detection; default: what the labels hold.")
]
Format = Annotated[
    str | None, typer.Option("--format", "-f", help="For example yolo, coco or voc; default: what is recognised.")
]
Ref = Annotated[str, typer.Argument(metavar="DATASET", help="NAME, NAME@VERSION, or an id instead of the name.")]


Place = Annotated[str, typer.Argument(metavar="DATASET", help="A folder, or NAME, NAME@VERSION or an id.")]
Validation = Annotated[
    float | None, typer.Option("--validation", help="Make a validation split of this part of train, 0.2 say.")
]
Classes = Annotated[list[str] | None, typer.Option("--class", help="Keep this class; give it for each one.")]
Rename = Annotated[
    list[str] | None, typer.Option("--rename", metavar="OLD=NEW", help="Rename a class; two may become one.")
]
Splits = Annotated[
    list[str] | None, typer.Option("--split", metavar="OLD=NEW", help="Another split; nothing behind = leaves it out.")
]
AllowLoss = Annotated[bool, typer.Option("--allow-loss", help="Go on where the target cannot hold all.")]


def open_registry() -> DatasetRegistry:
    # Listing plugins must not pay for the formats, nor for a client of S3.
    from eagleray.registry import DatasetRegistry  # noqa: PLC0415
    from eagleray.storage.opening import open_store  # noqa: PLC0415

    settings = load_settings()
    return DatasetRegistry(open_store(settings.storage), settings)


def is_here(dataset: str) -> bool:
    """Whether a path of this machine is meant, with which no server has to do."""
    return Path(dataset).expanduser().exists()


def version_of(registry: DatasetRegistry, text: str) -> DatasetVersion | None:
    """The version that `text` names; None where it is a path."""
    if "://" in text:
        raise ConfigError(f"'{text}' is an address.", f"Import it first: eagleray datasets import {text}")
    found = registry.resolve(text)
    return None if isinstance(found, Path) else found


@contextmanager
def folder_of(registry: DatasetRegistry, text: str, version: DatasetVersion | None, *, hidden: bool) -> Iterator[Path]:
    if version is None:
        yield Path(text).expanduser()
        return
    with (
        shown_progress(hidden=hidden) as progress,
        registry.copy_of(f"{version.dataset_id}@{version.number}", progress=progress) as (folder, _),
    ):
        yield folder


def edit_of(
    validation: float | None, classes: list[str] | None, rename: list[str] | None, splits: list[str] | None
) -> Edit | None:
    if validation is None and not classes and not rename and not splits:
        return None
    from eagleray.datasets import Edit, split_validation  # noqa: PLC0415 - see `open_registry`

    return Edit(
        keep=tuple(classes) if classes else None,
        rename=_pairs("--rename", rename),
        splits=_pairs("--split", splits),
        validation=split_validation(validation) if validation is not None else None,
    )


def _pairs(flag: str, texts: list[str] | None) -> dict[str, str]:
    pairs = {}
    for text in texts or ():
        old, equals, new = text.partition("=")
        if not equals or not old:
            raise ConfigError(f"{flag} '{text}' is not OLD=NEW.", f"Example: {flag} one=two")
        pairs[old] = new
    return pairs
