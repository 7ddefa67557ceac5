"""H3a: treatment gains over control in the larger model, and more than in the smaller one.

`analyse` is the protocol as a pure function over runs' scores; `main` is `zpdbench h3a`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zpdbench import files
from zpdbench.errors import UserError
from zpdbench.hypotheses import H3a
from zpdbench.statistics import crossed, effects, metrics, notes, power, settings, tables
from zpdbench.statistics.effects import NAN
from zpdbench.statistics.verdicts import (
    CONTRADICTED,
    DIFFERENCE_ONLY,
    INCONCLUSIVE,
    MEAN,
    SMALLER_HARM,
    SUPPORTED,
    Ruling,
    finite,
    judge,
    missing_cells,
    register,
    require_complete,
)

COLUMNS = (
    "hypothesis", "benchmark", "scale", "model_small", "model_large", "n_seeds",
    "effect_small", "effect_small_low", "effect_small_high",
    "effect_large", "effect_large_low", "effect_large_high",
    "difference", "difference_low", "difference_high",
    "statistic", "df", "p_value", "p_holm", "mde_80", "power_claimed", "verdict", "note",
    # After the contract's columns: what a reader needs to judge the row.
    "n_seeds_small", "n_seeds_large", "n_items", "treatment", "control", "side", "alpha",
    "level", "margin", "step", "test", "form",
    # The rule's two conditions, the gain always in points.
    "p_difference", "p_gain", "gain", "gain_low", "gain_high", "margin_gain",
    "bound", "bound_gain", "p_against", "p_against_holm", "mde_80_low", "mde_80_high",
    # How far it reaches: new items of the kind, and the seeds one by one.
    "new_items_low", "new_items_high", "new_items_gain_low", "new_items_gain_high", "new_items_p",
    "new_items_verdict", "error_seeds", "error_items", "noise_share",
    "per_seed_small", "per_seed_large", "left_out_low", "left_out_high", "left_out_p_low",
    "left_out_p_high", "left_out_verdicts",
    "preregistration", "registered",
)  # fmt: skip
SCALES = ("pp", "logit", "hedges_g")
ROLES = ("small", "large")
KINDS = ("treatment", "control")


@dataclass(frozen=True)
class Cells:
    """Final scores of the four cells of H3a: model role -> condition role -> seeds x benchmarks."""

    benchmarks: list[str]
    seeds: dict[str, list[str]]
    scores: dict[str, dict[str, NDArray[np.float64]]]
    """In [0, 1]; keys small/large and treatment/control."""
    n_items: NDArray[np.int64]
    step: int
    problems: list[str] = field(default_factory=list)
    """What is missing of a complete grid; empty if nothing."""
    is_paired: bool = True
    """Whether the two models share their seeds: then the same ones, in the same order."""
    complete: dict[str, int] = field(default_factory=dict)
    """Seeds of each model that have all their cells, where some are left out for want of a pair."""

    def values(self, role: str, condition: str, benchmark: str, scale: str) -> NDArray[np.float64]:
        """Per-seed scores of a cell on a scale: percentage points or empirical logits.

        `mean` is the mean over the benchmarks on that scale.
        """
        scores = self.scores[role][condition]
        on_scale = (
            effects.empirical_logit(scores, self.n_items) if scale == "logit" else 100 * scores
        )
        if benchmark == MEAN:
            return on_scale.mean(axis=1)
        return on_scale[:, self.benchmarks.index(benchmark)]

    def differences(self, role: str, benchmark: str, scale: str) -> NDArray[np.float64]:
        """Per-seed treatment - control of one model."""
        on_scale, points = (
            self.values(role, "treatment", benchmark, s)
            - self.values(role, "control", benchmark, s)
            for s in (scale, "pp")
        )
        return effects.settled(on_scale, points)

    def contrast(self, benchmark: str, scale: str) -> NDArray[np.float64]:
        """Per-seed difference of the two models' effects, of seeds that they share."""
        on_scale, points = (
            self.differences("large", benchmark, s) - self.differences("small", benchmark, s)
            for s in (scale, "pp")
        )
        return effects.settled(on_scale, points)

    def without(self, seed: int) -> Cells:
        """The cells less the seed of this number, in both models."""
        return replace(
            self,
            seeds={r: s[:seed] + s[seed + 1 :] for r, s in self.seeds.items()},
            scores={
                r: {k: np.delete(v, seed, axis=0) for k, v in kinds.items()}
                for r, kinds in self.scores.items()
            },
        )

    def runs(self, h: H3a) -> dict[str, tuple[list[crossed.Run], list[crossed.Run]]]:
        """Model role -> its runs of treatment and control, a pair a seed."""
        names = {"small": h.small, "large": h.large}
        return {
            r: (
                [(names[r], h.treatment, s) for s in self.seeds[r]],
                [(names[r], h.control, s) for s in self.seeds[r]],
            )
            for r in ROLES
        }


def collect(
    run_scores: pl.DataFrame,
    hypothesis: H3a,
    benchmarks: Sequence[str] | None = None,
    *,
    expected_seeds: Sequence[str] | None = None,
    allow_missing: bool = False,
) -> Cells:
    """The four cells out of runs' final scores; every cell there, or an error that names it.

    Args:
        run_scores: model condition seed step benchmark value n_items at the
            final step.
        hypothesis: models, conditions.
        benchmarks: those of the endpoint, each needed in every run; None: all there are.
        expected_seeds: seeds of the planned grid, if known.
        allow_missing: analyse the seeds that are complete, and say what is missing.

    Raises:
        UserError: a model, condition, benchmark or cell is missing; items differ between runs;
            no seed is complete.
    """
    names = {"small": hypothesis.small, "large": hypothesis.large}
    conditions = {"treatment": hypothesis.treatment, "control": hypothesis.control}
    for kind, wanted in (("model", names), ("condition", conditions)):
        there = set(run_scores[kind].to_list())
        for role, name in wanted.items():
            if name not in there:
                raise UserError(
                    f"no rows of the {role} {kind} {name!r}"
                    + (f" (there are {', '.join(sorted(there))})" if there else ""),
                    fix=f"score its runs, or change hypotheses.h3a.{role}",
                )
    available = tables.benchmark_order(run_scores["benchmark"].to_list())
    chosen = tables.benchmark_order(list(benchmarks)) if benchmarks is not None else available
    for name in chosen:
        if name not in available:
            raise UserError(
                f"no rows of benchmark {name!r} at the final step (there are "
                f"{', '.join(available)})",
                fix="give its scores, or choose others by --benchmarks",
            )
    values: dict[tuple[str, str, str, str], tuple[float, int]] = {}
    for row in run_scores.iter_rows(named=True):
        values[row["model"], row["condition"], row["seed"], row["benchmark"]] = (
            row["value"],
            row["n_items"],
        )
    seeds_of = {
        role: {s for m, c, s, _ in values if m == model and c in conditions.values()}
        for role, model in names.items()
    }
    union = seeds_of["small"] | seeds_of["large"] | set(expected_seeds or ())
    # Labels that the models do not share at all are names of their own, not gaps.
    nested = not (seeds_of["small"] & seeds_of["large"]) and not expected_seeds
    problems: list[str] = []
    complete: dict[str, list[str]] = {}
    for role, model in names.items():
        wanted_seeds = tables.seed_order(list(seeds_of[role] if nested else union))
        complete[role] = []
        for seed in wanted_seeds:
            lacking = [
                f"{model}/{c}/{seed}/{b}"
                for c in conditions.values()
                for b in chosen
                if (model, c, seed, b) not in values
            ]
            if len(lacking) == 2 * len(chosen):
                lacking = [f"{model}/{c}/{seed}" for c in conditions.values()]
            problems += lacking
            if not lacking:
                complete[role].append(seed)
    if not allow_missing:
        require_complete(problems)
    for role, model in names.items():
        if not complete[role]:
            raise UserError(f"no seed of {model!r} has all its cells", fix="score more runs")
    kept = {r: len(s) for r, s in complete.items()}
    shared = [s for s in complete["small"] if s in complete["large"]]
    if not nested:
        # Seeds of one model only have no pair: their difference of effects is not to be had.
        if not shared:
            raise UserError("no seed has all its cells in both models", fix="score more runs")
        complete = {r: list(shared) for r in complete}
    steps = run_scores["step"].unique().to_list()
    used = {
        (names[r], c, s, b)
        for r in names for s in complete[r] for c in conditions.values() for b in chosen
    }  # fmt: skip
    n_items = []
    for benchmark in chosen:
        sizes = {values[k][1] for k in used if k[3] == benchmark}
        if len(sizes) > 1:
            raise UserError(
                f"{benchmark}: runs were asked different numbers of items "
                f"({', '.join(map(str, sorted(sizes)))})",
                fix="score all runs on the same items",
            )
        n_items.append(sizes.pop())
    return Cells(
        chosen,
        complete,
        {
            role: {
                kind: np.array(
                    [[values[model, c, s, b][0] for b in chosen] for s in complete[role]]
                )
                for kind, c in conditions.items()
            }
            for role, model in names.items()
        },
        np.array(n_items),
        int(max(steps)),
        problems,
        not nested,
        kept,
    )


def analyse(
    cells: Cells, hypothesis: H3a, drawn: Mapping[str, crossed.Drawn] | None = None
) -> list[dict[str, Any]]:
    """Every row of h3a.tsv: the benchmarks, then their mean, on three scales each.

    The primary row is `mean` on `pp`, and the only one with a verdict in words (`verdicts.judge`).
    Difference: paired t of the models' per-seed effects (Welch's, where they share no seed) on pp
    and logit, the score test of two g on hedges_g. Gain: t of the per-seed gains, in points.
    `p_value` is the larger of the two; Holm over the benchmarks within a scale.

    Args:
        drawn: benchmark -> differences under resampled items (`crossed.draw`); None: items as
            they are, the columns about new items NA.
    """
    rows: list[dict[str, Any]] = []
    for scale in SCALES:
        part = [_row(cells, hypothesis, b, scale, drawn) for b in [*cells.benchmarks, MEAN]]
        for column in ("p_value", "p_against"):
            adjusted = effects.holm([r[column] for r in part[:-1]])
            for row, p in zip(part, [*adjusted, NAN], strict=True):
                row["p_holm" if column == "p_value" else "p_against_holm"] = p
        rows += part
    order = {b: i for i, b in enumerate([*cells.benchmarks, MEAN])}
    rows.sort(key=lambda r: (order[r["benchmark"]], SCALES.index(r["scale"])))
    _note_disagreement(rows)
    for row in rows:
        row["note"] = "; ".join(row.pop("_notes"))
        row.pop("_verdict")
    return rows


def ruling(
    cells: Cells, h: H3a, benchmark: str = MEAN, scale: str = "pp"
) -> tuple[effects.Test, effects.Test, Ruling]:
    """The rule's two tests, of the difference and of the gain, and what they say together."""
    margin = h.margin if scale == "pp" else 0.0
    difference = _difference(cells, h, benchmark, scale, margin)
    gain = effects.paired(
        cells.differences(gaining(h), benchmark, "pp"), alpha=h.alpha, margin=h.margin_gain
    )
    said = judge(difference, gain, h.alpha, margin=margin, margin_gain=h.margin_gain)
    return difference, gain, said


def gaining(h: H3a) -> str:
    """The role of the model whose effect is said to be larger, and must be a gain."""
    return "small" if h.side == "smaller" else "large"


def _difference(cells: Cells, h: H3a, benchmark: str, scale: str, margin: float) -> effects.Test:
    if scale == "hedges_g":
        return effects.difference_of_g(
            *(_g(cells, r, benchmark) for r in ROLES), side=h.side, alpha=h.alpha
        )
    if cells.is_paired:
        return effects.paired(
            cells.contrast(benchmark, scale), side=h.side, alpha=h.alpha, margin=margin
        )
    d = [cells.differences(r, benchmark, scale) for r in ROLES]
    return effects.welch(*d, side=h.side, alpha=h.alpha, margin=margin)


def _g(cells: Cells, role: str, benchmark: str) -> effects.PairedEffectSize:
    return effects.hedges_g(*(cells.values(role, k, benchmark, "pp") for k in KINDS))


def _row(
    cells: Cells,
    h: H3a,
    benchmark: str,
    scale: str,
    drawn: Mapping[str, crossed.Drawn] | None,
) -> dict[str, Any]:
    level = effects.level_of(h.alpha, h.side)
    n = {r: len(cells.seeds[r]) for r in ROLES}
    complete = cells.complete or n
    is_primary = benchmark == MEAN and scale == "pp"
    difference, gain, said = ruling(cells, h, benchmark, scale)
    notes: list[str] = ["primary endpoint"] if is_primary else []
    row: dict[str, Any] = {
        "hypothesis": "h3a", "benchmark": benchmark, "scale": scale,
        "model_small": h.small, "model_large": h.large, "n_seeds": min(n.values()),
        "n_seeds_small": complete["small"], "n_seeds_large": complete["large"],
        "n_items": int(
            cells.n_items.sum()
            if benchmark == MEAN
            else cells.n_items[cells.benchmarks.index(benchmark)]
        ),
        "treatment": h.treatment, "control": h.control, "side": h.side, "alpha": h.alpha,
        "level": level, "margin": h.margin if scale == "pp" else 0.0,
        "margin_gain": h.margin_gain, "step": cells.step,
        "difference": difference.estimate, "difference_low": difference.low,
        "difference_high": difference.high, "statistic": difference.statistic,
        "df": difference.df, "p_difference": difference.p_value, "bound": difference.bound,
        "gain": gain.estimate, "gain_low": gain.low, "gain_high": gain.high,
        "p_gain": gain.p_value, "bound_gain": gain.bound,
        "p_value": said.p_value, "p_against": said.p_against,
        "verdict": said.verdict if is_primary else None, "_verdict": said.verdict, "_notes": notes,
    }  # fmt: skip
    if scale == "hedges_g":
        notes += _add_g(row, cells, h, benchmark)
    else:
        notes += _add_points(row, cells, h, benchmark, difference)
    if min(n.values()) < 2:
        notes.append("one seed only: no interval and no test")
    if scale == "pp":
        notes += _add_reach(row, cells, h, benchmark, drawn, is_primary=is_primary)
    if is_primary:
        notes += _primary_notes(row, cells, h)
    else:
        notes.append(
            "secondary: no verdict, "
            + ("" if benchmark == MEAN else "Holm over benchmarks, power and MDE before it, ")
            + f"difference p {_said(difference.p_value)}, gain p {_said(gain.p_value)}"
        )
    notes.append(_levels(h, scale))
    for role in ROLES:
        for kind in KINDS:
            s = cells.scores[role][kind]
            s = s if benchmark == MEAN else s[:, [cells.benchmarks.index(benchmark)]]
            if np.all(s == 0) or np.all(s == 1):
                which = "right" if np.all(s == 1) else "wrong"
                notes.append(f"{getattr(h, role)} {getattr(h, kind)}: all items {which}")
    notes.append("holds for these two models, not for size in general")
    return row


def _add_points(
    row: dict[str, Any], cells: Cells, h: H3a, benchmark: str, difference: effects.Test
) -> list[str]:
    """Effects, MDE and power of a row of points or log-odds; what is to be said of them."""
    scale, level, n = row["scale"], row["level"], row["n_seeds"]
    d = {r: cells.differences(r, benchmark, scale) for r in ROLES}
    for role, values in d.items():
        interval = effects.mean_interval(values, level)
        row |= {
            f"effect_{role}": interval.estimate,
            f"effect_{role}_low": interval.low,
            f"effect_{role}_high": interval.high,
        }
    row["test"] = (
        "paired t of the models' per-seed effects" if cells.is_paired
        else "Welch t of per-seed differences: the models share no seed"
    )  # fmt: skip
    spread = {r: effects.spread(v) for r, v in d.items()}
    if cells.is_paired:
        least = power.minimal_effect(difference.standard_error, difference.df, alpha=h.alpha)
    else:
        least = power.welch_minimal_effect(
            spread["small"], d["small"].size, spread["large"], d["large"].size, alpha=h.alpha
        )
    low, high = power.spread_factors(difference.df)
    row |= {
        "mde_80": row["margin"] + least,
        "mde_80_low": row["margin"] + low * least,
        "mde_80_high": row["margin"] + high * least,
        "power_claimed": NAN,
    }
    claim = claimed_gains(cells, h, benchmark)
    if scale == "pp" and claim:
        row["power_claimed"] = power.of_rule(
            *claim,
            *spread.values(),
            n=(d["small"].size, d["large"].size),
            correlation=correlation(d["small"], d["large"]) if cells.is_paired else None,
            h=h,
        )
    if math.isnan(difference.p_value) and n >= 2:
        return [
            "zero variance: the seeds' differences are all equal in both models"
            if not any(s > 0 for s in spread.values())
            else "zero variance: the models' effects differ by the same in every seed"
        ]
    return [
        f"the seeds' differences are all equal in {getattr(h, role)}: no interval of it"
        for role in ROLES
        if n >= 2 and math.isnan(row[f"effect_{role}_low"])
    ]


def _add_g(row: dict[str, Any], cells: Cells, h: H3a, benchmark: str) -> list[str]:
    sizes = {r: _g(cells, r, benchmark) for r in ROLES}
    for role, size in sizes.items():
        low, high = effects.score_interval(size, row["level"])
        row |= {
            f"effect_{role}": size.g,
            f"effect_{role}_low": low,
            f"effect_{role}_high": high,
        }
    row["test"] = "score t of two g, the models' seeds taken as independent"
    strength = power.PowerOfG(*sizes.values(), side=h.side, alpha=h.alpha)
    row["mde_80"] = strength.minimal_effect(sizes["small"].g)
    claim = h.claimed.d
    row["power_claimed"] = strength.power(claim.small, claim.large) if claim else NAN
    undefined = math.isnan(row["p_difference"])
    if cells.is_paired or row["n_seeds"] < effects.MIN_SEEDS_G_DIFFERENCE:
        row |= {"difference_low": NAN, "difference_high": NAN, "bound": NAN}
    return _undefined_g(sizes, row["n_seeds"], undefined=undefined, is_paired=cells.is_paired)


def correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Of two models' per-seed values; 0 where it is not defined."""
    if first.size < 3 or not (effects.spread(first) > 0 and effects.spread(second) > 0):
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])


def _undefined_g(
    sizes: dict[str, effects.PairedEffectSize], n: int, *, undefined: bool, is_paired: bool
) -> list[str]:
    """Why something of a row of g is NA; [] where nothing is."""
    if n < 2:
        return []
    if not all(math.isfinite(s.g) for s in sizes.values()):
        return ["no spread between seeds: no standardised effect"]
    if n < effects.MIN_SEEDS_G:
        return [f"below {effects.MIN_SEEDS_G} seeds no interval or test of g keeps its level: NA"]
    if undefined or not all(s.mean_variance > 1e-12 for s in sizes.values()):
        return ["the seeds' differences are all equal in a model: no error of its g"]
    found = []
    if n < effects.MIN_SEEDS_G_INTERVAL:
        found.append(
            f"below {effects.MIN_SEEDS_G_INTERVAL} seeds an interval of one g says nothing: NA"
        )
    if is_paired:
        found.append(
            "an interval of the difference of two g takes the models' seeds as independent, which "
            "shared ones are not: NA"
        )
    elif n < effects.MIN_SEEDS_G_DIFFERENCE:
        found.append(
            f"below {effects.MIN_SEEDS_G_DIFFERENCE} seeds no interval of the difference of two g "
            "keeps 95 %: NA; the test does keep its level"
        )
    return found


def _add_reach(
    row: dict[str, Any],
    cells: Cells,
    h: H3a,
    benchmark: str,
    drawn: Mapping[str, crossed.Drawn] | None,
    *,
    is_primary: bool,
) -> list[str]:
    """What stands beside a row of points: new items, the seeds one by one, each left out once."""
    for role in ROLES:
        values = cells.differences(role, benchmark, "pp")
        row[f"per_seed_{role}"] = " ".join(
            f"{s.replace(' ', '_')}:{v:+.4g}"
            for s, v in zip(cells.seeds[role], values, strict=True)
        )
    row |= {
        "new_items_low": NAN, "new_items_high": NAN, "new_items_gain_low": NAN,
        "new_items_gain_high": NAN, "new_items_p": NAN, "new_items_verdict": None,
        "error_seeds": NAN, "error_items": NAN, "noise_share": NAN,
        "left_out_low": NAN, "left_out_high": NAN, "left_out_p_low": NAN, "left_out_p_high": NAN,
        "left_out_verdicts": None,
    }  # fmt: skip
    notes = []
    if cells.is_paired and row["n_seeds"] >= 3:
        rest = [ruling(cells.without(i), h, benchmark) for i in range(row["n_seeds"])]
        estimates, p = [t.estimate for t, _, _ in rest], [r.p_value for _, _, r in rest]
        row |= {
            "left_out_low": min(estimates), "left_out_high": max(estimates),
            "left_out_p_low": min(p), "left_out_p_high": max(p),
        }  # fmt: skip
        if is_primary:
            counts = Counter(r.verdict for _, _, r in rest)
            row["left_out_verdicts"] = ", ".join(f"{v} {k}" for v, k in sorted(counts.items()))
            lost = row["n_seeds"] - counts[row["verdict"]]
            if lost:
                notes.append(
                    f"fragile: {lost} of {row['n_seeds']} seeds left out change the verdict"
                )
    if drawn is not None and 2 <= row["n_seeds"] < crossed.MIN_SEEDS:
        notes.append(
            f"below {crossed.MIN_SEEDS} seeds no interval for new items keeps its level: NA"
        )
    elif drawn is not None:
        difference, gain, found = for_new_items(cells, h, benchmark, drawn)
        said = judge(difference, gain, h.alpha, margin=h.margin, margin_gain=h.margin_gain)
        row |= {
            "new_items_low": difference.low, "new_items_high": difference.high,
            "new_items_gain_low": gain.low, "new_items_gain_high": gain.high,
            "new_items_p": said.p_value,
            "new_items_verdict": said.verdict if is_primary else None,
        }  # fmt: skip
        if found is not None:
            row |= {
                "error_seeds": math.sqrt(found.seeds), "error_items": math.sqrt(found.items),
                "noise_share": min(found.noise / found.seeds, 1.0),
            }  # fmt: skip
        if is_primary and said.verdict != row["verdict"] and math.isfinite(said.p_value):
            notes.append(
                f"on these {row['n_items']} items only: for new items of the kind "
                f"[{difference.low:+.2f}, {difference.high:+.2f}], p {_said(said.p_value)}: "
                f"{said.verdict}"
            )
    return notes


def for_new_items(
    cells: Cells, h: H3a, benchmark: str, drawn: Mapping[str, crossed.Drawn]
) -> tuple[effects.Test, effects.Test, crossed.Components | None]:
    """The rule's two tests for new items as well as new seeds, and the difference's components.

    Below `crossed.MIN_SEEDS` the tests are undefined: their intervals do not keep their level.
    """
    names = cells.benchmarks if benchmark == MEAN else [benchmark]
    n_items = float(sum(cells.n_items[cells.benchmarks.index(b)] for b in names))
    under = {r: np.mean([drawn[b][r] for b in names], axis=0) for r in ROLES}
    d = {r: cells.differences(r, benchmark, "pp") for r in ROLES}
    if cells.is_paired:
        parts = crossed.resampled(
            [d["large"] - d["small"]], [under["large"] - under["small"]], n_items
        )
    else:
        parts = crossed.resampled(
            [d["large"], -d["small"]], [under["large"], -under["small"]], n_items
        )
    role = gaining(h)
    own = crossed.resampled([d[role]], [under[role]], n_items)
    enough = min(values.size for values in d.values()) >= crossed.MIN_SEEDS
    return (
        crossed.test(
            float(d["large"].mean() - d["small"].mean()),
            parts if enough else None,
            side=h.side,
            alpha=h.alpha,
            margin=h.margin,
        ),
        crossed.test(
            float(d[role].mean()),
            own if enough else None,
            side="larger",
            alpha=h.alpha,
            margin=h.margin_gain,
        ),
        parts,
    )


def _levels(h: H3a, scale: str) -> str:
    margins = f", margin {h.margin:g} pp" if h.margin else ""
    if margins and scale != "pp":
        margins += " not applied here"
    if h.margin_gain:
        margins += f", margin of the gain {h.margin_gain:g} pp"
    level = effects.level_of(h.alpha, h.side)
    return (
        f"{100 * level:g} % intervals and one-sided tests at {h.alpha:g} say the same, upper "
        f"bounds at {h.alpha / 2:g}{margins}"
    )


def _primary_notes(row: dict[str, Any], cells: Cells, h: H3a) -> list[str]:
    found = [
        f"rule: difference p {_said(row['p_difference'])} and gain of {h.treatment} in "
        f"{getattr(h, gaining(h))} p {_said(row['p_gain'])}, p is the larger",
        f"meaning: {meaning(row)}",
    ]
    if len(cells.benchmarks) > 1:
        found.append(f"the difference comes from {'; '.join(_parts(cells))}".replace("; ", ", "))
    left = {r: cells.complete.get(r, row["n_seeds"]) - row["n_seeds"] for r in ROLES}
    if cells.is_paired and any(left.values()):
        found.append(
            "seeds without a pair in the other model left out: "
            + ", ".join(f"{k} of {getattr(h, r)}" for r, k in left.items() if k)
        )
    found.append(
        "random over seeds: initial adapter weights, draw and order of the examples, not random: "
        "base models, corpus, decoding seed"
    )
    return found


def _parts(cells: Cells) -> list[str]:
    return [
        f"{b} {float(np.mean(cells.differences('large', b, 'pp'))):+.2f} against "
        f"{float(np.mean(cells.differences('small', b, 'pp'))):+.2f}"
        for b in cells.benchmarks
    ]


def meaning(row: Mapping[str, Any]) -> str:
    """What a primary row's verdict says, in a few words."""
    is_smaller = row["side"] == "smaller"
    where, other = (row[f"model_{r}"] for r in (ROLES if is_smaller else ROLES[::-1]))
    treatment, control = row["treatment"], row["control"]
    words = {
        SUPPORTED: f"{treatment} gains over {control} in {where}, and more than in {other}",
        SMALLER_HARM: f"{treatment} loses to {control} in {where}, only less than in {other}",
        DIFFERENCE_ONLY: f"the effects differ, and a gain of {treatment} in {where} is not shown",
        INCONCLUSIVE: "not decided",
    }
    if row["verdict"] != CONTRADICTED:
        return words[row["verdict"]]
    ruled_out = []
    if row["bound_gain"] < row["margin_gain"]:
        ruled_out.append(f"a gain of {treatment} over {control} in {where}" + _beyond(row, "_gain"))
    if row["bound"] < row["margin"]:
        ruled_out.append(f"a larger effect in {where} than in {other}" + _beyond(row, ""))
    return "ruled out: " + " and ".join(ruled_out)


def _beyond(row: Mapping[str, Any], which: str) -> str:
    margin = float(row[f"margin{which}"])
    return f" of {margin:g} points or more" if margin else ""


def _said(p: float) -> str:
    return "NA" if math.isnan(p) else f"{p:.4f}" if p >= 1e-4 else "<.0001"


def _note_disagreement(rows: list[dict[str, Any]]) -> None:
    by_benchmark: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_benchmark.setdefault(row["benchmark"], []).append(row)
    for group in by_benchmark.values():
        signs = {
            row["scale"]: int(np.sign(row["difference"]))
            for row in group
            if math.isfinite(row["difference"]) and abs(row["difference"]) > 1e-12
        }
        if len(set(signs.values())) > 1:
            text = ", ".join(f"{s} {'+' if v > 0 else '-'}" for s, v in signs.items())
            for row in group:
                row["_notes"].append(
                    f"scales disagree in sign ({text}): scores near a limit, or unequal spread "
                    "between seeds"
                )
        said = {r["scale"]: r["_verdict"] for r in group if math.isfinite(r["p_value"])}
        if group[0]["benchmark"] == MEAN and len(set(said.values())) > 1:
            text = ", ".join(f"{s} would be {v}" for s, v in said.items() if s != "pp")
            for row in group:
                row["_notes"].append(f"scales disagree in what the rule says ({text})")


def claimed_gains(cells: Cells, h: H3a, benchmark: str) -> tuple[float, float] | None:
    """Claimed gains of the two models, percentage points; None if not claimed throughout."""
    claimed = h.claimed.benchmarks
    names = cells.benchmarks if benchmark == MEAN else [benchmark]
    if any(name not in claimed for name in names):
        return None
    return (
        float(np.mean([claimed[n].small_pp for n in names])),
        float(np.mean([claimed[n].large_pp for n in names])),
    )


def read_cells(
    paths: Sequence[str | Path],
    hypothesis: H3a,
    benchmarks: Sequence[str] | None,
    *,
    expected_seeds: Sequence[str] | None = None,
    allow_missing: bool = False,
) -> tuple[Cells, pl.DataFrame]:
    """The cells of H3a from score files, and the final step's verdicts that they came from.

    Raises:
        UserError: as `tables.read_scores`, `metrics.benchmark_scores` and `collect`.
    """
    keep = pl.col("condition").is_in([hypothesis.treatment, hypothesis.control]) & pl.col(
        "model"
    ).is_in([hypothesis.small, hypothesis.large])
    if benchmarks is not None:
        keep &= pl.col("benchmark").is_in(list(benchmarks))
    try:
        table = tables.read_scores(paths, keep=keep, final_step_only=True)
    except UserError as error:
        if error.what.startswith("no rows"):
            wanted = ", ".join(benchmarks) if benchmarks is not None else "any benchmark"
            raise UserError(
                f"no rows of models {hypothesis.small}, {hypothesis.large} under conditions "
                f"{hypothesis.treatment}, {hypothesis.control} and of {wanted}",
                where=error.where,
                fix="names in the table and in hypotheses.h3a must be the same",
            ) from error
        raise
    check_same_items(table)
    scores = metrics.benchmark_scores(table)
    cells = collect(
        scores,
        hypothesis,
        benchmarks,
        expected_seeds=expected_seeds,
        allow_missing=allow_missing,
    )
    return cells, table


def check_same_items(table: pl.DataFrame) -> None:
    """Every run was asked the same items of a benchmark.

    Raises:
        UserError: naming the first run and item that differ.
    """
    runs = table.group_by("benchmark").agg(
        pl.struct(*metrics.RUN).n_unique().alias("_runs"),
    )
    asked = (
        table.select("benchmark", "task", "item_id", *metrics.RUN)
        .unique()
        .group_by("benchmark", "task", "item_id")
        .agg(pl.len().alias("_asked"))
        .join(runs, on="benchmark")
        .filter(pl.col("_asked") < pl.col("_runs"))
    )
    if asked.is_empty():
        return
    first = (
        asked.with_columns(pl.col("benchmark", "task", "item_id").cast(pl.String))
        .sort("benchmark", "task", "item_id")
        .row(0, named=True)
    )
    where = table.filter(
        (pl.col("benchmark") == first["benchmark"]) & (pl.col("task") == first["task"])
    )
    have = set(where.filter(pl.col("item_id") == first["item_id"]).select(metrics.RUN).iter_rows())
    lacking = sorted(
        set(table.filter(pl.col("benchmark") == first["benchmark"]).select(metrics.RUN).iter_rows())
        - have
    )
    raise UserError(
        f"{len(asked)} items were not asked of every run: {first['benchmark']} item "
        f"{first['item_id']} is missing in {'/'.join(lacking[0])}"
        + (f" and {len(lacking) - 1} more runs" if len(lacking) > 1 else ""),
        fix="score all runs on the same items at the final step",
    )


def main(args: argparse.Namespace) -> None:
    """Entry of `zpdbench h3a`.

    args.scores: one or more files; args.configfile (or args.study); args.benchmarks: names
    (a comma-separated string or a list) or None; args.out; args.interim: analyse what is there;
    args.adapters: the runs' folders, for what is to be said of their corpus.
    """
    paths = [args.scores] if isinstance(args.scores, str | Path) else list(args.scores)
    source = getattr(args, "configfile", None) or args.study
    hypotheses = settings.read_hypotheses(source, need="h3a")
    h = hypotheses.h3a
    assert h is not None
    config = settings.read(source)
    chosen = _names(getattr(args, "benchmarks", None))
    benchmarks = chosen or h.benchmarks
    interim = bool(getattr(args, "interim", False))
    cells, table = read_cells(paths, h, benchmarks, allow_missing=interim)
    drawn = {b: crossed.draw(table, b, cells.runs(h)) for b in cells.benchmarks}
    rows = analyse(cells, h, drawn)
    planned = settings.study_seeds(config)
    differ = seeds_differ(cells, planned)
    registration, status = register(hypotheses, outside=bool(differ or cells.problems))
    extra = []
    if interim and cells.problems:
        extra.append(f"interim: {missing_cells(cells.problems)}")
    elif interim:
        extra.append("interim")
    if status == "exploratory":
        extra.append("exploratory: not what was registered")
    if chosen and set(chosen) != set(h.benchmarks or []):
        # Whatever was registered, it was not this choice.
        status = "exploratory"
        extra.append("exploratory: benchmarks chosen by hand")
    extra += differ
    extra += notes.of_corpus(getattr(args, "adapters", None) or [])
    for row in rows:
        row["note"] = "; ".join([*extra, row["note"]])
        row["form"] = hypotheses.asked_as(row["benchmark"], benchmarks or ())
        row["preregistration"] = registration
        row["registered"] = status
    files.write_tsv(args.out, COLUMNS, ([finite(row.get(c)) for c in COLUMNS] for row in rows))
    first = next(r for r in rows if r["benchmark"] == MEAN and r["scale"] == "pp")
    print(sentence(first), file=sys.stderr)


def seeds_differ(cells: Cells, planned: Sequence[str] | None) -> list[str]:
    """The remark that the seeds are not those that the study plans; [] if they are.

    Models that share no seed have labels of their own: only their number can be compared.
    """
    if not planned:
        return []
    here = sorted({len(s) for s in cells.seeds.values()})
    if here != [len(planned)]:
        return [f"planned {len(planned)} seeds, here {' and '.join(map(str, here))}"]
    others = [s for s in cells.seeds["large"] if s not in planned]
    if cells.is_paired and others:
        return [f"planned other seeds than {', '.join(others[:6])}"]
    return []


def sentence(row: Mapping[str, Any]) -> str:
    """One plain sentence of h3a.tsv's primary row, fit to be quoted."""

    def number(name: str) -> str:
        value = row[name]
        return f"{value:+.2f}" if isinstance(value, float) and math.isfinite(value) else "NA"

    level = f"{100 * row['level']:g} %"
    new_items = (
        f"; for new items of the kind [{number('new_items_low')}, {number('new_items_high')}], "
        f"p {_said(row['new_items_p'])}: {row['new_items_verdict']}"
        if row["new_items_verdict"]
        else ""
    )
    return (
        f"H3a {row['verdict']} ({meaning(row)}): {row['treatment']} over {row['control']} gains "
        f"{number('effect_small')} {row['scale']} in {row['model_small']} and "
        f"{number('effect_large')} in {row['model_large']}, a difference of "
        f"{number('difference')} ({level} interval {number('difference_low')} to "
        f"{number('difference_high')}, one-sided p {_said(row['p_difference'])}; p of the gain "
        f"{_said(row['p_gain'])}; {row['n_seeds']} seeds, these {row['n_items']} items){new_items}"
        f"; this study finds a true difference of {number('mde_80')} four times in five "
        f"({number('mde_80_low')} to {number('mde_80_high')}, as its spread is uncertain)"
    )


def _names(value: Any) -> list[str] | None:
    if not value:
        return None
    parts = value if isinstance(value, list | tuple) else [value]
    names = [n.strip() for part in parts for n in str(part).split(",") if n.strip()]
    if len(set(names)) != len(names):
        raise UserError("a benchmark is named twice", where="--benchmarks", fix="name each once")
    return names or None
