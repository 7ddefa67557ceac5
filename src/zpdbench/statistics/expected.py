"""`zpdbench expected`: the user's expectations against what came out."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

from zpdbench.hypotheses import H3a
from zpdbench.statistics import effects, runs, settings
from zpdbench.statistics.verdicts import MEAN, write_rows

COLUMNS = (
    "hypothesis", "quantity", "model", "benchmark", "scale", "n_seeds", "expected",
    "expected_high", "observed", "low", "high", "level", "verdict", "note",
)  # fmt: skip
CONSISTENT, LOWER, HIGHER, OPEN = "consistent", "lower", "higher", "undetermined"


def compare(expected: float, low: float, high: float, expected_high: float | None = None) -> str:
    """How an observed interval stands to an expected value or range.

    `lower` if the whole interval is below what was expected, `higher` if above, `consistent` if
    they overlap, `undetermined` without an interval.
    """
    top = expected if expected_high is None else expected_high
    if not (math.isfinite(low) and math.isfinite(high)):
        return OPEN
    if high < expected:
        return LOWER
    if low > top:
        return HIGHER
    return CONSISTENT


def analyse(
    data: runs.Runs, h: H3a, efficiency: list[dict[str, str]] | None = None
) -> list[dict[str, Any]]:
    """Rows of expected.tsv: gains, scores, effect sizes and steps saved.

    Args:
        efficiency: rows of efficiency.tsv, for the steps.
    """
    rows: list[dict[str, Any]] = []
    roles = {"small": h.small, "large": h.large}
    level = 1 - h.alpha
    claims = h.claimed.benchmarks
    for role, model in roles.items():
        for benchmark in [b for b in data.benchmarks if b in claims]:
            claim = claims[benchmark]
            gain = effects.mean_interval(
                data.differences(model, h.treatment, h.control, benchmark), level
            )
            rows.append(
                _row(
                    data, "gain", model, benchmark, "pp", getattr(claim, f"{role}_pp"), gain, level
                )
            )
            score = getattr(claim, f"{role}_score")
            if score is not None:
                values = data.values(model, benchmark)[data.conditions.index(h.treatment)]
                rows.append(
                    _row(
                        data, f"score of {h.treatment}", model, benchmark, "pp", score,
                        effects.mean_interval(values, level), level,
                    )
                )  # fmt: skip
        for benchmark in sorted(set(claims) - set(data.benchmarks)):
            rows.append(
                {
                    "hypothesis": "h3a", "quantity": "gain", "model": model,
                    "benchmark": benchmark, "scale": "pp", "n_seeds": len(data.seeds[model]),
                    "expected": getattr(claims[benchmark], f"{role}_pp"), "level": level,
                    "verdict": OPEN, "note": "claimed, and no benchmark of the endpoint",
                }
            )  # fmt: skip
        if h.claimed.d is not None:
            values = data.values(model, MEAN)
            size = effects.hedges_g(
                values[data.conditions.index(h.treatment)], values[data.conditions.index(h.control)]
            )
            low, high = effects.score_interval(size, level)
            rows.append(
                _row(
                    data, "effect size", model, MEAN, "hedges_g", getattr(h.claimed.d, role),
                    effects.Interval(size.g, low, high), level,
                )
            )  # fmt: skip
        if h.claimed.steps_saved is not None:
            low_claim, high_claim = getattr(h.claimed.steps_saved, role)
            rows.append(_steps_row(efficiency, data, model, low_claim, high_claim, level))
    return rows


def _row(
    data: runs.Runs, quantity: str, model: str, benchmark: str, scale: str, expected: float,
    observed: effects.Interval, level: float,
) -> dict[str, Any]:  # fmt: skip
    verdict = compare(expected, observed.low, observed.high)
    return {
        "hypothesis": "h3a", "quantity": quantity, "model": model, "benchmark": benchmark,
        "scale": scale, "n_seeds": len(data.seeds[model]), "expected": expected,
        "observed": observed.estimate, "low": observed.low, "high": observed.high,
        "level": level, "verdict": verdict,
        "note": "no interval: too few seeds or no spread" if verdict == OPEN else "",
    }  # fmt: skip


def _steps_row(
    efficiency: list[dict[str, str]] | None, data: runs.Runs, model: str, low_claim: float,
    high_claim: float, level: float,
) -> dict[str, Any]:  # fmt: skip
    row: dict[str, Any] = {
        "hypothesis": "efficiency", "quantity": "steps saved", "model": model, "benchmark": MEAN,
        "scale": "percent", "n_seeds": len(data.seeds[model]), "expected": low_claim,
        "expected_high": high_claim, "level": level, "verdict": OPEN,
    }  # fmt: skip
    found = [
        r for r in efficiency or []
        if (r["model"], r["benchmark"], r["unit"]) == (model, MEAN, "steps")
    ]  # fmt: skip
    if not found:
        return {**row, "note": "no learning curves"}

    def number(name: str) -> float:
        return effects.NAN if found[0][name] == "NA" else float(found[0][name])

    low, high = 100 * (1 - number("high")), 100 * (1 - number("low"))
    return {
        **row, "observed": number("saved_percent"), "low": low, "high": high,
        "verdict": compare(low_claim, low, high, high_claim), "note": found[0]["note"],
    }  # fmt: skip


def main(args: argparse.Namespace) -> None:
    """Entry of the verb: args.study, args.scores (scores.tsv), args.efficiency, args.out.

    Where nothing is claimed the table is empty.
    """
    hypotheses = settings.read_hypotheses(args.study, need="h3a")
    h = hypotheses.h3a
    assert h is not None
    config = settings.read(args.study)
    claimed = h.claimed
    if not (claimed.benchmarks or claimed.d or claimed.steps_saved):
        # A study need not expect anything; its table then has no row.
        write_rows(args.out, COLUMNS, [], hypotheses)
        return
    data = runs.final_runs(
        runs.read_run_scores(args.scores),
        models=[h.small, h.large],
        conditions=[h.treatment, h.control],
        benchmarks=h.benchmarks or settings.study_names(config, "benchmarks"),
        seeds=settings.study_seeds(config),
        allow_missing=bool(getattr(args, "interim", False)),
    )
    table = getattr(args, "efficiency", None)
    steps = None
    if table:
        lines = Path(table).read_text("utf-8").splitlines()
        columns = lines[0].split("\t")
        steps = [dict(zip(columns, line.split("\t"), strict=True)) for line in lines[1:]]
    write_rows(
        args.out,
        COLUMNS,
        analyse(data, h, steps),
        hypotheses,
        interim=data.interim,
        remarks=data.remarks,
    )
