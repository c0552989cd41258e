"""The control plane's database under writes that fail and writers that are killed; run as a program of its own.

python failing_writes.py FOLDER kills COUNT [SEED]       the writer is killed COUNT times at random moments
fiu-run -x python failing_writes.py FOLDER errors FIRST LAST      the Nth write or sync fails, for every N of that range

Prints one JSON object: how many commands were acknowledged, refused and lost. Lost is what must be 0. One process for
all of it, as an interpreter's start would take most of the time.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import random
import signal
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from eagleray.contract.errors import EaglerayError
from eagleray.control.commands import SYSTEM
from eagleray.control.database.opening import open_database
from eagleray.control.plane import ControlPlane
from eagleray.control.settings import ControlSettings
from eagleray.control.specs import CheckedSpec, described
from eagleray.jobs.spec import make_spec
from eagleray.storage.local import LocalStore
from eagleray.testing.cluster import SimulatedExecutor

SPEC = {"framework": "echo", "model_name": "echo-linear", "dataset_path": "/data", "epochs": 4}
# What SQLite calls to write and to make sure; libfiu's names for them.
CALLS = ("posix/io/rw/pwrite", "posix/io/rw/write", "posix/io/sync/fsync", "posix/io/sync/fdatasync")


def _check(values: Mapping[str, Any]) -> CheckedSpec:
    return described(make_spec(values))


@contextmanager
def plane_of(folder: Path) -> Iterator[ControlPlane]:
    engine = open_database(f"sqlite:///{folder / 'eagleray.db'}", folder)
    settings = ControlSettings(max_drivers=1, command_s=2.0)
    plane = ControlPlane(engine, SimulatedExecutor(), LocalStore(folder / "store"), _check, settings=settings)
    plane.start(owner_timeout_s=20, dispatch=False)
    try:
        yield plane
    finally:
        plane.close()
        engine.dispose()


def lost(folder: Path, made: set[int]) -> set[int]:
    """Acknowledged jobs that the database, opened anew, does not have; it is sound."""
    connection = sqlite3.connect(folder / "eagleray.db")
    try:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        return made - {row[0] for row in connection.execute("SELECT id FROM training_jobs")}
    finally:
        connection.close()


def kills(folder: Path, count: int, seed: int) -> dict[str, Any]:
    chance, made, gone = random.Random(seed), set[int](), set[int]()
    for _ in range(count):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reading)
            _write_for_ever(folder, writing)
        os.close(writing)
        with os.fdopen(reading) as pipe:
            made.add(int(pipe.readline()))
            time.sleep(chance.uniform(0.0, 0.2))
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            made |= {int(line) for line in pipe.read().split()}
        gone |= lost(folder, made)
    return {"kills": count, "acknowledged": len(made), "lost": sorted(gone)}


def _write_for_ever(folder: Path, pipe: int) -> None:
    with plane_of(folder) as plane:
        while True:
            os.write(pipe, b"%d\n" % plane.create_job(SYSTEM, SPEC, start=True)["id"])


def errors(folder: Path, first: int, last: int) -> dict[str, Any]:
    made, gone, refused, unfinished = set[int](), set[int](), 0, []
    failing = FailingCalls()
    for number in range(first, last + 1):
        try:
            with plane_of(folder) as plane, failing.at(number, errno.EIO if number % 2 else errno.ENOSPC):
                for _ in range(4):
                    try:
                        made.add(int(plane.create_job(SYSTEM, SPEC, start=True)["id"]))
                    except EaglerayError:
                        refused += 1
        except EaglerayError as error:
            unfinished.append(f"{number}: {type(error).__name__}")
        gone |= lost(folder, made)
    found = {"acknowledged": len(made), "refused": refused, "lost": sorted(gone)}
    return {**found, "failed": failing.failed, "unopened": unfinished}


class FailingCalls:
    """libfiu, which `fiu-run -x` has laid under this process: one call of `CALLS` fails, once."""

    def __init__(self) -> None:
        self._fiu = ctypes.CDLL("libfiu.so.0")
        kind = ctypes.CFUNCTYPE(
            ctypes.c_int,
            ctypes.c_char_p,
            ctypes.POINTER(ctypes.c_int),
            ctypes.POINTER(ctypes.c_void_p),
            ctypes.POINTER(ctypes.c_uint),
        )
        self._callback: Callable[..., Any] = kind(self._fails)
        self._left = 0
        self.failed = 0

    @contextmanager
    def at(self, number: int, code: int) -> Iterator[None]:
        """The `number`th call from now fails with `code`."""
        self._left = number
        for name in CALLS:
            self._fiu.fiu_enable_external(name.encode(), 1, ctypes.c_void_p(code), 0, self._callback)
        try:
            yield
        finally:
            for name in CALLS:
                self._fiu.fiu_disable(name.encode())

    def _fails(self, name: object, failnum: object, failinfo: object, flags: object) -> int:
        self._left -= 1
        self.failed += self._left == 0
        return int(self._left == 0)


def main(folder: Path, what: str, *numbers: str) -> None:
    given = [int(number) for number in numbers]
    found = kills(folder, given[0], given[1] if len(given) > 1 else 7) if what == "kills" else errors(folder, *given)
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
