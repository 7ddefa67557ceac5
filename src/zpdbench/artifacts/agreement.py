"""What a random sample of answers shows about all of them, and what it cannot show."""

from __future__ import annotations

import math
from dataclasses import dataclass

MARGIN = 0.05
"""Two scores within five percentage points count as the same."""
LEVEL = 0.95


def binomial_bounds(count: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Exact two-sided interval of a proportion (Clopper and Pearson 1934).

    Args:
        count: successes, 0 to n.
        n: trials, at least 1.
        level: coverage, at least this much.

    Returns:
        Lower and upper bound in [0, 1].

    Raises:
        ValueError: count outside 0..n or n < 1.
    """
    if n < 1 or not 0 <= count <= n:
        raise ValueError("count must lie in 0..n, n at least 1")
    tail = (1 - level) / 2
    low = 0.0 if count == 0 else _solve(lambda p: 1 - _cdf(count - 1, n, p), tail)
    high = 1.0 if count == n else _solve(lambda p: -_cdf(count, n, p), -tail)
    return low, high


def _cdf(k: int, n: int, p: float) -> float:
    """P(X <= k) for X binomial(n, p)."""
    if p <= 0.0:
        return 1.0
    if p >= 1.0:
        return float(k >= n)
    log_p, log_q = math.log(p), math.log1p(-p)
    total = math.fsum(
        math.exp(
            math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1)
            + i * log_p + (n - i) * log_q
        )
        for i in range(k + 1)
    )  # fmt: skip
    return min(total, 1.0)


def _solve(rising: object, target: float) -> float:
    """Where a rising function of p reaches `target`, by bisection."""
    assert callable(rising)
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if rising(middle) < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


@dataclass(frozen=True)
class Equivalence:
    """Paired verdicts on the same items: is the score the same within the margin?

    Attributes:
        n: pairs.
        up: right here only.
        down: right there only.
        difference: mean of here - there.
        low, high: bounds of the difference, at least `LEVEL`; Bonferroni over the two shares.
        p_value: McNemar's exact test, two-sided.
    """

    n: int
    up: int
    down: int
    difference: float
    low: float
    high: float
    p_value: float

    @property
    def same(self) -> bool:
        """Shown to be the same within the margin."""
        return self.low >= -MARGIN and self.high <= MARGIN

    @property
    def other(self) -> bool:
        """Shown to differ: the interval leaves the margin, or chance does not explain it."""
        return self.low > MARGIN or self.high < -MARGIN or self.p_value < 0.01

    def words(self) -> str:
        """What the sample shows."""
        return (
            f"{self.up + self.down} of {self.n} verdicts differ; here - there "
            f"{100 * self.difference:+.2f} pp, at {100 * LEVEL:.0f} % between "
            f"{100 * self.low:+.1f} and {100 * self.high:+.1f} pp"
        )


def equivalence(up: int, down: int, n: int) -> Equivalence:
    """Compare paired verdicts by their discordant pairs.

    Args:
        up: pairs that are right here only.
        down: pairs that are right there only.
        n: all pairs, at least 1.

    Raises:
        ValueError: counts that cannot be.
    """
    level = 1 - (1 - LEVEL) / 2
    up_low, up_high = binomial_bounds(up, n, level)
    down_low, down_high = binomial_bounds(down, n, level)
    return Equivalence(
        n, up, down, (up - down) / n, up_low - down_high, up_high - down_low, mcnemar(up, down)
    )


def most_hidden(drawn: int, n: int, level: float = LEVEL) -> int:
    """How many of n things may be otherwise when none of `drawn` random ones is (hypergeometric).

    Returns:
        The largest number whose chance to stay unseen is at least 1 - level.

    Raises:
        ValueError: not 0 <= drawn <= n.
    """
    if not 0 <= drawn <= n:
        raise ValueError("drawn must lie in 0..n")
    unseen, hidden = 1.0, 0
    while hidden < n - drawn:
        unseen *= (n - drawn - hidden) / (n - hidden)
        if unseen < 1 - level - 1e-12:
            break
        hidden += 1
    return hidden


def mcnemar(up: int, down: int) -> float:
    """Two-sided p-value of McNemar's exact test: discordant pairs as fair coin tosses."""
    n = up + down
    if n == 0:
        return 1.0
    return min(1.0, 2 * _cdf(min(up, down), n, 0.5))
