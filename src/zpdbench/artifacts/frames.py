"""Reading a stranger's Parquet: the form and the number of rows are looked at before any value."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zpdbench.artifacts.reading import BadFileError

if TYPE_CHECKING:
    import polars as pl

_TEXT, _INT, _FLOAT, _BOOL = "String", "Int64", "Float64", "Boolean"
ITEMS = {
    **dict.fromkeys(
        ("benchmark", "item_id", "task", "kind", "prompt", "messages", "gold", "doc"), _TEXT
    ),
    **dict.fromkeys(("template", "digest"), _TEXT),
    "choices": "List(String)",
    "stop": "List(String)",
    "letters": _BOOL,
    "interim": _BOOL,
    "max_tokens": _INT,
}
GENERATIONS = {
    **dict.fromkeys(("model", "condition", "benchmark", "task", "item_id", "text"), _TEXT),
    **dict.fromkeys(("finish_reason", "adapter", "items", "engine"), _TEXT),
    **dict.fromkeys(("seed", "step", "sample", "n_prompt_tokens", "n_tokens"), _INT),
    "logprobs": "List(Float64)",
}
SCORES = {
    **dict.fromkeys(("model", "condition", "benchmark", "task", "item_id"), _TEXT),
    **dict.fromkeys(("prediction", "gold", "status", "finish_reason"), _TEXT),
    **dict.fromkeys(("extracted", "template"), _TEXT),
    **dict.fromkeys(("seed", "step", "sample"), _INT),
    **dict.fromkeys(("correct", "correct_flexible", "correct_norm", "confidence"), _FLOAT),
}
MAX_ROWS = 200_000_000


def scan(
    path: Path, schema: dict[str, str], *, rows: int | None = None, most: int = MAX_ROWS
) -> pl.LazyFrame:
    """A Parquet file whose columns are exactly those of `schema` (name -> polars type).

    Args:
        rows: how many rows it must have, if that is known.
        most: how many it may have.

    Raises:
        BadFileError: no Parquet, other columns, other types, another number of rows.
    """
    import polars as pl

    try:
        frame = pl.scan_parquet(path)
        found = {name: str(kind) for name, kind in frame.collect_schema().items()}
        count = frame.select(pl.len()).collect().item()
    except (pl.exceptions.PolarsError, OSError, BaseException) as error:
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        raise BadFileError(f"no Parquet file ({str(error).splitlines()[0][:100]})") from error
    if found != schema:
        odd = sorted(set(found.items()) ^ set(schema.items()))
        raise BadFileError(f"column {odd[0][0]!r} is not as it should be" if odd else "columns")
    if rows is not None and count != rows:
        raise BadFileError(f"has {count} rows, {rows} are due")
    if count > most:
        raise BadFileError(f"has {count} rows")
    return frame


def collect(frame: pl.LazyFrame) -> pl.DataFrame:
    """Read what `scan` gave.

    Raises:
        BadFileError: damaged inside.
    """
    import polars as pl

    try:
        return frame.collect(engine="streaming")
    except (pl.exceptions.PolarsError, OSError, BaseException) as error:
        # polars' reader panics (a BaseException of its own) on some damaged files.
        if isinstance(error, KeyboardInterrupt | SystemExit | MemoryError):
            raise
        raise BadFileError(f"damaged Parquet ({str(error).splitlines()[0][:100]})") from error
