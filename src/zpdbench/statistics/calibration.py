"""`zpdbench calibration`: does a run's confidence match how often it is right, step by step?"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from zpdbench.errors import UserError
from zpdbench.statistics import effects, metrics, settings, tables
from zpdbench.statistics.effects import NAN
from zpdbench.statistics.verdicts import missing_cells, require_complete, write_rows

COLUMNS = (
    "hypothesis", "model", "condition", "step", "benchmark", "items", "n_items", "bins", "n_seeds",
    "ece", "ece_if_calibrated", "low", "high", "level", "sd", "mean_confidence",
    "accuracy", "test", "statistic", "df", "p_value", "p_holm", "mde_80", "verdict", "note",
)  # fmt: skip
"""No claim is made about calibration: the test's columns, which every table has, are NA."""
BINS = 15
LEVEL = 0.95


def expected_calibration_error(
    confidence: ArrayLike, correct: ArrayLike, bins: int = BINS
) -> float:
    """Mean over bins of |accuracy - confidence|, weighted by the bins' sizes.

    Args:
        confidence: n probabilities given to the chosen answers, in [0, 1].
        correct: n scores in [0, 1].
        bins: of equal width, the right end included (0 in the first).

    Biased upwards at few items a bin: compare only equal numbers of items.
    Source: Naeini, Cooper and Hauskrecht 2015; Guo et al. 2017, eq. 3.
    """
    p, y = np.asarray(confidence, dtype=float), np.asarray(correct, dtype=float)
    if p.size == 0:
        return effects.NAN
    index = np.clip(np.ceil(p * bins).astype(int) - 1, 0, bins - 1)
    gaps = np.bincount(index, weights=y - p, minlength=bins)
    return float(np.abs(gaps).sum() / p.size)


EXACT = 256
"""Answers in a bin up to which the number of right ones is taken exactly, above as normal."""


def error_if_calibrated(confidence: ArrayLike, bins: int = BINS) -> float:
    """The calibration error that perfectly calibrated answers of these confidences would show.

    The expectation of `expected_calibration_error` if answer i is right with probability p_i: in
    each bin that of |right - sum of p| under the Poisson binomial distribution (by convolution;
    above EXACT answers its normal limit, sqrt(2 v / pi)). NaN without answers. An error no larger
    than this shows nothing.
    """
    p = np.clip(np.asarray(confidence, dtype=float), 0.0, 1.0)
    if p.size == 0:
        return effects.NAN
    index = np.clip(np.ceil(p * bins).astype(int) - 1, 0, bins - 1)
    total = 0.0
    for b in range(bins):
        part = p[index == b]
        if part.size > EXACT:
            total += math.sqrt(2 / math.pi * float((part * (1 - part)).sum()))
            continue
        chances = np.ones(1)
        for x in part:
            chances = np.append(chances, 0.0) * (1 - x) + np.append(0.0, chances) * x
        total += float(chances @ np.abs(np.arange(part.size + 1) - part.sum()))
    return total / p.size


def analyse(
    paths: Sequence[str | Path], planned: Sequence[tuple[str, str, str]] = ()
) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows of calibration.tsv: mean over seeds with Student's t interval; and runs not there.

    Only answers that were chosen by their probability have a confidence; without any, one row
    says so.

    Args:
        planned: the runs of the study (model, condition, seed), if known.

    Raises:
        UserError: a confidence lies outside [0, 1].
    """
    found: dict[tuple[str, str, int, str, str], list[tuple[str, float, int, float, float, float]]]
    found = {}
    there: set[tuple[str, ...]] = set()

    def confident() -> Iterator[pl.DataFrame]:
        for path in paths:
            table = tables.read_scores([path])
            there.update(tuple(map(str, run)) for run in table.select(metrics.RUN).unique().rows())
            if "confidence" not in table.columns:
                continue
            table = table.filter(
                pl.col("confidence").is_not_null() & ~pl.col("confidence").is_nan()
            )
            outside = table.filter((pl.col("confidence") < 0) | (pl.col("confidence") > 1.000001))
            if not outside.is_empty():
                raise UserError(
                    f"confidence is {outside['confidence'][0]:g}, must lie in [0, 1]",
                    where=str(path),
                    fix="score the run again",
                )
            yield table

    for table, items in metrics.with_interim_items(confident()):
        _collect(found, table, items)
    lacking = ["/".join(run) for run in planned if run not in there]
    if not found:
        note = "no answer of this study was chosen by its probability: nothing to calibrate"
        return [{"hypothesis": "calibration", "note": note}], lacking
    rows = []
    for (model, condition, step, benchmark, items_), seeds in sorted(found.items()):
        seeds.sort()
        values = [s[1] for s in seeds]
        interval = effects.mean_interval(values, LEVEL)
        rows.append(
            {
                "hypothesis": "calibration", "model": model, "condition": condition,
                "step": step, "benchmark": benchmark, "items": items_, "n_items": seeds[0][2],
                "bins": BINS, "n_seeds": len(seeds), "ece": interval.estimate,
                "ece_if_calibrated": float(np.mean([s[5] for s in seeds])), "low": interval.low,
                "high": interval.high, "level": LEVEL, "sd": effects.spread(values),
                "mean_confidence": float(np.mean([s[3] for s in seeds])),
                "accuracy": float(np.mean([s[4] for s in seeds])),
                "test": "none: Student's t interval over seeds",
                "df": len(seeds) - 1.0 if math.isfinite(interval.low) else NAN,
                "note": "biased upwards at few items: read it beside ece_if_calibrated",
            }
        )  # fmt: skip
    return rows, lacking


def _collect(
    found: dict[tuple[str, str, int, str, str], list[tuple[str, float, int, float, float, float]]],
    table: pl.DataFrame,
    subset: pl.DataFrame | None,
) -> None:
    """Add a run's points: on all items at its last step, on the interim ones at every step."""
    last = table.group_by(*metrics.RUN, "benchmark").agg(pl.col("step").max())
    parts = [("full", table.join(last, on=[*metrics.RUN, "benchmark", "step"], how="semi"))]
    if subset is not None and not subset.is_empty():
        key = ["benchmark", "task", "item_id"]
        parts.append(("subset", table.join(subset, on=key, how="semi")))
    for items, rows in parts:
        for key_, part in rows.group_by(*metrics.POINT):
            model, condition, seed, step, benchmark = key_
            p, y = part["confidence"].to_numpy(), part["correct"].to_numpy()
            found.setdefault(
                (str(model), str(condition), int(str(step)), str(benchmark), items), []
            ).append(
                (
                    str(seed),
                    expected_calibration_error(p, y),
                    part.height,
                    float(p.mean(dtype=float)),
                    float(y.mean(dtype=float)),
                    error_if_calibrated(p),
                )
            )


def main(args: argparse.Namespace) -> None:
    """Entry of the verb: args.study, args.scores (runs' files), args.out, args.interim;
    args.adapters: the runs' folders, for what is to be said of their corpus.
    """
    config = settings.read(args.study)
    models, conditions, seeds = (
        settings.study_names(config, "models"),
        settings.study_names(config, "conditions"),
        settings.study_seeds(config),
    )
    planned = [(m, c, s) for m in models or [] for c in conditions or [] for s in seeds or []]
    rows, lacking = analyse(args.scores, planned)
    if not getattr(args, "interim", False):
        require_complete(lacking)
    write_rows(
        args.out,
        COLUMNS,
        rows,
        settings.read_hypotheses(args.study),
        interim=missing_cells(lacking),
        adapters=getattr(args, "adapters", ()),
    )
