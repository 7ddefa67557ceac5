"""`zpdbench aggregate-scores`: scores.tsv (every run) and curves.tsv (mean over seeds by step)."""

from __future__ import annotations

import argparse
from typing import Any

import polars as pl

from zpdbench import files
from zpdbench.errors import UserError
from zpdbench.statistics import effects, metrics, tables

SCORES = (
    "model", "condition", "seed", "step", "benchmark", "task", "metric", "value", "n_items",
    "items",
)  # fmt: skip
CURVES = (
    "model", "condition", "step", "benchmark", "metric", "items", "n_items", "n_seeds", "mean",
    "sd", "low", "high", "level", "interim",
)  # fmt: skip
LEVEL = 0.95


def scores(table: pl.DataFrame) -> pl.DataFrame:
    """All metrics of all runs and steps, on all items asked there and on the interim subset.

    Returns:
        SCORES' columns. `items` is `full` where a step was asked everything, `subset` where the
        fixed interim subset only; the last step and the untuned base have both, because a curve
        compares the same items.
    """
    subset = metrics.interim_items(table)
    everything = metrics.task_scores(table)
    if subset.is_empty():
        return everything.with_columns(pl.lit("full").alias("items")).select(SCORES)
    part = metrics.task_scores(
        table.join(subset, on=["benchmark", "task", "item_id"], how="semi")
    ).with_columns(pl.lit("subset").alias("items"))
    # Where a step asked no more than the subset, the two are one.
    key = [*metrics.POINT, "task", "metric"]
    sizes = part.select(*key, pl.col("n_items").alias("_subset"))
    full = (
        everything.join(sizes, on=key, how="left")
        .filter(pl.col("_subset").is_null() | (pl.col("_subset") != pl.col("n_items")))
        .drop("_subset")
        .with_columns(pl.lit("full").alias("items"))
    )
    _check_same_items(part)
    # Which rows are of the last step decides what a lone full row is: asked in full.
    return (
        pl.concat([part, full])
        .select(SCORES)
        .sort(*metrics.POINT, "items", pl.col("task") != "all", "task", "metric")
    )


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
    """Entry of the verb: args.study (or None), args.out_scores, args.out_curves, args.scores."""
    table = tables.read_scores(args.scores)
    result = scores(table)
    expected = None
    if getattr(args, "study", None):
        from zpdbench.statistics import settings

        expected = len(settings.read(args.study).get("seeds") or []) or None
    files.write_tsv(args.out_scores, SCORES, result.iter_rows())
    files.write_tsv(args.out_curves, CURVES, curves(result, expected_seeds=expected))


def _sortable(value: Any) -> Any:
    return value if isinstance(value, int) else str(value)


def _check_same_items(part: pl.DataFrame) -> None:
    sizes = (
        part.filter(pl.col("task") == "all")
        .group_by("benchmark", "metric")
        .agg(pl.col("n_items").min().alias("least"), pl.col("n_items").max().alias("most"))
        .filter((pl.col("least") != pl.col("most")) & ~pl.col("metric").str.starts_with("count_"))
        .sort("benchmark", "metric")
    )
    if not sizes.is_empty():
        row = sizes.row(0, named=True)
        raise UserError(
            f"{row['benchmark']}: runs were asked {row['least']} to {row['most']} of the interim "
            "items, a curve needs the same ones everywhere",
            fix="generate and score the runs from one items file",
        )
