"""Why jobs failed, in their own words: Snakemake names only the log file."""

from __future__ import annotations

import re
from pathlib import Path

_LOG = re.compile(r"^ +log: (.+?)(?: \(check log file\(s\) for error details\))?$")
_VERB = re.compile(r"^zpdbench [a-z0-9-]+: ")
_TAIL = 1 << 14


def reasons(snakemake_log: Path) -> list[str]:
    """One line a failed job: the mistake that its log names, else the log's last line."""
    found: dict[str, None] = {}
    failed = False
    for line in snakemake_log.read_text("utf-8", errors="replace").splitlines():
        if line.strip():
            failed = (line.startswith(" ") and failed) or line.startswith("Error in rule ")
        match = _LOG.match(line) if failed else None
        if match and (words := _last_words(Path(match[1]))):
            found[words] = None
    return list(found)


def _last_words(path: Path) -> str:
    try:
        with path.open("rb") as handle:
            handle.seek(max(path.stat().st_size - _TAIL, 0))
            lines = handle.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    mistakes = [line for line in lines if _VERB.match(line)]
    rest = [line for line in lines if line.strip()]
    return f"{path}: {(mistakes or rest)[-1].strip()}" if rest else ""
