"""`zpdbench h3b`: does treatment gain on reasoning, and more than on generation?"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from zpdbench.hypotheses import H3b
from zpdbench.statistics import contrasts, effects, gate, runs, settings
from zpdbench.statistics.verdicts import does_not_apply, write_rows

COLUMNS = (*contrasts.COLUMNS, "reasoning", "generation", *contrasts.RULE)
ALL = "all"


def analyse(data: runs.Runs, h: H3b, closed: str = "") -> list[dict[str, Any]]:
    """Rows of h3b.tsv: each model, then their unweighted mean, on percentage points and logits.

    Per seed: mean gain over the reasoning benchmarks minus mean gain over the generation ones;
    one-sided t test on these, of one model or of the mean over the models, seed by seed where
    they share seeds. The rule's other test (`verdicts.judge`) is of the gain on reasoning, in
    points. The primary row is `all` on `pp` (the model's, if there is one only). Holm over the
    models.

    Args:
        closed: why the primary row has no verdict (`gate`); "" if it has.
    """
    rows: list[dict[str, Any]] = []
    groups = {"reasoning": h.reasoning, "generation": h.generation}
    names = {g: " + ".join(b) for g, b in groups.items()}

    def gain(group: str, model: str, scale: str) -> NDArray[np.float64]:
        return data.mean_differences(model, h.treatment, h.control, groups[group], scale)

    points = {g: {m: gain(g, m, "pp") for m in data.models} for g in groups}
    for scale in runs.SCALES:
        margin = h.margin if scale == "pp" else 0.0
        values = {
            m: effects.settled(
                gain("reasoning", m, scale) - gain("generation", m, scale),
                points["reasoning"][m] - points["generation"][m],
            )
            for m in data.models
        }
        part = [_row([values[m]], _of([m], points), h, m, margin) for m in data.models]
        adjusted = effects.holm([r["p_value"] for r in part])
        for r, p in zip(part, adjusted, strict=True):
            r["p_holm"] = p
        if len(part) > 1:
            pairs = contrasts.by_seed(values, data.seeds)
            shared = {g: contrasts.by_seed(points[g], data.seeds) for g in groups}
            if pairs is None:
                part.append(_row(list(values.values()), _of(data.models, points), h, ALL, margin))
            else:
                mean = {g: [np.mean(v or [], axis=0)] for g, v in shared.items()}
                part.append(_row([np.mean(pairs, axis=0)], mean, h, ALL, margin))
        for r in part:
            verdict = r.pop("_verdict")
            is_primary = scale == "pp" and r is part[-1]
            said = ["primary" if is_primary else "secondary: no verdict", r["note"]]
            if is_primary and closed:
                said.append(closed)
            elif is_primary:
                r["verdict"] = verdict
            r["note"] = "; ".join(s for s in said if s)
            r |= {
                "hypothesis": "h3b", "scale": scale,
                "benchmark": f"{names['reasoning']} against {names['generation']}",
                "contrast": f"gain of {h.treatment} over {h.control}: reasoning - generation",
            }  # fmt: skip
        rows += part
    return rows


def _of(
    models: list[str], points: dict[str, dict[str, NDArray[np.float64]]]
) -> dict[str, list[NDArray[np.float64]]]:
    return {g: [values[m] for m in models] for g, values in points.items()}


def _row(
    contrast: list[NDArray[np.float64]],
    gains: dict[str, list[NDArray[np.float64]]],
    h: H3b,
    model: str,
    margin: float,
) -> dict[str, Any]:
    """A row of independent groups of per-seed values: one, or one a model that share no seed."""
    if len(contrast) == 1:
        test = effects.paired(contrast[0], alpha=h.alpha, margin=margin)
        gain = effects.paired(gains["reasoning"][0], alpha=h.alpha, margin=h.margin_gain)
        name, mde = "paired t over seeds", None
        if model == ALL:
            name = "paired t over seeds of the models' mean"
    else:
        test = contrasts.stratified(contrast, side="larger", alpha=h.alpha, margin=margin)
        gain = contrasts.stratified(
            gains["reasoning"], side="larger", alpha=h.alpha, margin=h.margin_gain
        )
        name = "t of the models' mean (Welch-Satterthwaite): the models share no seed"
        mde = contrasts.minimal_mean(contrast, alpha=h.alpha)
    row = contrasts.row(
        test, side="larger", alpha=h.alpha, n_seeds=min(map(len, contrast)), model=model,
        mde=mde, test=name,
    )  # fmt: skip
    row["mde_80"] += margin
    row |= {g: float(np.mean([v.mean() for v in values])) for g, values in gains.items()}
    return contrasts.ruled(row, test, gain, h.alpha, margin=margin, margin_gain=h.margin_gain)


def applicable(h: H3b, named: list[str] | None) -> H3b:
    """The hypothesis less the benchmarks that the study does not have."""
    groups = {
        g: [b for b in getattr(h, g) if named is None or b in named]
        for g in ("reasoning", "generation")
    }
    return h.model_copy(update=groups)


def final_runs(
    table: pl.DataFrame, h: H3b, config: Mapping[str, Any], *, allow_missing: bool
) -> runs.Runs:
    """The scores that H3b is about: both orders, all its benchmarks, at the final step.

    Args:
        table: as `runs.read_run_scores` returns it.
        config: the study's configuration.

    Raises:
        UserError: as `runs.final_runs`.
    """
    return runs.final_runs(
        table,
        models=settings.study_names(config, "models"),
        conditions=[h.treatment, h.control],
        benchmarks=[*h.reasoning, *h.generation],
        seeds=settings.study_seeds(config),
        allow_missing=allow_missing,
    )


def main(args: argparse.Namespace) -> None:
    """Entry of the verb: args.study, args.scores (scores.tsv), args.out, args.interim;
    args.adapters: the runs' folders, for what is to be said of their corpus.
    """
    hypotheses = settings.read_hypotheses(args.study)
    config = settings.read(args.study)
    adapters = getattr(args, "adapters", ())
    reason = settings.inapplicable(hypotheses, "h3b", config)
    if reason:
        rows = does_not_apply("h3b", reason)
        write_rows(args.out, COLUMNS, rows, hypotheses, adapters=adapters)
        return
    h = hypotheses.h3b
    # The defaults may name benchmarks that the study does not have: which, the rows say.
    named = settings.study_names(config, "benchmarks")
    lacking = [b for b in (*h.reasoning, *h.generation) if named and b not in named]
    h = applicable(h, named)
    table = runs.read_run_scores(args.scores)
    data = final_runs(table, h, config, allow_missing=bool(getattr(args, "interim", False)))
    remarks = [f"the study has no {', '.join(lacking)}"] if lacking else []
    write_rows(
        args.out,
        COLUMNS,
        analyse(data, h, gate.closed("h3b", table, hypotheses, config)),
        hypotheses,
        interim=data.interim,
        remarks=[*remarks, *data.remarks],
        adapters=adapters,
    )
