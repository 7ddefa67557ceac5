"""`zpdbench h3b`: is the gain larger on reasoning than on generation?"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zpdbench.hypotheses import H3b
from zpdbench.statistics import contrasts, effects, runs, settings
from zpdbench.statistics.verdicts import does_not_apply, judge, write_rows

COLUMNS = contrasts.COLUMNS


def analyse(data: runs.Runs, h: H3b) -> list[dict[str, Any]]:
    """Rows of h3b.tsv: each model, then their unweighted mean, on percentage points and logits.

    Per seed: mean gain over the reasoning benchmarks minus mean gain over the generation ones;
    one-sided t test on these (one model), or on the mean of the models' means. The primary row is
    `all` on `pp`. Holm over the models.
    """
    rows: list[dict[str, Any]] = []
    groups = {"reasoning": h.reasoning, "generation": h.generation}
    names = {g: " + ".join(b) for g, b in groups.items()}

    def contrast(model: str, scale: str) -> NDArray[np.float64]:
        reasoning, generation = (
            data.mean_differences(model, h.treatment, h.control, members, scale)
            for members in groups.values()
        )
        return reasoning - generation

    for scale in runs.SCALES:
        differences = {
            m: effects.settled(contrast(m, scale), contrast(m, "pp")) for m in data.models
        }
        part = []
        for model, values in differences.items():
            part.append(
                contrasts.row(
                    effects.paired(values, alpha=h.alpha, level=1 - h.alpha),
                    side="larger", alpha=h.alpha, n_seeds=len(values), model=model,
                    test="paired t over seeds",
                )
            )  # fmt: skip
        adjusted = effects.holm([r["p_value"] for r in part])
        for r, p in zip(part, adjusted, strict=True):
            r["p_holm"] = p
        if len(part) > 1:
            part.append(
                contrasts.row(
                    contrasts.stratified(
                        list(differences.values()), side="larger", alpha=h.alpha
                    ),
                    side="larger", alpha=h.alpha, model="all",
                    n_seeds=min(map(len, differences.values())),
                    mde=contrasts.minimal_mean(list(differences.values()), alpha=h.alpha),
                    test="t of the models' mean (Welch-Satterthwaite)",
                    note="primary" if scale == "pp" else "",
                )
            )  # fmt: skip
        for r in part:
            p = r.get("p_holm", r["p_value"])
            r["verdict"] = judge(p, r["_bound"], 0.0, h.alpha)
            r |= {
                "hypothesis": "h3b", "scale": scale,
                "benchmark": f"{names['reasoning']} against {names['generation']}",
                "contrast": f"gain of {h.treatment} over {h.control}: reasoning - generation",
            }  # fmt: skip
        rows += part
    return rows


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
    groups = {
        g: [b for b in getattr(h, g) if named is None or b in named]
        for g in ("reasoning", "generation")
    }
    lacking = [b for b in (*h.reasoning, *h.generation) if named and b not in named]
    h = h.model_copy(update=groups)
    data = runs.final_runs(
        runs.read_run_scores(args.scores),
        models=settings.study_names(config, "models"),
        conditions=[h.treatment, h.control],
        benchmarks=[*h.reasoning, *h.generation],
        seeds=settings.study_seeds(config),
        allow_missing=bool(getattr(args, "interim", False)),
    )
    remarks = [f"the study has no {', '.join(lacking)}"] if lacking else []
    write_rows(
        args.out,
        COLUMNS,
        analyse(data, h),
        hypotheses,
        interim=data.interim,
        remarks=[*remarks, *data.remarks],
        adapters=adapters,
    )
