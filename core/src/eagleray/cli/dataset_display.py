"""Datasets, versions and comparisons, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from eagleray.cli.output import print_facts, print_json, print_table
from eagleray.cli.progress import size

if TYPE_CHECKING:
    from eagleray.registry import DatasetVersion, Imported


def print_imported(imported: Imported, *, as_json: bool) -> None:
    version = imported.version
    if as_json:
        print_json({"created": imported.created, "mended": imported.done, **version.model_dump(mode="json")})
        return
    print(imported)
    for sentence in imported.done:
        print(f"mended: {sentence}")
    print_version(version)
    for warning in version.warnings:
        print(f"warning: {warning}")
    print(f"next:\n  eagleray train --data {version} …\n  eagleray datasets preview {version}")


def print_version(version: DatasetVersion) -> None:
    print_facts(
        [
            ("dataset", str(version)),
            ("id", version.dataset_id),
            ("task", version.task),
            ("format", version.format),
            ("images", f"{version.num_images:,}"),
            ("annotations", f"{version.num_annotations:,}"),
            ("files", f"{version.num_files:,}, {size(version.size_bytes)}"),
            ("source", f"{version.source.type} {version.source.location}"),
            ("created", f"{version.created_at:%Y-%m-%d %H:%M:%S} UTC"),
            ("note", version.note),
            ("digest", version.digest),
        ]
    )


def print_classes(version: DatasetVersion) -> None:
    names = list(version.splits)
    rows = [
        [name, *(f"{version.splits[split].class_counts.get(name, 0):,}" for split in names)]
        for name in dict.fromkeys(version.classes)
    ]
    if rows:
        print_table(["class", *names], rows)


def print_datasets(found: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        [
            record["name"],
            str(record["version"]),
            record["task"],
            record["format"],
            f"{record['num_images']:,}",
            f"{record['num_annotations']:,}",
            str(len(record["classes"])),
            f"{datetime.fromisoformat(record['updated_at']):%Y-%m-%d %H:%M}",
        ]
        for record in found
    ]
    print_table(["name", "version", "task", "format", "images", "annotations", "classes", "updated"], rows)


def print_whole_version(version: DatasetVersion, versions: Sequence[DatasetVersion]) -> None:
    """With its splits and classes, and which versions there are."""
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


def print_comparison(found: Mapping[str, Any]) -> None:
    """A comparison as plain data."""
    a, b = found["a"], found["b"]
    if found["same"]:
        print(f"{a} and {b} are the same.")
        return
    print_facts(
        [
            ("added", f"{len(found['added']):,} files"),
            ("removed", f"{len(found['removed']):,} files"),
            ("changed", f"{len(found['changed']):,} files"),
            ("renamed", f"{len(found['renamed']):,} files"),
            ("unchanged", f"{found['unchanged']:,} files"),
            ("bytes", f"{size(found['added_bytes'])} new, {size(found['removed_bytes'])} gone"),
            ("images", "{:,} → {:,}".format(*found["images"])),
            ("annotations", "{:,} → {:,}".format(*found["annotations"])),
        ]
    )
    rows = [
        [name, f"{one:,}", f"{two:,}", f"{two - one:+,}"] for name, (one, two) in found["classes"].items() if one != two
    ]
    if rows:
        print()
        print_table(["class", a, b, "change"], rows)
    print()
    for sign, paths in (("+", found["added"]), ("-", found["removed"]), ("~", found["changed"])):
        for path in paths[:20]:
            print(f"{sign} {path}")
        if len(paths) > 20:
            print(f"{sign} … and {len(paths) - 20:,} more (--json names all)")
    for old, new in list(found["renamed"].items())[:20]:
        print(f"> {old} → {new}")
