"""The base of the errors that a user can correct."""

import errno
import re
import traceback
from collections.abc import Sequence

_FIXES = {
    errno.ENOSPC: "free some space there, and call the same command again",
    errno.EDQUOT: "free some space there, and call the same command again",
    errno.EACCES: "give this user access, or name another folder",
    errno.EPERM: "give this user access, or name another folder",
    errno.EROFS: "name a folder on a file system that can be written to",
    errno.ENOENT: "check the path",
}

# A password may hold any character; so the user part ends at the last @ before the next address.
_USER_PART = re.compile(r"(?<=://)(?:\S*@|(?:(?!://).)*@)")
_QUERY = re.compile(r"(?<=://)([^\s?#]*)[?#](\S*)")
_CREDENTIAL = re.compile(r"passw|pwd|secret|token|credential|api_?key|dsn|url", re.IGNORECASE)


def mask_secrets(text: str) -> str:
    """Replaces the user part and the query values of each address in a text by `***`."""
    without_user = _USER_PART.sub("***@", text)
    return _QUERY.sub(lambda found: f"{found[1]}?{_mask_query(found[2])}", without_user)


def _mask_query(query: str) -> str:
    parts = (part.partition("=") for part in re.split("[&;#]", query))
    return "&".join(f"{name}=***" if equals else "***" for name, equals, _ in parts)


def masked_traceback(error: BaseException) -> str:
    """Formats an exception with its traceback, without what `mask_secrets` hides."""
    return mask_secrets("".join(traceback.format_exception(error)))


def is_credential(name: str) -> bool:
    """Whether the name of a setting or variable suggests a value that no message may show."""
    return _CREDENTIAL.search(name) is not None


class UserError(Exception):
    """Something that the user can correct: bad input, a wrong setting, a missing file.

    `pipeline/cli/errors.py` prints it and sets the exit status; nothing else does. Its texts pass
    through `mask_secrets`.

    Attributes:
      what: what happened and what was expected, one sentence without a full stop.
      where: the file, setting, option or address that it happened at; "" where `what` names it.
      fix: what to do about it, one sentence; "" where `what` leaves no doubt.
      findings: each thing that is wrong, the worst first, where there are several.
      log: the file that has all findings or the traceback; "" where there is none.
      exit_status: of a command that ends with this error: 2, it could not start as it was called.
    """

    log: str = ""
    exit_status: int = 2

    def __init__(
        self, what: str, where: str = "", fix: str = "", findings: Sequence[str] = ()
    ) -> None:
        self.what, self.where, self.fix = map(mask_secrets, (what, where, fix))
        self.findings = tuple(map(mask_secrets, findings))
        # By position, as pickle and Beam make a copy with `type(error)(*error.args)`.
        super().__init__(self.what, self.where, self.fix, self.findings)

    def __str__(self) -> str:
        """All of it: `where: what; fix`, then each finding on a line."""
        located = f"{self.where}: {self.what}" if self.where else self.what
        fixed = f"{located}; {self.fix}" if self.fix else located
        return "\n".join([fixed, *(f"- {finding}" for finding in self.findings)])

    @property
    def summary(self) -> str:
        """One line: what happened, and the worst finding."""
        if not self.findings:
            return self.what
        more = f" (and {len(self.findings) - 1} more)" if len(self.findings) > 1 else ""
        return f"{self.what}: {self.findings[0]}{more}"


class FileError(UserError):
    """A file or folder that cannot be used: a full disk, no permission, a wrong path."""

    @classmethod
    def of(cls, error: OSError) -> "FileError":
        """The same in a user's terms; `storage.py` raises some without a number or a name."""
        names = [str(name) for name in (error.filename, error.filename2) if name is not None]
        what = (error.strerror or str(error)).lower() if error.errno else str(error)
        return cls(what, " -> ".join(names), _FIXES.get(error.errno or 0, ""))
