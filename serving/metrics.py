"""What Prometheus reads at `/metrics`."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from serving.watch import VersionWatch

_PREFIX = "mnist_gan_serve"
_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)


class Metrics:
    """Counts requests and images, and reads the state of the versions on each scrape."""

    CONTENT_TYPE = CONTENT_TYPE_LATEST

    def __init__(self, versions: VersionWatch) -> None:
        """Makes a registry of its own, so that two servers in one process stay apart."""
        self._registry = registry = CollectorRegistry()
        self._requests = Counter(
            f"{_PREFIX}_requests",
            "Predict requests and requests that could not be read, by HTTP status; a gRPC request "
            "counts under the status that the REST API gives",
            ["code"],
            registry=registry,
        )
        self._rows = Counter(f"{_PREFIX}_images", "Images drawn", registry=registry)
        self._seconds = Histogram(
            f"{_PREFIX}_request_seconds",
            "Time from a request's arrival to its answer, of those that were read",
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
        """Counts a predict request.

        Args:
          code: its HTTP status.
          rows: images drawn for it.
          seconds: its time.
        """
        self._requests.labels(code).inc()
        self._rows.inc(rows)
        self._seconds.observe(seconds)

    def count_refusal(self, code: int) -> None:
        """Counts a request that was refused before it was read whole."""
        self._requests.labels(code).inc()

    def render(self) -> bytes:
        """Renders all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


def _served(versions: VersionWatch) -> int:
    return versions.served.number if versions.served else 0
