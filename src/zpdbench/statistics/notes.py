"""What must stand in every result made of a corpus, as its runs' manifests carry it on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zpdbench import files

_SHORTFALL = ": shortfall, "
_CONTAMINATION = "contamination: "


def of_corpus(adapters: Sequence[str | Path]) -> list[str]:
    """Sources that had too few examples, and examples that hold items; the runs' folders say so.

    Each once, sorted.

    Raises:
        UserError: a folder without a readable manifest.
    """
    found = {
        str(note)
        for folder in adapters
        for note in files.read_manifest(folder).get("notes") or []
        if _SHORTFALL in str(note) or str(note).startswith(_CONTAMINATION)
    }
    # A row's note is parted by semicolons.
    return [note.replace("; ", ", ") for note in sorted(found)]
