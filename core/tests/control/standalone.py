"""A control plane in a process of its own, over a cluster that is a folder: both can be killed and looked at.

python standalone.py FOLDER create|tick|writes [COUNT]
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from eagleray.contract.errors import EaglerayError
from eagleray.control.commands import SYSTEM
from eagleray.control.database.opening import open_database
from eagleray.control.executor import RunState, RunStatus, Submission
from eagleray.control.fitting import Capacity, Node
from eagleray.control.plane import ControlPlane
from eagleray.control.settings import ControlSettings
from eagleray.control.specs import CheckedSpec, described
from eagleray.jobs.spec import make_spec
from eagleray.storage.local import LocalStore

SPEC = {"framework": "echo", "model_name": "echo-linear", "dataset_path": "/data", "epochs": 4}


class FolderExecutor:
    """A run is a file named after it; its lines are the times it was started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(exist_ok=True)

    def submit(self, submission: Submission) -> None:
        try:
            with (self._folder / submission.id).open("x") as file:
                file.write("started\n")
        except FileExistsError:
            return

    def stop(self, submission_id: str) -> None:
        with (self._folder / f"{submission_id}.stopped").open("a") as file:
            file.write("asked\n")

    def statuses(self, submission_ids: Sequence[str]) -> Mapping[str, RunStatus]:
        return {name: RunStatus(RunState.RUNNING) for name in submission_ids if (self._folder / name).exists()}

    def capacity(self) -> Capacity:
        return Capacity((Node("a", {"CPU": 1000.0}, {"CPU": 1000.0}),))


def check(values: Mapping[str, Any]) -> CheckedSpec:
    return described(make_spec(values))


def open_plane(folder: Path) -> ControlPlane:
    engine = open_database(os.environ.get("TEST_DATABASE_URL") or f"sqlite:///{folder / 'eagleray.db'}", folder)
    store = LocalStore(folder.parent / f"{folder.name}-store")
    settings = ControlSettings(poll_s=0.0, grace_s=0.0, max_drivers=1000, command_s=20.0)
    return ControlPlane(engine, FolderExecutor(folder.parent / f"{folder.name}-runs"), store, check, settings=settings)


def main(folder: Path, what: str, count: int) -> None:
    plane = open_plane(folder)
    plane.start(owner_timeout_s=20, dispatch=False)
    print("ready", flush=True)
    for number in range(count):
        try:
            if what == "create":
                found = plane.create_job(SYSTEM, SPEC, start=True)
                print(f"made {found['id']}", flush=True)
            elif what == "stop":
                plane.stop_job(SYSTEM, number + 1)
                print(f"stopped {number + 1}", flush=True)
        except EaglerayError as error:
            print(f"refused {type(error).__name__}", flush=True)
        if what != "create":
            plane.dispatcher.tick()
            print(f"ticked {number}", flush=True)
    plane.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 1)
