"""MANIFEST.sha256: every other file of a bundle with its hash, in sha256sum's format."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

from zpdbench.artifacts import names

NAME = "MANIFEST.sha256"
_LINE = re.compile(r"^([0-9a-f]{64}) [ *](.+)$")


class ManifestError(ValueError):
    """A manifest that is not to be trusted, with the line that shows it."""


def text(hashes: Mapping[str, str]) -> str:
    """The manifest of `hashes` (path -> hex), one line a file, sorted by the path's bytes."""
    ordered = sorted(hashes.items(), key=lambda pair: pair[0].encode("utf-8"))
    return "".join(f"{value}  {name}\n" for name, value in ordered)


def digest(data: bytes) -> str:
    """SHA-256 (hex) of the manifest itself: what authors publish and reviewers compare."""
    return hashlib.sha256(data).hexdigest()


def parse(data: bytes) -> dict[str, str]:
    """Path -> hash of every line.

    Raises:
        ManifestError: no UTF-8, a line of another form, an unsafe name, a name given twice.
    """
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise ManifestError("is not UTF-8") from error
    if lines and lines[-1] == "":
        lines.pop()
    if not lines:
        raise ManifestError("is empty")
    hashes: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        match = _LINE.match(line.removesuffix("\r"))
        if match is None:
            raise ManifestError(f"line {number}: no 'hash  name'")
        name = match[2]
        reason = names.problem(name)
        if reason:
            raise ManifestError(f"line {number}: {reason}")
        if name in hashes:
            raise ManifestError(f"line {number}: {name} is listed twice")
        if name == NAME:
            raise ManifestError(f"line {number}: the manifest cannot list itself")
        hashes[name] = match[1]
    clash = names.collisions(hashes)
    if clash:
        raise ManifestError(f"{clash[0][0]} and {clash[0][1]} are one file on some machines")
    return hashes
