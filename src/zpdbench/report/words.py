"""The report's words in English and Korean."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from markupsafe import Markup, escape

LANGUAGES = ("en", "ko")


@cache
def _words() -> Mapping[str, Mapping[str, str]]:
    text = (Path(__file__).parent / "words.yaml").read_text("utf-8")
    loaded: dict[str, dict[str, str]] = yaml.safe_load(text)
    return loaded


def label(key: str, **values: Any) -> dict[str, str]:
    """Language -> text, `values` filled in."""
    return {k: _words()[key][k].format(**values) for k in LANGUAGES}


def words(key: str, **values: Any) -> Markup:
    """The text in every language, each marked with its own; values are escaped."""
    return Markup("").join(
        Markup('<span class="{0}" lang="{0}">{1}</span>').format(
            k, Markup(_words()[key][k]).format(**values)
        )
        for k in LANGUAGES
    )


def both(key: str, **values: Any) -> str:
    """The text in all languages for an attribute, which cannot switch."""
    return " / ".join(str(v) for v in label(key, **values).values())


def plain(values: Mapping[str, str]) -> Markup:
    """A label as the page shows it."""
    return Markup("").join(
        Markup('<span class="{0}" lang="{0}">{1}</span>').format(k, v) if k else escape(v)
        for k, v in values.items()
    )
