"""`zpdbench score BENCHMARK`: judge published generations against a benchmark's own file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zpdbench import benchmarks, files
from zpdbench.benchmarks import answers, items, loaders
from zpdbench.benchmarks.answers import Verdict
from zpdbench.benchmarks.definition import Definition
from zpdbench.errors import UserError
from zpdbench.scores import programs

COLUMNS = ("item_id", "sample", "correct", "status", "extracted")
SHOWN = 60


@dataclass(frozen=True)
class Question:
    """What an answer is judged by: the document, its task and its gold."""

    task: str
    doc: dict[str, Any]
    gold: str


@dataclass(frozen=True)
class Answer:
    """One line of the generations."""

    item_id: str
    sample: int
    text: str


def main(args: argparse.Namespace) -> None:
    """Write the verdicts on `args.generations` to `args.out`."""
    definition, questions = read_questions(args.benchmark, args.items)
    given = read_generations(
        args.generations, questions, allow_missing=getattr(args, "allow_missing", False)
    )
    verdicts, judged = judge(
        definition,
        questions,
        given,
        workers=getattr(args, "workers", None) or programs.workers_here(),
        cache=programs.cache_folder(),
        waive=getattr(args, "waive", None) or (),
    )
    flexible = all(v.correct_flexible is not None for v in verdicts)
    with programs.recorded(args.out, judged):
        files.write_tsv(
            args.out,
            (*COLUMNS, "correct_flexible") if flexible else COLUMNS,
            (
                (a.item_id, a.sample, int(v.correct), v.status, v.extracted)
                + ((int(v.correct_flexible or 0),) if flexible else ())
                for a, v in zip(given, verdicts, strict=True)
            ),
        )
    print(summary(args.benchmark, given, verdicts))


def read_questions(benchmark: str, path: str) -> tuple[Definition, dict[str, Question]]:
    """A benchmark's own file: its definition, and item_id -> question in the file's order.

    Raises:
        UserError: unknown benchmark; file missing or malformed.
    """
    definition, task = benchmarks.find(benchmark)
    if task is None and not definition.open:
        raise UserError(
            f"{benchmark} has a file a task", fix=f"one of {', '.join(definition.tasks)}"
        )
    questions: dict[str, Question] = {}
    for name, docs in loaders.load_file(definition, path, task).items():
        for row, doc in enumerate(docs):
            # A task's own file needs no task in its ids: they are its rows.
            own = "task_id" in doc or definition.open
            item_id = items.item_id(definition, name, row, doc) if own else str(row)
            try:
                gold = items.gold_of(definition, name, doc)
            except (KeyError, ValueError) as error:
                raise UserError(
                    f"item {item_id}: {error}", where=str(path), fix="mend the item"
                ) from error
            questions[item_id] = Question(name, doc, gold)
    return definition, questions


def read_generations(
    path: str, questions: dict[str, Question], *, allow_missing: bool = False
) -> list[Answer]:
    """The answers, in the order of the benchmark's file and then of the samples.

    Raises:
        UserError: a malformed line, an unknown item, a sample given twice or one missing, each
            with the line or item that it is about.
    """
    lines: dict[tuple[str, int], int] = {}
    found: dict[tuple[str, int], Answer] = {}
    for number, answer in _answers(Path(path)):
        where = f"{path}:{number}"
        if answer.item_id not in questions:
            first = next(iter(questions))
            raise UserError(
                f"unknown item {_shown(answer.item_id)}",
                where=where,
                fix=f"the benchmark's item_ids look like {first!r}",
            )
        key = (answer.item_id, answer.sample)
        if key in lines:
            raise UserError(
                f"item {_shown(answer.item_id)}, sample {answer.sample} is also in line "
                f"{lines[key]}",
                where=where,
                fix="keep one",
            )
        lines[key], found[key] = number, answer
    samples = sorted({sample for _, sample in found})
    missing = [(i, s) for i in questions for s in samples if (i, s) not in found]
    if missing and not allow_missing:
        item_id, sample = missing[0]
        more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise UserError(
            f"no answer to item {_shown(item_id)}, sample {sample}{more}",
            where=path,
            fix="add them, or give --allow-missing to score what is there",
        )
    return [found[i, s] for i in questions for s in samples if (i, s) in found]


def judge(
    definition: Definition,
    questions: dict[str, Question],
    given: list[Answer],
    *,
    workers: int,
    cache: Path | None,
    waive: Sequence[str] = (),
) -> tuple[list[Verdict], list[programs.Judged]]:
    """A verdict an answer, in the same order; and how each was judged, if they are programs."""
    if definition.answer == "program":
        ended = [_ended(a, definition.cut) for a in given]
        outcomes = _judge_programs(questions, ended, workers, cache, waive)
        where = [{"item_id": a.item_id, "sample": a.sample} for a in given]
        verdicts = [Verdict(float(o.status == "passed"), o.status, "") for o in outcomes]
        return verdicts, list(zip(where, outcomes, strict=True))
    verdicts = []
    for answer in given:
        question = questions[answer.item_id]
        choices = len(definition.task(question.task).choices)
        if definition.answer == "letter":
            verdicts.append(answers.judge_letter(answer.text, question.gold, "ABCD"[:choices]))
        elif definition.answer == "index":
            verdicts.append(answers.judge_index(answer.text, question.gold, choices))
        else:
            verdicts.append(answers.judge_of(definition.answer)(answer.text, question.gold))
    return verdicts, []


def _ended(answer: Answer, cut: str) -> Answer:
    """An answer up to where its program ends."""
    return replace(answer, text=answer.text.partition(cut)[0]) if cut else answer


def _judge_programs(
    questions: dict[str, Question],
    given: list[Answer],
    workers: int,
    cache: Path | None,
    waive: Sequence[str],
) -> list[programs.Outcome]:
    to_run = [programs.program(questions[a.item_id].doc, a.text) for a in given]
    references = [programs.program(q.doc, q.doc["canonical_solution"]) for q in questions.values()]
    outcomes = programs.judge(
        to_run,
        references,
        workers=workers,
        floor=programs.AUTHORS_SECONDS,
        waive=waive,
        cache=cache,
    )
    return [outcomes[p.key] for p in to_run]


def summary(benchmark: str, given: list[Answer], verdicts: list[Verdict]) -> str:
    """One line for the terminal: how much was right, and what became of the rest."""
    by_item: dict[str, list[float]] = {}
    statuses: dict[str, int] = {}
    for answer, verdict in zip(given, verdicts, strict=True):
        by_item.setdefault(answer.item_id, []).append(verdict.correct)
        statuses[verdict.status] = statuses.get(verdict.status, 0) + 1
    mean = sum(sum(v) / len(v) for v in by_item.values()) / len(by_item)
    correct = int(sum(v.correct for v in verdicts))
    parts = [f"{benchmark}: {correct}/{len(verdicts)} correct, {100 * mean:.2f} % over items"]
    if all(v.correct_flexible is not None for v in verdicts):
        parts.append(f"flexible {int(sum(v.correct_flexible or 0 for v in verdicts))}")
    samples = {len(v) for v in by_item.values()}
    if len(samples) == 1 and (n := samples.pop()) > 1 and "passed" in statuses:
        from zpdbench.sandbox.passk import mean_pass_at_k

        counts = [(n, int(sum(v))) for v in by_item.values()]
        for k in (k for k in (1, 10, 100) if k <= n):
            parts.append(f"pass@{k} {100 * mean_pass_at_k(counts, k):.2f} %")
    parts.append(", ".join(f"{n} {status}" for status, n in sorted(statuses.items())))
    return "; ".join(parts)


def _answers(path: Path) -> Iterator[tuple[int, Answer]]:
    empty = True
    for number, line in loaders.read_jsonl(path):
        empty = False
        where = f"{path}:{number}"
        for key, kind, what in (
            ("item_id", str, "a string"),
            ("sample", int, "a whole number from 0"),
            ("text", str, "a string"),
        ):
            if key not in line:
                raise UserError(f"malformed line: no {key!r}", where=where, fix="add it")
            value = line[key]
            if not isinstance(value, kind) or isinstance(value, bool):
                raise UserError(
                    f"malformed line: {key!r} is {_shown(value)}", where=where, fix=f"give {what}"
                )
        if line["sample"] < 0:
            raise UserError(
                f"malformed line: 'sample' is {line['sample']}", where=where, fix="count from 0"
            )
        yield number, Answer(line["item_id"], line["sample"], line["text"])
    if empty:
        raise UserError(
            "no generations in it", where=str(path), fix="give a file with at least one answer"
        )


def _shown(value: Any) -> str:
    """A value on one line of ASCII, shortened: it may be long or hold anything."""
    text = ascii(value) if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."
