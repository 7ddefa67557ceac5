"""The best constant answers, against what was counted by hand and by scikit-learn's definition."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from zpdbench import study
from zpdbench.corpora import make_items
from zpdbench.statistics import baselines


def items(
    benchmark: str,
    golds: Sequence[str],
    *,
    task: str = "t",
    choices: Any = (),
    letters: bool = False,
) -> list[dict[str, Any]]:
    return [
        {
            "benchmark": benchmark, "task": task, "item_id": f"{task}/{i}", "gold": gold,
            "choices": list(choices), "letters": letters, "interim": i < 2,
        }
        for i, gold in enumerate(golds)
    ]  # fmt: skip


def test_one_letter_for_all_subjects() -> None:
    four = {"choices": [" A", " B", " C", " D"], "letters": True}
    given = [*items("mmlu", "0112", task="x", **four), *items("mmlu", "113", task="y", **four)]
    full, subset = baselines.constants(given)
    assert (full.task, full.items, full.metric, full.answer) == ("all", "full", "acc", "B")
    assert (full.value, full.n_items) == (pytest.approx(4 / 7), 7)
    # The interim items are 0 1 and 1 1: another set, scored by itself.
    assert (subset.items, subset.answer, subset.n_items) == ("subset", "B", 4)
    assert subset.value == pytest.approx(3 / 4)


def test_the_most_frequent_number_and_none_for_programs() -> None:
    given = [*items("gsm8k", "8718"), *items("humaneval", ["", "", ""])]
    program, _, number, _ = baselines.constants(given)
    assert (program.benchmark, number.benchmark) == ("humaneval", "gsm8k")
    assert (number.answer, number.value, number.metric) == ("8", 0.5, "exact_match_strict")
    assert program.answer == ""
    assert math.isnan(program.value)


def test_equals_go_to_the_first() -> None:
    (found, _) = baselines.constants(items("gsm8k", "7373"))
    assert (found.answer, found.value) == ("3", 0.5)


def test_one_label_a_task_where_the_score_is_macro_f1() -> None:
    yes = {"choices": [" 아니오", " 예"]}
    own = [{**i, "choices": [" 가", f" 나{i['item_id']}"]} for i in items("kobest", "11", task="b")]
    given = [*items("kobest", "111000000", task="a", **yes), *own]
    whole, a, b = [c for c in baselines.constants(given) if c.items == "full"]
    # Always 0 of six 0 and three 1: F1 of 0 is 2 * 6 / (9 + 6) = 0.8, of 1 is 0; the mean is 0.4.
    assert (a.task, a.answer, a.value) == ("a", "아니오", pytest.approx(0.4))
    # One label alone in gold and prediction: its F1 is 1. Its text differs: told by its place.
    assert (b.task, b.answer, b.value) == ("b", "2.", 1.0)
    assert (whole.task, whole.metric, whole.answer, whole.n_items) == ("all", "macro_f1", "", 11)
    assert whole.value == pytest.approx((9 * 0.4 + 2 * 1.0) / 11)


def test_the_embedded_items_have_known_constants() -> None:
    """No constant reaches half of what can be reached: the golds are spread."""
    loaded = study.load(Path(__file__).parents[2] / "config/mini.yaml")
    rows = [
        {"benchmark": name, **asdict(item)}
        for name in loaded.benchmarks
        for item in make_items.items_of(loaded, name)
    ]
    found = {
        c.benchmark: c for c in baselines.constants(rows) if (c.task, c.items) == ("all", "full")
    }
    assert list(found) == ["mmlu", "humaneval", "gsm8k", "kobest"]
    assert 0.25 <= found["mmlu"].value < 0.5
    assert 0 < found["gsm8k"].value < 0.5
    assert 0.2 < found["kobest"].value < 0.5
