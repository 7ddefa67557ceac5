"""An adapter that does nothing fails; batching that changes an answer is counted."""

from __future__ import annotations

from typing import Any

import pytest

from zpdbench.errors import UserError
from zpdbench.generations import trust


def row(text: str = "", *logprobs: float) -> dict[str, Any]:
    return {"text": text, "logprobs": list(logprobs)}


def test_an_adapter_with_the_bases_answers_fails() -> None:
    pairs = [(row("a"), row("a")), (row("", -1.0, -2.0), row("", -1.0000004, -2.0))]
    with pytest.raises(UserError, match=r"zpd/s0/step4: all 2 answers equal") as caught:
        trust.check_adapter("zpd/s0/step4", "adapters/x", pairs)
    assert caught.value.where == "adapters/x"


@pytest.mark.parametrize(
    "other", [row("b"), row("a", -1.0), row("a", -1.001, -2.0), row("a", -1.0, -2.0, -3.0)]
)
def test_one_other_answer_is_enough(other: dict[str, Any]) -> None:
    same = (row("a"), row("a"))
    trust.check_adapter("t", "p", [same, (other, row("a", -1.0, -2.0)), same])


def test_without_common_items_nothing_is_claimed() -> None:
    trust.check_adapter("t", "p", [])


def test_agreement_is_counted() -> None:
    probe = trust.compare(
        [
            (row("a"), row("a")),
            (row("a"), row("b")),
            (row("", -1.0), row("", -1.00005)),
            (row("", -1.0), row("", -1.5)),
        ]
    )
    assert (probe.asked, probe.equal) == (4, 2)
    assert probe.largest == pytest.approx(0.5)
    assert trust.compare([]) == trust.Probe(0, 0, 0.0)


@pytest.mark.parametrize(("count", "wanted"), [(3, 8), (8, 8), (100, 8), (2, 1), (0, 3)])
def test_probes_are_spread_from_first_to_last(count: int, wanted: int) -> None:
    chosen = trust.spread(count, wanted)
    assert len(chosen) == len(set(chosen)) == min(count, wanted)
    assert chosen == sorted(chosen)
    if count and wanted > 1:
        assert (chosen[0], chosen[-1]) == (0, count - 1)


@pytest.mark.parametrize(
    ("costs", "kinds", "budget", "kept"),
    [
        ([1, 1, 1, 1], "tttt", 3, [0, 1, 2]),
        ([9, 1, 9, 1], "ttcc", 20, [0, 1, 2, 3]),
        ([9, 1, 9, 1], "ttcc", 0, [0, 2]),
        ([2, 5, 1, 1], "tttc", 4, [0, 2, 3]),
        ([], "", 5, []),
    ],
)
def test_probes_keep_to_their_budget_but_for_one_of_each_kind(
    costs: list[int], kinds: str, budget: int, kept: list[int]
) -> None:
    assert trust.affordable(costs, list(kinds), budget) == kept
