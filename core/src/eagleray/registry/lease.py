"""One writer of a dataset at a time, on any store, without clocks that agree.

A writer takes the next number below `writers/` by a conditional put, and rewrites its file every few seconds. Another
one waits; it goes on when the file says that it was let go, when its process is seen to be dead on this machine, or
when the file has not changed for `ttl_s` by the waiting process's own clock.

So a holder knows by its own clock how long nobody can have held it for dead: for `ttl_s` from when its last word began
to be written. A process that was stopped, or a laptop that slept, asks before it goes on.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from eagleray.contract.errors import StorageError
from eagleray.storage.store import AlreadyExistsError, NotFoundError, Store

POLL_S = 0.5
# Counts what the machine slept, too: the others did not sleep.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
# Leases that this process holds: one that it could not let go by a word, on a full disk, say, is seen to be over.
_HELD: set[str] = set()


class DatasetBusyError(StorageError):
    """Another process is changing the dataset."""

    code = "dataset-busy"
    http_status = 409


class Lease:
    """Hold it with `with`; `hold()` before each change, `check()` before what another writer must not meet.

    Attributes:
        after_a_crash: the writer before this one did not end well, so it may have left files behind.
    """

    def __init__(
        self,
        store: Store,
        prefix: str,
        *,
        what: str,
        ttl_s: float = 60.0,
        wait_s: float = 3600.0,
        waiting: Callable[[str], None] = lambda holder: None,
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._what = what
        self._ttl_s = ttl_s
        self._wait_s = wait_s
        self._waiting = waiting
        self._token = 0
        self.after_a_crash = False
        self._lost = False
        self._forget = False
        self._beats = 0
        self._spoke_at = 0.0
        self._renewing = threading.Lock()
        self._nonce = secrets.token_hex(8)
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        deadline = time.monotonic() + self._wait_s
        _HELD.add(self._nonce)
        while not self._token:
            newest = self._newest()
            if newest and not self._wait_for(newest, deadline):
                continue
            last = self._read(newest) if newest else None
            self.after_a_crash = last is not None and not (last.get("over") and last.get("ended_well", True))
            self._spoke_at = _now_s()
            with suppress(AlreadyExistsError):
                self._token = self._take(newest + 1)
        for token in self._tokens():
            if token < self._token:
                self._store.delete(self._key(token))
        self._thread = threading.Thread(target=self._keep_alive, name="eagleray-dataset-lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        _HELD.discard(self._nonce)
        if self._thread is not None:
            self._thread.join()
        if not self._lost:
            with suppress(StorageError):
                if self._forget:
                    self._store.delete(self._key(self._token))
                else:
                    self._store.put_bytes(self._key(self._token), self._content(over=True, ended_well=kind is None))

    def forget(self) -> None:
        """Leave nothing behind: what was held is gone."""
        self._forget = True

    def hold(self) -> None:
        """Before each change of what is held; asks the store only after a silence.

        Raises:
            DatasetBusyError: another writer has taken over, which held this one for dead.
            StorageError: the store does not say whether that is so.
        """
        if not self._lost and self._silence_s() < self._ttl_s / 2:
            return
        with self._renewing:
            if self._lost or self._silence_s() >= self._ttl_s / 2:
                self._renew()

    def check(self) -> None:
        """As `hold`, and always asks the store."""
        with self._renewing:
            self._ask()

    def _wait_for(self, token: int, deadline: float) -> bool:
        """Whether the holder of `token` has gone; False where a newer one is there. Raises DatasetBusyError."""
        last, changed, told = None, time.monotonic(), False
        while (content := self._read(token)) is not None and not content.get("over"):
            if self._newest() != token:
                return False
            if content != last:
                last, changed = content, time.monotonic()
            if time.monotonic() - changed > self._ttl_s or _is_dead(content):
                return True
            if time.monotonic() > deadline:
                raise DatasetBusyError(f"{self._what} is being changed by {_holder(content)}.", "Try again later.")
            if not told:
                self._waiting(_holder(content))
                told = True
            time.sleep(min(POLL_S, self._ttl_s / 4))
        return True

    def _keep_alive(self) -> None:
        while not self._over.wait(self._ttl_s / 4):
            try:
                with self._renewing:
                    self._renew()
            except DatasetBusyError:
                return
            except StorageError:
                # A store that is away for a while is not a lost lease.
                continue

    def _take(self, token: int) -> int:
        """`token`, or 0 where another writer is ahead. Raises AlreadyExistsError."""
        self._store.put_bytes(self._key(token), self._content(), if_absent=True)
        if self._newest() == token:
            return token
        # Others had the number, let it go and forgot it, all after this process had looked.
        self._store.delete(self._key(token))
        return 0

    def _ask(self) -> None:
        if self._lost or self._newest() != self._token:
            raise self._taken_over()

    def _renew(self) -> None:
        """Say that this process lives, and that no other has taken over. Raises as `hold` does."""
        self._ask()
        began_at = _now_s()
        self._beats += 1
        self._store.put_bytes(self._key(self._token), self._content())
        if self._silence_s() >= self._ttl_s:
            # Whoever waits may have lost patience before it read this. Of those who want the next number, one wins.
            self._take_next()
        self._spoke_at = began_at

    def _take_next(self) -> None:
        try:
            taken = self._take(self._token + 1)
        except AlreadyExistsError:
            taken = 0
        if not taken:
            raise self._taken_over()
        self._token = taken
        self._store.delete(self._key(self._token - 1))

    def _taken_over(self) -> DatasetBusyError:
        self._lost = True
        return DatasetBusyError(
            f"Another process has taken over {self._what} while this one did not answer.", "Run the command again."
        )

    def _silence_s(self) -> float:
        return _now_s() - self._spoke_at

    def _content(self, *, over: bool = False, ended_well: bool = True) -> bytes:
        content = {**_self(), "nonce": self._nonce, "beats": self._beats, "over": over, "ended_well": ended_well}
        return json.dumps(content).encode()

    def _read(self, token: int) -> dict[str, Any] | None:
        try:
            content = json.loads(self._store.get_bytes(self._key(token)))
        except NotFoundError:
            return None
        except ValueError:
            return {}
        return content if isinstance(content, dict) else {}

    def _tokens(self) -> list[int]:
        found = (re.fullmatch(r".*/(\d{8})\.json", info.key) for info in self._store.list(self._prefix))
        return [int(match[1]) for match in found if match]

    def _newest(self) -> int:
        return max(self._tokens(), default=0)

    def _key(self, token: int) -> str:
        return f"{self._prefix}/{token:08d}.json"


def _now_s() -> float:
    return time.clock_gettime(_CLOCK)


def _self() -> dict[str, Any]:
    return {"host": socket.gethostname(), "space": _process_space(), "pid": os.getpid()}


def _process_space() -> str:
    """What tells containers that share a host's name apart; empty where the system does not say."""
    with suppress(OSError):
        return str(Path("/proc/self/ns/pid").readlink())
    return ""


def _is_dead(content: dict[str, Any]) -> bool:
    """Whether the holder ran on this machine and does no more."""
    here = _self()
    if not here["space"] or (content.get("host"), content.get("space")) != (here["host"], here["space"]):
        return False
    pid = content.get("pid")
    if pid == here["pid"]:
        return content.get("nonce") not in _HELD
    return isinstance(pid, int) and pid > 0 and not Path(f"/proc/{pid}").exists()


def _holder(content: dict[str, Any]) -> str:
    return f"process {content.get('pid')} on {content.get('host')}"
