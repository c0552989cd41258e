"""Work that takes longer than a request: it runs in a thread of the replica that took it, and says in the store how far
it is, so that any replica can tell."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from pydantic import BaseModel, Field, ValidationError

from eagleray.contract.errors import EaglerayError, StorageError
from eagleray.registry import Progress
from eagleray.storage.store import NotFoundError, Store

logger = logging.getLogger(__name__)
SAVE_S = 1.5
# A replica that has taken work writes its state at least so often, unless it has died.
SILENCE = timedelta(minutes=5)


class WorkState(StrEnum):
    """`lost`: the replica that ran it has ended; the same request again starts over and stores nothing twice."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    LOST = "lost"

    @property
    def is_terminal(self) -> bool:
        return self in (WorkState.DONE, WorkState.FAILED, WorkState.LOST)


class WorkView(BaseModel):
    """How far work is.

    Attributes:
        stage: what is being done, `downloading` for example; `done` of `total` (null: unknown) bytes or files of it.
        error: code, message and hint, where it has failed.
    """

    id: str
    created_by: str
    state: WorkState = WorkState.WAITING
    stage: str = ""
    done: int = 0
    total: int | None = None
    error: dict[str, str] | None = None
    created_at: datetime
    updated_at: datetime
    links: dict[str, str] = Field(default_factory=dict)

    def hidden(self) -> dict[str, str]:
        """What is stored with it and told to nobody."""
        return {}


View = TypeVar("View", bound=WorkView)


class Background:
    """The work of one kind: what this replica runs, and the states of all replicas' below `prefix` of the store.

    Args:
        threads: so many at a time; the others wait.
    """

    def __init__(self, store: Store, prefix: str, *, threads: int) -> None:
        self._store = store
        self._prefix = prefix
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="eagleray-work")
        self._live: dict[str, WorkView] = {}
        self._lock = threading.Lock()
        self._saving = threading.Lock()
        self._beat: threading.Thread | None = None

    def begin(
        self, view: View, do: Callable[[View, Progress], None], *, again: bool = False
    ) -> Future[Exception | None] | None:
        """Have `do` done, which writes into `view` what it led to.

        Args:
            again: over what the store says of it.

        Returns:
            What it failed with, once it is over; None where this replica has it in hand already.

        Raises:
            AlreadyExistsError: the store knows such work.
        """
        with self._lock:
            if view.id in self._live:
                return None
            self._live[view.id] = view
        try:
            self._save(view, if_absent=not again)
        except BaseException:
            self._forget(view)
            raise
        self._keep_alive()
        return self._pool.submit(self._run, view, do)

    def show(self, work_id: str, kind: type[View]) -> View | None:
        """How far it is; None: there is no such work."""
        with self._lock:
            mine = self._live.get(work_id)
        if isinstance(mine, kind):
            return mine.model_copy()
        try:
            view = kind.model_validate(json.loads(self._store.get_bytes(self._key(work_id))))
        except (NotFoundError, ValidationError, ValueError):
            return None
        if not view.state.is_terminal and datetime.now(UTC) - view.updated_at > SILENCE:
            view.state = WorkState.LOST
        return view

    def sweep(self, kind: type[WorkView], keep: timedelta) -> list[str]:
        """Forget what came to an end so long ago; the ids."""
        forgotten = []
        for info in self._store.list(self._prefix):
            work_id = info.key.rpartition("/")[2].removesuffix(".json")
            view = self.show(work_id, kind)
            if view is not None and datetime.now(UTC) - view.updated_at > keep:
                self._store.delete(info.key)
                forgotten.append(work_id)
        return forgotten

    def _run(self, view: View, do: Callable[[View, Progress], None]) -> Exception | None:
        view.state = WorkState.RUNNING
        failed: Exception | None = None
        try:
            do(view, self._progress_of(view))
            view.state = WorkState.DONE
        except EaglerayError as error:
            failed = error
            view.state = WorkState.FAILED
            view.error = {"code": error.code, "message": error.message, "hint": error.hint}
        except Exception as error:
            failed = error
            logger.exception("%s %s failed", self._prefix, view.id)
            view.state = WorkState.FAILED
            view.error = {"code": "internal", "message": "Something unexpected went wrong.", "hint": "Try again."}
        finally:
            self._save_quietly(view)
            self._forget(view)
        return failed

    def _progress_of(self, view: WorkView) -> Progress:
        saved = time.monotonic()

        def progress(stage: str, done: int, total: int | None) -> None:
            nonlocal saved
            changed = stage != view.stage
            view.stage, view.done, view.total = stage, done, total
            if changed or time.monotonic() - saved > SAVE_S:
                saved = time.monotonic()
                self._save_quietly(view)

        return progress

    def _keep_alive(self) -> None:
        """From the moment work is taken: what waits for a thread is not lost."""
        with self._lock:
            if self._beat is None:
                self._beat = threading.Thread(target=self._say_so, name="eagleray-work-beat", daemon=True)
                self._beat.start()

    def _say_so(self) -> None:
        while True:
            time.sleep(SILENCE.total_seconds() / 4)
            with self._lock:
                live = list(self._live.values())
                if not live:
                    self._beat = None
                    return
            for view in live:
                self._save_quietly(view)

    def _forget(self, view: WorkView) -> None:
        with self._lock:
            self._live.pop(view.id, None)

    def _save_quietly(self, view: WorkView) -> None:
        try:
            self._save(view)
        except StorageError as error:
            logger.warning("%s %s: its state was not stored: %s", self._prefix, view.id, error)

    def _save(self, view: WorkView, *, if_absent: bool = False) -> None:
        # One at a time, so that an older state never lands on a newer one.
        with self._saving:
            view.updated_at = datetime.now(UTC)
            content = view.model_dump(mode="json", exclude={"links"}) | view.hidden()
            self._store.put_bytes(self._key(view.id), json.dumps(content).encode(), if_absent=if_absent)

    def _key(self, work_id: str) -> str:
        return f"{self._prefix}/{work_id}.json"
