"""From answers to a run's scores, as lm-evaluation-harness's tasks of the same names define them.

HumanEval: mean over items of the mean over samples (pass@1). GSM8K: strict exact match. MMLU:
accuracy over all items, subjects weighted by their size. KoBEST: mean over its tasks of macro-F1,
each weighted by its number of items (`weight_by_size` of the harness's groups).
A benchmark that is none of these is scored by the mean over items.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import polars as pl

from zpdbench import grid
from zpdbench.benchmarks import definition
from zpdbench.errors import UserError
from zpdbench.statistics.tables import is_macro_f1

RUN = ("model", "condition", "seed")
POINT = (*RUN, "step", "benchmark")

PASS_AT = (2, 5, 10, 20, 50, 100)
"""The k of pass@k beside pass@1, as far as there are samples."""

_METRIC = {"humaneval": "pass@1", "gsm8k": "exact_match_strict"}


def primary_metric(benchmark: str) -> str:
    """Name of the metric that stands for a benchmark."""
    if is_macro_f1(benchmark):
        return "macro_f1"
    # Only by name: a table from outside may call a benchmark by the path of a file.
    programs = benchmark in definition.names() and definition.load(benchmark).answer == "program"
    if programs or benchmark.startswith("humaneval"):
        return "pass@1"
    return _METRIC.get(benchmark, "acc")


def benchmark_scores(table: pl.DataFrame) -> pl.DataFrame:
    """The score of every run, step and benchmark.

    Args:
        table: checked verdicts, as `tables.read_scores` returns them.

    Returns:
        model condition seed step benchmark metric value n_items, sorted; value in [0, 1].

    Raises:
        UserError: KoBEST rows without task, prediction and gold.
    """
    parts = []
    names = sorted(table["benchmark"].cast(pl.String).unique().to_list())
    by_f1 = pl.col("benchmark").cast(pl.String).is_in([n for n in names if is_macro_f1(n)])
    f1_rows, other = table.filter(by_f1), table.filter(~by_f1)
    if not other.is_empty():
        parts.append(_item_means(other, POINT, "correct"))
    if not f1_rows.is_empty():
        tasks = macro_f1(f1_rows)
        parts.append(_by_size(tasks))
    result = pl.concat(parts)
    metric = {name: primary_metric(name) for name in names}
    return (
        result.with_columns(
            pl.col(c).cast(pl.String) for c in ("model", "condition", "seed", "benchmark")
        )
        .with_columns(pl.col("benchmark").replace_strict(metric).alias("metric"))
        .select(*POINT, "metric", "value", "n_items")
        .sort(POINT)
    )


def macro_f1(table: pl.DataFrame) -> pl.DataFrame:
    """Macro-averaged F1 of every run, step and task, over labels present in gold or prediction.

    F1 of a label: 2 TP / (predicted + gold), as sklearn's f1_score(average="macro"), which
    lm-evaluation-harness uses for KoBEST.

    Returns:
        model condition seed step benchmark task value n_items.

    Raises:
        UserError: a column is missing, a value is, or `correct` contradicts the two labels.
    """
    lacking = [c for c in ("prediction", "gold") if c not in table.columns]
    if "task" not in table.columns or (table["task"].cast(pl.String) == "").any():
        lacking.insert(0, "task")
    if not lacking:
        lacking = [
            c for c in ("prediction", "gold") if (table[c].is_null() | (table[c] == "")).any()
        ]
    name = str(table["benchmark"][0])
    if lacking:
        raise UserError(
            f"{name} is scored by macro-F1, and some of its rows have no {', '.join(lacking)}",
            fix="give task, prediction and gold in every KoBEST row, or leave it out by "
            "--benchmarks",
        )
    against = table.filter((pl.col("prediction") == pl.col("gold")) != (pl.col("correct") > 0.5))
    if not against.is_empty():
        row = against.row(0, named=True)
        raise UserError(
            f"{name} item {row['item_id']} of task {row['task']}: correct is "
            f"{row['correct']:g} but prediction is {row['prediction']!r} and gold "
            f"{row['gold']!r}",
            fix=f"{len(against)} such rows: write both labels in one spelling",
        )
    by = [*POINT, "task"]
    counts = table.group_by(*by, "gold", "prediction").len()
    predicted = counts.group_by(*by, pl.col("prediction").alias("label")).agg(
        pl.col("len").sum().alias("predicted")
    )
    gold = counts.group_by(*by, pl.col("gold").alias("label")).agg(
        pl.col("len").sum().alias("actual")
    )
    hits = counts.filter(pl.col("gold") == pl.col("prediction")).select(
        *by, pl.col("gold").alias("label"), pl.col("len").alias("hits")
    )
    key = [*by, "label"]
    joined = predicted.join(gold, on=key, how="full", coalesce=True).join(hits, on=key, how="left")
    # Summation order is fixed by the sort, so that bytes do not depend on the group order.
    f1 = joined.sort(key).with_columns(
        (
            2
            * pl.col("hits").fill_null(0)
            / (pl.col("predicted").fill_null(0) + pl.col("actual").fill_null(0))
        ).alias("f1")
    )
    sizes = counts.group_by(by).agg(pl.col("len").sum().cast(pl.Int64).alias("n_items"))
    return (
        f1.group_by(by, maintain_order=True)
        .agg(pl.col("f1").mean().alias("value"))
        .join(sizes, on=by, how="left")
        .sort(by)
    )


def task_scores(table: pl.DataFrame) -> pl.DataFrame:
    """Every metric of every run, step, benchmark and task (`all` is the benchmark's own row).

    Returns:
        model condition seed step benchmark task metric value n_items, sorted. The benchmark's
        primary metric comes first; then accuracy beside macro-F1, flexible beside strict
        extraction, pass@k of programs with several samples, tasks, groups of tasks (mmlu_stem),
        acc_norm, and the count of each status but `ok` and `passed`.
    """
    columns = [*POINT, "task", "metric", "value", "n_items"]
    text = [pl.col(c).cast(pl.String) for c in ("model", "condition", "seed", "benchmark")]
    parts = [benchmark_scores(table).with_columns(pl.lit("all").alias("task")).select(columns)]
    has_tasks = table.filter(pl.col("task").cast(pl.String) != "")
    if not has_tasks.is_empty():
        parts.append(
            _item_means(has_tasks, [*POINT, "task"], "correct")
            .with_columns(*text, pl.col("task").cast(pl.String))
            .with_columns(
                pl.when(pl.col("benchmark").str.starts_with("kobest"))
                .then(pl.lit("acc"))
                .otherwise(_metric_names(table))
                .alias("metric")
            )
            .select(columns)
        )
        f1_rows = has_tasks.filter(pl.col("benchmark").cast(pl.String).str.starts_with("kobest"))
        if not f1_rows.is_empty():
            parts.append(
                macro_f1(f1_rows)
                .with_columns(*text, pl.col("task").cast(pl.String))
                .with_columns(pl.lit("macro_f1").alias("metric"))
                .select(columns)
            )
            # The mean over tasks of accuracy, so that it can be compared with macro-F1.
            parts.append(
                _by_size(_item_means(f1_rows, [*POINT, "task"], "correct"))
                .with_columns(*text, pl.lit("all").alias("task"), pl.lit("acc").alias("metric"))
                .select(columns)
            )
    if "correct_flexible" in table.columns:
        flexible = table.filter(pl.col("correct_flexible").is_not_null())
        flexible = flexible.filter(~pl.col("correct_flexible").is_nan())
        if not flexible.is_empty():
            parts.append(
                _item_means(flexible, POINT, "correct_flexible")
                .with_columns(*text)
                .with_columns(
                    pl.lit("all").alias("task"), pl.lit("exact_match_flexible").alias("metric")
                )
                .select(columns)
            )
    if not has_tasks.is_empty():
        parts += [p.with_columns(*text).select(columns) for p in _beside(has_tasks)]
    several = _pass_at_k(table)
    if not several.is_empty():
        parts.append(several.select(columns))
    if "status" in table.columns:
        odd = table.filter(
            pl.col("status").is_not_null() & ~pl.col("status").is_in(["ok", "passed"])
        )
        if not odd.is_empty():
            sizes = table.group_by(POINT).agg(pl.len().cast(pl.Int64).alias("n_items"))
            parts.append(
                odd.group_by(*POINT, "status")
                .agg(pl.len().cast(pl.Float64).alias("value"))
                .join(sizes, on=POINT)
                .with_columns(*text)
                .with_columns(
                    pl.lit("all").alias("task"),
                    (pl.lit("count_") + pl.col("status")).alias("metric"),
                )
                .select(columns)
            )
    result = pl.concat(parts)
    return result.sort(*POINT, pl.col("task") != "all", "task", "metric")


def _beside(table: pl.DataFrame) -> list[pl.DataFrame]:
    """Rows with tasks: the harness's groups of MMLU's subjects, and HellaSwag's acc_norm."""
    parts = []
    subjects = table.filter(pl.col("benchmark").cast(pl.String) == "mmlu")
    groups = definition.load("mmlu").groups
    names = {task: f"mmlu_{group}" for group, members in groups.items() for task in members}
    grouped = subjects.with_columns(
        pl.col("task").cast(pl.String).replace_strict(names, default=None, return_dtype=pl.String)
    ).filter(pl.col("task").is_not_null())
    if not grouped.is_empty():
        means = _item_means(grouped, [*POINT, "task"], "correct")
        parts.append(means.with_columns(pl.lit("acc").alias("metric")))
    if "correct_norm" in table.columns:
        normed = table.filter(
            pl.col("correct_norm").is_not_null() & ~pl.col("correct_norm").is_nan()
        )
        if not normed.is_empty():
            means = _item_means(normed, [*POINT, "task"], "correct_norm")
            parts.append(
                means.with_columns(
                    pl.col("task").cast(pl.String), pl.lit("acc_norm").alias("metric")
                )
            )
    return parts


def _pass_at_k(table: pl.DataFrame) -> pl.DataFrame:
    """pass@k, k from `PASS_AT`, of the program benchmarks: the mean over items of the estimator.

    An item's own number of samples goes into its estimate; a k is given where every item of the
    point has that many.
    """
    from zpdbench.sandbox.passk import pass_at_k

    names = [
        n
        for n in table["benchmark"].cast(pl.String).unique().to_list()
        if primary_metric(n) == "pass@1"
    ]
    counts = (
        table.filter(pl.col("benchmark").cast(pl.String).is_in(names))
        .with_columns(pl.col(c).cast(pl.String) for c in ("model", "condition", "benchmark"))
        .group_by(*POINT, "task", "item_id")
        .agg(pl.len().alias("n"), (pl.col("correct") > 0.5).sum().alias("c"))
        .group_by(*POINT, "n", "c")
        .agg(pl.len().cast(pl.Int64).alias("items"))
        .sort(*POINT, "n", "c")
    )
    points: dict[tuple[Any, ...], list[tuple[int, int, int]]] = {}
    for *point, n, c, items in counts.iter_rows():
        points.setdefault(tuple(point), []).append((n, c, items))
    rows = []
    for key, groups in points.items():
        n_items = sum(items for _, _, items in groups)
        for k in (k for k in PASS_AT if k <= min(n for n, _, _ in groups)):
            value = math.fsum(items * pass_at_k(n, c, k) for n, c, items in groups) / n_items
            rows.append((*key, "all", f"pass@{k}", value, n_items))
    schema = {c: counts.schema[c] for c in POINT} | {"task": pl.String, "metric": pl.String}
    return pl.DataFrame(
        rows, schema=schema | {"value": pl.Float64, "n_items": pl.Int64}, orient="row"
    ).with_columns(pl.col("seed").cast(pl.String))


def _by_size(tasks: pl.DataFrame) -> pl.DataFrame:
    """The mean of `value` over each point's tasks, weighted by `n_items`, and their sum."""
    return tasks.group_by(POINT, maintain_order=True).agg(
        (pl.col("value") * pl.col("n_items")).sum() / pl.col("n_items").sum(),
        pl.col("n_items").sum(),
    )


def _metric_names(table: pl.DataFrame) -> pl.Expr:
    names = table["benchmark"].cast(pl.String).unique().to_list()
    return pl.col("benchmark").replace_strict({n: primary_metric(n) for n in names})


def _item_means(table: pl.DataFrame, by: list[str] | tuple[str, ...], column: str) -> pl.DataFrame:
    """Mean over items of the mean over an item's samples."""
    many = sorted(table.filter(pl.col("sample") != 0)["benchmark"].cast(pl.String).unique())
    repeated = pl.col("benchmark").cast(pl.String).is_in(many)
    single = (
        table.filter(~repeated)
        .group_by(by)
        .agg(
            pl.col(column).cast(pl.Float64).mean().alias("value"),
            pl.len().cast(pl.Int64).alias("n_items"),
        )
    )
    if not many:
        return single.sort(by)
    per_item = (
        table.filter(repeated)
        .group_by(*by, *(c for c in ("task", "item_id") if c not in by))
        .agg(pl.col(column).cast(pl.Float64).mean().alias("value"))
        .sort(*by, "item_id")
        .group_by(by, maintain_order=True)
        .agg(pl.col("value").mean(), pl.len().cast(pl.Int64).alias("n_items"))
    )
    return pl.concat([single, per_item]).sort(by)


def with_interim_items(
    tables: Iterable[pl.DataFrame],
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame | None]]:
    """Fine-tuned runs with the items that each was asked on the way, then untuned ones.

    One table of verdicts is in memory at a time but for the untuned models', which come last, each
    with the items of all fine-tuned runs: None where there is no such run.
    """
    bases: list[pl.DataFrame] = []
    subset: pl.DataFrame | None = None
    for table in tables:
        tuned = table.filter(pl.col("condition") != grid.BASE)
        untuned = table.filter(pl.col("condition") == grid.BASE)
        if not untuned.is_empty():
            bases.append(untuned)
        if not tuned.is_empty():
            items = interim_items(tuned)
            yield tuned, items
            new = items if subset is None else items.join(subset, on="benchmark", how="anti")
            subset = new if subset is None else pl.concat([subset, new])
    for untuned in bases:
        yield untuned, subset


def interim_items(table: pl.DataFrame) -> pl.DataFrame:
    """The items that were asked on the way: benchmark task item_id, from steps before the last."""
    tuned = table.filter(pl.col("step") > 0)
    last = tuned.group_by("benchmark").agg(pl.col("step").max().alias("_last"))
    return (
        tuned.join(last, on="benchmark")
        .filter(pl.col("step") < pl.col("_last"))
        .select("benchmark", "task", "item_id")
        .unique()
    )
