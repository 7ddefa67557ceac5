"""What must not leave a machine in a bundle: its folders, its user, its tokens, its environment."""

from __future__ import annotations

import getpass
import mmap
import os
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from zpdbench.images import containers

# Values of these say nothing about a person or a machine.
_HARMLESS_NAMES = """
TERM LANG LANGUAGE LC_ALL LC_CTYPE SHELL LS_COLORS COLORTERM EDITOR PAGER SHLVL TZ DISPLAY
PYTHONHASHSEED PYTHONPATH PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE DEBIAN_FRONTEND
"""
# The image's file name, too: a bundle says which image each job ran in.
_HARMLESS = frozenset([*_HARMLESS_NAMES.split(), "APPTAINER_NAME", "SINGULARITY_NAME"])
# The same wherever a job runs, and named by the code and the images' recipe that go into a bundle:
# the system's programs, and where every image has the project and its temporary files.
_EVERYWHERE = (
    *(f"{base}/{kind}" for base in ("", "/usr", "/usr/local") for kind in ("bin", "sbin")),
    containers.CONTAINER_WHEEL,
    containers.CONTAINER_TMP,
)
_SENSITIVE = re.compile(r"TOKEN|SECRET|PASS|KEY|CREDENTIAL|AUTH|COOKIE|PRIVATE|PROXY|_URL|_URI")
_LONG = 16
_SHORT = 6
_PATTERNS: Mapping[str, re.Pattern[bytes]] = {
    "an access token": re.compile(
        rb"\b(hf_[A-Za-z0-9]{20,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}"
        rb"|sk-[A-Za-z0-9_-]{20,}|AKIA[0-9A-Z]{16}|xox[abprs]-[\w-]{10,}|eyJ[\w-]{20,}\.eyJ[\w-]+)"
    ),
    "a private key": re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a password in an address": re.compile(rb"[a-z]+://[^/\s:@\"'{}]+:[^/\s:@\"'{}]+@"),
}
_PATH = re.compile(
    rb"(?<![\w./:~-])/(?:home|root|Users|mnt|scratch|gpfs|lustre|work|data|tmp|var|opt|srv|media"
    rb"|project|projects|cluster|nfs|private)/[^\s\"'<>,;)\]}]+"
)
_TEXT = (
    *(".json", ".yaml", ".tsv", ".txt", ".html", ".svg", ".md", ".jinja", ".in", ".css", ".js"),
    *(".py", ".smk", "Snakefile", ".sh", ".lock", "containers/zpdbench"),
)


def needles(folders: Iterable[str | Path] = ()) -> dict[bytes, str]:
    """Strings of this machine that a bundle must not hold, with what each is.

    Args:
        folders: further folders whose absolute paths must not occur.
    """
    found: dict[str, str] = {}
    for folder in (*folders, Path.home(), Path.cwd()):
        if Path(folder).is_relative_to(containers.CONTAINER_WHEEL):
            continue
        text = str(Path(folder).resolve())
        if text.count("/") >= 2:
            found[text] = "a folder of this machine"
        elif len(text) > 1:
            found[f"{text}/"] = "a folder of this machine"
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = ""
    if user:
        found |= {f"/{base}/{user}": "the user's name" for base in ("home", "Users")}
        if len(user) >= _SHORT:
            found[user] = "the user's name"
    host = socket.gethostname()
    if len(host) >= _SHORT and host != "localhost":
        found[host] = "this machine's name"
    for name, value in os.environ.items():
        sensitive = _SENSITIVE.search(name.upper()) and len(value) >= _SHORT
        harmless = name in _HARMLESS or value.isdigit() or _is_everywhere(value)
        if (sensitive or len(value) >= _LONG) and not harmless:
            found.setdefault(value, f"the environment's {name}")
    return {
        text.encode("utf-8", "surrogateescape"): kind
        for text, kind in sorted(found.items())
        if text.strip()
    }


def _is_everywhere(value: str) -> bool:
    """Whether a value is a path, or several as in PATH, that says nothing of this machine."""
    return all(
        any(Path(path).is_relative_to(folder) for folder in _EVERYWHERE)
        for path in value.split(":")
    )


def scan(name: str, source: Path | bytes, unwanted: Mapping[bytes, str]) -> list[str]:
    """What of this machine is in one member of a bundle (kinds, never the values).

    Every byte is searched, and the text inside Parquet's compressed columns. Patterns of tokens
    are looked for in what the workflow wrote and in its code, not in what a model may have said;
    patterns of paths not in the code either, which has to name some.
    """
    found: list[str] = []
    data: bytes | mmap.mmap
    if isinstance(source, bytes):
        found += _search(name, source, unwanted)
    elif source.stat().st_size:
        with (
            source.open("rb") as handle,
            mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            found += _search(name, data, unwanted)
    if name.endswith(".parquet") and isinstance(source, Path):
        found += _search_parquet(source, unwanted)
    return sorted(set(found))


def _search(name: str, data: bytes | mmap.mmap, unwanted: Mapping[bytes, str]) -> list[str]:
    found = [kind for text, kind in unwanted.items() if data.find(text) >= 0]
    if name.endswith(_TEXT):
        patterns = dict(_PATTERNS)
        if not name.startswith("workflow/"):
            patterns["an absolute path"] = _PATH
        found += [kind for kind, pattern in patterns.items() if pattern.search(data)]
    return found


def _search_parquet(path: Path, unwanted: Mapping[bytes, str]) -> list[str]:
    import polars as pl

    words = {text.decode("utf-8", "replace"): kind for text, kind in unwanted.items()}
    if not words:
        return []
    frame = pl.scan_parquet(path)
    found: list[str] = []
    for column, dtype in frame.collect_schema().items():
        values = pl.col(column)
        if dtype == pl.List(pl.String):
            values = values.list.join("\n")
        elif dtype != pl.String:
            continue
        hit = frame.select(
            values.str.extract_many(list(words), ascii_case_insensitive=False).list.first()
        )
        names = hit.drop_nulls().unique().collect(engine="streaming").to_series().to_list()
        found += [words[text] for text in names]
    return found
