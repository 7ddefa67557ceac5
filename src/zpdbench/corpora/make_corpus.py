"""`zpdbench make-corpus`: examples from all sources, their difficulty, the probe, one table."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zpdbench import datasheet, files, study
from zpdbench.corpora import prepare, sources
from zpdbench.errors import UserError
from zpdbench.hub import fetch
from zpdbench.hub.fetch import Repository

if TYPE_CHECKING:
    import polars as pl


def main(args: argparse.Namespace) -> int:
    """Write the corpus of a study; raises UserError as `build`."""
    settings = study.load(args.study)
    if args.corpus != settings.corpus.name:
        raise UserError(
            f"no corpus {args.corpus!r}", where="study", fix=f"it is {settings.corpus.name!r}"
        )
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory(prefix="zpdbench-") as folder:
        items = [Path(p) for p in args.items] or _items_of(settings, Path(folder))
        frame, notes = build(settings, items, args.threads)
    write(Path(args.out), frame, notes)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    counts = frame.group_by("language", "split").len().sort("language", "split")
    parts = [f"{n} {language} {split}" for language, split, n in counts.iter_rows()]
    print(f"corpus {args.corpus}: {', '.join(parts)}", file=sys.stderr)
    return 0


def _items_of(settings: study.Study, folder: Path) -> list[Path]:
    """Items files as `build` wants them; only generated items are read from theirs."""
    from zpdbench.benchmarks import items
    from zpdbench.corpora import make_items

    paths = [folder / f"{name}.parquet" for name in settings.benchmarks]
    for path in paths:
        if settings.benchmarks[path.stem].source == "embedded":
            items.write(path, path.stem, make_items.items_of(settings, path.stem))
    return paths


def build(
    settings: study.Study, items: Sequence[Path] = (), workers: int = 1
) -> tuple[pl.DataFrame, list[str]]:
    """(the corpus table, notes for results).

    Columns: id language source prompt response d1 d2 d3 difficulty split, then the raw measures
    that difficulty is made of. Rows are sorted by id. `split` is train or probe.

    Args:
        items: items files; examples that hold a question of their benchmarks are dealt with as
            `corpus.contamination` says.
        workers: processes and threads that measure difficulty; changes nothing but time.

    Raises:
        UserError: as `sources.read`; a probe as large as the corpus; contamination where it is an
            error.
    """
    import numpy as np
    import polars as pl

    from zpdbench.curriculum import difficulty

    corpus = settings.corpus
    rows, notes = _examples(settings, items)
    languages = [row["language"] for row in rows]
    features = difficulty.measure(
        [row["prompt"] for row in rows], [row["response"] for row in rows], languages, workers
    )
    found = difficulty.combine(features, languages)
    split = np.full(len(rows), "train", dtype=object)
    try:
        by_source = [row["source"] for row in rows] if corpus.probe_by == "source" else None
        chosen = difficulty.balanced_probe(
            found.difficulty, languages, corpus.probe, corpus.seed, by_source
        )
        split[chosen] = "probe"
    except ValueError as error:
        raise UserError(str(error), where="corpus.probe", fix="make it smaller") from error
    frame = pl.DataFrame(rows, schema=["id", "language", "source", "prompt", "response"])
    frame = frame.with_columns(
        d1=found.d1,
        d2=found.d2,
        d3=found.d3,
        difficulty=found.difficulty,
        split=pl.Series(split.tolist(), dtype=pl.String),
        **{f"raw_{name}": values for name, values in found.raw.items()},
    )
    known = prepare.same_prompts(frame["prompt"].to_list(), (frame["split"] == "probe").to_list())
    if any(known):
        lost = frame.filter(pl.Series(known)).group_by("source").len().sort("source")
        notes += [
            f"{source}: {count} examples left out (they ask what an example of the probe asks)"
            for source, count in lost.iter_rows()
        ]
        frame = frame.filter(~pl.Series(known))
        if (frame["split"] == "probe").all():
            raise UserError(
                "the probe's prompts are those of all examples",
                where="corpus.probe",
                fix="make it smaller, or give examples with other prompts",
            )
    return frame, notes


def _examples(settings: study.Study, items: Sequence[Path]) -> tuple[list[sources.Row], list[str]]:
    """(all sources' examples as they will be used, sorted by id; notes for results)."""
    corpus = settings.corpus
    # With nothing to prepare a sample is drawn first; else of what the preparation leaves.
    late = corpus.prepare != study.Preparation()
    rows: list[sources.Row] = []
    notes: list[str] = []
    seen: dict[tuple[str, str], str] = {}
    for name, source in sorted(corpus.sources.items()):
        with _files(source, settings) as paths:
            read, said = sources.read(name, source, corpus, paths)
        notes += said
        if late:
            read, said = prepare.clean(read, corpus.prepare)
            notes += said
        read, said = prepare.without_equal(read, seen)
        notes += said
        if not late:
            read, said = sources.sample(name, read, source, corpus)
            notes += said
        rows += [{**row, "corpus_source": name} for row in read]
    rows.sort(key=lambda row: row["id"])
    ids = [row["id"] for row in rows]
    if len(set(ids)) != len(ids):
        raise UserError("two sources give the same id", where="corpus.sources", fix="rename one")
    if corpus.prepare.near_duplicates is not None:
        rows, said = prepare.without_near_duplicates(rows, corpus.prepare.near_duplicates)
        notes += said
    rows, said = _decontaminate(rows, items, settings)
    notes += said
    if late:
        drawn: list[sources.Row] = []
        for name, source in sorted(corpus.sources.items()):
            mine = [row for row in rows if row["corpus_source"] == name]
            mine, said = sources.sample(name, mine, source, corpus)
            drawn += mine
            notes += said
        rows = sorted(drawn, key=lambda row: row["id"])
        if corpus.prepare.balance_languages:
            rows, said = prepare.balanced(rows, corpus.seed)
            notes += said
    return rows, notes


@contextmanager
def _files(source: study.CorpusSource, settings: study.Study) -> Iterator[list[Path]]:
    """A source's files, in the order of their names; the hub's are there for the block only.

    Raises:
        UserError: no such file, or not to be had from the hub.
    """
    if source.path is None:
        yield []
    elif source.repo is None:
        folder = settings.data_folder
        found = sorted(folder.glob(source.path)) if "*" in source.path else []
        yield found or [folder / source.path]
    else:
        wanted = Repository("datasets", source.repo, source.revision, source.files)
        with tempfile.TemporaryDirectory(prefix="zpdbench-") as folder_name:
            yield fetch.fetch(wanted, Path(folder_name), settings.hub)


def write(path: Path, frame: pl.DataFrame, notes: Sequence[str]) -> None:
    """Write the table; `notes` go into the file's metadata, for every result made from it."""
    metadata = {datasheet.METADATA_KEY: json.dumps({"notes": list(notes)}, ensure_ascii=False)}
    with files.atomic_path(path) as temporary:
        frame.write_parquet(
            temporary, compression="zstd", compression_level=3, statistics=True, metadata=metadata
        )


def _rows_of(path: Path, settings: study.Study) -> Iterable[Mapping[str, Any]]:
    """benchmark, item_id, task and doc of all that an items file was chosen from."""
    import polars as pl

    from zpdbench.benchmarks.items import item_id
    from zpdbench.corpora.make_items import definition_of, documents_of

    name = path.stem
    if name not in settings.benchmarks or settings.benchmarks[name].source == "embedded":
        wanted = pl.read_parquet(path, columns=["benchmark", "item_id", "task", "doc"])
        yield from wanted.iter_rows(named=True)
        return
    definition = definition_of(settings, name)
    for task, docs in documents_of(settings, name).items():
        for row, doc in enumerate(docs):
            yield {
                "benchmark": name,
                "item_id": item_id(definition, task, row, doc),
                "task": task,
                "doc": json.dumps(doc),
            }


def _decontaminate(
    rows: list[sources.Row], items: Sequence[Path], settings: study.Study
) -> tuple[list[sources.Row], list[str]]:
    """(rows that stay, notes), by `corpus.contamination`.

    All documents of a benchmark's source are looked for, not only those that are asked: so that
    asking more of them later finds nothing new, and needs no new training.

    Generated examples share their templates with generated items by design, so there only equal
    prompts count.
    """
    from zpdbench.benchmarks import contamination

    texts = []
    for path in sorted(items):
        section = settings.benchmarks.get(path.stem)
        texts += contamination.texts_of(
            _rows_of(path, settings), section.definition if section else None
        )
    hits, notes = [], []
    generated = {n for n, s in settings.corpus.sources.items() if s.format == "embedded"}
    for is_generated in (True, False):
        examples = [
            (row["id"], row["prompt"], row["response"])
            for row in rows
            if (row["corpus_source"] in generated) == is_generated
        ]
        if texts and examples:
            n = None if is_generated else contamination.WORDS
            hits += contamination.find(texts, examples, n=n)
            notes += [] if is_generated else _unseen(contamination.too_short(texts))
    bad = {hit.example for hit in hits}
    if not bad:
        return rows, notes
    benchmarks = ", ".join(sorted({hit.benchmark for hit in hits}))
    for hit in sorted(hits):
        print(f"{hit.example} holds {hit.benchmark} {hit.item_id} ({hit.kind})", file=sys.stderr)
    what = f"{len(bad)} examples hold an item of {benchmarks}"
    policy = settings.corpus.contamination
    if policy == "error":
        raise UserError(
            f"{what}; the first is {min(hits).example} with {min(hits).item_id}",
            where="corpus.contamination",
            fix="set it to remove, or take the examples out",
        )
    if policy == "keep":
        return rows, [f"contamination: {what} and are kept", *notes]
    left = [row for row in rows if row["id"] not in bad]
    return left, [f"contamination: {what} and are left out", *notes]


def _unseen(short: Mapping[str, tuple[int, int, int]]) -> list[str]:
    """Notes on the items that the search sees in some places only, by benchmark."""
    return [
        f"search for items: {few} of {benchmark}'s {total} have too few words to be found by "
        f"these alone but as a whole line, {always} of them also as they are asked"
        for benchmark, (few, always, total) in sorted(short.items())
        if few
    ]
