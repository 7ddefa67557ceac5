"""What must stand in every result made of a corpus, as its runs' manifests carry it on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from zpdbench import files

_SHORTFALL = ": shortfall, "


def shortfalls(adapters: Sequence[str | Path]) -> list[str]:
    """Sources that had fewer examples than were asked, once each; the runs' folders say so.

    Raises:
        UserError: a folder without a readable manifest.
    """
    found = {
        str(note)
        for folder in adapters
        for note in files.read_manifest(folder).get("notes") or []
        if _SHORTFALL in str(note)
    }
    # A row's note is parted by semicolons.
    return [note.replace("; ", ", ") for note in sorted(found)]
