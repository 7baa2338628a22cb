"""A connection to the API of Kubeflow Pipelines (v2beta1), through the `kfp` client.

The client alone waits without limit for a server that does not answer, follows a proxy to its login
page and takes that page for an empty list, and puts answer headers into its messages. So each call
here has a time limit, each answer must be whole and JSON, and each failure is one sentence.
"""

import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote, urlsplit

import tenacity

HOST_VARIABLE = "KF_PIPELINES_ENDPOINT"
TOKEN_VARIABLE = "KF_PIPELINES_TOKEN"
TOKEN_FILE_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"
COOKIE_VARIABLE = "KF_PIPELINES_COOKIE"
COOKIE_FILE_VARIABLE = "KF_PIPELINES_COOKIE_FILE"

_IN_CLUSTER_HOST = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
_POD_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_PAGE_SIZE = 100
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


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server, seconds, and how often to ask it again."""

    connect: float = 10.0
    answer: float = 60.0
    attempts: int = 5
    first_pause: float = 1.0
    longest_pause: float = 15.0

    def retrying(self) -> tenacity.Retrying:
        """Tries again after passing failures, with growing pauses; the last failure is raised."""
        return tenacity.Retrying(
            retry=tenacity.retry_if_exception(
                lambda error: isinstance(error, ClusterError) and error.passing
            ),
            stop=tenacity.stop_after_attempt(self.attempts),
            wait=tenacity.wait_exponential(self.first_pause, self.longest_pause),
            reraise=True,
        )


class Cluster:
    """The API of one Kubeflow Pipelines installation.

    Signs in as the `kfp` client does: with a token ($KF_PIPELINES_TOKEN, or the file that
    $KF_PIPELINES_SA_TOKEN_PATH names, which is read anew for each request, or the pod's own), with
    a session cookie such as Dex's ($KF_PIPELINES_COOKIE or the file $KF_PIPELINES_COOKIE_FILE), or
    with Google's Identity-Aware Proxy ($KF_PIPELINES_IAP_OAUTH2_CLIENT_ID and its companions).

    Args:
      host: URL of the API or of the page in front of it; None takes $KF_PIPELINES_ENDPOINT or, in a
        pod, the service of the cluster.
      namespace: the user's profile on a multi-user installation.
      patience: limits and retries.

    Attributes:
      host: the URL in use.
      namespace: given, else from the `kfp` client's context or the pod; None when there is none.

    Raises:
      ClusterError: there is no host, a secret cannot be used, or the server cannot be reached.
    """

    def __init__(
        self, host: str | None, namespace: str | None = None, patience: Patience | None = None
    ) -> None:
        self.host = _host(host)
        self.namespace = namespace
        self.patience = patience or Patience()
        client = self._connect()
        # The names of the generated methods differ between kfp 2.5 and 2.16; the paths do not.
        self._api = client._run_api.api_client
        health = self.call("GET", "healthz", "V2beta1GetHealthzResponse")
        self.namespace = namespace or client.get_user_namespace() or None
        if health.multi_user and self.namespace is None:
            self.namespace = _pod_namespace()

    def _connect(self) -> Any:
        import google.auth.exceptions
        import kfp.client

        class Client(kfp.client.Client):
            def _load_config(self, *arguments: Any) -> Any:
                config = super()._load_config(*arguments)
                config.retries = False  # else urllib3 repeats requests, and logs it
                config.ssl_ca_cert = os.environ.get("SSL_CERT_FILE") or config.ssl_ca_cert
                return config

            def get_kfp_healthz(self, sleep_duration: int = 5) -> Any:
                # kfp's own asks five times with pauses, logs tracebacks, and writes what it
                # concludes into the user's home.
                return SimpleNamespace(multi_user=False)

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return Client(
                    host=self.host,
                    existing_token=_secret(TOKEN_VARIABLE),
                    cookies=_secret(COOKIE_VARIABLE, COOKIE_FILE_VARIABLE),
                    credentials=_token_file(),
                )
        except google.auth.exceptions.GoogleAuthError as error:
            raise ClusterError(f"Google's sign-in failed: {_one_line(str(error))}") from None
        except (OSError, ValueError) as error:
            raise ClusterError(
                f"the kfp client cannot be set up ({type(error).__name__}): are the files in "
                "~/.config/kfp whole?"
            ) from None

    def call(
        self,
        method: str,
        path: str,
        answer: str | None = None,
        *,
        query: Mapping[str, Any] | None = None,
        body: Any = None,
    ) -> Any:
        """Makes one request, once.

        Args:
          method: GET, POST or DELETE.
          path: below /apis/v2beta1/, quoted.
          answer: name of the model that is expected, None where the answer does not matter.
          query: parameters; what is None is left out.
          body: a model.

        Returns:
          A model of `kfp_server_api`, None without `answer`.

        Raises:
          ClusterError: it failed, or what came back is not a whole answer.
        """
        given = [(key, value) for key, value in (query or {}).items() if value is not None]
        content = self._content(method, path, given, body)
        if answer is None:
            return None
        try:
            return self._api.deserialize(SimpleNamespace(data=content), answer)
        except (TypeError, ValueError, AttributeError) as error:
            raise self._not_understood(type(error).__name__) from None

    def read(
        self,
        path: str,
        answer: str,
        query: Mapping[str, Any] | None = None,
        patience: Patience | None = None,
    ) -> Any:
        """Makes a GET request, again after passing failures; see `call`."""
        retrying = (patience or self.patience).retrying()
        return retrying(self.call, "GET", path, answer, query=query)

    def pages(self, path: str, answer: str, field: str, **query: Any) -> Iterator[Any]:
        """The entries of a list, of all its pages, within the namespace.

        Args:
          path: see `call`.
          answer: name of the model of a page.
          field: where the entries are in it.
          **query: see `call`.
        """
        query |= {"namespace": self.namespace, "page_size": _PAGE_SIZE}
        token: str | None = None
        while True:
            page = self.read(path, answer, {**query, "page_token": token})
            yield from getattr(page, field) or ()
            token = page.next_page_token
            if not token:
                return

    def experiment_id(self, name: str) -> str:
        """The experiment of a name, made where there is none.

        Raises:
          ClusterError: it can be neither found nor made.
        """
        import kfp_server_api

        for attempt in self.patience.retrying():
            with attempt:
                found = self._find_experiment(name)
                if found is None:
                    body = kfp_server_api.V2beta1Experiment(
                        display_name=name, namespace=self.namespace
                    )
                    try:
                        self.call("POST", "experiments", body=body)
                    except ClusterError as error:
                        error.passing |= error.status == 409  # somebody else has just made it
                        raise
                    found = self._find_experiment(name)
        if found is None:
            raise ClusterError(f"{self.host} has made no experiment {name!r}, and does not say why")
        return found

    def _find_experiment(self, name: str) -> str | None:
        found = self.pages(
            "experiments",
            "V2beta1ListExperimentsResponse",
            "experiments",
            filter=equals("display_name", name),
        )
        return next((each.experiment_id for each in found if each.display_name == name), None)

    def _content(self, method: str, path: str, query: list[tuple[str, Any]], body: Any) -> bytes:
        import kfp_server_api
        import urllib3

        try:
            response = self._api.call_api(
                f"/apis/v2beta1/{path}",
                method,
                query_params=query,
                header_params={"Accept": "application/json", "Content-Type": "application/json"},
                body=body,
                auth_settings=["Bearer"],
                _preload_content=False,
                _request_timeout=(self.patience.connect, self.patience.answer),
            )
            content: bytes = response.data
        except (kfp_server_api.ApiException, AttributeError) as error:
            # Without an answer the client fails once more, over its missing text.
            refused = error.__context__ if isinstance(error, AttributeError) else error
            if not isinstance(refused, kfp_server_api.ApiException):
                raise
            raise self._refused(refused) from None
        except urllib3.exceptions.HTTPError as error:
            raise self._unreachable(error) from None
        except OSError as error:  # of the token's file
            raise ClusterError(f"cannot sign in to {self.host}: {error.strerror}") from None
        except (ValueError, TypeError):  # its text may hold a secret
            raise ClusterError(
                f"no request can be made to {self.host}: is it a URL, and is the token or the "
                "cookie one line of plain characters?"
            ) from None
        if "json" not in (response.headers.get("Content-Type") or "").lower():
            raise ClusterError(
                f"{self.host} answers with a page, not with the API: most often that is a login "
                f"page. {_SIGN_IN}; the API may also be below another path, such as /pipeline"
            )
        try:
            json.loads(content)
        except ValueError:
            raise self._not_understood("it is not whole") from None
        return content

    def _not_understood(self, why: str) -> ClusterError:
        return ClusterError(f"an answer of {self.host} is not understood: {why}", passing=True)

    def _refused(self, error: Any) -> ClusterError:
        said = _server_message(error.body)
        at = f"{self.host} answered {error.status} {error.reason}{said}"
        match error.status:
            case 0:  # kfp-server-api's way of saying TLS
                message = f"no secure connection to {self.host}: {_one_line(str(error.reason))}"
                return ClusterError(f"{message}. $SSL_CERT_FILE names the certificates to trust")
            case 401:
                return ClusterError(f"{at}. {_SIGN_IN}", status=401)
            case 403:
                return ClusterError(
                    f"{at}. Is the namespace ({self.namespace or 'none given'}) yours?", status=403
                )
            case 404 if said.lower() in ("", ": not found"):  # no entity, but the path
                return ClusterError(
                    f"{at}. Is the API below another path, such as {self.host}/pipeline?",
                    status=404,
                )
        passing = error.status == 429 or error.status >= 500
        return ClusterError(at, status=error.status, passing=passing)

    def _unreachable(self, error: Exception) -> ClusterError:
        from urllib3 import exceptions

        match error:
            case exceptions.LocationValueError():
                return ClusterError(f"{self.host} is not a URL, such as http://localhost:8080")
            case exceptions.NewConnectionError():
                why = (
                    f"{str(error).split(': ')[-1]}. Is the address right, and the port forwarded "
                    "(kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80)?"
                )
            case exceptions.ConnectTimeoutError():
                why = f"no connection within {self.patience.connect:g} s"
            case exceptions.TimeoutError():
                why = f"no answer within {self.patience.answer:g} s"
            case exceptions.MaxRetryError():
                why = "it redirects without end"
            case _:
                why = "the connection ended before the answer did"
        return ClusterError(f"cannot reach {self.host}: {why}", passing=True)


_SIGN_IN = (
    f"Sign in with a token (${TOKEN_VARIABLE}, or a file: ${TOKEN_FILE_VARIABLE}) or a session "
    f"cookie (${COOKIE_VARIABLE}, or a file: ${COOKIE_FILE_VARIABLE})"
)


def equals(key: str, value: str) -> str:
    """A filter of a list request: `key` is `value`, as MySQL compares, Ab being equal to aB.

    URL-encoded, since the backend decodes it once more than the request (`parseAPIFilter` of
    apiserver/server/list_request_util.go): a plus would be a space to it, and match nothing.
    """
    predicate = {"operation": "EQUALS", "key": key, "stringValue": value}
    return quote(json.dumps({"predicates": [predicate]}))


def _host(option: str | None) -> str:
    host = option or os.environ.get(HOST_VARIABLE, "")
    if not host and "KUBERNETES_SERVICE_HOST" in os.environ:
        host = _IN_CLUSTER_HOST
    if not host:
        raise ClusterError(
            f"no host: pass --host or set ${HOST_VARIABLE}, for example http://localhost:8080 after"
            " kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80"
        )
    host = host if "://" in host else f"https://{host}"
    parts = urlsplit(host)
    if parts.username is not None or parts.password is not None:
        raise ClusterError(f"the host holds a name or password, which logs would show. {_SIGN_IN}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClusterError(f"host {host!r} is not a URL, such as http://localhost:8080")
    return host.rstrip("/")


def _pod_namespace() -> str:
    try:
        return _POD_NAMESPACE.read_text().strip()
    except OSError:
        raise ClusterError(
            "this Kubeflow has several users, each with a namespace: pass --namespace"
        ) from None


def _secret(variable: str, file_variable: str | None = None) -> str | None:
    value, origin = os.environ.get(variable), f"${variable}"
    if value is None and file_variable and os.environ.get(file_variable):
        origin = f"${file_variable}"
        try:
            value = Path(os.environ[file_variable]).read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not plain text"
            raise ClusterError(f"cannot read the file that {origin} names: {reason}") from None
    if not value or not value.strip():
        return None
    if not re.fullmatch(r"[\x20-\x7e]+", value.strip()):
        raise ClusterError(f"{origin} is not one line of plain characters")
    return value.strip()


def _token_file() -> Any:
    from kfp.client import ServiceAccountTokenVolumeCredentials

    named = os.environ.get(TOKEN_FILE_VARIABLE)
    if named:
        _secret("", TOKEN_FILE_VARIABLE)
        return ServiceAccountTokenVolumeCredentials(named)
    return ServiceAccountTokenVolumeCredentials(str(_POD_TOKEN)) if _POD_TOKEN.exists() else None


def _server_message(body: bytes | str | None) -> str:
    try:
        fields = json.loads(body or b"")
        said = fields.get("error") or fields.get("message") or ""
    except (ValueError, AttributeError):
        return ""
    return f": {_one_line(str(said))}" if said else ""


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
