"""`zpdbench ablations`: what each part of the full condition is worth."""

from __future__ import annotations

import argparse
from typing import Any

from zpdbench.errors import UserError
from zpdbench.hypotheses import Ablations
from zpdbench.statistics import contrasts, effects, runs, settings
from zpdbench.statistics.verdicts import MEAN, write_rows

COLUMNS = contrasts.COLUMNS


def analyse(data: runs.Runs, h: Ablations, ablated: list[str]) -> list[dict[str, Any]]:
    """Rows of ablations.tsv: ablated - full per seed, two-sided paired t.

    Holm within a model and scale: over the ablations on the mean (primary), and over ablations
    and benchmarks together on the benchmarks.
    """
    rows: list[dict[str, Any]] = []
    for model in data.models:
        families: dict[tuple[str, bool], list[dict[str, Any]]] = {}
        for benchmark in [*data.benchmarks, MEAN]:
            for scale in runs.SCALES:
                for condition in ablated:
                    values = data.differences(model, condition, h.full, benchmark, scale)
                    row = contrasts.row(
                        effects.paired(values, side="different", alpha=h.alpha),
                        side="different", alpha=h.alpha, n_seeds=len(values),
                        hypothesis="ablations", model=model, benchmark=benchmark, scale=scale,
                        contrast=f"{condition} - {h.full}", test="paired t over seeds",
                    )  # fmt: skip
                    rows.append(row)
                    families.setdefault((scale, benchmark == MEAN), []).append(row)
        for family in families.values():
            adjusted = effects.holm([r["p_value"] for r in family])
            for r, p in zip(family, adjusted, strict=True):
                r["p_holm"] = p
    return rows


def main(args: argparse.Namespace) -> None:
    """Entry of the verb: args.study, args.scores (scores.tsv), args.out, args.interim;
    args.adapters: the runs' folders, for what is to be said of their corpus.
    """
    hypotheses = settings.read_hypotheses(args.study)
    config = settings.read(args.study)
    h = hypotheses.ablations
    ablated = h.conditions
    if not ablated:
        raise UserError(
            f"no condition starts with {h.prefix!r}",
            fix="name them by hypotheses.ablations.conditions",
        )
    data = runs.final_runs(
        runs.read_run_scores(args.scores),
        models=settings.study_names(config, "models"),
        conditions=[h.full, *ablated],
        benchmarks=settings.study_names(config, "benchmarks"),
        seeds=settings.study_seeds(config),
        allow_missing=bool(getattr(args, "interim", False)),
    )
    write_rows(
        args.out,
        COLUMNS,
        analyse(data, h, ablated),
        hypotheses,
        interim=data.interim,
        remarks=data.remarks,
        adapters=getattr(args, "adapters", ()),
    )
