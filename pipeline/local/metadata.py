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
from pydantic import SecretStr

from pipeline.local.errors import UsageError
from pipeline.settings.sections import PASSWORD_FILE_VARIABLE, PASSWORD_VARIABLE

_PORTS = {"mysql": 3306, "postgresql": 5432}
_TRIES = 3


class DatabaseError(UsageError):
    """The metadata store cannot be used."""


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
        server.user, server.password = user, read_password().get_secret_value()
        return config

    def open(self) -> ml_metadata.MetadataStore:
        """Connects; SQLite's file must exist.

        Raises:
          DatabaseError: when that fails, for `retry_seconds` where a server does not answer.
        """
        try:
            return PatientStore(self)
        except errors.StatusError as error:
            raise self.unusable(error) from error

    @property
    def patience(self) -> float:
        """Seconds for which to try again; 0 for SQLite, which is there or is not."""
        return 0.0 if self.url is None else self.retry_seconds

    def unusable(self, error: Exception) -> DatabaseError:
        """Says what is wrong with it."""
        said = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        fix = (
            ""
            if self.url is None
            else "check that the server is up, that the database exists, and the password in "
            f"${PASSWORD_VARIABLE} (or the file that ${PASSWORD_FILE_VARIABLE} names); the next "
            "run resumes where this one ended"
        )
        return DatabaseError(f"the metadata store cannot be used: {said}", str(self), fix)


class PatientStore(ml_metadata.MetadataStore):
    """Connects again where the connection is lost.

    A call that was cut off is made again. Each is a transaction, so that it counts once, but for
    one cut off after its commit and before its answer.
    """

    def __init__(self, database: Database) -> None:
        """Connects, trying again for `database.patience` seconds; so does each call.

        Raises:
          DatabaseError: when that was to no avail.
        """
        self._database = database
        self._patience = database.patience
        self._is_lost = False
        self._connect(database.connection())

    def _connect(self, config: metadata_store_pb2.ConnectionConfig) -> None:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(RuntimeError),
            stop=tenacity.stop_after_delay(self._patience),
            wait=tenacity.wait_random_exponential(multiplier=0.5, max=5),
            reraise=True,
        )
        try:
            retrying(super().__init__, config)
        except RuntimeError as error:
            self._patience = 0.0  # what comes now is only to end cleanly
            raise self._database.unusable(error) from error
        self._is_lost = False

    def _call_method(self, method_name: str, request: Any, response: Any) -> None:
        for tries_left in reversed(range(_TRIES)):
            if self._is_lost:
                # ml-metadata's MySQL client crashes the process where it is used after that.
                self._connect(self._config)
            try:
                return super()._call_method(method_name, request, response)
            except (errors.InternalError, errors.UnavailableError):
                # So does a database's own refusal look, and that would come for ever.
                self._is_lost = self._database.url is not None
                if not (tries_left and self._is_lost):
                    raise


def read_password() -> SecretStr:
    """The server's password, from the environment or the file that it names; "" for none.

    Raises:
      DatabaseError: when that file cannot be read.
    """
    path = os.environ.get(PASSWORD_FILE_VARIABLE)
    if PASSWORD_VARIABLE in os.environ or not path:
        return SecretStr(os.environ.get(PASSWORD_VARIABLE, ""))
    try:
        return SecretStr(Path(path).read_text().strip())
    except OSError as error:
        raise DatabaseError(str(error), f"${PASSWORD_FILE_VARIABLE}") from None
