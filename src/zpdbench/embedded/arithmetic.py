"""Word problems in GSM8K's form, English and Korean: a chain of additions and subtractions."""

from __future__ import annotations

import random

from zpdbench.embedded.josa import josa
from zpdbench.embedded.kinds import Doc, Kind

_NAMES = ("Tom", "Anna", "Ben", "Mia", "Sam", "Lily", "Max", "Emma", "Leo", "Nora")
_THINGS = ("apples", "books", "cups", "coins", "cards", "pens", "eggs", "balls")
_GAINS = ("buys", "finds", "gets", "makes")
_LOSSES = ("loses", "sells", "gives away", "breaks")

_NAMES_KO = ("민수", "영희", "지우", "철수", "수미", "준호", "유나", "미나")
_THINGS_KO = ("사과", "책", "컵", "동전", "카드", "연필", "달걀", "공")
_GAINS_KO = ("샀다", "찾았다", "받았다", "만들었다")
_LOSSES_KO = ("잃었다", "팔았다", "주었다", "버렸다")

MAX_STEPS = 4
FAMILIAR_STEPS = 2
LARGEST = 30


def _chain(rng: random.Random, steps: int) -> tuple[int, list[int]]:
    """A first number and signed changes, every running total within 1..LARGEST."""
    start = total = rng.randint(2, 19)
    changes = []
    for _ in range(steps):
        change = rng.randint(1, 9)
        if rng.random() < 0.4:
            change = -change
        if not 1 <= total + change <= LARGEST:
            change = -change
        changes.append(change)
        total += change
    return start, changes


def _work(start: int, changes: list[int]) -> str:
    lines, total = [], start
    for change in changes:
        lines.append(f"{total}{change:+d}={total + change}")
        total += change
    return "\n".join(lines) + f"\n#### {total}"


def _steps(rng: random.Random, familiar: bool) -> int:
    return rng.randint(1, FAMILIAR_STEPS if familiar else MAX_STEPS)


def draw_english(rng: random.Random, familiar: bool) -> Doc:
    """A GSM8K row: question, and answer with the chain written out and '#### n'."""
    start, changes = _chain(rng, _steps(rng, familiar))
    name, thing = rng.choice(_NAMES), rng.choice(_THINGS)
    told = [f"{name} has {start} {thing}."]
    for change in changes:
        verb = rng.choice(_GAINS if change > 0 else _LOSSES)
        told.append(f"{name} {verb} {abs(change)}.")
    told.append(f"How many {thing} does {name} have now?")
    return {"question": " ".join(told), "answer": _work(start, changes)}


def draw_korean(rng: random.Random, familiar: bool) -> Doc:
    """The same in Korean."""
    start, changes = _chain(rng, _steps(rng, familiar))
    name, thing = rng.choice(_NAMES_KO), rng.choice(_THINGS_KO)
    told = [f"{name}는 {josa(thing, '이')} {start}개 있다."]
    for change in changes:
        verb = rng.choice(_GAINS_KO if change > 0 else _LOSSES_KO)
        told.append(f"{name}는 {abs(change)}개를 {verb}.")
    told.append(f"{name}는 이제 {josa(thing, '이')} 몇 개인가?")
    return {"question": " ".join(told), "answer": _work(start, changes)}


def plain(rng: random.Random) -> str:
    """Chains of sums without a story."""
    return _work(*_chain(rng, rng.randint(2, MAX_STEPS)))


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
