"""config/ablations.yaml in miniature: every condition trained for real, its trace, and its table.

Models are random and answers are drawn: what serving and scoring do with more conditions is nothing
new, and test_micro runs it. Training is short: `update_every` keeps the file's proportions.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from tests.adapters import material
from tests.statistics.grids import grid
from tests.statistics.test_tables import aggregate, run, write_runs
from zpdbench import study
from zpdbench.adapters import train_adapter
from zpdbench.statistics import ablations

pytestmark = pytest.mark.slow

STEPS, FULL = 16, 4
"""Of 160 and 20 in the file: A7 is then an update every step, A8 every 8."""


def miniature(root: Path) -> dict[str, Any]:
    config = study.read_yaml(root / "config/ablations.yaml")[0]
    for condition in config["conditions"].values():
        options = condition.get("options", {})
        if "update_every" in options:
            options["update_every"] = max(options["update_every"] * FULL // 20, 1)
            options["pool_size"] = 40
    config["training"] |= {"steps": STEPS, "evaluate_every": STEPS, "batch_size": 4}
    config["corpus"]["probe"] = 8
    return config


def test_every_ablation_trains_as_its_name_says(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZPDBENCH_CACHE", str(tmp_path / "cache"))
    config = miniature(root)
    settings = study.parse(config)
    checkpoint = material.checkpoint(tmp_path / "m")
    material.examples(150).write_parquet(tmp_path / "c.parquet")
    updates: dict[str, pl.DataFrame] = {}
    for condition in settings.conditions:
        out = tmp_path / condition
        train_adapter.train(
            settings,
            model="mini-qwen",
            condition=condition,
            seed=0,
            checkpoint=checkpoint,
            corpus=tmp_path / "c.parquet",
            out=out,
        )
        assert (out / f"step{STEPS}/adapter_model.safetensors").is_file()
        trace = pl.read_parquet(out / "trace.parquet")
        assert trace.filter(pl.col("kind") == "step").height == STEPS
        updates[condition] = trace.filter(pl.col("kind") == "update")
    assert updates["random"].is_empty()
    counts = {c: table.height for c, table in updates.items()}
    assert counts["zpd"] == counts["procurl"] == 4
    assert counts["zpd_a7_update_often"] > 4 > counts["zpd_a8_update_rarely"] == 2

    def values(condition: str, name: str) -> list[Any]:
        return updates[condition][name].to_list()

    for condition, of in (
        ("zpd_a1_loss", lambda r: math.exp(-r["probe_loss"])),
        ("zpd_a2_confidence", lambda r: r["probe_confidence"]),
        ("zpd_a3_entropy", lambda r: 1 - r["probe_entropy"]),
    ):
        for row in updates[condition].iter_rows(named=True):
            assert row["competence"] == pytest.approx(of(row))
    assert set(values("zpd_a4_no_upper", "high")) == {None}
    assert None not in values("zpd", "high")
    assert set(values("zpd_a5_no_lower", "low")) == {0.0}
    assert set(values("zpd_a6_fixed", "alpha")) == {1.1}
    assert len(set(values("zpd", "alpha"))) > 1
    assert all("pacing" in json.loads(f) for f in values("pacing", "facts"))
    assert all("success_drawn" in json.loads(f) for f in values("procurl", "facts"))


def test_the_table_has_each_ablation_beside_full_zpd(root: Path, tmp_path: Path) -> None:
    config = miniature(root)
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(config), "utf-8")
    table = grid(
        models=tuple(config["models"]),
        conditions=tuple(config["conditions"]),
        sizes=dict.fromkeys(config["benchmarks"], 30),
        steps=(STEPS,),
        n_seeds=len(config["seeds"]),
    )
    aggregate(tmp_path, write_runs(tmp_path, table))
    rows = run(ablations, tmp_path)
    wanted = {f"{c} - zpd" for c in config["conditions"] if c.startswith("zpd_")}
    assert len(wanted) == 8 and {r["contrast"] for r in rows} == wanted
    assert {r["model"] for r in rows} == set(config["models"])
    assert len(rows) == 8 * 2 * 5 * 2
