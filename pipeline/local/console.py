"""What a run shows on the terminal, and the file that takes everything else."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.spinner import Spinner

from surroundings import text_output

PROGRESS_LOGGER = "mnist_gan.progress"


class RunConsole(logging.Handler):
    """Shows nodes as they start and end, and the progress lines of long ones.

    A NodeListener. On a terminal the progress line is rewritten in place; elsewhere each is a
    line of its own.
    """

    def __init__(self, console: Console) -> None:
        super().__init__(logging.INFO)
        self.console = console
        self._line: Live | None = None
        self._node = ""

    def node_started(self, node_id: str, position: int, total: int) -> None:
        """See NodeListener."""
        self._node = f"{position:>2}/{total} {node_id}"
        self._line = spinner_line(self.console, self._node)
        if self._line is not None:
            self._line.start()
        else:
            self.console.print(f"  {self._node} ...")

    def node_ended(self, node_id: str, seconds: float, *, cached: bool) -> None:
        """See NodeListener."""
        self._stop()
        took = "unchanged, from the cache" if cached else f"{seconds:.1f} s"
        self.console.print(f"  [green]✓[/] {self._node:<26} {took}")

    def node_failed(self, node_id: str, seconds: float) -> None:
        """See NodeListener."""
        self._stop()
        self.console.print(f"  [red]✗[/] {self._node:<26} failed after {seconds:.1f} s")

    def emit(self, record: logging.LogRecord) -> None:
        """Shows one progress line of the node that is running; a warning stays."""
        message = escape(record.getMessage())
        if record.levelno >= logging.WARNING:
            self.console.print(f"      [yellow]![/] {message}", highlight=False, soft_wrap=True)
        elif self._line is not None:
            self._line.update(_spinner(f"{self._node}  [dim]{message}[/]"))
        else:
            self.console.print(f"      {message}", highlight=False, soft_wrap=True)

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Takes the progress lines while it is open."""
        logger = logging.getLogger(PROGRESS_LOGGER)
        logger.setLevel(logging.INFO)
        logger.addHandler(self)
        try:
            yield
        finally:
            self._stop()
            logger.removeHandler(self)

    def _stop(self) -> None:
        if self._line is not None:
            self._line.stop()
            self._line = None


def spinner_line(console: Console, text: str) -> Live | None:
    """Returns a line with a spinner; None where the output is no terminal, even with FORCE_COLOR.

    Rich's own `status` replaces `sys.stdout` and `sys.stderr` while it spins. A log handler that a
    library makes meanwhile keeps writing to the terminal, and not to the run's log.
    """
    if not console.file.isatty():
        return None
    return Live(
        _spinner(text),
        console=console,
        refresh_per_second=12.5,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


def _spinner(text: str) -> Spinner:
    return Spinner("dots", text, style="status.spinner")


class DownloadLine:
    """A progress callback for downloads: at most a line a second."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._shown = 0.0

    def __call__(self, name: str, done: int, total: int) -> None:
        """Shows how far a file is; `total` is 0 when the server does not say."""
        if time.monotonic() - self._shown >= 1.0 or done == total:
            self._shown = time.monotonic()
            of = f" of {total / 1e6:.1f}" if total else ""
            self._console.print(f"  {name}: {done / 1e6:.1f}{of} MB", highlight=False)


@contextlib.contextmanager
def quiet_terminal(log_file: Path | None) -> Iterator[Console]:
    """Sends all that the process writes to a file, but what goes through the console it yields.

    This works on the file descriptors, so that TensorFlow's C++ code is caught as well.

    Args:
      log_file: appended to; None leaves everything on the terminal.
    """
    if log_file is None:
        yield Console()
        return
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(descriptor) for descriptor in (1, 2)]
    with open(log_file, "ab", buffering=0) as log, text_output(os.dup(1)) as terminal:
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
        try:
            yield Console(file=terminal)
        finally:
            # Onto a full disk nothing can be written, and that must not hide why the run failed.
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError):
                    stream.flush()
            for descriptor, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, descriptor)
                os.close(copy)
