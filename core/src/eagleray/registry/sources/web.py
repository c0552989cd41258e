"""Fetches one file from an address, goes on where a broken connection ended, and never fetches more than is allowed."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import httpx

from eagleray.contract.errors import DatasetError
from eagleray.registry.limits import Limits
from eagleray.registry.progress import Progress
from eagleray.registry.sources.address import HINT, HostRules, PinnedTransport, described
from eagleray.registry.sources.budget import Budget
from eagleray.storage.disk import disk_errors

MAX_REDIRECTS = 5
# Failures in a row without a new byte.
TRIES = 5
TIMEOUT = httpx.Timeout(connect=10.0, read=30.0, write=10.0, pool=10.0)
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class Interrupted(Exception):
    """The connection broke, or the host asked to come again; `after_s` is its wish, or None."""

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


@dataclass
class _State:
    """What is known of the file so far."""

    done: int = 0
    total: int | None = None
    validator: str = ""


class Download:
    """One file from `address` into a new file.

    Args:
        sleep: how to wait between tries; tests need not.
    """

    def __init__(
        self,
        address: str,
        rules: HostRules,
        limits: Limits,
        progress: Progress,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        try:
            self._url = httpx.URL(address)
        except (httpx.InvalidURL, ValueError):
            raise DatasetError("That is not an address.", HINT) from None
        self._what = described(self._url)
        self._rules = rules
        self._limits = limits
        self._progress = progress
        self._sleep = sleep
        self._state = _State()

    def run(self, into: Path) -> None:
        """Raises DatasetError, or StorageError where the disk is full."""
        self._rules.check(self._url)
        deadline = time.monotonic() + self._limits.max_seconds
        with (
            httpx.Client(
                transport=PinnedTransport(self._rules),
                follow_redirects=True,
                max_redirects=MAX_REDIRECTS,
                timeout=TIMEOUT,
                trust_env=False,
            ) as client,
            disk_errors(f"download {self._what}", into.parent),
            into.open("xb") as file,
        ):
            failures = 0
            while True:
                before = self._state.done
                try:
                    self._fetch(client, file, deadline, Budget(self._what, into.parent, self._limits))
                    return
                except (httpx.TransportError, Interrupted) as error:
                    failures = 1 if self._state.done > before else failures + 1
                    self._wait(error, failures, deadline)
                except httpx.TooManyRedirects:
                    raise DatasetError(f"{self._what} is redirected more than {MAX_REDIRECTS} times.", HINT) from None
                except httpx.HTTPError as error:
                    raise DatasetError(f"{self._what} cannot be fetched: {error}.", HINT) from None

    def _fetch(self, client: httpx.Client, file: BinaryIO, deadline: float, budget: Budget) -> None:
        # Without compression: a small answer must not become a large one, and a range counts packed bytes.
        headers = {"Accept-Encoding": "identity", "User-Agent": "eagleray"}
        if self._state.done and self._state.validator:
            headers |= {"Range": f"bytes={self._state.done}-", "If-Range": self._state.validator}
        with client.stream("GET", self._url, headers=headers) as answer:
            self._check(answer)
            if answer.status_code != 206:
                self._restart(answer, file)
            state = self._state
            if state.total is not None:
                budget.expect(state.total)
            budget.size_bytes = state.done
            for chunk in answer.iter_raw():
                if time.monotonic() > deadline:
                    raise DatasetError(
                        f"{self._what} takes longer than {self._limits.max_seconds:,.0f} s.",
                        "Download it yourself and import the file.",
                    )
                budget.count_bytes(len(chunk))
                file.write(chunk)
                state.done += len(chunk)
                self._progress("downloading", state.done, state.total)
        if state.total is not None and state.done < state.total:
            raise Interrupted(f"{state.done} of {state.total} bytes came")

    def _check(self, answer: httpx.Response) -> None:
        """Raises Interrupted where another try may help, else DatasetError; nothing where bytes will come."""
        if answer.status_code in _AGAIN:
            raise Interrupted(f"the host answered {answer.status_code}", _retry_after(answer))
        if answer.status_code == 416:
            self._state.validator = ""
            raise Interrupted("the file has changed")
        if answer.status_code not in (200, 206):
            raise DatasetError(f"{self._what} cannot be fetched: the host answered {answer.status_code}.", HINT)
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise DatasetError(f"{self._what} comes compressed though it was asked not to.", "Download it yourself.")
        if answer.status_code == 206:
            wanted = f"bytes {self._state.done}-"
            if not self._state.done or not answer.headers.get("Content-Range", "").startswith(wanted):
                self._state.validator = ""
                raise Interrupted("the host sent another part than was asked for")

    def _restart(self, answer: httpx.Response, file: BinaryIO) -> None:
        file.seek(0)
        file.truncate()
        length = answer.headers.get("Content-Length", "")
        etag = answer.headers.get("ETag", "")
        # A weak one does not say that the bytes are the same.
        validator = answer.headers.get("Last-Modified", "") if not etag or etag.startswith("W/") else etag
        self._state = _State(0, int(length) if length.isdigit() else None, validator)

    def _wait(self, error: Exception, failures: int, deadline: float) -> None:
        wait_s = getattr(error, "after_s", None) or min(30.0, 0.5 * 2**failures) * random.uniform(0.5, 1)
        if failures >= TRIES or time.monotonic() + wait_s > deadline:
            reason = str(error) or type(error).__name__
            raise DatasetError(
                f"{self._what} cannot be fetched after {failures} tries: {reason}.", "Try again later."
            ) from None
        self._sleep(wait_s)


def _retry_after(answer: httpx.Response) -> float | None:
    text = answer.headers.get("Retry-After", "")
    return min(float(text), 120.0) if text.isdigit() else None
