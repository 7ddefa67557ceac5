"""Gains by the task's language, seed by seed: what R1 tests, for the figures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from zpdbench.statistics.metrics import primary_metric


class Row(Protocol):
    """A row of scores.tsv: column -> text."""

    def __getitem__(self, column: str) -> Any: ...


def gains_by_language(
    rows: Iterable[Row], languages: Mapping[str, str], treatment: str, control: str
) -> dict[str, dict[str, list[tuple[str, float]]]]:
    """Model -> language -> (seed, gain in percentage points) at the final step.

    Each benchmark counts by its primary metric alone, as in r1.tsv, and all of a language's
    benchmarks alike; a seed that lacks one of them under either condition is left out.

    Args:
        rows: scores.tsv.
        languages: benchmark -> language; others are left out.
    """
    kept = [
        r
        for r in rows
        if r["task"] == "all" and r["items"] == "full" and r["condition"] in (treatment, control)
        and r["benchmark"] in languages and r["metric"] == primary_metric(r["benchmark"])
    ]  # fmt: skip
    last = max((int(r["step"]) for r in kept), default=0)
    score: dict[tuple[str, str, str], dict[tuple[str, str], float]] = {}
    for r in kept:
        if int(r["step"]) == last:
            key = (r["model"], languages[r["benchmark"]], r["seed"])
            score.setdefault(key, {})[r["benchmark"], r["condition"]] = 100 * float(r["value"])
    wanted: dict[tuple[str, str], set[str]] = {}
    for (model, language, _), values in score.items():
        wanted.setdefault((model, language), set()).update(b for b, _ in values)
    found: dict[str, dict[str, list[tuple[str, float]]]] = {}
    for (model, language, seed), values in score.items():
        names = sorted(wanted[model, language])
        if any((b, c) not in values for b in names for c in (treatment, control)):
            continue
        gain = sum(values[b, treatment] - values[b, control] for b in names) / len(names)
        found.setdefault(model, {}).setdefault(language, []).append((seed, gain))
    return found
