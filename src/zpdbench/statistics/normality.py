"""Shapiro and Wilk's test by Royston's approximation (AS R94), with exact normal quantiles.

scipy's differs from it, and from R's, in the seventh digit: its quantiles are an approximation.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from zpdbench.statistics.effects import NAN, spread

# Coefficients of AS R94, in rising powers.
_FIRST = (0.0, 0.221157, -0.147981, -2.07119, 4.434685, -2.706056)
_SECOND = (0.0, 0.042981, -0.293762, -1.752461, 5.682633, -3.582633)
_GAMMA = (-2.273, 0.459)
_MEAN_FEW = (0.544, -0.39978, 0.025054, -6.714e-4)
_SD_FEW = (1.3822, -0.77857, 0.062767, -0.0020322)
_MEAN_MANY = (-1.5861, -0.31082, -0.083751, 0.0038915)
_SD_MANY = (-0.4803, -0.082676, 0.0030302)


def shapiro_wilk(values: ArrayLike) -> tuple[float, float]:
    """W and p of normality of 3 to 5,000 values; NaN otherwise, or without spread.

    Sources: Shapiro and Wilk 1965; Royston 1995 (AS R94).
    """
    x = np.sort(np.asarray(values, dtype=float))
    n = x.size
    if not 3 <= n <= 5000 or not spread(x) > 0:
        return NAN, NAN
    a = _weights(n)
    centred = x - x.mean()
    w = min(float(a @ centred) ** 2 / float(a @ a) / float(centred @ centred), 1.0)
    return w, _p_value(w, n)


def _weights(n: int) -> np.ndarray:
    """The approximated best linear weights of n ordered values, antisymmetric."""
    if n == 3:
        return np.array([-math.sqrt(0.5), 0.0, math.sqrt(0.5)])
    half = n // 2
    m = special.ndtri((np.arange(1, half + 1) - 0.375) / (n + 0.25))
    total, root = 2 * float(m @ m), 1 / math.sqrt(n)
    outer = [_polynomial(_FIRST, root) - m[0] / math.sqrt(total)]
    if n > 5:
        outer.append(_polynomial(_SECOND, root) - m[1] / math.sqrt(total))
    k = len(outer)
    rest = total - 2 * float(m[:k] @ m[:k])
    scale = math.sqrt(rest / (1 - 2 * sum(o * o for o in outer)))
    lower = np.concatenate([outer, -m[k:] / scale])
    return np.concatenate([-lower, np.zeros(n % 2), lower[::-1]])


def _p_value(w: float, n: int) -> float:
    if n == 3:
        return max(6 / math.pi * (math.asin(math.sqrt(w)) - math.asin(math.sqrt(0.75))), 0.0)
    if w >= 1:
        return 1.0
    y = math.log1p(-w)
    if n <= 11:
        gamma = _polynomial(_GAMMA, n)
        if y >= gamma:
            return 0.0
        y = -math.log(gamma - y)
        mean, sd = _polynomial(_MEAN_FEW, n), math.exp(_polynomial(_SD_FEW, n))
    else:
        mean = _polynomial(_MEAN_MANY, math.log(n))
        sd = math.exp(_polynomial(_SD_MANY, math.log(n)))
    return float(special.ndtr((mean - y) / sd))


def _polynomial(coefficients: tuple[float, ...], x: float) -> float:
    return float(np.polynomial.polynomial.polyval(x, coefficients))
