"""`zpdbench validate-statistics`: do the tests keep their level, the intervals their coverage?

Simulates R4's grid (two models, paired runs of treatment and control) and counts. Every method is
written here a second time for many studies at once; tests hold these against the functions that
the results come from.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from zpdbench import files, progress
from zpdbench.errors import UserError
from zpdbench.hypotheses import H3a
from zpdbench.statistics import anova, crossed, effects, efficiency, ladder, power, resampling
from zpdbench.statistics.effects import NAN
from zpdbench.statistics.resampling import MIN_SEEDS_BOOTSTRAP
from zpdbench.statistics.verdicts import (
    CONTRADICTED,
    DIFFERENCE_ONLY,
    INCONCLUSIVE,
    SMALLER_HARM,
    SUPPORTED,
)

COLUMNS = (
    "quantity", "method", "scenario", "n_seeds", "replicates", "observed", "expected", "mc_se",
    "bar_low", "bar_high", "verdict", "note",
)  # fmt: skip
ALPHA = 0.025
"""Of one-sided tests."""
TWO_SIDED = 0.05
SEEDS = (3, 5, 10, 20)
MANY = 50
"""Seeds at which the rule alone is looked at besides."""
Array = NDArray[Any]


@dataclass(frozen=True)
class Scenario:
    """How runs scatter. Units: the SD between seeds of a control run."""

    name: str
    sd_large: float = 1.0
    sd_treatment: float = 1.0
    correlation: float = 0.5
    """Between the conditions of one seed."""
    effect_small: float = 0.0
    effect_large: float = 0.0
    between: float = 0.0
    """Correlation of the two models' runs of one seed, which share their examples."""


SHARED = tuple(
    Scenario(f"equal spread, correlation 0.5, {c:g} between models", between=c)
    for c in (-0.5, 0.5, 0.8)
)
NULL = (
    Scenario("equal spread, correlation 0", correlation=0.0),
    Scenario("equal spread, correlation 0.5"),
    Scenario("equal spread, correlation 0.8", correlation=0.8),
    Scenario("2:1 between models, correlation 0", sd_large=2, correlation=0.0),
    Scenario("2:1 between models, correlation 0.5", sd_large=2),
    Scenario("2:1 between models, correlation 0.8", sd_large=2, correlation=0.8),
    Scenario("2:1 for the treatment, correlation 0", sd_treatment=2, correlation=0.0),
    Scenario("2:1 for the treatment, correlation 0.5", sd_treatment=2),
    Scenario("2:1 for the treatment, correlation 0.8", sd_treatment=2, correlation=0.8),
)
CLAIMED = tuple(
    Scenario(f"d 1.5 against 2.2, correlation {c:g}", correlation=c, effect_small=1.5,
             effect_large=2.2)
    for c in (0.0, 0.5, 0.8)
)  # fmt: skip
UNEQUAL = (
    Scenario("d 1.5 against 2.2, 2:1 between models", sd_large=2, effect_small=1.5,
             effect_large=2.2),
    Scenario("d 1.5 against 2.2, 2:1 for the treatment", sd_treatment=2, effect_small=1.5,
             effect_large=2.2),
)  # fmt: skip
"""Where power is looked at besides."""
LEAST = 100
"""Fewest replicates that say anything."""
ITEMS = 60
ITEM_SCENARIOS = {
    "strong item variance": 0.0,
    "items that gain differently": 0.7,
}
"""Name -> SD over items of each cell's own shift, in logits."""


@dataclass(frozen=True)
class Study:
    """Many studies at once: [replicates, seeds] arrays of each cell."""

    small_treatment: Array
    small_control: Array
    large_treatment: Array
    large_control: Array

    @property
    def small(self) -> Array:
        """Per-seed differences of the small model."""
        return self.small_treatment - self.small_control

    @property
    def large(self) -> Array:
        """Per-seed differences of the large model."""
        return self.large_treatment - self.large_control


def simulate(s: Scenario, n: int, replicates: int, rng: np.random.Generator) -> Study:
    """Normal scores of all four cells; effects in units of the cell pair's pooled SD."""
    cells = []
    first: Array | None = None
    for sd, effect in ((1.0, s.effect_small), (s.sd_large, s.effect_large)):
        drawn = rng.standard_normal((3, replicates, n))
        if first is None:
            first = drawn
        else:
            drawn = s.between * first + math.sqrt(1 - s.between**2) * drawn
        block, own = drawn[0], drawn[1:]
        share, rest = math.sqrt(s.correlation), math.sqrt(1 - s.correlation)
        pooled = sd * math.sqrt((1 + s.sd_treatment**2) / 2)
        cells.append(sd * s.sd_treatment * (share * block + rest * own[0]) + effect * pooled)
        cells.append(sd * (share * block + rest * own[1]))
    return Study(*cells)


def true_spread(s: Scenario) -> tuple[float, float]:
    """SD over seeds of the differences in the small and the large model."""
    sd = math.sqrt(1 + s.sd_treatment**2 - 2 * s.correlation * s.sd_treatment)
    return sd, s.sd_large * sd


def true_difference(s: Scenario) -> float:
    """The estimand of H3a, in the scores' unit."""
    pooled = math.sqrt((1 + s.sd_treatment**2) / 2)
    return pooled * (s.sd_large * s.effect_large - s.effect_small)


def rule(
    small: Array,
    large: Array,
    *,
    alpha: float = ALPHA,
    margin: float = 0.0,
    margin_gain: float = 0.0,
) -> Array:
    """The verdict of every study: `h3a.ruling` of paired seeds, as `verdicts.judge` says it."""
    n = small.shape[1]
    quantile = special.stdtrit(n - 1, [1 - alpha, 1 - alpha / 2])
    said = []
    for values in (large - small, large):
        mean = values.mean(axis=1)
        error = values.std(axis=1, ddof=1) / math.sqrt(n)
        said.append((mean - quantile[0] * error, mean + quantile[1] * error, mean, error))
    (low, bound, _, _), (gain_low, gain_bound, gain, error) = said
    words = np.full(len(low), INCONCLUSIVE, dtype=object)
    is_larger = low > margin
    words[is_larger] = DIFFERENCE_ONLY
    words[is_larger & (gain + quantile[0] * error < 0)] = SMALLER_HARM
    words[is_larger & (gain_low > margin_gain)] = SUPPORTED
    words[(bound < margin) | (gain_bound < margin_gain)] = CONTRADICTED
    return words


def welch_p(small: Array, large: Array, difference: float = 0.0) -> Array:
    """One-sided p (larger) of every study, of a hypothesised difference."""
    n, m = small.shape[1], large.shape[1]
    a, b = small.var(axis=1, ddof=1) / n, large.var(axis=1, ddof=1) / m
    df = (a + b) ** 2 / (a**2 / (n - 1) + b**2 / (m - 1))
    t = (large.mean(axis=1) - small.mean(axis=1) - difference) / np.sqrt(a + b)
    return np.asarray(special.stdtr(df, -t))


def pooled_t_p(study: Study, difference: float = 0.0) -> Array:
    """One-sided p of the pooled t of per-seed differences, of a hypothesised difference."""
    n = study.small.shape[1]
    pooled = (study.small.var(axis=1, ddof=1) + study.large.var(axis=1, ddof=1)) / 2
    t = (study.large.mean(axis=1) - study.small.mean(axis=1) - difference) / np.sqrt(2 * pooled / n)
    return np.asarray(special.stdtr(2 * (n - 1), -t))


def pooled_p(study: Study, difference: float = 0.0) -> Array:
    """One-sided p of the interaction of score ~ model * condition, pooled over the four cells."""
    cells = [getattr(study, f) for f in Study.__dataclass_fields__]
    n = cells[0].shape[1]
    variance = np.mean([c.var(axis=1, ddof=1) for c in cells], axis=0)
    estimate = study.large.mean(axis=1) - study.small.mean(axis=1)
    t = (estimate - difference) / np.sqrt(4 * variance / n)
    return np.asarray(special.stdtr(4 * (n - 1), -t))


def paired_p(differences: Array, effect: float) -> Array:
    """P(T <= t) of the t statistic of every study about the true effect."""
    n = differences.shape[1]
    t = (differences.mean(axis=1) - effect) / differences.std(axis=1, ddof=1) * math.sqrt(n)
    return np.asarray(special.stdtr(n - 1, t))


@dataclass(frozen=True)
class _G:
    g: Array
    d: Array
    variance: Array
    df: Array
    correction: float
    n: int


def g_of(treatment: Array, control: Array) -> _G:
    """`effects.hedges_g` of every study."""
    n = treatment.shape[1]
    vt, vc = treatment.var(axis=1, ddof=1), control.var(axis=1, ddof=1)
    centred = (treatment - treatment.mean(axis=1, keepdims=True)) * (
        control - control.mean(axis=1, keepdims=True)
    )
    shared = centred.sum(axis=1) / (n - 1)
    pooled = (vt + vc) / 2
    d = (treatment.mean(axis=1) - control.mean(axis=1)) / np.sqrt(pooled)
    j = float(effects.hedges_correction(2 * n - 2))
    df = (n - 1) * 4 * pooled**2 / (vt**2 + vc**2 + 2 * shared**2)
    return _G(j * d, d, (vt + vc - 2 * shared) / n / pooled, df, j, n)


def g_covers(g: _G, effect: float, level: float = 0.95) -> Array:
    """Whether `effects.paired_effect_interval` holds the true effect."""
    scale = np.sqrt(g.variance)
    below = special.nctdtr(g.n - 1, effect / scale, g.d / scale)
    tail = (1 - level) / 2
    return np.asarray((below >= tail) & (below <= 1 - tail))


def g_score_p(g: _G, effect: float) -> Array:
    """P(T <= t) of `effects.score_interval`'s pivot of every study about the true effect."""
    own, size = g.correction**2 * g.variance, effect**2 / (2 * g.df)
    df = (own + size) ** 2 / (own**2 / (g.n - 1) + size**2 / g.df)
    return np.asarray(special.stdtr(df, (g.g - effect) / np.sqrt(own + size)))


def bootstrap_covers(study: Study, difference: float, draws: int = 1000) -> Array:
    """Whether the percentile bootstrap of seeds (`h3a_sensitivity`) holds the true difference.

    One set of resamples serves all studies, as it would serve one.
    """
    n = study.small.shape[1]
    rng = np.random.default_rng([20261128, n])
    correction = float(effects.hedges_correction(2 * n - 2))
    found, kept = [], np.ones(draws, dtype=bool)
    for t, c in (
        (study.small_treatment, study.small_control),
        (study.large_treatment, study.large_control),
    ):
        w = resampling.seed_draws(n, draws, rng)
        # A resample of one seed n times has no spread, in any study.
        kept &= w.max(axis=1) < 1
        mt, mc = w @ t.T, w @ c.T
        variance = (w @ t.T**2 - mt**2 + w @ c.T**2 - mc**2) / 2 * n / (n - 1)
        with np.errstate(divide="ignore", invalid="ignore"):
            found.append(correction * (mt - mc) / np.sqrt(variance))
    low, high = np.quantile((found[1] - found[0])[kept], [0.025, 0.975], axis=0)
    return np.asarray((low <= difference) & (difference <= high))


def g_p(small: _G, large: _G, difference: float = 0.0) -> Array:
    """One-sided p (larger) of `effects.difference_of_g` about a hypothesised difference."""
    a = (small.g + large.g - difference) / 2
    total, curvature = np.zeros_like(a), np.zeros_like(a)
    for size, effect in ((small, a), (large, a + difference)):
        for part, df in (
            (size.correction**2 * size.variance, np.full_like(a, size.n - 1.0)),
            (effect**2 / (2 * size.df), size.df),
        ):
            total += part
            curvature += part**2 / df
    t = (large.g - small.g - difference) / np.sqrt(total)
    return np.asarray(special.stdtr(total**2 / curvature, -t))


def permutation_p(small: Array, large: Array) -> Array:
    """Exact one-sided p of the permuted model labels of every study."""
    n, m = small.shape[1], large.shape[1]
    pool = np.concatenate([small, large], axis=1)
    chosen = np.zeros((math.comb(n + m, m), n + m))
    for row, members in enumerate(combinations(range(n + m), m)):
        chosen[row, list(members)] = 1.0
    sums = pool @ chosen.T
    return np.asarray((sums >= large.sum(axis=1, keepdims=True) - 1e-9).mean(axis=1))


def interaction_p(y: Array) -> Array:
    """p of model x condition with seeds as blocks in each model; y[replicate, m, k, n]."""
    _, m, k, n = y.shape
    cells = y.mean(axis=3)
    grand = y.mean(axis=(1, 2, 3))[:, None, None]
    effect = cells - cells.mean(axis=2, keepdims=True) - cells.mean(axis=1, keepdims=True) + grand
    residual = (
        y - y.mean(axis=3, keepdims=True) - y.mean(axis=2, keepdims=True)
        + y.mean(axis=(2, 3), keepdims=True)
    )  # fmt: skip
    df, df_error = (m - 1) * (k - 1), m * (k - 1) * (n - 1)
    f = n * (effect**2).sum(axis=(1, 2)) / df / ((residual**2).sum(axis=(1, 2, 3)) / df_error)
    return np.asarray(stats.f.sf(f, df, df_error))


def simulate_items(
    n: int, replicates: int, own_shift: float, rng: np.random.Generator
) -> dict[tuple[str, str], NDArray[np.bool_]]:
    """Verdicts [replicate, item, seed] of each cell; item difficulty has SD 3 in logits.

    Seeds scatter by 0.3 logits and share half of it between conditions; `own_shift` is the SD
    with which each cell shifts each item on its own.
    """
    difficulty = 3 * rng.standard_normal((replicates, ITEMS, 1))
    found = {}
    for role in ("small", "large"):
        block = rng.standard_normal((replicates, 1, n))
        for kind in ("treatment", "control"):
            own = rng.standard_normal((replicates, 1, n))
            shift = own_shift * rng.standard_normal((replicates, ITEMS, 1))
            run = 0.3 * (math.sqrt(0.5) * block + math.sqrt(0.5) * own)
            chance = special.expit(difficulty + run + shift + (0.5 if kind == "treatment" else 0))
            found[role, kind] = rng.random((replicates, ITEMS, n)) < chance
    return found


def clustered_p(cells: dict[tuple[str, str], NDArray[np.bool_]]) -> Array:
    """One-sided p of `h3a_sensitivity`'s clusters by seed and item, of every study."""
    d = _contrast(cells)
    size, n = d.shape[1:]
    shared = d.mean(axis=2).var(axis=1) / size
    both = d.var(axis=1).mean(axis=1) / size / n
    return _crossed_p(d, shared, both)


def _contrast(cells: dict[tuple[str, str], NDArray[np.bool_]]) -> Array:
    """[replicate, item, seed]: how much larger the gain of an item is in the large model."""
    d = {
        r: cells[r, "treatment"].astype(float) - cells[r, "control"].astype(float)
        for r in ("small", "large")
    }
    return d["large"] - d["small"]


def _crossed_p(d: Array, shared: Array, both: Array, n_items: float = math.inf) -> Array:
    """`crossed.components` and its t test, of every study."""
    n = d.shape[2]
    seeds = d.mean(axis=1).var(axis=1, ddof=1) / n
    unbiased = 1.0 if math.isinf(n_items) else n_items / (n_items - 1)
    items = unbiased * np.maximum(shared - both, 0) * n / (n - 1)
    variance = seeds + items
    df = variance**2 / (seeds**2 / (n - 1) + items**2 / (n_items - 1))
    return np.asarray(special.stdtr(df, -d.mean(axis=(1, 2)) / np.sqrt(variance)))


def stratified_p(first: Array, second: Array, effect: float = 0.0) -> Array:
    """P(T <= t) of `contrasts.stratified` of two models' per-seed values about the true mean."""
    n = first.shape[1]
    a, b = (x.var(axis=1, ddof=1) / 4 / n for x in (first, second))
    df = (a + b) ** 2 / ((a**2 + b**2) / (n - 1))
    estimate = (first.mean(axis=1) + second.mean(axis=1)) / 2
    return np.asarray(special.stdtr(df, (estimate - effect) / np.sqrt(a + b)))


def tukey_covers(y: Array, *, is_blocked: bool, level: float = 0.95) -> Array:
    """Whether all of `anova.tukey`'s intervals hold a difference of 0; y[replicate, k, n]."""
    _, k, n = y.shape
    residual = y - y.mean(axis=2, keepdims=True)
    if is_blocked:
        residual = residual - y.mean(axis=1, keepdims=True) + y.mean(axis=(1, 2), keepdims=True)
    df = (k - 1) * (n - 1) if is_blocked else k * (n - 1)
    half = anova.studentized_range(level, k, df) * np.sqrt((residual**2).sum(axis=(1, 2)) / df / n)
    return np.asarray(np.ptp(y.mean(axis=2), axis=1) <= half)


def one_way_p(y: Array, *, is_blocked: bool) -> Array:
    """p of `anova.blocked` or `anova.one_way` of every study; y[replicate, k, n]."""
    _, k, n = y.shape
    means = y.mean(axis=2)
    residual = y - means[:, :, None]
    if is_blocked:
        residual = residual - residual.mean(axis=1, keepdims=True)
    df_error = (k - 1) * (n - 1) if is_blocked else k * (n - 1)
    effect = n * ((means - means.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    error = (residual**2).sum(axis=(1, 2)) / df_error
    return np.asarray(stats.f.sf(effect / (k - 1) / error, k - 1, df_error))


def ladder_p(gains: Array, sizes: Array) -> Array:
    """One-sided p of `ladder`'s slope above 0 of every study; gains[replicate, model, seed]."""
    _, k, n = gains.shape
    x = sizes - sizes.mean()
    y, v = gains.mean(axis=2), gains.var(axis=2, ddof=1) / n
    if n < ladder.MIN_SEEDS_OWN_SPREAD:
        # Equal weights: Knapp and Hartung's error is the same whatever lies between the models.
        tau2 = np.zeros(len(y))
        v = np.ones_like(v)
    else:
        tau2 = _tau2(y, v, x)
    _, slope, information, q = _profile(y, v, x, tau2[:, None])
    error = np.sqrt(q[:, 0] / (k - 2) * information[:, 0])
    return np.asarray(special.stdtr(k - 2, -slope[:, 0] / error))


def _profile(y: Array, v: Array, x: Array, tau2: Array) -> tuple[Array, Array, Array, Array]:
    """Negative restricted log-likelihood, slope, its unscaled variance and weighted residual sum.

    Of every study (rows) and tau2 (columns), of the regression on a centred x.
    """
    w = 1 / (v[:, None, :] + tau2[:, :, None])
    s0, s1, s2 = w.sum(axis=2), (w * x).sum(axis=2), (w * x * x).sum(axis=2)
    t0, t1 = (w * y[:, None, :]).sum(axis=2), (w * x * y[:, None, :]).sum(axis=2)
    determinant = s0 * s2 - s1 * s1
    intercept, slope = (s2 * t0 - s1 * t1) / determinant, (s0 * t1 - s1 * t0) / determinant
    residual = y[:, None, :] - intercept[..., None] - slope[..., None] * x
    q = (w * residual**2).sum(axis=2)
    loss = 0.5 * (np.log(determinant) + q - np.log(w).sum(axis=2))
    return loss, slope, s0 / determinant, q


def _tau2(y: Array, v: Array, x: Array, points: int = 120) -> Array:
    """`ladder.meta_regression`'s tau2 of every study: a grid, then Fisher scoring, and 0."""
    rows = np.arange(len(y))
    low = np.log(1e-10 * v.mean(axis=1))
    high = np.log(10 * (y.var(axis=1) + v.mean(axis=1)))
    grid = np.exp(low[:, None] + (high - low)[:, None] * np.linspace(0, 1, points))
    best = _profile(y, v, x, grid)[0].argmin(axis=1)
    tau2 = np.where(best > 0, grid[rows, best], 0.0)
    is_positive = best > 0
    design = np.column_stack([np.ones_like(x), x])
    for _ in range(200):
        w = 1 / (v + tau2[:, None])
        inverse = np.linalg.inv(np.einsum("rk,ki,kj->rij", w, design, design))
        p = -np.einsum("rk,ki,rij,lj,rl->rkl", w, design, inverse, design, w, optimize=True)
        p[:, np.arange(x.size), np.arange(x.size)] += w
        score = (np.einsum("rkl,rl->rk", p, y) ** 2).sum(axis=1) - np.trace(p, axis1=1, axis2=2)
        step = score / np.einsum("rkl,rlk->r", p, p)
        new = np.where(is_positive, np.maximum(0.0, tau2 + step), 0.0)
        is_done = np.abs(new - tau2) <= 1e-12 * np.maximum(tau2, 1e-300)
        tau2 = new
        if is_done.all():
            break
    loss = _profile(y, v, x, np.column_stack([tau2, np.zeros_like(tau2)]))[0]
    return np.where(loss[:, 0] < loss[:, 1], tau2, 0.0)


def item_bootstrap_p(cells: dict[tuple[str, str], NDArray[np.bool_]], draws: int = 400) -> Array:
    """One-sided p of `h3a_sensitivity`'s bootstrap of items, crossed with seeds, of every study.

    One set of resamples serves all studies, as it would serve one.
    """
    d = _contrast(cells)
    replicates, size, n = d.shape
    w = resampling.item_draws(size, draws, np.random.default_rng([20261129, n]))
    drawn = (w @ d.transpose(1, 0, 2).reshape(size, -1)).reshape(draws, replicates, n)
    both = drawn.var(axis=0).mean(axis=1) / n
    return _crossed_p(d, drawn.mean(axis=2).var(axis=0), both, size)


def simulate_curves(
    n: int, speed: float, rng: np.random.Generator, steps: int = 20
) -> efficiency.Curves:
    """Saturating learning curves of paired runs; the treatment learns `speed` times as fast."""
    axis = np.linspace(0.0, 1.0, steps + 1)
    block = rng.standard_normal((n, 1))
    curves: list[Array] = []
    for rate in (speed, 1.0):
        own = 0.7 * block + 0.7 * rng.standard_normal((n, 1))
        rise = 0.3 * (1 - np.exp(-4 * rate * axis * np.exp(0.15 * own)))
        curves.append(0.4 + rise + 0.02 * own + 0.01 * rng.standard_normal((n, steps + 1)))
    return efficiency.Curves(500.0 * steps * axis, curves[0], curves[1])


def run(replicates: int, *, seeds: tuple[int, ...] = SEEDS) -> Iterator[dict[str, Any]]:
    """Every row: `replicates` studies a scenario, fewer where resamples are drawn inside."""
    for n in seeds:
        yield from _rule(n, replicates)
        for index, scenario in enumerate((*NULL, *CLAIMED, *SHARED)):
            rng = np.random.default_rng([20261124, n, index])
            study = simulate(scenario, n, replicates, rng)
            yield from _tests(scenario, n, study)
            yield from _coverage(scenario, n, study)
            if scenario in NULL:
                yield from _tukey(scenario, n, replicates)
        for index, scenario in enumerate((*CLAIMED, *UNEQUAL)):
            rng = np.random.default_rng([20261125, n, index])
            yield from _power(scenario, n, replicates, rng)
        yield from _anova(n, replicates)
        for index, scenario in enumerate(NULL):
            yield from _ladder(scenario, n, max(replicates // 10, 200), index)
        if n >= efficiency.MIN_SEEDS:
            yield from _efficiency(n, max(replicates // 10, 60))
        for index, (name, shift) in enumerate(ITEM_SCENARIOS.items()):
            rng = np.random.default_rng([20261126, n, index])
            yield from _items(name, shift, n, replicates, rng)


SPREAD = 3.0
"""SD over seeds of a model's gain, in points."""
BETWEEN = (-0.5, 0.0, 0.5, 0.8)
TRUTHS = {
    "equal gains": (12.0, 12.0),
    "a large difference, no gain in the large model": (-12.0, 0.0),
    "no effect anywhere": (0.0, 0.0),
    "harm in both (-6, -3)": (-6.0, -3.0),
    "harm in both (-10, -4)": (-10.0, -4.0),
    "gain in the small model only (+3, 0)": (3.0, 0.0),
    "the claims (+2.25, +5.5)": (2.25, 5.5),
}
"""Gains of the small and of the large model; the first two are the rule's boundaries."""


def _rule(n: int, replicates: int) -> Iterator[dict[str, Any]]:
    """What H3a's rule says under truths of every kind, at correlations of the models' gains."""
    for index, (name, gains) in enumerate(TRUTHS.items()):
        for between in BETWEEN:
            rng = np.random.default_rng([20261206, n, index, int(10 * between) + 10])
            z = rng.standard_normal((2, replicates, n))
            small = gains[0] + SPREAD * z[0]
            large = gains[1] + SPREAD * (between * z[0] + math.sqrt(1 - between**2) * z[1])
            said = rule(small, large)
            where = f"{name}, {between:g} between models"
            supported = said == SUPPORTED
            if index < 2:
                yield _row("size of the rule", "H3a", where, n, supported, ALPHA, 0.005)
                against = said == CONTRADICTED
                # On the boundary nothing is to be contradicted: one of its two ways, alpha / 2.
                yield _row("contradicted on a boundary", "H3a", where, n, against, ALPHA / 2, 0.005)
            elif name.startswith("harm"):
                yield _row("supported under harm", "H3a", where, n, supported, 0.0, 0.001)
            elif name.startswith("the claims"):
                printed = power.of_rule(
                    *gains,
                    SPREAD,
                    SPREAD,
                    n=(n, n),
                    correlation=between,
                    h=H3a(small="s", large="l"),
                )
                yield _row("power of the rule", "H3a", where, n, supported, printed, 0.01)
            else:
                # Everything else is tested behind it: what is supported at all is this.
                yield _row(
                    "any headline supported", "H3a", where, n, supported, ALPHA / 2, ALPHA / 2
                )


def _tests(s: Scenario, n: int, study: Study) -> Iterator[dict[str, Any]]:
    """Type I error; the scenarios with an effect are nulls once it is the same in both models."""
    if s.effect_large != s.effect_small:
        return
    tests = {
        "paired t of the models' effects (primary)": 1 - paired_p(study.large - study.small, 0.0),
        "H3b, paired t of the models' mean": 1 - paired_p((study.large + study.small) / 2, 0.0),
        "Welch t of per-seed differences": welch_p(study.small, study.large),
        "pooled OLS score ~ model * condition": pooled_p(study),
        "H3b, t of the models' mean": 1 - stratified_p(study.small, study.large),
    }
    if n >= effects.MIN_SEEDS_G:
        tests["score t of two g"] = g_p(
            g_of(study.small_treatment, study.small_control),
            g_of(study.large_treatment, study.large_control),
        )
    if n == 5:
        tests["permutation of model labels"] = permutation_p(study.small, study.large)
    for method, p in tests.items():
        # Welch's is for models that share no seed, and timid at three.
        is_barred = "paired" in method or (method.startswith("Welch") and not s.between and n > 3)
        width = 0.005 if is_barred else None
        yield _row("type I error", method, s.name, n, p < ALPHA, ALPHA, width)


def _coverage(s: Scenario, n: int, study: Study) -> Iterator[dict[str, Any]]:
    difference = true_difference(s)
    effect = math.sqrt((1 + s.sd_treatment**2) / 2) * s.effect_small
    cases = {
        "gain of one model, t": _inside(paired_p(study.small, effect)),
        "difference of the gains, paired": _inside(paired_p(study.large - study.small, difference)),
        "H3b, paired t of the models' mean": _inside(
            paired_p((study.large + study.small) / 2, effect + difference / 2)
        ),
        "difference of the gains, Welch": _inside(welch_p(study.small, study.large, difference)),
        # A language's or a group's contrast of gains scatters as a gain does.
        "H3b, t of the models' mean": _inside(
            stratified_p(study.small, study.large, effect + difference / 2)
        ),
    }
    small = g_of(study.small_treatment, study.small_control)
    large = g_of(study.large_treatment, study.large_control)
    cases["Hedges' g, score interval"] = _inside(g_score_p(large, s.effect_large))
    cases["difference of two g, score"] = _inside(
        g_p(small, large, s.effect_large - s.effect_small)
    )
    cases["difference of the gains, pooled t"] = _inside(pooled_t_p(study, difference))
    # What is not used, or not at this number of seeds, is shown: here is why.
    cases["Hedges' g, Algina-Keselman"] = g_covers(large, s.effect_large)
    cases["difference of the gains, pooled OLS"] = _inside(pooled_p(study, difference))
    least: dict[str, float] = {
        "Hedges' g, score interval": effects.MIN_SEEDS_G_INTERVAL,
        "difference of two g, score": effects.MIN_SEEDS_G_DIFFERENCE,
        "Hedges' g, Algina-Keselman": math.inf,
        "difference of the gains, pooled OLS": math.inf,
    }
    if s.between:
        # The rows of models that share no seed; they are used then only.
        least |= dict.fromkeys([m for m in cases if "paired" not in m and "one model" not in m
                                and "interval" not in m], math.inf)  # fmt: skip
    for method, covered in cases.items():
        width = 0.015 if n >= least.get(method, 0) else None
        yield _row("coverage", method, s.name, n, covered, 0.95, width)
    if n >= effects.MIN_SEEDS_G and not s.between:
        part = Study(*(getattr(study, f)[: _bootstraps(study)] for f in Study.__dataclass_fields__))
        covered = bootstrap_covers(part, s.effect_large - s.effect_small)
        width = 0.015 if n >= MIN_SEEDS_BOOTSTRAP else None
        method = "difference of two g, bootstrap of seeds"
        yield _row("coverage", method, s.name, n, covered, 0.95, width)


def _bootstraps(study: Study) -> int:
    return max(study.small.shape[0] // 10, 200)


def _power(
    s: Scenario, n: int, replicates: int, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    study = simulate(s, n, replicates, rng)
    small_sd, large_sd = true_spread(s)
    printed = power.welch_power(true_difference(s), small_sd, n, large_sd, n, alpha=ALPHA)
    found = welch_p(study.small, study.large) < ALPHA
    yield _row("power", "Welch t of per-seed differences", s.name, n, found, printed, 0.03)
    target = power.welch_minimal_effect(small_sd, n, large_sd, n, alpha=ALPHA)
    shifted = simulate(
        replace(
            s,
            effect_small=0.0,
            effect_large=target / true_difference(replace(s, effect_small=0.0, effect_large=1.0)),
        ),
        n,
        replicates,
        rng,
    )
    found = welch_p(shifted.small, shifted.large) < ALPHA
    yield _row("power at the MDE", "Welch t of per-seed differences", s.name, n, found, 0.8, 0.03)
    error = math.sqrt(small_sd**2 + large_sd**2) / math.sqrt(n)
    least = power.minimal_effect(error, n - 1.0, alpha=ALPHA)
    found = paired_p(shifted.large - shifted.small + least - target, 0.0) > 1 - ALPHA
    yield _row("power at the MDE", "paired t of the models' effects", s.name, n, found, 0.8, 0.03)
    # What the other tables print: of one model (two-sided), and of the mean of both.
    gain = shifted.small + power.minimal_effect(
        small_sd / math.sqrt(n), n - 1, alpha=TWO_SIDED, two_sided=True
    )
    found = paired_p(gain, 0.0) > 1 - TWO_SIDED / 2
    yield _row("power at the MDE", "paired t, two-sided", s.name, n, found, 0.8, 0.03)
    # `shifted` has its Welch difference in the large model: half of it in the mean.
    found = stratified_p(shifted.small, shifted.large) > 1 - ALPHA
    yield _row("power at the MDE", "H3b, t of the models' mean", s.name, n, found, 0.8, 0.03)
    if n >= effects.MIN_SEEDS_G and s.sd_treatment == 1:
        size = effects.PairedEffectSize(
            0.0, 0.0, float(effects.hedges_correction(2 * n - 2)), 2 * (1 - s.correlation) / n,
            2 * (n - 1) / (1 + s.correlation**2), n,
        )  # fmt: skip
        printed = power.PowerOfG(size, size, alpha=ALPHA).power(s.effect_small, s.effect_large)
        p = g_p(
            g_of(study.small_treatment, study.small_control),
            g_of(study.large_treatment, study.large_control),
        )
        yield _row("power", "score t of two g (simulated)", s.name, n, p < ALPHA, printed, 0.03)


def _anova(n: int, replicates: int) -> Iterator[dict[str, Any]]:
    """Level of the interaction, and power at the smallest f that a row of anova.tsv prints."""
    rng = np.random.default_rng([20261127, n])
    block = rng.standard_normal((replicates, 2, 1, n))
    own = rng.standard_normal((replicates, 2, 4, n))
    y = math.sqrt(0.5) * (block + own)
    name = "equal spread, correlation 0.5"
    method = "two-way ANOVA, blocks, interaction"
    p = interaction_p(y)
    yield _row("type I error", method, name, n, p < TWO_SIDED, TWO_SIDED, 0.01)
    # One cell's effect e is e^2 (1 - 1/2) (1 - 1/4) of interaction, one condition's e^2 3/4.
    y[:, 1, 3] += _effect_at_mde(3, 6 * (n - 1), 0.5 / (0.375 * n))
    p = interaction_p(y)
    yield _row("power at the MDE", method, name, n, p < TWO_SIDED, 0.8, 0.03)
    for is_blocked, correlation in ((True, 0.5), (False, 0.0)):
        method = "one-way ANOVA, " + ("seeds as blocks" if is_blocked else "unblocked")
        one = math.sqrt(correlation) * block[:, 0] + math.sqrt(1 - correlation) * own[:, 0]
        df_error = 3 * (n - 1) if is_blocked else 4 * (n - 1)
        one[:, 3] += _effect_at_mde(3, df_error, (1 - correlation) / (0.75 * n))
        p = one_way_p(one, is_blocked=is_blocked)
        name = f"equal spread, correlation {correlation:g}"
        yield _row("power at the MDE", method, name, n, p < TWO_SIDED, 0.8, 0.03)


def _effect_at_mde(df: int, df_error: int, scale: float) -> float:
    """The effect whose noncentrality, its square over `scale`, is that of `anova.minimal_f`."""
    f = anova.minimal_f(df, df_error, alpha=TWO_SIDED)
    return f * math.sqrt((df + df_error + 1) * scale)


def _tukey(s: Scenario, n: int, replicates: int) -> Iterator[dict[str, Any]]:
    """Why no table shows Tukey's limits."""
    rng = np.random.default_rng([20261130, n, NULL.index(s)])
    block = rng.standard_normal((replicates, 1, n))
    own = rng.standard_normal((replicates, 4, n))
    y = s.sd_large * (math.sqrt(s.correlation) * block + math.sqrt(1 - s.correlation) * own)
    y[:, 3] *= s.sd_treatment
    for is_blocked, name in ((True, "seeds as blocks"), (False, "unblocked")):
        covered = tukey_covers(y, is_blocked=is_blocked)
        yield _row("coverage", f"Tukey HSD, {name}", s.name, n, covered, 0.95, None)


LADDERS = (3, 7)
"""Models of a ladder."""


def _ladder(s: Scenario, n: int, replicates: int, index: int) -> Iterator[dict[str, Any]]:
    """The slope of the gain on log10 parameters, 0.5B to 72B; the largest model has `sd_large`.

    Without an effect of size; and, in the scenarios with correlation 0.5, with models that differ
    by one SD besides.
    """
    spread, _ = true_spread(s)
    for k in LADDERS:
        sizes = np.linspace(math.log10(0.5e9), math.log10(72e9), k)
        sds = spread * np.linspace(1.0, s.sd_large, k)
        for between in (0.0, 1.0) if s.correlation == 0.5 else (0.0,):
            rng = np.random.default_rng([20261204, n, index, k, int(between)])
            gains = sds[:, None] * rng.standard_normal((replicates, k, n))
            gains += between * rng.standard_normal((replicates, k, 1))
            name = s.name + (", models differ by 1" if between else "")
            method = f"ladder's slope, {k} models"
            p = ladder_p(gains, sizes)
            yield _row("type I error", method, name, n, p < ALPHA, ALPHA, None)
            yield _row("coverage", method, name, n, _inside(p), 0.95, 0.015)
        if s.sd_large == 1 and s.correlation == 0.5:
            centred = sizes - sizes.mean()
            error = spread / math.sqrt(n * float(centred @ centred))
            slope = power.minimal_effect(error, k - 2, alpha=ALPHA)
            rng = np.random.default_rng([20261205, n, index, k])
            gains = spread * rng.standard_normal((replicates, k, n))
            p = ladder_p(gains + slope * centred[:, None], sizes)
            yield _row("power at the MDE", method, s.name, n, p < ALPHA, 0.8, 0.03)


def _efficiency(n: int, replicates: int) -> Iterator[dict[str, Any]]:
    costs = [float] * n
    for index, (name, speed) in enumerate((("equally fast", 1.0), ("half as fast again", 1.5))):
        rng = np.random.default_rng([20261202, n, index])
        truth = _true_ratio(speed)
        hits = []
        for _ in range(replicates):
            row = efficiency.compare(simulate_curves(n, speed, rng), costs, costs)
            hits.append(row["low"] <= truth <= row["high"] if "low" in row else NAN)
        yield _row(
            "coverage", "ratio of costs, jackknife", name, n, np.array(hits, float), 0.95, 0.015
        )


@cache
def _true_ratio(speed: float, many: int = 4000) -> float:
    """The ratio that a study of very many seeds would find."""
    curves = simulate_curves(many, speed, np.random.default_rng(20261203))
    return efficiency.ratio(curves, [float] * many, [float] * many) if speed != 1 else 1.0


def _items(
    name: str, shift: float, n: int, replicates: int, rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    """Scores made of items. With cells that shift items on their own only the crossed rows aim
    at new items; with common items all do. Crossed rows: a tenth of the replicates."""
    p: list[Array] = []
    bootstrap_p: list[Array] = []
    scores_p: list[Array] = []
    logit_p: list[Array] = []
    few = max(replicates // 10, 200)
    for start in range(0, replicates if shift == 0 else few, 200):
        cells = simulate_items(n, 200, shift, rng)
        if start < few:
            p.append(clustered_p(cells))
            bootstrap_p.append(item_bootstrap_p(cells))
        scores = {k: v.mean(axis=1) for k, v in cells.items()}
        for values, transform in (
            (scores_p, np.asarray),
            (logit_p, lambda v: effects.empirical_logit(v, ITEMS)),
        ):
            d = {
                r: transform(scores[r, "treatment"]) - transform(scores[r, "control"])
                for r in ("small", "large")
            }
            values.append(1 - paired_p(d["large"] - d["small"], 0.0))
    methods = {
        "item-level, clustered by seed and item": np.concatenate(p),
        "bootstrap of items, crossed with seeds": np.concatenate(bootstrap_p),
    }
    if shift == 0:
        methods["paired t of the models' effects (primary)"] = np.concatenate(scores_p)
        methods["paired t, log-odds"] = np.concatenate(logit_p)
    for method, found in methods.items():
        is_primary = "primary" in method
        yield _row(
            "type I error", method, name, n, found < ALPHA, ALPHA, 0.005 if is_primary else None
        )
        # Shown from MIN_SEEDS on; the clusters are a sensitivity row, timid or bold by a point.
        is_shown = n >= crossed.MIN_SEEDS or is_primary or "log-odds" in method
        width = 0.015 if is_shown else None
        yield _row("coverage", f"difference, {method}", name, n, _inside(found), 0.95, width)


def _inside(p: Array) -> Array:
    return np.asarray((p >= 0.025) & (p <= 0.975))


def _row(
    quantity: str, method: str, scenario: str, n: int, hits: Array, expected: float,
    width: float | None,
) -> dict[str, Any]:  # fmt: skip
    hits = hits[np.isfinite(hits)]
    observed, count = float(np.mean(hits)), int(hits.size)
    error = math.sqrt(max(observed * (1 - observed), 0.25 / count) / count)
    row: dict[str, Any] = {
        "quantity": quantity, "method": method, "scenario": scenario, "n_seeds": n,
        "replicates": count, "observed": observed, "expected": expected, "mc_se": error,
    }  # fmt: skip
    if width is None:
        return {**row, "verdict": "shown", "note": "no bar: shown for comparison"}
    low, high = expected - width - 3 * error, expected + width + 3 * error
    kept = low <= observed <= high
    note = (
        "" if kept else ("conservative" if _is_safe(quantity, observed, expected) else "too bold")
    )
    return {
        **row, "bar_low": low, "bar_high": high, "verdict": "kept" if kept else "missed",
        "note": note,
    }  # fmt: skip


def _is_safe(quantity: str, observed: float, expected: float) -> bool:
    return observed > expected if quantity == "coverage" else observed < expected


def main(args: argparse.Namespace) -> None:
    """Entry of the verb: args.out, args.replicates (2,000 by default, 20,000 in full).

    Raises:
        UserError: too few replicates.
    """
    given = getattr(args, "replicates", None)
    replicates = 2000 if given is None else int(given)
    if replicates < LEAST:
        raise UserError(
            f"{replicates} replicates", where="--replicates", fix=f"give {LEAST} or more"
        )
    rows = []
    with progress.track("simulating studies", len(SEEDS), "designs") as task:
        for n in SEEDS:
            rows += list(run(replicates, seeds=(n,)))
            task.advance(1, f"{n} seeds")
    rows += list(_rule(MANY, replicates))
    files.write_tsv(args.out, COLUMNS, ([row.get(c) for c in COLUMNS] for row in rows))
