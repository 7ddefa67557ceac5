"""Effect sizes and the tests on them, as pure functions over per-seed numbers.

Every function takes arrays whose last axis is the seeds of one model. What cannot be computed
(one seed, no spread) is NaN, never infinite; callers turn it into NA and say why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, special, stats

NAN = float("nan")

# Spread below this share of the values' size is rounding error: such differences are all equal.
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence limits; NaN where undefined."""

    estimate: float
    low: float = NAN
    high: float = NAN


@dataclass(frozen=True)
class Test:
    """A test of a difference: all fields in the unit of the data, NaN where undefined."""

    __test__ = False  # no pytest class

    estimate: float
    standard_error: float
    statistic: float
    df: float
    p_value: float
    """That the estimate lies beyond the margin in the tested direction."""
    low: float
    high: float
    """The interval whose limits are the test's: 1 - 2 alpha one-sided, 1 - alpha two-sided."""
    bound: float
    """The one-sided upper limit at alpha / 2 of the estimate in the tested direction: there are two
    ways to contradict (`verdicts.judge`)."""


def undefined(estimate: float) -> Test:
    """A test of which there is no more than the estimate."""
    return Test(estimate, NAN, NAN, NAN, NAN, NAN, NAN, NAN)


def level_of(alpha: float, side: str) -> float:
    """Level of the two-sided interval that says the same as the test."""
    return 1 - alpha if side == "different" else 1 - 2 * alpha


def spread(values: ArrayLike) -> float:
    """Sample standard deviation (n - 1); NaN below two values, exactly 0 if all are equal."""
    x = np.asarray(values, dtype=float)
    if x.size < 2:
        return NAN
    sd = float(np.std(x, ddof=1))
    return 0.0 if sd <= _ROUNDING * max(float(np.max(np.abs(x))), 1e-300) else sd


def settled(values: ArrayLike, points: ArrayLike) -> NDArray[np.float64]:
    """Values on another scale, all alike where the same seeds have no spread in points.

    The logits of equal differences still differ by where on the curve they lie; a t test would
    take that for the seeds' error.
    """
    x = np.asarray(values, dtype=float)
    return np.full_like(x, x.mean()) if x.size > 1 and spread(points) == 0 else x


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean of n values with Student's t interval on n - 1 degrees of freedom.

    Assumes independent, roughly normal values. With one value, or no spread, there is no
    interval. Source: Student 1908.
    """
    x = np.asarray(values, dtype=float)
    if x.size == 0:
        return Interval(NAN)
    mean, sd = float(np.mean(x)), spread(x)
    if not sd > 0:
        return Interval(mean)
    half = float(stats.t.ppf(0.5 + level / 2, x.size - 1)) * sd / np.sqrt(x.size)
    return Interval(mean, mean - half, mean + half)


def welch(
    first: ArrayLike,
    second: ArrayLike,
    *,
    side: str = "larger",
    alpha: float = 0.025,
    margin: float = 0.0,
) -> Test:
    """Welch's t test of mean(second) - mean(first), one-sided.

    Args:
        first: values of the reference group, at least two.
        second: values of the other group, at least two.
        side: `larger` (second above first), `smaller`, or `different` (two-sided).
        alpha: level of the test.
        margin: what is to be exceeded in the direction of `side`.

    Unequal variances are allowed; degrees of freedom by Welch-Satterthwaite. Where both groups
    have no spread, or one has fewer than two values, everything but the estimate is NaN.
    Sources: Welch 1947; Satterthwaite 1946.
    """
    x, y = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    estimate = float(np.mean(y) - np.mean(x)) if x.size and y.size else NAN
    sx, sy = spread(x), spread(y)
    if not (sx >= 0 and sy >= 0 and sx + sy > 0):
        return undefined(estimate)
    vx, vy = sx**2 / x.size, sy**2 / y.size
    se = float(np.sqrt(vx + vy))
    df = (vx + vy) ** 2 / (vx**2 / (x.size - 1) + vy**2 / (y.size - 1))
    return t_test(estimate, se, df, side=side, alpha=alpha, margin=margin)


def paired(
    differences: ArrayLike, *, side: str = "larger", alpha: float = 0.025, margin: float = 0.0
) -> Test:
    """One-sample t test that the mean of per-seed differences is above (below, not) the margin.

    Arguments and undefined values as in `welch`. Source: Student 1908.
    """
    d = np.asarray(differences, dtype=float)
    estimate = float(np.mean(d)) if d.size else NAN
    sd = spread(d)
    if not sd > 0:
        return undefined(estimate)
    return t_test(
        estimate, sd / np.sqrt(d.size), d.size - 1.0, side=side, alpha=alpha, margin=margin
    )


def t_test(
    estimate: float, se: float, df: float, *, side: str, alpha: float, margin: float = 0.0
) -> Test:
    """Statistic, p, interval and one-sided bound of an estimate with t-distributed error."""
    sign = -1.0 if side == "smaller" else 1.0
    t = (estimate - sign * margin) / se
    half = float(stats.t.ppf(0.5 + level_of(alpha, side) / 2, df)) * se
    p = 2 * stats.t.sf(abs(t), df) if side == "different" else stats.t.sf(sign * t, df)
    bound = sign * estimate + float(stats.t.ppf(1 - alpha / 2, df)) * se
    return Test(
        estimate, se, t, float(df), float(p), estimate - half, estimate + half, float(bound)
    )


def empirical_logit(score: ArrayLike, n: ArrayLike) -> NDArray[np.float64]:
    """Log-odds of a score in [0, 1] over n items, finite at 0 and 1.

    log((n s + 1/2) / (n (1 - s) + 1/2)); source: Haldane 1956, Anscombe 1956 (Cox 1970, 3.2).
    """
    s, n = np.asarray(score, dtype=float), np.asarray(n, dtype=float)
    return np.log((n * s + 0.5) / (n * (1 - s) + 0.5))


def hedges_correction(df: ArrayLike) -> NDArray[np.float64]:
    """J(df) = Gamma(df/2) / (sqrt(df/2) Gamma((df-1)/2)), the exact factor (Hedges 1981, 6e)."""
    df = np.asarray(df, dtype=float)
    return np.exp(special.gammaln(df / 2) - special.gammaln((df - 1) / 2)) / np.sqrt(df / 2)


@dataclass(frozen=True)
class PairedEffectSize:
    """Hedges' g of two conditions that share their seeds, and what its error depends on."""

    g: float
    """J d: bias-corrected difference of means over the pooled SD."""
    d: float
    """Cohen's d on the pooled SD."""
    correction: float
    """J(2n - 2)."""
    mean_variance: float
    """Variance of the difference of means in units of the pooled variance."""
    df: float
    """Degrees of freedom of the pooled variance, given the two SDs and their correlation."""
    n: int


def hedges_g(treatment: ArrayLike, control: ArrayLike) -> PairedEffectSize:
    """Hedges' g of treatment over control, standardised by the pooled SD of the two conditions.

    d = (mean_t - mean_c) / sqrt((s_t^2 + s_c^2) / 2), g = J(2n - 2) d. The pooled SD, not that of
    the differences, so that the size does not grow with the seeds' correlation. The pooled
    variance of two correlated normal samples has about
    (n - 1) (s_t^2 + s_c^2)^2 / (s_t^4 + s_c^4 + 2 s_tc^2) degrees of freedom (Satterthwaite 1946
    on the variances of a Wishart matrix's trace).
    NaN with fewer than two seeds or no spread. Sources: Hedges 1981; Lakens 2013.
    """
    t, c = np.asarray(treatment, dtype=float), np.asarray(control, dtype=float)
    n = int(t.size)
    st, sc = spread(t), spread(c)
    if n < 2 or not st + sc > 0:
        return PairedEffectSize(NAN, NAN, NAN, NAN, NAN, n)
    variance = (st**2 + sc**2) / 2
    covariance = float(np.cov(t, c, ddof=1)[0, 1])
    d = float((np.mean(t) - np.mean(c)) / np.sqrt(variance))
    correction = float(hedges_correction(2 * n - 2))
    mean_variance = spread(t - c) ** 2 / n / variance
    df = (n - 1) * 4 * variance**2 / (st**4 + sc**4 + 2 * covariance**2)
    return PairedEffectSize(correction * d, d, correction, mean_variance, df, n)


def noncentrality_limit(t: float, df: float, probability: float) -> float:
    """The noncentrality at which P(T <= t) = `probability` (Steiger and Fouladi 1997).

    NaN where t is so large that the distribution function cannot be computed.
    """

    def excess(ncp: float) -> float:
        return float(special.nctdtr(df, ncp, t)) - probability

    width = 4.0 + abs(t)
    low, high = t - width, t + width
    for _ in range(100):
        if not excess(low) < 0:
            break
        low -= width
    for _ in range(100):
        if not excess(high) > 0:
            break
        high += width
    if not (excess(low) >= 0 >= excess(high)):
        return NAN
    return float(optimize.brentq(excess, low, high, xtol=1e-13, rtol=1e-14, maxiter=200))


def paired_effect_interval(effect: PairedEffectSize, level: float = 0.95) -> tuple[float, float]:
    """Limits of the population's standardised effect in the paired design.

    The limits of the noncentrality of the paired t (n - 1 degrees of freedom), rescaled by
    s_difference / (sqrt(n) s_pooled). Source: Algina and Keselman 2003, eq. 7. Where the
    differences have no spread there are none. No table uses it, though other software does: it
    covers 97 to 98 % at effects above 1 (validation.tsv), where `score_interval` keeps its level.
    """
    if not (effect.n >= 2 and effect.mean_variance > 1e-12):
        return NAN, NAN
    scale = float(np.sqrt(effect.mean_variance))
    t = effect.d / scale
    tail = (1 - level) / 2
    return (
        scale * noncentrality_limit(t, effect.n - 1, 1 - tail),
        scale * noncentrality_limit(t, effect.n - 1, tail),
    )


MIN_SEEDS_G = 5
"""Below this many seeds the test of two g covers 99 % instead of 95 and is not used."""
MIN_SEEDS_G_INTERVAL = 8
"""Below this many seeds the interval of one g is not shown: it covers, but the pooled SD is hardly
bounded, and in up to a third of studies of five seeds it is wider than 10."""
MIN_SEEDS_G_DIFFERENCE = 10
"""Below this many seeds the interval of a difference of two g covers up to 98 % at large effects
and correlated conditions (validation.tsv) and is not shown; its test keeps its level from
MIN_SEEDS_G."""


def score_statistic(effect: PairedEffectSize, hypothesised: float) -> tuple[float, float]:
    """Student's t of a hypothesised standardised effect x, and its degrees of freedom.

    (g - x) / sqrt(J^2 mean_variance + x^2 / (2 df)), Satterthwaite's degrees of freedom of the two
    terms. NaN below MIN_SEEDS_G seeds or where the differences have no spread.
    """
    if effect.n < MIN_SEEDS_G or not effect.mean_variance > 1e-12:
        return NAN, NAN
    own = effect.correction**2 * effect.mean_variance
    size = hypothesised**2 / (2 * effect.df)
    df = (own + size) ** 2 / (own**2 / (effect.n - 1) + size**2 / effect.df)
    return (effect.g - hypothesised) / float(np.sqrt(own + size)), df


def score_interval(effect: PairedEffectSize, level: float = 0.95) -> tuple[float, float]:
    """Limits of one Hedges' g by inversion, as `difference_of_g` does for two.

    All x that `score_statistic` does not reject. Algina and Keselman's interval takes the pooled
    SD to be as uncertain as that of the differences, and so covers 97 to 98 % at effects above 1;
    this one keeps 94.8 to 96.4 % (validation.tsv). NaN below MIN_SEEDS_G_INTERVAL seeds, where it
    says nothing.
    """
    if effect.n < MIN_SEEDS_G_INTERVAL or not effect.mean_variance > 1e-12:
        return NAN, NAN
    own = effect.correction**2 * effect.mean_variance

    def pivot(x: float, quantile: float) -> float:
        t, df = score_statistic(effect, x)
        return t - float(stats.t.ppf(quantile, df))

    def limit(quantile: float) -> float:
        step = float(np.sqrt(own)) if quantile < 0.5 else -float(np.sqrt(own))
        outer = effect.g + step
        for _ in range(60):
            if pivot(outer, quantile) * step < 0:
                return float(
                    optimize.brentq(
                        pivot, effect.g, outer, args=(quantile,), xtol=1e-13, rtol=1e-14
                    )
                )
            step *= 2
            outer += step
        return NAN

    tail = (1 - level) / 2
    return limit(1 - tail), limit(tail)


def difference_of_g(
    small: PairedEffectSize,
    large: PairedEffectSize,
    *,
    side: str = "larger",
    alpha: float = 0.025,
) -> Test:
    """Test and interval of the difference of two independent Hedges' g, by inversion.

    For a hypothesised difference D the two effects are taken as a and a + D with a the mean of
    g_small and g_large - D; the variance of g at an effect x is
    J^2 mean_variance + x^2 / (2 df); the statistic (g_large - g_small - D) / sqrt(sum of the two)
    is referred to Student's t on Satterthwaite's degrees of freedom. The interval is all D that
    are not rejected. Fixing the effects under the hypothesis, as a score test does, is what
    keeps the size near its level at five seeds, where bootstrap and Wald intervals are off
    (validation.tsv). NaN below MIN_SEEDS_G seeds in either model. Source: Hedges and Olkin 1985,
    ch. 5 (variance of g), with the paired design's terms.
    """
    estimate = large.g - small.g
    if min(small.n, large.n) < MIN_SEEDS_G or not np.isfinite(estimate):
        return undefined(estimate)
    if not small.mean_variance + large.mean_variance > 1e-12:
        return undefined(estimate)

    def error(difference: float) -> tuple[float, float]:
        a = (small.g + large.g - difference) / 2
        return difference_of_g_error(small, large, a, a + difference)

    def pivot(difference: float, quantile: float) -> float:
        se, df = error(difference)
        return (estimate - difference) / se - float(stats.t.ppf(quantile, df))

    def limit(quantile: float) -> float:
        # The pivot falls as the hypothesised difference rises.
        step = error(0.0)[0]
        low = high = estimate
        for _ in range(60):
            if pivot(low, quantile) >= 0:
                break
            low -= step
            step *= 2
        step = error(0.0)[0]
        for _ in range(60):
            if pivot(high, quantile) <= 0:
                break
            high += step
            step *= 2
        if pivot(low, quantile) < 0 or pivot(high, quantile) > 0:
            return NAN
        if low == high:
            return float(low)
        return float(optimize.brentq(pivot, low, high, args=(quantile,), xtol=1e-12, rtol=1e-13))

    se, df = error(0.0)
    test = t_test(estimate, se, df, side=side, alpha=alpha)
    tail = (1 - level_of(alpha, side)) / 2
    bound = limit(alpha / 2) if side != "smaller" else -limit(1 - alpha / 2)
    return Test(estimate, se, test.statistic, df, test.p_value, limit(1 - tail), limit(tail), bound)


def difference_of_g_error(
    small: PairedEffectSize, large: PairedEffectSize, effect_small: float, effect_large: float
) -> tuple[float, float]:
    """Standard error of g_large - g_small at given true effects, and its degrees of freedom."""
    terms = []
    for size, effect in ((small, effect_small), (large, effect_large)):
        terms.append((size.correction**2 * size.mean_variance, size.n - 1.0))
        terms.append((effect**2 / (2 * size.df), size.df))
    variance = sum(v for v, _ in terms)
    return float(np.sqrt(variance)), variance**2 / sum(v**2 / df for v, df in terms)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p values; NaN stay NaN and do not count (Holm 1979)."""
    known = sorted((p, i) for i, p in enumerate(p_values) if p == p)
    adjusted = [NAN] * len(p_values)
    running = 0.0
    for rank, (p, i) in enumerate(known):
        running = max(running, min(1.0, (len(known) - rank) * p))
        adjusted[i] = running
    return adjusted
