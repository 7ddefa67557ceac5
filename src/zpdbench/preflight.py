"""What can be known to be wrong before the first job starts, beyond the configuration's form."""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from zpdbench.errors import UserError
from zpdbench.study import GgufModel, LocalModel, Study


def check(study: Study, *, warn_only: bool = False) -> None:
    """Check that what a study names is there: orders, benchmarks, packages, folders and files.

    Args:
        warn_only: say what is missing on this machine, and go on (a dry run). Names that mean
            nothing anywhere are an error all the same.

    Raises:
        UserError: the first thing that is not there.
    """
    from zpdbench.benchmarks import definition
    from zpdbench.curriculum import registry

    registry.check(study)
    for name, benchmark in study.benchmarks.items():
        definition.load(benchmark.definition or name)
    try:
        _check_machine(study)
    except UserError as error:
        if not warn_only:
            raise
        print(f"warning: {error}", file=sys.stderr)


def _check_machine(study: Study) -> None:
    for name, model in study.models.items():
        if isinstance(model, GgufModel) and find_spec(model.package) is None:
            raise UserError(
                f"package {model.package!r} is not installed",
                where=f"models.{name}",
                fix="make venv",
            )
        if isinstance(model, LocalModel) and not (Path(model.path) / "config.json").is_file():
            raise UserError(
                f"no checkpoint at {model.path} (no config.json)",
                where=f"models.{name}",
                fix="give a folder in Hugging Face's layout",
            )
    for name, source in study.corpus.sources.items():
        if source.path is not None and not (study.data_folder / source.path).is_file():
            raise UserError(
                f"no file {source.path} below {study.data_folder}",
                where=f"corpus.sources.{name}",
                fix="correct path: or data_dir:",
            )
    if any(b.source == "files" for b in study.benchmarks.values()):
        _ = study.data_folder
