"""How to score several continuations of one prompt in as few generations as possible.

Continuations are laid out as a prefix tree. Scoring needs, at each inner node, the
log-probabilities of its children; a generation that is forced down a path meets all the inner
nodes on it. So one forced generation is needed for each deepest inner node: single-token choices
(letters) after a common prefix cost one generation together, sentences one each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Path:
    """One generation: `forced` tokens, then one free position.

    `wanted` are the token ids whose log-probability is needed at some position of the path; the
    answer holds len(forced) + 1 positions.
    """

    forced: tuple[int, ...]
    wanted: tuple[int, ...]


def paths(choices: Sequence[Sequence[int]]) -> list[Path]:
    """The generations that together score all `choices` (each at least one token long).

    Raises:
        ValueError: a choice has no tokens.
    """
    children: dict[tuple[int, ...], set[int]] = {}
    for choice in choices:
        if not choice:
            raise ValueError("a choice without tokens has no likelihood")
        for position in range(len(choice)):
            children.setdefault(tuple(choice[:position]), set()).add(choice[position])
    result = []
    for node in sorted(children):
        if any((*node, child) in children for child in children[node]):
            continue
        wanted: set[int] = set()
        for depth in range(len(node) + 1):
            wanted |= children[node[:depth]]
        result.append(Path(node, tuple(sorted(wanted))))
    return result


def sums(
    choices: Sequence[Sequence[int]],
    answers: Mapping[tuple[int, ...], Sequence[Mapping[int, float]]],
) -> tuple[float, ...]:
    """Summed log-likelihood of each choice.

    Args:
        choices: as given to `paths`.
        answers: for each path's forced tokens, a mapping of token id to log-probability for each
            of its positions.
    """
    table: dict[tuple[int, ...], Mapping[int, float]] = {}
    # Sorted, so that a node met by several paths takes its numbers from the same one every time.
    for forced in sorted(answers):
        for depth, position in enumerate(answers[forced]):
            table.setdefault(forced[:depth], position)
    return tuple(
        sum(table[tuple(choice[:i])][choice[i]] for i in range(len(choice))) for choice in choices
    )
