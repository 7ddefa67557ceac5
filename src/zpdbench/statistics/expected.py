"""`zpdbench expected`: the user's expectations against what came out."""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from zpdbench import files
from zpdbench.hypotheses import H3a
from zpdbench.statistics import effects, power, runs, settings
from zpdbench.statistics.verdicts import MEAN, write_rows

COLUMNS = (
    "hypothesis", "quantity", "model", "benchmark", "scale", "n_seeds", "expected",
    "expected_high", "observed", "low", "high", "level", "test", "statistic", "df", "p_value",
    "p_holm", "mde_80", "verdict", "note",
)  # fmt: skip
NOT_EXCLUDED, LOWER, HIGHER, OPEN = "not excluded", "lower", "higher", "undetermined"


def compare(expected: float, low: float, high: float, expected_high: float | None = None) -> str:
    """How an observed interval stands to an expected value or range.

    `lower` if the whole interval is below what was expected, `higher` if above, `not excluded` if
    they overlap, `undetermined` without an interval.
    """
    top = expected if expected_high is None else expected_high
    if not (math.isfinite(low) and math.isfinite(high)):
        return OPEN
    if high < expected:
        return LOWER
    if low > top:
        return HIGHER
    return NOT_EXCLUDED


def analyse(
    data: runs.Runs, h: H3a, efficiency: list[dict[str, str]] | None = None
) -> list[dict[str, Any]]:
    """Rows of expected.tsv: gains, scores, effect sizes and steps saved.

    p is two-sided, of the claim (of the nearest end of a claimed range, 1 inside it), and
    below 1 - level just where the interval lies beside the claim; Holm over the claims about one
    quantity. `mde_80` is the distance from the claim that would be found four times in five.

    Args:
        efficiency: rows of efficiency.tsv, for the steps.
    """
    rows: list[dict[str, Any]] = []
    roles = {"small": h.small, "large": h.large}
    level = effects.level_of(h.alpha, h.side)
    claims = h.claimed.benchmarks
    for role, model in roles.items():
        for benchmark in [b for b in data.benchmarks if b in claims]:
            claim = claims[benchmark]
            gains = data.differences(model, h.treatment, h.control, benchmark)
            expected = getattr(claim, f"{role}_pp")
            rows.append(
                _row(
                    data, "gain", model, benchmark, "pp", expected,
                    effects.mean_interval(gains, level), level, **_t_of(gains, expected, level),
                )
            )  # fmt: skip
            score = getattr(claim, f"{role}_score")
            if score is not None:
                values = data.values(model, benchmark)[data.conditions.index(h.treatment)]
                rows.append(
                    _row(
                        data, f"score of {h.treatment}", model, benchmark, "pp", score,
                        effects.mean_interval(values, level), level,
                        **_t_of(values, score, level),
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
                    **_score_t_of(size, getattr(h.claimed.d, role)),
                )
            )  # fmt: skip
        if h.claimed.steps_saved is not None:
            low_claim, high_claim = getattr(h.claimed.steps_saved, role)
            rows.append(_steps_row(efficiency, data, model, low_claim, high_claim, level))
    families: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        families.setdefault(row["quantity"], []).append(row)
    for family in families.values():
        adjusted = effects.holm([r.get("p_value", effects.NAN) for r in family])
        for row, p in zip(family, adjusted, strict=True):
            row["p_holm"] = p
    return rows


def _t_of(values: ArrayLike, expected: float, level: float) -> dict[str, Any]:
    """Student's t of a claimed mean."""
    alpha = 1 - level
    test = effects.paired(np.asarray(values, dtype=float) - expected, side="different", alpha=alpha)
    return {
        "test": "t of the claimed value over seeds", "statistic": test.statistic, "df": test.df,
        "p_value": test.p_value,
        "mde_80": power.minimal_effect(test.standard_error, test.df, alpha=alpha, two_sided=True),
    }  # fmt: skip


def _score_t_of(size: effects.PairedEffectSize, expected: float) -> dict[str, Any]:
    """Score t of a claimed g; its error depends on the effect, so that no MDE is given."""
    t, df = effects.score_statistic(size, expected)
    return {
        "test": "score t of the claimed g", "statistic": t, "df": df,
        "p_value": float(2 * stats.t.sf(abs(t), df)),
    }  # fmt: skip


def _row(
    data: runs.Runs, quantity: str, model: str, benchmark: str, scale: str, expected: float,
    observed: effects.Interval, level: float, **test: Any,
) -> dict[str, Any]:  # fmt: skip
    verdict = compare(expected, observed.low, observed.high)
    return {
        "hypothesis": "h3a", "quantity": quantity, "model": model, "benchmark": benchmark,
        "scale": scale, "n_seeds": len(data.seeds[model]), "expected": expected,
        "observed": observed.estimate, "low": observed.low, "high": observed.high,
        "level": level, "verdict": verdict,
        "note": "no interval: too few seeds or no spread" if verdict == OPEN else "", **test,
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
    test = _t_of_ratio(
        *(number(c) for c in ("ratio", "low", "high", "level", "df")),
        least=1 - high_claim / 100, most=1 - low_claim / 100,
    )  # fmt: skip
    return {
        **row, "observed": number("saved_percent"), "low": low, "high": high,
        "verdict": compare(low_claim, low, high, high_claim), "note": found[0]["note"], **test,
    }  # fmt: skip


def _t_of_ratio(
    ratio: float, low: float, high: float, level: float, df: float, *, least: float, most: float
) -> dict[str, Any]:
    """t of the log ratio about the nearest end of a claimed range, by efficiency.tsv's error."""
    row: dict[str, Any] = {"test": "jackknife t of the claimed ratio", "level": level, "df": df}
    if not (0 < low < high and df > 0):
        return row
    error = math.log(high / low) / 2 / float(stats.t.ppf(0.5 + level / 2, df))
    nearest = min(max(ratio, least), most)
    t = math.log(ratio / nearest) / error if nearest > 0 else effects.NAN
    return {**row, "statistic": t, "p_value": float(2 * stats.t.sf(abs(t), df))}


def main(args: argparse.Namespace) -> None:
    """Entry of the verb: args.study, args.scores (scores.tsv), args.efficiency, args.out,
    args.interim; args.adapters: the runs' folders, for what is to be said of their corpus.

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
    steps = files.read_tsv(table)[1] if table else None
    write_rows(
        args.out,
        COLUMNS,
        analyse(data, h, steps),
        hypotheses,
        interim=data.interim,
        remarks=data.remarks,
        adapters=getattr(args, "adapters", ()),
    )
