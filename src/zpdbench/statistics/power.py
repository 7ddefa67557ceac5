"""Power and smallest detectable effect: noncentral t for t tests, simulation for two g."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from zpdbench.hypotheses import H3a
from zpdbench.statistics.effects import MIN_SEEDS_G, NAN, PairedEffectSize


def power(
    effect: float, se: float, df: float, *, alpha: float = 0.025, two_sided: bool = False
) -> float:
    """Probability that a t test finds a true `effect`, in the tested direction.

    Args:
        effect: true value, positive in the tested direction, in the unit of `se`.
        se: standard error of the estimate.
        df: its degrees of freedom.
        alpha: level of the test.
        two_sided: whether the test is; power is then that of a finding on the effect's side.

    NaN where se or df is. Source: Cohen 1988; noncentral t as in Johnson, Kotz and Balakrishnan
    1995, ch. 31.
    """
    if not (se > 0 and df > 0 and math.isfinite(effect)):
        return NAN
    critical = float(stats.t.ppf(1 - alpha / (2 if two_sided else 1), df))
    return float(1 - special.nctdtr(df, effect / se, critical))


def minimal_effect(
    se: float, df: float, *, alpha: float = 0.025, target: float = 0.8, two_sided: bool = False
) -> float:
    """The smallest true effect that a t test finds with probability `target` (MDE).

    Arguments, unit and undefined values as in `power`.
    """
    if not (se > 0 and df > 0):
        return NAN

    def lacking(ncp: float) -> float:
        return power(ncp, 1.0, df, alpha=alpha, two_sided=two_sided) - target

    high = 4.0
    while lacking(high) < 0:
        high *= 2
        if high > 1e6:
            return NAN
    return se * float(optimize.brentq(lacking, 0.0, high, xtol=1e-12, rtol=1e-13))


def welch_error(
    sd_small: float, n_small: int, sd_large: float, n_large: int
) -> tuple[float, float]:
    """Standard error and Welch-Satterthwaite degrees of freedom of a difference of two means.

    NaN with fewer than two seeds or without any spread.
    """
    if min(n_small, n_large) < 2 or not (sd_small >= 0 and sd_large >= 0):
        return NAN, NAN
    a, b = sd_small**2 / n_small, sd_large**2 / n_large
    if not a + b > 0:
        return NAN, NAN
    return math.sqrt(a + b), (a + b) ** 2 / (a**2 / (n_small - 1) + b**2 / (n_large - 1))


FEW_SEEDS = 5
"""Below it the noncentral t overstates Welch's power, because the estimated degrees of freedom
vary (7 points at three seeds): there the power is averaged over the two estimated variances."""
_POINTS = 64


def welch_power(
    effect: float, sd_small: float, n_small: int, sd_large: float, n_large: int,
    *, alpha: float = 0.025,
) -> float:  # fmt: skip
    """Power of the one-sided Welch test for a true difference, the two SDs taken as true.

    Noncentral t on Satterthwaite's degrees of freedom; with fewer than FEW_SEEDS seeds the mean
    over both estimated variances (chi-squared, on a grid of quantiles) of the normal probability
    that the difference exceeds its critical value. NaN as in `welch_error`.
    """
    se, df = welch_error(sd_small, n_small, sd_large, n_large)
    if min(n_small, n_large) >= FEW_SEEDS or not se > 0 or not math.isfinite(effect):
        return power(effect, se, df, alpha=alpha)
    quantiles = (np.arange(_POINTS) + 0.5) / _POINTS
    a, b = (
        sd**2 / n * stats.chi2.ppf(quantiles, n - 1) / (n - 1)
        for sd, n in ((sd_small, n_small), (sd_large, n_large))
    )
    x, y = a[:, None], b[None, :]
    found = (x + y) ** 2 / (x**2 / (n_small - 1) + y**2 / (n_large - 1))
    critical = special.stdtrit(found, 1 - alpha) * np.sqrt(x + y)
    return float(special.ndtr((effect - critical) / se).mean())


def welch_minimal_effect(
    sd_small: float, n_small: int, sd_large: float, n_large: int,
    *, alpha: float = 0.025, target: float = 0.8,
) -> float:  # fmt: skip
    """The smallest true difference that the Welch test finds with probability `target`."""
    se, df = welch_error(sd_small, n_small, sd_large, n_large)
    if min(n_small, n_large) >= FEW_SEEDS or not se > 0:
        return minimal_effect(se, df, alpha=alpha, target=target)

    def lacking(effect: float) -> float:
        return welch_power(effect, sd_small, n_small, sd_large, n_large, alpha=alpha) - target

    high = se
    while lacking(high) < 0:
        high *= 2
        if high > 1e6 * se:
            return NAN
    return float(optimize.brentq(lacking, 0.0, high, xtol=1e-12 * se, rtol=1e-12))


_STUDIES = 1 << 14
"""Points of the sequence over which the rule's power is averaged: right to 0.2 points."""


@cache
def _uniform() -> NDArray[np.float64]:
    """[6, _STUDIES] evenly spread points of the unit cube (Sobol 1967), no end among them."""
    points: NDArray[np.float64] = stats.qmc.Sobol(6, scramble=False).random(_STUDIES)
    return points.T + 0.5 / _STUDIES


def of_rule(
    gain_small: float,
    gain_large: float,
    sd_small: float,
    sd_large: float,
    *,
    n: tuple[int, int],
    correlation: float | None,
    h: H3a,
) -> float:
    """Power of H3a's whole rule (`verdicts.judge`): both of its tests hold, the spread as given.

    Args:
        gain_small, gain_large: true gains of the two models, percentage points.
        sd_small, sd_large: SD over seeds of treatment - control, same unit.
        n: seeds of the small and of the large model.
        correlation: of the two models' per-seed gains, whose seeds they share; None: they share
            none, and the difference is tested by Welch's t.
        h: side, level and margins.

    The two tests share data: normal means and Wishart covariances (Bartlett's decomposition) over
    a low-discrepancy sequence. NaN with fewer than two seeds or without spread.
    """
    tested = 0 if h.side == "smaller" else 1
    means, sds = np.array([gain_small, gain_large]), np.array([sd_small, sd_large])
    if min(n) < 2 or not (np.all(np.isfinite(means)) and np.all(sds > 0)):
        return NAN
    u = _uniform()
    z = special.ndtri(u[:3])
    other = 1 - tested
    df = n[tested] - 1
    chi = special.chdtri(df, u[3])
    gain = means[tested] + z[0] * sds[tested] / math.sqrt(n[tested])
    gain_variance = sds[tested] ** 2 * chi / df
    if correlation is None:
        m = n[other]
        rest = means[other] + z[1] * sds[other] / math.sqrt(m)
        a, b = (
            gain_variance / n[tested],
            sds[other] ** 2 * special.chdtri(m - 1, u[4]) / (m - 1) / m,
        )
        difference, error = gain - rest, np.sqrt(a + b)
        freedom = (a + b) ** 2 / (a**2 / df + b**2 / (m - 1))
    else:
        # The gain's error z[0] and an independent part of the difference's.
        slope = sds[tested] - correlation * sds[other]
        own = sds[other] * math.sqrt(max(1 - correlation**2, 0.0))
        if not slope**2 + own**2 > 1e-24 * float(sds @ sds):
            return NAN
        difference = means[tested] - means[other]
        difference = difference + (slope * z[0] + own * z[1]) / math.sqrt(n[tested])
        rest = special.chdtri(df - 1, u[4]) if df > 1 else np.zeros_like(chi)
        spread = (slope * np.sqrt(chi) + own * z[2]) ** 2 + own**2 * rest
        error, freedom = np.sqrt(spread / df / n[tested]), np.full_like(gain, df)
    is_different = difference - h.margin > special.stdtrit(freedom, 1 - h.alpha) * error
    is_gain = gain - h.margin_gain > special.stdtrit(df, 1 - h.alpha) * np.sqrt(
        gain_variance / n[tested]
    )
    return float(np.mean(is_different & is_gain))


def spread_factors(df: float, level: float = 0.95) -> tuple[float, float]:
    """By how much a measured SD on `df` degrees of freedom may be too large or too small.

    The limits of sigma / s: 0.60 and 2.87 on 4 degrees of freedom. NaN where df is.
    """
    if not df > 0:
        return NAN, NAN
    tails = stats.chi2.ppf([0.5 + level / 2, 0.5 - level / 2], df)
    return math.sqrt(df / tails[0]), math.sqrt(df / tails[1])


def seeds_needed(
    power: Callable[[int], float], *, target: float = 0.8, limit: int = 10_000
) -> int | None:
    """The smallest number of seeds at which a power that rises with them reaches `target`.

    None if there is none up to `limit`.
    """
    if not power(limit) >= target:
        return None
    low, high = 1, 2
    while not power(high) >= target:
        low, high = high, min(high * 2, limit)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= target else (middle, high)
    return high


class PowerOfG:
    """Power of the test of two g (`effects.difference_of_g`), by simulation with a fixed seed.

    No noncentral distribution fits it within three points at five seeds. The two models' spread
    and correlation are taken as estimated; the same 4,000 simulated studies serve all effects,
    so that power rises smoothly with the effect.
    """

    def __init__(
        self,
        small: PairedEffectSize,
        large: PairedEffectSize,
        *,
        side: str = "larger",
        alpha: float = 0.025,
        studies: int = 4_000,
    ) -> None:
        self._sign = -1.0 if side == "smaller" else 1.0
        self._alpha = alpha
        self._sizes = (small, large)
        self._is_defined = all(
            s.n >= MIN_SEEDS_G and s.mean_variance > 1e-12 and s.df > 0 for s in self._sizes
        )
        if self._is_defined:
            rng = np.random.default_rng(0)
            self._drawn = [_studies(s, studies, rng) for s in self._sizes]

    def power(self, effect_small: float, effect_large: float) -> float:
        """Share of studies that find the difference; NaN where the test is not used."""
        if not self._is_defined:
            return NAN
        g, own, spread = [], [], []
        for size, effect, (shift, scale, variance, df) in zip(
            self._sizes, (effect_small, effect_large), self._drawn, strict=True
        ):
            g.append(size.correction * (shift + effect / scale))
            own.append(size.correction**2 * variance)
            spread.append(df)
        middle = (g[0] + g[1]) / 2
        total, curvature = np.zeros_like(middle), np.zeros_like(middle)
        for size, variance, df in zip(self._sizes, own, spread, strict=True):
            for part, freedom in ((variance, size.n - 1.0), (middle**2 / (2 * df), df)):
                total += part
                curvature += part**2 / freedom
        t = self._sign * (g[1] - g[0]) / np.sqrt(total)
        return float(np.mean(special.stdtr(total**2 / curvature, -t) < self._alpha))

    def minimal_effect(self, effect_small: float, target: float = 0.8) -> float:
        """The difference of g found with probability `target`, the small model's effect given."""
        if not (self._is_defined and math.isfinite(effect_small)):
            return NAN

        def found(difference: float) -> float:
            return self.power(effect_small, effect_small + self._sign * difference)

        low, high = 0.0, 1.0
        while found(high) < target:
            low, high = high, high * 2
            if high > 1e3:
                return NAN
        for _ in range(14):
            middle = (low + high) / 2
            low, high = (low, middle) if found(middle) >= target else (middle, high)
        return high


def _studies(
    size: PairedEffectSize, studies: int, rng: np.random.Generator
) -> tuple[NDArray[np.float64], ...]:
    """d at effect 0, pooled SD, variance of the mean and df, of simulated paired samples."""
    n = size.n
    # In units of the pooled variance; the unequal part of the two variances from the df.
    covariance = 1 - size.mean_variance * n / 2
    unequal = (4 * (n - 1) / size.df - 2 - 2 * covariance**2) / 2
    u = math.sqrt(min(max(unequal, 0.0), 0.999))
    bound = math.sqrt((1 + u) * (1 - u))
    covariance = min(max(covariance, -bound), bound)
    first = rng.standard_normal((studies, n))
    second = rng.standard_normal((studies, n))
    control = math.sqrt(1 - u) * first
    slope = covariance / math.sqrt(1 - u)
    treatment = slope * first + math.sqrt(max(1 + u - slope**2, 0.0)) * second
    vt, vc = treatment.var(axis=1, ddof=1), control.var(axis=1, ddof=1)
    pooled = (vt + vc) / 2
    difference = treatment - control
    centred = (treatment - treatment.mean(axis=1, keepdims=True)) * (
        control - control.mean(axis=1, keepdims=True)
    )
    shared = centred.sum(axis=1) / (n - 1)
    scale = np.sqrt(pooled)
    return (
        difference.mean(axis=1) / scale,
        scale,
        (vt + vc - 2 * shared) / pooled / n,
        (n - 1) * 4 * pooled**2 / (vt**2 + vc**2 + 2 * shared**2),
    )
