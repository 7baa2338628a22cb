"""Where the cluster is, and who is asking: from options, the environment and files."""

import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pipeline.kubeflow.client.errors import SIGN_IN, ClusterError

HOST_VARIABLE = "KF_PIPELINES_ENDPOINT"
TOKEN_VARIABLE = "KF_PIPELINES_TOKEN"
TOKEN_FILE_VARIABLE = "KF_PIPELINES_SA_TOKEN_PATH"
COOKIE_VARIABLE = "KF_PIPELINES_COOKIE"
COOKIE_FILE_VARIABLE = "KF_PIPELINES_COOKIE_FILE"
_IN_CLUSTER_HOST = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
_POD_TOKEN = Path("/var/run/secrets/kubeflow/pipelines/token")
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def find_host(option: str | None) -> str:
    """The URL of the API: the option, else $KF_PIPELINES_ENDPOINT, else, in a pod, the service.

    Raises:
      ClusterError: there is none, or it is not a URL without a password.
    """
    host = option or os.environ.get(HOST_VARIABLE, "")
    if not host and "KUBERNETES_SERVICE_HOST" in os.environ:
        host = _IN_CLUSTER_HOST
    if not host:
        raise ClusterError(
            f"no host: pass --host or set ${HOST_VARIABLE}, for example http://localhost:8080 after"
            " kubectl port-forward -n kubeflow svc/ml-pipeline-ui 8080:80"
        )
    host = host if "://" in host else f"https://{host}"
    try:
        parts = urlsplit(host)
    except ValueError:  # not shown, since it may hold a password
        raise ClusterError("the host is not a URL, such as http://localhost:8080") from None
    if parts.username is not None or parts.password is not None:
        raise ClusterError(f"the host holds a name or password, which logs would show. {SIGN_IN}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ClusterError(f"host {host!r} is not a URL, such as http://localhost:8080")
    return host.rstrip("/")


def pod_namespace() -> str:
    """The namespace of the pod that this runs in.

    Raises:
      ClusterError: it does not run in one.
    """
    try:
        return _POD_NAMESPACE.read_text().strip()
    except OSError:
        raise ClusterError(
            "this Kubeflow has several users, each with a namespace: pass --namespace"
        ) from None


def token() -> str | None:
    """The token in $KF_PIPELINES_TOKEN.

    Raises:
      ClusterError: no request can carry it.
    """
    return _secret(TOKEN_VARIABLE)


def cookie() -> str | None:
    """The cookie in $KF_PIPELINES_COOKIE, or in the file that $KF_PIPELINES_COOKIE_FILE names.

    Raises:
      ClusterError: the file cannot be read, or no request can carry the cookie.
    """
    return _secret(COOKIE_VARIABLE) or _file_secret(COOKIE_FILE_VARIABLE)


def token_file() -> Any:
    """`kfp`'s credentials that read a file: $KF_PIPELINES_SA_TOKEN_PATH, or the pod's own token.

    Raises:
      ClusterError: the file that is named cannot be read, or no request can carry what is in it.
    """
    from kfp.client import ServiceAccountTokenVolumeCredentials

    named = os.environ.get(TOKEN_FILE_VARIABLE)
    if named:
        _file_secret(TOKEN_FILE_VARIABLE)
        return ServiceAccountTokenVolumeCredentials(named)
    return ServiceAccountTokenVolumeCredentials(str(_POD_TOKEN)) if _POD_TOKEN.exists() else None


def _secret(variable: str) -> str | None:
    return _checked(os.environ.get(variable, ""), variable)


def _file_secret(variable: str) -> str | None:
    if not os.environ.get(variable):
        return None
    try:
        text = Path(os.environ[variable]).read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not plain text"
        raise ClusterError(f"cannot read the file that ${variable} names: {reason}") from None
    return _checked(text, variable)


def _checked(text: str, variable: str) -> str | None:
    if re.search(r"[^\x20-\x7e]", text.strip()):
        raise ClusterError(f"${variable} is not one line of plain characters")
    return text.strip() or None
