"""trace.parquet: what a run did, step by step and update by update; no times in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zpdbench import files
from zpdbench.curriculum.conditions import UPDATE_FACTS

if TYPE_CHECKING:
    import polars as pl

_INTEGERS = {"pool", "inside", "repeats_max", "distinct"}


def schema() -> dict[str, Any]:
    """Column name -> polars type.

    `kind` is `step` (one optimiser step; `step` counts from 1) or `update` (the condition's block,
    given after `step` steps). Columns of the other kind are null.
    """
    import polars as pl

    facts = {n: pl.Int64 if n in _INTEGERS else pl.Float64 for n in UPDATE_FACTS}
    return {
        "kind": pl.String,
        "step": pl.Int64,
        "loss": pl.Float64,
        "learning_rate": pl.Float64,
        "gradient_norm": pl.Float64,
        "examples": pl.List(pl.String),
        "tokens": pl.Int64,
        "targets": pl.Int64,
        "tokens_scored": pl.Int64,
        "flops": pl.Int64,
        "block": pl.Int64,
        **facts,
        "facts": pl.String,
    }


def table(
    steps: Sequence[dict[str, Any]], updates: Sequence[dict[str, Any]], ids: Sequence[str]
) -> pl.DataFrame:
    """The trace in the order things happened: an update before the steps that it feeds."""
    import polars as pl

    rows: list[tuple[tuple[int, int], dict[str, Any]]] = []
    for step in steps:
        row = {k: v for k, v in step.items() if k not in ("rows", "seconds")}
        row |= {"kind": "step", "examples": [ids[r] for r in step["rows"]], "tokens_scored": 0}
        rows.append(((step["step"], 0), row))
    for update in updates:
        facts = update["facts"]
        row = {k: v for k, v in update.items() if k not in ("facts", "seconds")}
        row |= {"kind": "update", **{k: facts.get(k) for k in UPDATE_FACTS}}
        other = {k: v for k, v in sorted(facts.items()) if k not in UPDATE_FACTS}
        row["facts"] = json.dumps(other, sort_keys=True) if other else None
        rows.append(((update["step"], 1), row))
    rows.sort(key=lambda pair: pair[0])
    return pl.DataFrame([row for _, row in rows], schema=schema(), orient="row")


def write(path: Path, frame: pl.DataFrame) -> None:
    """Write a table so that equal content gives equal bytes."""
    with files.atomic_path(path) as temporary:
        frame.write_parquet(temporary, compression="zstd", compression_level=3, statistics=True)
