"""`zpdbench aggregate-scores`: scores.tsv (every run) and curves.tsv (mean over seeds by step)."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from zpdbench import files, grid
from zpdbench.errors import UserError
from zpdbench.statistics import effects, metrics, notes, settings, tables
from zpdbench.statistics.verdicts import ENDS, register

SCORES = (
    "model", "condition", "seed", "step", "benchmark", "task", "metric", "value", "n_items",
    "items", "interim", "note", *ENDS,
)  # fmt: skip
CURVES = (
    "model", "condition", "step", "benchmark", "metric", "items", "n_items", "n_seeds", "mean",
    "sd", "low", "high", "level", "interim", "note", *ENDS,
)  # fmt: skip
_OF_RUNS = SCORES[: SCORES.index("interim")]
LEVEL = 0.95


def scores(table: pl.DataFrame, subset: pl.DataFrame | None = None) -> pl.DataFrame:
    """All metrics of all runs and steps, on all items asked and on the interim subset.

    Args:
        table: checked verdicts, as `tables.read_scores` returns them.
        subset: benchmark task item_id of the fixed interim subset; None: what this table's runs
            were asked before their last step.

    Returns:
        SCORES' columns up to `items`, which is `full` at a run's last step and for the untuned
        base, and `subset` at every step of a benchmark that is also evaluated on the way: a curve
        compares the same items, so the last step and the base have both.
    """
    if subset is None:
        subset = metrics.interim_items(table)
    last = table.group_by(*metrics.RUN, "benchmark").agg(pl.col("step").max())
    full = metrics.task_scores(
        table.join(last, on=[*metrics.RUN, "benchmark", "step"], how="semi")
    ).with_columns(pl.lit("full").alias("items"))
    parts = [full]
    if not subset.is_empty():
        part = table.join(subset, on=["benchmark", "task", "item_id"], how="semi")
        if not part.is_empty():
            parts.append(metrics.task_scores(part).with_columns(pl.lit("subset").alias("items")))
    return _sorted(pl.concat(parts).select(_OF_RUNS))


def scores_of_files(paths: Sequence[str | Path]) -> pl.DataFrame:
    """`scores` of many files, one in memory at a time; the bases come last for the subset.

    Raises:
        UserError: as `tables.read_scores`; a run in two files; runs asked different items.
    """
    owner: dict[tuple[str, ...], str] = {}

    def once() -> Iterator[pl.DataFrame]:
        for path in paths:
            table = tables.read_scores([path])
            runs = table.select(pl.col(c).cast(pl.String) for c in metrics.RUN).unique()
            for run in sorted(runs.iter_rows()):
                if run in owner:
                    raise UserError(
                        f"the run {'/'.join(run)} is also in {owner[run]}",
                        where=str(path),
                        fix="give each run once",
                    )
                owner[run] = str(path)
            yield table

    parts = [scores(t, items) for t, items in metrics.with_interim_items(once())]
    result = _sorted(pl.concat(parts))
    _check_same_items(result)
    return result


def _sorted(table: pl.DataFrame) -> pl.DataFrame:
    return table.sort(*metrics.POINT, "items", pl.col("task") != "all", "task", "metric")


def curves(run_scores: pl.DataFrame, *, expected_seeds: int | None = None) -> list[list[Any]]:
    """Mean over seeds of each benchmark's primary metric, with sd and Student's t interval.

    Args:
        run_scores: as `scores` returns.
        expected_seeds: seeds of a complete grid; fewer mark a row as interim.
    """
    primary = run_scores.filter(
        (pl.col("task") == "all")
        & (
            pl.col("metric")
            == pl.col("benchmark").replace_strict(
                {b: metrics.primary_metric(b) for b in run_scores["benchmark"].unique().to_list()},
                default=None,
                return_dtype=pl.String,
            )
        )
    )
    rows: list[list[Any]] = []
    by = ["model", "condition", "step", "benchmark", "metric", "items"]
    for key, group in sorted(
        ((k, g) for k, g in primary.group_by(by)), key=lambda pair: tuple(map(_sortable, pair[0]))
    ):
        values = group.sort("seed")["value"].to_numpy()
        interval = effects.mean_interval(values, LEVEL)
        expected = 1 if key[1] == "base" else expected_seeds
        rows.append(
            [
                *key,
                int(group["n_items"][0]),
                len(values),
                interval.estimate,
                effects.spread(values),
                interval.low,
                interval.high,
                LEVEL,
                expected is not None and len(values) < expected,
            ]
        )
    return rows


def main(args: argparse.Namespace) -> None:
    """Entry of the verb: args.study (or None), args.out_scores, args.out_curves, args.scores;
    args.adapters: the runs' folders, for what is to be said of their corpus.

    Hypotheses are tested elsewhere; the form of a benchmark and their registration end every row.
    """
    result = scores_of_files(args.scores)
    expected: int | None = None
    registration: list[str | None] = [None, None]
    forms: dict[str, str] = {}
    if getattr(args, "study", None):
        config = settings.read(args.study)
        expected = len(config.get("seeds") or []) or None
        if config.get("hypotheses"):
            registration = [*register(settings.read_hypotheses(args.study))]
        forms = settings.study_forms(config)
    said = notes.of_corpus(getattr(args, "adapters", ()))
    interim = expected is not None and _is_incomplete(result, expected)

    def ended(row: Sequence[Any], columns: Sequence[str]) -> list[Any]:
        form = forms.get(str(row[columns.index("benchmark")]))
        return [*row, "; ".join(said) or None, form, *registration]

    of_runs = (ended([*row, interim], SCORES) for row in result.iter_rows())
    files.write_tsv(args.out_scores, SCORES, of_runs)
    by_step = (ended(row, CURVES) for row in curves(result, expected_seeds=expected))
    files.write_tsv(args.out_curves, CURVES, by_step)


def _is_incomplete(run_scores: pl.DataFrame, expected_seeds: int) -> bool:
    """Whether a condition of a model has fewer seeds than a complete grid."""
    runs = run_scores.filter(pl.col("condition") != grid.BASE)
    seeds = runs.group_by("model", "condition").agg(pl.col("seed").n_unique())["seed"]
    full = runs["model"].n_unique() * runs["condition"].n_unique()
    return len(seeds) < full or bool((seeds < expected_seeds).any())


def _sortable(value: Any) -> Any:
    return value if isinstance(value, int) else str(value)


def _check_same_items(result: pl.DataFrame) -> None:
    sizes = (
        result.filter(
            (pl.col("task") == "all")
            & (pl.col("condition") != grid.BASE)
            & ~pl.col("metric").str.starts_with("count_")
        )
        .group_by("benchmark", "metric", "items")
        .agg(pl.col("n_items").min().alias("least"), pl.col("n_items").max().alias("most"))
        .filter(pl.col("least") != pl.col("most"))
        .sort("benchmark", "metric", "items")
    )
    if not sizes.is_empty():
        row = sizes.row(0, named=True)
        which = "at their last step" if row["items"] == "full" else "on the way"
        raise UserError(
            f"{row['benchmark']}: runs were asked {row['least']} to {row['most']} items {which}, "
            "but they are compared on the same ones",
            fix="generate and score the runs from one items file",
        )
