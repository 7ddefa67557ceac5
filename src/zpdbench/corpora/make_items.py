"""`zpdbench make-items`: a benchmark's items as they will be asked, as Parquet."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from zpdbench import study as studies
from zpdbench.benchmarks import Definition, items, load, loaders
from zpdbench.benchmarks.loaders import Docs
from zpdbench.errors import UserError
from zpdbench.hub import fetch
from zpdbench.hub.fetch import Repository
from zpdbench.text.form import CHAT_ONE_TURN, PLAIN


def main(args: argparse.Namespace) -> None:
    """Write `args.out` for `args.benchmark` of `args.study`."""
    study = studies.load(args.study)
    made = items_of(study, args.benchmark)
    registered = study.benchmarks[args.benchmark].items_digest
    if registered and items.digest_of(made) != registered:
        raise UserError(
            f"its items are not the registered ones (digest {items.digest_of(made)})",
            where=f"benchmarks.{args.benchmark}.items_digest",
            fix="give the data, subset and template that were registered, or register anew by "
            "zpdbench register",
        )
    items.write(args.out, args.benchmark, made)
    interim = sum(item.interim for item in made)
    print(
        f"{args.benchmark}: {len(made)} items of {len({i.task for i in made})} tasks, "
        f"{interim} of them also on the way; template {made[0].template}"
    )


def definition_of(study: studies.Study, benchmark: str) -> Definition:
    """The definition that a study's benchmark uses: its `definition:` file, or the one so called.

    Raises:
        UserError: there is none.
    """
    return load(study.benchmarks[benchmark].definition or benchmark)


def check_form(study: studies.Study, benchmark: str) -> str | None:
    """Check that a study's benchmark suits the form it is asked in; what to know of it, if so.

    The harness asks `humaneval` as a chat too, so that is no mistake. Mini models answer embedded
    problems as they were taught.

    Raises:
        UserError: asked without a chat template, which it needs.
    """
    definition, plain = definition_of(study, benchmark), study.form(benchmark) == PLAIN
    if definition.suits == "chat" and plain:
        raise UserError(
            "is for instruction models, and would be asked without a chat template",
            where=f"benchmarks.{benchmark}",
            fix="set apply_chat_template: true in its section, or take humaneval",
        )
    if plain or definition.suits != "plain" or study.benchmarks[benchmark].source == "embedded":
        return None
    return (
        f"{benchmark} is asked as a chat, and is for completions: its stop strings cut a function "
        "that is begun anew, and sentences or fences around code are no program; "
        "humaneval_instruct is for instruction models"
    )


def items_of(study: studies.Study, benchmark: str) -> list[items.Item]:
    """Load and render a study's benchmark.

    Raises:
        UserError: a file is missing or malformed, or more is asked than there is.
    """
    section = study.benchmarks[benchmark]
    definition = definition_of(study, benchmark)
    check_form(study, benchmark)
    shots = definition.num_fewshot if section.num_fewshot is None else section.num_fewshot
    docs, pools = _documents(study, benchmark, definition, with_pool=shots > 0)
    return items.make_items(
        definition,
        _asked_tasks(study, benchmark, docs),
        pools,
        num_fewshot=section.num_fewshot,
        max_tokens=section.max_tokens,
        chat=study.form(benchmark) != PLAIN,
        multiturn=study.form(benchmark) != CHAT_ONE_TURN,
        items=section.items,
        interim_items=section.interim_items,
        items_per=section.items_per,
        draw=section.draw,
        draw_seed=section.draw_seed,
    )


def documents_of(study: studies.Study, benchmark: str) -> Docs:
    """Every document of the tasks that a study asks, however few of them it asks.

    Of an embedded benchmark, whose documents are generated, there are only those asked.

    Raises:
        UserError: a file is missing or malformed.
    """
    docs, _ = _documents(study, benchmark, definition_of(study, benchmark), with_pool=False)
    return _asked_tasks(study, benchmark, docs)


def _asked_tasks(study: studies.Study, benchmark: str, docs: Docs) -> Docs:
    wanted = study.benchmarks[benchmark].tasks
    if wanted is None:
        return docs
    if missing := sorted(set(wanted) - set(docs)):
        raise UserError(
            f"benchmarks.{benchmark}.tasks: no {missing[0]!r}", fix=f"one of {', '.join(docs)}"
        )
    return {task: docs[task] for task in docs if task in wanted}


def _documents(
    study: studies.Study, benchmark: str, definition: Definition, *, with_pool: bool
) -> tuple[Docs, Docs]:
    section = study.benchmarks[benchmark]
    split = definition.fewshot_split
    if section.source == "embedded":
        if with_pool:
            raise UserError(
                f"benchmarks.{benchmark}.num_fewshot: embedded items have no shots",
                fix="set num_fewshot: 0",
            )
        from zpdbench.embedded import benchmark_docs

        docs: Docs = {}
        for doc in benchmark_docs(definition.name, section.items or 100):
            task = definition.task_of(doc)
            members = docs.setdefault(task, [])
            plain = {k: v for k, v in doc.items() if k != "task"}
            # Generated problems may share a description; their place is a name of its own.
            if "task_id" in plain:
                plain["task_id"] = f"embedded/{len(members)}"
            members.append(plain)
        return dict(sorted(docs.items())), {}
    tasks = section.tasks or list(definition.tasks)
    if section.source == "hub":
        with _from_hub(study, benchmark, definition, tasks) as folder:

            def read(wanted: str) -> Docs:
                return {t: loaders.load_hub(definition, t, wanted, folder) for t in tasks}

            return read("test"), read(split) if with_pool else {}
    root = Path(study.data_folder)
    return (
        _read(definition, tasks, root, "test"),
        _read(definition, tasks, root, split) if with_pool else {},
    )


@contextmanager
def _from_hub(
    study: studies.Study, benchmark: str, definition: Definition, tasks: list[str]
) -> Iterator[Path]:
    """A folder with a benchmark's pinned files, as its repository has them, for the block only.

    Raises:
        UserError: not pinned, not to be had, or not what was pinned.
    """
    section = study.benchmarks[benchmark]
    repo, _ = definition.hub_sources(tasks)
    wanted = Repository("datasets", repo, section.revision, section.files)
    with tempfile.TemporaryDirectory(prefix="zpdbench-") as name:
        fetch.fetch(wanted, Path(name), study.hub)
        yield Path(name)


def _read(definition: Definition, tasks: list[str], root: Path, split: str) -> Docs:
    docs: Docs = {}
    for name in tasks:
        path = definition.task(name).files.get(split)
        if path is None:
            raise UserError(
                f"{definition.name} names no file of its split {split!r}",
                fix="add files: to the definition, or use source: hub",
            )
        docs.update(loaders.load_file(definition, root / path, name))
    return docs
