"""The ZPD window in effective perplexity, its adaptation, and the draw from it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

ALPHA_RANGE = (1.0, 1.2)
BETA_RANGE = (1.2, 1.6)
STRETCH = 1.05
GAIN = 0.01
"""Relative gain in competence, since the update before, from which on the window is stretched."""


@dataclass(frozen=True)
class Window:
    """`[alpha p, beta p]` around the model's smoothed effective perplexity p.

    Attributes:
        alpha, beta: factors of the lower and the upper bound.
        lower, upper: whether the bound exists (ablations A5 and A4 take one away).
    """

    alpha: float = 1.1
    beta: float = 1.3
    lower: bool = True
    upper: bool = True

    def bounds(self, perplexity: float) -> tuple[float, float]:
        """(low, high) in effective perplexity; 0 or infinity where there is no bound."""
        return (
            self.alpha * perplexity if self.lower else 0.0,
            self.beta * perplexity if self.upper else math.inf,
        )

    def adapt(self, competence: float, previous: float | None, updates: float = 1.0) -> Window:
        """The next window: stretched by 1.05 after a gain of at least 1 %, else shrunk by it.

        Args:
            competence: the raw probe's competence now.
            previous: the same at the update before; None at the first, which changes nothing.
            updates: how many updates this one stands for: gain and stretch are compounded.

        Both factors stay within [1.0, 1.2] and [1.2, 1.6]. Our operationalisation.
        """
        if previous is None:
            return self
        stretch = STRETCH**updates
        factor = stretch if competence >= previous * (1.0 + GAIN) ** updates else 1.0 / stretch
        return replace(
            self,
            alpha=min(max(self.alpha * factor, ALPHA_RANGE[0]), ALPHA_RANGE[1]),
            beta=min(max(self.beta * factor, BETA_RANGE[0]), BETA_RANGE[1]),
        )


@dataclass(frozen=True)
class Draw:
    """What was drawn from a pool.

    Attributes:
        positions: drawn positions in the pool, in training order, shape (need,).
        inside: how many candidates of the pool lie in the window.
        fallback: how many of the drawn come from outside it.
        below: how many of these lie below it (too easy); the others lie above.
        beyond: how many of the fallback were drawn at random, as nothing was near enough.
        pool_below: how many candidates of the pool lie below the window.
    """

    positions: NDArray[np.int64]
    inside: int
    fallback: int
    below: int
    beyond: int
    pool_below: int


def draw(
    perplexities: NDArray[np.float64],
    low: float,
    high: float,
    need: int,
    max_repeats: int,
    generator: np.random.Generator,
    limit: float | None = None,
) -> Draw:
    """Draw `need` examples from those in [low, high], the rest from the nearest outside.

    Inside candidates are drawn in rounds without replacement, so that repeats are spread evenly,
    at most `max_repeats` rounds. What lacks is filled by the candidates nearest to the window in
    log distance, again in rounds. The order of the result is a random permutation.

    Args:
        perplexities: effective perplexity of each candidate, shape (pool,).
        need: how many to draw; at most pool * max_repeats.
        limit: log distance to the window beyond which nearness counts for nothing: what still
            lacks is drawn at random from those farther away, in rounds; None: no limit.

    Raises:
        ValueError: the pool is too small for `need` at this `max_repeats`.
    """
    pool = len(perplexities)
    if need > pool * max_repeats:
        raise ValueError(f"{need} examples from {pool} candidates at most {max_repeats} times each")
    is_inside = (perplexities >= low) & (perplexities <= high)
    inside = np.flatnonzero(is_inside)
    chosen: list[NDArray[np.int64]] = []
    lacking = need
    for _ in range(max_repeats):
        take = min(lacking, len(inside))
        chosen.append(generator.permutation(inside)[:take])
        lacking -= take
    fallback = lacking
    outside = np.flatnonzero(~is_inside)
    value = np.log(perplexities[outside])
    distance = np.where(
        perplexities[outside] < low,
        (math.log(low) if low > 0 else 0.0) - value,
        value - (math.log(high) if math.isfinite(high) else 0.0),
    )
    by_distance = np.argsort(distance, kind="stable")
    nearest, far = outside[by_distance], outside[:0]
    if limit is not None:
        near = int((distance <= limit).sum())
        nearest, far = nearest[:near], nearest[near:]
    filled: list[NDArray[np.int64]] = [outside[:0]]
    for _ in range(max_repeats):
        filled.append(nearest[:lacking])
        lacking -= len(filled[-1])
    beyond = lacking
    while lacking:
        filled.append(generator.permutation(far)[:lacking])
        lacking -= len(filled[-1])
    fill = np.concatenate(filled)
    positions = generator.permutation(np.concatenate([*chosen, fill]).astype(np.int64))
    return Draw(
        positions,
        inside=len(inside),
        fallback=fallback,
        below=int((perplexities[fill] < low).sum()),
        beyond=beyond,
        pool_below=int((perplexities < low).sum()),
    )
