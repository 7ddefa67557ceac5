"""Level 4: one adapter, drawn at random, trained again here."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

from zpdbench import files, grid
from zpdbench.artifacts import agreement, layout, level2, level3, reading, rerun
from zpdbench.artifacts.findings import DIFFERS, NOT_CHECKED, REPRODUCED, Table
from zpdbench.artifacts.level0 import Bundle
from zpdbench.artifacts.reading import BadFileError
from zpdbench.artifacts.workshop import Workshop
from zpdbench.study import EmbeddedModel

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

    def left() -> float:
        return max(end - time.monotonic(), 1.0)

    corpus = _corpus(bundle, workshop, table, left())
    if isinstance(corpus, str):
        table.add(4, CLAIM, name, NOT_CHECKED, why=corpus, core=True)
        return
    base = rerun.checkpoint(bundle, workshop, run.model)
    if isinstance(base, str):
        table.add(4, CLAIM, name, NOT_CHECKED, why=base, core=True)
        return
    made = workshop.path(f"level4/{run.condition}/s{run.seed}")
    outcome = workshop.run(
        "train-adapter",
        [
            *("--study", workshop.lock, "--checkpoint", base, "--corpus", corpus),
            *("--model", run.model, "--condition", run.condition, "--seed", run.seed),
            *("--out", made),
        ],
        seconds=left(),
    )
    if outcome.code:
        why = f"zpdbench train-adapter: {outcome.message}"
        table.add(4, CLAIM, name, NOT_CHECKED, why=why, core=True)
        return
    equal = compare_weights(bundle, run, made, table)
    compare_facts(bundle, run, made, table, equal=equal)
    compare_trace(bundle, run, made, table, equal=equal)
    if not equal:
        _compare_scores(bundle, workshop, run, made, draw, table, left())
    _add_reach(bundle, table, seed)
    _remake_checkpoint(bundle, workshop, run.model, table, left())


def _add_reach(bundle: Bundle, table: Table, seed: int) -> None:
    n = len(bundle.study.runs)
    hidden = agreement.most_hidden(1, n)
    why = f"if this one is not otherwise, {hidden} of the {n} may still be (95 %)"
    table.add(
        4, "a run was trained again", f"seed {seed}", REPRODUCED, expected=f"{n} runs",
        got="1 run", why=why,
    )  # fmt: skip


def _corpus(bundle: Bundle, workshop: Workshop, table: Table, seconds: float) -> Path | str:
    """The corpus to train on: out of the bundle, or made here from the reviewer's sources.

    It is made here in either case, so far as it can be: that the bundle's is the right one is a
    claim too.
    """
    claim = "the corpus comes out of its sources again"
    name = PATHS.corpus(bundle.study.corpus.name).removeprefix("results/")
    made = workshop.path(name)
    items = [level2.item_path(bundle, workshop, b) for b in bundle.study.benchmarks]
    outcome = workshop.run(
        "make-corpus",
        [
            *("--study", workshop.lock, "--corpus", bundle.study.corpus.name),
            *("--items", *items, "--out", made),
        ],
        seconds=seconds,
    )
    if outcome.code:
        why = f"it cannot be made here: {outcome.message}"
        table.add(4, claim, name, NOT_CHECKED, why=why)
        return bundle.path(name) if bundle.included.corpus else f"the corpus is not here; {why}"
    recorded = bundle.records[layout.record_name(name)]["outputs"][name]
    if files.sha256_file(made) == recorded:
        table.add(4, claim, name, REPRODUCED, expected=recorded, why="byte for byte")
        return made
    if not bundle.included.corpus:
        why = "what is made here is not what the authors recorded"
        table.add(4, claim, name, NOT_CHECKED, expected=recorded, why=why)
        return f"the corpus: {why}"
    differing = corpus_difference(bundle.path(name), made)
    if not differing:
        table.add(4, claim, name, REPRODUCED, expected=recorded, why="every value; bytes differ")
    else:
        # A reviewer's copy of somebody's data set may be another one than the authors'.
        own = all(s.format == "embedded" for s in bundle.study.corpus.sources.values())
        verdict = DIFFERS if own else NOT_CHECKED
        table.add(4, claim, name, verdict, expected=recorded, why=differing)
    return bundle.path(name)


def corpus_difference(given: Path, made: Path) -> str:
    """In what two corpora differ; "" if only in the last digits of numbers."""
    import polars as pl
    from polars.testing import assert_frame_equal

    try:
        theirs, ours = pl.read_parquet(given), pl.read_parquet(made)
    except (OSError, pl.exceptions.PolarsError):
        return "no readable corpus"
    try:
        assert_frame_equal(theirs, ours, rel_tol=1e-9, abs_tol=1e-12)
    except AssertionError as error:
        return f"examples are others than are made here ({str(error).splitlines()[0]})"
    return ""


def _remake_checkpoint(
    bundle: Bundle, workshop: Workshop, model: str, table: Table, seconds: float
) -> None:
    """A base model that the workflow pretrained itself, pretrained again in the time left."""
    claim = "the base model comes out again"
    name = PATHS.checkpoint(model).removeprefix("results/")
    if not isinstance(bundle.study.models[model], EmbeddedModel):
        recorded = bundle.records[layout.record_name(name)]["outputs"][name]
        why = "converted here from this machine's copy"
        table.add(4, claim, name, REPRODUCED, expected=recorded, got=recorded, why=why)
        return
    made = workshop.path(f"level4/{name}")
    outcome = workshop.run(
        "make-checkpoint",
        ["--study", workshop.lock, "--model", model, "--out", made],
        seconds=seconds,
    )
    if outcome.code:
        why = f"zpdbench make-checkpoint: {outcome.message}"
        table.add(4, claim, name, NOT_CHECKED, why=why)
        return
    recorded = bundle.records[layout.record_name(name)]["outputs"][name]
    own = str(files.read_manifest(made)["digest"])
    if own == recorded:
        table.add(4, claim, name, REPRODUCED, expected=recorded, got=own, why="bit for bit")
    else:
        # Another processor adds in another order; how far weights may part by that nobody knows.
        why = "pretrained here its weights are not the same bit for bit"
        table.add(4, claim, name, NOT_CHECKED, expected=recorded, got=own, why=why)


def _folder(run: grid.Run) -> str:
    return PATHS.adapter(*run).removeprefix("results/")


def _manifest(bundle: Bundle, run: grid.Run) -> dict[str, Any]:
    found = reading.read_json(bundle.path(f"{_folder(run)}/MANIFEST.json"), 16 << 20)
    return dict(found)


def compare_weights(bundle: Bundle, run: grid.Run, made: Path, table: Table) -> bool:
    """Whether the weights came out bit for bit; adds the row."""
    name = "/".join(map(str, run))
    listed = _manifest(bundle, run)["files"]
    own = files.read_manifest(made)["files"]
    weights = sorted(layout.adapter_files(bundle.study))
    equal = all(own.get(n) == listed.get(n) for n in weights)
    if equal:
        why = f"{len(weights) // 2} steps, bit for bit"
        table.add(4, CLAIM, name, REPRODUCED, expected=files.digest(listed), why=why, core=True)
    else:
        why = "not the same bit for bit: its losses and its score tell"
        table.add(4, f"{CLAIM} bit for bit", name, NOT_CHECKED, why=why)
    return equal


FIXED_ORDERS = ("random", "easy_to_hard", "hard_to_easy")
_BY_SELECTION = ("diagnosis", "examples_used", "examples_cut", "tokens_cut")
"""Facts that follow from which examples were chosen, which is measured where order is no plan."""


def _planned(bundle: Bundle, run: grid.Run) -> bool:
    """Whether the examples of a run follow from its seed alone, on every machine."""
    return bundle.study.conditions[run.condition].order in FIXED_ORDERS


def compare_facts(bundle: Bundle, run: grid.Run, made: Path, table: Table, *, equal: bool) -> None:
    """What the run's manifest says of it, fact by fact.

    Args:
        equal: whether the weights are: then everything else must be too.
    """
    claim = "what its manifest says comes out again"
    name = f"{_folder(run)}/MANIFEST.json"
    there, here = _manifest(bundle, run), files.read_manifest(made)
    skipped = {"files", "digest"}
    if not equal:
        skipped |= {"diagnosis"} if _planned(bundle, run) else set(_BY_SELECTION)
    wrong = [k for k in sorted({*there, *here} - skipped) if there.get(k) != here.get(k)]
    for key in wrong:
        table.add(
            4, claim, name, DIFFERS, expected=f"{key} {there.get(key)}",
            got=f"{key} {here.get(key)}", why=f"{len(wrong)} facts differ",
        )  # fmt: skip
    if not wrong:
        table.add(4, claim, name, REPRODUCED, got=f"{len({*here} - skipped)} facts")


_SAME_STEPS = ("kind", "step", "learning_rate", "block")
_SAME_EXAMPLES = ("examples", "tokens", "targets", "flops")


def compare_trace(bundle: Bundle, run: grid.Run, made: Path, table: Table, *, equal: bool) -> None:
    """The run's trace: all of it if the weights are equal, else what does not depend on them."""
    import polars as pl

    name = f"{_folder(run)}/trace.parquet"
    claim = "its trace comes out again"
    if not bundle.included.traces:
        table.add(4, claim, name, NOT_CHECKED, why="the bundle was made without the traces")
        return
    try:
        there, here = (pl.read_parquet(p) for p in (bundle.path(name), made / "trace.parquet"))
        columns = here.columns
        if not equal:
            columns = [*_SAME_STEPS, *(_SAME_EXAMPLES if _planned(bundle, run) else ())]
        if there.schema != here.schema:
            raise BadFileError("columns of another kind")
        if there.height != here.height:
            raise BadFileError(f"{there.height} rows there, {here.height} here")
        wrong = [c for c in columns if not there[c].equals(here[c])]
    except (OSError, pl.exceptions.PolarsError, BadFileError) as error:
        table.add(4, claim, name, DIFFERS, why=str(error).splitlines()[0])
        return
    if wrong:
        table.add(4, claim, name, DIFFERS, got=", ".join(wrong), why="columns that differ")
    else:
        why = (
            "every value" if equal else f"of what does not depend on rounding: {', '.join(columns)}"
        )
        table.add(4, claim, name, REPRODUCED, got=f"{here.height} rows", why=why)
    if not equal:
        _compare_losses(bundle, run, made, table)


def _compare_losses(bundle: Bundle, run: grid.Run, made: Path, table: Table) -> None:
    name = "/".join(map(str, run))
    claim = f"its losses come out again within {100 * LOSS_MARGIN:g} %"
    try:
        there = losses(bundle.path(f"{_folder(run)}/trace.parquet"))
        here = losses(made / "trace.parquet")
    except BadFileError as error:
        table.add(4, claim, name, DIFFERS, why=str(error))
        return
    for kind in sorted(set(there) | set(here)):
        a, b = there.get(kind), here.get(kind)
        good = a is not None and b is not None and abs(a - b) <= LOSS_MARGIN * abs(a)
        table.add(
            4, claim, f"{name} {kind}", REPRODUCED if good else DIFFERS, expected=f"{a}",
            got=f"{b}", why="the weights are not the same bit for bit", core=True,
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
    claim = "its score comes out again"
    if not bundle.included.generations:
        why = "the bundle was made without the answers"
        table.add(4, claim, name, NOT_CHECKED, why=why, core=True)
        return
    chosen = level3.choose_items(bundle, workshop, draw)
    answers = rerun.ask(
        bundle, workshop, run, chosen, made, "level4/answers", seconds=max(seconds, 60.0)
    )
    if isinstance(answers, str):
        table.add(4, claim, name, NOT_CHECKED, why=answers, core=True)
        return
    level3.add_score(table, 4, name, rerun.counts(answers.frame))
