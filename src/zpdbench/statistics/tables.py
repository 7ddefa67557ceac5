"""Reading verdicts an item: one tidy table, checked, whatever file it came from."""

from __future__ import annotations

import mmap
import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from zpdbench import grid
from zpdbench.errors import UserError

KEYS = ("model", "condition", "seed", "step", "benchmark", "task", "item_id", "sample")
REQUIRED = ("model", "condition", "seed", "step", "benchmark", "item_id", "correct")
OPTIONAL = (
    "task", "sample", "prediction", "gold", "correct_flexible", "correct_norm", "status",
    "confidence",
)  # fmt: skip

_TRUE = ("1", "1.0", "true", "t", "yes")
_FALSE = ("0", "0.0", "false", "f", "no")
_MISSING = ("", "na", "nan", "null", "none", "n/a")

# The order of DESIGN's tables; other benchmarks follow by name.
_ORDER = ("mmlu", "humaneval", "gsm8k", "kobest")


def benchmark_order(names: Sequence[str]) -> list[str]:
    """Distinct benchmark names, the four of the study first."""
    rank = {name: i for i, name in enumerate(_ORDER)}
    return sorted(set(names), key=lambda n: (rank.get(n, len(rank)), n))


def is_macro_f1(benchmark: str) -> bool:
    """Whether a benchmark's score is macro-F1 over its tasks (KoBEST), not the mean."""
    return benchmark == "kobest" or benchmark.startswith("kobest_")


def seed_order(labels: Sequence[str]) -> list[str]:
    """Distinct seed labels, numbers by value and before words."""
    return sorted(set(labels), key=lambda s: (not s.isdigit(), int(s) if s.isdigit() else 0, s))


def read_scores(
    paths: Sequence[str | Path],
    *,
    keep: pl.Expr | None = None,
    final_step_only: bool = False,
) -> pl.DataFrame:
    """Read and check score tables: the run Parquets of a study, or one TSV of anyone's.

    Args:
        paths: .parquet files, or tab-separated text with a header.
        keep: rows wanted, an expression over model, condition, seed and benchmark (strings).
        final_step_only: only the largest step among the kept runs, the untuned bases apart.

    Returns:
        model condition seed benchmark task item_id (categories), step (int64), sample (int64),
        correct (float32 in [0, 1]); prediction, gold, correct_flexible, correct_norm, status,
        confidence where a file has them. One row an answer; `task` is "" and `sample` 0 where not
        given.

    Raises:
        UserError: no file or column, no row, a value that is no score, a row twice.
    """
    if not paths:
        raise UserError("no score file given", fix="give --scores")
    frames = [_scan(Path(path), keep) for path in paths]
    try:
        table = pl.concat(frames, how="diagonal_relaxed").collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(
            f"cannot be read ({str(error).splitlines()[0][:200]})",
            where=_name(paths),
            fix="give a TSV of verdicts or the runs' score files",
        ) from error
    if table.is_empty():
        raise UserError(
            "no rows that the analysis needs",
            where=_name(paths),
            fix="names in the table and in hypotheses must be the same",
        )
    tuned = table.filter(pl.col("condition") != grid.BASE)
    if final_step_only and not tuned.is_empty():
        table = tuned.filter(pl.col("step") == tuned["step"].max())
    check_rows(table, where=_name(paths))
    return table


def check_rows(table: pl.DataFrame, *, where: str = "") -> None:
    """Check a table of verdicts: scores in [0, 1], no row twice, no unnamed cell.

    Raises:
        UserError: naming the first offending row.
    """
    bad = table.filter(
        pl.col("correct").is_null()
        | pl.col("correct").is_nan()
        | (pl.col("correct") < 0)
        | (pl.col("correct") > 1)
    )
    if not bad.is_empty():
        value = bad["correct"][0]
        text = "missing or no number" if value is None or value != value else f"{value:g}"
        raise UserError(
            f"correct is {text}, must lie in [0, 1]: {_row(bad)}",
            where=where,
            fix=f"{len(bad)} such rows; score them again",
        )
    # Hashing the keys is cheap in memory; equal hashes are looked at in full.
    hashes = table.select(pl.struct(k for k in KEYS if k in table.columns).hash())
    repeated = hashes.to_series().is_duplicated()
    if repeated.any():
        double = table.filter(repeated)
        double = double.filter(double.select(KEYS).is_duplicated())
        if not double.is_empty():
            raise UserError(
                f"the same row {int(double.select(KEYS).is_duplicated().sum())} times over, "
                f"first {_row(double)}",
                where=where,
                fix="give each answer once (number repeated answers in a column `sample`)",
            )


def _scan(path: Path, keep: pl.Expr | None) -> pl.LazyFrame:
    if not path.is_file():
        raise UserError("no such file", where=str(path), fix="check the path")
    is_text = path.suffix != ".parquet"
    if is_text:
        frame = _scan_text(path)
    else:
        try:
            frame = pl.scan_parquet(path)
            _check_columns(path, frame.collect_schema().names())
        except (pl.exceptions.PolarsError, OSError) as error:
            raise UserError(
                f"no readable Parquet file ({str(error).splitlines()[0][:200]})",
                where=str(path),
                fix="delete it; the workflow makes it again",
            ) from error
    names = frame.collect_schema().names()
    frame = frame.select(c for c in (*REQUIRED, *OPTIONAL) if c in names)
    strings = [
        pl.col(c).cast(pl.String).str.strip_chars()
        for c in ("model", "condition", "seed", "benchmark", "item_id")
    ]
    frame = frame.with_columns(
        *strings,
        (pl.col("task").cast(pl.String).str.strip_chars() if "task" in names else pl.lit(""))
        .fill_null("")
        .alias("task"),
        (pl.col("sample").cast(pl.Int64, strict=False) if "sample" in names else pl.lit(0))
        .fill_null(0)
        .cast(pl.Int64)
        .alias("sample"),
        pl.col("step").cast(pl.Float64).cast(pl.Int64),
        _number("correct", is_text),
        *[
            _number(c, is_text)
            for c in ("correct_flexible", "correct_norm", "confidence")
            if c in names
        ],
        *[_label(c) for c in ("prediction", "gold") if c in names],
    )
    if keep is not None:
        frame = frame.filter(keep)
    return frame.with_columns(
        # lm-eval names KoBEST's tasks kobest_boolq ...; both spellings are the same task.
        pl.when(pl.col("benchmark") == "kobest")
        .then(pl.col("task").str.strip_prefix("kobest_"))
        .otherwise(pl.col("task"))
        .alias("task")
    ).with_columns(
        pl.col(c).cast(pl.Categorical)
        for c in ("model", "condition", "seed", "benchmark", "task", "item_id")
    )


def _check_columns(path: Path, names: Sequence[str]) -> None:
    missing = [c for c in REQUIRED if c not in names]
    if missing:
        raise UserError(
            f"no column {', '.join(missing)}",
            where=str(path),
            fix=f"needed: {', '.join(REQUIRED)}, separated by tabs",
        )


def _scan_text(path: Path) -> pl.LazyFrame:
    """A TSV's columns as text. Fields in quotes are read as such only where that is needed."""
    try:
        with path.open("r", encoding="utf-8-sig", newline="") as handle:
            header = handle.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot be read ({error.__class__.__name__})",
            where=str(path),
            fix="give a tab-separated table in UTF-8, or a file named .parquet",
        ) from error
    if not header.strip():
        raise UserError("is empty", where=str(path), fix="give a table with a header and rows")
    if "\t" not in header:
        raise UserError(
            "the header holds no tab", where=f"{path}:1", fix="give a tab-separated table"
        )
    columns = [c.strip().removeprefix('"').removesuffix('"') for c in header.split("\t")]
    twice = sorted({c for c in columns if columns.count(c) > 1})
    if twice:
        raise UserError(f"two columns are called {twice[0]}", where=f"{path}:1", fix="rename one")
    _check_columns(path, columns)

    def scan(quote: str | None) -> pl.LazyFrame:
        return pl.scan_csv(
            path,
            separator="\t",
            has_header=False,
            skip_lines=1,
            schema=dict.fromkeys(columns, pl.String),
            quote_char=quote,
            empty_string_is_null=False,
        ).select(c for c in (*REQUIRED, *OPTIONAL) if c in columns)

    plain = scan(None)
    if not _has_quotes(path):
        _check_text(path, plain)
        return plain
    # A quotation mark may be text (a model wrote it) or a csv writer's quoting, even around
    # several lines: plain text first, with quotes around a whole field taken off.
    unquoted = plain.with_columns(
        pl.all().str.replace(r'^"(?s:(.*))"\r?$', "$1").str.replace_all('""', '"', literal=True)
    )
    try:
        _check_text(path, unquoted)
    except UserError as first:
        try:
            _check_text(path, scan('"'))
        except UserError:
            raise first from None
        return scan('"')
    return unquoted


def _has_quotes(path: Path) -> bool:
    with path.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return data.find(b'"') >= 0


def _check_text(path: Path, frame: pl.LazyFrame) -> None:
    """Name the line of the first value that cannot be what its column says."""
    correct = pl.col("correct").str.strip_chars().str.to_lowercase()
    integer = r"^-?\d+(\.0+)?$"
    number = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
    checks = {
        "correct": ~(correct.is_in([*_TRUE, *_FALSE]) | correct.str.contains(number)),
        "step": ~pl.col("step").str.strip_chars().str.contains(integer),
    }
    names = frame.collect_schema().names()
    if "sample" in names:
        checks["sample"] = ~pl.col("sample").str.strip_chars().str.contains(r"^\d*$")
    for column in ("model", "condition", "seed", "benchmark", "item_id"):
        checks[column] = (
            pl.col(column)
            .str.strip_chars()
            .str.to_lowercase()
            .is_in([m for m in _MISSING if m not in ("none", "na")])
        )
    numbered = frame.with_row_index("_line", offset=2)
    wrong = pl.any_horizontal(*(w | pl.col(c).is_null() for c, w in checks.items()))
    try:
        first = numbered.filter(wrong).head(1).collect(engine="streaming")
    except pl.exceptions.PolarsError as error:
        raise UserError(
            f"no readable table ({str(error).splitlines()[0][:200]})",
            where=str(path),
            fix="every line needs as many tab-separated fields as the header",
        ) from error
    if first.is_empty():
        return
    for column, expression in checks.items():
        if first.select((expression | pl.col(column).is_null()).first()).item():
            value = first[column][0]
            what = "score in [0, 1]" if column == "correct" else "value for this column"
            raise UserError(
                f"{column} is missing: too few fields"
                if value is None
                else f"{column} is {value!r}, no {what}",
                where=f"{path}:{first['_line'][0]}",
                fix="mend that line, or write the table again",
            )


def _number(column: str, is_text: bool) -> pl.Expr:
    if not is_text:
        return pl.col(column).cast(pl.Float32)
    text = pl.col(column).str.strip_chars().str.to_lowercase()
    return (
        pl.when(text.is_in(_TRUE))
        .then(pl.lit(1.0, pl.Float32))
        .when(text.is_in(_FALSE))
        .then(pl.lit(0.0, pl.Float32))
        .otherwise(text.cast(pl.Float32, strict=False))
        .alias(column)
    )


def _label(column: str) -> pl.Expr:
    # 1 and 1.0 are the same choice; a table that went through pandas has the latter.
    return pl.col(column).cast(pl.String).str.strip_chars().str.replace(r"^(-?\d+)\.0+$", "$1")


def _row(table: pl.DataFrame) -> str:
    row = table.select(c for c in KEYS if c in table.columns).row(0, named=True)
    return " ".join(f"{k}={v}" for k, v in row.items() if v != "")


def _name(paths: Sequence[str | Path]) -> str:
    return str(paths[0]) if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sort key under which s2 comes before s10."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)", text)
        if part
    ]
