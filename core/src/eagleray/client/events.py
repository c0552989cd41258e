"""Server-Sent Events, read as they come."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

Event = dict[str, Any]


def parse(lines: Iterable[str]) -> Iterator[Event]:
    """Events of a stream; comments, which only keep the connection alive, are left out."""
    data: list[str] = []
    for line in lines:
        if not line:
            if data:
                yield json.loads("\n".join(data))
            data = []
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
