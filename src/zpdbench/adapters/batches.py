"""Encoded examples as packed batches, and scoring passes batched by length."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from zpdbench.adapters.decoder import Block, Packed
from zpdbench.adapters.encoding import Tokens

Rows = NDArray[np.int64]
LENGTHS = 32
"""Alone, an example is padded to a multiple of so many tokens: a block of the CPU's kernel."""


def pack(tokens: Tokens, rows: Rows, device: str = "cpu", apart: bool = False) -> Packed:
    """The examples `rows` as one batch; the order inside it is by length, longest first.

    The order across batches is the caller's; inside a batch it changes no sum but its rounding.
    `owner` refers to positions in `rows` as given.

    Args:
        apart: pad each example to what its own length asks for, not to the longest. A kernel's sums
            depend on the padded length, so only then an example's do not depend on its neighbours.
    """
    lengths = tokens.lengths[rows]
    order = np.argsort(-lengths, kind="stable")
    rows, lengths = rows[order], lengths[order]
    room = -(-lengths // LENGTHS) * LENGTHS if apart else np.full_like(lengths, lengths[0])
    ids = np.concatenate([tokens[r] for r in rows])
    starts = np.repeat(np.cumsum(lengths) - lengths, lengths)
    index = np.arange(len(ids))
    positions = index - starts
    sequence = np.repeat(np.arange(len(rows)), lengths)
    # A token predicts its successor where the successor is in the response.
    is_target = positions >= tokens.prompts[rows][sequence]
    target_at = np.flatnonzero(is_target)

    _, firsts, counts = np.unique(-room, return_index=True, return_counts=True)
    blocks, at = [], 0
    for first, count in zip(firsts.tolist(), counts.tolist(), strict=True):
        end = at + int(lengths[first : first + count].sum())
        blocks.append(Block(slice(at, end), count, int(room[first])))
        at = end
    within = sequence - np.repeat(firsts, counts)[sequence]

    def tensor(array: NDArray[np.int64] | NDArray[np.int32]) -> torch.Tensor:
        return torch.from_numpy(array.astype(np.int64)).to(device)

    return Packed(
        ids=tensor(ids),
        positions=tensor(positions),
        slots=tensor(within * room[sequence] + positions),
        blocks=tuple(blocks),
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
