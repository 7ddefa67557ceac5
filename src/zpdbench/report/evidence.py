"""What the report reads besides tables: traces, corpus, answers, manifests, records."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from zpdbench import files

BINS = 20
_WINDOW = (
    "perplexity", "perplexity_smoothed", "low", "high", "occupancy", "fallback", "fallback_below",
    "pool_tokens", "drawn_tokens", "coverage",
)  # fmt: skip


LENGTHS = ("examples_too_long", "examples_cut", "tokens_cut", "examples_ended_early")
"""Counts in a run's manifest of what did not fit training.max_tokens, or ended early."""


@dataclass(frozen=True)
class Window:
    """One condition's window over a run in one model, means over seeds by update."""

    model: str
    condition: str
    steps: list[int]
    means: dict[str, list[float]]


@dataclass(frozen=True)
class Cost:
    """What one part of the study did; counts, no times."""

    stage: str
    model: str
    condition: str
    jobs: int
    counts: dict[str, float]


@dataclass(frozen=True)
class Traces:
    """What the runs' traces say.

    Attributes:
        windows: one a model and condition that has a window.
        trained: (model, condition) -> (step, mean difficulty of the examples) in parts of a run.
        costs: training, one row a model and condition.
        diagnoses: sentence -> the runs that it stands in, from the manifests.
        lengths: model -> the most, over its runs, of each count in `LENGTHS`.
    """

    windows: list[Window] = field(default_factory=list)
    trained: dict[tuple[str, str], list[tuple[float, float]]] = field(default_factory=dict)
    costs: list[Cost] = field(default_factory=list)
    diagnoses: list[tuple[str, str, int, str]] = field(default_factory=list)
    lengths: dict[str, dict[str, int]] = field(default_factory=dict)


def read_traces(adapters: Sequence[str | Path], corpus: pl.DataFrame | None) -> Traces:
    """The traces and manifests of runs' folders; `corpus` gives the examples' difficulty."""
    found = Traces()
    updates: dict[tuple[str, str], list[pl.DataFrame]] = {}
    levels: dict[tuple[str, str], list[pl.DataFrame]] = {}
    totals: dict[tuple[str, str], dict[str, float]] = {}
    runs: dict[tuple[str, str], int] = {}
    for folder in sorted(map(Path, adapters)):
        trace = folder / "trace.parquet"
        if not trace.is_file():
            continue
        manifest = files.read_manifest(folder)
        key = (str(manifest["model"]), str(manifest["condition"]))
        found.diagnoses.extend(
            (*key, int(manifest["seed"]), str(s))
            for s in [*manifest.get("diagnosis", []), *manifest.get("notes", [])]
        )
        most = found.lengths.setdefault(key[0], dict.fromkeys(LENGTHS, 0))
        for name in LENGTHS:
            most[name] = max(most[name], int(manifest.get(name) or 0))
        table = pl.read_parquet(trace)
        runs[key] = runs.get(key, 0) + 1
        total = totals.setdefault(key, {})
        for column in ("tokens", "targets", "tokens_scored", "flops"):
            total[column] = total.get(column, 0.0) + float(table[column].sum())
        total["steps"] = total.get("steps", 0.0) + table.filter(pl.col("kind") == "step").height
        window = table.filter((pl.col("kind") == "update") & pl.col("low").is_not_null())
        if not window.is_empty():
            # A trace that is older than a column does not say it.
            lacking = [pl.lit(None, pl.Float64).alias(c) for c in _WINDOW if c not in table.columns]
            window = window.with_columns(lacking).select("step", *_WINDOW)
            updates.setdefault(key, []).append(window)
        if corpus is not None:
            levels.setdefault(key, []).append(_levels(table, corpus))
    for key, parts in sorted(updates.items()):
        mean = pl.concat(parts).group_by("step").agg(pl.col(c).mean() for c in _WINDOW).sort("step")
        columns = {c: [_float(v) for v in mean[c].to_list()] for c in _WINDOW}
        found.windows.append(Window(*key, mean["step"].to_list(), columns))
    for key, parts in sorted(levels.items()):
        joined = pl.concat(parts)
        if not joined.is_empty():
            mean = joined.group_by("part").agg(pl.col("step").mean(), pl.col("difficulty").mean())
            rows = mean.sort("part").select("step", "difficulty").rows()
            found.trained[key] = [(float(s), float(d)) for s, d in rows]
    for key, total in sorted(totals.items()):
        found.costs.append(Cost("training", *key, runs[key], total))
    return found


def _levels(trace: pl.DataFrame, corpus: pl.DataFrame) -> pl.DataFrame:
    steps = trace.filter(pl.col("kind") == "step").select("step", "examples")
    last = steps["step"].max() or 1
    return (
        steps.explode("examples")
        .join(corpus.select("id", "difficulty"), left_on="examples", right_on="id")
        .select(
            ((pl.col("step") - 1) * BINS // last).alias("part"),
            pl.col("step").cast(pl.Float64),
            "difficulty",
        )
    )


def read_corpus(path: str | Path) -> pl.DataFrame:
    """The corpus's difficulty by example: id language source split difficulty."""
    return pl.read_parquet(path, columns=["id", "language", "source", "split", "difficulty"])


def difficulty_shares(corpus: pl.DataFrame) -> list[tuple[str, list[float]]]:
    """Language -> per cent of its examples in each of BINS bins of difficulty on [0, 1]."""
    found = []
    for (language,), part in sorted(corpus.group_by(["language"]), key=lambda p: str(p[0])):
        place = (part["difficulty"].clip(0.0, 1.0) * BINS).cast(pl.Int64).clip(0, BINS - 1)
        counts = [0] * BINS
        for bin_, count in place.value_counts().iter_rows():
            if bin_ is not None:
                counts[bin_] = count
        found.append((str(language), [100 * c / part.height for c in counts]))
    return found


def generation_costs(generations: Sequence[str | Path]) -> list[Cost]:
    """Answers and tokens of each model."""
    totals: dict[str, dict[str, float]] = {}
    chunks: dict[str, int] = {}
    for path in sorted(map(str, generations)):
        rows = (
            pl.scan_parquet(path)
            .group_by("model")
            .agg(
                pl.len().alias("answers"),
                pl.col("n_prompt_tokens").sum().alias("prompt_tokens"),
                pl.col("n_tokens").sum().alias("tokens"),
            )
            .collect()
            .to_dicts()
        )
        for row in rows:
            model = str(row.pop("model"))
            chunks[model] = chunks.get(model, 0) + 1
            total = totals.setdefault(model, {})
            for name, value in row.items():
                total[name] = total.get(name, 0.0) + float(value)
    return [Cost("answers", m, "", chunks[m], t) for m, t in sorted(totals.items())]


def agreements(generations: Sequence[str | Path]) -> list[tuple[str, str, int, int]]:
    """(model, chunk, prompts asked again alone, answers that were equal), where a chunk tells."""
    found = []
    for path in sorted(map(Path, generations)):
        told = pl.read_parquet_metadata(path).get("batch_invariance")
        if told is not None:
            probe = json.loads(told)
            found.append((path.parent.name, path.stem, int(probe["asked"]), int(probe["equal"])))
    return found


def seconds(
    adapters: Sequence[str | Path], generations: Sequence[str | Path], checkpoints: Path
) -> list[Cost]:
    """Seconds and peak memory from the timing files; these differ from run to run."""
    found: list[Cost] = []
    for path in sorted(checkpoints.glob("*/make.timing.json")):
        found.append(Cost("checkpoint", path.parent.name, "", 1, _numbers(path)))
    grouped: dict[tuple[str, str], list[dict[str, float]]] = {}
    for folder in sorted(map(Path, adapters)):
        timing = folder / "train.timing.json"
        if timing.is_file():
            key = (folder.parent.parent.name, folder.parent.name)
            grouped.setdefault(key, []).append(_numbers(timing))
    for key, parts in sorted(grouped.items()):
        total = {
            k: sum(p.get(k, 0.0) for p in parts)
            for k in ("seconds", "seconds_training", "seconds_scoring")
        }
        total["peak_memory_mib"] = max(p.get("peak_memory_mib", 0.0) for p in parts)
        found.append(Cost("training", *key, len(parts), total))
    for path in sorted(map(Path, generations)):
        timing = path.with_suffix(".timing.json")
        if timing.is_file():
            found.append(Cost("answers", path.parent.name, path.stem, 1, _numbers(timing)))
    return found


def _numbers(path: Path) -> dict[str, float]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(value, dict):
        return {}
    return {k: float(v) for k, v in value.items() if isinstance(v, int | float)}


def read_items(paths: Sequence[str | Path]) -> list[dict[str, Any]]:
    """The items of all benchmarks: benchmark task item_id prompt choices letters gold interim."""
    columns = [
        *("benchmark", "task", "item_id", "prompt", "choices", "letters", "gold", "interim"),
    ]
    rows: list[dict[str, Any]] = []
    for path in sorted(map(str, paths)):
        rows += pl.read_parquet(path, columns=columns).to_dicts()
    return rows


def checkpoint_digest(folder: Path) -> str:
    """Digest of a base model's folder; "" if it is not at hand."""
    return (
        str(files.read_manifest(folder)["digest"]) if (folder / "MANIFEST.json").is_file() else ""
    )


def read_records(results: Path, stages: Sequence[str]) -> list[Mapping[str, Any]]:
    """What the jobs of some stages recorded of themselves; [] where there are no records."""
    found: list[Mapping[str, Any]] = []
    paths = [p for s in stages for p in (results / "records" / s).rglob("*.json")]
    for path in sorted(paths):
        try:
            value = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(value, dict) and isinstance(value.get("machine"), dict):
            found.append(value)
    return found


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)
