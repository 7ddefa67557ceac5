"""Verbs as processes of their own, for the scripts that say what one costs at size."""

from __future__ import annotations

import os
import sys
import time


def measure(verb: str, *arguments: str) -> tuple[float, float]:
    """Seconds of one verb, and the peak resident GB of its largest process.

    Raises:
        SystemExit: it failed; with its exit code.
    """
    command = [sys.executable, "-m", "zpdbench.cli", verb, *arguments]
    start = time.perf_counter()
    process = os.spawnv(os.P_NOWAIT, sys.executable, command)
    _, status, usage = os.wait4(process, 0)
    if status:
        raise SystemExit(f"{verb} failed: exit code {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e9
