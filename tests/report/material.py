"""A results folder with real tables and drawn answers, some of them hostile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl

from tests.artifacts import synthetic
from zpdbench import cli, files, study
from zpdbench.report import evidence

HOSTILE = (
    "<script>window.owned = 1</script><img src=x onerror='window.owned = 2'>"
    "</script></pre></template><svg onload='window.owned = 3'></svg>{{ 1337*1337 }}"
)
CONFIG: dict[str, Any] = {
    **synthetic.CONFIG,
    "benchmarks": {
        **synthetic.CONFIG["benchmarks"],
        "humaneval": {"source": "embedded", "items": 2, "interim_items": 1, "max_tokens": 64},
    },
}


def make(folder: Path) -> Path:
    """A complete results folder below `folder`; returns its study.lock.yaml."""
    lock = synthetic.make(folder / "results", CONFIG)
    loaded = study.load(lock)
    _corpus(Path(loaded.paths.corpus(loaded.corpus.name)))
    for run in loaded.runs:
        _trace(Path(loaded.paths.adapter(*run)), loaded, windowed=run.condition == "zpd")
    for model, chunk in loaded.chunks:
        _poison(Path(loaded.paths.generations(model, chunk)))
    return lock


def arguments(lock: Path, out: Path) -> list[str]:
    """The command line of the rule."""
    loaded = study.load(lock)
    paths = loaded.paths
    tables = ("h3a", "anova", "h3b", "r1", "efficiency", "power", "expected", "scores", "curves")
    return [
        *("report", "--study", str(lock), "--tables", *(paths.table(t) for t in tables)),
        *("--scores", *(paths.scores(*run) for run in loaded.all_runs)),
        *("--generations", *(paths.generations(*c) for c in loaded.chunks)),
        *("--items", *(paths.items(b) for b in loaded.benchmarks)),
        *("--adapters", *(paths.adapter(*run) for run in loaded.runs)),
        *("--corpus", paths.corpus(loaded.corpus.name), "--out", str(out)),
    ]


def write(lock: Path, out: Path) -> str:
    """Run the verb; the page's text."""
    assert cli.main(arguments(lock, out)) == 0
    return out.read_text("utf-8")


def _poison(path: Path) -> None:
    """Every GSM8K answer carries markup that would run if it were not text."""
    table = pl.read_parquet(path)
    text = pl.when(pl.col("benchmark") == "gsm8k").then(pl.col("text") + HOSTILE)
    table.with_columns(text.otherwise(pl.col("text")).alias("text")).write_parquet(path)


def _corpus(path: Path) -> None:
    rows = [
        {
            "id": f"e{i}", "language": "ko" if i % 2 else "en", "source": "embedded",
            "prompt": "p", "response": "r", "split": "train", "difficulty": (i % 11) / 10,
        }
        for i in range(60)
    ]  # fmt: skip
    pl.DataFrame(rows).write_parquet(path)


def _trace(folder: Path, loaded: study.Study, *, windowed: bool) -> None:
    steps = loaded.training.steps
    rows: list[dict[str, Any]] = [
        {
            "kind": "step", "step": s, "examples": [f"e{(s * 8 + i) % 60}" for i in range(8)],
            "tokens": 100, "targets": 40, "tokens_scored": 0, "flops": 1000,
        }
        for s in range(1, steps + 1)
    ]  # fmt: skip
    if windowed:
        rows += [
            {
                "kind": "update", "step": s, "tokens": 0, "targets": 0, "tokens_scored": 50,
                "flops": 500, "perplexity": 1.4 - s / 100, "perplexity_smoothed": 1.45,
                "low": 1.5, "high": 1.8, "occupancy": 0.2, "fallback": 0.7, "coverage": 0.1,
                "fallback_below": 0.686, "pool_tokens": 12.0, "drawn_tokens": 9.0 - s,
            }
            for s in range(0, steps, 2)
        ]  # fmt: skip
    for row in rows:
        for column in evidence._WINDOW:
            row.setdefault(column, None)
    schema = dict.fromkeys(evidence._WINDOW, pl.Float64)
    table = pl.DataFrame(rows, schema_overrides=schema, infer_schema_length=None)
    table.write_parquet(folder / "trace.parquet")
    manifest = json.loads((folder / "MANIFEST.json").read_text("utf-8"))
    facts = {k: v for k, v in manifest.items() if k not in ("files", "digest")}
    files.write_manifest(folder, {**facts, "diagnosis": [f"Said of itself: {HOSTILE}"]})
    files.write_text(folder / "train.timing.json", '{"seconds": 12.5, "peak_memory_mib": 300.0}\n')
