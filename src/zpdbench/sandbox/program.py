"""What goes into the sandbox and what comes out: programs, limits, verdicts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

STATUSES = ("passed", "failed", "timeout", "memory", "crashed", "killed", "output_limit")
MiB = 1 << 20


@dataclass(frozen=True, slots=True)
class Program:
    """One completion to judge, in HumanEval's form.

    The candidate is `prompt + completion`; `test` defines `check(candidate)`, which is called with
    the function named `entry_point`. `key` names the program in its verdict.
    """

    key: str
    prompt: str
    completion: str
    test: str
    entry_point: str


@dataclass(frozen=True, slots=True)
class Limits:
    """What one program may use; each of its two processes has these for itself.

    Times are in seconds, sizes in bytes. `cpu_seconds` decides what a timeout is, so that another
    job on the same cores changes no verdict; `wall_seconds` ends what sleeps.
    """

    cpu_seconds: float = 3.0
    wall_seconds: float = 15.0
    memory_bytes: int = 1024 * MiB
    threads: int = 16
    file_bytes: int = 16 * MiB
    tmp_bytes: int = 32 * MiB
    open_files: int = 64
    output_bytes: int = 4 * MiB
    message_bytes: int = 32 * MiB

    def __post_init__(self) -> None:
        from zpdbench.errors import UserError

        for name in self.__slots__:
            value = getattr(self, name)
            if not (isinstance(value, (int, float)) and 0 < value < math.inf):
                raise UserError(
                    f"the limit {name} must be a positive number, not {value!r}",
                    fix="correct sandbox: in the configuration",
                )
        if self.wall_seconds < self.cpu_seconds:
            raise UserError(
                "the limit wall_seconds must not be below cpu_seconds",
                fix="correct sandbox: in the configuration",
            )

    def with_time(self, cpu_seconds: float) -> Limits:
        """The same limits with another time limit: wall time is five times it, at least 5 s."""
        return replace(self, cpu_seconds=cpu_seconds, wall_seconds=max(5.0, 5.0 * cpu_seconds))

    def first_try(self) -> Limits:
        """A third of the time, but 1 s (CPU) and 5 s (wall) where that is more: what a program has
        in the company of others, before the whole time is its own.
        """
        cpu = min(self.cpu_seconds, max(1.0, self.cpu_seconds / 3))
        wall = min(self.wall_seconds, max(5.0, self.wall_seconds / 3))
        return replace(self, cpu_seconds=cpu, wall_seconds=wall)

    def as_message(self) -> dict[str, Any]:
        """The limits as a plain dictionary, as they cross to the sandbox."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one program.

    `status` is one of `STATUSES`; `reason` says why it is not `passed` (empty if it is).
    `cpu_seconds` is the candidate process's own CPU time, `tests_seconds` that of the tests'
    process, `wall_seconds` the whole program's time. `retried`: it is the second run's, alone.
    These differ from run to run: they belong into `*.timing.*` files only.
    """

    key: str
    status: str
    reason: str
    cpu_seconds: float
    wall_seconds: float
    tests_seconds: float = 0.0
    retried: bool = False

    @property
    def passed(self) -> bool:
        """Whether the program is correct."""
        return self.status == "passed"
