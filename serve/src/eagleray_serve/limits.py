"""How much one key and one address may ask for."""

from __future__ import annotations

import time
from collections import OrderedDict
from threading import Lock
from typing import Literal

from pyrate_limiter import Rate, RateItem, StateBucket

from eagleray_serve.errors import TooManyRequestsError

MAX_NAMES = 20_000
Period = Literal["second", "minute"]
MILLISECONDS: dict[Period, int] = {"second": 1000, "minute": 60_000}


class RateLimit:
    """So much per name and time, in bursts of the same size; names that were long not seen are forgotten."""

    def __init__(self, what: str, limit: int, per: Period) -> None:
        self._what = what
        self._limit = limit
        self._per = per
        self._buckets: OrderedDict[str, StateBucket] = OrderedDict()
        self._lock = Lock()

    def spend(self, name: str) -> None:
        """Count one. Raises TooManyRequestsError."""
        bucket = self._bucket(name)
        item = RateItem(name, time.monotonic_ns() // 1_000_000)
        if bucket.put(item):
            return
        raise self._refusal(int(bucket.waiting(item)) / 1000)  # type: ignore[arg-type]

    def _refusal(self, retry_after_s: float) -> TooManyRequestsError:
        return TooManyRequestsError(
            f"There were more than {self._limit} {self._what} in a {self._per}.",
            "Wait as long as the header Retry-After says.",
            max(retry_after_s, 0.0),
        )

    def _bucket(self, name: str) -> StateBucket:
        with self._lock:
            bucket = self._buckets.get(name)
            if bucket is None:
                bucket = self._buckets[name] = StateBucket([Rate(self._limit, MILLISECONDS[self._per])])
                if len(self._buckets) > MAX_NAMES:
                    self._buckets.popitem(last=False)
            else:
                self._buckets.move_to_end(name)
            return bucket
