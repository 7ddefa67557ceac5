"""Analyses of variance of a balanced grid, seeds as blocks or not, and the tests beside them.

Functions take arrays y[condition, seed] of one model, or y[model, condition, seed]. Sums of
squares are the balanced design's; with equal cells types I, II and III are the same
(`typed_two_way` shows it by statsmodels).
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from zpdbench.statistics import normality
from zpdbench.statistics.effects import NAN

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Term:
    """One line of an analysis-of-variance table; NaN where undefined."""

    name: str
    sum_sq: float
    df: float
    df_error: float
    statistic: float
    p_value: float
    eta2: float
    """Share of the total sum of squares."""
    partial_eta2: float
    omega2: float
    """Less biased share of the total variance (Hays 1963); may be below 0. With seeds as random
    blocks (SS - df MS_error) / (SS_total + MS_seed) (Olejnik and Algina 2003, table 3); NaN of the
    blocks themselves."""
    epsilon: float = NAN
    """Greenhouse and Geisser's, for a term within blocks."""
    p_corrected: float = NAN
    """p on degrees of freedom times epsilon."""


def one_way(y: Array) -> list[Term]:
    """Conditions as k independent groups: F on k - 1 and k (n - 1). Source: Fisher 1925."""
    k, n = y.shape
    means = y.mean(axis=1)
    effect = n * float(((means - y.mean()) ** 2).sum())
    error = float(((y - means[:, None]) ** 2).sum())
    return [_term("condition", effect, k - 1, error, k * (n - 1), effect + error)]


def blocked(y: Array) -> list[Term]:
    """Conditions with seeds as blocks: F on k - 1 and (k - 1)(n - 1), and epsilon.

    Assumes sphericity of the conditions' covariance; `p_corrected` does not (Greenhouse and
    Geisser 1959; epsilon as in Box 1954).
    """
    k, n = y.shape
    grand = y.mean()
    effect = n * float(((y.mean(axis=1) - grand) ** 2).sum())
    blocks = k * float(((y.mean(axis=0) - grand) ** 2).sum())
    total = float(((y - grand) ** 2).sum())
    error = float((_residuals(y) ** 2).sum())
    df_error, between = (k - 1) * (n - 1), blocks / max(n - 1, 1)
    term = _term("condition", effect, k - 1, error, df_error, total, between)
    return [
        _corrected(term, greenhouse_geisser([y])),
        replace(_term("seed", blocks, n - 1, error, df_error, total), omega2=NAN),
    ]


def two_way(y: Array) -> list[Term]:
    """Model x condition as independent cells: error on m k (n - 1) (3 and 32 in R4)."""
    m, k, n = y.shape
    parts = _two_way_sums(y)
    df_error = m * k * (n - 1)
    error = float(((y - y.mean(axis=2, keepdims=True)) ** 2).sum())
    total = float(((y - y.mean()) ** 2).sum())
    return [_term(name, ss, df, error, df_error, total) for name, ss, df in parts]


def two_way_blocked(y: Array) -> list[Term]:
    """Model x condition with seeds as blocks within each model (a split plot).

    The model is tested against blocks within models (m (n - 1)), condition and interaction
    against the rest (m (k - 1)(n - 1): 3 and 24 in R4). Source: Cochran and Cox 1957, ch. 7.
    """
    m, k, n = y.shape
    model, condition, interaction = _two_way_sums(y)
    blocks = k * float(((y.mean(axis=1) - y.mean(axis=(1, 2))[:, None]) ** 2).sum())
    error = float(sum((_residuals(part) ** 2).sum() for part in y))
    total = float(((y - y.mean()) ** 2).sum())
    df_blocks, df_error = m * (n - 1), m * (k - 1) * (n - 1)
    epsilon = greenhouse_geisser(list(y))
    between = blocks / max(df_blocks, 1)
    seed = _term("seed within model", blocks, df_blocks, error, df_error, total)
    return [
        _term(*model, blocks, df_blocks, total, between),
        _corrected(_term(*condition, error, df_error, total, between), epsilon),
        _corrected(_term(*interaction, error, df_error, total, between), epsilon),
        replace(seed, omega2=NAN),
    ]


def typed_two_way(y: Array, kind: int) -> list[Term]:
    """The unblocked two-way table by statsmodels, sums of squares of type 2 or 3."""
    import pandas as pd
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    m, k, n = y.shape
    frame = pd.DataFrame(
        {
            "y": y.ravel(),
            "model": np.repeat(np.arange(m), k * n),
            "condition": np.tile(np.repeat(np.arange(k), n), m),
        }
    )
    names = {
        "C(model, Sum)": "model",
        "C(condition, Sum)": "condition",
        "C(model, Sum):C(condition, Sum)": "model x condition",
    }
    fit = ols("y ~ C(model, Sum) * C(condition, Sum)", frame).fit()
    table = anova_lm(fit, typ=kind)
    error, df_error = float(table["sum_sq"]["Residual"]), float(table["df"]["Residual"])
    total = float(((y - y.mean()) ** 2).sum())
    return [
        _term(name, float(table["sum_sq"][row]), float(table["df"][row]), error, df_error, total)
        for row, name in names.items()
    ]


@dataclass(frozen=True)
class Pair:
    """Tukey's comparison of two conditions: second - first, simultaneous interval."""

    first: int
    second: int
    difference: float
    low: float
    high: float
    statistic: float
    """Studentised range."""
    df: float
    p_value: float


def tukey(y: Array, *, is_blocked: bool, level: float = 0.95) -> list[Pair]:
    """Tukey's honestly significant differences between all pairs of conditions.

    The error is that of `blocked` or of `one_way`. Source: Tukey 1953; Kramer 1956.
    """
    k, n = y.shape
    term = (blocked(y) if is_blocked else one_way(y))[0]
    residual = _residuals(y) if is_blocked else y - y.mean(axis=1, keepdims=True)
    mean_square = float((residual**2).sum()) / term.df_error if term.df_error else NAN
    pairs = []
    for i, j in combinations(range(k), 2):
        difference = float(y[j].mean() - y[i].mean())
        if not (math.isfinite(term.statistic) and mean_square > 0):
            pairs.append(Pair(i, j, difference, NAN, NAN, NAN, term.df_error, NAN))
            continue
        se = math.sqrt(mean_square / n)
        q = abs(difference) / se
        half = studentized_range(level, k, term.df_error) * se
        p = float(stats.studentized_range.sf(q, k, term.df_error))
        pairs.append(
            Pair(i, j, difference, difference - half, difference + half, q, term.df_error, p)
        )
    return pairs


def kruskal(y: Array) -> tuple[float, float, float]:
    """H, df and p of Kruskal and Wallis 1952 (chi-squared approximation, ties corrected)."""
    if y.shape[1] < 2 or np.ptp(y) == 0:
        return NAN, y.shape[0] - 1.0, NAN
    result = stats.kruskal(*y)
    return float(result.statistic), y.shape[0] - 1.0, float(result.pvalue)


def friedman(y: Array) -> tuple[float, float, float]:
    """Chi-squared, df and p of Friedman 1937, seeds as blocks; needs three conditions."""
    k, n = y.shape
    if k < 3 or n < 2 or np.all(np.ptp(y, axis=0) == 0):
        return NAN, k - 1.0, NAN
    result = stats.friedmanchisquare(*y)
    return float(result.statistic), k - 1.0, float(result.pvalue)


def levene(y: Array) -> tuple[float, float, float, float]:
    """F, its two df and p of equal variances, about the median (Brown and Forsythe 1974)."""
    k, n = y.shape
    if n < 3 or np.all(np.ptp(y, axis=1) == 0):
        return NAN, k - 1.0, k * (n - 1.0), NAN
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = stats.levene(*y, center="median")
    if not math.isfinite(float(result.statistic)):
        return NAN, k - 1.0, k * (n - 1.0), NAN
    return float(result.statistic), k - 1.0, k * (n - 1.0), float(result.pvalue)


def shapiro(y: Array, *, is_blocked: bool) -> tuple[float, float]:
    """W and p of normal residuals (Shapiro and Wilk 1965)."""
    residuals = _residuals(y) if is_blocked else y - y.mean(axis=1, keepdims=True)
    if not np.abs(residuals).max() > 1e-12 * np.abs(y).max():
        return NAN, NAN  # nothing but rounding is left
    return normality.shapiro_wilk(residuals.ravel())


def greenhouse_geisser(groups: list[Array]) -> float:
    """Epsilon of y[condition, seed] arrays, from their pooled covariance between conditions."""
    k = groups[0].shape[0]
    if k < 3 or any(y.shape[1] < 2 for y in groups):
        return 1.0 if k == 2 else NAN
    pooled = sum(np.cov(y) * (y.shape[1] - 1) for y in groups)
    centre = np.eye(k) - 1.0 / k
    s = centre @ (pooled / sum(y.shape[1] - 1 for y in groups)) @ centre
    denominator = (k - 1) * float((s**2).sum())
    return float(np.trace(s)) ** 2 / denominator if denominator > 0 else NAN


def minimal_f(df: float, df_error: float, *, alpha: float = 0.05, target: float = 0.8) -> float:
    """Cohen's f that an F test finds with probability `target`: sqrt(ncp / (df + df_error + 1)).

    Source: Cohen 1988, ch. 8, as G*Power's 'fixed effects' (total sample size
    df + df_error + 1).
    """
    from scipy import optimize

    if not (df >= 1 and df_error >= 1):
        return NAN
    critical = float(stats.f.ppf(1 - alpha, df, df_error))

    def lacking(ncp: float) -> float:
        return float(stats.ncf.sf(critical, df, df_error, ncp)) - target

    high = 10.0
    while lacking(high) < 0:
        high *= 2
        if high > 1e8:
            return NAN
    return math.sqrt(float(optimize.brentq(lacking, 1e-9, high)) / (df + df_error + 1))


@cache
def studentized_range(level: float, k: int, df: float) -> float:
    """Quantile of the range of k means over their error with df degrees of freedom."""
    return float(stats.studentized_range.ppf(level, k, df))


def _residuals(y: Array) -> Array:
    """What is left of y[condition, seed] after both main effects."""
    return y - y.mean(axis=1, keepdims=True) - y.mean(axis=0, keepdims=True) + y.mean()


def _two_way_sums(y: Array) -> list[tuple[str, float, int]]:
    m, k, n = y.shape
    grand = y.mean()
    by_model, by_condition = y.mean(axis=(1, 2)), y.mean(axis=(0, 2))
    cells = y.mean(axis=2)
    interaction = cells - by_model[:, None] - by_condition[None, :] + grand
    return [
        ("model", k * n * float(((by_model - grand) ** 2).sum()), m - 1),
        ("condition", m * n * float(((by_condition - grand) ** 2).sum()), k - 1),
        ("model x condition", n * float((interaction**2).sum()), (m - 1) * (k - 1)),
    ]


def _term(
    name: str,
    effect: float,
    df: float,
    error: float,
    df_error: float,
    total: float,
    between: float | None = None,
) -> Term:
    """A term against its error; `between` is the mean square of random blocks, if there are any."""
    scale = max(abs(total), 1e-300)
    if df < 1 or df_error < 1 or not error > 1e-24 * scale or not total > 0:
        return Term(name, effect, df, df_error, NAN, NAN, NAN, NAN, NAN)
    mean_square = error / df_error
    f = effect / df / mean_square
    return Term(
        name,
        effect,
        df,
        df_error,
        f,
        float(stats.f.sf(f, df, df_error)),
        effect / total,
        effect / (effect + error),
        (effect - df * mean_square) / (total + (mean_square if between is None else between)),
    )


def _corrected(term: Term, epsilon: float) -> Term:
    fields: dict[str, Any] = {**term.__dict__, "epsilon": epsilon}
    if math.isfinite(term.statistic) and math.isfinite(epsilon):
        fields["p_corrected"] = float(
            stats.f.sf(term.statistic, term.df * epsilon, term.df_error * epsilon)
        )
    return Term(**fields)
