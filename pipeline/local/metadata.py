"""Where ML Metadata is kept, and the one connection that all use; needs neither TFX nor TensorFlow.

SQLite in the output folder, or MySQL, MariaDB or PostgreSQL by URL. ml-metadata's own client tries
a call again only where the database says `ABORTED`, which a lost connection does not.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import ml_metadata
import tenacity
from ml_metadata import errors
from ml_metadata.proto import metadata_store_pb2

PASSWORD_VARIABLE = "MNIST_GAN_METADATA_PASSWORD"
PASSWORD_FILE_VARIABLE = "MNIST_GAN_METADATA_PASSWORD_FILE"
_PORTS = {"mysql": 3306, "postgresql": 5432}


class DatabaseError(Exception):
    """The metadata store cannot be used; the message names it and says what to do."""


@dataclass(frozen=True)
class Database:
    """A metadata store.

    Attributes:
      file: of SQLite.
      url: of a server, without a password; None for SQLite.
      retry_seconds: how long a lost connection is tried again.
    """

    file: Path
    url: str | None = None
    retry_seconds: float = field(default=60.0, compare=False)

    def __str__(self) -> str:
        """As messages name it; never with a password."""
        if self.url is None:
            return str(self.file)
        parts = urlsplit(self.url)
        port = parts.port or _PORTS[parts.scheme]
        return f"{parts.path.strip('/')} at {parts.hostname}:{port} ({parts.scheme})"

    def exists(self) -> bool:
        """Whether there may be runs in it; a server is not asked."""
        return self.url is not None or self.file.exists()

    def connection(self, *, create: bool = False) -> metadata_store_pb2.ConnectionConfig:
        """The one connection, with the password of a server: not for a log.

        Args:
          create: make SQLite's file where there is none.
        """
        config = metadata_store_pb2.ConnectionConfig()
        if self.url is None:
            modes = metadata_store_pb2.SqliteMetadataSourceConfig
            config.sqlite.filename_uri = str(self.file)
            config.sqlite.connection_mode = (
                modes.READWRITE_OPENCREATE if create else modes.READWRITE
            )
            return config
        parts = urlsplit(self.url)
        port = parts.port or _PORTS[parts.scheme]
        name, user = unquote(parts.path.strip("/")), unquote(parts.username or "")
        if parts.scheme == "mysql":
            server: Any = config.mysql
            server.port, server.database = port, name
        else:
            server = config.postgresql
            server.port, server.dbname = str(port), name
        # By name, MySQL's client takes a socket on this machine in place of the port.
        server.host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname
        server.user, server.password = user, read_password()
        return config

    def open(self) -> ml_metadata.MetadataStore:
        """Connects; SQLite's file must exist.

        Raises:
          DatabaseError: when that fails, for `retry_seconds` where a server does not answer.
        """
        patience = 0.0 if self.url is None else self.retry_seconds
        try:
            return connect(self.connection(), patience)
        except LOST as error:
            raise DatabaseError(self.explain(error)) from error

    def explain(self, error: Exception) -> str:
        """Says in one message what is wrong with it."""
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        if self.url is None:
            return f"the metadata store {self} cannot be used: {said}"
        return (
            f"the metadata store {self} cannot be used: {said}. Is the server up, does the "
            f"database exist, and is the password in ${PASSWORD_VARIABLE} (or the file that "
            f"${PASSWORD_FILE_VARIABLE} names) right? The next run goes on from here."
        )


# What a connection that is lost, or cannot be made, is told by.
LOST = (errors.InternalError, errors.UnavailableError, errors.AbortedError, RuntimeError)


def connect(
    config: metadata_store_pb2.ConnectionConfig, patience: float
) -> ml_metadata.MetadataStore:
    """Connects, and tries again for so many seconds."""
    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(LOST),
        stop=tenacity.stop_after_delay(patience),
        wait=tenacity.wait_random_exponential(multiplier=0.5, max=5),
        reraise=True,
    )
    return retrying(ml_metadata.MetadataStore, config)


def read_password() -> str:
    """The server's password, from the environment or the file that it names; "" for none.

    Raises:
      DatabaseError: when that file cannot be read.
    """
    path = os.environ.get(PASSWORD_FILE_VARIABLE)
    if PASSWORD_VARIABLE in os.environ or not path:
        return os.environ.get(PASSWORD_VARIABLE, "")
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise DatabaseError(f"${PASSWORD_FILE_VARIABLE}: {error}") from None
