"""What `up` started, so that `down` ends that and nothing else."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError


class ServerState(BaseModel):
    """A running server of this machine.

    Attributes:
        mark: value of `EAGLERAY_CLUSTER` in the environment of every process of it.
        pid: of `ray start --block`.
        address: of Ray's GCS.
        temp_dir: Ray's own folder, removed at the end.
    """

    model_config = ConfigDict(extra="forbid")

    mark: str
    pid: int
    server: str
    address: str
    dashboard: str
    temp_dir: str
    started_at: str


class ServerFolder:
    """`{home}/server`."""

    def __init__(self, home: Path) -> None:
        self.path = home / "server"
        self.path.mkdir(parents=True, exist_ok=True, mode=0o700)

    @property
    def log(self) -> Path:
        return self.path / "ray.log"

    @property
    def token_file(self) -> Path:
        """The cluster's token: whoever has it can run code here. Made on first use, readable by its owner only."""
        path = self.path / "ray-token"
        if not path.exists():
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_hex(32))
        return path

    def load(self) -> ServerState | None:
        try:
            return ServerState.model_validate_json((self.path / "state.json").read_bytes())
        except (FileNotFoundError, ValidationError):
            return None

    def save(self, state: ServerState) -> None:
        temporary = self.path / "state.json.new"
        temporary.write_text(state.model_dump_json(indent=1), encoding="utf-8")
        temporary.replace(self.path / "state.json")

    def forget(self) -> None:
        (self.path / "state.json").unlink(missing_ok=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """One `up` or `down` at a time."""
        with (self.path / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
