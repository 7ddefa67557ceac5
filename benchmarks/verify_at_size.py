"""Seconds and peak memory of `zpdbench verify` on a bundle of the R4 study's size.

    python benchmarks/verify_at_size.py --data DATA [--share 100] [--repeated 0.5]
        [--folder DIR] [--make-only]

Makes a results folder of R4's grid (2 models x 4 conditions x 5 seeds at 20 steps) with made-up
answers to the authors' own items, every item of MMLU, HumanEval, GSM8K and KoBEST at every step: 16
million rows. Weights are a few random numbers; verdicts, statistics, page and records come from the
real verbs. Its bundle is then verified at levels 0, 1 and 2, each in a process of its own, as a
reviewer would: a level includes those below it. Printed are seconds and the largest process's peak
memory. `--share 100` takes a hundredth of the items; `--repeated` is the share of programs whose
text another run or step gave too: they are run once. Bar, on two cores: level 2 under 30 minutes;
exit code 1 where it is missed at full size. Making takes longer than verifying: a bundle that
`--folder` has from an earlier call (`--make-only`, say) is verified as it is.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from processes import measure

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.artifacts import synthetic

from zpdbench import cli, files, grid, study

SIZES = {"humaneval": 164, "gsm8k": 1319, "mmlu": 14042, "kobest": 4561}
TASKS = {"humaneval": 1, "gsm8k": 1, "mmlu": 57, "kobest": 5}
MINUTES = 30


def config(share: int) -> dict[str, Any]:
    """R4's grid over a `share`-th of its items, each of them asked at every step."""
    models = ("small", "large")
    one = synthetic.CONFIG["models"]["small"]
    sizes = {name: max(TASKS[name], size // share) for name, size in SIZES.items()}
    return {
        **synthetic.CONFIG,
        "seeds": [0, 1, 2, 3, 4],
        "models": dict.fromkeys(models, one),
        "conditions": {c: {"order": c} for c in ("random", "easy_to_hard", "hard_to_easy", "zpd")},
        "training": {"steps": 10_000, "evaluate_every": 500, "learning_rate": 3e-4},
        "benchmarks": {
            name: {"source": "files", "items": size, "interim_items": size}
            for name, size in sizes.items()
        },
        "generations": {"engine": "vllm", "group_by": ["model", "condition", "seed"]},
    }


class Answers:
    """Answers of a run, right with a chance that grows with the step; columns as a job writes them.

    Args:
        repeated: the share of programs whose text is the same in every run and at every step.
    """

    def __init__(self, repeated: float) -> None:
        self.repeated = repeated
        self.rows = 0

    def __call__(self, loaded: study.Study, members: list[grid.Run]) -> pl.DataFrame:
        items = pl.concat(
            pl.read_parquet(loaded.paths.items(name)).select(
                "benchmark", "task", "item_id", "kind", "gold", "choices", "doc", "digest"
            )
            for name in loaded.benchmarks
        ).with_columns(
            solution=pl.when(pl.col("benchmark") == "humaneval").then(
                pl.col("doc").str.json_path_match("$.canonical_solution")
            ),
            count=pl.col("choices").list.len(),
        )
        parts = []
        for run in members:
            steps = [0] if run.condition == grid.BASE else loaded.served_steps
            parts += [self._step(loaded, run, step, items) for step in steps]
        self.rows += sum(part.height for part in parts)
        return pl.concat(parts)

    def _step(
        self, loaded: study.Study, run: grid.Run, step: int, items: pl.DataFrame
    ) -> pl.DataFrame:
        seed = int(files.digest([*run, step])[:8], 16)
        draw = np.random.default_rng(seed)
        skill = 0.3 + 0.4 * step / loaded.training.steps + 0.05 * (run.condition == "zpd")
        adapter = ""
        if step:
            folder = Path(loaded.paths.adapter(*run)) / grid.adapter_step(step)
            adapter = files.digest({p.name: files.sha256_file(p) for p in folder.iterdir()})
        own = pl.when(pl.Series(draw.random(items.height) < self.repeated))
        mark = own.then(pl.lit("")).otherwise(pl.lit(f"    # {'/'.join(map(str, run))} {step}\n"))
        wrong = pl.when("right").then("gold").otherwise(pl.lit("-1"))
        number = pl.concat_str(pl.lit(" The answer is found.\n#### "), wrong)
        body = pl.when("right").then("solution").otherwise(pl.lit("    return None\n"))
        texts = (
            pl.when(pl.col("kind") == "choice")
            .then(pl.lit(""))
            .when(pl.col("solution").is_not_null())
            .then(pl.concat_str(mark, body))
            .otherwise(number)
        )
        return (
            items.with_columns(right=pl.Series(draw.random(items.height) < skill))
            .with_columns(text=texts, logprobs=_logprobs(items, draw, skill))
            .select(
                pl.lit(run.model).alias("model"),
                pl.lit(run.condition).alias("condition"),
                pl.lit(run.seed, pl.Int64).alias("seed"),
                pl.lit(step, pl.Int64).alias("step"),
                *("benchmark", "task", "item_id"),
                pl.lit(0, pl.Int64).alias("sample"),
                "text",
                pl.lit("stop").alias("finish_reason"),
                pl.lit(20, pl.Int64).alias("n_prompt_tokens"),
                (pl.col("text").str.len_chars() // 3).cast(pl.Int64).alias("n_tokens"),
                "logprobs",
                pl.lit(adapter).alias("adapter"),
                pl.col("digest").alias("items"),
                pl.lit("vllm 0 (drawn)").alias("engine"),
            )
            .select(synthetic.COLUMNS)
        )


def _logprobs(items: pl.DataFrame, draw: np.random.Generator, skill: float) -> pl.Series:
    """A log-likelihood a choice (nats), the right one's largest with chance `skill`."""
    counts = items["count"].to_numpy().astype(np.int64)
    row = np.repeat(np.arange(len(counts)), counts)
    place = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    golds = (
        items.select(pl.when(pl.col("count") > 0).then(pl.col("gold")).cast(pl.Int64).fill_null(0))
        .to_series()
        .to_numpy()
    )
    right = draw.random(len(counts)) < skill
    best = np.where(right, golds, (golds + 1) % np.maximum(counts, 1))
    values = -2.0 - draw.random(len(row)) + 1.5 * (place == best[row])
    listed = (
        pl.DataFrame({"row": row, "value": values})
        .group_by("row", maintain_order=True)
        .agg("value")
    )
    every = pl.DataFrame({"row": np.arange(len(counts))}).join(
        listed, on="row", how="left", maintain_order="left"
    )
    return every["value"].fill_null(pl.Series([[]], dtype=pl.List(pl.Float64)).first())


def make(folder: Path, bundle: Path, args: argparse.Namespace) -> None:
    """A study's results below `folder`, and their bundle.

    Raises:
        SystemExit: make-crate failed.
    """
    start = time.perf_counter()
    answers = Answers(args.repeated)
    lock = synthetic.make(folder / "results", config(args.share), answers)
    print(f"{answers.rows:,} answers: {time.perf_counter() - start:.0f} s", flush=True)
    start = time.perf_counter()
    root = Path(__file__).resolve().parents[1]
    command = ["make-crate", "--study", str(lock), "--workflow", str(root)]
    if cli.main([*command, "--out", str(bundle)]):
        raise SystemExit("make-crate failed")
    size = bundle.stat().st_size / 1e9
    print(f"bundle of {size:.2f} GB: {time.perf_counter() - start:.0f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="folder of the authors' benchmark files")
    parser.add_argument("--share", type=int, default=1, help="every so-manieth item only")
    parser.add_argument("--repeated", type=float, default=0.5, help="share of programs seen before")
    parser.add_argument("--folder", help="where to work, and to leave it; else a temporary folder")
    parser.add_argument("--make-only", action="store_true", help="and verify another time")
    args = parser.parse_args()
    os.environ["ZPDBENCH_DATA"] = data = str(Path(args.data).resolve())
    with ExitStack() as stack:
        folder = Path(args.folder or stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ["ZPDBENCH_CACHE"] = str(folder / "cache")
        bundle = folder / "crate.zip"
        if not bundle.exists():
            make(folder, bundle, args)
        if args.make_only:
            return 0
        for level in range(3):
            given = [str(bundle), "--level", str(level), "--data", data, "--jobs", "2"]
            seconds, memory = measure("verify", *given, "--out", str(folder / "verification.tsv"))
            print(f"level 0-{level} {seconds:8.1f} s {memory:6.2f} GB", flush=True)
    missed = args.share == 1 and seconds > 60 * MINUTES
    if missed:
        print(f"level 0-2: above its bar of {MINUTES} minutes")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
