"""What the best constant answer scores on a benchmark's items: a score means something above it.

Nothing is asked of a model: the answer is chosen with the golds in sight, so it is the most that
any answer given to all items alike could reach. Scored by the benchmark's own metric.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from zpdbench.statistics import metrics, tables

Item = Mapping[str, Any]


@dataclass(frozen=True)
class Constant:
    """The best constant answer on some of a benchmark's items.

    Attributes:
        task: a task, or `all` for the benchmark's own score.
        items: `full`, or `subset` for those also asked on the way.
        metric: the benchmark's primary metric.
        answer: what is answered to all; "" where there is no constant (programs), or one a task.
        value: its score in [0, 1]; NaN where there is no constant.
        n_items: how many items.
    """

    benchmark: str
    task: str
    items: str
    metric: str
    answer: str
    value: float
    n_items: int


def constants(items: Sequence[Item]) -> list[Constant]:
    """The best constant answers, in the order of benchmarks and tasks.

    One answer for all of a benchmark's items: a letter, a place among the choices, the most
    frequent number or text. Where the score is macro-F1 over tasks, whose labels have nothing to
    do with one another, one label a task.

    Args:
        items: benchmark task item_id choices letters gold interim, as `benchmarks.items` has them.
    """
    found = []
    for benchmark in tables.benchmark_order([i["benchmark"] for i in items]):
        mine = [i for i in items if i["benchmark"] == benchmark]
        for name, part in (("full", mine), ("subset", [i for i in mine if i["interim"]])):
            if part:
                found += _of(benchmark, name, part)
    return found


def _of(benchmark: str, subset: str, items: Sequence[Item]) -> list[Constant]:
    metric = metrics.primary_metric(benchmark)
    if not all(i["gold"] for i in items):
        return [Constant(benchmark, "all", subset, metric, "", math.nan, len(items))]
    if not tables.is_macro_f1(benchmark):
        answer, value = _best(items)
        named = _named(answer, items)
        return [Constant(benchmark, "all", subset, metric, named, value, len(items))]
    rows, given = [], []
    for task in sorted({i["task"] for i in items}):
        mine = [i for i in items if i["task"] == task]
        answer, value = _best(mine)
        named = _named(answer, mine)
        rows.append(Constant(benchmark, task, subset, metric, named, value, len(mine)))
        given += [(i, answer) for i in mine]
    whole = Constant(benchmark, "all", subset, metric, "", _score(given), len(items))
    return [whole, *rows]


def _best(items: Sequence[Item]) -> tuple[str, float]:
    """(answer, score) of the gold that scores most when given to all; of equals the first."""
    scored = [(_score([(i, gold) for i in items]), gold) for gold in {i["gold"] for i in items}]
    value, answer = min(scored, key=lambda pair: (-pair[0], pair[1]))
    return answer, value


def _score(given: Sequence[tuple[Item, str]]) -> float:
    """The primary metric of these answers to these items, as a run's is computed."""
    run = {"model": "constant", "condition": "constant", "seed": "0", "step": 0, "sample": 0}
    rows = [
        {
            **run,
            **{k: item[k] for k in ("benchmark", "task", "item_id", "gold")},
            "prediction": answer,
            "correct": float(answer == item["gold"]),
        }
        for item, answer in given
    ]
    return float(metrics.benchmark_scores(pl.DataFrame(rows))["value"][0])


def _named(answer: str, items: Sequence[Item]) -> str:
    """An answer as a reader knows it: letter, the choice's text where all items share it, place."""
    if not items[0]["choices"]:
        return answer
    place = int(answer)
    if all(i["letters"] for i in items):
        return chr(ord("A") + place)
    texts = {i["choices"][place].strip() if place < len(i["choices"]) else "" for i in items}
    return texts.pop() if len(texts) == 1 else f"{place + 1}."
