"""Ten thousand programs in a row: nothing is left, nothing grows."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from tests.sandbox.test_red_team import descendants
from zpdbench.sandbox import Limits, Pool, Program

PROMPT = "def f(x):\n    '''Return x.'''\n"
TEST = "def check(candidate):\n    assert candidate(1) == 1\n"
# What real completions do, and a little of what they should not.
MIX = {
    "    return x\n": "passed",
    "    return x + 1\n": "failed",
    "    return [\n": "failed",
    "    raise ValueError(x)\n": "failed",
    "    print('hello', x)\n    return x\n": "passed",
    "    import json, re, collections\n    return x\n": "passed",
    "    return list(range(50000))\n": "failed",
    "    import os\n    os._exit(1)\n": "crashed",
    "    import os\n    os.pipe()\n    return x\n": "passed",
    "    return bytearray(1 << 40)\n": "memory",
}
# Rare, since they cost a second or a new sandbox.
RARE = {
    "    while True: pass\n": "timeout",
    "    print('x' * (1 << 21))\n    return x\n": "output_limit",
    "    open('/tmp/left', 'w').write('x')\n    return x\n": "passed",
    "    import ctypes\n    ctypes.string_at(0)\n": "crashed",
}


def resident_pages(pids: set[int]) -> int:
    """Memory of these processes, in pages."""
    total = 0
    for pid in pids:
        try:
            total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except OSError:
            continue
    return total


def descriptors(pids: set[int]) -> int:
    """Open descriptors of these processes (of those whose list can be read)."""
    total = 0
    for pid in pids:
        try:
            total += len(list(Path(f"/proc/{pid}/fd").iterdir()))
        except OSError:
            continue
    return total


def leftovers() -> set[str]:
    """Temporary files and folders of a sandbox."""
    return {p.name for p in Path(tempfile.gettempdir()).iterdir() if "sandbox" in p.name}


@pytest.mark.slow
def test_ten_thousand_programs_in_a_row() -> None:
    limits = Limits(cpu_seconds=0.3, wall_seconds=3.0, memory_bytes=512 << 20, output_bytes=1 << 20)
    programs, expected = [], []
    common, rare = list(MIX.items()), list(RARE.items())
    for i in range(10_000):
        completion, status = (
            rare[i // 500 % len(rare)] if i % 500 == 499 else common[i % len(common)]
        )
        programs.append(Program(str(i), PROMPT, completion, TEST, "f"))
        expected.append(status)
    outside = descendants()
    temporary = leftovers()
    own_before = descriptors({os.getpid()})
    with Pool(workers=2, limits=limits) as pool:
        assert [v.status for v in pool.judge(programs[:500])] == expected[:500]
        inside = descendants() - outside
        before = (len(inside), descriptors({os.getpid(), *inside}), resident_pages(inside))
        own_pages = resident_pages({os.getpid()})
        statuses = [v.status for v in pool.judge(programs[500:])]
        inside = descendants() - outside
        after = (len(inside), descriptors({os.getpid(), *inside}), resident_pages(inside))
        own_growth = resident_pages({os.getpid()}) - own_pages
    assert statuses == expected[500:]
    assert after[:2] == before[:2], "processes or descriptors"
    assert after[2] < before[2] * 1.1, "memory of the sandboxes"
    # 9,500 verdicts are kept: well under a kilobyte each.
    assert own_growth * os.sysconf("SC_PAGE_SIZE") < 16 << 20
    assert descendants() <= outside
    assert descriptors({os.getpid()}) == own_before
    assert leftovers() <= temporary
