"""What the service counts, as Prometheus text."""

from __future__ import annotations

import os
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 10.0)


class ServiceMetrics:
    """Counters of one process; with several workers, `PROMETHEUS_MULTIPROC_DIR` joins them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "metatl_requests", "Requests by path and status.", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "metatl_request_seconds",
            "Seconds of a request.",
            ["path"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.users = Counter("metatl_users", "Users who got a list.", registry=self.registry)
        self.reloads = Counter("metatl_reloads", "Runs that replaced one.", registry=self.registry)
        self.run_time = Gauge(
            "metatl_run_trained_timestamp_seconds",
            "When the run was written; the age of the run is the time since.",
            registry=self.registry,
            multiprocess_mode="max",
        )

    def observe(self, path: str, status: int, begin: float) -> None:
        """Count a request that began at `begin` of :func:`time.perf_counter`."""
        self.requests.labels(path, str(status)).inc()
        self.seconds.labels(path).observe(time.perf_counter() - begin)

    def text(self) -> bytes:
        """Return all numbers in the text format of Prometheus."""
        if "PROMETHEUS_MULTIPROC_DIR" in os.environ:
            joined = CollectorRegistry()
            MultiProcessCollector(joined)  # type: ignore[no-untyped-call]
            return generate_latest(joined)
        return generate_latest(self.registry)
