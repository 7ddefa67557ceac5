"""Word problems in GSM8K's form, English and Korean: sums and differences, one a weekday."""

from __future__ import annotations

import random

from zpdbench.embedded.josa import josa
from zpdbench.embedded.kinds import Doc, Kind

_NAMES = ("Tom", "Anna", "Ben", "Mia", "Sam", "Lily")
_THINGS = ("apples", "books", "cups", "coins", "cards", "pens")
_GAINS = ("buys", "finds", "gets")
_LOSSES = ("loses", "sells", "breaks")
_DAYS = ("Monday", "Tuesday", "Wednesday")

_NAMES_KO = ("민수", "영희", "지우", "철수", "수미", "준호")
_THINGS_KO = ("사과", "책", "컵", "동전", "카드", "연필")
_GAINS_KO = ("샀다", "찾았다", "받았다")
_LOSSES_KO = ("잃었다", "팔았다", "버렸다")
_DAYS_KO = ("월요일", "화요일", "수요일")

MAX_STEPS = len(_DAYS)
FAMILIAR_STEPS = 1
LARGEST = 15


def _chain(rng: random.Random, steps: int) -> tuple[int, list[int]]:
    """A first number and signed changes, every running total within 1..LARGEST."""
    start = total = rng.randint(2, 9)
    changes = []
    for _ in range(steps):
        change = rng.randint(1, 6)
        if rng.random() < 0.4:
            change = -change
        if not 1 <= total + change <= LARGEST:
            change = -change
        changes.append(change)
        total += change
    return start, changes


def _work(start: int, changes: list[int], days: tuple[str, ...]) -> str:
    lines, total = [], start
    for day, change in zip(days, changes, strict=False):
        lines.append(f"{day}: {total}{change:+d}={total + change}\n")
        total += change
    return "".join(lines) + f"#### {total}"


def _steps(rng: random.Random, familiar: bool) -> int:
    return rng.randint(1, FAMILIAR_STEPS if familiar else MAX_STEPS)


def draw_english(rng: random.Random, familiar: bool) -> Doc:
    """A GSM8K row: question, and answer with the chain written out and '#### n'."""
    start, changes = _chain(rng, _steps(rng, familiar))
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    told = [f"{name} has {start} {thing}."]
    for day, change in zip(_DAYS, changes, strict=False):
        verb = rng.choice(_GAINS if change > 0 else _LOSSES)
        told.append(f"On {day} {name} {verb} {abs(change)}.")
    told.append(f"How many {thing} does {name} have now?")
    return {"question": " ".join(told), "answer": _work(start, changes, _DAYS)}


def draw_korean(rng: random.Random, familiar: bool) -> Doc:
    """The same in Korean."""
    start, changes = _chain(rng, _steps(rng, familiar))
    name, thing = rng.choice(_NAMES_KO), rng.choice(_THINGS_KO)
    told = [f"{josa(name, '은')} {josa(thing, '이')} {start}개 있다."]
    for day, change in zip(_DAYS_KO, changes, strict=False):
        verb = rng.choice(_GAINS_KO if change > 0 else _LOSSES_KO)
        told.append(f"{day}에 {abs(change)}개를 {verb}.")
    told.append(f"이제 {josa(thing, '이')} 몇 개인가?")
    return {"question": " ".join(told), "answer": _work(start, changes, _DAYS_KO)}


def plain(doc: Doc) -> tuple[str, str]:
    """The story without its question, and the work."""
    return doc["question"].rpartition(". ")[0] + ".\n", doc["answer"]


def _prompt(doc: Doc) -> str:
    return f"Question: {doc['question']}\nAnswer:"


def _prompt_korean(doc: Doc) -> str:
    return f"문제: {doc['question']}\n풀이:"


ENGLISH = Kind(
    name="gsm8k",
    language="en",
    benchmark="gsm8k",
    draw=draw_english,
    key=lambda doc: doc["question"],
    prompt=_prompt,
    response=lambda doc: doc["answer"],
    plain=plain,
)
KOREAN = Kind(
    name="word_problem",
    language="ko",
    benchmark=None,
    draw=draw_korean,
    key=lambda doc: doc["question"],
    prompt=_prompt_korean,
    response=lambda doc: doc["answer"],
    plain=plain,
)
