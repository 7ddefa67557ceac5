"""The hypotheses out of a configuration file, without asking for a whole study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zpdbench.errors import UserError
from zpdbench.hypotheses import Hypotheses


def read(path: str | Path) -> dict[str, Any]:
    """A configuration file's mapping, unchecked.

    Raises:
        UserError: unreadable, or no YAML mapping.
    """
    from zpdbench import study

    return study.read_yaml(path)[0]


def read_hypotheses(path: str | Path, *, need: str | None = None) -> Hypotheses:
    """The `hypotheses` section of a configuration; the rest of the file is not looked at.

    Args:
        path: a study's configuration, or a file with nothing but that section.
        need: a hypothesis that must be there, such as `h3a`.

    Raises:
        UserError: no such section or a mistake in it, with the line.
    """
    from zpdbench import study

    config, lines = study.read_yaml(path)
    section = config.get("hypotheses")
    if not isinstance(section, dict) or (need and not section.get(need)):
        name = f"hypotheses.{need}" if need else "hypotheses"
        raise UserError(
            f"no {name}",
            where=str(path),
            fix="say which models are compared: hypotheses: {h3a: {small: MODEL, large: MODEL}}",
        )
    try:
        return Hypotheses.model_validate(section)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        keys = ("hypotheses", *(str(p) for p in first["loc"]))
        line = next((lines[keys[:i]] for i in range(len(keys), 0, -1) if keys[:i] in lines), 1)
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"unknown key or hypothesis {keys[-1]!r}"
        raise UserError(
            f"{'.'.join(keys)}: {message}", where=f"{path}:{line}", fix="see docs/methods"
        ) from error


def study_benchmarks(config: dict[str, Any]) -> list[str] | None:
    """Names of a study's benchmarks, None where the file names none."""
    section = config.get("benchmarks")
    if isinstance(section, dict) and section:
        return [str(name) for name in section]
    if isinstance(section, list) and section and all(isinstance(b, str) for b in section):
        return list(section)
    return None
