"""Which headline may have a verdict: the registered order, each one only if all before it hold.

One claim is primary. The others are tested in a fixed sequence (h3a, h3b, ladder), each at its own
level and only while everything before it is supported: that any is falsely supported then has
probability alpha at most (Maurer, Hothorn and Lehmacher 1995; Westfall and Krishen 2001). All
other tables have estimates, intervals and p adjusted by Holm, and no verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from zpdbench.errors import UserError
from zpdbench.hypotheses import Hypotheses
from zpdbench.statistics import settings
from zpdbench.statistics.verdicts import SUPPORTED

ORDER = ("h3a", "h3b", "ladder")


def closed(
    name: str, table: pl.DataFrame, hypotheses: Hypotheses, config: Mapping[str, Any]
) -> str:
    """Why a hypothesis of ORDER has no verdict, in words; "" if everything before it is supported.

    A hypothesis that the study does not have, or cannot look at, is passed over.

    Args:
        table: runs' scores, as `runs.read_run_scores` returns them.
        config: the study's configuration.
    """
    for earlier in ORDER[: ORDER.index(name)]:
        verdict = {"h3a": _h3a, "h3b": _h3b}[earlier](table, hypotheses, config)
        if verdict not in (None, SUPPORTED):
            return (
                f"no verdict: tested only if {' and '.join(ORDER[: ORDER.index(name)])} are "
                f"supported, and {earlier} is {verdict}"
            )
    return ""


def _h3a(table: pl.DataFrame, hypotheses: Hypotheses, config: Mapping[str, Any]) -> str | None:
    from zpdbench.statistics import h3a

    h = hypotheses.h3a
    if h is None:
        return None
    last = table.filter(pl.col("items") == "full", pl.col("condition") != "base")
    last = last.filter(pl.col("step") == last["step"].max())
    named = h.benchmarks or settings.study_names(config, "benchmarks")
    try:
        cells = h3a.collect(last, h, named, allow_missing=True)
    except UserError:
        return "not to be had from these scores"
    return h3a.ruling(cells, h)[2].verdict


def _h3b(table: pl.DataFrame, hypotheses: Hypotheses, config: Mapping[str, Any]) -> str | None:
    from zpdbench.statistics import h3b

    # A file with hypotheses alone names no benchmarks: those that were scored.
    named = settings.study_names(config, "benchmarks") or table["benchmark"].unique().to_list()
    conditions = settings.study_names(config, "conditions")
    if hypotheses.inapplicable("h3b", conditions=conditions, benchmarks=named):
        return None
    h = h3b.applicable(hypotheses.h3b, named)
    try:
        data = h3b.final_runs(table, h, config, allow_missing=True)
    except UserError:
        return "not to be had from these scores"
    return next(str(r["verdict"]) for r in h3b.analyse(data, h) if r.get("verdict"))
