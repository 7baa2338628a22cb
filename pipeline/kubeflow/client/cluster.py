"""A connection to Kubeflow Pipelines: `kfp.Client` with deadlines, retries and clear errors.

By itself `kfp.Client` waits without limit for a server that does not answer, and takes the login
page of a proxy for an empty list. So each of its requests goes through `_Transport`.
"""

import contextlib
import io
import json
import os
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

import kfp.client
import tenacity
from google.auth.exceptions import GoogleAuthError
from kfp_server_api import ApiException
from urllib3 import exceptions

from errors import UserError

_IN_CLUSTER_HOST = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
_POD_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_SIGN_IN = (
    "sign in with a token ($KF_PIPELINES_TOKEN, or a file: $KF_PIPELINES_SA_TOKEN_PATH) or a "
    "session cookie ($KF_PIPELINES_COOKIE, or a file: $KF_PIPELINES_COOKIE_FILE)"
)
_FORWARD = "kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80"
_PAGE_SIZE = 100
_SHOWN = 400  # characters of a server's own message
_GO_STACK = re.compile(r"\s\S+\s+\S+\.go:\d+")  # the first function and its line


class ClusterError(UserError):
    """A request to Kubeflow Pipelines failed.

    Attributes:
      status: the HTTP status, None if there was no complete answer.
      may_pass: the same request may succeed later. The failed one may have been carried out.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str = "",
        fix: str = "",
        status: int | None = None,
        may_pass: bool = False,
    ) -> None:
        super().__init__(what, where=where, fix=fix)
        self.status = status
        self.may_pass = may_pass


@dataclass(frozen=True)
class RetryPolicy:
    """Deadlines of a request, seconds, and how often it is repeated."""

    connect: float = 10.0
    answer: float = 60.0
    attempts: int = 5
    first_pause: float = 1.0

    def __call__(self, request: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
        """Makes a request, again after failures that may pass, with growing pauses."""
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(lambda error: getattr(error, "may_pass", False)),
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=tenacity.wait_exponential(self.first_pause, max=15),
            reraise=True,
        )(request, *arguments, **more)


class Cluster:
    """A Kubeflow Pipelines installation.

    Signs in as `kfp.Client` does: with a token ($KF_PIPELINES_TOKEN, or the file that
    $KF_PIPELINES_SA_TOKEN_PATH names, which is read for each request, or the pod's own), with a
    session cookie such as Dex's ($KF_PIPELINES_COOKIE, or the file $KF_PIPELINES_COOKIE_FILE), or
    with Google's Identity-Aware Proxy ($KF_PIPELINES_IAP_OAUTH2_CLIENT_ID and its companions).

    Args:
      host: URL of the API or of the page in front of it; None takes $KF_PIPELINES_ENDPOINT or, in a
        pod, the service of the cluster.
      namespace: the user's profile on a multi-user installation; None takes the one of kfp's
        context or of the pod.
      retry: deadlines and retries. Only requests without an effect are repeated by themselves.

    Attributes:
      client: the `kfp.Client`; its methods raise ClusterError.

    Raises:
      ClusterError: no host, token or namespace is given, or the server cannot be reached.
    """

    def __init__(
        self, host: str | None, namespace: str | None = None, retry: RetryPolicy | None = None
    ) -> None:
        self.host = _find_host(host)
        self.retry = retry or RetryPolicy()
        self.client = _connect(self.host)
        rest = self.client._run_api.api_client.rest_client  # which all of kfp's APIs share
        rest.pool_manager.connection_pool_kw["retries"] = False
        rest.request = _Transport(rest.request, self.host, self.retry)
        health = kfp.client.Client.get_kfp_healthz(self.client)
        self.namespace = namespace or self.client.get_user_namespace() or None
        if health.multi_user and self.namespace is None:
            if not _POD_NAMESPACE.exists():
                raise ClusterError(
                    "each user has a namespace", where=self.host, fix="pass --namespace N"
                )
            self.namespace = _POD_NAMESPACE.read_text().strip()

    def pages(self, list_page: Callable[..., Any], field: str, **query: Any) -> Iterator[Any]:
        """Yields the entries of all pages of a list of the namespace.

        Args:
          list_page: a method of `client`, such as `list_runs`.
          field: the attribute of its answer that has the entries.
          **query: arguments of `list_page`.
        """
        token = ""
        while True:
            page = list_page(
                page_token=token, page_size=_PAGE_SIZE, namespace=self.namespace, **query
            )
            yield from getattr(page, field) or ()
            token = page.next_page_token
            if not token:
                return

    def get(self, path: str) -> Any:
        """What a path of the API answers: parsed JSON, or the text of a log."""
        api = self.client._run_api.api_client
        return api.call_api(
            path,
            "GET",
            response_type="object",
            auth_settings=["Bearer"],
            _return_http_data_only=True,
        )

    def experiment_id(self, name: str) -> str:
        """The id of an experiment, which is created if it does not exist."""

        def create() -> Any:
            try:
                with contextlib.redirect_stdout(io.StringIO()):  # kfp prints its address
                    return self.client.create_experiment(name, namespace=self.namespace)
            except ClusterError as error:
                error.may_pass |= error.status == 409  # created by another process meanwhile
                raise

        experiment_id: str = self.retry(create).experiment_id
        return experiment_id


def equals(key: str, value: str) -> str:
    """A filter for a list: `key` is `value`, by MySQL's rules, where Ab equals aB.

    It is URL-encoded, because the backend decodes it once more than the request (`parseAPIFilter`
    of apiserver/server/list_request_util.go).
    """
    predicate = {"operation": "EQUALS", "key": key, "stringValue": value}
    return quote(json.dumps({"predicates": [predicate]}))


def one_line(text: str) -> str:
    """The text without line breaks, shortened for a message."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."


class _Client(kfp.client.Client):
    def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
        """Answers kfp's constructor, which calls this before there are deadlines."""
        return SimpleNamespace(multi_user=False)


def _connect(host: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _Client(
                host=host,
                existing_token=os.environ.get("KF_PIPELINES_TOKEN", "").strip() or None,
                cookies=_cookie(),
                credentials=_token_file(),
                ssl_ca_cert=os.environ.get("SSL_CERT_FILE"),
            )
    except (GoogleAuthError, OSError, ValueError) as error:
        raise ClusterError(
            f"cannot sign in: {type(error).__name__}: {one_line(str(error))}",
            where=host,
            fix="check the files that $KF_PIPELINES_... name, and those in ~/.config/kfp",
        ) from None


def _find_host(option: str | None) -> str:
    host = option or os.environ.get("KF_PIPELINES_ENDPOINT", "")
    if not host and "KUBERNETES_SERVICE_HOST" in os.environ:
        host = _IN_CLUSTER_HOST
    example = f"http://localhost:8080 after {_FORWARD}"
    if not host:
        raise ClusterError(
            "no host is given",
            where="--host",
            fix=f"pass --host or set $KF_PIPELINES_ENDPOINT, such as {example}",
        )
    host = host if "://" in host else f"https://{host}"
    try:
        parts = urlsplit(host)
        valid = parts.scheme in ("http", "https") and parts.hostname and "@" not in parts.netloc
    except ValueError:
        valid = False
    if not valid:  # not shown, since it may hold a password
        raise ClusterError(
            "expected an http or https address without a password",
            where="--host",
            fix=f"pass {example}",
        )
    return host.rstrip("/")


def _cookie() -> str | None:
    file = os.environ.get("KF_PIPELINES_COOKIE_FILE")
    text = os.environ.get("KF_PIPELINES_COOKIE") or (Path(file).read_text() if file else "")
    return text.strip() or None


def _token_file() -> Any:
    named = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH")
    if named:
        Path(named).read_text()  # fails here rather than at the first request
    if named or _POD_TOKEN.exists():
        return kfp.client.ServiceAccountTokenVolumeCredentials(named)
    return None


class _Transport:
    """Makes the requests of a `kfp.Client`: with deadlines, and with a ClusterError for a failure.

    A GET request is repeated after failures that may pass.
    """

    def __init__(self, send: Callable[..., Any], host: str, retry: RetryPolicy) -> None:
        self._send, self._host, self._retry = send, host, retry

    def __call__(self, method: str, url: str, **arguments: Any) -> Any:
        arguments["_request_timeout"] = (self._retry.connect, self._retry.answer)
        if method == "GET":
            return self._retry(self._request, method, url, **arguments)
        return self._request(method, url, **arguments)

    def _request(self, method: str, url: str, **arguments: Any) -> Any:
        try:
            response = self._send(method, url, **arguments)
        except ApiException as error:
            raise self._refused(error, method) from None
        except exceptions.HTTPError as error:
            raise self._unreachable(error) from None
        except ValueError:  # its text may hold a secret
            raise ClusterError(
                "no request can carry this address, token or cookie",
                where=self._host,
                fix="each has to be one line of plain characters",
            ) from None
        kind = (response.getheader("Content-Type") or "").lower()
        if url.endswith("/log") and "text/plain" in kind:
            return response
        if "json" not in kind:
            raise ClusterError(
                "the answer is a page, most often a login page, and not the API's",
                where=self._host,
                fix=f"{_SIGN_IN}; the API may also be below another path, such as /pipeline",
            )
        try:
            json.loads(response.data)
        except ValueError:
            raise ClusterError(
                "the answer is incomplete", where=self._host, may_pass=True
            ) from None
        return response

    def _refused(self, error: ApiException, method: str) -> ClusterError:
        message = _server_message(error.body)
        if error.status == 0:  # as kfp_server_api reports a failure of TLS
            what, fix = one_line(str(error.reason)), "$SSL_CERT_FILE names certificates to trust"
            return ClusterError(f"no secure connection: {what}", where=self._host, fix=fix)
        fix = {401: _SIGN_IN, 403: "check that --namespace is yours"}.get(error.status, "")
        if error.status == 404 and message.lower() in ("", "not found"):
            fix = f"the API may be below another path, such as {self._host}/pipeline"
        # The backend answers 500 to a spec that it refuses.
        passing = error.status in (429, 502, 503, 504) or (error.status == 500 and method == "GET")
        return ClusterError(
            f"the server answered {error.status} {error.reason}: {message}".removesuffix(": "),
            where=self._host,
            fix=fix,
            status=error.status,
            may_pass=passing,
        )

    def _unreachable(self, error: exceptions.HTTPError) -> ClusterError:
        match error:
            case exceptions.NewConnectionError():
                reason = str(error).split(": ")[-1].split("] ")[-1]  # without [Errno 111]
                fix = f"check the address, and that the port is forwarded ({_FORWARD})"
                what = f"no connection: {reason}"
                return ClusterError(what, where=self._host, fix=fix, may_pass=True)
            case exceptions.ConnectTimeoutError():
                what = f"no connection within {self._retry.connect:g} s"
            case exceptions.TimeoutError():
                what = f"no answer within {self._retry.answer:g} s"
            case _:
                what = f"the connection ended before the answer ({type(error).__name__})"
        return ClusterError(what, where=self._host, may_pass=True)


def _server_message(body: bytes | str | None) -> str:
    try:
        fields = json.loads(body or b"")
        text = str(fields.get("error") or fields.get("message") or "")
    except (ValueError, AttributeError):
        return ""
    return one_line(_GO_STACK.split(text, 1)[0])
