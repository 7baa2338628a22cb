"""Where ML Metadata is kept, and the one connection that all use; needs neither TFX nor TensorFlow.

SQLite in the output folder, or MySQL, MariaDB or PostgreSQL by URL. ml-metadata's own client tries
a call again only where the database says `ABORTED`, which a lost connection does not.
"""

import os
import sqlite3
import stat
from contextlib import closing
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
_SQLITE_HEADER = b"SQLite format 3\0"
_SQLITE_FILES = ("", "-journal", "-wal", "-shm")


class DatabaseError(UsageError):
    """The metadata store cannot be used."""


class DatabaseUnreadableError(UsageError):
    """SQLite's file could not be read, which proves no damage: it is locked, or not accessible."""


@dataclass(frozen=True)
class Database:
    """A metadata store.

    Attributes:
      file: of SQLite.
      url: of a server, without a password; None for SQLite.
      retry_seconds: how long to wait for a server that does not answer, or for a process that
        holds SQLite's file locked.
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
        """Whether there may be runs in it: an empty file holds none, and a server is not asked."""
        if self.url is not None:
            return True
        try:
            status = self.file.lstat()
        except FileNotFoundError:
            return False
        return status.st_size > 0 or not stat.S_ISREG(status.st_mode)

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

    def damage(self) -> str:
        """What SQLite finds wrong with its file; "" for nothing, or for a server.

        Opens the file for writing, so that SQLite undoes what a killed process left half-written.

        Raises:
          DatabaseUnreadableError: the file is locked for `retry_seconds`, or cannot be accessed.
        """
        if self.url is not None:
            return ""
        try:
            if not self.file.is_file():
                raise OSError("it is missing, or no file")
            with open(self.file, "rb") as stream:
                if stream.read(len(_SQLITE_HEADER)) != _SQLITE_HEADER:
                    return "the file is not a database"
            uri = f"{self.file.as_uri()}?mode=rw"
            with closing(sqlite3.connect(uri, uri=True, timeout=self.retry_seconds)) as connection:
                [found] = connection.execute("PRAGMA quick_check(1)").fetchone()
        except (OSError, sqlite3.OperationalError) as error:
            raise self.unreadable(error) from error
        except sqlite3.DatabaseError as error:  # SQLITE_CORRUPT or SQLITE_NOTADB
            return str(error)
        return "" if found == "ok" else str(found)

    def files(self) -> list[Path]:
        """The files that SQLite has now: the database, and its journals."""
        names = [self.file.with_name(self.file.name + suffix) for suffix in _SQLITE_FILES]
        return [path for path in names if os.path.lexists(path)]

    def unreadable(self, error: Exception) -> DatabaseUnreadableError:
        """The error for a file that is locked or cannot be accessed."""
        is_locked = _is_locked(error) or "locked" in str(error)
        why = f"locked for {self.retry_seconds:g} s" if is_locked else str(error)
        return DatabaseUnreadableError(
            f"the metadata database could not be used, and stays as it is: {why}",
            str(self),
            "end the process that holds it, a backup or a database browser say (`fuser` names it)"
            if is_locked
            else "give this user access to it",
        )

    def unusable(self, error: Exception) -> UsageError:
        """Says what is wrong with it."""
        if self.url is None and _is_locked(error):
            return self.unreadable(error)
        first = str(error).strip().partition("\n")[0].removeprefix("Error when executing query: ")
        reason = first.partition(" query: ")[0] or type(error).__name__  # without the SQL
        fix = (
            "`local_runner.py run` checks the file, and sets it aside if it is damaged"
            if self.url is None
            else "check that the server is up, that the database exists, and the password in "
            f"${PASSWORD_VARIABLE} (or the file that ${PASSWORD_FILE_VARIABLE} names); the next "
            "run resumes where this one ended"
        )
        return DatabaseError(f"the metadata store cannot be used: {reason}", str(self), fix)


def _is_locked(error: BaseException) -> bool:
    """Whether another process kept ml-metadata from SQLite's file for about a second."""
    return isinstance(error, errors.AbortedError) or "writes aborted" in str(error)


class PatientStore(ml_metadata.MetadataStore):
    """Connects again where the connection is lost, and waits while SQLite's file is locked.

    A call that was cut off is made again. Each is a transaction, so that it counts once, but for
    one cut off after its commit and before its answer.
    """

    def __init__(self, database: Database) -> None:
        """Connects, trying again for `database.retry_seconds`; so does each call.

        Raises:
          DatabaseError: the database cannot be used.
          DatabaseUnreadableError: another process held SQLite's file locked all the time.
        """
        self._database = database
        self._patience = database.retry_seconds
        self._is_lost = False
        self._connect(database.connection())

    def _connect(self, config: metadata_store_pb2.ConnectionConfig) -> None:
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(self._may_pass),
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

    def _may_pass(self, error: BaseException) -> bool:
        is_server = self._database.url is not None
        return isinstance(error, RuntimeError) and (is_server or _is_locked(error))

    def _call_method(self, method_name: str, request: Any, response: Any) -> None:
        if self._database.url is not None:
            return self._call_server(method_name, request, response)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(errors.AbortedError),
            stop=tenacity.stop_after_delay(self._patience),
            wait=tenacity.wait_random(max=0.5),
            reraise=True,
        )
        try:
            return retrying(super()._call_method, method_name, request, response)
        except errors.AbortedError as error:
            self._patience = 0.0
            raise self._database.unreadable(error) from error

    def _call_server(self, method_name: str, request: Any, response: Any) -> None:
        for tries_left in reversed(range(_TRIES)):
            if self._is_lost:
                # ml-metadata's MySQL client crashes the process where it is used after that.
                self._connect(self._config)
            try:
                return super()._call_method(method_name, request, response)
            except (errors.InternalError, errors.UnavailableError):
                # So does a database's own refusal look, and that would come for ever.
                self._is_lost = True
                if not tries_left:
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
