"""Reads a small YAML file from a stranger: no objects, no aliases, bounded size and depth.

Every scalar stays the text it is, so a class may be called `no`, `on` or `007`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from eagleray.contract import DatasetError
from eagleray.datasets.report import shown

MAX_BYTES = 1 << 20
MAX_DEPTH = 16
PLAIN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "seq", "map")}
# The C parser, where PyYAML was built with it, is some ten times faster; both give the same events.
LOADER: Any = getattr(yaml, "CBaseLoader", yaml.BaseLoader)

Node = str | list["Node"] | dict[str, "Node"]


def read_yaml(path: Path) -> dict[str, Node]:
    """The mapping in `path`, built of str, list and dict only.

    Raises:
        DatasetError: not there, too large, not UTF-8, not YAML, or more than plain data; names the line and column.
    """
    text = read_text(path)
    try:
        events = iter(yaml.parse(text, Loader=LOADER))
        root = build(events, next_event(events), path, 0)
        # What follows must parse, too, and be the end: a second document would be ignored in silence.
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                raise refused(path, event, "a second document")
    except yaml.YAMLError as error:
        raise broken(path, error) from None
    if not isinstance(root, dict):
        raise DatasetError(f"{shown(path)} holds no mapping.", "It must have lines such as `names: [cat, dog]`.")
    return root


def read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise DatasetError(f"{shown(path)} cannot be read: {error.strerror}.") from None
    if len(content) > MAX_BYTES:
        raise DatasetError(f"{shown(path)} is larger than {MAX_BYTES} bytes.", "Is it really a dataset's description?")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise DatasetError(f"{shown(path)}:{line} is not UTF-8.", "Save the file as UTF-8.") from None


def next_event(events: Iterator[Any]) -> Any:
    """The next event that carries content; the end of the stream where the document is empty."""
    event = next(events)
    while isinstance(event, yaml.StreamStartEvent | yaml.DocumentStartEvent):
        event = next(events)
    return event


def build(events: Iterator[Any], event: Any, path: Path, depth: int) -> Node:
    if depth > MAX_DEPTH:
        raise refused(path, event, f"nesting deeper than {MAX_DEPTH}")
    if isinstance(event, yaml.AliasEvent):
        raise refused(path, event, f"the alias *{shown(event.anchor)}")
    if isinstance(event, yaml.StreamEndEvent):
        return ""
    if event.tag is not None and event.tag not in PLAIN_TAGS:
        raise refused(path, event, f"the tag {shown(event.tag)}")
    if isinstance(event, yaml.ScalarEvent):
        return str(event.value)
    if isinstance(event, yaml.SequenceStartEvent):
        items: list[Node] = []
        while not isinstance(item := next(events), yaml.SequenceEndEvent):
            items.append(build(events, item, path, depth + 1))
        return items
    return build_mapping(events, path, depth)


def build_mapping(events: Iterator[Any], path: Path, depth: int) -> dict[str, Node]:
    mapping: dict[str, Node] = {}
    while not isinstance(event := next(events), yaml.MappingEndEvent):
        key = build(events, event, path, depth + 1)
        if not isinstance(key, str):
            raise refused(path, event, "a key that is not plain text")
        if key in mapping:
            raise refused(path, event, f"the key '{shown(key)}' a second time")
        mapping[key] = build(events, next(events), path, depth + 1)
    return mapping


def refused(path: Path, event: Any, what: str) -> DatasetError:
    mark = event.start_mark
    return DatasetError(
        f"{shown(path)}:{mark.line + 1}:{mark.column + 1} has {what}, which a dataset's description may not have.",
        "Use plain keys, texts, numbers and lists.",
    )


def broken(path: Path, error: yaml.YAMLError) -> DatasetError:
    mark = getattr(error, "problem_mark", None)
    place = f"{shown(path)}:{mark.line + 1}:{mark.column + 1}" if mark else shown(path)
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it does not parse"
    return DatasetError(f"{place} is not YAML: {shown(problem)}.", "Mend that line; indent by spaces, never tabs.")
