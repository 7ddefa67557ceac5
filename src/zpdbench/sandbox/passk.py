"""pass@k: the chance that at least one of k samples is correct."""

from __future__ import annotations

import math


def pass_at_k(n: int, c: int, k: int) -> float:
    """The unbiased estimator of pass@k from n samples of which c are correct.

    `1 - C(n-c, k) / C(n, k)` (Chen et al. 2021, Evaluating Large Language Models Trained on Code,
    equation 1), computed as `1 - prod_{i=n-c+1..n} (1 - k/i)` so that nothing overflows; the
    shorter of that product and its mirror `prod_{j=0..k-1} (n-c-j)/(n-j)` is taken, in logarithms,
    so that values near 0 keep their digits.

    Args:
        n: number of samples of one problem, at least 1.
        c: how many of them passed, 0 to n.
        k: samples drawn, 1 to n.

    Returns:
        The probability, 0 to 1.

    Raises:
        ValueError: n, c or k out of range.
    """
    if not (1 <= k <= n and 0 <= c <= n):
        raise ValueError(f"pass@k needs 1 <= k <= n and 0 <= c <= n, not n={n}, c={c}, k={k}")
    if n - c < k:
        return 1.0
    if c <= k:
        terms = (math.log1p(-k / i) for i in range(n - c + 1, n + 1))
    else:
        terms = (math.log1p(-c / (n - j)) for j in range(k))
    return -math.expm1(math.fsum(terms))


def mean_pass_at_k(counts: list[tuple[int, int]], k: int) -> float:
    """The mean over problems of `pass_at_k`; `counts` holds (n, c) of each.

    Raises:
        ValueError: no problems, or one with fewer than k samples.
    """
    if not counts:
        raise ValueError("pass@k of no problems")
    return math.fsum(pass_at_k(n, c, k) for n, c in counts) / len(counts)
