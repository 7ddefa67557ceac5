"""How fast one core multiplies float32 matrices: what plans scale their CPU rates by.

In a process of its own, as a BLAS reads its number of threads when it is loaded.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time

from zpdbench.errors import UserError

_SIZE = 512
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def measure() -> float:
    """GFLOP/s of one core, in less than half a second where nothing else runs.

    The best of many products of some milliseconds, in CPU time: what else the machine does
    neither counts nor, as a rule, spoils all of them.

    Raises:
        UserError: the process that measures failed.
    """
    environment = {**os.environ, **dict.fromkeys(_THREADS, "1")}
    done = subprocess.run(
        [sys.executable, "-m", "zpdbench.core_rate"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        return float(done.stdout)
    except ValueError:
        raise UserError(
            f"this CPU's rate could not be measured: {done.stderr.strip().splitlines()[-1:]}",
            fix="give it by --core-gflops (95 is that of a core with AVX-512)",
        ) from None


def best_of(seconds: float, size: int = _SIZE, least: int = 10) -> float:
    """GFLOP/s of the fastest of `least` products or more of two `size` x `size` matrices."""
    import numpy as np

    left = np.random.default_rng(0).random((size, size), dtype=np.float32)
    right, out = np.ascontiguousarray(left.T), np.empty_like(left)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken) < least:
        start = time.thread_time()
        np.matmul(left, right, out=out)
        taken.append(time.thread_time() - start)
    return 2 * size**3 / min(taken) / 1e9


if __name__ == "__main__":
    print(best_of(0.25))
