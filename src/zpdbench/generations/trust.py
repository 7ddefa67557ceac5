"""Two checks of every generation job: that each adapter acts, and that batching changes nothing."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zpdbench.errors import UserError

SAME_LOGPROB = 1e-5
"""Two runs of the same weights differ by less (float32); an adapter that acts, by more."""
AGREEING_LOGPROB = 1e-4
"""The agreement that is promised between batched and single answers, in nats."""

Row = Mapping[str, Any]


def differ(one: Row, other: Row, tolerance: float) -> bool:
    """Whether two answers to one item differ in text, or in a log-likelihood by more than that."""
    if one["text"] != other["text"] or len(one["logprobs"]) != len(other["logprobs"]):
        return True
    return any(
        abs(a - b) > tolerance for a, b in zip(one["logprobs"], other["logprobs"], strict=True)
    )


def check_adapter(title: str, path: str, answers: Sequence[tuple[Row, Row]]) -> None:
    """Fail where an adapter answers everything exactly as the base does.

    Args:
        title: the adapter, as a message calls it.
        path: its folder.
        answers: (adapter's, base's) answers to the same items, all benchmarks together.

    Raises:
        UserError: there are answers, and none differs.
    """
    if not answers or any(differ(own, base, SAME_LOGPROB) for own, base in answers):
        return
    raise UserError(
        f"{title}: all {len(answers)} answers equal the untuned base's, "
        "so the adapter was not applied or has learnt nothing",
        where=path,
        fix="look at its trace.parquet (learning rate, loss); if it did learn, "
        "set generations.engine: transformers and report the engine",
    )


@dataclass(frozen=True)
class Probe:
    """Batched answers against the same prompts asked alone.

    Attributes:
        asked: how many prompts.
        equal: how many had the same text, and log-likelihoods within `AGREEING_LOGPROB`.
        largest: largest difference of a log-likelihood (nats), 0 if none was asked.
    """

    asked: int
    equal: int
    largest: float


def compare(pairs: Sequence[tuple[Row, Row]]) -> Probe:
    """Agreement of (batched, alone) answers."""
    differences = [
        abs(a - b)
        for batched, alone in pairs
        for a, b in zip(batched["logprobs"], alone["logprobs"], strict=True)
    ]
    equal = sum(not differ(batched, alone, AGREEING_LOGPROB) for batched, alone in pairs)
    return Probe(len(pairs), equal, max(differences, default=0.0))


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` indices out of range(count), evenly spaced, first and last included."""
    if count <= wanted:
        return list(range(count))
    if wanted == 1:
        return [0]
    return [i * (count - 1) // (wanted - 1) for i in range(wanted)]


def affordable(costs: Sequence[float], kinds: Sequence[Hashable], budget: float) -> list[int]:
    """Indices, in order, of what is bought: the first of each kind, then whatever still fits."""
    kept = {kinds.index(kind) for kind in kinds}
    spent = sum(costs[i] for i in kept)
    for index, cost in enumerate(costs):
        if index not in kept and spent + cost <= budget:
            kept.add(index)
            spent += cost
    return sorted(kept)
