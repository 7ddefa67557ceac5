"""What a kind of generated content is, and how its contents are kept apart.

Every piece of content has a key: the text that makes it what it is, without the names and times
that dress it. The key's hash says who may use it: the base models' pretraining, the instruction
corpus, or the benchmark items. So no item can occur in either training text, and no example of the
corpus in pretraining, whatever the seeds and however much is drawn.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, unique
from typing import Any

from zpdbench.errors import UserError

Doc = dict[str, Any]


@unique
class Part(Enum):
    """Who may use a piece of content."""

    BASE = "pretraining"
    TUNING = "corpus"
    ITEMS = "items"


SHARES = {Part.BASE: 0.40, Part.TUNING: 0.35, Part.ITEMS: 0.25}
"""Which share of all content each part has (sum 1)."""


@dataclass(frozen=True)
class Kind:
    """One kind of generated content.

    Attributes:
        name: the corpus column `source`, and for items the benchmark's task.
        language: en or ko.
        benchmark: the benchmark whose items have this kind, or None.
        draw: (rng, twisted) -> doc in the benchmark authors' format. What is not twisted, the base
            models are trained on in this form; a twist asks something new of the same knowledge.
            Kinds without a twist take no notice of it.
        is_twisted: whether the kind has a twist.
        key: doc -> the text that decides its part: the question without names and times.
        prompt: doc -> the user's message, 0-shot, as the benchmark's template renders it.
        response: doc -> the right answer, as the assistant gives it.
        plain: doc -> (given, learnt), what the task needs to be known, as a text book would have
            it; None where nothing need be.
        notion: (rng) -> (given, learnt), what the twist means, apart from any task.
    """

    name: str
    language: str
    benchmark: str | None
    draw: Callable[[random.Random, bool], Doc]
    key: Callable[[Doc], str]
    prompt: Callable[[Doc], str]
    response: Callable[[Doc], str]
    is_twisted: bool = False
    plain: Callable[[Doc], tuple[str, str]] | None = None
    notion: Callable[[random.Random], tuple[str, str]] | None = None


def part_of(kind: Kind, doc: Doc) -> Part:
    """The part that a piece of content belongs to: a fixed function of its key alone."""
    digest = hashlib.sha256(f"{kind.name}\n{kind.key(doc)}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    for part, share in SHARES.items():
        position -= share
        if position < 0:
            return part
    return Part.ITEMS


def draw_distinct(
    kind: Kind,
    part: Part,
    n: int,
    rng: random.Random,
    twisted: Callable[[int], bool],
    mark: Callable[[Doc], str] | None = None,
) -> list[Doc]:
    """`n` docs of one part, in the order drawn.

    Args:
        twisted: position -> whether the content there is twisted.
        mark: doc -> what no two may have in common; their prompts if not given.

    Raises:
        UserError: the kind has not that much content.
    """
    docs: list[Doc] = []
    seen: set[str] = set()
    misses = 0
    while len(docs) < n:
        doc = kind.draw(rng, twisted(len(docs)))
        what = (mark or kind.prompt)(doc)
        if part_of(kind, doc) is not part or what in seen:
            misses += 1
            if misses > 4000:
                raise UserError(
                    f"the embedded content has no {n} distinct pieces of kind {kind.name} "
                    f"(found {len(docs)})",
                    fix="ask for fewer",
                )
            continue
        misses = 0
        seen.add(what)
        docs.append(doc)
    return docs


def cycle(rng: random.Random, kind: Kind, part: Part) -> Doc:
    """One doc of a part that is not twisted, repeats allowed: for pretraining text."""
    for _ in range(2000):
        doc = kind.draw(rng, False)
        if part_of(kind, doc) is part:
            return doc
    raise AssertionError(f"no {part.name} content of kind {kind.name}")
