"""Examples a second of the difficulty before training, kiwipiepy's own time apart.

    python benchmarks/difficulty_speed.py --english FILE.json [--korean FILE.json] [--workers 1 2]
        [--rounds 5]

Files hold arrays in Alpaca's format. The model-free part is timed on English texts, with the
table's ranks and frequencies; of Korean ones kiwipiepy, and what is left when its morphemes are
there. Medians of the rounds; the rate by processor time too, which other processes on the machine
lengthen less.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def texts(path: Path) -> tuple[list[str], list[str]]:
    """Prompts and responses of a file."""
    rows = [r for r in json.loads(path.read_text("utf-8")) if r["output"].strip()]
    return [f"{r['instruction']}\n\n{r.get('input', '')}".strip() for r in rows], [
        r["output"] for r in rows
    ]


def timed(what: Callable[[], Any], rounds: int) -> tuple[float, float]:
    """Median seconds and median processor seconds of this process."""
    seconds, spent = [], []
    for _ in range(rounds):
        start, cpu = time.perf_counter(), time.process_time()
        what()
        seconds.append(time.perf_counter() - start)
        spent.append(time.process_time() - cpu)
    return statistics.median(seconds), statistics.median(spent)


def main() -> None:
    """Print a table."""
    from zpdbench.curriculum import difficulty

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--english", type=Path, required=True)
    parser.add_argument("--korean", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    print("part\tworkers\texamples\texamples_per_second\texamples_per_processor_second")

    def report(part: str, workers: int, n: int, what: Callable[[], Any]) -> None:
        seconds, spent = timed(what, args.rounds)
        # With more than one worker the work is in processes whose time is not this one's.
        rate = f"{n / spent:.0f}" if workers == 1 else "NA"
        print(f"{part}\t{workers}\t{n}\t{n / seconds:.0f}\t{rate}")

    prompts, responses = texts(args.english)
    languages = ["en"] * len(prompts)

    def english(workers: int) -> Callable[[], Any]:
        return lambda: difficulty.combine(
            difficulty.measure(prompts, responses, languages, workers), languages
        )

    for workers in args.workers:
        report("English, all", workers, len(prompts), english(workers))
    if args.korean is None:
        return
    prompts_ko, responses_ko = texts(args.korean)
    from kiwipiepy import Kiwi

    pairs = [f"{p}\n{r}" for p, r in zip(prompts_ko, responses_ko, strict=True)]
    for workers in args.workers:
        kiwi = Kiwi(num_workers=workers)
        report("kiwipiepy", workers, len(pairs), lambda k=kiwi: list(k.tokenize(iter(pairs))))
    morphemes = [[(t.form, t.tag) for t in m] for m in Kiwi().tokenize(iter(pairs))]
    languages_ko = ["ko"] * len(pairs)

    def korean() -> Any:
        found = [
            difficulty.korean_features(p, r, m)
            for p, r, m in zip(prompts_ko, responses_ko, morphemes, strict=True)
        ]
        return difficulty.combine(found, languages_ko)

    report("Korean, all but kiwipiepy", 1, len(pairs), korean)


if __name__ == "__main__":
    main()
