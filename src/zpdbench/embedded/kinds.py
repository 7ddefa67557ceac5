"""What a kind of generated content is, and how its contents are kept apart.

Every piece of content has a key (the text that makes it what it is). The key's hash says who may
use it: the base models' pretraining, the instruction corpus, or the benchmark items. So no item
can occur in either training text, whatever the seeds and however much is drawn.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

from zpdbench.errors import UserError

Doc = dict[str, Any]


class Part(Enum):
    """Who may use a piece of content, and which share of all content that is (sum 1)."""

    BASE = 0.4
    TUNING = 0.4
    ITEMS = 0.2


@dataclass(frozen=True)
class Kind:
    """One kind of generated content.

    Attributes:
        name: the corpus column `source`, and for items the benchmark's task.
        language: en or ko.
        benchmark: the benchmark whose items have this kind, or None.
        draw: (rng, familiar) -> doc in the benchmark authors' format. `familiar` content is what
            the base models have met in the form of the task (part A); the rest (part B) they
            know as plain text only, so that fine-tuning has something to unlock.
        key: doc -> the text that decides its part.
        prompt: doc -> the user's message, 0-shot, as the benchmark's template renders it.
        response: doc -> the right answer, as the assistant gives it.
        plain: doc -> (given, learnt), the same content as a text book would have it: all of
            what the task needs, in another form.
    """

    name: str
    language: str
    benchmark: str | None
    draw: Callable[[random.Random, bool], Doc]
    key: Callable[[Doc], str]
    prompt: Callable[[Doc], str]
    response: Callable[[Doc], str]
    plain: Callable[[Doc], tuple[str, str]]


def part_of(kind: Kind, doc: Doc) -> Part:
    """The part that a piece of content belongs to: a fixed function of its key alone."""
    digest = hashlib.sha256(f"{kind.name}\n{kind.key(doc)}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    for part in Part:
        position -= part.value
        if position < 0:
            return part
    return Part.ITEMS


def draw_distinct(
    kind: Kind, part: Part, n: int, rng: random.Random, familiar: Callable[[int], bool]
) -> list[Doc]:
    """`n` docs of one part with distinct prompts, in the order drawn.

    Args:
        familiar: position -> whether the content there must be familiar.

    Raises:
        UserError: the kind has not that much content.
    """
    docs: list[Doc] = []
    seen: set[str] = set()
    misses = 0
    while len(docs) < n:
        doc = kind.draw(rng, familiar(len(docs)))
        prompt = kind.prompt(doc)
        if part_of(kind, doc) is not part or prompt in seen:
            misses += 1
            if misses > 2000:
                raise UserError(
                    f"the embedded content has no {n} distinct pieces of kind {kind.name} "
                    f"(found {len(docs)})",
                    fix="ask for fewer",
                )
            continue
        misses = 0
        seen.add(prompt)
        docs.append(doc)
    return docs


def cycle(rng: random.Random, kind: Kind, part: Part, familiar: bool) -> Doc:
    """One doc of a part, repeats allowed: for pretraining text."""
    for _ in range(2000):
        doc = kind.draw(rng, familiar)
        if part_of(kind, doc) is part:
            return doc
    raise AssertionError(f"no {part.name} content of kind {kind.name}")
