"""The command of each node's container: runs the entry point, and runs it again when it fails.

Whether a backend retries a failed pod depends on its version and on the cluster's configuration, so
`kubeflow.retries` is kept here. A retry starts after an exit status other than 0, a signal, or an
attempt that takes too long. Bad data and wrong settings are not retried: they would fail again.
"""

import argparse
import collections
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType
from typing import IO, NamedTuple

from errors import mask_secrets
from pipeline.cli.errors import BAD_USAGE
from pipeline.kubeflow.container.failures import Notes
from pipeline.kubeflow.container.store import container_root
from surroundings import stop_signals

# The first wait before a retry; it doubles each time, up to the longest.
WAIT_SECONDS, LONGEST_WAIT_SECONDS = 30.0, 600.0
# From SIGTERM to SIGKILL of an attempt that takes too long: a training saves its checkpoint.
GRACE_SECONDS = 60.0
TERMINATION_LOG = "/dev/termination-log"
_ENTRY_POINT = (sys.executable, "-m", "pipeline.kubeflow.container.entrypoint")
# What TensorFlow writes as an error on every machine, and is none: CUDA's plugins that are linked
# twice, a machine without NVIDIA's driver, a graph that stays as it is.
_NOISE = re.compile(
    rb"Unable to register cu\w+ factory|failed call to cuInit: .*UNKNOWN ERROR \(303\)|"
    rb"meta_optimizer\.cc:\d+\] remapper failed"
)
_RELAY_SECONDS = 5.0  # for the last lines of an attempt that has ended
_LONGEST_TEXT = 2000  # a pod's termination message has at most 4096 bytes


class Ended(NamedTuple):
    """How an attempt ended.

    Attributes:
      status: its exit status; 128 + N for the signal N.
      error: what failed, in one line; "" for nothing.
    """

    status: int
    error: str = ""


def main(arguments: Sequence[str], entry_point: Sequence[str] = _ENTRY_POINT) -> int:
    """Supervises a node; returns the exit status of the container.

    Args:
      arguments: `--node`, `--retries` and `--seconds` are of the supervisor, all others of the
        entry point, which also gets `--node`.
      entry_point: the start of its command.
    """
    os.umask(0o022)  # Argo starts containers with 0, and servers read what is pushed as other users
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--node", required=True)
    parser.add_argument("--retries", type=int, default=0)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--json_serialized_invocation_args", default="{}")
    known, others = parser.parse_known_args(arguments)
    executor_input = known.json_serialized_invocation_args
    others += ["--node", known.node, "--json_serialized_invocation_args", executor_input]
    # In a rehearsal nothing outside recovers meanwhile.
    wait = 0.1 if container_root() else WAIT_SECONDS
    supervision = Supervision([*entry_point, *others], known.retries, known.seconds, wait)
    for number in (*stop_signals(), signal.SIGINT):
        signal.signal(number, supervision.pass_on)
    ended = supervision.run()
    if ended.status:
        text = f"{known.node}: {ended.error}"
        print(f"error: {text}", file=sys.stderr)
        _write_termination_log(text)
        Notes.of(json.loads(executor_input)).failed(known.node, text)
    return ended.status


def pod_seconds(retries: int, seconds: float) -> int:
    """How long a pod takes at most in which each attempt may take so many seconds."""
    waits = sum(_wait(attempt) for attempt in range(1, retries + 1))
    return int((retries + 1) * (seconds + GRACE_SECONDS) + waits + GRACE_SECONDS)


@dataclass
class Supervision:
    """The attempts of one node.

    Attributes:
      command: of one attempt.
      retries: how many more attempts there are after the first.
      seconds: how long an attempt may take; None for any time.
      wait_seconds: before the first retry.
      grace_seconds: from SIGTERM to SIGKILL of an attempt that takes too long.
    """

    command: Sequence[str]
    retries: int
    seconds: float | None = None
    wait_seconds: float = WAIT_SECONDS
    grace_seconds: float = GRACE_SECONDS
    _stopped_by: str = ""
    _process: subprocess.Popen[bytes] | None = None

    def run(self) -> Ended:
        """Runs attempts until one succeeds, fails for good, or is the last."""
        attempt, attempts = 1, self.retries + 1
        while True:
            ended = self._attempt()
            if ended.status and attempt > 1:
                ended = Ended(ended.status, f"{ended.error} (attempt {attempt} of {attempts})")
            is_final = ended.status in (0, BAD_USAGE) or attempt == attempts
            if is_final or self._stopped_by:
                return ended
            wait = _wait(attempt, self.wait_seconds)
            print(f"failed: {ended.error}; the next in {wait:g} s", file=sys.stderr)
            if not self._pause(wait):
                return ended
            attempt += 1

    def _attempt(self) -> Ended:
        # In a group of its own, so that none of its processes outlives it.
        process = subprocess.Popen(self.command, stderr=subprocess.PIPE, start_new_session=True)
        self._process = process
        if self._stopped_by:
            process.terminate()
        tail: collections.deque[str] = collections.deque(maxlen=30)
        relay = threading.Thread(target=_relay, args=(process.stderr, tail), daemon=True)
        relay.start()
        is_late = self._wait_for(process)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        relay.join(_RELAY_SECONDS)
        status, last = process.returncode, _last_error(tail)
        if self._stopped_by:
            reason = f"stopped by {self._stopped_by}: {last}"
        elif is_late:
            reason = f"no end in {self.seconds:g} s (timeout_seconds)"
        elif status >= 0:
            reason = last or f"exit status {status}"
        else:
            reason = f"killed by {signal.Signals(-status).name}"
            reason += "; memory may have run out" if status == -signal.SIGKILL else f": {last}"
        if status < 0:
            status = 128 - status
        return Ended(status, mask_secrets(reason)[:_LONGEST_TEXT]) if status else Ended(0)

    def _pause(self, seconds: float) -> bool:
        """Waits, and returns whether no signal came; a handler must not meet a lock of a wait."""
        end = time.monotonic() + seconds
        while not self._stopped_by and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
        return not self._stopped_by

    def _wait_for(self, process: subprocess.Popen[bytes]) -> bool:
        """Waits for the end of an attempt; returns whether it was stopped for taking too long."""
        try:
            process.wait(self.seconds)
            return False
        except subprocess.TimeoutExpired:
            process.terminate()
        try:
            process.wait(self.grace_seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return True

    def pass_on(self, number: int, frame: FrameType | None = None) -> None:
        """Handles a signal: the attempt gets it too, and is the last."""
        self._stopped_by = signal.Signals(number).name
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)


def _wait(attempt: int, first: float = WAIT_SECONDS) -> float:
    """Seconds before the retry after an attempt, which is counted from 1."""
    return min(first * 2 ** (attempt - 1), LONGEST_WAIT_SECONDS)


def _relay(stream: IO[bytes], tail: collections.deque[str]) -> None:
    """Shows what an attempt writes to stderr, without the noise, and keeps the last lines."""
    with stream:
        for line in stream:
            if not _NOISE.search(line):
                with contextlib.suppress(OSError):
                    sys.stderr.buffer.write(line)
                    sys.stderr.buffer.flush()
                tail.append(line.decode(errors="replace").rstrip())


def _last_error(tail: Sequence[str]) -> str:
    """The error that `pipeline/cli/errors.py` printed last, in one line; else the last line."""
    lines = [line for line in tail if line.strip()]
    for index in reversed(range(len(lines))):
        start, separator, what = lines[index].partition(": ")
        if separator and start in ("error", "stopped"):
            details = [line for line in lines[index + 1 :] if line.startswith("  ")]
            return "; ".join([what, *(line.strip().removeprefix("- ") for line in details)])
    return lines[-1].strip() if lines else ""


def _write_termination_log(text: str) -> None:
    """Says it where Kubernetes looks for the last words of a container, which Argo shows."""
    path = container_root() + TERMINATION_LOG
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC)  # only where there is one
        with open(descriptor, "wb") as file:
            file.write(text.encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
