"""Processes that hold SQLite's file locked, or are killed while they write to it."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_HOLD = """
import sqlite3, sys, time
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
connection.execute("SELECT count(*) FROM Type").fetchall()
print("held", flush=True)
time.sleep(float(sys.argv[3]))
"""
# With a cache of a page, SQLite writes to the file before the transaction ends.
_DIE = """
import os, signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN")
connection.execute("UPDATE Artifact SET uri = 'never written'")
connection.execute("CREATE TABLE half AS SELECT randomblob(100000)")
os.kill(os.getpid(), signal.SIGKILL)
"""


@contextlib.contextmanager
def holding(database: Path, begin: str, seconds: float) -> Iterator[None]:
    """Has another process hold a transaction for so long, or until the block ends.

    Args:
      database: SQLite's file, with the tables of ML Metadata.
      begin: `BEGIN EXCLUSIVE` keeps others from reading; `BEGIN` from writing.
      seconds: how long.
    """
    command = [sys.executable, "-c", _HOLD, str(database), begin, str(seconds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout
    assert process.stdout.readline() == b"held\n"
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def kill_in_transaction(database: Path) -> None:
    """Leaves a hot journal: a process is killed while it writes to SQLite's file."""
    subprocess.run([sys.executable, "-c", _DIE, str(database)], check=False)
    journal = database.with_name(f"{database.name}-journal")
    assert journal.stat().st_size > 512
