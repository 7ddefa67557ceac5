"""Small made-up grids of verdicts, for the tests of the statistics."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

COLUMNS = (
    "model", "condition", "seed", "step", "benchmark", "task", "item_id", "sample",
    "prediction", "gold", "correct", "status",
)  # fmt: skip
CONFIG = (
    "hypotheses:\n  h3a: {small: tiny, large: big, treatment: zpd, control: random, side: larger}\n"
)


def grid(
    *,
    seed: int = 0,
    n_seeds: int = 5,
    models: Sequence[str] = ("tiny", "big"),
    conditions: Sequence[str] = ("random", "zpd"),
    sizes: dict[str, int] | None = None,
    steps: Sequence[int] = (20,),
    interim: int = 10,
    gain: Sequence[float] = (0.02, 0.1),
) -> pl.DataFrame:
    """Verdicts of a whole grid, the untuned bases included."""
    rng = np.random.default_rng(seed)
    rows = []
    for model, extra in zip(models, gain, strict=True):
        runs = [("base", 0), *((c, s) for c in conditions for s in range(n_seeds))]
        for condition, label in runs:
            for step in [0] if condition == "base" else steps:
                for benchmark, n in (sizes or {"gsm8k": 40, "kobest": 30}).items():
                    k = n if step in (0, max(steps)) else interim
                    p = 0.5 + (extra if condition == "zpd" else 0) + rng.normal() * 0.03
                    for item in range(k):
                        task = ["boolq", "copa", "wic"][item % 3] if benchmark == "kobest" else ""
                        right = bool(rng.random() < p)
                        gold = str(item // 3 % 2)
                        rows.append(
                            (model, condition, label, step, benchmark, task, str(item), 0,
                             gold if right else str(1 - int(gold)), gold, right, "ok")
                        )  # fmt: skip
    return pl.DataFrame(rows, schema=list(COLUMNS), orient="row")


def write(folder: Path, table: pl.DataFrame, config: str = CONFIG) -> tuple[Path, Path]:
    """The table as TSV and the configuration, in `folder`."""
    scores, configfile = folder / "scores.tsv", folder / "study.yaml"
    table.write_csv(scores, separator="\t")
    configfile.write_text(config, "utf-8")
    return scores, configfile


def read(path: Path) -> list[dict[str, str]]:
    """A TSV as a list of rows."""
    lines = path.read_text("utf-8").splitlines()
    columns = lines[0].split("\t")
    return [dict(zip(columns, line.split("\t"), strict=True)) for line in lines[1:]]


def consistent(row: dict[str, str]) -> None:
    """A row's word is that of its printed limits and p: h3a.tsv, h3b.tsv, ladder.tsv."""
    if row["verdict"] == "NA" or row.get("term") == "gain":
        return
    if row["p_value"] == "NA":
        assert row["verdict"] == "inconclusive"
        return
    prefix = "difference_" if "difference_low" in row else ""
    low, high = (float(row[f"{prefix}{end}"]) for end in ("low", "high"))
    side, alpha = row.get("side", "larger"), (1 - float(row["level"])) / 2
    if side == "smaller":
        low = -high
    v = {k: float(row[k]) for k in ("margin", "margin_gain", "gain_low", "gain_high", "bound",
                                    "bound_gain", "p_value", "p_against")}  # fmt: skip
    both = low > v["margin"] and v["gain_low"] > v["margin_gain"]
    against = v["bound"] < v["margin"] or v["bound_gain"] < v["margin_gain"]
    assert both == (v["p_value"] < alpha) == (row["verdict"] == "supported")
    assert against == (v["p_against"] < alpha) == (row["verdict"] == "contradicted")
    if row["verdict"] in ("difference only", "smaller harm"):
        assert low > v["margin"]
        assert (v["gain_high"] < 0) == (row["verdict"] == "smaller harm")
    if row["verdict"] == "inconclusive":
        assert low <= v["margin"]
