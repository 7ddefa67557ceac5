"""Base models that exist already: in an installed package, a GGUF file or a folder."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from zpdbench import files
from zpdbench.checkpoints import folders
from zpdbench.errors import UserError
from zpdbench.study import GgufModel, LocalModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def locate(spec: GgufModel) -> Path:
    """The GGUF file inside an installed package, its hash checked. The package is not imported.

    Raises:
        UserError: the package or the file is not there, or it is another file.
    """
    found = importlib.util.find_spec(spec.package)
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"the Python package {spec.package!r} is not installed",
            fix=f"install {spec.package.replace('_', '-')} (envs/train.in names it)",
        )
    path = Path(next(iter(found.submodule_search_locations))) / spec.file
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*.gguf"))
        raise UserError(
            "no such file in the package",
            where=str(path),
            fix=f"it has {', '.join(there) or 'no GGUF file'}",
        )
    digest = files.sha256_file(path)
    if digest != spec.sha256:
        raise UserError(
            f"its SHA-256 is {digest}, the configuration says {spec.sha256}",
            where=str(path),
            fix="install the version that envs/train.txt locks, or correct the configuration",
        )
    return path


def copy_folder(folder: Path, out: Path) -> None:
    """Copy a checked folder's files; links (the hub's cache has them) become files."""
    for path in folders.kept_files(folder):
        shutil.copyfile(path, out / path.name)


def load_folder(folder: Path) -> PreTrainedModel:
    """The model of a checked folder, in the precision it is stored in.

    Raises:
        UserError: the weights do not fit the configuration, or transformers does not know it.
    """
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
    except (ValueError, OSError, KeyError, RuntimeError) as error:
        raise UserError(
            f"cannot be loaded ({str(error).splitlines()[0]})",
            where=str(folder),
            fix="use a decoder-only model that transformers knows",
        ) from error


def local_folder(spec: LocalModel) -> Path:
    """The folder (or GGUF file) of a local model; `~` is the home folder."""
    return Path(spec.path).expanduser()
