"""In words: whether a run did what its condition's name says, from its trace."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MOSTLY = 0.5
"""Share of a block from outside the window from which on the block is mostly fallback."""
ONE_SIDED = 0.05
"""Mean share of fallback from which on it is said which side of the window it lies on."""
SIDE = 0.9
"""Share of what comes from outside the window from which on it lies on one side."""
LENGTH = 1.5
"""Ratio of mean response tokens, drawn to pool, from which on the answers' lengths are told."""
LAG = 0.1
"""Relative distance of smoothed and raw perplexity from which on the window lags the model."""
KEEP_EVERYTHING = 0.95
"""Share of the pool inside the window from which on the draw is as good as random."""


def side(fallback: float, below: float) -> str | None:
    """`below` or `above`: where 90 % or more of what came from outside the window lies.

    Args:
        fallback, below: share of a block from outside the window, and from below it.
    """
    if not fallback > 0:
        return None
    share = below / fallback
    return "below" if share >= SIDE - 1e-9 else "above" if share <= 1.0 - SIDE + 1e-9 else None


_MEANING = {
    "below": "below it: easier than meant, mostly mastered already",
    "above": "above it: harder than meant, too hard for the model as it is",
    None: "on both sides of it",
}


def unfed(update: Mapping[str, Any]) -> str | None:
    """A sentence about one update whose block is mostly fallback; None if it is not, or no zpd.

    Of another package's condition, which may record less, only what it records.
    """
    fallback, below = update.get("fallback"), update.get("fallback_below")
    if fallback is None or not fallback > MOSTLY:
        return None
    inside = update.get("occupancy")
    return (
        "the window is not fed: "
        + (f"it holds {inside:.0%} of the pool, so " if inside is not None else "")
        + f"{fallback:.0%} of the block comes from outside"
        + (f", {_MEANING[side(fallback, below)]}" if below is not None else "")
    )


def describe(
    updates: Sequence[Mapping[str, Any]],
    *,
    keep: float | None = None,
    difficulty: np.ndarray | None = None,
    max_repeats: int | None = None,
) -> list[str]:
    """Sentences about what a run's updates did; empty if there is nothing to remark.

    Args:
        updates: the trace's update rows, in order, with the facts that `zpd` records.
        keep: the weight of the past in the moving average, if it has one.
        difficulty: difficulty before training of the examples in the order trained, shape (n,),
            to see whether the order came out as one of the fixed ones.
        max_repeats: how often an example may come in one block.
    """
    found: list[str] = []
    windows = [u for u in updates if u.get("fallback") is not None]
    if windows:
        fallback = np.array([u["fallback"] for u in windows], dtype=float)
        occupancy = np.array([u["occupancy"] for u in windows], dtype=float)
        mostly = int((fallback > MOSTLY).sum())
        if mostly:
            found.append(
                f"In {mostly} of {len(windows)} updates most of the block came from outside the "
                f"window (fallback {fallback.mean():.0%} on average): the condition did not do "
                "what its name says there."
            )
        below = np.array([u.get("fallback_below", np.nan) for u in windows], dtype=float)
        if fallback.mean() > ONE_SIDED and np.isfinite(below).all():
            where = side(fallback.sum(), below.sum())
            share = below.sum() / fallback.sum()
            if where:
                found.append(
                    f"What came from outside the window ({fallback.mean():.0%} of the draws) lay "
                    f"to {share if where == 'below' else 1.0 - share:.0%} {_MEANING[where]}."
                )
        found += _lengths(windows)
        empty = int((occupancy == 0).sum())
        if empty:
            found.append(f"In {empty} of {len(windows)} updates the window held no candidate.")
        everything = int((occupancy >= KEEP_EVERYTHING).sum())
        if everything == len(windows):
            found.append(
                "The window held nearly all candidates throughout: the condition reduced to random."
            )
        elif everything:
            found.append(
                f"In {everything} of {len(windows)} updates the window held nearly all candidates, "
                "where the draw is as good as random."
            )
        found += _lag(windows, keep)
        if max_repeats is not None and len(windows):
            capped = sum(u["repeats_max"] >= max_repeats for u in windows)
            if capped * 2 > len(windows):
                found.append(
                    f"In {capped} of {len(windows)} updates examples came the most often allowed "
                    f"({max_repeats} times a block)."
                )
    if difficulty is not None and len(difficulty) > 2:
        found += _fixed_order(difficulty)
    return found


def _lengths(windows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Whether the draw chose by length: effective perplexity is not the same at all lengths."""
    told = [u for u in windows if u.get("drawn_tokens") and u.get("pool_tokens")]
    ratio = np.array([u["drawn_tokens"] / u["pool_tokens"] for u in told], dtype=float)
    found = []
    for name, odd in (("shorter", ratio <= 1.0 / LENGTH), ("longer", ratio >= LENGTH)):
        if odd.any():
            last = told[int(np.flatnonzero(odd)[-1])]
            found.append(
                f"In {int(odd.sum())} of {len(windows)} updates the answers drawn were much {name} "
                f"than the pool's (the last time {last['drawn_tokens']:.1f} response tokens, where "
                f"the pool had {last['pool_tokens']:.1f}): there the window chose by length."
            )
    return found


def _lag(windows: Sequence[Mapping[str, Any]], keep: float | None) -> list[str]:
    raw = np.array([u["perplexity"] for u in windows], dtype=float)
    smoothed = np.array([u["perplexity_smoothed"] for u in windows], dtype=float)
    ratio = smoothed / raw - 1.0
    late = int((np.abs(ratio) > LAG).sum())
    if not late or len(windows) < 2:
        return []
    than = "easier" if ratio[-1] < 0 else "harder"
    text = (
        f"The smoothed perplexity lagged the model in {late} of {len(windows)} updates (at the "
        f"last by {ratio[-1]:+.0%}: the window stood at examples {than} than meant)"
    )
    if keep is not None:
        text += (
            f"; at {keep:g} the first probe still has weight "
            f"{keep ** (len(windows) - 1):.0%} in the last of {len(windows)} updates"
        )
    return [text + "."]


def _fixed_order(difficulty: np.ndarray) -> list[str]:
    """Whether the order trained correlates with difficulty like a fixed order's (Spearman)."""
    from zpdbench.curriculum.difficulty import rank_normalise

    ranks = rank_normalise(np.asarray(difficulty, dtype=np.float64))
    if ranks.std() == 0:
        return []
    rho = float(np.corrcoef(ranks, np.arange(len(ranks)))[0, 1])
    if abs(rho) < 0.9:
        return []
    name = "easy to hard" if rho > 0 else "hard to easy"
    return [f"The order trained is almost {name} (rank correlation with the step {rho:+.2f})."]
