"""Power and smallest detectable effect of the t tests, by the noncentral t distribution."""

from __future__ import annotations

import math

from scipy import optimize, special, stats

NAN = float("nan")


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
        se, df = welch_error(sd_small, n, sd_large, n)
        return power(effect, se, df, alpha=alpha) >= target

    if not enough(limit):
        return None
    low, high = 1, 2
    while not enough(high):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high
