"""The table of pinned revisions, config/revisions.lock.yaml: which bytes a hub's name stands for.

`zpdbench pin` fills it. A commit says which version is meant; the files' SHA-256 say which bytes
are accepted, whoever sends them. Nothing here touches the network.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import yaml

from zpdbench import files
from zpdbench.errors import UserError

NAME = "revisions.lock.yaml"
"""The table's file name, beside the configuration file that needs it."""

Kind = Literal["models", "datasets"]
KINDS: tuple[Kind, ...] = ("models", "datasets")

REPO = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
COMMIT = r"[0-9a-f]{40}"
_PART = re.compile(r"[A-Za-z0-9_][\w.+=-]*")
_SHA256 = re.compile(r"[0-9a-f]{64}")

_HEAD = """\
# Which commit and which bytes a name on the hub stands for. `zpdbench pin` writes this file.
# revision: the repository's commit; seen: where it was looked up. files: SHA-256 and size (bytes)
# of every file that is loaded, of a data set all that fit patterns:. A repository without files: is
# not loaded until it is pinned.
"""


@dataclass(frozen=True)
class Pin:
    """One repository's entry.

    Attributes:
        revision: the commit (40 hex digits), None where it could not be looked up.
        files: path in the repository -> (SHA-256, size in bytes).
        seen: where the revision was looked up.
        license: as the repository states it, an SPDX identifier where it is one.
        patterns: of a data set, which paths were looked for: of those all files are listed.
    """

    revision: str | None = None
    files: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    seen: str | None = None
    license: str | None = None
    patterns: tuple[str, ...] = ()

    def covers(self, patterns: Iterable[str]) -> bool:
        """Whether all files of these patterns are listed (of a model, none: it is listed whole)."""
        return bool(self.files) and set(patterns) <= set(self.patterns)


Table = dict[Kind, dict[str, Pin]]


def is_safe_path(path: str) -> bool:
    """Whether a path of a repository stays below any folder: plain names joined by `/`."""
    parts = path.split("/")
    return len(path) <= 255 and all(_PART.fullmatch(p) and ".." not in p for p in parts)


def matches(path: str, pattern: str) -> bool:
    """Whether a repository's path is meant by a pattern; `*` stays within one folder."""
    given, wanted = PurePosixPath(path).parts, PurePosixPath(pattern).parts
    return len(given) == len(wanted) and all(map(fnmatchcase, given, wanted))


def read(path: str | Path) -> Table:
    """Read the table; one that is not there is empty.

    Raises:
        UserError: no valid table: the line of the entry cannot be told, its name is.
    """
    path = Path(path)
    table: Table = {"models": {}, "datasets": {}}
    try:
        given = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        return table
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            f"cannot be read ({error.__class__.__name__})",
            where=str(path),
            fix="take the file from version control",
        ) from error

    def refuse(what: str) -> UserError:
        return UserError(what, where=str(path), fix="mend it, or take it out and pin it again")

    if given is None:
        return table
    if not isinstance(given, dict) or set(given) - set(KINDS):
        raise refuse("must hold models: and datasets: and nothing else")
    for kind in KINDS:
        entries = given.get(kind)
        entries = {} if entries is None else entries
        if not isinstance(entries, dict):
            raise refuse(f"{kind}: must map repositories to their pins")
        for repo, entry in entries.items():
            if not re.fullmatch(REPO, str(repo)) or ".." in str(repo):
                raise refuse(f"{kind}: {str(repo)[:80]!r} is no OWNER/NAME")
            table[kind][str(repo)] = _entry(str(repo), entry, refuse)
    return table


def _entry(repo: str, entry: Any, refuse: Any) -> Pin:
    allowed = {"revision", "files", "seen", "license", "patterns"}
    if not isinstance(entry, dict) or set(entry) - allowed:
        raise refuse(f"{repo}: has keys other than {', '.join(sorted(allowed))}")
    revision = entry.get("revision")
    if revision is not None and not re.fullmatch(COMMIT, str(revision)):
        raise refuse(f"{repo}: revision is no commit of 40 hex digits")
    listed: dict[str, tuple[str, int]] = {}
    given = entry.get("files") or {}
    if not isinstance(given, dict):
        raise refuse(f"{repo}: files must map paths to sha256 and size")
    for name, facts in given.items():
        if not is_safe_path(str(name)):
            raise refuse(f"{repo}: {str(name)[:80]!r} is no plain path")
        sha256 = facts.get("sha256") if isinstance(facts, dict) else None
        size = facts.get("size") if isinstance(facts, dict) else None
        if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
            raise refuse(f"{repo}: {name} has no sha256 of 64 hex digits")
        if not isinstance(size, int) or size < 0:
            raise refuse(f"{repo}: {name} has no size in bytes")
        listed[str(name)] = (sha256, size)
    patterns = entry.get("patterns") or []
    if not isinstance(patterns, list) or not all(isinstance(p, str) for p in patterns):
        raise refuse(f"{repo}: patterns must be a list of paths")
    return Pin(revision, listed, entry.get("seen"), entry.get("license"), tuple(sorted(patterns)))


def write(path: str | Path, table: Table) -> None:
    """Write the table: sorted, the same bytes for the same pins."""

    def entry(pin: Pin) -> dict[str, Any]:
        listed = {n: {"sha256": h, "size": b} for n, (h, b) in sorted(pin.files.items())}
        patterns = sorted(pin.patterns)
        given = {"seen": pin.seen, "license": pin.license, "patterns": patterns, "files": listed}
        return {"revision": pin.revision, **{k: v for k, v in given.items() if v}}

    out = {kind: {r: entry(p) for r, p in sorted(table[kind].items())} for kind in KINDS}
    text = yaml.safe_dump(out, sort_keys=False, allow_unicode=True, width=100)
    files.write_text(path, _HEAD + text)
