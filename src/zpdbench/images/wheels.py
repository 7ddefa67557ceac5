"""Python packages of an image: locked wheels, unpacked, with nothing of this machine in them."""

from __future__ import annotations

import csv
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

from zpdbench import files
from zpdbench.errors import UserError
from zpdbench.images.debian import run
from zpdbench.images.names import Flavour

# The installer's own notes: which index, which machine, when.
_NOTES = ("INSTALLER", "REQUESTED", "direct_url.json", "uv_cache.json", "uv_build.json")


@dataclass(frozen=True)
class PythonPackage:
    """An installed package.

    Attributes:
        record_sha256: of its RECORD, which has the hash of each of its files.
        size: bytes of its files, without byte code.
    """

    name: str
    version: str
    license: str
    record_sha256: str
    size: int


def without(lock: str, names: frozenset[str]) -> str:
    """A lock's text without some packages (a package's line and its lines of hashes)."""
    kept, keep = [], True
    for line in lock.splitlines():
        if line[:1].isalnum():
            keep = _name(line) not in names
        if keep:
            kept.append(line)
    return "\n".join(kept) + "\n"


def packages(lock: str) -> list[str]:
    """The names that a lock's text pins."""
    return [_name(line) for line in lock.splitlines() if line[:1].isalnum()]


def _name(line: str) -> str:
    return re.split(r"[=<>@ \[;]", line, maxsplit=1)[0]


def install(
    lock: Path,
    exceptions: Mapping[str, Sequence[str]],
    folder: Path,
    flavour: Flavour = "cpu",
) -> list[PythonPackage]:
    """Install a lock's wheels into `folder`, each checked by hash.

    Nothing is built from source but what `exceptions` names, with the build requirements it pins.

    Args:
        lock: requirements with hashes, complete (nothing is resolved).
        exceptions: as `names.read_exceptions` gives.
        folder: an empty folder; gets what site-packages gets, without scripts.
        flavour: which of torch's wheels the lock has.

    Raises:
        UserError: a wheel cannot be had, has another hash, or there is only source.
    """
    requirements = folder.parent / f"{folder.name}.txt"
    omit = frozenset(n for n, how in exceptions.items() if how[0] == "left-out")
    text = without(lock.read_text("utf-8"), omit)
    requirements.write_text(text, "utf-8")
    built = {n: how[1:] for n, how in exceptions.items() if how[0] == "from-source"}
    constraints = folder.parent / f"{folder.name}.build.txt"
    constraints.write_text("\n".join(r for how in built.values() for r in how) + "\n", "utf-8")
    no_build = [f"--only-binary={n}" for n in packages(text) if n not in built]
    uv, (environment, options) = _uv(), _index(flavour)
    run(
        [
            uv,
            "pip",
            "install",
            "--quiet",
            "--target",
            str(folder),
            "--python-version",
            "3.11",
            "--python-platform",
            "x86_64-manylinux_2_36",
            "--link-mode",
            "copy",
            "--no-deps",
            *no_build,
            "--build-constraints",
            str(constraints),
            "--require-hashes",
            *options,
            "--requirement",
            str(requirements),
        ],
        env=environment,
        fix="try again; offline, the wheels must be in uv's cache",
    )
    requirements.unlink()
    constraints.unlink()
    return [_normalise(info) for info in sorted(folder.glob("*.dist-info"))] + _no_scripts(folder)


def _no_scripts(folder: Path) -> list[PythonPackage]:
    # Scripts name the interpreter of this machine; rules call modules.
    shutil.rmtree(folder / "bin", ignore_errors=True)
    (folder / ".lock").unlink(missing_ok=True)
    return []


def _normalise(info: Path) -> PythonPackage:
    """Take the installer's notes and scripts out of a package and its RECORD."""
    for note in _NOTES:
        (info / note).unlink(missing_ok=True)
    record = info / "RECORD"
    kept, size = [], 0
    with record.open(newline="", encoding="utf-8") as handle:
        for row in csv.reader(handle):
            path = row[0]
            is_note = path.startswith(f"{info.name}/") and path.split("/")[-1] in _NOTES
            if is_note or path.startswith(("../", "bin/")) or path.endswith(".pyc"):
                continue
            kept.append(row)
            size += int(row[2]) if len(row) > 2 and row[2] else 0
    with record.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, lineterminator="\n").writerows(sorted(kept))
    about = HeaderParser().parsestr((info / "METADATA").read_text("utf-8", errors="replace"))
    licence = about.get("License-Expression") or about.get("License") or ""
    return PythonPackage(
        name=re.sub(r"[-_.]+", "-", about["Name"]).lower(),
        version=about["Version"],
        license=licence.strip().splitlines()[0][:100] if licence.strip() else "",
        record_sha256=files.sha256_file(record),
        size=size,
    )


def _uv() -> str:
    beside = Path(sys.executable).with_name("uv")
    found = str(beside) if beside.is_file() else shutil.which("uv")
    if not found:
        raise UserError("uv is not installed", fix="make venv installs it")
    return found


def _index(flavour: Flavour) -> tuple[dict[str, str], list[str]]:
    """uv's environment and options: the index and wheel folders that pip is configured with."""
    environment = dict(os.environ)
    found = environment.get("PIP_FIND_LINKS")
    if "UV_DEFAULT_INDEX" not in environment and shutil.which("pip"):
        try:
            index = run(["pip", "config", "get", "global.index-url"]).strip()
        except UserError:
            index = ""
        if index:
            environment["UV_DEFAULT_INDEX"] = index
    if found:
        return environment, ["--find-links", found]
    # The CPU wheel of torch is on no ordinary index; CUDA's is the ordinary one.
    return environment, ["--torch-backend", "cpu"] if flavour == "cpu" else []
