"""`zpdbench ladder`: does the gain grow with the number of parameters? Three models or more."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

from zpdbench.errors import UserError
from zpdbench.hypotheses import Ladder
from zpdbench.statistics import contrasts, effects, gate, power, runs, settings
from zpdbench.statistics.effects import NAN
from zpdbench.statistics.verdicts import INCONCLUSIVE, MEAN, write_rows

COLUMNS = (
    "hypothesis", "benchmark", "scale", "term", "model", "parameters", "left_out", "n_models",
    "n_seeds", "estimate", "low", "high", "level", "standard_error", "intercept", "tau2", "q",
    "q_df", "q_p_value", "test", "statistic", "df", "p_value", "p_holm", "mde_80", "verdict",
    "note", *contrasts.RULE,
)  # fmt: skip
MIN_MODELS = 3
MIN_SEEDS_OWN_SPREAD = 20
"""Below it the models' spread over seeds is pooled: few seeds tell each model's own so badly that
the slope's interval covers 90 to 93 % at three and five with seven models, 93 to 95 % at ten."""


@dataclass(frozen=True)
class MetaRegression:
    """A random-effects regression of k effects on p predictors; NaN where undefined."""

    coefficients: NDArray[np.float64]
    standard_errors: NDArray[np.float64]
    """Knapp and Hartung's."""
    df: int
    tau2: float
    """Variance between models that the predictors do not explain (REML)."""
    q: float
    """Cochran's Q of the residuals with fixed weights."""
    q_p_value: float


def meta_regression(effect: ArrayLike, variance: ArrayLike, design: ArrayLike) -> MetaRegression:
    """Random-effects meta-regression by REML with Knapp and Hartung's adjustment.

    Args:
        effect: k estimates.
        variance: their k sampling variances, above 0.
        design: k x p, a column of ones included; k > p.

    Coefficients are tested against Student's t with k - p degrees of freedom. As in metafor's
    rma(method="REML", test="knha"): the adjustment factor may be below 1.
    Sources: Knapp and Hartung 2003; Raudenbush 2009 (REML); Viechtbauer 2010.
    """
    y, v = np.asarray(effect, dtype=float), np.asarray(variance, dtype=float)
    x = np.asarray(design, dtype=float)
    k, p = x.shape

    def fit(tau2: float) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        w = 1 / (v + tau2)
        inverse = np.linalg.inv((x.T * w) @ x)
        return inverse @ ((x.T * w) @ y), inverse, w

    def negative(log_tau2: float) -> float:
        return _reml(y, v, x, math.exp(log_tau2))

    # The profile is searched from far below the sampling variances to far above the effects.
    low = math.log(1e-10 * float(v.mean()))
    high = math.log(10 * (float(np.var(y)) + float(v.mean())) + 1e-300)
    grid = np.linspace(low, high, 400)
    values = [negative(g) for g in grid]
    best = int(np.argmin(values))
    tau2 = 0.0
    if best > 0:
        around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
        found = optimize.minimize_scalar(
            negative, bounds=around, method="bounded", options={"xatol": 1e-12}
        )
        if _reml(y, v, x, 0.0) > float(found.fun):
            tau2 = _polish(y, v, x, math.exp(float(found.x)))
    beta, inverse, w = fit(tau2)
    scale = float((w * (y - x @ beta) ** 2).sum()) / (k - p)
    fixed_beta, _, fixed_w = fit(0.0)
    q = float((fixed_w * (y - x @ fixed_beta) ** 2).sum())
    return MetaRegression(
        beta,
        np.sqrt(scale * np.diag(inverse)),
        k - p,
        tau2,
        q,
        float(stats.chi2.sf(q, k - p)),
    )


def _reml(
    y: NDArray[np.float64], v: NDArray[np.float64], x: NDArray[np.float64], tau2: float
) -> float:
    w = 1 / (v + tau2)
    information = (x.T * w) @ x
    beta = np.linalg.solve(information, (x.T * w) @ y)
    residual = y - x @ beta
    return 0.5 * float(
        np.log(v + tau2).sum() + np.linalg.slogdet(information)[1] + (w * residual**2).sum()
    )


def _polish(
    y: NDArray[np.float64], v: NDArray[np.float64], x: NDArray[np.float64], tau2: float
) -> float:
    """Fisher scoring to the root of the REML score (Viechtbauer 2005, eq. 21)."""
    for _ in range(200):
        w = np.diag(1 / (v + tau2))
        p = w - w @ x @ np.linalg.inv(x.T @ w @ x) @ x.T @ w
        pp = p @ p
        step = (float(y @ pp @ y) - float(np.trace(p))) / float(np.trace(pp))
        new = max(0.0, tau2 + step)
        if abs(new - tau2) <= 1e-14 * max(tau2, 1e-300):
            return new
        tau2 = new
    return tau2


def analyse(data: runs.Runs, h: Ladder, closed: str = "") -> list[dict[str, Any]]:
    """Rows of ladder.tsv: slope on log10 parameters, without each model once, and each model.

    The slope is the gain's change for ten times the parameters. One-sided test that it exceeds
    its margin; the rule's other test (`verdicts.judge`) is of the largest model's gain, in points.
    Holm over the benchmarks; `mean` on `pp` is the primary row and has the verdict.

    Args:
        closed: why the primary row has no verdict (`gate`); "" if it has.

    Raises:
        UserError: fewer than three models, or a model without a number of parameters.
    """
    models = [m for m in data.models if m in h.parameters]
    if len(models) < MIN_MODELS:
        lacking = [m for m in data.models if m not in h.parameters]
        raise UserError(
            f"a ladder needs {MIN_MODELS} models with a number of parameters, there are "
            f"{len(models)}" + (f" (none for {', '.join(lacking)})" if lacking else ""),
            fix="give hypotheses.ladder.parameters: {MODEL: NUMBER}",
        )
    models.sort(key=lambda m: (h.parameters[m], m))
    rows: list[dict[str, Any]] = []
    for scale in runs.SCALES:
        slopes = []
        for benchmark in [*data.benchmarks, MEAN]:
            gains = {
                m: data.differences(m, h.treatment, h.control, benchmark, scale) for m in models
            }
            points = {m: data.differences(m, h.treatment, h.control, benchmark) for m in models}
            base = {"hypothesis": "ladder", "benchmark": benchmark, "scale": scale}
            slope = {**base, **_slope(gains, points, h, None, scale)}
            slopes.append(slope)
            rows.append(slope)
            rows += [{**base, **_slope(gains, points, h, m, scale)} for m in models]
            for model, values in gains.items():
                interval = effects.mean_interval(values, 1 - 2 * h.alpha)
                rows.append(
                    {
                        **base, "term": "gain", "model": model,
                        "parameters": h.parameters[model], "n_models": 1,
                        "n_seeds": len(values), "estimate": interval.estimate,
                        "low": interval.low, "high": interval.high, "level": 1 - 2 * h.alpha,
                        "standard_error": effects.spread(values) / math.sqrt(len(values)),
                        "note": "" if math.isfinite(interval.low)
                        else "one seed only, or no spread: no interval",
                    }
                )  # fmt: skip
        adjusted = effects.holm([s["p_value"] for s in slopes[:-1]])
        for slope, p in zip(slopes, [*adjusted, NAN], strict=True):
            slope["p_holm"] = p
    for row in rows:
        verdict = row.pop("_verdict", None)
        if row["term"] == "gain" or row["left_out"]:
            continue
        is_primary = row["benchmark"] == MEAN and row["scale"] == "pp"
        if is_primary and not closed:
            row["verdict"] = verdict
        said = closed if is_primary else "secondary: no verdict"
        row["note"] = "; ".join(s for s in (row["note"], said) if s)
    return rows


def sampling_variances(gains: Sequence[ArrayLike]) -> list[float]:
    """Variance of each model's mean gain; pooled below MIN_SEEDS_OWN_SPREAD seeds.

    Args:
        gains: per-seed gains of each model.

    0 or NaN for a model without spread over seeds, or with one seed.
    """
    arrays = [np.asarray(g, dtype=float) for g in gains]
    own = [effects.spread(g) ** 2 for g in arrays]
    if min(g.size for g in arrays) >= MIN_SEEDS_OWN_SPREAD or not all(v > 0 for v in own):
        return [v / g.size for v, g in zip(own, arrays, strict=True)]
    weights = [g.size - 1 for g in arrays]
    pooled = float(np.average(own, weights=weights))
    return [pooled / g.size for g in arrays]


def _slope(
    gains: dict[str, NDArray[np.float64]],
    points: dict[str, NDArray[np.float64]],
    h: Ladder,
    left_out: str | None,
    scale: str = "pp",
) -> dict[str, Any]:
    used = {m: g for m, g in gains.items() if m != left_out}
    margin = h.margin if scale == "pp" else 0.0
    largest = max(used, key=lambda m: h.parameters[m])
    gain = effects.paired(points[largest], alpha=h.alpha, margin=h.margin_gain)
    variances = sampling_variances(list(used.values()))
    row: dict[str, Any] = {
        "term": "slope per tenfold parameters", "left_out": left_out, "n_models": len(used),
        "n_seeds": min(len(g) for g in used.values()), "level": 1 - 2 * h.alpha, "p_value": NAN,
        "test": "random-effects regression, REML, Knapp-Hartung", "_verdict": INCONCLUSIVE,
    }  # fmt: skip
    sizes = np.log10([h.parameters[m] for m in used])
    if len(used) < MIN_MODELS:
        return {**row, "note": f"{len(used)} models are left: a line through them has no error"}
    if not all(v > 0 for v in variances):
        return {**row, "note": "a model's gains have no spread over seeds (or one seed): no test"}
    if np.ptp(sizes) == 0:
        return {**row, "note": "all models have the same number of parameters"}
    fit = meta_regression(
        [float(g.mean()) for g in used.values()],
        variances,
        np.column_stack([np.ones(len(sizes)), sizes]),
    )
    if not fit.standard_errors[1] > 1e-12 * abs(fit.coefficients[1]):
        return {**row, "estimate": fit.coefficients[1], "note": "the models lie on one line"}
    test = effects.t_test(
        float(fit.coefficients[1]),
        float(fit.standard_errors[1]),
        fit.df,
        side="larger",
        alpha=h.alpha,
        margin=margin,
    )
    row |= {
        "estimate": test.estimate, "low": test.low, "high": test.high,
        "standard_error": test.standard_error, "intercept": float(fit.coefficients[0]),
        "tau2": fit.tau2, "q": fit.q,
        "q_df": float(fit.df), "q_p_value": fit.q_p_value, "statistic": test.statistic,
        "df": float(fit.df),
        "mde_80": margin + power.minimal_effect(test.standard_error, fit.df, alpha=h.alpha),
        "note": "few models: a straight line in log parameters is an assumption"
        + (
            f"; below {MIN_SEEDS_OWN_SPREAD} seeds the models' spread is pooled"
            if row["n_seeds"] < MIN_SEEDS_OWN_SPREAD
            else ""
        )
        + f"; gain is that of {largest}",
    }  # fmt: skip
    return contrasts.ruled(row, test, gain, h.alpha, margin=margin, margin_gain=h.margin_gain)


def main(args: argparse.Namespace) -> None:
    """Entry of the verb: args.study, args.scores (scores.tsv), args.out, args.interim;
    args.adapters: the runs' folders, for what is to be said of their corpus.
    """
    hypotheses = settings.read_hypotheses(args.study)
    config = settings.read(args.study)
    h = hypotheses.ladder
    table = runs.read_run_scores(args.scores)
    named = settings.study_names(config, "models") or sorted(set(table["model"].to_list()))
    unsized = [m for m in named if m not in h.parameters]
    data = runs.final_runs(
        table,
        models=sorted(h.parameters, key=lambda m: (h.parameters[m], m)) or None,
        conditions=[h.treatment, h.control],
        benchmarks=settings.study_names(config, "benchmarks"),
        seeds=settings.study_seeds(config),
        allow_missing=bool(getattr(args, "interim", False)),
    )
    remarks = [f"left out, no number of parameters: {', '.join(unsized)}"] if unsized else []
    write_rows(
        args.out,
        COLUMNS,
        analyse(data, h, gate.closed("ladder", table, hypotheses, config)),
        hypotheses,
        interim=data.interim,
        remarks=[*remarks, *data.remarks],
        adapters=getattr(args, "adapters", ()),
    )
