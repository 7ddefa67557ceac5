"""`zpdbench score-run`: one run's answers to verdicts, a row an item, sample and step."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zpdbench import files, grid
from zpdbench import study as studies
from zpdbench.benchmarks import Definition, answers, items, load
from zpdbench.benchmarks.answers import Verdict
from zpdbench.errors import UserError
from zpdbench.scores import programs

if TYPE_CHECKING:
    import polars as pl

Row = dict[str, Any]
Documents = dict[tuple[str, str], Row]

GENERATION_COLUMNS = (
    "step",
    "benchmark",
    "item_id",
    "sample",
    "text",
    "finish_reason",
    "logprobs",
    "items",
)
COLUMNS = (
    *("model", "condition", "seed", "step", "benchmark", "task", "item_id", "sample"),
    *("prediction", "gold", "correct", "correct_flexible", "correct_norm", "confidence"),
    *("status", "finish_reason", "extracted", "template"),
)


@dataclass(frozen=True)
class Asked:
    """A benchmark as a study asks it."""

    section: studies.Benchmark
    definition: Definition
    items: dict[str, Row]

    @property
    def votes(self) -> bool:
        """Whether an item's samples are put to the vote (self-consistency)."""
        return self.section.self_consistency


def main(args: argparse.Namespace) -> None:
    """Write the verdicts of run (`args.model`, `args.condition`, `args.seed`) to `args.out`.

    A step at a time: a run of full benchmarks has hundreds of thousands of answers.
    """
    study = studies.load(args.study)
    run = grid.Run(args.model, args.condition, int(args.seed))
    asked = read_items(study, args.items)
    if args.skip_programs:
        asked = {n: one for n, one in asked.items() if one.definition.answer != "program"}
    skipped = set(study.benchmarks) - set(asked)
    steps = read_steps(args.generations, run)
    docs = documents(asked)
    statuses, judged = judge_programs(
        docs,
        read_generations(args.generations, run, only=programs_of(asked)) if steps else [],
        workers=getattr(args, "workers", None) or 1,
        sandbox=study.sandbox,
        cache=programs.cache_folder(),
    )
    parts = []
    for step in sorted({*steps, *steps_of(study, run)}):
        given = read_generations(args.generations, run, step=step, skipped=skipped)
        check_complete(study, run, asked, given, args.generations, step)
        rows = verdicts(asked, given, docs, statuses)
        parts.append(table(run, rows))
    with programs.recorded(args.out, judged):
        write(args.out, parts)
    for name in asked:
        last = [r for r in rows if r["benchmark"] == name]
        mean = sum(r["correct"] for r in last) / len(last)
        print(f"{'/'.join(map(str, run))} step {rows[-1]['step']} {name}: {100 * mean:.1f} %")


def read_items(study: studies.Study, paths: Sequence[str]) -> dict[str, Asked]:
    """Benchmark -> how it is asked, in the study's order.

    Raises:
        UserError: a file is missing or unreadable, or its benchmark is not the study's.
    """
    by_name: dict[str, dict[str, Row]] = {}
    for path in paths:
        rows = items.read(path)
        if not rows:
            raise UserError("no items in it", where=str(path), fix="delete it")
        by_name[rows[0]["benchmark"]] = {row["item_id"]: row for row in rows}
    if set(by_name) != set(study.benchmarks):
        name = sorted(set(by_name) ^ set(study.benchmarks))[0]
        state = "no items file of" if name in study.benchmarks else "not one of the study's"
        raise UserError(f"{state} benchmark {name}", fix="give --items of every benchmark")
    return {
        name: Asked(section, load(section.definition or name), by_name[name])
        for name, section in study.benchmarks.items()
    }


def _scan(path: str, run: grid.Run) -> pl.LazyFrame:
    import polars as pl

    frame = pl.scan_parquet(path)
    names = frame.collect_schema().names()
    if missing := [c for c in ("model", *GENERATION_COLUMNS) if c not in names]:
        raise UserError(f"no column {missing[0]!r}", where=str(path), fix="delete it")
    return frame.filter(
        (pl.col("model") == run.model)
        & (pl.col("condition") == run.condition)
        & (pl.col("seed") == run.seed)
    ).select(GENERATION_COLUMNS)


@contextlib.contextmanager
def _readable(path: str) -> Iterator[None]:
    import polars as pl

    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(
            "no readable generations", where=str(path), fix="delete the file; it is made again"
        ) from error


def read_steps(path: str, run: grid.Run) -> list[int]:
    """The steps at which a run answered, by its chunk's file.

    Raises:
        UserError: missing, truncated, a column or the run is not in it.
    """
    with _readable(path):
        found = _scan(path, run).select("step").unique().collect().to_series().to_list()
    if not found:
        raise UserError(
            f"no answers of {'/'.join(map(str, run))} in it",
            where=str(path),
            fix="delete the file; it is made again",
        )
    return sorted(found)


def read_generations(
    path: str,
    run: grid.Run,
    *,
    step: int | None = None,
    only: Collection[str] | None = None,
    skipped: Collection[str] = (),
) -> list[Row]:
    """One run's answers out of its chunk's file.

    Args:
        step: of this step only.
        only: of these benchmarks only.
        skipped: not of these benchmarks.

    Raises:
        UserError: missing, truncated, or a column is not in it.
    """
    import polars as pl

    with _readable(path):
        frame = _scan(path, run)
        if step is not None:
            frame = frame.filter(pl.col("step") == step)
        if only is not None:
            frame = frame.filter(pl.col("benchmark").is_in(list(only)))
        if skipped:
            frame = frame.filter(~pl.col("benchmark").is_in(list(skipped)))
        return frame.collect().to_dicts()


def steps_of(study: studies.Study, run: grid.Run) -> list[int]:
    """The steps at which a run is asked."""
    return [0] if run.condition == grid.BASE else study.served_steps


def check_complete(
    study: studies.Study,
    run: grid.Run,
    asked: dict[str, Asked],
    given: Sequence[Row],
    path: str,
    step: int,
) -> None:
    """Every item that must be answered at a step is, as often as it must be, and as it now reads.

    Raises:
        UserError: the first answer that is missing, doubled, unknown or to another prompt.
    """
    fix = "delete the file; what is missing is generated again"
    seen = set()
    for row in given:
        name, item_id = row["benchmark"], row["item_id"]
        what = f"step {row['step']}, {name} item {item_id!r}"
        item = asked[name].items.get(item_id) if name in asked else None
        if item is None:
            raise UserError(f"{what}: unknown item", where=path, fix=fix)
        if row["items"] != item["digest"]:
            raise UserError(f"{what}: the item has changed since", where=path, fix=fix)
        key = (row["step"], name, item_id, row["sample"])
        if key in seen:
            raise UserError(f"{what}, sample {row['sample']}: given twice", where=path, fix=fix)
        seen.add(key)
    steps = steps_of(study, run)
    if step not in steps:
        return
    for name, one in asked.items():
        for item_id, item in one.items.items():
            if step != steps[-1] and not item["interim"]:
                continue
            for sample in range(one.section.samples):
                if (step, name, item_id, sample) not in seen:
                    raise UserError(
                        f"step {step}, {name} item {item_id!r}: no sample {sample}",
                        where=path,
                        fix=fix,
                    )


def programs_of(asked: dict[str, Asked]) -> list[str]:
    """The benchmarks whose answers are programs."""
    return [name for name, one in asked.items() if one.definition.answer == "program"]


def documents(asked: dict[str, Asked]) -> Documents:
    """(benchmark, item) -> the document that its program is tested by."""
    return {
        (name, item_id): json.loads(item["doc"])
        for name in programs_of(asked)
        for item_id, item in asked[name].items.items()
    }


def judge_programs(
    docs: Documents,
    given: Sequence[Row],
    *,
    workers: int,
    sandbox: studies.Sandbox,
    cache: Path | None,
) -> tuple[dict[str, str], list[programs.Judged]]:
    """The status of every program among the answers, by its key; and how each was judged.

    Raises:
        NoSandboxError: there are programs, and nothing here to run them in.
    """
    columns = ("step", "benchmark", "item_id", "sample")
    where, asked = [], []
    for row in sorted(given, key=lambda r: tuple(r[c] for c in columns)):
        if (key := (row["benchmark"], row["item_id"])) in docs:
            where.append({c: row[c] for c in columns})
            asked.append(programs.program(docs[key], row["text"]))
    outcomes = programs.judge(
        asked,
        [programs.program(doc, doc["canonical_solution"]) for doc in docs.values()],
        workers=workers,
        seconds=sandbox.seconds,
        waive=sandbox.waive,
        cache=cache,
    )
    judged: list[programs.Judged] = [
        (place, outcomes[p.key]) for place, p in zip(where, asked, strict=True)
    ]
    return {key: outcome.status for key, outcome in outcomes.items()}, judged


def verdicts(
    asked: dict[str, Asked], given: Sequence[Row], docs: Documents, statuses: Mapping[str, str]
) -> list[Row]:
    """Verdicts on answers, ordered by step, benchmark, item and sample."""
    place = {
        (name, item_id): (b, i)
        for b, (name, one) in enumerate(asked.items())
        for i, item_id in enumerate(one.items)
    }
    given = sorted(
        given, key=lambda r: (r["step"], *place[r["benchmark"], r["item_id"]], r["sample"])
    )
    rows = []
    for row in given:
        one = asked[row["benchmark"]]
        item = one.items[row["item_id"]]
        doc = docs.get((row["benchmark"], row["item_id"]))
        if doc is not None:
            status = statuses[programs.program(doc, row["text"]).key]
            verdict = Verdict(float(status == "passed"), status, "")
        else:
            verdict = _judge(one.definition, item, row)
        rows.append(
            {
                **{k: row[k] for k in ("step", "benchmark", "item_id", "sample")},
                "task": item["task"],
                "prediction": verdict.prediction,
                "gold": item["gold"],
                "correct": verdict.correct,
                "correct_flexible": verdict.correct_flexible,
                "correct_norm": verdict.correct_norm,
                "confidence": verdict.confidence,
                "status": verdict.status,
                "finish_reason": row["finish_reason"],
                "extracted": verdict.extracted,
                "template": item["template"],
                "flexible": answers.flexible_number(row["text"]) if one.votes else "",
            }
        )
    voting = {name for name, one in asked.items() if one.votes}
    return vote(rows, voting) if voting else rows


def _judge(definition: Definition, item: Row, row: Row) -> Verdict:
    if definition.kind == "choice":
        try:
            return answers.judge_choice(
                row["logprobs"],
                item["gold"],
                items.choice_texts(item),
                norm="acc_norm" in definition.task_metrics(item["task"]),
            )
        except ValueError as error:
            raise UserError(
                f"{row['benchmark']} item {row['item_id']!r}: {error}",
                fix="delete the generations file; it is made again",
            ) from error
    verdict = answers.judge_of(definition.answer)(row["text"], item["gold"])
    if verdict.status == "no_answer" and row["finish_reason"] == "length":
        return Verdict(0.0, "truncated", "", verdict.correct_flexible)
    return verdict


def vote(rows: Sequence[Row], benchmarks: set[str]) -> list[Row]:
    """One row an item instead of one a sample, by majority, for those benchmarks.

    Raises:
        UserError: a benchmark whose answers cannot be compared (programs, choices).
    """
    ballots: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        sample = () if row["benchmark"] in benchmarks else (row["sample"],)
        ballots.setdefault((row["step"], row["benchmark"], row["item_id"], *sample), []).append(row)
    result = []
    for members in ballots.values():
        first = members[0]
        if first["benchmark"] not in benchmarks:
            result.append(first)
            continue
        if first["correct_flexible"] is None:
            raise UserError(
                f"benchmarks.{first['benchmark']}.self_consistency: its answers cannot be counted",
                fix="only for benchmarks whose answer is a number",
            )
        winner = answers.majority(r["prediction"] for r in members)
        chosen = next((r for r in members if r["prediction"] == winner), first)
        flexible = float(answers.majority(r["flexible"] for r in members) == first["gold"])
        result.append({**chosen, "sample": 0, "correct_flexible": flexible})
    return result


def table(run: grid.Run, rows: Sequence[Row]) -> pl.DataFrame:
    """Verdicts as the score file's columns."""
    import polars as pl

    text = dict.fromkeys(COLUMNS, pl.String)
    schema: dict[str, Any] = {
        **text,
        **dict.fromkeys(("seed", "step", "sample"), pl.Int64),
        **dict.fromkeys(("correct", "correct_flexible", "correct_norm", "confidence"), pl.Float64),
    }
    named = dict(zip(("model", "condition", "seed"), run, strict=True))
    return pl.DataFrame(
        [{**named, **{c: row[c] for c in COLUMNS if c in row}} for row in rows], schema=schema
    )


def write(path: Any, parts: Sequence[pl.DataFrame]) -> None:
    """Write verdicts as Parquet: equal verdicts give equal bytes."""
    import polars as pl

    frame = pl.concat(parts, rechunk=True)
    with files.atomic_path(path) as temporary:
        frame.write_parquet(temporary, compression="zstd", statistics=False)
