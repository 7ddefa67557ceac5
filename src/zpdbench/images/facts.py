"""What `build-image` recorded of an image, in a file beside it."""

from __future__ import annotations

import json
from pathlib import Path


def facts_file(image: Path) -> Path:
    """Where it stands; the file may be missing."""
    return image.with_suffix(".json")


def read_facts(image: Path) -> dict[str, object]:
    """Digests, sizes and so on; empty if there is no such record."""
    try:
        facts = json.loads(facts_file(image).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return facts if isinstance(facts, dict) else {}
