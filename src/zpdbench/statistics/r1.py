"""`zpdbench r1`: does the gain depend on the task's language and the model?"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zpdbench.errors import UserError
from zpdbench.hypotheses import R1
from zpdbench.statistics import contrasts, effects, runs, settings
from zpdbench.statistics.verdicts import does_not_apply, write_rows

COLUMNS = contrasts.COLUMNS


def analyse(data: runs.Runs, h: R1, small: str, large: str) -> list[dict[str, Any]]:
    """Rows of r1.tsv: the language contrast in each model, and its difference between them.

    Per seed: mean gain over the benchmarks of the first language minus that over the second;
    two-sided: paired t in a model (Holm over the two), and of large - small over the seeds that
    the models share (Welch's, where they share none). The first row to read is `large - small` on
    `pp`; no row has a verdict.

    Raises:
        UserError: a language has no benchmark among the data.
    """
    groups = {
        language: [b for b in data.benchmarks if h.languages.get(b) == language]
        for language in (h.first, h.second)
    }
    for language, members in groups.items():
        if not members:
            raise UserError(
                f"no benchmark in language {language!r}",
                fix="say which by hypotheses.r1.languages: {BENCHMARK: LANGUAGE}",
            )

    def per_seed(model: str, scale: str) -> NDArray[np.float64]:
        first, second = (
            data.mean_differences(model, h.treatment, h.control, members, scale)
            for members in groups.values()
        )
        return first - second

    rows: list[dict[str, Any]] = []
    for scale in runs.SCALES:
        contrast = {
            m: effects.settled(per_seed(m, scale), per_seed(m, "pp")) for m in (small, large)
        }
        part = [
            contrasts.row(
                effects.paired(values, side="different", alpha=h.alpha),
                side="different", alpha=h.alpha, n_seeds=len(values), model=model,
                test="paired t over seeds",
            )
            for model, values in contrast.items()
        ]  # fmt: skip
        pairs = contrasts.by_seed(contrast, data.seeds)
        if pairs is None:
            test = effects.welch(contrast[small], contrast[large], side="different", alpha=h.alpha)
            mde: float | None = contrasts.minimal_difference(
                contrast[small], contrast[large], alpha=h.alpha / 2
            )
            name, n = "Welch t of per-seed contrasts", min(map(len, contrast.values()))
        else:
            test = effects.paired(pairs[1] - pairs[0], side="different", alpha=h.alpha)
            mde, name, n = None, "paired t of the models' per-seed contrasts", len(pairs[0])
        part.append(
            contrasts.row(
                test, side="different", alpha=h.alpha, model=f"{large} - {small}", n_seeds=n,
                mde=mde, test=name,
                note="primary: language x model" if scale == "pp" else "language x model",
            )
        )  # fmt: skip
        adjusted = effects.holm([r["p_value"] for r in part[:-1]])
        for r, p in zip(part, [*adjusted, effects.NAN], strict=True):
            r["p_holm"] = p
            r |= {
                "hypothesis": "r1", "scale": scale,
                "benchmark": " against ".join(" + ".join(m) for m in groups.values()),
                "contrast": f"gain of {h.treatment} over {h.control}: {h.first} - {h.second}",
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
    reason = settings.inapplicable(hypotheses, "r1", config)
    if reason:
        rows = does_not_apply("r1", reason)
        write_rows(args.out, COLUMNS, rows, hypotheses, adapters=adapters)
        return
    h = hypotheses.r1
    small, large = h.small, h.large
    assert small and large  # else it does not apply
    named = settings.study_names(config, "benchmarks")
    data = runs.final_runs(
        runs.read_run_scores(args.scores),
        models=[small, large],
        conditions=[h.treatment, h.control],
        benchmarks=[b for b in named if b in h.languages] if named else None,
        seeds=settings.study_seeds(config),
        allow_missing=bool(getattr(args, "interim", False)),
    )
    write_rows(
        args.out,
        COLUMNS,
        analyse(data, h, small, large),
        hypotheses,
        interim=data.interim,
        remarks=data.remarks,
        adapters=adapters,
    )
