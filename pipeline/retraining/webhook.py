"""Tells a webhook, Slack's or another, what came of a run."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

ADDRESS_VARIABLE = "RETRAIN_WEBHOOK_URL"


@dataclass(frozen=True)
class RunReport:
    """What came of a run, or of a look whether there was need for one.

    Attributes:
      outcome: `pushed`, `not blessed` or `failed`; locally also `nothing to do`, `not started`,
        where `reason` is what kept it from that, and `stopped` by a signal; on a cluster, where it
        is not known why, `not pushed` in place of `not blessed`.
      reason: why there was a run, or why there was none.
      span: of the data; None where it is not known.
      run: its id; None when there was none, or it ended before it was recorded.
      version: that is served now; None for none.
      fid: of the run's generator; None when it was not measured or is not known.
      failed: names of the metrics that kept the generator from being blessed.
      seconds: it took; None where it is not known.
      quarantined: spans that were found unfit by it.
      error: what failed and why; "" for nothing, or where it is not known.
    """

    outcome: str
    reason: str
    span: int | None = None
    run: str | None = None
    version: int | None = None
    fid: float | None = None
    failed: list[str] = field(default_factory=list)
    seconds: float | None = None
    quarantined: list[int] = field(default_factory=list)
    error: str = ""

    def as_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))


def notify(environ: Mapping[str, str], report: RunReport) -> None:
    """Posts a report to `RETRAIN_WEBHOOK_URL`, if it is set, in a form that Slack reads too.

    Raises nothing, for the run is done.
    """
    address = environ.get(ADDRESS_VARIABLE)
    if not address:
        return
    text = f"MNIST GAN: {report.outcome} ({report.reason})"
    if report.fid is not None:
        text += f", FID {report.fid:.3f}"
    if report.failed:
        text += f", failed {', '.join(report.failed)}"
    if report.quarantined:
        text += f", quarantined span {', '.join(map(str, report.quarantined))}"
    content = {"text": text, **asdict(report)}
    if report.error:
        text += f". {report.error}"
    content = {"text": text, **asdict(report)}
    # Only where there is somebody to tell: it takes a quarter of a second to load.
    import httpx
    import tenacity

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(httpx.HTTPError),
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_exponential(multiplier=0.5),
        reraise=True,
    )
    try:
        retrying(lambda: httpx.post(address, json=content, timeout=10).raise_for_status())
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # The address is a secret.
        print(f"Delivery to the webhook in {ADDRESS_VARIABLE} failed: {type(error).__name__}")
