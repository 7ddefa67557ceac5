"""Level 4: one adapter, drawn at random, trained again here."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from zpdbench import files, grid
from zpdbench.artifacts import layout, level3, reading, rerun
from zpdbench.artifacts.findings import DIFFERS, NOT_CHECKED, REPRODUCED, Table
from zpdbench.artifacts.level0 import Bundle
from zpdbench.artifacts.reading import BadFileError
from zpdbench.artifacts.workshop import Workshop

LOSS_MARGIN = 0.02
"""Relative; training on another processor follows the same path but not the same last bits."""
CLAIM = "a training run comes out again"
PATHS = layout.Paths("results")


def check(bundle: Bundle, workshop: Workshop, table: Table, *, seconds: float, seed: int) -> None:
    """Add level 4's rows."""
    end = time.monotonic() + seconds
    draw = random.Random(seed + 1)
    run = level3.pick(bundle.study.runs, draw)
    assert run is not None
    name = "/".join(map(str, run))
    corpus = _corpus(bundle, workshop, seconds)
    if isinstance(corpus, str):
        table.add(4, CLAIM, name, NOT_CHECKED, why=corpus)
        return
    base = rerun.checkpoint(bundle, workshop, run.model)
    if isinstance(base, str):
        table.add(4, CLAIM, name, NOT_CHECKED, why=base)
        return
    made = workshop.path(f"level4/{run.condition}/s{run.seed}")
    outcome = workshop.run(
        "train-adapter",
        [
            *("--study", workshop.lock, "--checkpoint", base, "--corpus", corpus),
            *("--model", run.model, "--condition", run.condition, "--seed", run.seed),
            *("--out", made),
        ],
        seconds=max(end - time.monotonic(), 1.0),
    )
    if outcome.code:
        table.add(4, CLAIM, name, NOT_CHECKED, why=f"zpdbench train-adapter: {outcome.message}")
        return
    if _compare_weights(bundle, run, made, name, table):
        return
    _compare_losses(bundle, run, made, name, table)
    _compare_scores(bundle, workshop, run, made, draw, table, end - time.monotonic())


def _corpus(bundle: Bundle, workshop: Workshop, seconds: float) -> Path | str:
    """The corpus: out of the bundle, or made here from the reviewer's copy of its sources."""
    name = PATHS.corpus(bundle.study.corpus.name).removeprefix("results/")
    if bundle.included.corpus:
        return bundle.path(name)
    made = workshop.path(name)
    items = [bundle.path(PATHS.items(b).removeprefix("results/")) for b in bundle.study.benchmarks]
    outcome = workshop.run(
        "make-corpus",
        [
            *("--study", workshop.lock, "--corpus", bundle.study.corpus.name),
            *("--items", *items, "--out", made),
        ],
        seconds=seconds,
    )
    if outcome.code:
        return f"the corpus is not in the bundle and cannot be made here: {outcome.message}"
    recorded = bundle.records[layout.record_name(name)]["outputs"][name]
    if files.sha256_file(made) != recorded:
        return "the corpus made here is not the one that the authors recorded"
    return made


def _compare_weights(bundle: Bundle, run: grid.Run, made: Path, name: str, table: Table) -> bool:
    """Whether the weights came out bit for bit; the row is added if so."""
    folder = PATHS.adapter(*run).removeprefix("results/")
    listed = reading.read_json(bundle.path(f"{folder}/MANIFEST.json"), 16 << 20)["files"]
    own = files.read_manifest(made)["files"]
    weights = sorted(layout.adapter_files(bundle.study))
    if any(own.get(n) != listed.get(n) for n in weights):
        return False
    why = f"{len(weights) // 2} steps, bit for bit"
    table.add(4, CLAIM, name, REPRODUCED, expected=files.digest(listed), why=why)
    return True


def _compare_losses(bundle: Bundle, run: grid.Run, made: Path, name: str, table: Table) -> None:
    claim = f"its losses come out again within {100 * LOSS_MARGIN:g} %"
    if not bundle.included.traces:
        table.add(4, claim, name, NOT_CHECKED, why="the bundle was made without the traces")
        return
    folder = PATHS.adapter(*run).removeprefix("results/")
    try:
        there = losses(bundle.path(f"{folder}/trace.parquet"))
        here = losses(made / "trace.parquet")
    except BadFileError as error:
        table.add(4, claim, name, DIFFERS, why=str(error))
        return
    for kind in sorted(set(there) | set(here)):
        a, b = there.get(kind), here.get(kind)
        good = a is not None and b is not None and abs(a - b) <= LOSS_MARGIN * abs(a)
        table.add(
            4, claim, f"{name} {kind}", REPRODUCED if good else DIFFERS, expected=f"{a}",
            got=f"{b}", why="the weights are not the same bit for bit",
        )  # fmt: skip


def losses(trace: Path) -> dict[str, float]:
    """The last probe loss and the mean training loss of the last tenth of the steps.

    Raises:
        BadFileError: no trace.
    """
    import polars as pl

    try:
        frame = pl.read_parquet(trace, columns=["kind", "step", "loss", "probe_loss"])
    except (OSError, pl.exceptions.PolarsError) as error:
        raise BadFileError("no readable trace") from error
    found: dict[str, Any] = {}
    steps = frame.filter(pl.col("kind") == "step").sort("step")
    if steps.height:
        found["training loss"] = steps.tail(max(1, steps.height // 10))["loss"].mean()
    probes = frame.filter((pl.col("kind") == "update") & pl.col("probe_loss").is_not_null())
    if probes.height:
        found["probe loss"] = probes.sort("step")["probe_loss"][-1]
    return {k: float(v) for k, v in found.items() if v is not None}


def _compare_scores(
    bundle: Bundle,
    workshop: Workshop,
    run: grid.Run,
    made: Path,
    draw: random.Random,
    table: Table,
    seconds: float,
) -> None:
    name = f"{'/'.join(map(str, run))} trained here"
    if not bundle.included.generations:
        return
    answers = rerun.ask(
        bundle, workshop, run, level3.choose_items(bundle, draw), made, "level4/answers",
        seconds=max(seconds, 60.0),
    )  # fmt: skip
    if isinstance(answers, str):
        table.add(4, "its score comes out again", name, NOT_CHECKED, why=answers)
        return
    level3.add_score(table, 4, name, rerun.counts(answers.frame))
