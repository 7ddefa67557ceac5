"""`zpdbench power`: power of the primary test by number of seeds, before or after a pilot."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from zpdbench.errors import UserError
from zpdbench.hypotheses import H3a
from zpdbench.statistics import power

COLUMNS = (
    "hypothesis", "benchmark", "scale", "basis", "n_seeds", "is_planned", "claimed_difference",
    "sd_small", "sd_large", "standard_error", "low", "high", "test", "statistic", "df", "alpha",
    "p_value", "p_holm", "mde_80", "power", "seeds_for_80", "verdict", "note",
)  # fmt: skip
"""Nothing is tested yet: interval, statistic, p and verdict, which every table has, are NA."""
SEEDS = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100)


def rows_for(
    difference: float,
    sd_small: float,
    sd_large: float,
    planned: int,
    *,
    alpha: float = 0.05,
    seeds: Sequence[int] = SEEDS,
    **more: Any,
) -> list[dict[str, Any]]:
    """Power and smallest detectable difference of H3a's Welch test, a row a number of seeds.

    Args:
        difference: claimed, large - small, positive in the tested direction; NaN if none.
        sd_small: SD over seeds of treatment - control in the small model, same unit.
        sd_large: that of the large model.
        planned: the study's number of seeds; always among the rows.
        more: further columns of every row.
    """
    needed = power.seeds_needed(difference, sd_small, sd_large, alpha=alpha)
    reasons = [more.pop("note")] if more.get("note") else []
    if not math.isfinite(difference):
        reasons.append("nothing is claimed here: no power, only what could be found")
    elif needed is None and sd_small + sd_large > 0:
        reasons.append("no number of seeds reaches 80 % power for the claim")
    more["note"] = "; ".join(reasons)
    rows = []
    for n in sorted({*seeds, planned}):
        se, df = power.welch_error(sd_small, n, sd_large, n)
        rows.append(
            {
                "hypothesis": "h3a", "n_seeds": n, "is_planned": n == planned,
                "claimed_difference": difference, "sd_small": sd_small, "sd_large": sd_large,
                "standard_error": se, "df": df, "alpha": alpha,
                "test": "Welch t of per-seed differences",
                "mde_80": power.welch_minimal_effect(sd_small, n, sd_large, n, alpha=alpha),
                "power": power.welch_power(difference, sd_small, n, sd_large, n, alpha=alpha),
                "seeds_for_80": needed, **more,
            }
        )  # fmt: skip
    return rows


def plan(h: H3a, planned: int, *, correlation: float = 0.0) -> list[dict[str, Any]]:
    """Power for the claimed effect sizes before anything was measured.

    In units of the SD between seeds within a condition, so that the SD of a seed's
    treatment - control is sqrt(2 (1 - correlation)). Correlation 0 is the user's own d; runs that
    share weights and data correlate, which only helps. Without a claimed d there is no power, but
    still the smallest difference that can be found.
    """
    sd = math.sqrt(2 * (1 - correlation))
    sign = -1.0 if h.side == "smaller" else 1.0
    claim = h.claimed.d
    difference = sign * (claim.large - claim.small) if claim else math.nan
    return rows_for(
        difference, sd, sd, planned, alpha=h.alpha, benchmark="mean", scale="d",
        basis=f"{'claimed' if claim else 'no claimed'} d, correlation {correlation:g} between "
        "conditions",
    )  # fmt: skip


def from_pilot(cells: Any, h: H3a, planned: int) -> list[dict[str, Any]]:
    """Power for the claimed points with the spread measured in `cells` (an h3a.Cells)."""
    from zpdbench.statistics import effects, h3a
    from zpdbench.statistics.verdicts import missing_cells

    sign = -1.0 if h.side == "smaller" else 1.0
    rows: list[dict[str, Any]] = []
    for benchmark in [*cells.benchmarks, h3a.MEAN]:
        d = {r: cells.differences(r, benchmark, "pp") for r in ("small", "large")}
        n = min(map(len, d.values()))
        spread = {r: effects.spread(v) for r, v in d.items()}
        note = f"spread measured on {n} seeds, itself uncertain" if n > 1 else "one seed: no spread"
        if cells.problems:
            note = f"interim: {missing_cells(cells.problems)}; {note}"
        rows += rows_for(
            sign * h3a.claimed_difference(cells, h, benchmark), spread["small"], spread["large"],
            planned, alpha=h.alpha, benchmark=benchmark, scale="pp", basis="measured spread",
            note=note,
        )  # fmt: skip
    return rows


def of_pilot(
    path: str | Path,
    h: H3a,
    benchmarks: Sequence[str] | None,
    planned: int = 0,
    *,
    allow_missing: bool = True,
) -> list[dict[str, Any]]:
    """`from_pilot` of a pilot's scores.tsv: complete seeds of the runs that are there.

    Args:
        benchmarks: of the endpoint; None: all of the table.
        planned: the study's number of seeds; 0: the pilot's.
        allow_missing: leave out the seeds that lack a cell, and say so.

    Raises:
        UserError: no scores.tsv, no fine-tuned run of the two models in it, or a missing cell.
    """
    from zpdbench.statistics import h3a, runs

    table = runs.read_run_scores(path)
    last = table.filter(runs.pl.col("items") == "full", runs.pl.col("condition") != "base")
    if last.is_empty():
        raise UserError(
            "no fine-tuned run has final scores",
            where=str(path),
            fix="give the scores.tsv of a finished pilot",
        )
    last = last.filter(runs.pl.col("step") == last["step"].max())
    cells = h3a.collect(last, h, benchmarks, allow_missing=allow_missing)
    return from_pilot(cells, h, planned or min(map(len, cells.seeds.values())))


def main(args: argparse.Namespace) -> None:
    """Entry of the verb: args.study, args.out, args.scores (scores.tsv or runs' files; optional),
    args.interim; args.adapters: the runs' folders, for what is to be said of their corpus.

    With scores, the measured spread; always the claimed effect sizes, if there are any.
    """
    from zpdbench.statistics import settings
    from zpdbench.statistics.verdicts import write_rows

    hypotheses = settings.read_hypotheses(args.study, need="h3a")
    h = hypotheses.h3a
    assert h is not None
    config = settings.read(args.study)
    seeds = settings.study_seeds(config)
    rows: list[dict[str, Any]] = []
    planned = len(seeds) if seeds else 0
    given = getattr(args, "scores", None)
    if given:
        path = given[0] if isinstance(given, list | tuple) else given
        named = h.benchmarks or settings.study_names(config, "benchmarks")
        interim = bool(getattr(args, "interim", False))
        rows += of_pilot(path, h, named, planned, allow_missing=interim)
        planned = planned or next(int(r["n_seeds"]) for r in rows if r["is_planned"])
    planned = planned or 5
    rows += plan(h, planned)
    write_rows(args.out, COLUMNS, rows, hypotheses, adapters=getattr(args, "adapters", ()))
