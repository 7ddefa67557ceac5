"""Files of the user's own that a rule reads: its inputs, so that an edited one is noticed.

Only what is there is listed. A dry run may be made where the data are not, and `preflight` and the
verbs say what is missing; files of the hub and of packages are pinned by hash instead.
"""

from __future__ import annotations

import re
from pathlib import Path

from zpdbench.benchmarks import definition
from zpdbench.errors import UserError
from zpdbench.study import LocalModel, Study


def check(study: Study) -> None:
    """Look at the names of all of them, as Snakemake would fail on one in its own words.

    Raises:
        UserError: a name with braces, as wildcards have, or a line feed.
    """
    found = [name for model in study.models for name in of_checkpoint(study, model)]
    for name in (*found, *of_corpus(study)):
        if odd := re.search(r"[{}\n\r]", name):
            raise UserError(
                f"{name!r}: Snakemake cannot take a file whose name holds {odd[0]!r}",
                where="models, data_dir or ZPDBENCH_DATA",
                fix="rename the file or folder, or link to it under another name",
            )


def of_checkpoint(study: Study, model: str) -> list[str]:
    """A local model's folder, file by file, or its GGUF file."""
    spec = study.models.get(model)
    if not isinstance(spec, LocalModel):
        return []
    path = Path(spec.path).expanduser()
    return _existing(sorted(path.iterdir()) if path.is_dir() else [path])


def of_items(study: Study, benchmark: str) -> list[str]:
    """A benchmark's data files, and the definition if it is a file."""
    section = study.benchmarks.get(benchmark)
    if section is None:
        return []
    found = [Path(section.definition)] if section.definition else []
    folder = _data_folder(study)
    if section.source == "files" and folder is not None:
        known = definition.load(section.definition or benchmark)
        for task in section.tasks or list(known.tasks):
            for name in known.task(task).files.values():
                path = folder / name
                found += sorted(path.glob("*.csv")) if path.is_dir() else [path]
    return _existing(found)


def of_corpus(study: Study) -> list[str]:
    """The sources' files, and those of the benchmarks that are searched for in them."""
    found = [Path(name) for b in study.benchmarks for name in of_items(study, b)]
    folder = _data_folder(study)
    for source in study.corpus.sources.values():
        if folder is None or source.path is None or source.repo is not None:
            continue
        found += sorted(folder.glob(source.path)) if "*" in source.path else [folder / source.path]
    return _existing(found)


def _data_folder(study: Study) -> Path | None:
    try:
        return study.data_folder
    except UserError:
        return None


def _existing(paths: list[Path]) -> list[str]:
    return list(dict.fromkeys(str(p) for p in paths if p.is_file()))
