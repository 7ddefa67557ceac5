"""Encoded examples as packed batches, and scoring passes batched by length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from zpdbench.adapters.decoder import Packed
from zpdbench.adapters.encoding import Tokens

Rows = NDArray[np.int64]


def pack(tokens: Tokens, rows: Rows, device: str = "cpu") -> Packed:
    """The examples `rows` as one batch; the order inside it is by length, longest first.

    The order across batches is the caller's; inside a batch it changes no sum but its rounding.
    `owner` refers to positions in `rows` as given.
    """
    lengths = tokens.lengths[rows]
    order = np.argsort(-lengths, kind="stable")
    rows, lengths = rows[order], lengths[order]
    longest = int(lengths[0])
    ids = np.concatenate([tokens[r] for r in rows])
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    index = np.arange(len(ids))
    positions = index - starts
    sequence = np.repeat(np.arange(len(rows)), lengths)
    # A token predicts its successor where the successor is in the response.
    is_target = positions >= tokens.prompts[rows][sequence]
    target_at = np.flatnonzero(is_target)

    def tensor(array: NDArray[np.int64] | NDArray[np.int32]) -> torch.Tensor:
        return torch.from_numpy(array.astype(np.int64)).to(device)

    return Packed(
        ids=tensor(ids),
        positions=tensor(positions),
        slots=tensor(sequence * longest + positions),
        lengths=tuple(int(n) for n in lengths),
        select=tensor(target_at - 1),
        targets=tensor(ids[target_at]),
        owner=tensor(order[sequence[target_at]]),
    )


def by_length(tokens: Tokens, rows: Rows, budget: int) -> Iterator[Rows]:
    """Positions in `rows`, longest examples first, in batches of at most `budget` padded tokens."""
    lengths = tokens.lengths[rows]
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        size = max(1, budget // int(lengths[order[start]]))
        yield order[start : start + size]
        start += size
