"""H3a: the effect of treatment over control is larger in the larger model.

`analyse` is the protocol as a pure function over runs' scores; `main` is `zpdbench h3a`.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zpdbench import files
from zpdbench.errors import UserError
from zpdbench.hypotheses import H3a
from zpdbench.statistics import effects, metrics, notes, power, settings, tables
from zpdbench.statistics.verdicts import (
    CONTRADICTED,
    MEAN,
    SUPPORTED,
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
    "level", "margin", "step", "test", "form", "preregistration", "registered",
)  # fmt: skip
SCALES = ("pp", "logit", "hedges_g")


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
    )


def analyse(cells: Cells, hypothesis: H3a) -> list[dict[str, Any]]:
    """Every row of h3a.tsv: the benchmarks, then their mean, on three scales each.

    The primary row is `mean` on `pp`. Welch's t on the per-seed differences of the two models
    (pp, logit), the score test of two g (hedges_g); Holm over the benchmarks within a scale.
    Verdict: `supported` if p (Holm's for a benchmark) < alpha, else `contradicted` if the
    one-sided upper bound of the difference lies below the margin, else `inconclusive`.
    """
    rows: list[dict[str, Any]] = []
    for scale in SCALES:
        part = [_row(cells, hypothesis, b, scale) for b in [*cells.benchmarks, MEAN]]
        adjusted = effects.holm([r["p_value"] for r in part[:-1]])
        for row, p in zip(part, [*adjusted, effects.NAN], strict=True):
            row["p_holm"] = p
            _judge(row, hypothesis)
        rows += part
    order = {b: i for i, b in enumerate([*cells.benchmarks, MEAN])}
    rows.sort(key=lambda r: (order[r["benchmark"]], SCALES.index(r["scale"])))
    _note_disagreement(rows)
    for row in rows:
        row["note"] = "; ".join(row.pop("_notes"))
        row.pop("_bound")
    return rows


def _row(cells: Cells, h: H3a, benchmark: str, scale: str) -> dict[str, Any]:
    level = 1 - h.alpha
    n = {role: len(cells.seeds[role]) for role in ("small", "large")}
    notes: list[str] = []
    row: dict[str, Any] = {
        "hypothesis": "h3a", "benchmark": benchmark, "scale": scale,
        "model_small": h.small, "model_large": h.large, "n_seeds": min(n.values()),
        "n_seeds_small": n["small"], "n_seeds_large": n["large"],
        "n_items": int(
            cells.n_items.sum()
            if benchmark == MEAN
            else cells.n_items[cells.benchmarks.index(benchmark)]
        ),
        "treatment": h.treatment, "control": h.control, "side": h.side, "alpha": h.alpha,
        "level": level, "margin": h.margin if scale == "pp" else 0.0, "step": cells.step,
        "_notes": notes,
    }  # fmt: skip
    if benchmark == MEAN and scale == "pp":
        notes.append("primary endpoint")
    sign = -1.0 if h.side == "smaller" else 1.0
    if scale == "hedges_g":
        sizes = {
            role: effects.hedges_g(
                cells.values(role, "treatment", benchmark, "pp"),
                cells.values(role, "control", benchmark, "pp"),
            )
            for role in ("small", "large")
        }
        for role, size in sizes.items():
            low, high = effects.score_interval(size, level)
            row |= {
                f"effect_{role}": size.g,
                f"effect_{role}_low": low,
                f"effect_{role}_high": high,
            }
        test = effects.difference_of_g(
            sizes["small"], sizes["large"], side=h.side, alpha=h.alpha, level=level
        )
        row["test"] = "score t of two g"
        strength = power.PowerOfG(sizes["small"], sizes["large"], side=h.side, alpha=h.alpha)
        row["mde_80"] = strength.minimal_effect(sizes["small"].g)
        claim = h.claimed.d
        row["power_claimed"] = strength.power(claim.small, claim.large) if claim else effects.NAN
        notes += _undefined_g(sizes, min(n.values()), test)
        if min(n.values()) < effects.MIN_SEEDS_G_DIFFERENCE:
            test = replace(test, low=effects.NAN, high=effects.NAN)
    else:
        d = {role: cells.differences(role, benchmark, scale) for role in ("small", "large")}
        for role, values in d.items():
            interval = effects.mean_interval(values, level)
            row |= {
                f"effect_{role}": interval.estimate,
                f"effect_{role}_low": interval.low,
                f"effect_{role}_high": interval.high,
            }
        test = effects.welch(d["small"], d["large"], side=h.side, alpha=h.alpha, level=level)
        row["test"] = "Welch t of per-seed differences"
        spread = (effects.spread(d["small"]), n["small"], effects.spread(d["large"]), n["large"])
        row["mde_80"] = power.welch_minimal_effect(*spread, alpha=h.alpha)
        claimed = claimed_difference(cells, h, benchmark) if scale == "pp" else effects.NAN
        row["power_claimed"] = power.welch_power(sign * claimed, *spread, alpha=h.alpha)
        if math.isnan(test.p_value) and min(n.values()) >= 2:
            notes.append("zero variance: the seeds' differences are all equal in both models")
        elif min(n.values()) >= 2:
            notes += [
                f"the seeds' differences are all equal in {getattr(h, role)}: no interval of it"
                for role, values in d.items()
                if math.isnan(row[f"effect_{role}_low"])
            ]
    if min(n.values()) < 2:
        notes.append("one seed only: no interval and no test")
    row |= {
        "difference": test.estimate, "difference_low": test.low, "difference_high": test.high,
        "statistic": test.statistic, "df": test.df, "p_value": test.p_value,
        "_bound": test.bound,
    }  # fmt: skip
    for role in ("small", "large"):
        for kind in ("treatment", "control"):
            s = cells.scores[role][kind]
            s = s if benchmark == MEAN else s[:, [cells.benchmarks.index(benchmark)]]
            if np.all(s == 0) or np.all(s == 1):
                which = "right" if np.all(s == 1) else "wrong"
                notes.append(f"{getattr(h, role)} {getattr(h, kind)}: all items {which}")
    return row


def _undefined_g(
    sizes: dict[str, effects.PairedEffectSize], n: int, test: effects.Test
) -> list[str]:
    """Why something of a row of g is NA; [] where nothing is."""
    if n < 2:
        return []
    if not all(math.isfinite(s.g) for s in sizes.values()):
        return ["no spread between seeds: no standardised effect"]
    if n < effects.MIN_SEEDS_G:
        return [f"below {effects.MIN_SEEDS_G} seeds no interval or test of g keeps its level: NA"]
    if math.isnan(test.p_value) or not all(s.mean_variance > 1e-12 for s in sizes.values()):
        return ["the seeds' differences are all equal in a model: no error of its g"]
    if n < effects.MIN_SEEDS_G_DIFFERENCE:
        return [
            f"below {effects.MIN_SEEDS_G_DIFFERENCE} seeds no interval of the difference of two g "
            "keeps 95 %: NA; the test does keep its level"
        ]
    return []


def _judge(row: dict[str, Any], h: H3a) -> None:
    is_secondary = row["benchmark"] != MEAN
    p = row["p_holm"] if is_secondary else row["p_value"]
    notes = row["_notes"]
    row["verdict"] = judge(p, row["_bound"], row["margin"], h.alpha)
    if row["verdict"] == SUPPORTED and row["_bound"] < row["margin"]:
        notes.append("in the stated direction, but smaller than the margin")
    if is_secondary:
        notes.append("secondary, Holm over benchmarks; power and MDE before Holm")
        if row["verdict"] == CONTRADICTED:
            notes.append("contradicted by this row's own bound, before Holm")
    notes.append(
        f"{100 * row['level']:g} % intervals, one-sided test at {h.alpha:g}"
        + (f", margin {h.margin:g} pp" if h.margin and row["scale"] == "pp" else "")
        + (
            f", margin {h.margin:g} pp not applied here"
            if h.margin and row["scale"] != "pp"
            else ""
        )
    )
    if row["verdict"] == "supported" and not row["effect_large"] > 0 and h.side == "larger":
        # The contrast alone would read as good news.
        notes.append(
            f"{h.treatment} gains nothing over {h.control} in {h.large}: a smaller loss there, "
            "not a larger gain"
        )
    notes.append("holds for these two models, not for size in general")


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


def claimed_difference(cells: Cells, h: H3a, benchmark: str) -> float:
    """Claimed difference of the two gains, percentage points; NaN if not claimed throughout."""
    claimed = h.claimed.benchmarks
    names = cells.benchmarks if benchmark == MEAN else [benchmark]
    if any(name not in claimed for name in names):
        return effects.NAN
    return float(np.mean([claimed[n].large_pp - claimed[n].small_pp for n in names]))


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
    cells, _ = read_cells(paths, h, benchmarks, allow_missing=interim)
    rows = analyse(cells, h)
    registration, status = register(hypotheses)
    extra = []
    if interim and cells.problems:
        extra.append(f"interim: {missing_cells(cells.problems)}")
    elif interim:
        extra.append("interim")
    if status == "exploratory":
        extra.append("exploratory: not the registered hypotheses")
    if chosen and set(chosen) != set(h.benchmarks or []):
        # Whatever was registered, it was not this choice.
        status = "exploratory"
        extra.append("exploratory: benchmarks chosen by hand")
    extra += seeds_differ(cells, settings.study_seeds(config))
    extra += notes.of_corpus(getattr(args, "adapters", None) or [])
    for row in rows:
        row["note"] = "; ".join([*extra, row["note"]])
        row["form"] = hypotheses.asked_as(row["benchmark"], benchmarks or ())
        row["preregistration"] = registration
        row["registered"] = status
    files.write_tsv(args.out, COLUMNS, ([finite(row[c]) for c in COLUMNS] for row in rows))
    first = next(r for r in rows if r["benchmark"] == MEAN and r["scale"] == "pp")
    print(sentence(first), file=sys.stderr)


def seeds_differ(cells: Cells, planned: Sequence[str] | None) -> list[str]:
    """The remark that there are more or fewer seeds than the study plans; [] if there are not."""
    here = sorted({len(s) for s in cells.seeds.values()})
    if not planned or here == [len(planned)]:
        return []
    return [f"planned {len(planned)} seeds, here {' and '.join(map(str, here))}"]


def sentence(row: dict[str, Any]) -> str:
    """One plain sentence of a row of h3a.tsv, fit to be quoted."""

    def number(value: float) -> str:
        return f"{value:+.2f}" if isinstance(value, float) and math.isfinite(value) else "NA"

    return (
        f"H3a {row['verdict']}: {row['treatment']} over {row['control']} gains "
        f"{number(row['effect_small'])} {row['scale']} in {row['model_small']} and "
        f"{number(row['effect_large'])} in {row['model_large']}, a difference of "
        f"{number(row['difference'])} (interval {number(row['difference_low'])} to "
        f"{number(row['difference_high'])}, {row['n_seeds']} seeds); this study finds a true "
        f"difference of {number(row['mde_80'])} four times in five"
    )


def _names(value: Any) -> list[str] | None:
    if not value:
        return None
    parts = value if isinstance(value, list | tuple) else [value]
    names = [n.strip() for part in parts for n in str(part).split(",") if n.strip()]
    if len(set(names)) != len(names):
        raise UserError("a benchmark is named twice", where="--benchmarks", fix="name each once")
    return names or None
