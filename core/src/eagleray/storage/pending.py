"""What a job has saved and the store does not have yet, on the node that saved it.

    $EAGLERAY_HOME/pending/{store}-job-7/worker-1.lock              of attempt 1
                                         worker-1-000003-checkpoint/item.json, data/…

Everything that a worker uploads is laid here first, so it survives the store's outage, the worker's death and the job's
end; what the store has, goes. A live process holds its lock; what belongs to no one is finished by
`finish_pending`: the next job's, a resume's, or `eagleray storage retry`.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from eagleray.contract.errors import CheckpointError, EaglerayError, WeightsError
from eagleray.storage.checkpoints import Checkpoints
from eagleray.storage.disk import disk_errors
from eagleray.storage.store import NotFoundError, Store
from eagleray.storage.weights import keep_weights

Kind = Literal["checkpoint", "weights", "file", "record"]
_ITEM, _DATA = "item.json", "data"
_PART = ".part-"


class Item(BaseModel):
    """One thing on its way.

    Attributes:
        store: location of the store that it is for.
        prefix: the job's folder there.
        epoch: of a checkpoint; 0 for anything else.
        best: whether a checkpoint was the best so far.
        arguments: of a checkpoint those of `Checkpoints.commit`; of weights `framework` and `name`; of a file, or of
            the job's record, `key`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="strings")

    kind: Kind
    store: str
    job_id: int
    attempt: int
    prefix: str
    epoch: int = 0
    best: bool = False
    arguments: dict[str, Any]

    def __str__(self) -> str:
        if self.kind == "checkpoint":
            return f"the checkpoint of epoch {self.epoch}"
        return f"the weights {self.arguments['name']}" if self.kind == "weights" else f"the {self.kind} {self._name}"

    @property
    def _name(self) -> str:
        return str(self.arguments["key"]).removeprefix(f"{self.prefix}/")


@dataclass(frozen=True)
class PendingItem:
    """An item and the folder that it lies in."""

    path: Path
    item: Item

    @property
    def data(self) -> Path:
        return self.path / _DATA

    @property
    def size_bytes(self) -> int:
        return sum(path.stat().st_size for path in self.data.rglob("*") if path.is_file())

    def send(self, store: Store) -> None:
        """Put it into the store; again is fine.

        Raises:
            CheckpointError, WeightsError: the store has something else in its place; trying again changes nothing.
            StorageError: the store refuses; later it may not.
        """
        item = self.item
        if item.kind == "checkpoint":
            checkpoints = Checkpoints(store, item.prefix)
            checkpoints.commit(
                self.data,
                job_id=item.job_id,
                attempt=item.attempt,
                epoch=item.epoch,
                is_best=item.best,
                **item.arguments,
            )
            return
        (path,) = self.data.iterdir()
        if item.kind == "weights":
            keep_weights(store, item.arguments["framework"], item.arguments["name"], path)
        elif item.kind == "file" or _is_newer(store, item.arguments["key"], path):
            store.put_file(item.arguments["key"], path)

    def remove(self) -> None:
        # The name first, so that what is half removed is not taken for an item.
        gone = self.path.with_name(f"{_PART}{self.path.name}-{secrets.token_hex(4)}")
        with suppress(OSError):
            self.path.replace(gone)
        shutil.rmtree(gone, ignore_errors=True)


class Outbox:
    """Where one attempt lays what it saves. Closed, or with its process dead, the rest belongs to `finish_pending`."""

    def __init__(
        self,
        root: Path,
        store: str,
        job_id: int,
        attempt: int,
        prefix: str,
        owner: Literal["worker", "driver"] = "worker",
    ) -> None:
        self.folder = _job_folder(root, store, job_id)
        self._facts = {"store": store, "job_id": job_id, "attempt": attempt, "prefix": prefix}
        self._owner = f"{owner}-{attempt}"
        self._number = 0
        with disk_errors("keep checkpoints", self.folder):
            self._lock = self._locked()

    def _locked(self) -> FileLock:
        lock = FileLock(self.folder / f"{self._owner}.lock")
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
            # Whoever finished the job's last item may remove the folder at this moment.
            with suppress(FileNotFoundError):
                lock.acquire()
                return lock

    def add(
        self,
        kind: Kind,
        fill: Callable[[Path], object],
        arguments: dict[str, Any],
        *,
        epoch: int = 0,
        best: bool = False,
    ) -> PendingItem:
        """Lay down what `fill(folder)` writes, whole or not at all. What it raises is raised."""
        item = Item(kind=kind, arguments=arguments, epoch=epoch, best=best, **self._facts)
        part = self.folder / f"{_PART}{self._owner}-{secrets.token_hex(4)}"
        try:
            (part / _DATA).mkdir(parents=True)
            fill(part / _DATA)
            (part / _ITEM).write_text(item.model_dump_json(), encoding="utf-8")
            self._number += 1
            path = self.folder / f"{self._owner}-{self._number:06d}-{kind}"
            part.replace(path)
            return PendingItem(path, item)
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def close(self) -> None:
        _tidy(self.folder, self._owner)
        self._lock.release()
        _remove_if_empty(self.folder)


@dataclass
class Finished:
    """What a pass over the pending items did.

    Attributes:
        sent: now in the store.
        obsolete: not sent, since the job has gone on without them, or has something else in their place.
        left: still pending.
        reason: why, where something is left.
    """

    sent: list[Item] = field(default_factory=list)
    obsolete: list[Item] = field(default_factory=list)
    left: list[Item] = field(default_factory=list)
    reason: str = ""


def finish_pending(store: Store, root: Path, *, job_id: int | None = None) -> Finished:
    """Send what ended jobs left below `root` for `store`; what a live worker holds is its own affair.

    Args:
        root: `$EAGLERAY_HOME/pending` of this node.
        job_id: only this job's; None: all.
    """
    done = Finished()
    for folder in _job_folders(root, store.location, job_id):
        for lock_path in sorted(folder.glob("*.lock")):
            lock = FileLock(lock_path, blocking=False)
            with suppress(Timeout), lock:
                _finish_owner(store, folder, lock_path.stem, done)
                _tidy(folder, lock_path.stem)
        _remove_if_empty(folder)
    return done


def list_pending(root: Path) -> list[PendingItem]:
    """Everything that waits on this node, also what live workers are about to send."""
    return [item for folder in sorted(root.glob("*-job-*")) for item in list_items(folder)]


def list_items(folder: Path) -> list[PendingItem]:
    """The items of one job, in the order they were laid down. One that cannot be read is left out."""
    found = []
    for path in sorted(folder.glob("[dw]*-*-*-*"), key=lambda path: _order(path.name)):
        with suppress(OSError, ValidationError):
            found.append(PendingItem(path, Item.model_validate_json((path / _ITEM).read_bytes())))
    return found


def superseded(items: Sequence[PendingItem]) -> list[PendingItem]:
    """Those that need not be sent, for later ones of the same attempts replace them.

    Of checkpoints the newest and the newest best stay, of files the newest of each key.
    """
    kept: set[object] = set()
    gone = []
    for one in reversed(items):
        item = one.item
        names: set[object]
        if item.kind == "checkpoint":
            names = {"newest", "best"} if item.best else {"newest"}
        else:
            names = {(item.kind, *sorted(item.arguments.values()))}
        if names <= kept:
            gone.append(one)
        kept |= names
    return gone


def _finish_owner(store: Store, folder: Path, owner: str, done: Finished) -> None:
    items = [one for one in list_items(folder) if one.path.name.startswith(f"{owner}-")]
    for one in superseded(items):
        one.remove()
        items.remove(one)
    for number, one in enumerate(items):
        try:
            if _is_obsolete(store, one.item):
                done.obsolete.append(one.item)
            else:
                one.send(store)
                done.sent.append(one.item)
        except (CheckpointError, WeightsError) as error:
            done.obsolete.append(one.item)
            done.reason = done.reason or error.message
        except (EaglerayError, OSError) as error:
            done.left += [left.item for left in items[number:]]
            done.reason = str(error)
            return
        one.remove()


def _is_obsolete(store: Store, item: Item) -> bool:
    """Whether the job has gone on without it: a later checkpoint, or a later attempt's, is in the store."""
    if item.kind in ("weights", "record"):
        return False
    found = Checkpoints(store, item.prefix).all()
    if item.kind == "file":
        return any(other.attempt > item.attempt for other in found)
    later = [other for other in found if (other.attempt, other.epoch) > (item.attempt, item.epoch)]
    return bool(later) and (not item.best or any(other.best for other in later))


def _is_newer(store: Store, key: str, path: Path) -> bool:
    """Whether a record is to replace the one in the store: another node may have taken the job up since."""
    try:
        kept = json.loads(store.get_bytes(key))["updated_at"]
    except (NotFoundError, ValueError, KeyError, TypeError):
        return True
    return bool(json.loads(path.read_bytes())["updated_at"] > kept)


def _job_folder(root: Path, store: str, job_id: int) -> Path:
    # Several stores number their jobs from 1.
    return root / f"{hashlib.sha256(store.encode()).hexdigest()[:8]}-job-{job_id}"


def _job_folders(root: Path, store: str, job_id: int | None) -> Iterator[Path]:
    if job_id is not None:
        yield from (path for path in (_job_folder(root, store, job_id),) if path.is_dir())
        return
    yield from sorted(root.glob(_job_folder(root, store, 0).name.removesuffix("0") + "*"))


def _order(name: str) -> tuple[int, str, int]:
    parts = re.match(r"(worker|driver)-(\d+)-(\d+)-", name)
    return (int(parts[2]), parts[1], int(parts[3])) if parts else (0, "", 0)


def _tidy(folder: Path, owner: str) -> None:
    """Remove what a process began to lay down, and its lock once nothing of it is left. For the lock's holder."""
    for part in folder.glob(f"{_PART}{owner}-*"):
        shutil.rmtree(part, ignore_errors=True)
    if not any(folder.glob(f"{owner}-*")):
        (folder / f"{owner}.lock").unlink(missing_ok=True)


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):
        folder.rmdir()
