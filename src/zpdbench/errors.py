"""The one exception that means: the user can mend this."""

from __future__ import annotations


class UserError(Exception):
    """A mistake in what the user gave: shown as one line, exit code 2, no traceback.

    `exit_code` is what the command line ends with.

    Args:
        what: what is wrong, in one clause.
        where: the file (and line, record or key) that it is in.
        fix: what to do next.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what, self.where, self.fix = what, where, fix
        super().__init__(": ".join(p for p in (where, what) if p) + (f" ({fix})" if fix else ""))


class NoSandboxError(UserError):
    """This machine cannot contain model-written programs: no verdict on them, good or bad.

    An exit code of its own, because no text can tell it: texts may come from those programs.
    """

    exit_code = 4
