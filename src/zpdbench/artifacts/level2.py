"""Level 2: the verdicts follow from the answers, and the items from their sources."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zpdbench import files, grid
from zpdbench.artifacts import frames, layout
from zpdbench.artifacts.findings import DIFFERS, NOT_CHECKED, REPRODUCED, Table
from zpdbench.artifacts.level0 import Bundle
from zpdbench.artifacts.reading import BadFileError
from zpdbench.artifacts.workshop import Workshop
from zpdbench.progress import track

if TYPE_CHECKING:
    import polars as pl

KEY = ("step", "benchmark", "task", "item_id", "sample")
_JUDGED = ("passed", "failed")
_SHOWN = 8
PATHS = layout.Paths("results")


def check(bundle: Bundle, workshop: Workshop, table: Table, *, workers: int) -> None:
    """Add level 2's rows.

    Args:
        workers: runs scored at once.
    """
    if not bundle.included.generations:
        table.add(
            2, "the verdicts follow from the answers", "generations", NOT_CHECKED,
            why="the bundle was made without them",
        )  # fmt: skip
        return
    items = _check_items(bundle, table)
    if items is None:
        return
    _remake_items(bundle, workshop, table)
    if _check_generations(bundle, items, table):
        _score_again(bundle, workshop, table, workers)


def item_path(bundle: Bundle, benchmark: str) -> Path:
    """A benchmark's items."""
    return bundle.path(_name(PATHS.items(benchmark)))


def _name(path: str) -> str:
    return path.removeprefix("results/")


def _check_items(bundle: Bundle, table: Table) -> pl.DataFrame | None:
    """Each item has the digest of what it says; returns benchmark item_id task digest interim."""
    import polars as pl

    claim = "each item has the digest of its prompt, choices, answer and document"
    kept = []
    for benchmark in bundle.study.benchmarks:
        name = _name(PATHS.items(benchmark))
        try:
            frame = frames.collect(frames.scan(bundle.path(name), frames.ITEMS))
        except BadFileError as error:
            table.add(2, claim, name, DIFFERS, why=str(error))
            return None
        wrong = [row["item_id"] for row in frame.iter_rows(named=True) if _item_digest(row) is None]
        strange = frame.filter(pl.col("benchmark") != benchmark).height
        double = frame.height - frame["item_id"].n_unique()
        if wrong or strange or double:
            why = f"{len(wrong)} with another digest, {strange} of others, {double} ids twice"
            got = ", ".join(wrong[:3])
            table.add(2, claim, name, DIFFERS, got=got, why=why)
            return None
        table.add(2, claim, name, REPRODUCED, got=f"{frame.height} items")
        kept.append(frame.select("benchmark", "item_id", "task", "digest", "interim"))
    return pl.concat(kept)


def _item_digest(row: dict[str, Any]) -> str | None:
    """The item's digest where it is that of its fields (benchmarks.items), else None."""
    fields = {k: v for k, v in row.items() if k not in ("benchmark", "interim", "digest")}
    try:
        return row["digest"] if files.digest(fields) == row["digest"] else None
    except (TypeError, ValueError):
        return None


def _remake_items(bundle: Bundle, workshop: Workshop, table: Table) -> None:
    claim = "the items are those that the configuration asks for"
    for benchmark, section in bundle.study.benchmarks.items():
        name = _name(PATHS.items(benchmark))
        if section.source != "embedded" and "ZPDBENCH_DATA" not in workshop.environment():
            why = "its authors' files are needed: give --data FOLDER"
            table.add(2, claim, name, NOT_CHECKED, why=why)
            continue
        made = workshop.path(name)
        outcome = workshop.run(
            "make-items", ["--study", workshop.lock, "--benchmark", benchmark, "--out", made]
        )
        if outcome.code:
            # Files that are not there say nothing about the bundle; generated items need none.
            verdict = DIFFERS if section.source == "embedded" else NOT_CHECKED
            table.add(2, claim, name, verdict, why=outcome.message)
            continue
        try:
            given, own = (
                frames.collect(frames.scan(p, frames.ITEMS).select("item_id", "digest", "interim"))
                for p in (bundle.path(name), made)
            )
        except BadFileError as error:
            table.add(2, claim, name, DIFFERS, why=str(error))
            continue
        if given.equals(own):
            table.add(2, claim, name, REPRODUCED, got=f"{own.height} items")
        else:
            missing = sorted(set(given.rows()) ^ set(own.rows()))
            got = ", ".join(str(r[0]) for r in missing[:3])
            why = f"{len(missing)} items are others than are made here"
            table.add(2, claim, name, DIFFERS, got=got, why=why)


def _check_generations(bundle: Bundle, items: pl.DataFrame, table: Table) -> bool:
    """Every chunk holds each answer that its runs owe once, to these items, by these adapters."""
    claim = "the answers are those that the grid asks for"
    good = True
    for (model, chunk), members in bundle.study.chunks.items():
        name = _name(PATHS.generations(model, chunk))
        due = expected_answers(bundle, members, items)
        try:
            frame = frames.scan(bundle.path(name), frames.GENERATIONS, rows=due.height)
            given = frames.collect(frame.select(*due.columns, "engine"))
        except BadFileError as error:
            table.add(2, claim, name, DIFFERS, why=str(error))
            good = False
            continue
        odd = given.join(due, on=due.columns, how="anti", nulls_equal=True)
        lacking = due.join(given, on=due.columns, how="anti", nulls_equal=True)
        engines = given["engine"].unique().sort().to_list()
        if odd.height or lacking.height or len(engines) != 1:
            first = (odd if odd.height else lacking).head(1).to_dicts()
            got = files.canonical_json(first[0]) if first else ", ".join(engines)
            why = f"{odd.height} answers that nobody asked for, {lacking.height} missing"
            table.add(2, claim, name, DIFFERS, got=got, why=why)
            good = False
        else:
            why = f"engine {engines[0]}"
            table.add(2, claim, name, REPRODUCED, got=f"{due.height} answers", why=why)
    return good


def expected_answers(bundle: Bundle, members: list[grid.Run], items: pl.DataFrame) -> pl.DataFrame:
    """The answers that a chunk owes, with the adapter that gives each and the item's digest."""
    import polars as pl

    study = bundle.study
    samples = pl.DataFrame(
        {
            "benchmark": [b for b, s in study.benchmarks.items() for _ in range(s.samples)],
            "sample": [i for s in study.benchmarks.values() for i in range(s.samples)],
        },
        schema={"benchmark": pl.String, "sample": pl.Int64},
    )
    asked = items.join(samples, on="benchmark")
    parts = []
    for run in members:
        steps = [0] if run.condition == grid.BASE else study.served_steps
        for step in steps:
            part = asked if step == steps[-1] else asked.filter(pl.col("interim"))
            parts.append(
                part.select(
                    pl.lit(run.model).alias("model"),
                    pl.lit(run.condition).alias("condition"),
                    pl.lit(run.seed, pl.Int64).alias("seed"),
                    pl.lit(step, pl.Int64).alias("step"),
                    "benchmark",
                    "task",
                    "item_id",
                    "sample",
                    pl.lit(adapter_digest(bundle, run, step)).alias("adapter"),
                    pl.col("digest").alias("items"),
                )
            )
    return pl.concat(parts)


def adapter_digest(bundle: Bundle, run: grid.Run, step: int) -> str:
    """What answers call an adapter: the digest of its two files, as its run's manifest has them."""
    from zpdbench.artifacts import reading

    if run.condition == grid.BASE:
        return ""
    folder = _name(PATHS.adapter(*run))
    listed = reading.read_json(bundle.path(f"{folder}/MANIFEST.json"), 16 << 20)["files"]
    names = bundle.study.weight_files
    return files.digest({n: listed.get(f"{grid.adapter_step(step)}/{n}") for n in names})


def _score_again(bundle: Bundle, workshop: Workshop, table: Table, workers: int) -> None:
    items = [item_path(bundle, b) for b in bundle.study.benchmarks]

    def score(run: grid.Run) -> tuple[grid.Run, Path, str]:
        chunk = grid.chunk_of(run, bundle.study.generations.group_by)
        made = workshop.path(_name(PATHS.scores(*run)))
        outcome = workshop.run(
            "score-run",
            [
                *("--study", workshop.lock, "--model", run.model, "--condition", run.condition),
                *("--seed", str(run.seed), "--items", *items, "--out", made),
                *("--generations", bundle.path(_name(PATHS.generations(run.model, chunk)))),
            ],
        )
        return run, made, outcome.message if outcome.code else ""

    runs = bundle.study.all_runs
    with track("level 2", len(runs), "runs") as progress, ThreadPoolExecutor(workers) as pool:
        for run, made, complaint in pool.map(score, runs):
            name = _name(PATHS.scores(*run))
            claim = "the verdicts follow from the answers"
            if complaint:
                # A machine without a sandbox cannot judge programs: that is no fault of the bundle.
                verdict = NOT_CHECKED if "sandbox" in complaint.lower() else DIFFERS
                table.add(2, claim, name, verdict, why=complaint)
            else:
                _compare(bundle.path(name), made, name, table)
            progress.advance(1, "/".join(map(str, run)))


def _compare(given: Path, made: Path, name: str, table: Table) -> None:
    import polars as pl

    claim = "the verdicts follow from the answers"
    try:
        theirs = frames.collect(frames.scan(given, frames.SCORES))
        ours = frames.collect(frames.scan(made, frames.SCORES))
    except BadFileError as error:
        table.add(2, claim, name, DIFFERS, why=str(error))
        return
    identical = given.read_bytes() == made.read_bytes()
    if identical or theirs.equals(ours):
        why = "byte for byte" if identical else "every value; bytes differ"
        table.add(2, claim, name, REPRODUCED, got=f"{ours.height} verdicts", why=why)
        return
    if theirs.select(KEY).is_duplicated().any():
        table.add(2, claim, name, DIFFERS, why="a verdict is there twice")
        return
    both = theirs.join(ours, on=KEY, how="full", suffix="_here", coalesce=True)
    values = [c for c in frames.SCORES if c not in KEY]
    equal = pl.all_horizontal(pl.col(c).eq_missing(pl.col(f"{c}_here")) for c in values)
    differing = both.filter(~equal)
    # A program that was judged there and ran out of time or was killed here only.
    here_only = pl.col("status").is_in(_JUDGED) & ~pl.col("status_here").is_in(
        [*_JUDGED, "ok", "no_answer", "truncated", "tie"]
    )
    open_rows = differing.filter(here_only.fill_null(False))
    wrong = differing.filter(~here_only.fill_null(False))
    for row in wrong.head(_SHOWN).iter_rows(named=True):
        first = next(c for c in values if row[c] != row[f"{c}_here"])
        where = f"{name} step {row['step']} {row['benchmark']} {row['item_id']}/{row['sample']}"
        table.add(
            2, claim, where, DIFFERS, expected=f"{first} {row[first]}",
            got=f"{first} {row[f'{first}_here']}", why=f"{wrong.height} verdicts differ",
        )  # fmt: skip
    if open_rows.height:
        shown = ", ".join(open_rows["item_id"].head(3).to_list())
        why = f"{open_rows.height} programs ended in time there only: {shown}"
        table.add(2, claim, name, NOT_CHECKED, why=why)
    if not wrong.height:
        got = f"{both.height - open_rows.height} verdicts"
        table.add(2, claim, name, REPRODUCED, got=got, why="every value that could be judged")
