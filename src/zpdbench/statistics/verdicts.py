"""What every results table shares: verdicts, registration, and how rows are written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zpdbench import files
from zpdbench.errors import UserError
from zpdbench.hypotheses import Hypotheses
from zpdbench.statistics import effects, notes
from zpdbench.statistics.effects import NAN

MEAN = "mean"
"""Name of the endpoint that is the mean over the benchmarks."""

SUPPORTED, CONTRADICTED, INCONCLUSIVE = "supported", "contradicted", "inconclusive"
SMALLER_HARM, DIFFERENCE_ONLY = "smaller harm", "difference only"
VERDICTS = (SUPPORTED, SMALLER_HARM, DIFFERENCE_ONLY, CONTRADICTED, INCONCLUSIVE)
REGISTRATION = ("preregistration", "registered")
ENDS = ("form", *REGISTRATION)
"""Columns that end every table."""


@dataclass(frozen=True)
class Ruling:
    """The intersection-union rule on one study: what its two conditions say, and both together."""

    p_value: float
    """That either condition fails: the larger of the two p."""
    p_against: float
    """That the hypothesis is contradicted: twice the smaller p of the opposite one-sided tests."""
    verdict: str


def judge(
    difference: effects.Test,
    gain: effects.Test,
    alpha: float,
    *,
    margin: float = 0.0,
    margin_gain: float = 0.0,
) -> Ruling:
    """An intersection-union test (Berger 1982): a difference of gains *and* a gain.

    Args:
        difference: that the difference exceeds `margin`, one-sided at `alpha`.
        gain: that the gain itself, where it is said to be larger, exceeds `margin_gain`, likewise.
        alpha: level of each; both must hold, so that none of it is to be shared.
        margin, margin_gain: of the tests, in their direction.

    `contradicted` if either upper bound at alpha / 2 lies below its margin (two ways, so half of
    alpha each); `supported` if both tests hold, which is the same as both intervals lying above
    their margins; if the difference alone holds, `smaller harm` where the gain's interval lies
    below 0 and `difference only` elsewhere; else `inconclusive`, as where a test is undefined.
    """
    p_value = max(difference.p_value, gain.p_value)
    if math.isnan(difference.p_value) or math.isnan(gain.p_value):
        return Ruling(NAN, NAN, INCONCLUSIVE)
    p_against = min(1.0, 2 * (1 - p_value))
    if difference.bound < margin or gain.bound < margin_gain:
        verdict = CONTRADICTED
    elif p_value < alpha:
        verdict = SUPPORTED
    elif difference.p_value < alpha:
        verdict = SMALLER_HARM if gain.high < 0 else DIFFERENCE_ONLY
    else:
        verdict = INCONCLUSIVE
    return Ruling(p_value, p_against, verdict)


def register(hypotheses: Hypotheses, *, outside: bool = False) -> tuple[str, str]:
    """The hypotheses' digest (16 digits) and whether it is the registered one.

    Args:
        outside: whether what is analysed is not what the registration covers, whatever its digest.

    Returns:
        digest, and `none` (nothing registered), `yes`, or `exploratory` (another digest).
    """
    digest = hypotheses.digest()
    if not hypotheses.registered:
        return digest[:16], "none"
    is_same = digest.startswith(hypotheses.registered) and not outside
    return digest[:16], "yes" if is_same else "exploratory"


def does_not_apply(hypothesis: str, reason: str) -> list[dict[str, Any]]:
    """The one row of a table whose hypothesis the study cannot look at: no verdict."""
    return [{"hypothesis": hypothesis, "note": f"does not apply: {reason}"}]


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
    digest, status = register(hypotheses, outside=bool(interim))
    said = notes.of_corpus(adapters)
    lead = [*([f"interim: {interim}"] if interim else []), *remarks, *said]
    if status == "exploratory":
        lead.append("exploratory: not what was registered")

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
