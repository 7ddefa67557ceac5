"""Small Python functions in HumanEval's form: one to three assignments, one a line."""

from __future__ import annotations

import random
from collections.abc import Callable

from zpdbench.embedded.kinds import Doc, Kind

# words between the operand and the digit -> code
_OPERATIONS: dict[str, str] = {
    "plus": "{v} + {n}",
    "minus": "{v} - {n}",
    "times": "{v} * {n}",
    "modulo": "{v} % {n}",
    "or at least": "max({v}, {n})",
    "or at most": "min({v}, {n})",
}
_FAMILIAR = ("plus", "minus", "times")
_NAMES = ("solve", "step", "change", "work")
_VARIABLES = ("a", "b", "c")
_PROBES = (-12, -5, -1, 0, 1, 2, 3, 5, 8, 13, 24, 57)

MAX_STEPS = len(_VARIABLES)
FAMILIAR_STEPS = 1


def _assignments(
    rng: random.Random, names: tuple[str, ...], count: int
) -> tuple[list[str], list[str]]:
    """Each assignment in words and in code; every one works on the one before."""
    words, code, operand = [], [], "x"
    for variable in _VARIABLES[:count]:
        name, n = rng.choice(names), rng.randint(2, 9)
        words.append(f"{variable} is {operand} {name} {n}")
        code.append(f"{variable} = {_OPERATIONS[name].format(v=operand, n=n)}")
        operand = variable
    return words, code


def _compile(body: str) -> Callable[[int], int]:
    scope: dict[str, Callable[[int], int]] = {}
    # Our own text, made from the table of operations.
    exec(f"def f(x):\n{body}", {"max": max, "min": min}, scope)
    return scope["f"]


def draw(rng: random.Random, familiar: bool) -> Doc:
    """A HumanEval row: task_id, prompt, canonical_solution, test, entry_point."""
    names = _FAMILIAR if familiar else tuple(_OPERATIONS)
    count = rng.randint(1, FAMILIAR_STEPS if familiar else MAX_STEPS)
    words, code = _assignments(rng, names, count)
    last = _VARIABLES[count - 1]
    name = rng.choice(_NAMES)
    docstring = f"{', '.join(words)}. Return {last}."
    body = "".join(f"    {line}\n" for line in [*code, f"return {last}"])
    function = _compile(body)
    checks = "".join(f"    assert candidate({x}) == {function(x)}\n" for x in _PROBES)
    return {
        "task_id": f"embedded/{docstring}",
        "prompt": f'def {name}(x):\n    """{docstring}"""\n',
        "canonical_solution": body,
        "test": f"def check(candidate):\n{checks}",
        "entry_point": name,
    }


def plain(doc: Doc) -> tuple[str, str]:
    """The function as it stands in a file."""
    return doc["prompt"], doc["canonical_solution"]


KIND = Kind(
    name="humaneval",
    language="en",
    benchmark="humaneval",
    draw=draw,
    key=lambda doc: doc["task_id"],
    prompt=lambda doc: doc["prompt"],
    response=lambda doc: doc["canonical_solution"],
    plain=plain,
)
