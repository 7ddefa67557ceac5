"""Every mistake of a user is told with what to do next."""

from __future__ import annotations

import ast
from pathlib import Path

from zpdbench.errors import UserError


def _calls(path: Path) -> list[ast.Call]:
    return [
        node
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", getattr(node.func, "attr", "")) == "UserError"
    ]


def test_every_mistake_has_a_next_step(root: Path) -> None:
    without = [
        f"{path.relative_to(root)}:{call.lineno}"
        for path in sorted((root / "src").rglob("*.py"))
        for call in _calls(path)
        if not any(keyword.arg == "fix" for keyword in call.keywords)
    ]
    assert without == []


def test_a_mistake_is_one_line() -> None:
    error = UserError("is wrong", where="config.yaml:3", fix="mend it")
    assert str(error) == "config.yaml:3: is wrong (mend it)"
