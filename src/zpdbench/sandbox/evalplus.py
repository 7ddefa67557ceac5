"""HumanEval+ problems as programs: its inputs and reference solution as a `check` function.

A HumanEval+ problem has inputs (`base_input`, `plus_input`), a reference solution and a tolerance
in place of a test. The text made here does in the tests' process what EvalPlus 0.3.1 does
(evalplus/eval, unsafe_execute): the reference is run on each input, and the candidate's result is
compared with its result.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zpdbench.errors import UserError

_TEMPLATE = """\
import copy as _copy

inf, nan = float("inf"), float("nan")
_ATOL = {atol!r}
_INPUTS = {inputs!r}
_names = {{}}
exec({reference!r}, _names)
_reference = _names[{entry_point!r}]


def _floats(value):
    if isinstance(value, float):
        return True
    return isinstance(value, (list, tuple)) and bool(value) and all(
        isinstance(item, float) for item in value
    )


def _close(out, expected, atol):
    if isinstance(expected, (list, tuple)):
        return (
            isinstance(out, (list, tuple))
            and len(out) == len(expected)
            and all(_close(o, e, atol) for o, e in zip(out, expected))
        )
    if not isinstance(expected, (int, float)) or not isinstance(out, (int, float)):
        return False
    if expected in (inf, -inf) or out in (inf, -inf):
        return out == expected
    return abs(out - expected) <= atol + 1e-07 * abs(expected)


def _same(out, expected):
    if out == expected:
        return True
    atol = _ATOL or (1e-6 if _floats(expected) else 0)
    return bool(atol) and type(out) is type(expected) and _close(out, expected, atol)


def check(candidate):
    for number, arguments in enumerate(_INPUTS):
        out = candidate(*_copy.deepcopy(arguments))
        if {entry_point!r} == "find_zero":
            # Any root will do.
            good = abs(_names["poly"](*_copy.deepcopy(arguments), out)) <= _ATOL
        else:
            good = _same(out, _reference(*_copy.deepcopy(arguments)))
        assert good, "input " + str(number)
"""


def plus_test(problem: Mapping[str, Any], base: bool = True) -> str:
    """The text of a test module for one record of a HumanEval+ file.

    Args:
        problem: a record with prompt, canonical_solution, entry_point, base_input, plus_input
            and atol.
        base: whether the original inputs come first; else only the added ones are run.

    Raises:
        UserError: the record lacks a field.
    """
    try:
        inputs = [*(problem["base_input"] if base else []), *problem["plus_input"]]
        return _TEMPLATE.format(
            atol=problem["atol"],
            inputs=inputs,
            reference=problem["prompt"] + problem["canonical_solution"],
            entry_point=problem["entry_point"],
        )
    except KeyError as error:
        raise UserError(
            f"no field {error.args[0]!r}",
            where=str(problem.get("task_id", "HumanEval+ record")),
            fix="is this HumanEval+'s own file?",
        ) from None
