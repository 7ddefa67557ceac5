"""Conditions by name: the built-in ones, and those that other packages bring by entry point."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from zpdbench.errors import UserError

if TYPE_CHECKING:
    from zpdbench.curriculum.conditions import Condition, Told
    from zpdbench.study import Study

GROUP = "zpdbench.conditions"
_BUILT_IN = {
    "random": "Random",
    "easy_to_hard": "EasyToHard",
    "hard_to_easy": "HardToEasy",
    "zpd": "Zpd",
    "competence_pacing": "CompetencePacing",
    "success_probability": "SuccessProbability",
}


def names() -> list[str]:
    """All orders that a configuration may name."""
    return sorted({*_BUILT_IN, *(e.name for e in entry_points(group=GROUP))})


def find(order: str) -> type[Condition]:
    """The class behind an order's name.

    Raises:
        UserError: nothing has this name.
    """
    if order in _BUILT_IN:
        module = import_module("zpdbench.curriculum.conditions")
        return getattr(module, _BUILT_IN[order])
    for entry in entry_points(group=GROUP):
        if entry.name == order:
            return entry.load()
    raise UserError(
        f"no order is called {order!r}",
        where="conditions",
        fix=f"one of {', '.join(names())}, or install the package that brings it",
    )


def options(name: str, order: str, given: dict[str, Any]) -> Any:
    """A condition's checked options.

    Raises:
        UserError: the order is unknown, or an option is unknown or has a bad value.
    """
    from pydantic import ValidationError

    cls = find(order)
    try:
        return cls.Options.model_validate(given)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(p) for p in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = "unknown option"
        allowed = ", ".join(cls.Options.model_fields) or "none"
        raise UserError(
            f"{key}: {message}" if key else message,
            where=f"conditions.{name}.options",
            fix=f"options of {order}: {allowed}",
        ) from error


def make(name: str, order: str, given: dict[str, Any], told: Told) -> Condition:
    """The condition `name` of a study, ready for a run.

    Raises:
        UserError: as `options`, or the options do not fit the run.
    """
    try:
        return find(order)(told, options(name, order, given))
    except ValueError as error:
        raise UserError(
            str(error),
            where=f"conditions.{name}.options",
            fix="docs/conditions.md lists each order's options",
        ) from error


def check(study: Study) -> None:
    """Check every condition's order, options and whether they fit the run, before any long work.

    Raises:
        UserError: the first mistake.
    """
    training = study.training
    for name, condition in study.conditions.items():
        chosen = options(name, condition.order, condition.options)
        try:
            find(condition.order).check(
                chosen, training.steps, training.batch_size, _most_examples(study)
            )
        except ValueError as error:
            raise UserError(
                str(error),
                where=f"conditions.{name}.options",
                fix="make the block smaller (update_every) or the pool larger (pool_size)",
            ) from error


def _most_examples(study: Study) -> int:
    """Different training examples that a seed can have: as far as the configuration tells."""
    drawn = study.training.steps * study.training.batch_size
    asked = [source.examples for source in study.corpus.sources.values()]
    if None in asked:
        return drawn
    return max(1, min(drawn, sum(n for n in asked if n) - study.corpus.probe))
