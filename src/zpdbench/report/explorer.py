"""Which items flipped between control and treatment: every pair of answers, packed for the page."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from zpdbench import files

MAX_PAIRS = 50_000
BUDGET = 8_000_000
"""Characters of prompts and answers before packing."""
_KEYS = ["model", "condition", "seed", "step", "benchmark", "task", "item_id", "sample"]
_ITEM = ["benchmark", "task", "item_id"]
_LIMITS = (4000, 1500, 600, 240, 120)


@dataclass(frozen=True)
class Explorer:
    """The explorer's data: `packed` for the page, and what was left out.

    Attributes:
        packed: gzipped JSON in base64, "" if there is nothing to explore.
        pairs: pairs of answers in it.
        all_pairs: pairs that the study has.
        limit: texts longer than this many characters are cut.
    """

    packed: str
    pairs: int
    all_pairs: int
    limit: int


def pair(
    scores: Sequence[str | Path],
    generations: Sequence[str | Path],
    *,
    treatment: str,
    control: str,
) -> pl.DataFrame:
    """One row an item, model and seed: both verdicts and both answers at the final step.

    Args:
        scores: runs' score files.
        generations: chunks' answers.

    Returns:
        model seed benchmark task item_id, and of `a` (control) and `b` (treatment): correct,
        status, prediction, text; the first sample where an item has several. Empty if no item
        was answered under both.
    """
    wanted = pl.col("condition").is_in([treatment, control])
    judged = _collect(scores, [*_KEYS, "correct", "status", "prediction"], wanted)
    answers = _collect(generations, [*_KEYS, "text"], wanted)
    if judged.is_empty() or answers.is_empty():
        return pl.DataFrame()
    judged = judged.filter(pl.col("step") == judged["step"].max())
    judged = judged.filter(pl.col("sample") == judged["sample"].min())
    full = judged.join(answers, on=_KEYS, how="left")
    by = ["model", "seed", *_ITEM]
    value = ["correct", "status", "prediction", "text"]
    sides = [
        full.filter(pl.col("condition") == condition)
        .select(*by, *value)
        .rename({c: f"{side}_{c}" for c in value})
        for side, condition in (("a", control), ("b", treatment))
    ]
    return sides[0].join(sides[1], on=by, how="inner").sort("model", "seed", *_ITEM)


def _collect(paths: Sequence[str | Path], columns: Sequence[str], wanted: pl.Expr) -> pl.DataFrame:
    parts = [
        pl.scan_parquet(path)
        .filter(wanted)
        .select(columns)
        .with_columns(pl.col("seed").cast(pl.Int64), pl.col("step").cast(pl.Int64))
        .collect()
        for path in sorted(map(str, paths))
    ]
    parts = [p for p in parts if not p.is_empty()]
    return pl.concat(parts) if parts else pl.DataFrame()


def pack(
    pairs: pl.DataFrame,
    items: Sequence[Mapping[str, Any]],
    languages: Mapping[str, str],
    *,
    max_pairs: int = MAX_PAIRS,
    budget: int = BUDGET,
) -> Explorer:
    """The pairs as columns of small integers and one list of texts.

    Args:
        pairs: as `pair` returns.
        items: rows of the items files (benchmark task item_id prompt choices gold).
        languages: benchmark -> language.
        max_pairs: beyond it whole seeds are left out, last ones first; if one is too many
            already, every k-th item.
        budget: texts are cut shorter until all fit.
    """
    total = pairs.height
    if not total:
        return Explorer("", 0, 0, 0)
    chosen = _choose(pairs, max_pairs)
    known = {(i["benchmark"], i["task"], i["item_id"]): i for i in items}
    names = chosen.select(_ITEM).unique().sort(_ITEM).rows()
    index = {key: number for number, key in enumerate(names)}
    asked = [known.get(key, {}) for key in names]
    rows = chosen.to_dicts()
    texts = [
        [str(i.get("prompt", "")) for i in asked],
        [
            _answer(known.get(_key(r), {}), r[f"{side}_prediction"], r[f"{side}_text"])
            for side in "ab"
            for r in rows
        ],
    ]
    limit = next(
        (n for n in _LIMITS if sum(min(len(t), n) for part in texts for t in set(part)) <= budget),
        _LIMITS[-1],
    )
    strings: dict[str, int] = {}

    def text(value: str, *, tail: bool = False) -> int:
        if len(value) > limit:
            left = f"{len(value) - limit:,}"
            # A few-shot prompt ends with the question.
            value = (
                f"[{left} more] … {value[-limit:]}" if tail else f"{value[:limit]} … [{left} more]"
            )
        return strings.setdefault(value, len(strings))

    def column(name: str) -> tuple[list[str], list[int]]:
        values = sorted({str(r[name]) for r in rows})
        place = {v: i for i, v in enumerate(values)}
        return values, [place[str(r[name])] for r in rows]

    models, model = column("model")
    seeds, seed = column("seed")
    statuses = sorted({str(r[f"{s}_status"]) for r in rows for s in "ab"})
    n = len(rows)
    answers = [text(t) for t in texts[1]]
    data = {
        "items": {
            "benchmark": [k[0] for k in names],
            "task": [k[1] for k in names],
            "id": [k[2] for k in names],
            "language": [languages.get(k[0], "") for k in names],
            "prompt": [text(t, tail=True) for t in texts[0]],
            "gold": [text(_gold(i)) for i in asked],
        },
        "models": models,
        "seeds": seeds,
        "statuses": statuses,
        "pairs": {
            "item": [index[_key(r)] for r in rows],
            "model": model,
            "seed": seed,
            "a": [_share(r["a_correct"]) for r in rows],
            "b": [_share(r["b_correct"]) for r in rows],
            "a_status": [statuses.index(str(r["a_status"])) for r in rows],
            "b_status": [statuses.index(str(r["b_status"])) for r in rows],
            "a_text": answers[:n],
            "b_text": answers[n:],
        },
        "strings": list(strings),
    }
    raw = files.canonical_json(data).encode("utf-8")
    packed = base64.b64encode(gzip.compress(raw, 9, mtime=0)).decode("ascii")
    return Explorer(packed, n, total, limit)


def _choose(pairs: pl.DataFrame, most: int) -> pl.DataFrame:
    if pairs.height <= most:
        return pairs
    labels = sorted(pairs["seed"].unique().to_list())
    for count in range(len(labels) - 1, 0, -1):
        part = pairs.filter(pl.col("seed").is_in(labels[:count]))
        if part.height <= most:
            return part
    first = pairs.filter(pl.col("seed") == labels[0])
    items = first.select(_ITEM).unique().sort(_ITEM)
    kept = max(1, most * items.height // first.height)
    items = items.gather_every(-(-items.height // kept))
    return first.join(items, on=_ITEM, how="semi")


def _key(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["benchmark"], row["task"], row["item_id"]


def _answer(item: Mapping[str, Any], prediction: Any, text: Any) -> str:
    """What was answered: a choice's own words, else the text."""
    choices = item.get("choices") or []
    if choices and str(prediction).isdigit() and int(prediction) < len(choices):
        return str(choices[int(prediction)])
    return str(text if text is not None else "")


def _gold(item: Mapping[str, Any]) -> str:
    return _answer(item, item.get("gold", ""), item.get("gold", ""))


def _share(value: Any) -> float:
    return round(float(value or 0.0), 4)
