"""`zpdbench compare-published`: are a run's tables the bytes that this version's authors had?

The digests stand beside the configurations, for each class of processors that portable arithmetic
gives the same bytes on. They were made by `--write`, from a run of the study as it is in the tree.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zpdbench import arithmetic, files, records
from zpdbench.errors import UserError
from zpdbench.study import Study, load

Digests = Mapping[str, str]


def tables_of(results: Path) -> dict[str, str]:
    """Name -> SHA-256 of the tables that stand in a results folder."""
    found = sorted(p for p in results.glob("*.tsv") if files.is_hashed(p.name))
    return {p.name: files.sha256_file(p) for p in found}


def identity(study: Study) -> str:
    """Digest (hex) of what a study is; not of where its files lie or how it is run."""
    value = records.portable(study).model_dump(mode="json", exclude={"hub", "images", "sandbox"})
    # A key that came later makes no study another one where it is not used.
    if study.corpus.probe_by == "language":
        del value["corpus"]["probe_by"]
    return files.digest(value)


def sentence(found: Digests, published: Mapping[str, Digests], here: str) -> str:
    """What there is to say of a run's tables.

    Args:
        found: file -> digest, of the run.
        published: class of processors -> file -> digest.
        here: this machine's class.
    """
    if here not in published:
        return (
            f"Tables: none are published for this processor ({here}), only for "
            f"{'; '.join(sorted(published))}. Sums are rounded otherwise there, which can turn a "
            "close verdict (docs/mini.md, Which machines give the same)."
        )
    wanted = published[here]
    differing = sorted(f for f in wanted if found.get(f) != wanted[f])
    if not differing:
        return f"Tables: all {len(wanted)} are the bytes published for {here}."
    return (
        f"Tables: {len(differing)} of {len(wanted)} are not the bytes published for {here} "
        f"({', '.join(differing[:4])}{', ...' if len(differing) > 4 else ''}): the code, a package "
        "or the processor's arithmetic differs (docs/mini.md, Which machines give the same)."
    )


def read(path: Path) -> dict[str, Any]:
    """Study's digest -> its name and its tables, class by class; {} where nothing is published.

    Raises:
        UserError: the file is damaged.
    """
    try:
        value = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(
            "no readable JSON", where=str(path), fix="take the repository's file"
        ) from error
    return dict(value)


def main(args: argparse.Namespace) -> None:
    """Entry of the verb: args.study, args.published, args.write.

    Raises:
        UserError: `--write` for a study that is not portable, or on a processor of no class.
    """
    study = load(args.study)
    path = Path(args.published)
    known, key = read(path), identity(study)
    found, here = tables_of(Path(args.study).parent), arithmetic.portable_class()
    if args.write:
        if study.computes != "portable":
            raise UserError("is of one processor only", where="arithmetic: native", fix="none")
        arithmetic.check()
        classes = known.get(key, {}).get("tables", {})
        # One study a name: an older state of it is of no use to anybody.
        kept = {k: v for k, v in known.items() if v["study"] != study.study}
        kept[key] = {"study": study.study, "tables": {**classes, here: found}}
        files.write_text(path, json.dumps(kept, indent=1, sort_keys=True) + "\n")
    elif study.computes == "portable" and key in known:
        print(sentence(found, known[key]["tables"], here))
