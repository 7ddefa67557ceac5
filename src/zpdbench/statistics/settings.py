"""The hypotheses out of a configuration file, without asking for a whole study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zpdbench.errors import UserError
from zpdbench.hypotheses import Hypotheses

Source = str | Path | Sequence[str | Path]
Lines = dict[tuple[str, ...], tuple[str, int]]


def read(source: Source) -> dict[str, Any]:
    """A configuration's mapping, unchecked; of several files later ones win, key by key.

    Raises:
        UserError: unreadable, or no YAML mapping.
    """
    return _read(source)[0]


def _read(source: Source) -> tuple[dict[str, Any], Lines]:
    from zpdbench import study

    paths = [source] if isinstance(source, str | Path) else list(source)
    merged: dict[str, Any] = {}
    places: Lines = {}
    for path in paths:
        config, lines = study.read_yaml(path)
        _merge(merged, config)
        places |= {key: (str(path), line) for key, line in lines.items()}
    return merged, places


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def read_hypotheses(source: Source, *, need: str | None = None) -> Hypotheses:
    """The `hypotheses` section of a configuration; the rest of the file is not looked at.

    Args:
        source: a study's configuration (or several, merged), or a file with just that section.
        need: a hypothesis that must be there, such as `h3a`.

    Raises:
        UserError: no such section or a mistake in it, with file and line.
    """
    config, places = _read(source)
    last = str(source if isinstance(source, str | Path) else list(source)[-1])
    section = config.get("hypotheses")
    if not isinstance(section, dict) or (need and not section.get(need)):
        name = f"hypotheses.{need}" if need else "hypotheses"
        raise UserError(
            f"no {name}",
            where=last,
            fix="say which models are compared: hypotheses: {h3a: {small: MODEL, large: MODEL}}",
        )
    try:
        return Hypotheses.model_validate(section)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        keys = ("hypotheses", *(str(p) for p in first["loc"]))
        path, line = next(
            (places[keys[:i]] for i in range(len(keys), 0, -1) if keys[:i] in places), (last, 1)
        )
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"unknown key or hypothesis {keys[-1]!r}"
        raise UserError(
            f"{'.'.join(keys)}: {message}", where=f"{path}:{line}", fix="see docs/methods"
        ) from error


def study_names(config: Mapping[str, Any], section: str) -> list[str] | None:
    """Names under a first-level key such as `benchmarks`; None where the file has none."""
    value = config.get(section)
    if isinstance(value, dict) and value:
        return [str(name) for name in value]
    if isinstance(value, list) and value and all(isinstance(v, str) for v in value):
        return list(value)
    return None


def study_seeds(config: Mapping[str, Any]) -> list[str] | None:
    """The planned seeds as labels; None where the file has none."""
    value = config.get("seeds")
    return [str(v) for v in value] if isinstance(value, list) and value else None


def ablated_conditions(config: Mapping[str, Any], hypotheses: Hypotheses) -> list[str]:
    """The conditions that are ablations of the full one."""
    chosen = hypotheses.ablations
    if chosen.conditions is not None:
        return list(chosen.conditions)
    names = study_names(config, "conditions") or []
    return [n for n in names if n.startswith(chosen.prefix) and n != chosen.full]


def main_conditions(config: Mapping[str, Any], hypotheses: Hypotheses) -> list[str] | None:
    """The conditions that RQ1 compares: as configured, else the study's without ablations."""
    if hypotheses.rq1.conditions is not None:
        return list(hypotheses.rq1.conditions)
    names = study_names(config, "conditions")
    if names is None:
        return None
    ablated = ablated_conditions(config, hypotheses)
    return [n for n in names if n not in ablated]


def study_parameters(config: Mapping[str, Any]) -> dict[str, float]:
    """Model -> number of parameters, for the models of the study that say it."""
    models = config.get("models")
    if not isinstance(models, dict):
        return {}
    return {
        str(name): float(m["parameters"])
        for name, m in models.items()
        if isinstance(m, dict) and isinstance(m.get("parameters"), int | float)
    }
