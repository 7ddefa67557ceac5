"""The hypotheses out of a configuration file, without asking for a whole study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from zpdbench.errors import UserError
from zpdbench.hypotheses import Hypotheses
from zpdbench.text import form

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
    """The `hypotheses` section of a configuration; of the rest only names are looked at.

    Args:
        source: a study's configuration (or several, merged), or a file with just that section.
            What the hypotheses leave to the study is filled in from it.
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
        return resolve(Hypotheses.model_validate(section), config, source)
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


def resolve(hypotheses: Hypotheses, config: Mapping[str, Any], source: Source) -> Hypotheses:
    """The hypotheses with what they leave to the study filled in, as far as the file has it."""
    return hypotheses.resolve(
        design=_design(config, source),
        models=study_names(config, "models"),
        conditions=study_names(config, "conditions"),
        benchmarks=study_names(config, "benchmarks"),
        parameters=study_parameters(config),
        forms=study_forms(config),
    )


_WHOLE = ("seeds", "models", "conditions", "corpus", "training", "benchmarks")


def _design(config: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """What a registration covers: of a whole study `Study.design`, else the seeds there are.

    Raises:
        UserError: a mistake in a whole study.
    """
    if not all(isinstance(config.get(key), dict | list) for key in _WHOLE):
        return {"seeds": config["seeds"]} if study_seeds(config) else {}
    from zpdbench import study

    paths = [source] if isinstance(source, str | Path) else list(source)
    return study.parse(config, paths).design


def study_forms(config: Mapping[str, Any]) -> dict[str, str]:
    """Benchmark -> the form it is asked in (`zpdbench.text.form`), as far as the file says it."""
    asked, benchmarks = config.get("generations"), config.get("benchmarks")
    if not isinstance(benchmarks, dict):
        return {}
    forms = {}
    for name, section in benchmarks.items():
        said: dict[str, Any] = {"apply_chat_template": False, "fewshot_as_multiturn": True}
        for part in (asked, section):
            if isinstance(part, dict):
                said |= {k: part[k] for k in said if part.get(k) is not None}
        forms[str(name)] = form.name(**said)
    return forms


def inapplicable(hypotheses: Hypotheses, name: str, config: Mapping[str, Any]) -> str:
    """Why a hypothesis cannot be looked at in the study of the file; "" where it can."""
    return hypotheses.inapplicable(
        name,
        models=study_names(config, "models"),
        conditions=study_names(config, "conditions"),
        benchmarks=study_names(config, "benchmarks"),
    )


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
