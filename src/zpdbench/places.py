"""Paths that a configuration names: which ones are refused, and the one form of the others.

A path goes through Snakemake, a shell, a scheduler and a container's options. What one of them
takes for something else than a name is refused when the configuration is read.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from zpdbench.errors import UserError

_NOT_IN_A_NAME = "'\"`$\\{}"
"""Quotes and a shell's expressions; Snakemake's wildcards."""
_NO_TEXT = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of line feeds and other control characters, and of half characters."""
_GIVEN = ("bundle", "data", "signers", "signature")


def anywhere(path: str) -> str:
    """A path in its one form: `~` is the home folder, no empty, `.` or trailing parts.

    `..` stays: behind a link it is not what it looks like.

    Raises:
        ValueError: what is wrong with it, as pydantic wants it.
    """
    path = _checked(path)
    try:
        return str(Path(path).expanduser())
    except RuntimeError as error:
        raise ValueError("begins with the home folder of somebody who is not here") from error


def below(path: str) -> str:
    """As `anywhere`, for a path below a folder that is not said here; `~` is a name like any other.

    Raises:
        ValueError: it leads out of that folder, or as in `anywhere`.
    """
    path = _checked(path)
    if path.startswith("/") or ".." in PurePosixPath(path).parts:
        raise ValueError("must stay below its folder: no leading / and no ..")
    return path


def folder_of_results(path: str) -> str:
    """As `anywhere`, for a folder that is to hold results and nothing else.

    Raises:
        ValueError: it is the working folder or the root, or as in `anywhere`.
    """
    path = anywhere(path)
    if path in (".", "/"):
        raise ValueError("must be a folder of its own, such as results/my")
    return path


def address_or_file(place: str) -> str:
    """As `anywhere`, for what may be an address (scheme://...) too, which stays as it is.

    Raises:
        ValueError: as in `anywhere`.
    """
    if "://" in place:
        _checked(place)
        return place
    return anywhere(place)


def of_image(place: str) -> str:
    """As `address_or_file`, for an image or a folder of them: Snakemake quotes their names nowhere.

    Raises:
        ValueError: a space or a sign that a shell would read, or as in `anywhere`.
    """
    if odd := re.search(r"[^\w@%+=:,./~-]", place):
        raise ValueError(f"an image's path or address may hold no {odd[0]!r}")
    return address_or_file(place)


def of_request(request: Mapping[str, Any]) -> dict[str, Any]:
    """What `verify` is asked for by --config, its paths in their one form.

    Raises:
        UserError: one that cannot be used.
    """
    checked = dict(request)
    for key in [k for k in _GIVEN if k in request]:
        try:
            checked[key] = anywhere(str(request[key]))
        except ValueError as error:
            raise UserError(
                f"{key}: {error}, not {str(request[key])!r}",
                where="--config",
                fix="name the file or folder otherwise",
            ) from error
    return checked


def _checked(path: str) -> str:
    for character in path:
        if character in _NOT_IN_A_NAME or unicodedata.category(character) in _NO_TEXT:
            raise ValueError(f"a path may hold no {character!r}")
    if not path.strip():
        raise ValueError("is empty")
    path = re.sub("^/+", "/", str(PurePosixPath(path)))
    for part in PurePosixPath(path).parts:
        if part.startswith("-"):
            raise ValueError("no part of a path may begin with a hyphen, as options do")
        if part != part.strip():
            raise ValueError("no part of a path may begin or end with a space")
        if len(os.fsencode(part)) > 255:
            raise ValueError("no part of a path may have more than 255 bytes")
    return path
