"""Rows that hypotheses about per-seed contrasts share: h3b, R1, ablations, the ladder."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zpdbench.statistics import effects, power
from zpdbench.statistics.verdicts import judge

COLUMNS = (
    "hypothesis", "model", "benchmark", "scale", "contrast", "n_seeds", "estimate", "low", "high",
    "level", "test", "side", "statistic", "df", "p_value", "p_holm", "mde_80", "verdict", "note",
)  # fmt: skip


def stratified(
    groups: Sequence[ArrayLike], *, side: str, alpha: float, margin: float = 0.0
) -> effects.Test:
    """Test of the unweighted mean of several groups' means, each with its own variance.

    Args:
        groups: per-seed values of each model, at least two values each.

    Degrees of freedom by Welch-Satterthwaite (Satterthwaite 1946). NaN as in `effects.welch`.
    """
    arrays = [np.asarray(g, dtype=float) for g in groups]
    weight = 1.0 / len(arrays)
    estimate = float(sum(weight * a.mean() for a in arrays))
    spreads = [effects.spread(a) for a in arrays]
    if not (all(s >= 0 for s in spreads) and sum(spreads) > 0):
        return effects.undefined(estimate)
    parts = [(weight * s) ** 2 / a.size for s, a in zip(spreads, arrays, strict=True)]
    variance = sum(parts)
    df = variance**2 / sum(p**2 / (a.size - 1) for p, a in zip(parts, arrays, strict=True))
    return effects.t_test(estimate, math.sqrt(variance), df, side=side, alpha=alpha, margin=margin)


RULE = (
    "margin", "p_difference", "bound", "gain", "gain_low", "gain_high", "margin_gain", "p_gain",
    "bound_gain", "p_against",
)  # fmt: skip
"""Columns of tables whose hypothesis has two conditions, after their own."""


def ruled(
    row: dict[str, Any],
    difference: effects.Test,
    gain: effects.Test,
    alpha: float,
    *,
    margin: float,
    margin_gain: float,
) -> dict[str, Any]:
    """A row with the intersection-union rule's columns; its word is `_verdict`."""
    said = judge(difference, gain, alpha, margin=margin, margin_gain=margin_gain)
    return row | {
        "p_value": said.p_value, "p_against": said.p_against, "_verdict": said.verdict,
        "margin": margin, "p_difference": difference.p_value, "bound": difference.bound,
        "gain": gain.estimate, "gain_low": gain.low, "gain_high": gain.high,
        "margin_gain": margin_gain, "p_gain": gain.p_value, "bound_gain": gain.bound,
    }  # fmt: skip


def by_seed(
    values: Mapping[str, NDArray[np.float64]], seeds: Mapping[str, Sequence[str]]
) -> list[NDArray[np.float64]] | None:
    """The models' values of the seeds that all share, seed by seed; None where they share none.

    Runs of one seed are trained on the same examples in the same order: they are no independent
    samples.
    """
    names = list(values)
    shared = [s for s in seeds[names[0]] if all(s in seeds[m] for m in names)]
    if not shared:
        return None
    return [values[m][[list(seeds[m]).index(s) for s in shared]] for m in names]


def minimal_difference(first: ArrayLike, second: ArrayLike, *, alpha: float) -> float:
    """The difference of two models' means that Welch's one-sided test finds four times in five.

    Two-sided: half the alpha. NaN with one seed or without spread.
    """
    x, y = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    return power.welch_minimal_effect(
        effects.spread(x), x.size, effects.spread(y), y.size, alpha=alpha
    )


def minimal_mean(groups: Sequence[ArrayLike], *, alpha: float) -> float:
    """The mean of several models' means that `stratified` finds four times in five.

    That of two is half of Welch's difference between one and minus the other.
    """
    if len(groups) == 2:
        return minimal_difference(groups[0], groups[1], alpha=alpha) / 2
    test = stratified(groups, side="larger", alpha=alpha)
    return power.minimal_effect(test.standard_error, test.df, alpha=alpha)


def row(
    result: effects.Test,
    *,
    side: str,
    alpha: float,
    n_seeds: int,
    mde: float | None = None,
    **more: Any,
) -> dict[str, Any]:
    """A results row of a t test, its smallest detectable effect and its reason if undefined.

    Args:
        mde: smallest detectable effect; None: by the noncentral t of the test's error.
    """
    notes = [more.pop("note")] if more.get("note") else []
    more.pop("note", None)
    if math.isnan(result.p_value):
        notes.append("one seed only: no test" if n_seeds < 2 else "zero variance: no test")
    if mde is None:
        mde = power.minimal_effect(
            result.standard_error, result.df, alpha=alpha, two_sided=side == "different"
        )
    return {
        "n_seeds": n_seeds, "estimate": result.estimate, "low": result.low, "high": result.high,
        "level": effects.level_of(alpha, side),
        "side": "two-sided" if side == "different" else side,
        "statistic": result.statistic, "df": result.df, "p_value": result.p_value, "mde_80": mde,
        "note": "; ".join(notes), **more,
    }  # fmt: skip
