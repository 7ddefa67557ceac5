"""Level 2: the verdicts follow from the answers, and the items from their sources."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zpdbench import benchmarks, files, grid, sandbox
from zpdbench.artifacts import frames, layout
from zpdbench.artifacts.findings import DIFFERS, NOT_CHECKED, REPRODUCED, Table
from zpdbench.artifacts.level0 import Bundle
from zpdbench.artifacts.reading import BadFileError
from zpdbench.artifacts.workshop import NO_TIME, Outcome, Workshop
from zpdbench.errors import NoSandboxError
from zpdbench.progress import track
from zpdbench.study import Study

if TYPE_CHECKING:
    import polars as pl

KEY = ("step", "benchmark", "task", "item_id", "sample")
CLAIM = "the verdicts follow from the answers"
OUT_OF_TIME = ("timeout", "killed")
"""What a program ends with here or there for no reason of its own: the machine was slow or full."""
OPEN_SHARE = 0.01
"""More programs that end in time on one machine only are no accident; one always may."""
RETRIES = 2
MOST_ITEMS, MOST_ANSWERS = 2_000_000, 200_000_000
_SHOWN = 8
PATHS = layout.Paths("results")


def check(bundle: Bundle, workshop: Workshop, table: Table, *, workers: int) -> None:
    """Add level 2's rows.

    Args:
        workers: runs scored at once.
    """
    if not bundle.included.generations:
        why = "the bundle was made without them"
        table.add(2, CLAIM, "generations", NOT_CHECKED, why=why, core=True)
        return
    if bundle.included.items:
        items = _check_items(bundle, table)
        _remake_items(bundle, workshop, table)
    else:
        items = _make_items(bundle, workshop, table)
    if items is not None and _check_generations(bundle, items, table):
        _score_again(bundle, workshop, table, workers)


def item_path(bundle: Bundle, workshop: Workshop, benchmark: str) -> Path:
    """A benchmark's items: the bundle's, or those made here where it gives their hash only."""
    name = _name(PATHS.items(benchmark))
    return bundle.path(name) if bundle.included.items else workshop.path(name)


def programs_of(study: Study) -> list[str]:
    """The benchmarks whose answers are programs."""
    return [
        name
        for name, section in study.benchmarks.items()
        if benchmarks.load(section.definition or name).answer == "program"
    ]


def sandbox_problem() -> str:
    """Why programs cannot be contained on this machine; "" if they can."""
    try:
        with sandbox.Pool(1):
            return ""
    except NoSandboxError as error:
        return str(error)


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
            frame = frames.collect(frames.scan(bundle.path(name), frames.ITEMS, most=MOST_ITEMS))
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


def _make_items(bundle: Bundle, workshop: Workshop, table: Table) -> pl.DataFrame | None:
    """Items that the bundle gives by their hash only, made here; columns as `_check_items` gives.

    That they are the right ones the answers tell, each of which names its item's digest.
    """
    import polars as pl

    claim = "the items are those that the configuration asks for"
    kept = []
    for benchmark in bundle.study.benchmarks:
        name = _name(PATHS.items(benchmark))
        made = workshop.path(name)
        outcome = workshop.run(
            "make-items", ["--study", workshop.lock, "--benchmark", benchmark, "--out", made]
        )
        if outcome.code:
            why = f"the bundle gives their hash only, and they cannot be made: {outcome.message}"
            table.add(2, claim, name, NOT_CHECKED, why=why, core=True)
            continue
        frame = frames.collect(frames.scan(made, frames.ITEMS))
        same = bundle.records[layout.record_name(name)]["outputs"][name] == files.sha256_file(made)
        why = "byte for byte" if same else "bytes differ; the answers name each item's digest"
        table.add(2, claim, name, REPRODUCED, got=f"{frame.height} items", why=why)
        kept.append(frame.select("benchmark", "item_id", "task", "digest", "interim"))
    return pl.concat(kept) if len(kept) == len(bundle.study.benchmarks) else None


def _remake_items(bundle: Bundle, workshop: Workshop, table: Table) -> None:
    claim = "the items are those that the configuration asks for"
    for benchmark, section in bundle.study.benchmarks.items():
        name = _name(PATHS.items(benchmark))
        if section.source != "embedded" and "ZPDBENCH_DATA" not in workshop.environment():
            why = "its authors' files are needed: give --data FOLDER"
            table.add(2, claim, name, NOT_CHECKED, why=why, core=True)
            continue
        made = workshop.path(name)
        outcome = workshop.run(
            "make-items", ["--study", workshop.lock, "--benchmark", benchmark, "--out", made]
        )
        if outcome.code:
            # Files that are not there say nothing about the bundle; generated items need none.
            known = section.source == "embedded" and outcome.code != NO_TIME
            verdict = DIFFERS if known else NOT_CHECKED
            table.add(2, claim, name, verdict, why=outcome.message, core=True)
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
        owed = _count_answers(bundle, members, items)
        if owed > MOST_ANSWERS:
            table.add(
                2, claim, name, DIFFERS, got=f"{owed} answers", why="more than can be looked at"
            )
            good = False
            continue
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


def _count_answers(bundle: Bundle, members: list[grid.Run], items: pl.DataFrame) -> int:
    """How many answers a chunk owes, counted before any is listed."""
    study = bundle.study
    last = interim = 0
    for (name,), part in items.group_by(["benchmark"]):
        samples = study.benchmarks[str(name)].samples
        last += samples * part.height
        interim += samples * int(part["interim"].sum())
    tuned = sum(run.condition != grid.BASE for run in members)
    return len(members) * last + tuned * (len(study.served_steps) - 1) * interim


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
    """Judge every run's answers here, and compare verdict by verdict."""
    programs = programs_of(workshop.study)
    problem = sandbox_problem() if programs else ""
    items = [item_path(bundle, workshop, b) for b in bundle.study.benchmarks]

    def judge(run: grid.Run) -> Judged:
        chunk = grid.chunk_of(run, bundle.study.generations.group_by)
        made = workshop.path(_name(PATHS.scores(*run)))
        arguments = [
            *("--study", workshop.lock, "--model", run.model, "--condition", run.condition),
            *("--seed", str(run.seed), "--items", *items, "--out", made),
            *("--generations", bundle.path(_name(PATHS.generations(run.model, chunk)))),
        ]
        lacking = problem
        outcome = workshop.run("score-run", [*arguments, *(["--skip-programs"] if lacking else [])])
        if outcome.code == NoSandboxError.exit_code:
            lacking = outcome.message
            outcome = workshop.run("score-run", [*arguments, "--skip-programs"])
        compared = None
        if not outcome.code:
            given = bundle.path(_name(PATHS.scores(*run)))
            compared = compare(given, made, programs, left_out=bool(lacking))
        return Judged(run, outcome, lacking, compared)

    runs = bundle.study.all_runs
    open_programs = all_programs = 0
    with track("level 2", len(runs), "runs") as progress, ThreadPoolExecutor(workers) as pool:
        results = []
        for judged in pool.map(judge, runs):
            results.append(judged)
            progress.advance(1, "/".join(map(str, judged.run)))
    for judged in results:
        for _ in range(RETRIES):
            if judged.compared is None or not judged.compared.open or judged.compared.wrong:
                break
            # Verdicts are remembered, time-outs are not: only those run again, nothing beside them.
            judged = judge(judged.run)
        _add(judged, programs, table)
        if judged.compared is not None:
            open_programs += len(judged.compared.open)
            all_programs += judged.compared.programs
    if open_programs > max(1, OPEN_SHARE * all_programs):
        why = "programs ended in time on one of the two machines only: more than chance gives"
        got = f"{open_programs} of {all_programs}"
        table.add(2, CLAIM, "programs of all runs", DIFFERS, got=got, why=why)


@dataclass(frozen=True)
class Compared:
    """One run's verdicts here beside the bundle's.

    Attributes:
        verdicts: how many there are, programs among them if they were run.
        programs: how many of them are of programs.
        identical: whether the files have the same bytes.
        wrong: those that differ, as (where, expected, got).
        open: programs that ended in time on one of the two machines only.
    """

    verdicts: int
    programs: int = 0
    identical: bool = False
    wrong: tuple[tuple[str, str, str], ...] = ()
    open: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged:
    """How one run's answers were judged here; `lacking` says why its programs were not."""

    run: grid.Run
    outcome: Outcome
    lacking: str
    compared: Compared | None


def _add(judged: Judged, programs: Sequence[str], table: Table) -> None:
    name, compared = _name(PATHS.scores(*judged.run)), judged.compared
    if compared is None:
        # Who has no time left knows nothing; every other failure is the files'.
        verdict = NOT_CHECKED if judged.outcome.code == NO_TIME else DIFFERS
        table.add(2, CLAIM, name, verdict, why=judged.outcome.message, core=True)
        return
    for where, expected, got in compared.wrong[:_SHOWN]:
        why = f"{len(compared.wrong)} verdicts differ"
        place = f"{name} {where}".strip()
        table.add(2, CLAIM, place, DIFFERS, expected=expected, got=got, why=why)
    if len(compared.open) > max(1, OPEN_SHARE * compared.programs):
        why = "programs ended in time on one of the two machines only: more than chance gives"
        got = f"{len(compared.open)} of {compared.programs}"
        table.add(2, CLAIM, name, DIFFERS, got=got, why=why)
    elif compared.open:
        why = "ended in time on one of the two machines only: " + ", ".join(compared.open[:3])
        got = f"{compared.verdicts - len(compared.open)} of {compared.verdicts} verdicts"
        table.add(2, CLAIM, name, NOT_CHECKED, got=got, why=why, core=True)
    elif not compared.wrong:
        why = "byte for byte" if compared.identical else "every value; bytes differ"
        got = f"{compared.verdicts} verdicts"
        if judged.lacking and programs:
            table.add(2, f"{CLAIM}, programs left out", name, REPRODUCED, got=got)
            why = f"no program of {', '.join(programs)} could be run here: {judged.lacking}"
            table.add(2, CLAIM, name, NOT_CHECKED, why=why, core=True)
        else:
            table.add(2, CLAIM, name, REPRODUCED, got=got, why=why)


def compare(given: Path, made: Path, programs: Sequence[str], *, left_out: bool) -> Compared:
    """Compare two score files.

    Args:
        programs: benchmarks whose answers are programs.
        left_out: whether those were not judged here, and so are not compared.
    """
    import polars as pl

    identical = given.read_bytes() == made.read_bytes()
    try:
        theirs = frames.collect(frames.scan(given, frames.SCORES))
        ours = theirs if identical else frames.collect(frames.scan(made, frames.SCORES))
    except BadFileError as error:
        return Compared(0, wrong=(("", "a score file", str(error)),))
    if left_out:
        theirs = theirs.filter(~pl.col("benchmark").is_in(list(programs)))
    count = int(theirs["benchmark"].is_in(list(programs)).sum())
    if identical or theirs.equals(ours):
        return Compared(ours.height, count, identical)
    if theirs.select(KEY).is_duplicated().any():
        return Compared(ours.height, count, wrong=(("", "one verdict", "a verdict twice"),))
    both = theirs.join(ours, on=KEY, how="full", suffix="_here", coalesce=True)
    values = [c for c in frames.SCORES if c not in KEY]
    equal = {c: pl.col(c).eq_missing(pl.col(f"{c}_here")) for c in values}
    differing = both.filter(~pl.all_horizontal(equal.values()))
    excusable = _ended_in_time_once(programs) & pl.all_horizontal(
        [e for c, e in equal.items() if c not in ("correct", "status")]
    )
    wrong = differing.filter(~excusable.fill_null(False))
    shown = []
    for row in wrong.head(_SHOWN).iter_rows(named=True):
        first = next(c for c in values if row[c] != row[f"{c}_here"])
        where = f"step {row['step']} {row['benchmark']} {row['item_id']}/{row['sample']}"
        shown.append((where, f"{first} {row[first]}", f"{first} {row[f'{first}_here']}"))
    shown += [("", "", "")] * (wrong.height - len(shown))
    ids = differing.filter(excusable.fill_null(False))["item_id"].to_list()
    return Compared(ours.height, count, False, tuple(shown), tuple(ids))


def _ended_in_time_once(programs: Sequence[str]) -> pl.Expr:
    """Programs that ran out of time on one machine, with the verdicts that each side's status has.

    A verdict that does not fit its own status is no accident of time.
    """
    import polars as pl

    there, here = pl.col("status"), pl.col("status_here")
    known = there.is_in(sandbox.STATUSES) & here.is_in(sandbox.STATUSES)
    once = there.is_in(OUT_OF_TIME) | here.is_in(OUT_OF_TIME)
    fits = pl.col("correct") == (there == "passed").cast(pl.Float64)
    return pl.col("benchmark").is_in(list(programs)) & known & once & fits
