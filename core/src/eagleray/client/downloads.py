"""Files from a server, whole or not at all, and without beginning anew after a broken transfer."""

from __future__ import annotations

import os
from pathlib import Path

import httpx

from eagleray.client.errors import ServerError
from eagleray.client.transport import TRIES, Transport, pause
from eagleray.contract.errors import ConfigError


def download(http: Transport, path: str, name: str, into: Path) -> Path:
    """`path` of the server as the file `into`, or as `name` in the folder `into`; the file.

    Raises:
        ServerError: the server has no such file.
        UnreachableError: it went away and did not come back.
        ConfigError: the file cannot be written.
    """
    target = into / name if into.is_dir() else into
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(http, path, part)
        part.replace(target)
    except OSError as error:
        raise ConfigError(f"Cannot write '{target}': {error.strerror or error}.", "Name another file.") from None
    finally:
        part.unlink(missing_ok=True)
    return target


def _fetch(http: Transport, path: str, part: Path) -> None:
    version = ""
    for attempt in range(1, TRIES + 1):
        have = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={have}-", "If-Range": version} if have and version else {}
        try:
            with http.stream(path, headers=headers) as answer:
                version = answer.headers.get("ETag", "")
                with part.open("ab" if answer.status_code == 206 else "wb") as file:
                    for chunk in answer.iter_bytes():
                        file.write(chunk)
            return
        except httpx.TransportError as error:
            if attempt == TRIES:
                raise http.unreachable(error) from None
            pause(attempt)
        except ServerError as error:
            # Nothing is left to fetch where the transfer broke at the very end.
            if error.http_status == 416 and have:
                return
            raise
