"""`zpdbench data-card`: what a corpus consists of, where from and under which licence, as a page.

The facts are `zpdbench.datasheet`'s.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zpdbench import datasheet, files, study

if TYPE_CHECKING:
    import polars as pl


def main(args: argparse.Namespace) -> None:
    """Write the card of args.corpus to args.out, as Markdown."""
    settings = study.load(args.study)
    frame, notes = datasheet.read(Path(args.corpus))
    files.write_text(args.out, render(settings, frame, notes, files.sha256_file(args.corpus)))


def _table(rows: Sequence[dict[str, Any]]) -> str:
    def cell(value: Any) -> str:
        return datasheet.cell(value).replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")

    def line(values: Iterable[Any]) -> str:
        return "| " + " | ".join(map(cell, values)) + " |"

    if not rows:
        return "(none)\n"
    head = list(rows[0])
    lines = [line(head), line("---" for _ in head), *(line(r.values()) for r in rows)]
    return "\n".join(lines) + "\n"


def render(settings: study.Study, frame: pl.DataFrame, notes: Sequence[str], digest: str) -> str:
    """The card as Markdown; the same bytes for the same study and corpus."""
    corpus = settings.corpus
    said = "Nothing was left out.\n"
    if notes:
        listed = "".join(f"- {note}\n" for note in notes)
        said = f"What that came to, and what stands beside every run made from it:\n\n{listed}"
    parts = [
        f"# Data card: {corpus.name}\n",
        f"{frame.height:,} instruction examples; SHA-256 of the table `{digest}`.\n",
        "## Where it comes from\n",
        _table(datasheet.sources(settings, frame)),
        "A licence is as its source's section of the configuration states it. The corpus is under "
        "all of them at once: the strictest decides what may be done with it.\n",
        "## What was done to it\n",
        _table(datasheet.done(settings)),
        said,
        "## What is in it\n",
        _table(datasheet.lengths(frame)),
        "`difficulty` is ranked within its language (docs/methods/curriculum.md): 0.5 is the "
        "middle of that language's examples and says nothing across languages.\n",
        "## What it is not\n",
        f"{datasheet.NOT_CHECKED}\n",
    ]
    return "\n".join(parts)
