"""Tells a webhook, Slack's or another, what came of a run."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pydantic import SecretStr

from errors import UserError, mask_secrets
from pipeline.side_work import run_aside

ADDRESS_VARIABLE = "RETRAIN_WEBHOOK_URL"
DEADLINE_SECONDS = 30.0
_MOST_CHARACTERS, _MOST_ITEMS = 2000, 100  # of a text, of a list


class DeliveryError(UserError):
    """The webhook did not accept a report."""


@dataclass(frozen=True)
class RunReport:
    """What came of a run, or of a look whether there was need for one.

    Attributes:
      outcome: `pushed`, `not blessed` or `failed`; locally also `nothing to do`, `not started`,
        where `reason` is what kept it from that, and `stopped` by a signal; on a cluster, where it
        is not known why, `not pushed` in place of `not blessed`. Of a verification: `as blessed`,
        `worse`, `no answer` or `not started`.
      reason: why there was a run, or why there was none.
      span: of the data; None where it is not known.
      run: its id; None when there was none, or it ended before it was recorded.
      version: that is served now, or should be; None for none.
      fid: of the run's generator, or of the images that were verified; None when it was not
        measured or is not known.
      failed: names of the metrics that kept the generator from being blessed, or of what is not
        as it was blessed.
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

    def content(self) -> dict[str, Any]:
        """The attributes as JSON has them: numbers are finite or None, texts and lists are cut."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def as_json(self) -> str:
        """One line."""
        return json.dumps(self.content())


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):  # a file's name may hold bytes that are not UTF-8
        return mask_secrets(value.encode(errors="replace").decode()[:_MOST_CHARACTERS])
    return value[:_MOST_ITEMS] if isinstance(value, list) else value


def notify(environ: Mapping[str, str], report: RunReport) -> None:
    """Posts a report to `RETRAIN_WEBHOOK_URL`, if it is set, in a form that Slack reads too.

    Raises nothing and takes at most `DEADLINE_SECONDS`.
    """
    if not environ.get(ADDRESS_VARIABLE):
        return
    address = SecretStr(environ[ADDRESS_VARIABLE])
    content = report.content()
    body = json.dumps({"text": _text(content), **content}).encode()
    failure = f"webhook in {ADDRESS_VARIABLE}: delivery failed"
    run_aside(failure, lambda: _deliver(address, body), DEADLINE_SECONDS)


def _text(content: dict[str, Any]) -> str:
    text = f"MNIST GAN: {content['outcome']} ({content['reason']})"
    if content["fid"] is not None:
        text += f", FID {content['fid']:.3f}"
    if content["failed"]:
        text += f", failed {', '.join(content['failed'])}"
    if content["quarantined"]:
        text += f", quarantined span {', '.join(map(str, content['quarantined']))}"
    return f"{text}. {content['error']}" if content["error"] else text


def _deliver(address: SecretStr, body: bytes) -> None:
    """Posts a body and leaves the answer's body unread.

    Raises:
      DeliveryError: the address is not valid, or three attempts got no answer of success.
    """
    # Only where there is somebody to tell: it takes a quarter of a second to load.
    import httpx
    import tenacity

    def post() -> None:
        headers = {"Content-Type": "application/json"}
        url = address.get_secret_value()
        with httpx.stream("POST", url, content=body, headers=headers, timeout=10) as response:
            response.raise_for_status()

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(httpx.HTTPError),
        stop=tenacity.stop_after_attempt(3),
        wait=tenacity.wait_exponential(multiplier=0.5),
        reraise=True,
    )
    try:
        retrying(post)
    except httpx.HTTPStatusError as error:
        raise DeliveryError(f"HTTP status {error.response.status_code}") from None
    except Exception as error:  # URLs, proxies, TLS: each raises its own, with the address in it
        raise DeliveryError(_without(address.get_secret_value(), error)) from None


def _without(address: str, error: Exception) -> str:
    """What went wrong, without any part of an address: its path is a secret."""
    text = str(error).partition("\n")[0]
    parts = re.findall(r"\w{4,}", address.partition("://")[2] or address)
    hides = not text or any(part in text for part in parts)
    return type(error).__name__ if hides else f"{type(error).__name__}: {text}"
