"""Tells a webhook, Slack's or another, what came of a run."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import httpx
import tenacity

ADDRESS_VARIABLE = "RETRAIN_WEBHOOK_URL"


@dataclass(frozen=True)
class RunReport:
    """What came of a run, or of a look whether there was need for one.

    Attributes:
      outcome: `pushed`, `not blessed` or `failed`; locally also `nothing to do`; on a cluster,
        where it is not known why, `not pushed` in place of `not blessed`.
      reason: why there was a run, or why there was none.
      span: of the data; None where it is not known.
      run: its id; None when there was none, or it ended before it was recorded.
      version: that is served now; None for none.
      fid: of the run's generator; None when it was not measured or is not known.
      failed: the figures that kept the generator from being blessed.
      seconds: it took; None where it is not known.
    """

    outcome: str
    reason: str
    span: int | None
    run: str | None
    version: int | None
    fid: float | None
    failed: list[str]
    seconds: float | None

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
    try:
        _post(address, {"text": text, **asdict(report)})
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        # The address is a secret.
        print(f"The webhook in {ADDRESS_VARIABLE} was not told: {type(error).__name__}")


@tenacity.retry(
    retry=tenacity.retry_if_exception_type(httpx.HTTPError),
    stop=tenacity.stop_after_attempt(3),
    wait=tenacity.wait_exponential(multiplier=0.5),
    reraise=True,
)
def _post(address: str, content: Mapping[str, object]) -> None:
    httpx.post(address, json=content, timeout=10).raise_for_status()
