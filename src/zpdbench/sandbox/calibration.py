"""The time limit of this machine, from the benchmark's own solutions."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from zpdbench.errors import UserError
from zpdbench.sandbox.pool import Pool
from zpdbench.sandbox.program import Limits, Program, Verdict

MULTIPLE = 10.0
FLOOR_SECONDS = 1.0


def calibrate(
    reference_programs: Iterable[Program],
    *,
    multiple: float = MULTIPLE,
    floor: float = FLOOR_SECONDS,
    waive: Collection[str] = (),
) -> float:
    """The CPU time limit in seconds: `multiple` times the slowest reference, at least `floor`.

    The references run one at a time under a generous limit; each counts with the smaller of two
    runs, and in each with the busier of its two processes: the limit holds for both. The result is
    rounded up to a tenth of a second, so that equal machines get equal limits.

    Raises:
        UserError: a reference does not pass, so the benchmark's file or this machine is broken.
    """
    programs = list(reference_programs)
    limits = Limits().with_time(60.0)
    with Pool(workers=1, limits=limits, waive=waive) as pool:
        runs = [pool.judge(programs) for _ in range(2)]
    for verdict in runs[0] + runs[1]:
        if not verdict.passed:
            raise UserError(
                f"the reference solution does not pass: {verdict.status}, {verdict.reason}",
                where=verdict.key,
                fix="`zpdbench doctor` looks at the sandbox; else the benchmark's file is damaged",
            )
    slowest = max((min(busier(a), busier(b)) for a, b in zip(*runs, strict=True)), default=0.0)
    return max(floor, -(-multiple * slowest * 10 // 1) / 10)


def busier(verdict: Verdict) -> float:
    """CPU seconds of the candidate's or the tests' process, whichever had more."""
    return max(verdict.cpu_seconds, verdict.tests_seconds)
