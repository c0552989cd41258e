"""The loop of Ray Train's controller in the driver, and how it is left."""

from __future__ import annotations

import asyncio
import threading

import pytest

from eagleray.execution.trainer import until_abandoned


def test_work_that_is_left_ends_where_it_next_waits() -> None:
    steps: list[int] = []

    async def work() -> None:
        while True:
            steps.append(1)
            await asyncio.sleep(0.05)

    abandoned = threading.Event()
    threading.Timer(0.3, abandoned.set).start()
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(until_abandoned(work(), abandoned))
    assert steps


def test_work_that_ends_by_itself_does_so_with_its_own_error() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        asyncio.run(until_abandoned(work(), threading.Event()))
