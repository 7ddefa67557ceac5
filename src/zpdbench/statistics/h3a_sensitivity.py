"""`zpdbench h3a-sensitivity`: H3a again, by every other defensible method, in one table."""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zpdbench.hypotheses import H3a
from zpdbench.statistics import crossed, effects, h3a, power, resampling, settings
from zpdbench.statistics.effects import NAN
from zpdbench.statistics.resampling import MIN_SEEDS_BOOTSTRAP
from zpdbench.statistics.verdicts import MEAN, missing_cells, write_rows

COLUMNS = (
    "hypothesis", "benchmark", "scale", "method", "model_small", "model_large", "n_seeds",
    "n_items", "difference", "low", "high", "level", "statistic", "df", "p_value", "p_holm",
    "mde_80", "verdict", "note",
)  # fmt: skip
PRIMARY = "paired t by seed (primary)"
WELCH = "Welch t, the models' seeds taken as independent"


def from_cells(cells: h3a.Cells, h: H3a) -> list[dict[str, Any]]:
    """The rows that need no more than the runs' scores, for every benchmark and scale.

    The regressions have a point and a p but no interval: they ignore the seeds' blocks, and with
    correlated conditions their intervals cover up to 100 % (validation.tsv).
    """
    rows: list[dict[str, Any]] = []
    for benchmark in [*cells.benchmarks, MEAN]:
        for scale in ("pp", "logit"):
            d = {r: cells.differences(r, benchmark, scale) for r in h3a.ROLES}
            base = _base(cells, h, benchmark, scale)
            margin = h.margin if scale == "pp" else 0.0
            options: dict[str, Any] = {"side": h.side, "alpha": h.alpha, "margin": margin}
            methods = {WELCH: effects.welch(d["small"], d["large"], **options)}
            if cells.is_paired:
                own = effects.paired(cells.contrast(benchmark, scale), **options)
                methods = {PRIMARY: own, **methods}
            methods["pooled t of per-seed differences"] = _pooled(d["small"], d["large"], options)
            methods |= _regressions(cells, h, benchmark, scale)
            notes = {
                PRIMARY: "seeds shared by the models are pairs",
                WELCH: "unequal spread allowed; off its level where the models' seeds correlate",
                "pooled t of per-seed differences": "assumes equal spread in both models",
                "pooled OLS score ~ model * condition": "ignores the seeds' blocks: no interval",
                "OLS with HC3": "ignores the seeds' blocks: no interval; Long and Ervin 2000",
            }
            why = (
                "one seed only" if min(map(len, d.values())) < 2 else "zero variance between seeds"
            )
            spreads = [(effects.spread(d[r]), d[r].size) for r in h3a.ROLES]
            for method, test in methods.items():
                least = (
                    margin + power.welch_minimal_effect(*spreads[0], *spreads[1], alpha=h.alpha)
                    if method == WELCH
                    else _minimal_effect(test, h, margin)
                )
                said = (notes[method], math.isnan(test.p_value) and f"{why}: NA")
                rows.append(
                    {
                        **base, "method": method, "difference": test.estimate, "low": test.low,
                        "high": test.high, "statistic": test.statistic, "df": test.df,
                        "p_value": test.p_value, "mde_80": least,
                        "note": "; ".join(n for n in said if n),
                    }
                )  # fmt: skip
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


def _minimal_effect(test: effects.Test, h: H3a, margin: float = 0.0) -> float:
    """The difference that a t test with this error finds four times in five; NaN where undefined.

    For the regressions, which take the conditions of a seed as independent, that is what they
    themselves would say.
    """
    return margin + power.minimal_effect(test.standard_error, test.df, alpha=h.alpha)


def _pooled(
    first: NDArray[np.float64], second: NDArray[np.float64], options: dict[str, Any]
) -> effects.Test:
    estimate = float(second.mean() - first.mean())
    sx, sy = effects.spread(first), effects.spread(second)
    if not sx + sy > 0:
        return effects.undefined(estimate)
    n, m = first.size, second.size
    df = n + m - 2
    se = math.sqrt(((n - 1) * sx**2 + (m - 1) * sy**2) / df * (1 / n + 1 / m))
    return effects.t_test(estimate, se, df, **options)


def _regressions(cells: h3a.Cells, h: H3a, benchmark: str, scale: str) -> dict[str, effects.Test]:
    """The interaction of score ~ model * condition over the four cells' runs, without limits."""
    import statsmodels.api as sm

    values, is_large, is_treated = [], [], []
    for role in h3a.ROLES:
        for kind in h3a.KINDS:
            y = cells.values(role, kind, benchmark, scale)
            values.append(y)
            is_large.append(np.full(y.size, role == "large", dtype=float))
            is_treated.append(np.full(y.size, kind == "treatment", dtype=float))
    y, a, b = map(np.concatenate, (values, is_large, is_treated))
    kinds = {"pooled OLS score ~ model * condition": "nonrobust", "OLS with HC3": "HC3"}
    if all(not effects.spread(v) > 0 for v in values):
        d = {r: cells.differences(r, benchmark, scale).mean() for r in h3a.ROLES}
        undefined = effects.undefined(float(d["large"] - d["small"]))
        return dict.fromkeys(kinds, undefined)
    design = np.column_stack([np.ones_like(a), a, b, a * b])
    found = {}
    for name, kind in kinds.items():
        fit = sm.OLS(y, design).fit(cov_type=kind, use_t=True)
        test = effects.t_test(
            float(fit.params[3]), float(fit.bse[3]), float(fit.df_resid),
            side=h.side, alpha=h.alpha, margin=h.margin if scale == "pp" else 0.0,
        )  # fmt: skip
        found[name] = replace(test, low=NAN, high=NAN)
    return found


def _g_row(cells: h3a.Cells, h: H3a, benchmark: str) -> dict[str, Any]:
    """Bootstrap of seeds of the difference of two g, the models apart."""
    base = _base(cells, h, benchmark, "hedges_g")
    pairs = {r: tuple(cells.values(r, k, benchmark, "pp") for k in h3a.KINDS) for r in h3a.ROLES}
    sizes = {r: effects.hedges_g(*pairs[r]) for r in h3a.ROLES}
    difference = sizes["large"].g - sizes["small"].g
    row = {**base, "method": "bootstrap of seeds, percentile", "difference": difference}
    n = min(s.n for s in sizes.values())
    if n < MIN_SEEDS_BOOTSTRAP or not math.isfinite(difference):
        return {
            **row,
            "note": f"below {MIN_SEEDS_BOOTSTRAP} seeds (or without spread) a bootstrap of seeds "
            "covers too little: NA",
        }
    rng = np.random.default_rng(crossed.stable_seed(benchmark, "g"))
    draws = {}
    for role in h3a.ROLES:
        t, c = pairs[role]
        w = resampling.seed_draws(t.size, crossed.DRAWS, rng)
        mt, mc = w @ t, w @ c
        variance = (w @ t**2 - mt**2 + w @ c**2 - mc**2) / 2 * t.size / (t.size - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            draws[role] = sizes[role].correction * (mt - mc) / np.sqrt(variance)
    values = draws["large"] - draws["small"]
    values = values[np.isfinite(values)]
    interval = resampling.percentile(values, difference, effects.level_of(h.alpha, h.side))
    return {**row, "low": interval.low, "high": interval.high, "note": f"{values.size} resamples"}


def from_items(table: pl.DataFrame, cells: h3a.Cells, h: H3a) -> list[dict[str, Any]]:
    """The rows that treat items as a sample too: bootstrap of items, and two-way clusters.

    Items are crossed with runs; seeds enter by their own spread (`crossed.components`).
    """
    pairs = cells.runs(h)
    runs = [run for sides in pairs.values() for side in sides for run in side]
    seeds = [len(t) for t, _ in pairs.values()]
    drawn: dict[str, crossed.Drawn] = {}
    rows: list[dict[str, Any]] = []
    for benchmark in cells.benchmarks:
        items = crossed.items_of(table, benchmark, runs)
        drawn[benchmark] = crossed.drawn(items, seeds, benchmark)
        rows.append(_item_row(cells, h, benchmark, drawn))
        if items.prediction is None:
            rows.append(_cluster_row(items, cells, h, benchmark))
    rows.append(_item_row(cells, h, MEAN, drawn))
    return rows


def _item_row(
    cells: h3a.Cells, h: H3a, benchmark: str, drawn: dict[str, crossed.Drawn]
) -> dict[str, Any]:
    test, _, _ = h3a.for_new_items(cells, h, benchmark, drawn)
    note = f"for new items as well as new seeds; {crossed.DRAWS} resamples of the items"
    return _crossed_row(cells, h, benchmark, "bootstrap of items, crossed with seeds", test, note)


def _cluster_row(items: crossed.Items, cells: h3a.Cells, h: H3a, benchmark: str) -> dict[str, Any]:
    """Item-level linear model, clusters by seed block and, crossed, by item."""
    n = {r: len(cells.seeds[r]) for r in h3a.ROLES}
    split = np.split(100 * items.values, np.cumsum([n["small"], n["small"], n["large"]]), axis=1)
    small, large = split[0] - split[1], split[2] - split[3]  # [items, seeds]
    groups = [large - small] if cells.is_paired else [large, -small]
    by_item = sum(g.mean(axis=1) for g in groups)
    size = len(items.values)
    parts = crossed.components(
        [g.mean(axis=0) for g in groups],
        float(np.var(by_item)) / size,
        sum(float(g.var(axis=0).mean()) / size / g.shape[1] for g in groups),
    )
    estimate = float(large.mean() - small.mean())
    test = crossed.test(estimate, parts, side=h.side, alpha=h.alpha, margin=h.margin)
    note = "for new items as well as new seeds; linear in correct"
    return _crossed_row(cells, h, benchmark, "item-level, clustered by seed and item", test, note)


def _crossed_row(
    cells: h3a.Cells, h: H3a, benchmark: str, method: str, test: effects.Test, note: str
) -> dict[str, Any]:
    if math.isnan(test.p_value):
        note = "one seed only, too few seeds, or zero variance between seeds: NA"
    return {
        **_base(cells, h, benchmark, "pp"), "method": method, "difference": test.estimate,
        "low": test.low, "high": test.high, "statistic": test.statistic, "df": test.df,
        "p_value": test.p_value, "mde_80": _minimal_effect(test, h), "note": note,
    }  # fmt: skip


def _base(cells: h3a.Cells, h: H3a, benchmark: str, scale: str) -> dict[str, Any]:
    sizes = cells.n_items
    return {
        "hypothesis": "h3a", "benchmark": benchmark, "scale": scale, "model_small": h.small,
        "model_large": h.large, "n_seeds": min(len(s) for s in cells.seeds.values()),
        "n_items": int(
            sizes.sum() if benchmark == MEAN else sizes[cells.benchmarks.index(benchmark)]
        ),
        "level": effects.level_of(h.alpha, h.side),
    }  # fmt: skip


def adjust(rows: list[dict[str, Any]]) -> None:
    """Holm over the benchmarks within a method and scale. No row has a verdict: one test has."""
    families: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        if row["benchmark"] != MEAN:
            families.setdefault((row["method"], row["scale"]), []).append(row)
    for family in families.values():
        adjusted = effects.holm([r.get("p_value", NAN) for r in family])
        for row, p in zip(family, adjusted, strict=True):
            row["p_holm"] = p


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
    adjust(rows)
    write_rows(
        args.out,
        COLUMNS,
        rows,
        hypotheses,
        interim=missing_cells(cells.problems),
        remarks=h3a.seeds_differ(cells, settings.study_seeds(config)),
        adapters=getattr(args, "adapters", ()),
    )
