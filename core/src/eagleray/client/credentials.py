"""Which server is meant, and with which key: given, else the environment, else what `eagleray login` kept."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from eagleray.contract.errors import ConfigError
from eagleray.settings import load_settings

DEFAULT_SERVER = "http://127.0.0.1:8000"


def credentials_file() -> Path:
    return load_settings().home / "credentials.json"


def find_server(given: str | None = None) -> str:
    """The server's address: `given`, else EAGLERAY_SERVER, else the one last logged in to, else this machine's.

    Raises:
        ConfigError: it is no http address.
    """
    address = given or os.environ.get("EAGLERAY_SERVER") or _read().get("server") or DEFAULT_SERVER
    if not address.startswith(("http://", "https://")):
        raise ConfigError(f"'{address}' is no address of a server.", f"Example: {DEFAULT_SERVER}")
    return address.rstrip("/")


def find_key(server: str, given: str | None = None) -> str | None:
    """The key for `server`: `given`, else EAGLERAY_API_KEY, else the one kept for exactly this server."""
    found = given or os.environ.get("EAGLERAY_API_KEY") or _read().get("keys", {}).get(server)
    return str(found) if found else None


def keep_key(server: str, key: str) -> Path:
    """Remember a key, readable by its owner only; the file."""
    kept = _read()
    kept["server"] = server
    kept.setdefault("keys", {})[server] = key
    return _write(kept)


def forget_key(server: str) -> None:
    kept = _read()
    kept.get("keys", {}).pop(server, None)
    if kept.get("server") == server:
        kept.pop("server")
    _write(kept)


def _read() -> dict[str, Any]:
    try:
        found = json.loads(credentials_file().read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot read '{credentials_file()}': {error}.", "Remove it, then: eagleray login") from None
    return found if isinstance(found, dict) else {}


def _write(kept: dict[str, Any]) -> Path:
    path = credentials_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(kept, file, indent=1)
    temporary.replace(path)
    return path
