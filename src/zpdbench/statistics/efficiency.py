"""`zpdbench efficiency`: how fast a run learns: the area under its curve, the cost to a score."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from zpdbench import files, grid
from zpdbench.errors import UserError
from zpdbench.hypotheses import Efficiency
from zpdbench.statistics import effects, power, runs, settings, tables
from zpdbench.statistics.effects import NAN
from zpdbench.statistics.verdicts import MEAN, does_not_apply, require_complete, write_rows

COLUMNS = (
    "hypothesis", "model", "benchmark", "unit", "n_seeds", "target", "last_step",
    "reached_treatment", "reached_control", "median_treatment", "median_control",
    "restricted_mean_treatment", "restricted_mean_control", "ratio", "difference", "low", "high",
    "level",
    "saved_percent", "test", "statistic", "df", "p_value", "p_holm", "mde_80", "verdict", "note",
)  # fmt: skip
UNITS = ("area", "steps", "flops", "seconds")
"""`area`: mean score along the way, in points; the others: cost to the control's final score."""
MIN_SEEDS = 5
"""Below it the jackknife of a ratio is not used."""

Array = NDArray[np.float64]
Cost = Callable[[float], float]
"""Cost of a run up to a (fractional) step."""


def isotonic(values: ArrayLike) -> Array:
    """The closest non-decreasing sequence in least squares (pool adjacent violators).

    Source: Barlow et al. 1972; the same as sklearn's IsotonicRegression with equal weights.
    """
    blocks: list[list[float]] = []
    for value in np.asarray(values, dtype=float):
        blocks.append([float(value), 1.0])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, weight = blocks.pop()
            last = blocks[-1]
            total = last[1] + weight
            last[0] = (last[0] * last[1] + mean * weight) / total
            last[1] = total
    return np.concatenate([np.full(int(weight), mean) for mean, weight in blocks])


def first_crossing(steps: ArrayLike, curve: ArrayLike, target: float) -> float:
    """The first step at which a piecewise linear curve reaches `target`; NaN if never."""
    x, y = np.asarray(steps, dtype=float), np.asarray(curve, dtype=float)
    above = np.flatnonzero(y >= target - 1e-12)
    if above.size == 0:
        return NAN
    i = int(above[0])
    if i == 0 or y[i] == y[i - 1]:
        return float(x[i])
    share = (target - y[i - 1]) / (y[i] - y[i - 1])
    return float(x[i - 1] + min(max(share, 0.0), 1.0) * (x[i] - x[i - 1]))


@dataclass(frozen=True)
class Curves:
    """One model and benchmark: curves[seed, step] of the two conditions, on the same items."""

    steps: Array
    treatment: Array
    control: Array


def compare(
    curves: Curves,
    costs_treatment: Sequence[Cost],
    costs_control: Sequence[Cost],
    *,
    smooth: bool = True,
    alpha: float = 0.025,
) -> dict[str, Any]:
    """Cost to the control's mean final score, treatment over control.

    A run's cost is that of the first step at which its (isotonic) curve reaches the target; a run
    that never does is censored at its end. Each condition is summarised by the restricted mean
    (mean of the cost or, if censored, the cost of the whole run), which needs no assumption about
    what would have come later (Irwin 1949; Royston and Parmar 2013). Both conditions face the
    same target, so that the ratio is about 1 where they do not differ. Ratio with Student's t
    interval on the log; its error by leaving out one seed at a time, target included
    (jackknife: Tukey 1958; Miller 1974). `mde_80` is the ratio found in four studies of five.
    """
    last = float(curves.steps[-1])
    fit = isotonic if smooth else lambda v: np.asarray(v, dtype=float)
    control = np.array([fit(c) for c in curves.control])
    treatment = np.array([fit(c) for c in curves.treatment])
    n = len(treatment)
    everyone = np.ones(n, dtype=bool)

    def reach(keep: NDArray[np.bool_]) -> tuple[float, dict[str, Array], dict[str, Array]]:
        target = float(control[keep, -1].mean())
        times, costs = {}, {}
        for name, fits, fs in (
            ("treatment", treatment, costs_treatment),
            ("control", control, costs_control),
        ):
            times[name] = np.array([first_crossing(curves.steps, c, target) for c in fits[keep]])
            costs[name] = np.array(
                [
                    fs[i](last if math.isnan(t) else t)
                    for i, t in zip(np.flatnonzero(keep), times[name], strict=True)
                ]
            )
        return target, times, costs

    target, times, costs = reach(everyone)
    row: dict[str, Any] = {
        "n_seeds": n, "target": 100 * target, "last_step": int(last), "level": 1 - 2 * alpha,
        "test": "jackknife t of the log ratio", "p_value": NAN,
    }  # fmt: skip
    for name in times:
        reached = np.isfinite(times[name])
        row[f"reached_{name}"] = int(reached.sum())
        row[f"restricted_mean_{name}"] = float(costs[name].mean())
        # The Kaplan-Meier median under one common end: a plain median, unless that is censored.
        ordered = np.sort(np.where(reached, costs[name], np.inf))
        median = float(ordered[(n - 1) // 2] + ordered[n // 2]) / 2
        row[f"median_{name}"] = median if math.isfinite(median) else NAN
    top, bottom = costs["treatment"].mean(), costs["control"].mean()
    notes = []
    censored = 2 * n - row["reached_treatment"] - row["reached_control"]
    if censored:
        notes.append(f"{censored} of {2 * n} runs never reach the target: censored at their end")
    if not (top > 0 and bottom > 0):
        notes.append("the untuned base is at the target already: no ratio")
        return {**row, "note": "; ".join(notes)}
    ratio = float(top / bottom)
    row |= {"ratio": ratio, "saved_percent": 100 * (1 - ratio)}
    if n < MIN_SEEDS:
        notes.append(f"below {MIN_SEEDS} seeds: no interval")
        return {**row, "note": "; ".join(notes)}
    without = []
    for seed in range(n):
        keep = everyone.copy()
        keep[seed] = False
        _, _, part = reach(keep)
        without.append([float(part[c].mean()) for c in ("treatment", "control")])
    means = np.array(without)
    if not (means > 0).all():
        notes.append("without one of the seeds the untuned base is at the target: no interval")
        return {**row, "note": "; ".join(notes)}
    se = math.sqrt((n - 1) ** 2 / n) * effects.spread(np.log(means[:, 0] / means[:, 1]))
    if not se > 0:
        notes.append("no spread: no interval")
        return {**row, "note": "; ".join(notes)}
    test = effects.t_test(math.log(ratio), se, n - 1.0, side="smaller", alpha=alpha)
    return {
        **row, "low": math.exp(test.low), "high": math.exp(test.high),
        "statistic": test.statistic, "df": test.df, "p_value": test.p_value,
        "mde_80": math.exp(-power.minimal_effect(se, n - 1.0, alpha=alpha)),
        "note": "; ".join(notes),
    }  # fmt: skip


def area(curves: Curves, *, alpha: float = 0.025) -> dict[str, Any]:
    """Mean score along the way, treatment - control, per seed: paired t, one-sided.

    The area under a curve (trapezoids) over its steps, in points. It needs no target, no smoothing
    and no censoring; how often it finds a faster condition was not simulated. It counts a higher
    end as well as an earlier rise.
    """
    span = float(curves.steps[-1] - curves.steps[0])
    gains = curves.treatment - curves.control
    values = np.asarray(100 * np.trapezoid(gains, curves.steps, axis=1) / span)
    test = effects.paired(values, alpha=alpha)
    n = values.size
    why = "one seed only: no test" if n < 2 else "no spread: no test"
    return {
        "n_seeds": n, "last_step": int(curves.steps[-1]), "level": 1 - 2 * alpha,
        "difference": test.estimate, "low": test.low, "high": test.high,
        "test": "paired t of the mean score along the way", "statistic": test.statistic,
        "df": test.df, "p_value": test.p_value,
        "mde_80": power.minimal_effect(test.standard_error, test.df, alpha=alpha),
        "note": "" if math.isfinite(test.p_value) else why,
    }  # fmt: skip


def ratio(curves: Curves, costs_treatment: Sequence[Cost], costs_control: Sequence[Cost]) -> float:
    """`compare`'s ratio alone, of isotonic curves: what a study of many seeds would find."""
    target = float(np.mean([isotonic(c)[-1] for c in curves.control]))
    means = []
    for group, costs in ((curves.treatment, costs_treatment), (curves.control, costs_control)):
        times = [first_crossing(curves.steps, isotonic(c), target) for c in group]
        last = float(curves.steps[-1])
        spent = [f(last if math.isnan(t) else t) for f, t in zip(costs, times, strict=True)]
        means.append(float(np.mean(spent)))
    return means[0] / means[1]


def missing_cells(
    table: pl.DataFrame,
    models: Sequence[str],
    h: Efficiency,
    benchmarks: Sequence[str],
    planned: Sequence[str] | None = None,
) -> list[str]:
    """Runs (model/condition/seed) that lack a point of the learning curves; [] if none does.

    The points are all that any run was evaluated at; a benchmark that none was evaluated on on
    the way has none.

    Args:
        planned: the study's seeds, if known; None: those that a run of the model has.
    """
    pair = (h.treatment, h.control)
    part = table.filter(
        (pl.col("items") == "subset")
        & pl.col("benchmark").is_in(list(benchmarks))
        & pl.col("condition").is_in(pair)
    )
    points = set(part.select("step", "benchmark").iter_rows())
    there = set(part.select("model", "condition", "seed", "step", "benchmark").iter_rows())
    found = []
    for model in models:
        seeds = planned or tables.seed_order([s for m, _, s, _, _ in there if m == model])
        found += [
            f"{model}/{condition}/{seed}"
            for seed in seeds
            for condition in pair
            if any((model, condition, seed, *point) not in there for point in points)
        ]
    return found


def curves_of(
    table: pl.DataFrame,
    model: str,
    h: Efficiency,
    benchmarks: Sequence[str],
    planned: Sequence[str] | None = None,
) -> tuple[Curves | None, list[str], list[str]]:
    """The curves of a model, mean over `benchmarks`; None without interim steps.

    The untuned base, where it was evaluated, is every curve's step 0.

    Args:
        planned: the study's seeds, if known; others are left out.

    Returns:
        The curves, their seeds, and the seeds that are left out for want of a score.
    """
    part = table.filter(
        (pl.col("model") == model)
        & (pl.col("items") == "subset")
        & pl.col("benchmark").is_in(list(benchmarks))
    )
    found = {
        (r["condition"], r["seed"], r["step"], r["benchmark"]): r["value"]
        for r in part.iter_rows(named=True)
    }
    pair = (h.treatment, h.control)
    steps = sorted({s for c, _, s, _ in found if c in pair})
    there = [s for c, s, _, _ in found if c in pair]
    seeds = tables.seed_order(list(planned) if planned else there)
    complete = [
        seed
        for seed in seeds
        if all((c, seed, s, b) in found for c in pair for s in steps for b in benchmarks)
    ]
    lacking = [seed for seed in seeds if seed not in complete]
    if len(steps) < 2 or not complete:
        return None, [], lacking
    start: list[float] = []
    base = [found[k] for k in sorted(found) if k[0] == grid.BASE]
    if len(base) == len(benchmarks):
        start = [float(np.mean(base))]

    def curve(condition: str) -> Array:
        return np.array(
            [
                start
                + [
                    float(np.mean([found[condition, seed, s, b] for b in benchmarks]))
                    for s in steps
                ]
                for seed in complete
            ]
        )

    axis = np.array([0.0] * len(start) + [float(s) for s in steps])
    return Curves(axis, curve(h.treatment), curve(h.control)), complete, lacking


def read_cost(folder: str | Path, unit: str) -> Cost | None:
    """A run's cumulative FLOPs (trace.parquet) or seconds (steps.timing.parquet) by step.

    A scoring pass is charged to the first step of the block that it chose: the evaluation after
    `step` steps comes before the update of that number. None where the file is not there.
    """
    name = "trace.parquet" if unit == "flops" else "steps.timing.parquet"
    path = Path(folder) / name
    if not path.is_file():
        return None
    try:
        frame = pl.read_parquet(path, columns=["kind", "step", unit])
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError("cannot be read", where=str(path), fix="train the run again") from error
    total = (
        frame.with_columns(
            pl.col("step") + (pl.col("kind") == "update").cast(pl.Int64),
            pl.col(unit).cast(pl.Float64).fill_null(0.0),
        )
        .group_by("step")
        .agg(pl.col(unit).sum())
        .sort("step")
    )
    steps = total["step"].to_numpy().astype(float)
    spent = np.cumsum(total[unit].to_numpy())
    if steps.size == 0 or steps[0] > 0:
        steps, spent = np.insert(steps, 0, 0.0), np.insert(spent, 0, 0.0)
    return lambda step: float(np.interp(step, steps, spent))


def analyse(
    table: pl.DataFrame,
    h: Efficiency,
    models: Sequence[str],
    benchmarks: Sequence[str],
    folders: dict[tuple[str, str, str], Path],
    planned: Sequence[str] | None = None,
) -> list[dict[str, Any]]:
    """Rows of efficiency.tsv: each model, benchmark (and their mean) and unit.

    One-sided test that the ratio is below 1 (the area's difference above 0); Holm over the
    benchmarks within a model and unit, of their mean over the models. No row has a verdict.

    Args:
        folders: (model, condition, seed) -> the run's adapter folder, for FLOPs and seconds.
        planned: the study's seeds, if known; what lacks one of them says so.
    """
    rows: list[dict[str, Any]] = []
    evaluated = set(table.filter(pl.col("items") == "subset")["benchmark"].to_list())
    for model in models:
        for unit in UNITS:
            part: list[dict[str, Any]] = []
            for benchmark in [*benchmarks, MEAN]:
                row: dict[str, Any] = {"hypothesis": "efficiency", "p_value": NAN}
                row |= {"model": model, "benchmark": benchmark, "unit": unit}
                part.append(row)
                names = benchmarks if benchmark == MEAN else [benchmark]
                once = [b for b in names if b not in evaluated]
                curves, seeds, lacking = curves_of(table, model, h, names, planned)
                incomplete = (
                    [f"interim: seeds without all their scores left out ({', '.join(lacking)})"]
                    if lacking and not once
                    else []
                )
                if curves is None:
                    why = "evaluated once only, or no complete seed: no curve"
                    if once and benchmark == MEAN:
                        why = f"evaluated once only ({', '.join(once)}): no curve of the mean"
                    row["note"] = "; ".join([*incomplete, why])
                    continue
                if unit == "area":
                    row |= area(curves, alpha=h.alpha)
                    row["note"] = "; ".join([*incomplete, *([row["note"]] if row["note"] else [])])
                    continue
                costs = {
                    c: [_cost(folders, (model, c, s), unit) for s in seeds]
                    for c in (h.treatment, h.control)
                }
                if any(f is None for fs in costs.values() for f in fs):
                    row["note"] = "; ".join([*incomplete, f"no {unit} recorded for some runs"])
                    row["n_seeds"] = len(seeds)
                    continue
                row |= compare(
                    curves,
                    [f for f in costs[h.treatment] if f],
                    [f for f in costs[h.control] if f],
                    smooth=h.smooth == "isotonic",
                    alpha=h.alpha,
                )
                row["note"] = "; ".join([*incomplete, *([row["note"]] if row["note"] else [])])
            adjusted = effects.holm([r["p_value"] for r in part[:-1]])
            for row, p in zip(part, [*adjusted, NAN], strict=True):
                row["p_holm"] = p
            rows += part
    for unit in UNITS:
        means = [r for r in rows if (r["benchmark"], r["unit"]) == (MEAN, unit)]
        for row, p in zip(means, effects.holm([r["p_value"] for r in means]), strict=True):
            row["p_holm"] = p
    return rows


def _cost(
    folders: dict[tuple[str, str, str], Path], run: tuple[str, str, str], unit: str
) -> Cost | None:
    if unit == "steps":
        return float
    return read_cost(folders[run], unit) if run in folders else None


def main(args: argparse.Namespace) -> None:
    """Entry of the verb: args.study, args.scores (scores.tsv), args.adapters (runs), args.out,
    args.interim.

    The rows in seconds go to `args.out` with the suffix `.timing.tsv`.
    """
    hypotheses = settings.read_hypotheses(args.study)
    config = settings.read(args.study)
    adapters = getattr(args, "adapters", None) or []
    timing = files.beside(args.out, ".timing.tsv")
    reason = settings.inapplicable(hypotheses, "efficiency", config)
    if reason:
        for out in (args.out, timing):
            rows = does_not_apply("efficiency", reason)
            write_rows(out, COLUMNS, rows, hypotheses, adapters=adapters)
        return
    planned = settings.study_seeds(config)
    table = runs.read_run_scores(args.scores)
    folders: dict[tuple[str, str, str], Path] = {}
    for folder in adapters:
        path = Path(folder)
        folders[path.parent.parent.name, path.parent.name, path.name.removeprefix("s")] = path
    h = hypotheses.efficiency
    models = settings.study_names(config, "models") or sorted(
        set(table["model"].to_list()), key=tables.natural_key
    )
    benchmarks = tables.benchmark_order(
        settings.study_names(config, "benchmarks") or table["benchmark"].to_list()
    )
    if not getattr(args, "interim", False):
        require_complete(missing_cells(table, models, h, benchmarks, planned))
    rows = analyse(table, h, models, benchmarks, folders, planned)
    tuned = table.filter(pl.col("condition") != grid.BASE)["seed"].to_list()
    beyond = [s for s in tables.seed_order(tuned) if planned and s not in planned]
    remarks = runs.beyond_plan(beyond)
    # Seconds differ from run to run: they have a file of their own, outside byte comparisons.
    timed = [row for row in rows if row["unit"] == "seconds"]
    steady = [row for row in rows if row not in timed]
    for out, part in ((args.out, steady), (timing, timed)):
        write_rows(out, COLUMNS, part, hypotheses, remarks=remarks, adapters=adapters)
