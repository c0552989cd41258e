"""Figures for Prometheus: of this replica's requests, and of all jobs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.types import Scope

from eagleray import __version__
from eagleray.control.queries import Queries

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Meter:
    """The registry of one replica. What is shared by all is read from the database when it is asked for."""

    def __init__(self, queries: Queries) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "eagleray_http_requests", "Requests.", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "eagleray_http_request_seconds", "Time until an answer began.", ["method", "route"],
            buckets=SECONDS, registry=self.registry,
        )  # fmt: skip
        self.streams = Gauge("eagleray_http_streams", "Open event streams.", registry=self.registry)
        Gauge("eagleray_info", "The release.", ["version"], registry=self.registry).labels(__version__).set(1)
        self.registry.register(_Jobs(queries))

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        # The route's template, never the address that was asked for: a scanner would make a series of each.
        route = getattr(scope.get("route"), "path", "none")
        method = scope.get("method", "WEBSOCKET")
        method = method if method in METHODS or method == "WEBSOCKET" else "OTHER"
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class _Jobs(Collector):
    def __init__(self, queries: Queries) -> None:
        self._queries = queries

    def describe(self) -> list[Metric]:
        # Without it the registry would collect, and so read the database, when this is registered.
        return []

    def collect(self) -> Iterator[Metric]:
        counts: dict[str, Any] = self._queries.counts()
        jobs = GaugeMetricFamily("eagleray_jobs", "Jobs.", labels=["phase", "framework"])
        for (phase, framework), count in sorted(counts["jobs"].items()):
            jobs.add_metric([str(phase), framework], count)
        yield jobs
        attempts = GaugeMetricFamily("eagleray_attempts_ended", "Attempts that have ended.", labels=["outcome"])
        for outcome, count in sorted(counts["attempts"].items()):
            attempts.add_metric([str(outcome)], count)
        yield attempts
        yield GaugeMetricFamily("eagleray_jobs_queued", "Jobs that wait.", value=counts["queued"])
        oldest = counts["oldest_queued_at"]
        since = (datetime.now(UTC) - oldest).total_seconds() if oldest else 0.0
        yield GaugeMetricFamily("eagleray_queue_oldest_seconds", "How long the oldest of them has waited.", value=since)
        yield GaugeMetricFamily("eagleray_scraped_at_seconds", "When these were read.", value=time.time())
