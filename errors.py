"""The base of the errors that a user can mend."""


class UserError(Exception):
    """Something that the user can mend: bad input, a wrong setting, a missing file.

    `pipeline/cli/errors.py` prints it and sets the exit status; nothing else does.

    Attributes:
      what: what happened and what was expected, one sentence without a full stop.
      where: the file, setting, option or address that it happened at; "" where `what` names it.
      fix: what to do about it, one sentence; "" where `what` leaves no doubt.
    """

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        super().__init__(what, where, fix)
        self.what, self.where, self.fix = what, where, fix

    def __str__(self) -> str:
        """The whole in one line: `where: what; fix`."""
        located = f"{self.where}: {self.what}" if self.where else self.what
        return f"{located}; {self.fix}" if self.fix else located
