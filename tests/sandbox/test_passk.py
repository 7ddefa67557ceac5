"""pass@k against exact fractions and against the published product."""

from __future__ import annotations

from fractions import Fraction
from math import comb, prod

import pytest

from zpdbench.sandbox import mean_pass_at_k, pass_at_k


def exact(n: int, c: int, k: int) -> Fraction:
    """1 - C(n-c, k) / C(n, k), in integers."""
    return 1 - Fraction(comb(n - c, k), comb(n, k))


@pytest.mark.parametrize("n", [1, 2, 5, 10, 37, 200, 1000])
def test_equals_the_definition(n: int) -> None:
    step = max(1, n // 25)
    for c in {0, 1, n - 1, n, *range(0, n + 1, step)}:
        for k in {1, n, *range(1, n + 1, step)}:
            if 0 <= c <= n and 1 <= k <= n:
                assert pass_at_k(n, c, k) == pytest.approx(float(exact(n, c, k)), rel=1e-12)


def test_equals_the_published_product() -> None:
    """Chen et al. (2021), figure 3: 1 - prod(1 - k / arange(n - c + 1, n + 1))."""
    for n, c, k in [(200, 3, 1), (200, 3, 100), (1000, 999, 1), (1000, 1, 1000), (10, 4, 5)]:
        terms = prod(1.0 - k / i for i in range(n - c + 1, n + 1))
        published = 1.0 if n - c < k else 1.0 - terms
        assert pass_at_k(n, c, k) == pytest.approx(published, abs=1e-12)


def test_small_probabilities_keep_their_digits() -> None:
    assert pass_at_k(10**9, 1, 1) == pytest.approx(1e-9, rel=1e-13)
    assert pass_at_k(10, 0, 5) == 0.0
    assert pass_at_k(10, 6, 5) == 1.0


@pytest.mark.parametrize("n, c, k", [(0, 0, 1), (5, 6, 1), (5, -1, 1), (5, 1, 0), (5, 1, 6)])
def test_out_of_range(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="pass@k"):
        pass_at_k(n, c, k)


def test_mean() -> None:
    assert mean_pass_at_k([(2, 1), (2, 2), (4, 0)], 1) == pytest.approx(0.5)
    with pytest.raises(ValueError, match="no problems"):
        mean_pass_at_k([], 1)
