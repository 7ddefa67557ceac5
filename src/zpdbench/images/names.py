"""What an image is called: by the digest of all that goes into it, so a change has a new name.

Pure functions of the files in `containers/` and `envs/`; no package registry and no image is asked.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from zpdbench import files
from zpdbench.errors import UserError

STAGES = ("train", "serve", "score", "stats")
FORMAT = 1
"""Raised when this package puts the same inputs together in another way."""
SOURCE_DATE_EPOCH = 1_700_000_000
"""The time stamp (seconds) of everything in an image."""
DIGEST = r"[0-9a-f]{16}"

Flavour = Literal["cpu", "cuda"]
_RECIPE = ("rootfs.sh", "zpdbench")


@dataclass(frozen=True)
class DebianPackage:
    """A line of containers/debian.lock."""

    name: str
    version: str
    architecture: str
    sha256: str
    images: tuple[str, ...]

    @property
    def filename(self) -> str:
        """The package file's name as apt gives it."""
        return f"{self.name}_{self.version.replace(':', '%3a')}_{self.architecture}.deb"


@cache
def read_debian_lock(path: Path) -> tuple[DebianPackage, ...]:
    """All lines of containers/debian.lock.

    Raises:
        UserError: the file cannot be read or has a malformed line.
    """
    packages = []
    for number, line in enumerate(_read(path).splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        fields = line.split()
        if len(fields) != 5 or not re.fullmatch(r"[0-9a-f]{64}", fields[3]):
            raise UserError("malformed line", where=f"{path}:{number}", fix="containers/lock.sh")
        name, version, architecture, sha256, images = fields
        packages.append(
            DebianPackage(name, version, architecture, sha256, tuple(images.split(",")))
        )
    return tuple(packages)


def debian_packages(root: Path, stage: str) -> tuple[DebianPackage, ...]:
    """The Debian packages of one image, `root` being the project's folder."""
    lock = read_debian_lock(root / "containers/debian.lock")
    return tuple(p for p in lock if stage in p.images)


def python_lock(root: Path, stage: str, flavour: Flavour = "cpu") -> Path:
    """The hash-locked Python packages of one image: train and serve have a CUDA flavour."""
    special = ".cuda" if flavour == "cuda" and stage in ("train", "serve") else ""
    return root / f"envs/{stage}{special}.txt"


def read_exceptions(path: Path, flavour: Flavour = "cpu") -> dict[str, tuple[str, ...]]:
    """containers/exceptions.txt: package -> (`left-out`,) or (`from-source`, requirement...).

    Args:
        flavour: what is left out of another flavour only is not among them.

    Raises:
        UserError: the file cannot be read or has a malformed line.
    """
    found = {}
    for number, line in enumerate(_read(path).splitlines(), 1):
        name, *how = line.split("#")[0].split() or [""]
        if name and (not how or how[0] not in ("left-out", "from-source")):
            raise UserError(
                "malformed line", where=f"{path}:{number}", fix="PACKAGE left-out|from-source ..."
            )
        if name and (how[0] != "left-out" or flavour in (how[1:] or [flavour])):
            found[name] = ("left-out",) if how[0] == "left-out" else tuple(how)
    return found


def image_digest(root: Path, stage: str, flavour: Flavour = "cpu") -> str:
    """Digest (16 hex digits) of what goes into an image.

    Raises:
        UserError: a lock or a part of the recipe cannot be read.
    """
    recipe = {name: _read(root / "containers" / name) for name in _RECIPE}
    # Comments and blank lines of a lock change no image.
    locked = [
        line
        for line in _read(python_lock(root, stage, flavour)).splitlines()
        if line.strip() and not line.lstrip().startswith("#")
    ]
    packages = {re.split(r"[=<>@ \[;]", line, maxsplit=1)[0] for line in locked}
    special = {
        name: how
        for name, how in read_exceptions(root / "containers/exceptions.txt", flavour).items()
        if name in packages
    }
    debian = [[p.name, p.version, p.architecture, p.sha256] for p in debian_packages(root, stage)]
    return files.digest([FORMAT, SOURCE_DATE_EPOCH, stage, recipe, special, locked, debian])[:16]


def image_name(root: Path, stage: str, flavour: Flavour = "cpu") -> str:
    """`score-0123456789abcdef`: an image's files have this name and .sif, .oci.tar and so on."""
    return f"{stage}-{image_digest(root, stage, flavour)}"


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot be read ({error.__class__.__name__})",
            where=str(path),
            fix="restore it from the repository",
        ) from error
