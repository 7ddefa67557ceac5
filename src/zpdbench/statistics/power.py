"""Power and smallest detectable effect: noncentral t for t tests, simulation for two g."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, special, stats

from zpdbench.statistics.effects import MIN_SEEDS_G, NAN, PairedEffectSize


def power(
    effect: float, se: float, df: float, *, alpha: float = 0.05, two_sided: bool = False
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
    se: float, df: float, *, alpha: float = 0.05, target: float = 0.8, two_sided: bool = False
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
    *, alpha: float = 0.05,
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
    *, alpha: float = 0.05, target: float = 0.8,
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


def seeds_needed(
    effect: float,
    sd_small: float,
    sd_large: float,
    *,
    alpha: float = 0.05,
    target: float = 0.8,
    limit: int = 100_000,
) -> int | None:
    """Seeds a model at which the H3a test finds a true `effect` with probability `target`.

    Args:
        effect: true difference of the two models' effects, positive in the tested direction.
        sd_small: SD over seeds of treatment - control in the small model, same unit.
        sd_large: that of the large one.
        limit: give up above this many.

    Returns:
        The smallest number, or None if there is none up to `limit`.
    """
    if not (effect > 0 and sd_small >= 0 and sd_large >= 0 and sd_small + sd_large > 0):
        return None

    def enough(n: int) -> bool:
        return welch_power(effect, sd_small, n, sd_large, n, alpha=alpha) >= target

    if not enough(limit):
        return None
    low, high = 1, 2
    while not enough(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


class PowerOfG:
    """Power of the test of two g (`effects.difference_of_g`), by simulation with a fixed seed.

    No noncentral distribution fits it within three points at five seeds. The two models' spread
    and correlation are taken as estimated; the same 10,000 simulated studies serve all effects,
    so that power rises smoothly with the effect.
    """

    def __init__(
        self,
        small: PairedEffectSize,
        large: PairedEffectSize,
        *,
        side: str = "larger",
        alpha: float = 0.05,
        studies: int = 10_000,
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
        for _ in range(18):
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
