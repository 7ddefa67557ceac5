"""`zpdbench rq1`: do the conditions differ? Analyses of variance and what stands beside them."""

from __future__ import annotations

import argparse
import math
from itertools import combinations
from typing import Any

import numpy as np

from zpdbench.hypotheses import Rq1
from zpdbench.statistics import anova, effects, runs, settings
from zpdbench.statistics.verdicts import MEAN, does_not_apply, write_rows

COLUMNS = (
    "hypothesis", "model", "benchmark", "scale", "design", "test", "term", "n_models",
    "n_conditions", "n_seeds", "sum_sq", "statistic", "df1", "df2", "p_value", "p_holm", "epsilon",
    "p_corrected", "eta2", "partial_eta2", "omega2", "estimate", "low", "high", "level",
    "mde_80_f", "verdict", "note",
)  # fmt: skip

ALL_MODELS = "all"
PAIRED = "paired t over seeds"
_TUKEY = {
    True: "p is simultaneous over the pairs; it takes the conditions' spread as equal, and its "
    "interval covers too little where one's is double: no interval",
    False: "p is simultaneous over the pairs; ignores the seeds' blocks: no interval",
}
"""By whether seeds are blocks (coverage in validation.tsv: 91 to 95 %, and up to 100 %)."""


def analyse(data: runs.Runs, hypothesis: Rq1) -> list[dict[str, Any]]:
    """Every row of anova.tsv; the primary ones have seeds as blocks.

    One-way and two-way F tests with types, effect sizes and the smallest f found in 80 of 100
    studies; Tukey's pairs; a paired t of each pair, which needs no equal spread and so has the
    interval; Kruskal-Wallis and Friedman; Levene and Shapiro. Holm over the benchmarks within one
    model, design, test and term; `mean` is its own family. The paired t's families hold all pairs.
    """
    rows: list[dict[str, Any]] = []
    for benchmark in [*data.benchmarks, MEAN]:
        for model in data.models:
            y = data.values(model, benchmark)
            rows += _one_model(y, data.conditions, model, benchmark, hypothesis)
        shapes = {data.values(m, benchmark).shape for m in data.models}
        if len(data.models) > 1 and len(shapes) == 1:
            y3 = np.stack([data.values(m, benchmark) for m in data.models])
            rows += _all_models(y3, benchmark, hypothesis)
        elif len(data.models) > 1:
            rows += _no_two_way(data, benchmark)
    _adjust(rows)
    return rows


def _one_model(
    y: anova.Array, conditions: list[str], model: str, benchmark: str, h: Rq1
) -> list[dict[str, Any]]:
    k, n = y.shape
    why = "one seed only: no error term" if n < 2 else "no spread, or too few seeds"
    base = {
        "hypothesis": "rq1", "model": model, "benchmark": benchmark, "scale": "pp",
        "n_models": 1, "n_conditions": k, "n_seeds": n,
    }  # fmt: skip
    rows = []
    for design, terms in (("seeds as blocks", anova.blocked(y)), ("unblocked", anova.one_way(y))):
        rows += [_f_row(base, design, "one-way ANOVA", t, h.alpha) for t in terms]
    for is_blocked in (True, False):
        design = "seeds as blocks" if is_blocked else "unblocked"
        for pair in anova.tukey(y, is_blocked=is_blocked, level=1 - h.alpha):
            rows.append(
                {
                    **base, "design": design, "test": "Tukey HSD",
                    "term": f"{conditions[pair.second]} - {conditions[pair.first]}",
                    "statistic": pair.statistic, "df1": float(k), "df2": pair.df,
                    "p_value": pair.p_value, "estimate": pair.difference,
                    "note": _TUKEY[is_blocked]
                    + ("" if math.isfinite(pair.p_value) else f"; NA: {why}"),
                }
            )  # fmt: skip
    for i, j in combinations(range(k), 2):
        pair_t = effects.paired(y[j] - y[i], side="different", alpha=h.alpha)
        rows.append(
            {
                **base, "design": "seeds as blocks", "test": PAIRED,
                "term": f"{conditions[j]} - {conditions[i]}", "statistic": pair_t.statistic,
                "df1": pair_t.df, "p_value": pair_t.p_value, "estimate": pair_t.estimate,
                "low": pair_t.low, "high": pair_t.high, "level": 1 - h.alpha,
                "note": "interval of this pair alone; Holm over the pairs"
                + ("" if math.isfinite(pair_t.p_value) else f"; NA: {why}"),
            }
        )  # fmt: skip
    for design, test, (statistic, df, p) in (
        ("seeds as blocks", "Friedman", anova.friedman(y)),
        ("unblocked", "Kruskal-Wallis", anova.kruskal(y)),
    ):
        note = "chi-squared approximation, rough at this many seeds" if n < 10 else ""
        if math.isnan(p):
            note = f"NA: {why}" if n < 2 or k > 2 else "NA: Friedman's test needs three conditions"
        rows.append(
            {
                **base, "design": design, "test": test, "term": "condition",
                "statistic": statistic, "df1": df, "p_value": p, "note": note,
            }
        )  # fmt: skip
    statistic, df1, df2, p = anova.levene(y)
    rows.append(
        {
            **base, "design": "unblocked", "test": "Levene (median)", "term": "condition",
            "statistic": statistic, "df1": df1, "df2": df2, "p_value": p,
            "note": "assumption: equal spread; a large p shows nothing at few seeds"
            + ("" if math.isfinite(p) else f"; NA: {why}"),
        }
    )  # fmt: skip
    for is_blocked in (True, False):
        w, p = anova.shapiro(y, is_blocked=is_blocked)
        rows.append(
            {
                **base, "design": "seeds as blocks" if is_blocked else "unblocked",
                "test": "Shapiro-Wilk", "term": "residuals", "statistic": w, "p_value": p,
                "note": "assumption: normal residuals; a large p shows nothing at few seeds"
                + ("" if math.isfinite(p) else f"; NA: {why}"),
            }
        )  # fmt: skip
    return rows


def _all_models(y: anova.Array, benchmark: str, h: Rq1) -> list[dict[str, Any]]:
    m, k, n = y.shape
    base = {
        "hypothesis": "rq1", "model": ALL_MODELS, "benchmark": benchmark, "scale": "pp",
        "n_models": m, "n_conditions": k, "n_seeds": n,
    }  # fmt: skip
    rows = [
        _f_row(base, "seeds as blocks in each model", "two-way ANOVA", t, h.alpha)
        for t in anova.two_way_blocked(y)
    ]
    rows += [_f_row(base, "unblocked", "two-way ANOVA", t, h.alpha) for t in anova.two_way(y)]
    for kind, name in ((2, "II"), (3, "III")):
        defined = n > 1 and np.ptp(y) > 0
        rows += [
            _f_row(base, "unblocked", f"two-way ANOVA, type {name}", t, h.alpha)
            for t in (anova.typed_two_way(y, kind) if defined else anova.two_way(y))
        ]
    return rows


def _no_two_way(data: runs.Runs, benchmark: str) -> list[dict[str, Any]]:
    """The two-way rows of models that have different numbers of complete seeds: undefined."""
    counts = ", ".join(f"{m} {len(data.seeds[m])}" for m in data.models)
    base = {
        "hypothesis": "rq1", "model": ALL_MODELS, "benchmark": benchmark, "scale": "pp",
        "n_models": len(data.models), "n_conditions": len(data.conditions),
        "n_seeds": min(len(s) for s in data.seeds.values()), "p_value": effects.NAN,
        "note": f"the models have different numbers of complete seeds ({counts}): not balanced, NA",
    }  # fmt: skip
    return [
        {**base, "design": design, "test": "two-way ANOVA", "term": term}
        for design in ("seeds as blocks in each model", "unblocked")
        for term in ("model", "condition", "model x condition")
    ]


def _f_row(
    base: dict[str, Any], design: str, test: str, term: anova.Term, alpha: float
) -> dict[str, Any]:
    notes = []
    if math.isnan(term.statistic):
        notes.append("one seed only: no error term" if term.df_error < 1 else "zero variance")
    elif term.name.startswith("seed"):
        notes.append("omega squared is not defined of the blocks")
    return {
        **base, "design": design, "test": test, "term": term.name, "sum_sq": term.sum_sq,
        "statistic": term.statistic, "df1": float(term.df), "df2": float(term.df_error),
        "p_value": term.p_value, "epsilon": term.epsilon, "p_corrected": term.p_corrected,
        "eta2": term.eta2, "partial_eta2": term.partial_eta2, "omega2": term.omega2,
        "mde_80_f": anova.minimal_f(term.df, term.df_error, alpha=alpha),
        "note": "; ".join(notes),
    }  # fmt: skip


def _adjust(rows: list[dict[str, Any]]) -> None:
    families: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for row in rows:
        key = tuple(str(row[k]) for k in ("model", "design", "test", "term"))
        is_mean = row["benchmark"] == MEAN
        if row["test"] == PAIRED:
            key = key[:-1]
        elif is_mean:
            # One family over the models; what is about all of them stands alone.
            key = ("", *key[1:])
        families.setdefault((*key, str(is_mean)), []).append(row)
    for family in families.values():
        adjusted = effects.holm([_judged(r) for r in family])
        for row, p in zip(family, adjusted, strict=True):
            row["p_holm"] = p


def _judged(row: dict[str, Any]) -> float:
    """p without the assumption of sphericity, where a test has one."""
    corrected = float(row.get("p_corrected", effects.NAN))
    return float(row["p_value"]) if math.isnan(corrected) else corrected


def main(args: argparse.Namespace) -> None:
    """Entry of the verb: args.study, args.scores (scores.tsv), args.out, args.interim;
    args.adapters: the runs' folders, for what is to be said of their corpus.
    """
    hypotheses = settings.read_hypotheses(args.study)
    config = settings.read(args.study)
    adapters = getattr(args, "adapters", ())
    reason = settings.inapplicable(hypotheses, "rq1", config)
    if reason:
        rows = does_not_apply("rq1", reason)
        write_rows(args.out, COLUMNS, rows, hypotheses, adapters=adapters)
        return
    data = runs.final_runs(
        runs.read_run_scores(args.scores),
        models=settings.study_names(config, "models"),
        conditions=hypotheses.rq1.conditions,
        benchmarks=settings.study_names(config, "benchmarks"),
        seeds=settings.study_seeds(config),
        allow_missing=bool(getattr(args, "interim", False)),
    )
    write_rows(
        args.out,
        COLUMNS,
        analyse(data, hypotheses.rq1),
        hypotheses,
        interim=data.interim,
        remarks=data.remarks,
        adapters=adapters,
    )
