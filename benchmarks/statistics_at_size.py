"""Seconds and peak memory of every statistics verb at the size of the R4 study.

    python benchmarks/statistics_at_size.py [--share 16] [--folder DIR]

Writes made-up verdicts of R4's grid as the study's score Parquets (2 models x 4 conditions x 5
seeds, evaluated at 20 steps, every item of MMLU, HumanEval, GSM8K and KoBEST at every step: 16
million rows), runs each verb of rules/statistics.smk as a process of its own, and prints its
seconds and peak resident memory, and both in total. `--share 16` makes a sixteenth of the items.
Bars, on two cores: all tables under 6 minutes and 8 GB, `aggregate-scores` under 4 minutes and
6 GB. Exit code 1 where one is missed at full size.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
from processes import measure

from zpdbench.benchmarks import load

MODELS, CONDITIONS = ("small", "large"), ("random", "easy_to_hard", "hard_to_easy", "zpd")
SEEDS, STEPS = range(5), range(500, 10_001, 500)
TASKS = {
    "mmlu": [(name, 246 + (i < 20)) for i, name in enumerate(load("mmlu").tasks)],
    "humaneval": [("humaneval", 164)],
    "gsm8k": [("gsm8k", 1319)],
    "kobest": [("kobest_boolq", 1404), ("kobest_copa", 1000), ("kobest_wic", 1260),
               ("kobest_hellaswag", 500), ("kobest_sentineg", 397)],
}  # fmt: skip
CONFIG = """\
seeds: [0, 1, 2, 3, 4]
models: {small: {parameters: 7.6e+9}, large: {parameters: 1.07e+10}}
conditions: {random: {}, easy_to_hard: {}, hard_to_easy: {}, zpd: {}}
benchmarks: {mmlu: {}, humaneval: {}, gsm8k: {}, kobest: {}}
hypotheses:
  h3a:
    small: small
    large: large
    claimed: {d: {small: 1.5, large: 2.2}}
"""
BARS = {"aggregate-scores": (240.0, 6.0), "total": (360.0, 8.0)}
"""Verb -> seconds and GB."""


def make_scores(folder: Path, share: int) -> tuple[list[str], int]:
    """One Parquet a run, the untuned bases too; their paths and the rows in all."""
    items = pl.concat(
        pl.DataFrame({"item_id": [str(i) for i in range(max(1, size // share))]}).select(
            pl.lit(benchmark).alias("benchmark"), pl.lit(task).alias("task"), "item_id"
        )
        for benchmark, tasks in TASKS.items()
        for task, size in tasks
    )
    rng = np.random.default_rng(0)
    n, paths, rows = items.height, [], 0
    hard = rng.normal(size=n)
    gold = pl.Series("gold", rng.integers(0, 2, n).astype(str))
    folder.mkdir(parents=True)
    for model in MODELS:
        for condition, seed in [("base", 0), *((c, s) for c in CONDITIONS for s in SEEDS)]:
            steps = [0] if condition == "base" else list(STEPS)
            parts = []
            for step in steps:
                skill = 0.5 * (step / STEPS[-1]) ** 0.5 + (0.1 if condition == "zpd" else 0.0)
                right = rng.random(n) < 1 / (1 + np.exp(hard - skill - 0.02 * rng.normal()))
                parts.append(
                    items.with_columns(
                        gold,
                        pl.lit(step).alias("step"),
                        pl.Series("correct", right.astype(np.float32)),
                        pl.Series("confidence", rng.random(n).astype(np.float32)),
                        pl.Series("again", rng.random(n) < 0.9),
                    )
                )
            table = (
                pl.concat(parts)
                .with_columns(
                    pl.lit(model).alias("model"),
                    pl.lit(condition).alias("condition"),
                    pl.lit(seed).alias("seed"),
                    pl.lit(0).alias("sample"),
                    pl.lit("ok").alias("status"),
                    # As in the study's own files, and null where there is no such score.
                    correct_flexible=pl.when(pl.col("benchmark") == "gsm8k").then(_like()),
                    correct_norm=pl.when(pl.col("task") == "kobest_hellaswag").then(_like()),
                    prediction=pl.when(pl.col("correct") > 0.5)
                    .then(pl.col("gold"))
                    .otherwise((1 - pl.col("gold").cast(pl.Int64)).cast(pl.String)),
                )
                .drop("again")
            )
            path = folder / f"{model}-{condition}-{seed}.parquet"
            table.write_parquet(path)
            rows += table.height
            paths.append(str(path))
    return paths, rows


def _like() -> pl.Expr:
    """A verdict that is mostly the same as `correct`."""
    return pl.when("again").then("correct").otherwise(1 - pl.col("correct"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=int, default=1, help="every so-manieth item only")
    parser.add_argument("--folder", help="where to work; else a temporary folder")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        study = folder / "study.yaml"
        study.write_text(CONFIG, "utf-8")
        start = time.perf_counter()
        runs, rows = make_scores(folder / "scores", args.share)
        print(f"{rows:,} rows made in {time.perf_counter() - start:.0f} s", flush=True)

        def table(name: str) -> str:
            return str(folder / f"{name}.tsv")

        of_runs = ("--study", str(study), "--scores", *runs)
        of_table = ("--study", str(study), "--scores", table("scores"))
        verbs: dict[str, tuple[str, ...]] = {
            "aggregate-scores": ("--study", str(study), "--out-scores", table("scores"),
                                 "--out-curves", table("curves"), *runs),
            "h3a": ("--configfile", str(study), "--scores", *runs, "--out", table("h3a")),
            "h3a-sensitivity": (*of_runs, "--out", table("h3a_sensitivity")),
            "calibration": (*of_runs, "--out", table("calibration")),
            "rq1": (*of_table, "--out", table("anova")),
            "h3b": (*of_table, "--out", table("h3b")),
            "r1": (*of_table, "--out", table("r1")),
            "efficiency": (*of_table, "--out", table("efficiency")),
            "power": (*of_table, "--out", table("power")),
            "expected": (*of_table, "--efficiency", table("efficiency"), "--out",
                         table("expected")),
        }  # fmt: skip
        found = {}
        for verb, arguments in verbs.items():
            found[verb] = measure(verb, *arguments)
            print(f"{verb:18} {found[verb][0]:7.1f} s {found[verb][1]:6.2f} GB", flush=True)
    found["total"] = (sum(s for s, _ in found.values()), max(g for _, g in found.values()))
    print(f"{'total, largest':18} {found['total'][0]:7.1f} s {found['total'][1]:6.2f} GB")
    missed = [
        verb
        for verb, (seconds, memory) in BARS.items()
        if args.share == 1 and (found[verb][0] > seconds or found[verb][1] > memory)
    ]
    for verb in missed:
        print(f"{verb}: above its bar of {BARS[verb][0]:.0f} s and {BARS[verb][1]:.0f} GB")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
