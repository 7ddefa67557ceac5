"""Items as a sample too: an estimate's error for new items of the kind as well as new seeds."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zpdbench.statistics import effects, metrics, resampling, tables

DRAWS = 2000
MIN_SEEDS = 5
"""Below this many seeds no interval for new items is shown: at three it covers 93 %."""
_BLOCK = 200
Run = tuple[str, str, str]
Drawn = Mapping[str, NDArray[np.float64]]
"""Model role -> [draws, seeds] treatment - control in points, under resampled items."""


@dataclass(frozen=True)
class Items:
    """A benchmark's verdicts at the final step: one row an item, one column a run."""

    values: NDArray[np.float64]
    """[items, runs] mean over samples; for macro-F1 see `confusion`."""
    strata: NDArray[np.int64]
    """[items] the task's number, for benchmarks that are a mean over tasks; else 0."""
    gold: NDArray[np.int64] | None
    prediction: NDArray[np.int64] | None
    """[items, runs] label numbers."""

    def scores(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """[draws, runs] a benchmark's score under item weights [draws, items]."""
        if self.prediction is None or self.gold is None:
            return (weights @ self.values) / weights.sum(axis=1, keepdims=True)
        tasks, sizes = [], []
        for task in np.unique(self.strata):
            members = self.strata == task
            sizes.append(np.count_nonzero(members))
            w, gold, prediction = weights[:, members], self.gold[members], self.prediction[members]
            total = np.zeros((len(weights), prediction.shape[1]))
            present = np.zeros_like(total)
            for label in np.unique(np.concatenate([gold, prediction.ravel()])):
                is_gold = (gold == label).astype(float)
                is_said = (prediction == label).astype(float)
                hits = w @ (is_said * is_gold[:, None])
                size = w @ is_said + (w @ is_gold)[:, None]
                with np.errstate(divide="ignore", invalid="ignore"):
                    total += np.where(size > 0, 2 * hits / size, 0.0)
                present += size > 0
            tasks.append(total / present)
        # As metrics.benchmark_scores: each task counts by its items, which a resample keeps.
        mean: NDArray[np.float64] = np.average(tasks, axis=0, weights=sizes)
        return mean


def items_of(table: pl.DataFrame, benchmark: str, runs: list[tuple[str, str, str]]) -> Items:
    """A benchmark's verdicts as a matrix, columns in the order of `runs`."""
    part = table.filter(pl.col("benchmark").cast(pl.String) == benchmark).with_columns(
        pl.col(c).cast(pl.String) for c in ("model", "condition", "seed", "task", "item_id")
    )
    order = pl.DataFrame(runs, schema=list(metrics.RUN), orient="row").with_row_index("_run")
    is_f1 = tables.is_macro_f1(benchmark)
    wanted = [pl.col("correct").cast(pl.Float64).mean()]
    if is_f1:
        wanted += [pl.col("gold").first(), pl.col("prediction").first()]
    part = (
        part.join(order, on=metrics.RUN)
        .group_by("_run", "task", "item_id")
        .agg(wanted)
        .sort("_run", "task", "item_id")
    )
    n = part.height // len(runs)
    values = part["correct"].to_numpy().reshape(len(runs), n).T
    first = part.head(n)
    strata = first["task"].rank("dense").to_numpy().astype(np.int64)
    if not is_f1:
        return Items(np.ascontiguousarray(values), np.zeros(n, dtype=np.int64), None, None)
    labels = sorted(set(part["gold"]) | set(part["prediction"]))
    number = {label: i for i, label in enumerate(labels)}
    gold, said = (
        part[c].replace_strict(number, return_dtype=pl.Int64).to_numpy()
        for c in ("gold", "prediction")
    )
    return Items(values, strata, gold[:n], np.ascontiguousarray(said.reshape(len(runs), n).T))


def draw(
    table: pl.DataFrame,
    benchmark: str,
    pairs: Mapping[str, tuple[Sequence[Run], Sequence[Run]]],
) -> Drawn:
    """A benchmark's per-seed differences under items drawn again.

    Items are crossed with runs: one resample of items (multinomial weights, within a task where
    the score averages over tasks) serves all runs.

    Args:
        table: verdicts at the final step.
        pairs: model role -> its runs of the treatment and of the control, a pair a seed.
    """
    runs = [run for sides in pairs.values() for side in sides for run in side]
    return drawn(items_of(table, benchmark, runs), [len(t) for t, _ in pairs.values()], benchmark)


def drawn(items: Items, seeds: Sequence[int], benchmark: str) -> Drawn:
    """As `draw`, of a matrix whose columns are each role's treatment and control runs.

    Args:
        seeds: of the small and of the large model.
    """
    rng = np.random.default_rng(stable_seed("items", benchmark))
    ends = np.cumsum([n for n in seeds for _ in range(2)])[:-1]
    parts: list[list[NDArray[np.float64]]] = []
    for start in range(0, DRAWS, _BLOCK):
        size = min(_BLOCK, DRAWS - start)
        w = np.empty((size, len(items.strata)))
        for task in np.unique(items.strata):
            members = np.flatnonzero(items.strata == task)
            w[:, members] = resampling.item_draws(len(members), size, rng)
        columns = np.split(100 * items.scores(w), ends, axis=1)
        parts.append([columns[0] - columns[1], columns[2] - columns[3]])
    return {
        role: np.concatenate([p[i] for p in parts]) for i, role in enumerate(("small", "large"))
    }


@dataclass(frozen=True)
class Components:
    """Where the error of an estimate comes from: variances of the estimate itself."""

    seeds: float
    """Between seeds, for these items."""
    items: float
    """What new items of the kind add."""
    noise: float
    """The part of `seeds` that is single runs' noise on single items: more items make it less."""
    df: float
    """Of seeds and items together (Satterthwaite)."""


def components(
    groups: Sequence[NDArray[np.float64]], shared: float, both: float, n_items: float = math.inf
) -> Components | None:
    """Variance components of the sum of the groups' means; None where seeds do not vary.

    Args:
        groups: per-seed values of independent groups (one, where the models are paired by seed).
        shared: variance of the estimate under items resampled for all runs at once.
        both: sum over groups of the mean variance of one seed's value so resampled, over its n.
        n_items: how many there are, for the factor n / (n - 1) that a resample's variance lacks and
            for its degrees of freedom; by default taken as many.

    Items add (shared - both) n / (n - 1), what they contribute beyond the noise that the spread
    between seeds holds already: for linear scores the two-way cluster formula
    V_seed + V_item - V_both of Cameron, Gelbach and Miller 2011, V_both about each run's own mean.
    Plain resampling of both counts that noise three times (Owen 2007).
    """
    pieces = [effects.spread(g) ** 2 / g.size for g in groups]
    seeds = sum(pieces)
    if not seeds > 0:
        return None
    n = min(g.size for g in groups)
    unbiased = 1.0 if math.isinf(n_items) else n_items / (n_items - 1)
    items = unbiased * max(shared - both, 0.0) * n / (n - 1)
    squares = sum(p**2 / (g.size - 1) for p, g in zip(pieces, groups, strict=True))
    df = (seeds + items) ** 2 / (squares + items**2 / (n_items - 1))
    return Components(seeds, items, max(both - items / n, 0.0), df)


def resampled(
    groups: Sequence[NDArray[np.float64]],
    under_draws: Sequence[NDArray[np.float64]],
    n_items: float,
) -> Components | None:
    """`components` of values whose resampled ones, [draws, seeds] a group, are at hand."""
    shared = float(sum(d.mean(axis=1) for d in under_draws).var())
    both = sum(float(d.var(axis=0).mean()) / d.shape[1] for d in under_draws)
    return components(groups, shared, both, n_items)


def test(
    estimate: float,
    found: Components | None,
    *,
    side: str,
    alpha: float,
    margin: float = 0.0,
) -> effects.Test:
    """t test of an estimate for new seeds and new items."""
    if found is None:
        return effects.undefined(estimate)
    error = math.sqrt(found.seeds + found.items)
    return effects.t_test(estimate, error, found.df, side=side, alpha=alpha, margin=margin)


def stable_seed(*words: str) -> list[int]:
    """A random generator's seed that the whole of every word decides."""
    text = "\0".join(("h3a", *words)).encode()
    return [int.from_bytes(hashlib.sha256(text).digest()[:8], "little")]
