"""`zpdbench init NAME`: a commented configuration for a study of one's own."""

from __future__ import annotations

import argparse
import re
from importlib import resources
from pathlib import Path

from zpdbench import files, grid
from zpdbench.errors import UserError

_LONGEST = 64


def text_for(name: str, path: str) -> str:
    """The configuration's text for a study of this name that will lie at this path.

    Raises:
        UserError: the name could not be a folder's.
    """
    if not re.fullmatch(grid.NAME, name) or len(name) > _LONGEST:
        raise UserError(
            f"{name!r} is no name",
            where="zpdbench init",
            fix="letters, digits, dots, underscores and single hyphens, at most 64",
        )
    text = resources.files("zpdbench").joinpath("init.yaml").read_text("utf-8")
    return text.replace("NAME", name).replace("RESULTS", f"results/{name}").replace("FILE", path)


def main(args: argparse.Namespace) -> None:
    """Write the file, and say what comes next.

    Raises:
        UserError: no name, or the file is there already.
    """
    folder = Path("config") if Path("config").is_dir() else Path()
    path = Path(args.out) if args.out else folder / f"{args.name}.yaml"
    text = text_for(args.name, path.as_posix())
    if path.exists() and not files.is_stream(path):
        raise UserError("is there already", where=str(path), fix="choose another name")
    files.write_text(path, text)
    if files.is_stream(path):
        return
    print(f"{path} is written. Next: zpdbench plan --configfile {path}")
