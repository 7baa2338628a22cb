"""The records of passes of retraining and of verifications in the output folder: a line each."""

import datetime
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import storage
from parsing import parse_json
from pipeline.retraining.webhook import RunReport

KEPT = 1000
PASSES, VERIFICATIONS = "passes.jsonl", "verifications.jsonl"
_LOCK = ".passes.lock"
# A clock is set back by less. A pass further ahead was written down while the clock was wrong.
_BELIEVABLE = datetime.timedelta(days=1)
# Outcomes of a pass that are none of a run. What was stopped was not through: it is made again.
NOTHING_TO_DO, NOT_STARTED, STOPPED = "nothing to do", "not started", "stopped"
AS_BLESSED = "as blessed"  # of a verification


@dataclass(frozen=True)
class Pass:
    """One pass: when it started, in UTC, and what came of it."""

    at: datetime.datetime
    report: RunReport

    @property
    def ended(self) -> datetime.datetime:
        """When it ended, in UTC."""
        return self.at + datetime.timedelta(seconds=self.report.seconds or 0.0)


def read_passes(root: Path, name: str = PASSES) -> list[Pass]:
    """The last passes in an output folder, at most `KEPT`, oldest first.

    A line that cannot be read, of another release say, is passed over.
    """
    found = (_parse(line) for line in _lines(root / name))
    return [each for each in found if each is not None]


def add_pass(root: Path, new: Pass, name: str = PASSES) -> None:
    """Writes a pass down; the file is whole at every moment. Makes the folder where it is missing.

    Raises:
      OSError: when the folder cannot be written to.
    """
    root.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"at": new.at.isoformat(timespec="milliseconds"), **new.report.content()})
    with storage.locked(root / _LOCK):
        lines = [*_lines(root / name), line][-KEPT:]
        storage.write(str(root / name), ("\n".join(lines) + "\n").encode())


def last_made(root: Path, now: datetime.datetime) -> datetime.datetime | None:
    """When the last pass that was through ended; None where there is none.

    Passes of more than a day after `now` do not count: the clock was wrong.
    """
    ends = [each.ended for each in read_passes(root) if each.report.outcome != STOPPED]
    return next((end for end in reversed(ends) if end <= now + _BELIEVABLE), None)


def _lines(file: Path) -> list[str]:
    content = storage.read_if_there(str(file)) or b""
    return content.decode(errors="replace").splitlines()


def _parse(line: str) -> Pass | None:
    try:
        content: dict[str, Any] = parse_json(line)
        at = datetime.datetime.fromisoformat(content.pop("at"))
        return Pass(at.astimezone(datetime.timezone.utc), RunReport(**content))
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
