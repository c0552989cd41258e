"""Events as they happen: one generator behind Server-Sent Events and WebSockets.

A stream keeps no queue of its own, only the number of the last event that it sent. Who reads slowly falls behind and
is served from the database; memory does not grow with readers, and no event is left out.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from eagleray.contract.errors import EaglerayError, UnknownNameError
from eagleray.control.commands import Commands
from eagleray.control.queries import Projects, Queries
from eagleray.control.views import EventView
from eagleray_serve.errors import UnavailableError
from eagleray_serve.settings import HttpSettings

logger = logging.getLogger(__name__)
BATCH = 200
RECENT = 2000
KEEP_ALIVE_S = 15.0
RETRY_S = 2.0
LONG_POLL_S = 5.0
GATHER_S = 0.02  # events come in bursts, and each wake costs every stream a look


class EventFeed:
    """The newest events, read once for all streams of this replica, and only while there is one."""

    def __init__(self, commands: Commands, queries: Queries, settings: HttpSettings) -> None:
        self._commands = commands
        self._queries = queries
        self._settings = settings
        self._recent: deque[EventView] = deque(maxlen=RECENT)
        self._floor: int | None = None  # events after this number, up to `_head`, are in `_recent`
        self._head = 0
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.listeners = 0

    def check_room(self) -> None:
        """Raises UnavailableError where there are as many streams as may be."""
        if self.listeners >= self._settings.max_streams:
            raise UnavailableError(f"There are {self.listeners} open streams already.", "Try again later.")

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        self.check_room()
        self.listeners += 1
        try:
            if self._task is None:
                self._task = asyncio.create_task(self._watch())
            yield
        finally:
            self.listeners -= 1
            if self.listeners == 0 and self._task is not None:
                self._task.cancel()
                self._task = None

    async def after(self, projects: Projects, job_id: int | None, seq: int) -> list[EventView]:
        """The next events, at most `BATCH`."""
        if self._task is not None and self._floor is not None and seq >= self._floor:
            found = []
            for event in reversed(self._recent):
                if event.seq <= seq:
                    break
                if (job_id is None or event.job_id == job_id) and (projects is None or event.project_id in projects):
                    found.append(event)
            return found[::-1][:BATCH]
        return await self.stored(projects, job_id, seq)

    async def stored(self, projects: Projects, job_id: int | None, seq: int) -> list[EventView]:
        """As `after`, from the database itself: what was committed before this call is in it."""
        return await asyncio.to_thread(self._queries.events, projects, job_id, seq, BATCH)

    async def wait(self, seen: asyncio.Event, timeout_s: float) -> None:
        """Until there is something new since `seen` was taken from `pulse`, or the time is over."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await seen.wait()

    @property
    def pulse(self) -> asyncio.Event:
        """Set when the next events arrive. Taken before reading, so that nothing falls in between."""
        return self._changed

    async def _watch(self) -> None:
        self._recent.clear()
        self._floor = None
        while True:
            try:
                await self._read()
                await self._until_news()
            except asyncio.CancelledError:
                raise
            except Exception as error:
                logger.warning("events cannot be read: %s", error)
                await asyncio.sleep(RETRY_S)

    async def _until_news(self) -> None:
        """The control plane says when there is something new; while it is away, the database is looked at by time."""
        try:
            await asyncio.to_thread(self._commands.wait_for_events, self._head, LONG_POLL_S)
            await asyncio.sleep(GATHER_S)
        except EaglerayError:
            await asyncio.sleep(self._settings.poll_s)

    async def _read(self) -> None:
        if self._floor is None:
            self._floor = self._head = await asyncio.to_thread(self._queries.newest_seq)
            self._wake()
        while batch := await asyncio.to_thread(self._queries.events, None, None, self._head, BATCH):
            for event in batch:
                if len(self._recent) == RECENT:
                    self._floor = self._recent[0].seq
                self._recent.append(event)
            self._head = batch[-1].seq
            self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class EventStream:
    """One reader's way through the events.

    Args:
        allowed: whether the reader may still read; asked again and again.
        job_id: of this job only, and to its end; None: of all jobs in `projects`, without end.
        after: number of the last event that the reader has.

    Attributes:
        refused: it ended because the reader may not read any more.
    """

    def __init__(
        self,
        feed: EventFeed,
        queries: Queries,
        settings: HttpSettings,
        projects: Projects,
        allowed: Callable[[], Awaitable[bool]],
        job_id: int | None,
        after: int,
    ) -> None:
        self._feed = feed
        self._queries = queries
        self._settings = settings
        self._projects = projects
        self._allowed = allowed
        self._job_id = job_id
        self.seq = after
        self.refused = False
        self._ask_again_at = time.monotonic() + KEEP_ALIVE_S

    async def events(self) -> AsyncGenerator[EventView | None, None]:
        """Events in their order; None at once when it stands, and where there was nothing for a while."""
        ends_at = time.monotonic() + self._settings.stream_s
        async with self._feed.listening():
            yield None
            check_end, over = self._job_id is not None, False
            while time.monotonic() < ends_at and not await self._is_refused():
                pulse = self._feed.pulse
                # Asked before reading: the events up to the job's end are then among those that are read next.
                over = over or (check_end and await self._is_over())
                check_end = False
                # The feed lags behind the database, which is where the job was seen to be over.
                read = self._feed.stored if over else self._feed.after
                for event in (batch := await read(self._projects, self._job_id, self.seq)):
                    check_end = check_end or (self._job_id is not None and event.type in ENDING)
                    self.seq = event.seq
                    yield event
                if batch:
                    continue
                if over:
                    return
                started = time.monotonic()
                await self._feed.wait(pulse, min(KEEP_ALIVE_S, ends_at - started))
                if time.monotonic() - started >= KEEP_ALIVE_S:
                    check_end = self._job_id is not None
                    yield None

    async def _is_refused(self) -> bool:
        """By time and not only when it is idle: a busy stream may never be."""
        if time.monotonic() >= self._ask_again_at:
            self._ask_again_at = time.monotonic() + KEEP_ALIVE_S
            self.refused = not await self._allowed()
        return self.refused

    async def _is_over(self) -> bool:
        assert self._job_id is not None
        try:
            job = await asyncio.to_thread(self._queries.get_job, self._job_id, self._projects)
        except UnknownNameError:  # deleted meanwhile
            return True
        return job.phase.is_terminal


# Types of events after which a job may be over.
ENDING = frozenset({"phase", "deleted"})
