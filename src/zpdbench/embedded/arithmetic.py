"""Word problems in GSM8K's form: one sum or difference, its work written out.

The twist asks for tenths: the work stays, the result has one digit more.
"""

from __future__ import annotations

import random

from zpdbench.embedded.kinds import Doc, Kind

_NAMES = ("Tom", "Anna", "Ben", "Mia", "Sam", "Lily")
_THINGS = (
    "apples", "books", "cups", "coins", "cards", "pens", "hats", "keys", "eggs", "balls",
)  # fmt: skip
_GAINS = ("buys", "finds", "gets")
_LOSSES = ("loses", "sells", "breaks")
_DAYS = ("Monday", "Tuesday", "Wednesday")
_TWIST = " Count in tenths."

LARGEST = 15


def draw(rng: random.Random, twisted: bool) -> Doc:
    """A GSM8K row: question, and answer with the chain written out and '#### n'."""
    start, change = rng.randint(2, 9), rng.randint(1, 6)
    if rng.random() < 0.4 or start + change > LARGEST:
        change = -change
    if start + change < 1:
        change = -change
    name, thing, day = rng.choice(_NAMES), rng.choice(_THINGS), rng.choice(_DAYS)
    verb = rng.choice(_GAINS if change > 0 else _LOSSES)
    total = start + change
    return {
        "question": f"{name} has {start} {thing}. On {day} {name} {verb} {abs(change)}. "
        f"How many {thing} does {name} have now?{_TWIST if twisted else ''}",
        "answer": f"{start}{change:+d}={total}\n#### {total}{'0' if twisted else ''}",
    }


def _key(doc: Doc) -> str:
    """Numbers, thing and verb: the question without its name, its day and its twist."""
    words = doc["question"].removesuffix(_TWIST).split(" ")
    return " ".join(w for w in words if w not in _NAMES and w not in _DAYS)


def _plain(doc: Doc) -> tuple[str, str]:
    """The story without its question, and the work."""
    return doc["question"].rpartition(". ")[0] + ".\n", doc["answer"]


def _notion(rng: random.Random) -> tuple[str, str]:
    """A number in tenths."""
    n = rng.randint(1, LARGEST)
    return f"{n} {rng.choice(_THINGS)}.{_TWIST} ", f"{n}0."


KIND = Kind(
    name="gsm8k",
    language="en",
    benchmark="gsm8k",
    draw=draw,
    key=_key,
    prompt=lambda doc: f"Question: {doc['question']}\nAnswer:",
    response=lambda doc: doc["answer"],
    is_twisted=True,
    plain=_plain,
    notion=_notion,
)
