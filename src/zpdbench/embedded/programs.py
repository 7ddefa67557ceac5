"""Small Python functions in HumanEval's form: one to four operations, one a line."""

from __future__ import annotations

import random
from collections.abc import Callable

from zpdbench.embedded.kinds import Doc, Kind

# name -> (words, line of code); the argument n is a single digit.
_OPERATIONS: dict[str, tuple[str, str]] = {
    "add": ("add {n}", "x = x + {n}"),
    "subtract": ("subtract {n}", "x = x - {n}"),
    "multiply": ("multiply by {n}", "x = x * {n}"),
    "remainder": ("take the remainder by {n}", "x = x % {n}"),
    "maximum": ("take at least {n}", "x = max(x, {n})"),
    "minimum": ("take at most {n}", "x = min(x, {n})"),
    "square": ("square it", "x = x * x"),
    "negate": ("negate it", "x = -x"),
    "absolute": ("take the absolute value", "x = abs(x)"),
}
_FAMILIAR = ("add", "subtract", "multiply", "negate")
_NAMES = ("solve", "step", "change", "work", "make", "apply")
_PROBES = (-12, -5, -1, 0, 1, 3, 7, 10, 24)

MAX_STEPS = 4
FAMILIAR_STEPS = 2


def _operation(rng: random.Random, names: tuple[str, ...]) -> tuple[str, str]:
    words, line = _OPERATIONS[rng.choice(names)]
    n = rng.randint(2, 9)
    return words.format(n=n), line.format(n=n)


def _compile(lines: list[str]) -> Callable[[int], int]:
    scope: dict[str, Callable[[int], int]] = {}
    body = "".join(f"    {line}\n" for line in lines)
    # Our own text, made three lines above from the table of operations.
    exec(f"def f(x):\n{body}    return x\n", {"abs": abs, "max": max, "min": min}, scope)
    return scope["f"]


def draw(rng: random.Random, familiar: bool) -> Doc:
    """A HumanEval row: task_id, prompt, canonical_solution, test, entry_point."""
    names = _FAMILIAR if familiar else tuple(_OPERATIONS)
    count = rng.randint(1, FAMILIAR_STEPS if familiar else MAX_STEPS)
    operations = [_operation(rng, names) for _ in range(count)]
    words = ", then ".join(w for w, _ in operations)
    lines = [line for _, line in operations]
    name = rng.choice(_NAMES)
    docstring = f"Take x, {words}."
    body = "".join(f"    {line}\n" for line in [*lines, "return x"])
    function = _compile(lines)
    checks = "".join(f"    assert candidate({x}) == {function(x)}\n" for x in _PROBES)
    return {
        "task_id": f"embedded/{docstring}",
        "prompt": f'def {name}(x):\n    """{docstring}"""\n',
        "canonical_solution": body,
        "test": f"def check(candidate):\n{checks}",
        "entry_point": name,
    }


def plain(rng: random.Random) -> str:
    """Single operations with their words as comments, as in a script."""
    lines = []
    for _ in range(rng.randint(2, 4)):
        words, line = _operation(rng, tuple(_OPERATIONS))
        lines.append(f"{line}  # {words}\n")
    return "".join(lines)


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
