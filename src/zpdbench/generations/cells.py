"""Cells: what is asked of one adapter (or the base) on one benchmark, and where answers are kept.

A cell's key is the digest of everything that its answers depend on, so a finished cell is found
again by whatever job needs it: after a kill, with one seed more, under another condition's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zpdbench import files, grid
from zpdbench.engines import Adapter, Request

FORMAT = 2
"""Raised when the meaning of a stored cell changes."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One adapter's (or the base's) answers to some items of a benchmark, one sample each."""

    run: grid.Run
    step: int
    benchmark: str
    sample: int
    adapter: Adapter | None
    items: tuple[str, ...]
    """Ids, in the items file's order."""
    key: str

    @property
    def title(self) -> str:
        """What a log line calls it."""
        name = f"{self.run.condition}/s{self.run.seed}/step{self.step} {self.benchmark}"
        return name if self.sample == 0 else f"{name} sample {self.sample}"


def cell_key(
    *,
    engine: str,
    dtype: str,
    base: str,
    adapter: str,
    template: str,
    items: Sequence[str],
    sampling: Mapping[str, Any],
    sample: int,
    served: str = "",
) -> str:
    """Digest of all that a cell's answers depend on.

    Args:
        engine: name and version.
        base: digest of the base checkpoint.
        adapter: digest of the adapter, `` for the base.
        template: text of the chat template, `` where none is applied.
        items: the items' digests (they cover prompt, choices, stop strings and token limit).
        sampling: temperature, top_p, seed.
        served: the name of the model that a server is asked for, `` without one.
    """
    return files.digest(
        {
            "format": FORMAT,
            "engine": engine,
            "dtype": dtype,
            "base": base,
            "adapter": adapter,
            "template": template,
            "items": list(items),
            "sampling": dict(sampling),
            "sample": sample,
            **({"served": served} if served else {}),
        }
    )


def sampling_seed(seed: int, item: str, sample: int) -> int:
    """Seed of one item's sample (31 bits): the same for every adapter, so that draws are paired."""
    return int(files.digest([seed, item, sample])[:8], 16) & 0x7FFFFFFF


class Cache:
    """Finished cells, one Parquet file each, named by their key."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = (folder or files.cache_folder()) / "cells"

    def path(self, key: str) -> Path:
        """Where the cell of this key lies, if it is finished."""
        return self.folder / key[:2] / f"{key}.parquet"

    def load(self, cell: Cell) -> list[Row] | None:
        """A finished cell's rows in the order of its items; None if there is no whole one."""
        import polars as pl

        try:
            frame = pl.read_parquet(self.path(cell.key))
        except (OSError, pl.exceptions.PolarsError):
            return None
        if tuple(frame.columns) != tuple(ANSWER_SCHEMA) or frame["item_id"].to_list() != list(
            cell.items
        ):
            return None
        return frame.to_dicts()

    def store(self, cell: Cell, rows: Sequence[Row]) -> None:
        """Keep a finished cell: whole or not at all."""
        import polars as pl

        frame = pl.DataFrame(list(rows), schema=answer_schema())
        with files.atomic_path(self.path(cell.key)) as temporary:
            frame.write_parquet(temporary, compression="zstd", statistics=False)

    def drop(self, cell: Cell) -> None:
        """Forget a cell whose answers turned out wrong."""
        self.path(cell.key).unlink(missing_ok=True)


# Column -> polars type name: what an answer is, whoever gave it.
ANSWER_SCHEMA = {
    "item_id": "String",
    "text": "String",
    "finish_reason": "String",
    "n_prompt_tokens": "Int64",
    "n_tokens": "Int64",
    "logprobs": "List",
}


def answer_schema() -> dict[str, Any]:
    """`ANSWER_SCHEMA` in polars' types."""
    import polars as pl

    types: dict[str, Any] = {"String": pl.String, "Int64": pl.Int64, "List": pl.List(pl.Float64)}
    return {name: types[kind] for name, kind in ANSWER_SCHEMA.items()}


@dataclass(frozen=True)
class Prompt:
    """An item, tokenised once for all adapters."""

    benchmark: str
    item_id: str
    task: str
    digest: str
    interim: bool
    ids: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]
    stop: tuple[str, ...]
    max_tokens: int

    def request(
        self, adapter: Adapter | None, *, temperature: float, top_p: float, seed: int
    ) -> Request:
        """What is asked of an adapter; sampling concerns generated text only."""
        if self.choices:
            return Request(self.ids, adapter, choices=self.choices)
        return Request(
            self.ids,
            adapter,
            max_tokens=self.max_tokens,
            stop=self.stop,
            temperature=temperature,
            top_p=top_p,
            seed=seed,
        )
