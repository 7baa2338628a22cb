"""A connection to the API of Kubeflow Pipelines (v2beta1), through the `kfp` client.

The client alone waits without limit for a server that does not answer, follows a proxy to its login
page and takes that page for an empty list, and puts answer headers into its messages. So each call
here has a time limit, each answer must be whole and JSON, and each failure is one sentence.
"""

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

import tenacity

from pipeline.kubeflow.client import errors as cluster_errors
from pipeline.kubeflow.client import sign_in as cluster_sign_in
from pipeline.kubeflow.client.errors import SIGN_IN, ClusterError, one_line

_PAGE_SIZE = 100


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
        self.host = cluster_sign_in.find_host(host)
        self.namespace = namespace
        self.patience = patience or Patience()
        client = self._connect()
        # The names of the generated methods differ between kfp 2.5 and 2.16; the paths do not.
        self._api = client._run_api.api_client
        health = self.call("GET", "healthz", "V2beta1GetHealthzResponse")
        self.namespace = namespace or client.get_user_namespace() or None
        if health.multi_user and self.namespace is None:
            self.namespace = cluster_sign_in.pod_namespace()

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
                    existing_token=cluster_sign_in.token(),
                    cookies=cluster_sign_in.cookie(),
                    credentials=cluster_sign_in.token_file(),
                )
        except google.auth.exceptions.GoogleAuthError as error:
            raise ClusterError(f"Google's sign-in failed: {one_line(str(error))}") from None
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
            cause = error.__context__ if isinstance(error, AttributeError) else error
            if not isinstance(cause, kfp_server_api.ApiException):
                raise
            raise cluster_errors.refused(cause, self.host, self.namespace) from None
        except urllib3.exceptions.HTTPError as error:
            raise cluster_errors.unreachable(
                error, self.host, self.patience.connect, self.patience.answer
            ) from None
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
                f"page. {SIGN_IN}; the API may also be below another path, such as /pipeline"
            )
        try:
            json.loads(content)
        except ValueError:
            raise self._not_understood("it is not whole") from None
        return content

    def _not_understood(self, why: str) -> ClusterError:
        return ClusterError(f"an answer of {self.host} is not understood: {why}", passing=True)


def equals(key: str, value: str) -> str:
    """A filter of a list request: `key` is `value`, as MySQL compares, Ab being equal to aB.

    URL-encoded, since the backend decodes it once more than the request (`parseAPIFilter` of
    apiserver/server/list_request_util.go): a plus would be a space to it, and match nothing.
    """
    predicate = {"operation": "EQUALS", "key": key, "stringValue": value}
    return quote(json.dumps({"predicates": [predicate]}))
