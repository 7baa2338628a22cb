"""What a program inherits and nobody chose for it, made harmless before anything reads it.

Standard streams, encodings, proxies, temporary folders and signals are not settings, and must not
change what a run does. Keras' own configuration is in `models/__init__.py`.
"""

import atexit
import contextlib
import errno
import importlib.abc
import importlib.util
import io
import locale
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from types import ModuleType
from typing import Any, NoReturn, TextIO

from errors import UserError

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_temporary: dict[int, str] = {}  # by process, for a fork must not remove its parent's
_STOPPED = 128 + signal.SIGTERM  # as a shell says it
_NO_PROXY = ("no_proxy", "NO_PROXY", "no_grpc_proxy")


def prepare() -> list[str]:
    """Prepares the process; each program calls it once, first of all.

    Returns:
      The arguments of the command. They are gone from `sys.argv`, which absl and Beam parse too.
    """
    _open_closed_streams()
    _use_utf8()
    sys.stdout, sys.stderr = text_output(1), text_output(2)
    _reach_loopback_directly()
    _own_temporary_folder()
    sys.meta_path.insert(0, _QuietTensorFlow())
    arguments = sys.argv[1:]
    del sys.argv[1:]
    return arguments


def text_output(descriptor: int) -> TextIO:
    """A text stream that never fails: on a full disk, or without a reader, the text is lost."""
    raw = _Output(descriptor, "w", closefd=descriptor > 2)
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding="utf-8", errors="replace", line_buffering=True
    )


def use_each_core() -> None:
    """On two cores, lets TensorFlow compute two operations at a time, each on one core.

    By default each is shared out over both cores, and in a training on batches of 16 or 32 they
    are too small for that (docs/benchmarks.md, "Training speed"). To be called before TensorFlow
    computes.
    """
    if len(os.sched_getaffinity(0)) == 2:
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")


def require_temporary_folder() -> None:
    """Raises UserError if no folder for temporary files can be written to."""
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        raise UserError(
            "no folder for temporary files can be written to",
            where="$TMPDIR, /tmp, /var/tmp and the working directory",
            fix="free some space there, or set TMPDIR to a folder of yours",
        ) from None


def leave(status: int) -> NoReturn:
    """Ends the process at once, whatever its threads do; its temporary folder goes too."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # cut off in a print
            stream.flush()
    _remove_temporary_folder()
    os._exit(status)


def stop_signals() -> tuple[signal.Signals, ...]:
    """The signals that end a process in good order: SIGTERM and, unless `nohup` took it, SIGHUP."""
    is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return (signal.SIGTERM,) if is_ignored else (signal.SIGTERM, signal.SIGHUP)


class _Output(io.FileIO):
    _has_failed = False

    def write(self, content: Any) -> int:
        try:
            return super().write(content)
        except OSError as error:
            if not self._has_failed and error.errno != errno.EPIPE and self.fileno() != 2:
                self._has_failed = True
                print(f"warning: output could not be written: {error.strerror}", file=sys.stderr)
            return len(content)


def _open_closed_streams() -> None:
    """Else the next file that is opened becomes the standard output, and is written over."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest number that is free


def _use_utf8() -> None:
    """Starts Python again in UTF-8 mode, if the locale has files and names in another encoding."""
    encodings = {sys.getfilesystemencoding(), locale.getpreferredencoding(False)}
    is_utf8 = {name.lower() for name in encodings} == {"utf-8"}
    if not is_utf8 and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _reach_loopback_directly() -> None:
    for name in _NO_PROXY:
        if name in os.environ or name == "no_proxy":
            named = [os.environ.get(name, os.environ.get("NO_PROXY", "")), *LOOPBACK]
            os.environ[name] = ",".join(filter(None, named))


def _own_temporary_folder() -> None:
    """All temporary files go into one folder, which is removed when the process ends."""
    with contextlib.suppress(OSError):  # there is no room for one; a command that needs it says so
        folder = tempfile.tempdir = tempfile.mkdtemp(prefix="mnist-gan-")
        os.environ["TMPDIR"] = folder
        _temporary[os.getpid()] = folder
        atexit.register(_remove_temporary_folder)
    for number in stop_signals():
        signal.signal(number, lambda number, frame: leave(_STOPPED))


def _remove_temporary_folder() -> None:
    folder = _temporary.get(os.getpid())
    if folder:
        shutil.rmtree(folder, ignore_errors=True)


class _QuietTensorFlow(importlib.abc.MetaPathFinder):
    """Imports TensorFlow without the notes on this machine that it writes to stderr.

    TensorFlow 2.21 writes them before it reads TF_CPP_MIN_LOG_LEVEL.
    """

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        if fullname != "tensorflow":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def quietly(module: ModuleType) -> None:
                with _stderr_if_it_fails():
                    execute(module)

            spec.loader.exec_module = quietly  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def _stderr_if_it_fails() -> Iterator[None]:
    """Shows what is written to descriptor 2 only if what runs meanwhile raises an error."""
    with contextlib.ExitStack() as stack:
        try:
            notes = stack.enter_context(tempfile.TemporaryFile())
        except OSError:  # there is no room for them, so they are shown
            yield
            return
        saved = os.dup(2)
        stack.callback(os.close, saved)
        os.dup2(notes.fileno(), 2)
        stack.callback(os.dup2, saved, 2)
        try:
            yield
        except BaseException:
            notes.seek(0)
            with contextlib.suppress(OSError):
                os.write(saved, notes.read())
            raise
