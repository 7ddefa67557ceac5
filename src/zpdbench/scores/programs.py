"""Programs to verdicts: each distinct program is judged once, and remembered by its content."""

from __future__ import annotations

import json
import os
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from zpdbench import files, sandbox
from zpdbench.progress import track
from zpdbench.sandbox import Limits, Pool, Program, evalplus
from zpdbench.sandbox.calibration import FLOOR_SECONDS

REMEMBERED = frozenset({"passed", "failed"})
"""A time-out or a killed process says something of the machine too: it is tried again."""

AUTHORS_SECONDS = 3.0
"""HumanEval's authors give each program 3 seconds."""


def program(doc: Mapping[str, Any], completion: str) -> Program:
    """What is run for one completion: the prompt, the completion, the document's tests."""
    prompt, entry_point = doc["prompt"], doc["entry_point"]
    test = doc["test"] if "test" in doc else evalplus.plus_test(doc)
    return Program(
        _digest([prompt, completion, test, entry_point]), prompt, completion, test, entry_point
    )


@dataclass(frozen=True)
class Outcome:
    """What became of one program, and how: all but `status` is for the timing file.

    Attributes:
        status, reason: as in `sandbox.Verdict`.
        cpu_seconds, tests_seconds, wall_seconds: of the candidate's process, of the tests', in all.
        limit_seconds: the limit on CPU time in force.
        retried: it timed out at first, and this is the run alone.
        mode: how the sandbox was started; `bare` is without bubblewrap.
        missing: the waived layers that were really missing, with the reason.
    """

    status: str
    reason: str
    cpu_seconds: float
    tests_seconds: float
    wall_seconds: float
    limit_seconds: float
    retried: bool
    mode: str
    missing: dict[str, str]


def judge(
    programs: Sequence[Program],
    references: Sequence[Program],
    *,
    workers: int,
    seconds: float | None = None,
    floor: float = FLOOR_SECONDS,
    waive: Sequence[str] = (),
    cache: Path | None = None,
) -> dict[str, Outcome]:
    """What became of each program, by key.

    Args:
        programs: what to run; a key that occurs twice is run once.
        references: the benchmark's own solutions, whose time on this machine sets the limit.
        workers: programs run at once.
        seconds: CPU time for each; None: ten times the slowest reference's.
        floor: the least limit, seconds.
        waive: protection layers that may be missing.
        cache: folder of remembered verdicts; None: nothing is remembered.

    Raises:
        UserError: the sandbox lacks a layer, or a reference does not pass.
    """
    waiting = {program.key: program for program in programs}
    # A program that passed or failed in time does so under any limit; a limit that the user set is
    # part of what was asked.
    context = _digest([_sandbox_digest(), _interpreter(), seconds, floor, sorted(waive)])
    outcomes: dict[str, Outcome] = {}
    if cache is not None:
        for key in list(waiting):
            if (outcome := _recall(cache, context, key)) is not None:
                outcomes[key] = outcome
                del waiting[key]
        if outcomes:
            print(f"{len(outcomes)} of {len(programs)} verdicts are remembered", flush=True)
    if waiting:
        limit = seconds or _calibrated(references, floor, waive, cache)
        todo = list(waiting.values())
        with (
            Pool(min(workers, len(todo)), _limits(limit), waive, partial(_alone, cache)) as pool,
            track("programs", len(todo), "programs") as progress,
        ):

            def done(verdict: sandbox.Verdict) -> None:
                outcome = Outcome(
                    verdict.status,
                    verdict.reason,
                    *(verdict.cpu_seconds, verdict.tests_seconds, verdict.wall_seconds),
                    limit,
                    verdict.retried,
                    pool.mode,
                    dict(pool.missing),
                )
                outcomes[verdict.key] = outcome
                if cache is not None and verdict.status in REMEMBERED:
                    _remember(cache, context, verdict.key, outcome)
                progress.advance()

            pool.judge(todo, done)
    for line in sorted({_weakness(o) for o in outcomes.values()} - {""}):
        print(line, flush=True)
    return outcomes


def _weakness(outcome: Outcome) -> str:
    """One line on what the sandbox lacked; empty if nothing."""
    if not outcome.missing:
        return ""
    lacked = "; ".join(f"{layer} ({why})" for layer, why in sorted(outcome.missing.items()))
    bare = " (bare mode: without bubblewrap)" if outcome.mode == "bare" else ""
    return f"the sandbox lacked layers that are waived{bare}: {lacked}"


Judged = tuple[Mapping[str, Any], Outcome]
"""What names a program in a file of scores (item_id, sample, ...), and what became of it."""


@contextmanager
def recorded(path: str | Path, judged: Sequence[Judged]) -> Iterator[None]:
    """Write beside scores how their programs were judged: `.timing.json`, no part of any digest.

    The scores are written within: it takes its name once they are there, so that a full disk
    leaves both or neither.

    Args:
        path: the scores' file.
        judged: its programs in its order; nothing is written where there are none.
    """
    if not judged:
        yield
        return
    outcomes = [outcome for _, outcome in judged]
    counts = Counter(o.status for o in outcomes)
    record = {
        "limits_seconds": sorted({o.limit_seconds for o in outcomes}),
        "sandbox": [
            {"mode": mode, "missing": dict(missing)}
            for mode, missing in sorted({(o.mode, tuple(o.missing.items())) for o in outcomes})
        ],
        "counts": dict(sorted(counts.items())),
        "retried": sum(o.retried for o in outcomes),
        "programs": [
            {**place, **{k: v for k, v in asdict(o).items() if k not in ("mode", "missing")}}
            for place, o in judged
        ],
    }
    with files.atomic_path(files.beside(path, ".timing.json")) as temporary:
        temporary.write_text(json.dumps(record, indent=1) + "\n", "utf-8", newline="\n")
        yield


def _calibrated(
    references: Sequence[Program], floor: float, waive: Sequence[str], cache: Path | None
) -> float:
    """The time limit of this machine, measured once and remembered beside the verdicts."""
    keys = [r.key for r in references]
    machine = [platform.node(), platform.processor(), os.cpu_count(), floor, *_interpreter()]
    name = f"limit-{_digest([keys, machine, _sandbox_digest(), sorted(waive)])}.timing.json"
    path = None if cache is None else cache / name
    if (known := _known_limit(path)) is not None:
        return known
    with _alone(cache):
        # Another job may have measured it while this one waited.
        if (known := _known_limit(path)) is not None:
            return known
        seconds = sandbox.calibrate(references, floor=floor, waive=waive)
        if path is not None:
            files.write_text(path, json.dumps({"seconds": seconds}) + "\n")
    return seconds


def _known_limit(path: Path | None) -> float | None:
    try:
        return None if path is None else float(json.loads(path.read_text("utf-8"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _alone(cache: Path | None) -> AbstractContextManager[None]:
    """For what measures time: one job of this machine at once, of those that share a cache."""
    if cache is None:
        return nullcontext()
    return files.locked(cache / f"alone-{files.digest(platform.node())[:16]}.lock")


def _limits(seconds: float) -> Limits:
    # HumanEval's authors count time on the clock, where a program that sleeps ends too; with two
    # jobs a core that would end good programs, so the clock has three times the processor's share.
    return replace(Limits(), cpu_seconds=seconds, wall_seconds=3 * max(seconds, AUTHORS_SECONDS))


def _digest(value: Any) -> str:
    # Model-written text may hold lone surrogates, which have no UTF-8: JSON escapes them.
    return files.digest(json.dumps(value))


def cache_folder() -> Path:
    """Where verdicts are remembered: below ZPDBENCH_CACHE, else .cache/zpdbench."""
    return files.cache_folder() / "verdicts"


def workers_here() -> int:
    """As many workers as this process may use cores."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _interpreter() -> list[str]:
    """What runs the programs: a verdict may depend on Python's version and kind."""
    return [platform.python_implementation(), platform.python_version(), platform.machine()]


@lru_cache
def _sandbox_digest() -> str:
    folder = Path(sandbox.__file__).parent
    return _digest({p.name: files.sha256_file(p) for p in sorted(folder.glob("*.py"))})


def _path(cache: Path, context: str, key: str) -> Path:
    return cache / context[:16] / key[:2] / f"{key}.json"


def _recall(cache: Path, context: str, key: str) -> Outcome | None:
    try:
        value = Outcome(**json.loads(_path(cache, context, key).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return value if value.status in REMEMBERED else None


def _remember(cache: Path, context: str, key: str, outcome: Outcome) -> None:
    files.write_text(_path(cache, context, key), json.dumps(asdict(outcome)) + "\n")
