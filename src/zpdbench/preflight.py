"""What can be known to be wrong before the first job starts, beyond the configuration's form."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from zpdbench.errors import UserError
from zpdbench.study import GgufModel, LocalModel, Study


def check_names(study: Study) -> None:
    """Check the names that mean nothing anywhere if they are wrong: orders, options, benchmarks.

    Raises:
        UserError: the first one that is not known.
    """
    from zpdbench.benchmarks import definition
    from zpdbench.curriculum import registry

    registry.check(study)
    for name, section in study.benchmarks.items():
        definition.load(section.definition or name)


def check_machine(study: Study) -> None:
    """Check that the packages, checkpoints and files that a study names are on this machine.

    Raises:
        UserError: the first one that is not there.
    """
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
