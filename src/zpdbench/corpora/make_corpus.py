"""`zpdbench make-corpus`: examples from all sources, their difficulty, the probe, one table."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from zpdbench import files, study
from zpdbench.corpora import sources
from zpdbench.errors import UserError

if TYPE_CHECKING:
    import polars as pl

METADATA_KEY = "zpdbench"


def main(args: argparse.Namespace) -> int:
    """Write the corpus of a study; raises UserError as `build`."""
    settings = study.load(args.study)
    if args.corpus != settings.corpus.name:
        raise UserError(
            f"no corpus {args.corpus!r}", where="study", fix=f"it is {settings.corpus.name!r}"
        )
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    frame, notes = build(settings, [Path(p) for p in args.items])
    write(Path(args.out), frame, notes)
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    counts = frame.group_by("language", "split").len().sort("language", "split")
    parts = [f"{n} {language} {split}" for language, split, n in counts.iter_rows()]
    print(f"corpus {args.corpus}: {', '.join(parts)}", file=sys.stderr)
    return 0


def build(settings: study.Study, items: Sequence[Path] = ()) -> tuple[pl.DataFrame, list[str]]:
    """(the corpus table, notes for results).

    Columns: id language source prompt response d1 d2 d3 difficulty split, then the raw measures
    that difficulty is made of. Rows are sorted by id. `split` is train or probe.

    Args:
        items: items files; examples that hold one of their questions are dealt with as
            `corpus.contamination` says.

    Raises:
        UserError: as `sources.read`; a probe as large as the corpus; contamination where it is an
            error.
    """
    import numpy as np
    import polars as pl

    from zpdbench.curriculum import difficulty

    corpus = settings.corpus
    rows: list[sources.Row] = []
    notes: list[str] = []
    for name, source in sorted(corpus.sources.items()):
        folder = settings.data_folder if source.path is not None else None
        read, said = sources.read(name, source, corpus, folder)
        rows += read
        notes += said
    rows.sort(key=lambda row: row["id"])
    ids = [row["id"] for row in rows]
    if len(set(ids)) != len(ids):
        raise UserError("two sources give the same id", where="corpus.sources", fix="rename one")
    rows, said = _decontaminate(rows, items, corpus.contamination)
    notes += said
    languages = [row["language"] for row in rows]
    features = difficulty.measure(
        [row["prompt"] for row in rows], [row["response"] for row in rows], languages
    )
    found = difficulty.combine(features, languages)
    split = np.full(len(rows), "train", dtype=object)
    try:
        split[difficulty.balanced_probe(found.difficulty, languages, corpus.probe, corpus.seed)] = (
            "probe"
        )
    except ValueError as error:
        raise UserError(str(error), where="corpus.probe", fix="make it smaller") from error
    frame = pl.DataFrame(rows, schema=["id", "language", "source", "prompt", "response"])
    return (
        frame.with_columns(
            d1=found.d1,
            d2=found.d2,
            d3=found.d3,
            difficulty=found.difficulty,
            split=pl.Series(split.tolist(), dtype=pl.String),
            **{f"raw_{name}": values for name, values in found.raw.items()},
        ),
        notes,
    )


def write(path: Path, frame: pl.DataFrame, notes: Sequence[str]) -> None:
    """Write the table; `notes` go into the file's metadata, for every result made from it."""
    metadata = {METADATA_KEY: json.dumps({"notes": list(notes)}, ensure_ascii=False)}
    with files.atomic_path(path) as temporary:
        frame.write_parquet(
            temporary, compression="zstd", compression_level=3, statistics=True, metadata=metadata
        )


def _decontaminate(
    rows: list[sources.Row], items: Sequence[Path], policy: str
) -> tuple[list[sources.Row], list[str]]:
    """(rows that stay, notes): examples whose prompt is a benchmark item's are found."""
    import polars as pl

    asked: set[str] = set()
    for path in items:
        asked |= {_normal(p) for p in pl.read_parquet(path, columns=["prompt"])["prompt"]}
    found = [row["id"] for row in rows if _normal(row["prompt"]) in asked]
    if not found or policy == "keep":
        return rows, [f"{len(found)} examples ask a benchmark item and are kept"] if found else []
    if policy == "error":
        raise UserError(
            f"{len(found)} examples ask a benchmark item, the first is {found[0]}",
            where="corpus.contamination",
            fix="set it to remove, or take the examples out",
        )
    bad = set(found)
    return [r for r in rows if r["id"] not in bad], [
        f"{len(found)} examples that ask a benchmark item left out"
    ]


def _normal(text: str) -> str:
    return " ".join(text.split()).casefold()
