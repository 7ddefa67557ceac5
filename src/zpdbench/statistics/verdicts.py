"""What every results table shares: verdicts, registration, and how rows are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zpdbench import files
from zpdbench.errors import UserError
from zpdbench.hypotheses import Hypotheses
from zpdbench.statistics import notes
from zpdbench.statistics.effects import NAN

MEAN = "mean"
"""Name of the endpoint that is the mean over the benchmarks."""

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
REGISTRATION = ("preregistration", "registered")
ENDS = ("form", *REGISTRATION)
"""Columns that end every table."""


def judge(p: float, bound: float, margin: float, alpha: float) -> str:
    """Verdict of a one-sided test.

    Args:
        p: p value, Holm's where the row is one of a family; NaN if there is no test.
        bound: one-sided upper limit of the effect in the tested direction.
        margin: smallest effect of interest, same unit.
        alpha: level.

    Returns:
        `supported` if p < alpha, else `contradicted` if the bound lies below the margin, else
        `inconclusive`.
    """
    if math.isnan(p):
        return INCONCLUSIVE
    if p < alpha:
        return SUPPORTED
    return CONTRADICTED if bound < margin else INCONCLUSIVE


def judge_two_sided(p: float, alpha: float) -> str:
    """Verdict of a test that something differs: it never shows that nothing does."""
    return SUPPORTED if p < alpha else INCONCLUSIVE


def register(hypotheses: Hypotheses) -> tuple[str, str]:
    """The hypotheses' digest (16 digits) and whether it is the registered one.

    Returns:
        digest, and `none` (nothing registered), `yes`, or `exploratory` (another digest).
    """
    digest = hypotheses.digest()
    if not hypotheses.registered:
        return digest[:16], "none"
    return digest[:16], "yes" if digest.startswith(hypotheses.registered) else "exploratory"


def does_not_apply(hypothesis: str, reason: str) -> list[dict[str, Any]]:
    """The one row of a table whose hypothesis the study cannot look at."""
    return [
        {
            "hypothesis": hypothesis,
            "verdict": INCONCLUSIVE,
            "note": f"does not apply: {reason}",
        }
    ]


def missing_cells(problems: Sequence[str]) -> str:
    """What is missing of a grid, in words: how many cells and the first of them; "" if none."""
    if not problems:
        return ""
    more = " ..." if len(problems) > 3 else ""
    return f"{len(problems)} cells missing ({', '.join(problems[:3])}{more})"


def require_complete(problems: Sequence[str]) -> None:
    """Refuse a grid with gaps, of which nobody said that they may be there.

    Args:
        problems: the missing cells, as model/condition/seed.

    Raises:
        UserError: naming the first of them.
    """
    if problems:
        more = " ..." if len(problems) > 6 else ""
        raise UserError(
            f"{len(problems)} cells are missing (model/condition/seed): "
            f"{', '.join(problems[:6])}{more}",
            fix="score them, or ask for what is complete by --interim",
        )


def write_rows(
    path: str | Path,
    columns: Sequence[str],
    rows: Iterable[dict[str, Any]],
    hypotheses: Hypotheses,
    *,
    interim: str = "",
    remarks: Sequence[str] = (),
    adapters: Sequence[str | Path] = (),
) -> None:
    """Write rows as TSV: absent or infinite values as NA, registration in every row.

    Args:
        columns: without ENDS; `note` among them.
        interim: what is missing of the grid, put before every note; "" if nothing.
        remarks: what else holds for every row.
        adapters: the runs' folders, for what is to be said of their corpus (`notes.of_corpus`).

    Raises:
        UserError: a run's folder without a readable manifest.
    """
    rows = list(rows)
    benchmarks = [row.get("benchmark") for row in rows]
    digest, status = register(hypotheses)
    said = notes.of_corpus(adapters)
    lead = [*([f"interim: {interim}"] if interim else []), *remarks, *said]
    if status == "exploratory":
        lead.append("exploratory: not the registered hypotheses")

    def cells(row: dict[str, Any]) -> list[Any]:
        note = "; ".join([*lead, *([row["note"]] if row.get("note") else [])])
        form = hypotheses.asked_as(row.get("benchmark"), benchmarks)
        full = {**row, "note": note or None, "form": form}
        full |= {"preregistration": digest, "registered": status}
        return [finite(full.get(c)) for c in (*columns, *ENDS)]

    files.write_tsv(path, (*columns, *ENDS), (cells(row) for row in rows))


def finite(value: Any) -> Any:
    """The value, with NaN instead of anything infinite, as a built-in type."""
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else NAN
    if isinstance(value, np.integer):
        return int(value)
    return value
