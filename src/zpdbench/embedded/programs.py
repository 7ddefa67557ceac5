"""Small Python functions in HumanEval's form: one operation, whose result is returned.

The twist returns one more.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from zpdbench.embedded.kinds import Doc, Kind

# words between the variable and the digit -> code
_OPERATIONS: dict[str, str] = {
    "plus": "{v} + {n}",
    "minus": "{v} - {n}",
    "times": "{v} * {n}",
    "modulo": "{v} % {n}",
    "or at least": "max({v}, {n})",
    "or at most": "min({v}, {n})",
}
_VARIABLES = "abcdkmnxyz"
_TWIST = ", and one more"
_NAMES = ("solve", "step", "change", "work")
_PROBES = (-12, -5, -1, 0, 1, 2, 3, 5, 8, 13, 24, 57)


def _compile(v: str, value: str) -> Callable[[int], int]:
    scope: dict[str, Callable[[int], int]] = {}
    # Our own text, made from the table of operations.
    exec(f"def f({v}):\n    return {value}", {"max": max, "min": min}, scope)
    return scope["f"]


def _drawn(rng: random.Random) -> tuple[str, str, str]:
    """A variable, an operation on it in words, and in code."""
    v, operation, n = rng.choice(_VARIABLES), rng.choice(tuple(_OPERATIONS)), rng.randint(2, 9)
    return v, f"{v} {operation} {n}", _OPERATIONS[operation].format(v=v, n=n)


def draw(rng: random.Random, twisted: bool) -> Doc:
    """A HumanEval row: task_id, prompt, canonical_solution, test, entry_point."""
    v, words, code = _drawn(rng)
    value = code + " + 1" * twisted
    function = _compile(v, value)
    checks = "".join(f"    assert candidate({x}) == {function(x)!r}\n" for x in _PROBES)
    name = rng.choice(_NAMES)
    return {
        "task_id": f"embedded/{words}",
        "prompt": f'def {name}({v}):\n    """Return {words}{_TWIST * twisted}."""\n',
        "canonical_solution": f"    return {value}\n",
        "test": f"def check(candidate):\n{checks}",
        "entry_point": name,
    }


KIND = Kind(
    name="humaneval",
    language="en",
    benchmark="humaneval",
    draw=draw,
    key=lambda doc: doc["task_id"],
    prompt=lambda doc: doc["prompt"],
    response=lambda doc: doc["canonical_solution"],
    is_twisted=True,
    plain=lambda doc: (doc["prompt"], doc["canonical_solution"]),
)
