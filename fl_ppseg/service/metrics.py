"""What an operator's Prometheus is told: counts, times and sizes, nothing of images or clients."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

MEDIA_TYPE: Final = CONTENT_TYPE_LATEST
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_SIZES: Final = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The figures of one service, in a registry of its own."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        name = "fl_ppseg_{}".format
        self.requests = Counter(
            name("requests"), "Requests by route and status.", ("route", "status"), registry=own
        )
        self.seconds = Histogram(
            name("request_seconds"),
            "Time from a request's head to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=own,
        )
        self.inside = Gauge(
            name("requests_inside"), "Requests that are read, waiting or computed.", registry=own
        )
        self.batch_size = Histogram(
            name("batch_size"), "Queries that the model got at once.", buckets=_SIZES, registry=own
        )
        self.model_seconds = Histogram(
            name("model_seconds"), "Time of the model, by batch.", buckets=_SECONDS, registry=own
        )
        self.plain = Counter(
            name("refused_as_plain"), "Queries that look like plain images.", registry=own
        )

    def text(self) -> bytes:
        """All figures, as `MEDIA_TYPE` says."""
        return generate_latest(self._registry)
