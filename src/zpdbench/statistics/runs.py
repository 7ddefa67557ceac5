"""Runs' scores as arrays: what every test but h3a's item-level rows starts from (scores.tsv)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zpdbench import grid
from zpdbench.errors import UserError
from zpdbench.statistics import effects, metrics, tables
from zpdbench.statistics.verdicts import MEAN, missing_cells, require_complete

SCALES = ("pp", "logit")


_COLUMNS = {
    "model": pl.String, "condition": pl.String, "seed": pl.String, "step": pl.Int64,
    "benchmark": pl.String, "task": pl.String, "metric": pl.String, "value": pl.Float64,
    "n_items": pl.Int64, "items": pl.String,
}  # fmt: skip
_POINT = ("model", "condition", "seed", "step", "benchmark", "items")


def read_run_scores(path: str | Path) -> pl.DataFrame:
    """The primary metric of every run and step out of scores.tsv.

    Returns:
        model condition seed step benchmark value n_items items (`full` or `subset`).

    Raises:
        UserError: no such file, or not the table that aggregate-scores writes; with its line, a
            score that is none or lies outside [0, 1], a row twice, a run asked other items.
    """
    try:
        text = pl.read_csv(
            path, separator="\t", quote_char=None, null_values=["NA"], infer_schema=False
        )
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(
            f"cannot be read as scores.tsv ({str(error).splitlines()[0][:160]})",
            where=str(path),
            fix="make it by zpdbench aggregate-scores",
        ) from error
    if text.columns[: len(_COLUMNS)] != list(_COLUMNS):
        raise UserError("is not scores.tsv", where=str(path), fix="zpdbench aggregate-scores")
    table = text.select(*_COLUMNS).with_columns(
        pl.col(c).cast(kind, strict=False) for c, kind in _COLUMNS.items()
    )
    primary = pl.col("benchmark").map_elements(metrics.primary_metric, return_dtype=pl.String)
    kept = table.with_row_index("_line", offset=2).filter(
        pl.any_horizontal(pl.col("benchmark", "task", "metric").is_null())
        | ((pl.col("task") == "all") & (pl.col("metric") == primary))
    )
    _check_values(kept, text, str(path))
    _check_rows(kept, str(path))
    return kept.select(*_POINT[:-1], "value", "n_items", "items")


def _check_values(kept: pl.DataFrame, text: pl.DataFrame, path: str) -> None:
    """Every cell holds what its column says."""
    wrong = {
        "value": ~(pl.col("value").is_finite() & pl.col("value").is_between(0, 1)).fill_null(False),
        "n_items": ~(pl.col("n_items") >= 1).fill_null(False),
        "items": ~pl.col("items").is_in(["full", "subset"]).fill_null(False),
    }
    wrong |= {c: pl.col(c).is_null() for c in _COLUMNS if c not in wrong}
    bad = kept.filter(pl.any_horizontal(wrong.values())).head(1)
    if bad.is_empty():
        return
    line = bad["_line"][0]
    column = next(c for c, is_wrong in wrong.items() if bad.select(is_wrong).item())
    value = text[column][line - 2]
    shown = "NA" if value is None else repr(value)
    what = {"value": "score in [0, 1]", "n_items": "number of items", "items": "full or subset"}
    raise UserError(
        f"{column} is {shown}, no {what.get(column, 'value for this column')}",
        where=f"{path}:{line}",
        fix="score that run again, then zpdbench aggregate-scores",
    )


def _check_rows(kept: pl.DataFrame, path: str) -> None:
    """A score stands once, and all runs of a benchmark were asked as many items."""
    double = kept.filter(kept.select(_POINT).is_duplicated()).sort(*_POINT, "_line")
    if not double.is_empty():
        first, second = double.head(2).iter_rows(named=True)
        raise UserError(
            f"the score of {_named(second)} stands in line {first['_line']} already",
            where=f"{path}:{second['_line']}",
            fix="give each run once, then zpdbench aggregate-scores",
        )
    tuned = kept.filter(pl.col("condition") != grid.BASE)
    usual = tuned.group_by("benchmark", "items").agg(pl.col("n_items").mode().min().alias("_usual"))
    other = tuned.join(usual, on=["benchmark", "items"]).filter(
        pl.col("n_items") != pl.col("_usual")
    )
    if not other.is_empty():
        row = other.sort("_line").row(0, named=True)
        raise UserError(
            f"the score of {_named(row)} is over {row['n_items']} items, of other runs over "
            f"{row['_usual']}",
            where=f"{path}:{row['_line']}",
            fix="score all runs on the same items",
        )


def _named(row: dict[str, Any]) -> str:
    return f"{row['model']}/{row['condition']}/{row['seed']} step {row['step']}, {row['benchmark']}"


@dataclass(frozen=True)
class Runs:
    """Final scores of a complete grid: model -> scores[condition, seed, benchmark]."""

    models: list[str]
    conditions: list[str]
    benchmarks: list[str]
    seeds: dict[str, list[str]]
    scores: dict[str, NDArray[np.float64]]
    """In [0, 1]."""
    n_items: NDArray[np.int64]
    problems: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)
    """Seeds that have runs and are not of the plan: left out."""

    def values(self, model: str, benchmark: str, scale: str = "pp") -> NDArray[np.float64]:
        """scores[condition, seed] in percentage points or empirical logits; `mean` over all."""
        scores = self.scores[model]
        scaled = effects.empirical_logit(scores, self.n_items) if scale == "logit" else 100 * scores
        if benchmark == MEAN:
            return scaled.mean(axis=2)
        return scaled[:, :, self.benchmarks.index(benchmark)]

    def differences(
        self, model: str, treatment: str, control: str, benchmark: str, scale: str = "pp"
    ) -> NDArray[np.float64]:
        """Per-seed treatment - control."""
        t, c = self.conditions.index(treatment), self.conditions.index(control)
        values = self.values(model, benchmark, scale)
        points = self.values(model, benchmark)
        return effects.settled(values[t] - values[c], points[t] - points[c])

    def mean_differences(
        self,
        model: str,
        treatment: str,
        control: str,
        benchmarks: Sequence[str],
        scale: str = "pp",
    ) -> NDArray[np.float64]:
        """Per-seed treatment - control, averaged over some benchmarks."""
        return np.mean(
            [self.differences(model, treatment, control, b, scale) for b in benchmarks], axis=0
        )

    @property
    def interim(self) -> str:
        """What is missing, in words; "" if nothing."""
        return missing_cells(self.problems)

    @property
    def remarks(self) -> list[str]:
        """What was left out, in words."""
        return beyond_plan(self.beyond)


def beyond_plan(seeds: Sequence[str]) -> list[str]:
    """The remark that runs of unplanned seeds were left out; [] if there are none."""
    if not seeds:
        return []
    names = ", ".join(seeds[:6]) + (" ..." if len(seeds) > 6 else "")
    return [f"runs of unplanned seeds left out ({names})"]


def final_runs(
    table: pl.DataFrame,
    *,
    models: Sequence[str] | None = None,
    conditions: Sequence[str] | None = None,
    benchmarks: Sequence[str] | None = None,
    seeds: Sequence[str] | None = None,
    allow_missing: bool = False,
) -> Runs:
    """The final scores of all runs of the chosen models and conditions.

    Args:
        table: as `read_run_scores` returns.
        models, conditions, benchmarks: which; None: all that are there (the base apart).
        seeds: those of the plan; None: all that any run has.
        allow_missing: drop the seeds of a model that are not complete, and list them.

    Raises:
        UserError: something named is missing, or no seed is complete.
    """
    tuned = table.filter((pl.col("condition") != grid.BASE) & (pl.col("items") == "full"))
    if tuned.is_empty():
        raise UserError("no fine-tuned run has final scores", fix="score some runs first")
    tuned = tuned.filter(pl.col("step") == tuned["step"].max())
    chosen = {
        "model": _choose(tuned, "model", models),
        "condition": _choose(tuned, "condition", conditions),
        "benchmark": tables.benchmark_order(_choose(tuned, "benchmark", benchmarks)),
    }
    tuned = tuned.filter(pl.col(k).is_in(v) for k, v in chosen.items())
    found = {
        (r["model"], r["condition"], r["seed"], r["benchmark"]): (r["value"], r["n_items"])
        for r in tuned.iter_rows(named=True)
    }
    there = tables.seed_order(tuned["seed"].to_list())
    wanted = tables.seed_order([*map(str, seeds)]) if seeds else there
    problems: list[str] = []
    complete: dict[str, list[str]] = {}
    for model in chosen["model"]:
        complete[model] = []
        for seed in wanted:
            lacking = [
                f"{model}/{c}/{seed}"
                for c in chosen["condition"]
                if any((model, c, seed, b) not in found for b in chosen["benchmark"])
            ]
            problems += lacking
            if not lacking:
                complete[model].append(seed)
    if not allow_missing:
        require_complete(problems)
    empty = [m for m in chosen["model"] if not complete[m]]
    if empty:
        raise UserError(f"no seed of {empty[0]!r} has all its cells", fix="score more runs")
    sizes = [
        max(found[k][1] for k in found if k[3] == benchmark) for benchmark in chosen["benchmark"]
    ]
    scores = {
        model: np.array(
            [
                [[found[model, c, s, b][0] for b in chosen["benchmark"]] for s in complete[model]]
                for c in chosen["condition"]
            ]
        )
        for model in chosen["model"]
    }
    return Runs(
        chosen["model"],
        chosen["condition"],
        chosen["benchmark"],
        complete,
        scores,
        np.array(sizes),
        problems,
        [seed for seed in there if seed not in wanted],
    )


def _choose(table: pl.DataFrame, column: str, wanted: Sequence[str] | None) -> list[str]:
    there = sorted(set(table[column].to_list()), key=tables.natural_key)
    if wanted is None:
        return there
    for name in wanted:
        if name not in there:
            raise UserError(
                f"no final scores of {column} {name!r} (there are {', '.join(there)})",
                fix="score its runs, or change the hypotheses",
            )
    return list(wanted)
