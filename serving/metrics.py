"""What Prometheus reads at `/metrics`."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from serving.watch import VersionWatch

_PREFIX = "mnist_gan_serve"
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)


class Metrics:
    """Counts requests and pictures, and looks at the versions when asked."""

    CONTENT_TYPE = CONTENT_TYPE_LATEST

    def __init__(self, versions: VersionWatch) -> None:
        """Makes a registry of its own, so that two servers in one process do not meet."""
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            f"{_PREFIX}_requests", "Predict requests, by status code", ["code"], registry=registry
        )
        self._rows = Counter(f"{_PREFIX}_pictures", "Pictures drawn", registry=registry)
        self._seconds = Histogram(
            f"{_PREFIX}_request_seconds",
            "Time of a predict request",
            buckets=_SECONDS,
            registry=registry,
        )
        for name, text, read in (
            ("version", "The version that is served, 0 for none", lambda: _served(versions)),
            ("version_swaps", "Versions loaded so far", lambda: versions.swaps),
            ("version_failures", "Versions that did not load", lambda: versions.failures),
        ):
            Gauge(f"{_PREFIX}_{name}", text, registry=registry).set_function(read)

    def count(self, code: int, rows: int, seconds: float) -> None:
        """Takes one request: its status code, the pictures drawn for it, and its time."""
        self._requests.labels(code).inc()
        self._rows.inc(rows)
        self._seconds.observe(seconds)

    def render(self) -> bytes:
        """The text."""
        return generate_latest(self._registry)


def _served(versions: VersionWatch) -> int:
    return versions.served.number if versions.served else 0
