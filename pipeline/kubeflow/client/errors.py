"""What went wrong between here and a cluster, each in one sentence."""

import json
from typing import Any

SIGN_IN = (
    "Sign in with a token ($KF_PIPELINES_TOKEN, or a file: $KF_PIPELINES_SA_TOKEN_PATH) or a "
    "session cookie ($KF_PIPELINES_COOKIE, or a file: $KF_PIPELINES_COOKIE_FILE)"
)
_SHOWN = 400  # characters of a server's own message


class ClusterError(Exception):
    """A request that failed: what, where, and what to do.

    Attributes:
      status: the HTTP status, None when there was no whole answer.
      passing: the same request may succeed later. It may even have been carried out.
    """

    def __init__(self, message: str, *, status: int | None = None, passing: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.passing = passing


def refused(error: Any, host: str, namespace: str | None) -> ClusterError:
    """Of an answer other than 200, as a `kfp_server_api.ApiException`."""
    said = _server_message(error.body)
    at = f"{host} answered {error.status} {error.reason}{said}"
    match error.status:
        case 0:  # kfp-server-api's way of saying TLS
            message = f"no secure connection to {host}: {one_line(str(error.reason))}"
            return ClusterError(f"{message}. $SSL_CERT_FILE names the certificates to trust")
        case 401:
            return ClusterError(f"{at}. {SIGN_IN}", status=401)
        case 403:
            return ClusterError(
                f"{at}. Is the namespace ({namespace or 'none given'}) yours?", status=403
            )
        case 404 if said.lower() in ("", ": not found"):  # no entity, but the path
            return ClusterError(
                f"{at}. Is the API below another path, such as {host}/pipeline?",
                status=404,
            )
    passing = error.status == 429 or error.status >= 500
    return ClusterError(at, status=error.status, passing=passing)


def unreachable(error: Exception, host: str, connect: float, answer: float) -> ClusterError:
    """Of no answer, as a `urllib3.exceptions.HTTPError`, after so many seconds."""
    from urllib3 import exceptions

    match error:
        case exceptions.LocationValueError():
            return ClusterError(f"{host} is not a URL, such as http://localhost:8080")
        case exceptions.NewConnectionError():
            reason = str(error).split(": ")[-1].split("] ")[-1]  # less its [Errno 111]
            why = (
                f"{reason}. Is the address right, and the port forwarded "
                "(kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80)?"
            )
        case exceptions.ConnectTimeoutError():
            why = f"no connection within {connect:g} s"
        case exceptions.TimeoutError():
            why = f"no answer within {answer:g} s"
        case exceptions.MaxRetryError():
            why = "it redirects without end"
        case _:
            why = "the connection ended before the answer did"
    return ClusterError(f"cannot reach {host}: {why}", passing=True)


def _server_message(body: bytes | str | None) -> str:
    try:
        fields = json.loads(body or b"")
        said = fields.get("error") or fields.get("message") or ""
    except (ValueError, AttributeError):
        return ""
    return f": {one_line(str(said))}" if said else ""


def one_line(text: str) -> str:
    """The text without line breaks, and not too long for a message."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
