"""`zpdbench h3a-sensitivity`: H3a again, by every other defensible method, in one table."""

from __future__ import annotations

import argparse
import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zpdbench.hypotheses import H3a
from zpdbench.statistics import effects, h3a, metrics, power, resampling, settings, tables
from zpdbench.statistics.effects import NAN
from zpdbench.statistics.resampling import MIN_SEEDS_BOOTSTRAP
from zpdbench.statistics.verdicts import INCONCLUSIVE, MEAN, judge, missing_cells, write_rows

COLUMNS = (
    "hypothesis", "benchmark", "scale", "method", "model_small", "model_large", "n_seeds",
    "n_items", "difference", "low", "high", "level", "statistic", "df", "p_value", "p_holm",
    "mde_80", "verdict", "note",
)  # fmt: skip
DRAWS = 2000
_BLOCK = 200
_ROLES = ("small", "large")
_KINDS = ("treatment", "control")


def from_cells(cells: h3a.Cells, h: H3a) -> list[dict[str, Any]]:
    """The rows that need no more than the runs' scores, for every benchmark and scale.

    The regressions have a point and a p but no interval: they ignore the seeds' blocks, and with
    correlated conditions their intervals cover up to 100 % (validation.tsv).
    """
    rows: list[dict[str, Any]] = []
    for benchmark in [*cells.benchmarks, MEAN]:
        for scale in ("pp", "logit"):
            d = {r: cells.differences(r, benchmark, scale) for r in _ROLES}
            base = _base(cells, h, benchmark, scale)
            methods = {
                "Welch t (primary)": effects.welch(
                    d["small"], d["large"], side=h.side, alpha=h.alpha, level=1 - h.alpha
                ),
                "pooled t of per-seed differences": _pooled(d["small"], d["large"], h),
            }
            notes = {
                "pooled t of per-seed differences": "assumes equal spread in both models",
                "pooled OLS score ~ model * condition": "ignores the seeds' blocks: no interval",
                "OLS with HC3": "ignores the seeds' blocks: no interval; Long and Ervin 2000",
            }
            methods |= _regressions(cells, h, benchmark, scale)
            why = (
                "one seed only" if min(map(len, d.values())) < 2 else "zero variance between seeds"
            )
            for method, test in methods.items():
                notes[method] = "; ".join(
                    n for n in (notes.get(method), math.isnan(test.p_value) and f"{why}: NA") if n
                )
                rows.append(
                    {
                        **base, "method": method, "difference": test.estimate, "low": test.low,
                        "high": test.high, "statistic": test.statistic, "df": test.df,
                        "p_value": test.p_value, "_bound": test.bound,
                        "mde_80": _minimal_effect(test, h), "note": notes.get(method, ""),
                    }
                )  # fmt: skip
            spreads = [(effects.spread(d[r]), d[r].size) for r in _ROLES]
            primary = power.welch_minimal_effect(*spreads[0], *spreads[1], alpha=h.alpha)
            rows[-len(methods)]["mde_80"] = primary
            shuffled = resampling.permutation(d["small"], d["large"], side=h.side)
            how = "all" if shuffled.is_exact else "a sample of"
            difference = float(d["large"].mean() - d["small"].mean())
            for method, p in (
                ("permutation of model labels", shuffled.p_value),
                ("permutation, studentised", shuffled.p_studentised),
            ):
                rows.append(
                    {
                        **base, "method": method, "difference": difference, "p_value": p,
                        "note": f"{how} {shuffled.relabellings} labellings"
                        + (f"; {why}: NA" if math.isnan(p) else ""),
                    }
                )  # fmt: skip
        rows.append(_g_row(cells, h, benchmark))
    return rows


def _minimal_effect(test: effects.Test, h: H3a) -> float:
    """The difference that a t test with this error finds four times in five; NaN where undefined.

    For the regressions, which take the conditions of a seed as independent, that is what they
    themselves would say.
    """
    return power.minimal_effect(test.standard_error, test.df, alpha=h.alpha)


def _pooled(first: NDArray[np.float64], second: NDArray[np.float64], h: H3a) -> effects.Test:
    estimate = float(second.mean() - first.mean())
    sx, sy = effects.spread(first), effects.spread(second)
    if not sx + sy > 0:
        return effects.Test(estimate, NAN, NAN, NAN, NAN, NAN, NAN, NAN)
    n, m = first.size, second.size
    df = n + m - 2
    se = math.sqrt(((n - 1) * sx**2 + (m - 1) * sy**2) / df * (1 / n + 1 / m))
    return effects.t_test(estimate, se, df, side=h.side, alpha=h.alpha, level=1 - h.alpha)


def _regressions(cells: h3a.Cells, h: H3a, benchmark: str, scale: str) -> dict[str, effects.Test]:
    """The interaction of score ~ model * condition over the four cells' runs, without limits."""
    import statsmodels.api as sm

    values, is_large, is_treated = [], [], []
    for role in _ROLES:
        for kind in _KINDS:
            y = cells.values(role, kind, benchmark, scale)
            values.append(y)
            is_large.append(np.full(y.size, role == "large", dtype=float))
            is_treated.append(np.full(y.size, kind == "treatment", dtype=float))
    y, a, b = map(np.concatenate, (values, is_large, is_treated))
    kinds = {"pooled OLS score ~ model * condition": "nonrobust", "OLS with HC3": "HC3"}
    if all(not effects.spread(v) > 0 for v in values):
        d = {r: cells.differences(r, benchmark, scale).mean() for r in _ROLES}
        undefined = effects.Test(float(d["large"] - d["small"]), *[NAN] * 7)
        return dict.fromkeys(kinds, undefined)
    design = np.column_stack([np.ones_like(a), a, b, a * b])
    found = {}
    for name, kind in kinds.items():
        fit = sm.OLS(y, design).fit(cov_type=kind, use_t=True)
        test = effects.t_test(
            float(fit.params[3]), float(fit.bse[3]), float(fit.df_resid),
            side=h.side, alpha=h.alpha, level=1 - h.alpha,
        )  # fmt: skip
        found[name] = replace(test, low=NAN, high=NAN)
    return found


def _g_row(cells: h3a.Cells, h: H3a, benchmark: str) -> dict[str, Any]:
    """Bootstrap of seeds of the difference of two g, the models apart."""
    base = _base(cells, h, benchmark, "hedges_g")
    pairs = {r: tuple(cells.values(r, k, benchmark, "pp") for k in _KINDS) for r in _ROLES}
    sizes = {r: effects.hedges_g(*pairs[r]) for r in _ROLES}
    difference = sizes["large"].g - sizes["small"].g
    row = {**base, "method": "bootstrap of seeds, percentile", "difference": difference}
    n = min(s.n for s in sizes.values())
    if n < MIN_SEEDS_BOOTSTRAP or not math.isfinite(difference):
        return {
            **row,
            "note": f"below {MIN_SEEDS_BOOTSTRAP} seeds (or without spread) a bootstrap of seeds "
            "covers too little: NA",
        }
    rng = np.random.default_rng(_stable_seed(benchmark, "g"))
    draws = {}
    for role in _ROLES:
        t, c = pairs[role]
        w = resampling.seed_draws(t.size, DRAWS, rng)
        mt, mc = w @ t, w @ c
        variance = (w @ t**2 - mt**2 + w @ c**2 - mc**2) / 2 * t.size / (t.size - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            draws[role] = sizes[role].correction * (mt - mc) / np.sqrt(variance)
    values = draws["large"] - draws["small"]
    values = values[np.isfinite(values)]
    interval = resampling.percentile(values, difference, 1 - h.alpha)
    return {**row, "low": interval.low, "high": interval.high, "note": f"{values.size} resamples"}


@dataclass(frozen=True)
class Items:
    """A benchmark's verdicts at the final step: one row an item, one column a run."""

    values: NDArray[np.float64]
    """[items, runs] mean over samples; for macro-F1 see `confusion`."""
    strata: NDArray[np.int64]
    """[items] the task's number, for benchmarks that are a mean over tasks; else 0."""
    gold: NDArray[np.int64] | None
    prediction: NDArray[np.int64] | None
    """[items, runs] label numbers."""

    def scores(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """[draws, runs] a benchmark's score under item weights [draws, items]."""
        if self.prediction is None or self.gold is None:
            return (weights @ self.values) / weights.sum(axis=1, keepdims=True)
        tasks, sizes = [], []
        for task in np.unique(self.strata):
            members = self.strata == task
            sizes.append(np.count_nonzero(members))
            w, gold, prediction = weights[:, members], self.gold[members], self.prediction[members]
            total = np.zeros((len(weights), prediction.shape[1]))
            present = np.zeros_like(total)
            for label in np.unique(np.concatenate([gold, prediction.ravel()])):
                is_gold = (gold == label).astype(float)
                is_said = (prediction == label).astype(float)
                hits = w @ (is_said * is_gold[:, None])
                size = w @ is_said + (w @ is_gold)[:, None]
                with np.errstate(divide="ignore", invalid="ignore"):
                    total += np.where(size > 0, 2 * hits / size, 0.0)
                present += size > 0
            tasks.append(total / present)
        # As metrics.benchmark_scores: each task counts by its items, which a resample keeps.
        mean: NDArray[np.float64] = np.average(tasks, axis=0, weights=sizes)
        return mean


def items_of(table: pl.DataFrame, benchmark: str, runs: list[tuple[str, str, str]]) -> Items:
    """A benchmark's verdicts as a matrix, columns in the order of `runs`."""
    part = table.filter(pl.col("benchmark").cast(pl.String) == benchmark).with_columns(
        pl.col(c).cast(pl.String) for c in ("model", "condition", "seed", "task", "item_id")
    )
    order = pl.DataFrame(runs, schema=list(metrics.RUN), orient="row").with_row_index("_run")
    is_f1 = tables.is_macro_f1(benchmark)
    wanted = [pl.col("correct").cast(pl.Float64).mean()]
    if is_f1:
        wanted += [pl.col("gold").first(), pl.col("prediction").first()]
    part = (
        part.join(order, on=metrics.RUN)
        .group_by("_run", "task", "item_id")
        .agg(wanted)
        .sort("_run", "task", "item_id")
    )
    n = part.height // len(runs)
    values = part["correct"].to_numpy().reshape(len(runs), n).T
    first = part.head(n)
    strata = first["task"].rank("dense").to_numpy().astype(np.int64)
    if not is_f1:
        return Items(np.ascontiguousarray(values), np.zeros(n, dtype=np.int64), None, None)
    labels = sorted(set(part["gold"]) | set(part["prediction"]))
    number = {label: i for i, label in enumerate(labels)}
    gold, said = (
        part[c].replace_strict(number, return_dtype=pl.Int64).to_numpy()
        for c in ("gold", "prediction")
    )
    return Items(values, strata, gold[:n], np.ascontiguousarray(said.reshape(len(runs), n).T))


def from_items(table: pl.DataFrame, cells: h3a.Cells, h: H3a) -> list[dict[str, Any]]:
    """The rows that treat items as a sample too: bootstrap of items, and two-way clusters.

    Items are crossed with runs: one resample of items (multinomial weights, within a task where
    the score averages over tasks) serves all runs. Seeds enter by their own spread.
    """
    names = {"small": h.small, "large": h.large}
    kinds = {"treatment": h.treatment, "control": h.control}
    runs = [(names[r], kinds[k], s) for r in _ROLES for k in _KINDS for s in cells.seeds[r]]
    draws: dict[str, dict[str, NDArray[np.float64]]] = {}
    rows: list[dict[str, Any]] = []
    for benchmark in cells.benchmarks:
        items = items_of(table, benchmark, runs)
        draws[benchmark] = _item_draws(items, {r: len(cells.seeds[r]) for r in _ROLES}, benchmark)
        rows.append(_item_row(cells, h, benchmark, draws[benchmark]))
        if items.prediction is None:
            rows.append(_cluster_row(items, cells, h, benchmark))
    means = {r: np.mean([d[r] for d in draws.values()], axis=0) for r in _ROLES}
    rows.append(_item_row(cells, h, MEAN, means))
    return rows


def _item_draws(items: Items, n: dict[str, int], benchmark: str) -> dict[str, NDArray[np.float64]]:
    """Model role -> [draws, seeds] treatment - control under resampled items, in points."""
    rng = np.random.default_rng(_stable_seed("items", benchmark))
    parts: dict[str, list[NDArray[np.float64]]] = {r: [] for r in _ROLES}
    for start in range(0, DRAWS, _BLOCK):
        size = min(_BLOCK, DRAWS - start)
        w = np.empty((size, len(items.strata)))
        for task in np.unique(items.strata):
            members = np.flatnonzero(items.strata == task)
            w[:, members] = resampling.item_draws(len(members), size, rng)
        columns = np.split(
            100 * items.scores(w), np.cumsum([n["small"], n["small"], n["large"]]), axis=1
        )
        parts["small"].append(columns[0] - columns[1])
        parts["large"].append(columns[2] - columns[3])
    return {r: np.concatenate(p) for r, p in parts.items()}


def crossed_test(
    differences: dict[str, NDArray[np.float64]],
    shared: float,
    own: dict[str, float],
    h: H3a,
) -> effects.Test:
    """t test of the difference of the models' effects, for new seeds and new items.

    Args:
        differences: per-seed differences of each model role.
        shared: variance of the contrast under items resampled for all runs at once.
        own: for each role the mean variance of one seed's difference under resampled items.

    Variance V_seeds + (shared - sum of own / n) n / (n - 1): what items contribute beyond the
    noise that the spread between seeds holds already (for linear scores the two-way cluster
    formula V_seed + V_item - V_both of Cameron, Gelbach and Miller 2011, V_both about each run's
    own mean; plain resampling of both counts that noise three times, Owen 2007). Degrees of
    freedom by Satterthwaite, items' taken as many.
    """
    small, large = differences["small"], differences["large"]
    estimate = float(large.mean() - small.mean())
    pieces = {r: effects.spread(d) ** 2 / d.size for r, d in differences.items()}
    seeds = sum(pieces.values())
    if not seeds > 0:
        return effects.Test(estimate, NAN, NAN, NAN, NAN, NAN, NAN, NAN)
    n = min(small.size, large.size)
    both = sum(own[r] / differences[r].size for r in _ROLES)
    variance = seeds + max(shared - both, 0.0) * n / (n - 1)
    df = variance**2 / sum(pieces[r] ** 2 / (differences[r].size - 1) for r in _ROLES)
    return effects.t_test(
        estimate, math.sqrt(variance), df, side=h.side, alpha=h.alpha, level=1 - h.alpha
    )


def _item_row(
    cells: h3a.Cells, h: H3a, benchmark: str, draws: dict[str, NDArray[np.float64]]
) -> dict[str, Any]:
    d = {r: cells.differences(r, benchmark, "pp") for r in _ROLES}
    contrast = draws["large"].mean(axis=1) - draws["small"].mean(axis=1)
    test = crossed_test(
        d, float(contrast.var()), {r: float(draws[r].var(axis=0).mean()) for r in _ROLES}, h
    )
    note = f"for new items as well as new seeds; {DRAWS} resamples of the items"
    return _crossed_row(cells, h, benchmark, "bootstrap of items, crossed with seeds", test, note)


def _cluster_row(items: Items, cells: h3a.Cells, h: H3a, benchmark: str) -> dict[str, Any]:
    """Item-level linear model, clusters by seed block and, crossed, by item."""
    n = {r: len(cells.seeds[r]) for r in _ROLES}
    split = np.split(100 * items.values, np.cumsum([n["small"], n["small"], n["large"]]), axis=1)
    d = {"small": split[0] - split[1], "large": split[2] - split[3]}  # [items, seeds]
    size = len(items.values)
    by_item = d["large"].mean(axis=1) - d["small"].mean(axis=1)
    test = crossed_test(
        {r: x.mean(axis=0) for r, x in d.items()},
        float(by_item.var()) / size,
        {r: float(x.var(axis=0).mean()) / size for r, x in d.items()},
        h,
    )
    note = "for new items as well as new seeds; linear in correct"
    return _crossed_row(cells, h, benchmark, "item-level, clustered by seed and item", test, note)


def _crossed_row(
    cells: h3a.Cells, h: H3a, benchmark: str, method: str, test: effects.Test, note: str
) -> dict[str, Any]:
    if math.isnan(test.p_value):
        note = "one seed only, or zero variance between seeds: NA"
    return {
        **_base(cells, h, benchmark, "pp"), "method": method, "difference": test.estimate,
        "low": test.low, "high": test.high, "statistic": test.statistic, "df": test.df,
        "p_value": test.p_value, "_bound": test.bound, "mde_80": _minimal_effect(test, h),
        "note": note,
    }  # fmt: skip


def _base(cells: h3a.Cells, h: H3a, benchmark: str, scale: str) -> dict[str, Any]:
    sizes = cells.n_items
    return {
        "hypothesis": "h3a", "benchmark": benchmark, "scale": scale, "model_small": h.small,
        "model_large": h.large, "n_seeds": min(len(s) for s in cells.seeds.values()),
        "n_items": int(
            sizes.sum() if benchmark == MEAN else sizes[cells.benchmarks.index(benchmark)]
        ),
        "level": 1 - h.alpha,
    }  # fmt: skip


def judge_rows(rows: list[dict[str, Any]], h: H3a) -> None:
    """Holm over the benchmarks within a method and scale, and how its verdict would be.

    `supported` as in h3a.tsv; `contradicted` by the upper bound at alpha, which p alone tells
    where the margin is 0. A method without a p (or with another margin to look at than it has a
    bound for) has NA.
    """
    families: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["benchmark"] != MEAN:
            families.setdefault((row["method"], row["scale"]), []).append(row)
    for family in families.values():
        adjusted = effects.holm([r.get("p_value", NAN) for r in family])
        for row, p in zip(family, adjusted, strict=True):
            row["p_holm"] = p
    for row in rows:
        own = row.get("p_value", NAN)
        p = own if row["benchmark"] == MEAN else row["p_holm"]
        bound = row.pop("_bound", NAN)
        if math.isnan(p):
            row["verdict"] = INCONCLUSIVE if "NA" in row["note"] else None
            continue
        margin = h.margin if row["scale"] == "pp" else 0.0
        if math.isnan(bound) and margin == 0:
            # A permutation has no bound: the other side's test says the same.
            bound = -1.0 if own > 1 - h.alpha else 1.0
        row["verdict"] = judge(p, bound, margin, h.alpha)


def _stable_seed(*words: str) -> list[int]:
    """A random generator's seed that the whole of every word decides."""
    text = "\0".join(("h3a", *words)).encode()
    return [int.from_bytes(hashlib.sha256(text).digest()[:8], "little")]


def main(args: argparse.Namespace) -> None:
    """Entry of the verb: args.study, args.scores (runs' files), args.out, args.interim;
    args.adapters: the runs' folders, for what is to be said of their corpus.
    """
    hypotheses = settings.read_hypotheses(args.study, need="h3a")
    h = hypotheses.h3a
    assert h is not None
    config = settings.read(args.study)
    paths = [args.scores] if isinstance(args.scores, str | Path) else list(args.scores)
    cells, table = h3a.read_cells(
        paths,
        h,
        h.benchmarks,
        allow_missing=bool(getattr(args, "interim", False)),
    )
    rows = from_cells(cells, h) + from_items(table, cells, h)
    order = {b: i for i, b in enumerate([*cells.benchmarks, MEAN])}
    rows.sort(key=lambda r: (order[r["benchmark"]], h3a.SCALES.index(r["scale"])))
    judge_rows(rows, h)
    write_rows(
        args.out,
        COLUMNS,
        rows,
        hypotheses,
        interim=missing_cells(cells.problems),
        remarks=h3a.seeds_differ(cells, settings.study_seeds(config)),
        adapters=getattr(args, "adapters", ()),
    )
