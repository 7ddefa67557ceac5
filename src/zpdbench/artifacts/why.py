"""`zpdbench why TABLE --row gsm8k/pp`: from a number in a table to every answer behind it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zpdbench import grid, records
from zpdbench import study as studies
from zpdbench.artifacts import frames, layout, numbers, reading
from zpdbench.artifacts.findings import plain
from zpdbench.artifacts.reading import BadFileError
from zpdbench.errors import UserError
from zpdbench.study import Study

if TYPE_CHECKING:
    import polars as pl

PATHS = layout.Paths("results")
_KEYS = ("model", "condition", "seed", "step", "benchmark", "task", "scale", "metric", "items")
_MEAN = "mean"
_SHOWN = 6


def main(args: argparse.Namespace) -> None:
    """Print the chain behind row `args.row` of `args.table`, a table in a results folder."""
    table = Path(args.table)
    folder = table.parent
    lock = folder / layout.STUDY
    if not lock.is_file():
        raise UserError(
            f"no {layout.STUDY} beside the table",
            where=str(table),
            fix="give a table in a results folder or an unpacked bundle",
        )
    try:
        reading.check_yaml(lock)
        study = studies.load(lock)
        if reason := layout.too_large(study):
            raise BadFileError(reason)
    except BadFileError as error:
        raise UserError(
            f"a configuration that {error}",
            where=str(lock),
            fix="fetch the bundle again from its authors",
        ) from error
    row = find_row(table, args.row)
    for line in explain(study, folder, table.name, row, items=args.items):
        # Names and answers are a stranger's: no terminal is to obey them.
        print(plain(line))


def find_row(table: Path, wanted: str) -> dict[str, str]:
    """The row that a name such as `gsm8k/pp` or `mini-qwen/zpd/0/160` means.

    A name's parts must all be among the row's key fields, in any order that names one row only.

    Raises:
        UserError: no such row, or several; the message lists names that would do.
    """
    if not table.is_file():
        raise UserError(
            "no such table",
            where=str(table),
            fix="give h3a.tsv in a results folder or an unpacked bundle",
        )
    rows = list(numbers.rows(table))
    parts = [p for p in wanted.split("/") if p]
    found = [row for row in rows if _matches(row, parts)]
    if len(found) == 1:
        return found[0]
    names = [_row_name(row) for row in (found or rows)]
    raise UserError(
        f"{len(found) or 'no'} rows are called {plain(wanted)!r}",
        where=str(table),
        fix=plain("one of: " + ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")),
    )


def _matches(row: Mapping[str, str], parts: Sequence[str]) -> bool:
    values = [row[k] for k in _KEYS if k in row]
    remaining = list(values)
    for part in parts:
        if part not in remaining:
            return False
        remaining.remove(part)
    return True


def _row_name(row: Mapping[str, str]) -> str:
    keys = [k for k in _KEYS if k in row]
    if "scale" in row:
        keys = [k for k in keys if k in ("benchmark", "scale")]
    return "/".join(row[k] for k in keys)


def explain(
    study: Study, folder: Path, table: str, row: Mapping[str, str], *, items: int = 0
) -> Iterator[str]:
    """Lines from a row down to the files, and how far each file is what its job recorded.

    Args:
        study: as configured.
        folder: results folder or unpacked bundle.
        table: the table's name.
        row: one of its rows.
        items: so many items of each run are listed with their verdicts.
    """
    yield f"{table}: {_row_name(row)}"
    for name in ("difference", "difference_low", "difference_high", "p_value", "verdict", "value"):
        if row.get(name) not in (None, ""):
            yield f"  {name} {row[name]}"
    yield from _record_lines(folder, table)
    benchmarks = (
        list(study.benchmarks)
        if row.get("benchmark", _MEAN) not in study.benchmarks
        else [row["benchmark"]]
    )
    last = study.evaluation_steps[-1]
    for run in runs_behind(study, row):
        step = 0 if run.condition == grid.BASE else _step(row, last)
        yield ""
        yield from _run_lines(study, folder, run, step, benchmarks, items)


def _step(row: Mapping[str, str], last: int) -> int:
    """The step that a row is of: its own, or the last."""
    text = row.get("step") or ""
    return int(text) if text.isdecimal() and len(text) < 12 else last


def runs_behind(study: Study, row: Mapping[str, str]) -> list[grid.Run]:
    """The runs whose scores a row is made of, by the names in it."""
    models = {row[k] for k in ("model", "model_small", "model_large") if row.get(k)}
    conditions = {row[k] for k in ("condition", "treatment", "control") if row.get(k)}
    return [
        run
        for run in study.all_runs
        if (not models or run.model in models)
        and (run.condition in conditions if conditions else run.condition != grid.BASE)
        and (row.get("seed") in (None, "", str(run.seed)))
    ]


def _run_lines(
    study: Study,
    folder: Path,
    run: grid.Run,
    step: int,
    benchmarks: Sequence[str],
    items: int,
) -> Iterator[str]:
    name = PATHS.scores(*run).removeprefix("results/")
    yield f"{'/'.join(map(str, run))} step {step}"
    try:
        verdicts = _verdicts(folder / name, step, benchmarks)
    except BadFileError as error:
        yield f"  {name}: {error}"
        return
    for benchmark in benchmarks:
        part = verdicts.filter(verdicts["benchmark"] == benchmark)
        right = int(part["correct"].sum() or 0)
        yield f"  {benchmark}: {right} of {part.height} answers are right"
    yield from _record_lines(folder, name)
    chunk = grid.chunk_of(run, study.generations.group_by)
    generations = PATHS.generations(run.model, chunk).removeprefix("results/")
    yield from _record_lines(folder, generations)
    if run.condition != grid.BASE:
        yield from _record_lines(folder, PATHS.adapter(*run).removeprefix("results/"))
    yield from _record_lines(folder, PATHS.checkpoint(run.model).removeprefix("results/"))
    if items:
        yield from _item_lines(folder, run, step, generations, verdicts, items)


def _verdicts(path: Path, step: int, benchmarks: Sequence[str]) -> pl.DataFrame:
    import polars as pl

    frame = frames.scan(path, frames.SCORES)
    chosen = (pl.col("step") == step) & pl.col("benchmark").is_in(list(benchmarks))
    return frames.collect(frame.filter(chosen).sort("benchmark", "item_id", "sample"))


def _item_lines(
    folder: Path, run: grid.Run, step: int, generations: str, verdicts: pl.DataFrame, items: int
) -> Iterator[str]:
    import polars as pl

    try:
        frame = frames.scan(folder / generations, frames.GENERATIONS)
    except BadFileError as error:
        yield f"  {generations}: {error}"
        return
    answers = frames.collect(
        frame.filter(
            (pl.col("condition") == run.condition)
            & (pl.col("seed") == run.seed)
            & (pl.col("step") == step)
        ).select("benchmark", "item_id", "sample", "text", "items")
    )
    both = verdicts.join(answers, on=["benchmark", "item_id", "sample"], how="left")
    for benchmark in both["benchmark"].unique().sort().to_list():
        for row in both.filter(pl.col("benchmark") == benchmark).head(items).to_dicts():
            text = " ".join(str(row["text"] or row["prediction"]).split())[:60]
            yield (
                f"    {row['benchmark']} {row['item_id']}: {row['correct']:g} {row['status']}, "
                f"answered {text!r}, item {str(row['items'])[:12]}"
            )


def _record_lines(folder: Path, name: str) -> Iterator[str]:
    """A file, its digest, whether its job recorded the same, and that job's inputs."""
    path = folder / name
    own = None
    try:
        own = records.identify(path) if path.exists() else None
    except UserError:
        own = None
    made = _producer(folder, name)
    if made is None:
        yield f"  {name} {_short(own)}: no job recorded it"
        return
    recorded = made["outputs"].get(name)
    state = (
        "as its job recorded"
        if own == recorded
        else "not here; its job recorded " + _short(recorded)
        if own is None
        else "NOT what its job recorded, " + _short(recorded)
    )
    yield f"  {name} {_short(own)}: {state} ({made['rule']}, settings {_short(made['settings'])})"
    for source, digest in sorted(made["inputs"].items())[:_SHOWN]:
        yield f"    from {source} {_short(digest)}"
    if len(made["inputs"]) > _SHOWN:
        yield f"    and {len(made['inputs']) - _SHOWN} more"


def _producer(folder: Path, name: str) -> dict[str, Any] | None:
    direct = folder / layout.record_name(name)
    try:
        if direct.is_file():
            return _checked(direct, name)
        # A job with several outputs has one record, named after the first.
        for path in sorted((folder / "records").glob("*.json")):
            found = _checked(path, name)
            if found is not None:
                return found
    except (BadFileError, OSError):
        return None
    return None


def _checked(path: Path, name: str) -> dict[str, Any] | None:
    value = reading.read_json(path, 4 << 20)
    if isinstance(value, dict) and name in value.get("outputs", {}):
        return value
    return None


def _short(digest: Any) -> str:
    return str(digest)[:12] if digest else "absent"
