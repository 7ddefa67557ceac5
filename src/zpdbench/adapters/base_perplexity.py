"""Difficulty before training as a model's own: its loss on each example, before it is trained.

`corpus.difficulty: base_perplexity`. The same for all conditions and seeds of a model, so it is
scored once and kept in the content-addressed cache; it is charged to no condition.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from zpdbench import files

if TYPE_CHECKING:
    import torch

    from zpdbench.adapters.encoding import Tokens
    from zpdbench.adapters.parallel import Group

FORMAT = 1
"""Raised when losses change for equal input; part of the cache's key."""


def losses(
    checkpoint: Path,
    tokens: Tokens,
    rows: NDArray[np.int64],
    key: list[str | int],
    cache: Path,
    dtype: torch.dtype,
    group: Group,
) -> NDArray[np.float64]:
    """Mean negative log-likelihood (nats) of a response token of each of `rows`, shape (rows,).

    Args:
        tokens: all encoded examples.
        key: what the tokens and the weights depend on, for the cache.
        group: the processes that share the scoring, and their device.

    Raises:
        UserError: the checkpoint cannot be loaded, or a loss is not finite.
    """
    import torch

    path = (
        cache / "difficulty" / f"{files.digest([FORMAT, torch.__version__, str(dtype), *key])}.npy"
    )
    # One process looks for all: were one to score and another not, the first would wait for ever.
    kept = group.first(_kept(path, rows) if group.leads else None)
    if kept is not None:
        return kept
    from zpdbench.adapters import decoder
    from zpdbench.adapters.learner import ModelLearner

    network = decoder.load(checkpoint, dtype, group.device)
    found = ModelLearner(network, tokens, rows[:1], group=group).score(rows).loss
    if group.leads:
        with files.atomic_path(path) as temporary, temporary.open("wb") as handle:
            np.save(handle, found)
    return found


def _kept(path: Path, rows: NDArray[np.int64]) -> NDArray[np.float64] | None:
    try:
        kept = np.load(path, allow_pickle=False)
    except (OSError, ValueError):
        return None
    return kept if kept.shape == rows.shape else None


def normalised(loss: NDArray[np.float64], languages: list[str]) -> NDArray[np.float64]:
    """Losses rank-normalised to [0, 1] within each language, as the reference difficulty is."""
    from zpdbench.curriculum.difficulty import rank_normalise

    labels = np.array(languages)
    result = np.zeros(len(loss))
    for language in np.unique(labels):
        mine = labels == language
        result[mine] = rank_normalise(loss[mine])
    return result
