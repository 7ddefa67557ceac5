"""Programs to verdicts: each distinct program is judged once, and remembered by its content."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
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


def judge(
    programs: Sequence[Program],
    references: Sequence[Program],
    *,
    workers: int,
    seconds: float | None = None,
    floor: float = FLOOR_SECONDS,
    waive: Sequence[str] = (),
    cache: Path | None = None,
) -> dict[str, str]:
    """The status of each program, by key.

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
    context = _digest([_sandbox_digest(), seconds, floor, sorted(waive)])
    statuses: dict[str, str] = {}
    if cache is not None:
        for key in list(waiting):
            if (status := _recall(cache, context, key)) is not None:
                statuses[key] = status
                del waiting[key]
        if statuses:
            print(f"{len(statuses)} of {len(programs)} verdicts are remembered", flush=True)
    if not waiting:
        return statuses
    limit = seconds or _calibrated(references, floor, waive, cache)
    todo = list(waiting.values())
    with (
        Pool(min(workers, len(todo)), _limits(limit), waive) as pool,
        track("programs", len(todo), "programs") as progress,
    ):

        def done(verdict: sandbox.Verdict) -> None:
            statuses[verdict.key] = verdict.status
            if cache is not None and verdict.status in REMEMBERED:
                _remember(cache, context, verdict.key, verdict.status)
            progress.advance()

        pool.judge(todo, done)
    return statuses


def _calibrated(
    references: Sequence[Program], floor: float, waive: Sequence[str], cache: Path | None
) -> float:
    """The time limit of this machine, measured once and remembered beside the verdicts."""
    keys = [r.key for r in references]
    machine = [platform.node(), platform.processor(), os.cpu_count(), floor]
    name = f"limit-{_digest([keys, machine, _sandbox_digest(), sorted(waive)])}.timing.json"
    path = None if cache is None else cache / name
    if path is not None:
        try:
            return float(json.loads(path.read_text("utf-8"))["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
    seconds = sandbox.calibrate(references, floor=floor, waive=waive)
    if path is not None:
        files.write_text(path, json.dumps({"seconds": seconds}) + "\n")
    return seconds


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


@lru_cache
def _sandbox_digest() -> str:
    folder = Path(sandbox.__file__).parent
    return _digest({p.name: files.sha256_file(p) for p in sorted(folder.glob("*.py"))})


def _path(cache: Path, context: str, key: str) -> Path:
    return cache / context[:16] / key[:2] / f"{key}.json"


def _recall(cache: Path, context: str, key: str) -> str | None:
    try:
        value: Mapping[str, str] = json.loads(_path(cache, context, key).read_text("utf-8"))
        return value["status"] if value["status"] in REMEMBERED else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(cache: Path, context: str, key: str, status: str) -> None:
    files.write_text(_path(cache, context, key), json.dumps({"status": status}) + "\n")
