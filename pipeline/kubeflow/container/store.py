"""Where the backend's launcher keeps an artifact on a container's disk.

It downloads inputs before a node runs and uploads outputs afterwards, at `/gcs/X` for `gs://X`,
`/minio/X` for `minio://X` and `/s3/X` for `s3://X` (LocalPathForURI in the backend's
component/launcher_v2.go).
"""

import os

# A folder in which those paths are, where they are not at the root: a rehearsal sets it, since
# nobody but root can make `/minio`.
ROOT_VARIABLE = "KFP_LOCAL_ROOT"
FOLDERS = {"gs": "gcs", "minio": "minio", "s3": "s3"}


def local_path(uri: str, root: str = "") -> str | None:
    """The path of a remote URI's content; None where the launcher knows no path for it."""
    scheme, separator, rest = uri.partition("://")
    if not separator or scheme not in FOLDERS:
        return None
    return f"{root}/{FOLDERS[scheme]}/{rest}"


def container_root() -> str:
    """The folder of `/gcs`, `/minio` and `/s3` in this container; "" for the root."""
    return os.environ.get(ROOT_VARIABLE, "").rstrip("/")
