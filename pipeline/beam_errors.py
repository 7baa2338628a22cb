"""What failed in a job of Beam: one line, out of the traces of three languages."""

import re

from errors import UserError
from pipeline.settings.beam import BeamError, BeamSettings

_TRACEBACK = "Traceback (most recent call last):"
_STEP = re.compile(r" \[while running '[^']*'\]")
_JAVA_CAUSE = re.compile(r"Caused by: ([\w.$]+)(?:: (.*))?")
_RPC_DETAILS = re.compile(r'details = "(.+)"')
_PYTHON_ERROR = re.compile(r"([A-Za-z_][\w.]*)(?:: (.*))?")
_OURS = ("components", "errors", "mnist", "pipeline", "storage")


def explain(error: BaseException, beam: BeamSettings) -> BeamError:
    """Finds the reason in the error of a Beam node.

    That is the last Python exception of the workers, else the innermost cause that Java names, else
    what the error says in its first line.

    Args:
      error: as Beam raised it.
      beam: the flags with which the node ran.
    """
    if isinstance(error, UserError):
        return BeamError(_STEP.sub("", error.what), error.where, error.fix, error.findings)
    text = _STEP.sub("", str(error))
    what = _python_error(text) or _java_error(text) or _first_line(error, text)
    if beam.is_direct:
        return BeamError(what)
    if what.endswith("unknown error"):  # as Beam says where the engine's answer has no reason
        what = "the job failed, and Beam was not given the reason"
        return BeamError(what, "beam.pipeline_args", f"look for the job at {beam.engine}")
    fix = "the workers have to see the folders of data and output under the paths that the node has"
    return BeamError(what, "beam.pipeline_args", fix if "no such file" in what.lower() else "")


def _python_error(text: str) -> str:
    _, found, last = text.rpartition(_TRACEBACK)
    lines = [line for line in last.splitlines() if line and not line[0].isspace()]
    match = _PYTHON_ERROR.fullmatch(lines[0].strip()) if found and lines else None
    return _named(match[1], match[2], match[1].split(".")[0] in _OURS) if match else ""


def _java_error(text: str) -> str:
    causes = _JAVA_CAUSE.findall(text)
    return _named(*causes[-1]) if causes else ""


def _named(kind: str, message: str | None, says_it_all: bool = False) -> str:
    name = re.split("[.$]", kind)[-1]
    if not message:
        return name
    return message.strip() if says_it_all else f"{name}: {message.strip()}"


def _first_line(error: BaseException, text: str) -> str:
    details = _RPC_DETAILS.search(text)
    first = details[1] if details else text.strip().partition("\n")[0]
    return first or type(error).__name__
