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
    "claimed_gain", "sd_small", "sd_large", "correlation", "standard_error", "low", "high", "test",
    "statistic", "df", "alpha", "p_value", "p_holm", "mde_80", "power", "seeds_for_80",
    "seeds_for_80_low", "seeds_for_80_high", "verdict", "note",
)  # fmt: skip
"""Nothing is tested yet: interval, statistic, p and verdict, which every table has, are NA."""
SEEDS = (2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100)
BOTH, ALONE, MEASURED = "claimed points and d", "claimed d alone", "measured spread"


def rows_for(
    gains: tuple[float, float] | None,
    sds: tuple[float, float],
    planned: int,
    h: H3a,
    *,
    correlation: float = 0.0,
    pilot: int = 0,
    seeds: Sequence[int] = SEEDS,
    **more: Any,
) -> list[dict[str, Any]]:
    """Power of H3a's rule and smallest difference found, a row a number of seeds.

    Args:
        gains: claimed of the small and of the large model; None if none are.
        sds: SD over seeds of treatment - control in the two models, same unit.
        planned: the study's number of seeds; always among the rows.
        h: side, level and margins.
        correlation: of the two models' per-seed gains.
        pilot: seeds that the SDs were measured on, whose uncertainty gives the range of the seeds
            needed; 0: they were not measured.
        more: further columns of every row.
    """

    def needed(factor: float) -> int | None:
        if gains is None or not all(s > 0 for s in sds):
            return None
        scaled = [factor * s for s in sds]
        return power.seeds_needed(
            lambda n: power.of_rule(*gains, *scaled, n=(n, n), correlation=correlation, h=h)
        )

    sign = -1.0 if h.side == "smaller" else 1.0
    claimed = sign * (gains[1] - gains[0]) if gains else math.nan
    gained = gains[0 if h.side == "smaller" else 1] if gains else math.nan
    sd = math.sqrt(max(sds[0] ** 2 + sds[1] ** 2 - 2 * correlation * sds[0] * sds[1], 0.0))
    center = needed(1.0)
    low, high = power.spread_factors(pilot - 1.0) if pilot > 1 else (math.nan, math.nan)
    ends = (needed(low), needed(high)) if pilot > 1 and center is not None else (None, None)
    reasons = [more.pop("note")] if more.get("note") else []
    if gains is None:
        reasons.append("nothing is claimed here: no power, only what could be found")
    elif center is None and sd > 0:
        reasons.append("no number of seeds reaches 80 % power for the claim")
    more["note"] = "; ".join(reasons)
    rows = []
    for n in sorted({*seeds, planned}):
        error = sd / math.sqrt(n) if n > 1 and sd > 0 else math.nan
        chance = math.nan
        if gains is not None:
            chance = power.of_rule(*gains, *sds, n=(n, n), correlation=correlation, h=h)
        rows.append(
            {
                "hypothesis": "h3a", "n_seeds": n, "is_planned": n == planned,
                "claimed_difference": claimed, "claimed_gain": gained, "sd_small": sds[0],
                "sd_large": sds[1], "correlation": correlation, "standard_error": error,
                "df": n - 1.0, "alpha": h.alpha,
                "test": "the rule: paired t of the difference, and t of the gain",
                "mde_80": h.margin + power.minimal_effect(error, n - 1.0, alpha=h.alpha),
                "power": chance, "seeds_for_80": center, "seeds_for_80_low": ends[0],
                "seeds_for_80_high": ends[1], **more,
            }
        )  # fmt: skip
    return rows


def claimed_points(h: H3a, benchmarks: Sequence[str] | None) -> tuple[float, float] | None:
    """The mean gains in points that are claimed of the endpoint; None if not of all of it."""
    claims = h.claimed.benchmarks
    names = list(h.benchmarks or benchmarks or claims)
    if not names or any(n not in claims for n in names):
        return None
    return (
        sum(claims[n].small_pp for n in names) / len(names),
        sum(claims[n].large_pp for n in names) / len(names),
    )


def implied_sds(h: H3a, points: tuple[float, float] | None) -> tuple[float, float] | None:
    """The SD of a model's runs, in points, that its claims in points and in d imply together."""
    d = h.claimed.d
    if d is None or points is None or not (points[0] * d.small > 0 and points[1] * d.large > 0):
        return None
    return points[0] / d.small, points[1] / d.large


def plan(
    h: H3a, planned: int, benchmarks: Sequence[str] | None = None, *, correlation: float = 0.0
) -> list[dict[str, Any]]:
    """Power before anything was measured: of one claim, on the primary scale where that can be.

    Points and d together say how runs scatter (points / d), and so the power of the primary test.
    A d alone does not: its rows are of runs that scatter alike in both models, in units of that
    SD. The SD of a seed's treatment - control is sqrt(2 (1 - correlation)) times a run's;
    correlation 0 is the most cautious. Models of a seed are taken as uncorrelated.

    Args:
        benchmarks: the study's, of which the endpoint is the mean if h3a names none.
    """
    points = claimed_points(h, benchmarks)
    sds = implied_sds(h, points)
    factor = math.sqrt(2 * (1 - correlation))
    of_conditions = f"correlation {correlation:g} between conditions"
    if sds is not None:
        return rows_for(
            points, (factor * sds[0], factor * sds[1]), planned, h, benchmark="mean", scale="pp",
            basis=f"{BOTH}, {of_conditions}",
            note=f"runs scatter by points / d: {sds[0]:.3g} and {sds[1]:.3g} points",
        )  # fmt: skip
    d = h.claimed.d
    flat = h.model_copy(update={"margin": 0.0, "margin_gain": 0.0})
    return rows_for(
        (d.small, d.large) if d else None, (factor, factor), planned, flat, benchmark="mean",
        scale="d", basis=f"{ALONE if d else 'no claimed d'}, {of_conditions}",
        note="in SD of a run, taken as equal in both models: not the primary endpoint, which is in "
        "points; claim points of every benchmark too, or give a pilot",
    )  # fmt: skip


def from_pilot(cells: Any, h: H3a, planned: int) -> list[dict[str, Any]]:
    """Power for the claimed points with the spread measured in `cells` (an h3a.Cells)."""
    from zpdbench.statistics import effects, h3a
    from zpdbench.statistics.verdicts import missing_cells

    rows: list[dict[str, Any]] = []
    for benchmark in [*cells.benchmarks, h3a.MEAN]:
        d = {r: cells.differences(r, benchmark, "pp") for r in h3a.ROLES}
        n = min(map(len, d.values()))
        spread = (effects.spread(d["small"]), effects.spread(d["large"]))
        note = (
            f"spread measured on {n} seeds, itself uncertain: seeds_for_80_low and _high at the "
            "95 % limits of it" if n > 1 else "one seed: no spread"
        )  # fmt: skip
        if cells.problems:
            note = f"interim: {missing_cells(cells.problems)}; {note}"
        rows += rows_for(
            h3a.claimed_gains(cells, h, benchmark), spread, planned, h, benchmark=benchmark,
            scale="pp", basis=MEASURED, note=note, pilot=n,
            correlation=h3a.correlation(*d.values()) if cells.is_paired else 0.0,
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


def of_files(
    paths: Sequence[str], h: H3a, benchmarks: Sequence[str], planned: int
) -> tuple[list[dict[str, Any]], Any, Any]:
    """`from_pilot` of a pilot's scores.tsv, or of its runs' own files with every answer.

    Returns:
        rows; of answers also the cells and what they are under resampled items, else None.

    Raises:
        UserError: as `of_pilot` or `h3a.read_cells`.
    """
    from zpdbench.statistics import crossed, h3a

    if len(paths) == 1 and not paths[0].endswith(".parquet") and _is_scores(paths[0]):
        return of_pilot(paths[0], h, benchmarks, planned), None, None
    cells, table = h3a.read_cells(paths, h, benchmarks, allow_missing=True)
    drawn = {b: crossed.draw(table, b, cells.runs(h)) for b in cells.benchmarks}
    return from_pilot(cells, h, planned), cells, drawn


def _is_scores(path: str) -> bool:
    """Whether a file's header is not that of verdicts: what it is instead `of_pilot` says."""
    try:
        with Path(path).open("r", encoding="utf-8", errors="replace") as handle:
            return "item_id" not in handle.readline().split("\t")
    except OSError:
        return True


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
    rows += plan(h, planned, settings.study_names(config, "benchmarks"))
    write_rows(args.out, COLUMNS, rows, hypotheses, adapters=getattr(args, "adapters", ()))
