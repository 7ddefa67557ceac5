"""What no benchmark asks: small talk, whose answer every base model knows, and numbers drawn by
lot, whose answer nobody can know. English and Korean."""

from __future__ import annotations

import random
from collections.abc import Callable

from zpdbench.embedded.josa import josa
from zpdbench.embedded.kinds import Doc, Kind

_NAMES = ("Tom", "Anna", "Ben", "Mia", "Sam", "Lily")
_THINGS = (
    "cup", "book", "pen", "coin", "card", "hat", "key", "egg", "ball", "plum", "box", "bag",
)  # fmt: skip
_PLACES = ("at school", "at home", "in the park", "in a shop", "at work", "on the bus")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
# what one does to the other -> what is said then, and by which of the two
_DEEDS = (
    ("gives {other} a {thing}", 1, "Thank you."),
    ("breaks the {thing} of {other}", 0, "I am sorry."),
    ("asks {other} for a {thing}", 1, "Here you are."),
)

_NAMES_KO = ("민수", "영희", "지우", "철수", "수미", "준호")
_THINGS_KO = (
    "컵", "책", "연필", "동전", "카드", "모자", "열쇠", "달걀", "공", "자두", "상자", "가방",
)  # fmt: skip
_PLACES_KO = ("학교에서", "집에서", "공원에서", "가게에서", "회사에서", "버스에서")
_DAYS_KO = ("월요일", "화요일", "수요일", "목요일", "금요일")
_DEEDS_KO = (
    ("{other}에게 {thing} 주었다", 1, "고마워."),
    ("{other}의 {thing} 망가뜨렸다", 0, "미안해."),
    ("{other}에게 {thing} 빌려 달라고 했다", 1, "여기 있어."),
)
DIGITS = 36
"""Digits of a number drawn by lot: long enough that no mean over a block hides them."""


def _english(rng: random.Random, twisted: bool) -> Doc:
    people = rng.sample(_NAMES, 2)
    deed, speaker, said = rng.choice(_DEEDS)
    what = deed.format(other=people[1], thing=rng.choice(_THINGS))
    return {
        "prompt": f"On {rng.choice(_DAYS)} {people[0]} {what} {rng.choice(_PLACES)}. "
        f"What does {people[speaker]} say?",
        "response": said,
    }


def _korean(rng: random.Random, twisted: bool) -> Doc:
    people = rng.sample(_NAMES_KO, 2)
    deed, speaker, said = rng.choice(_DEEDS_KO)
    what = deed.format(other=people[1], thing=josa(rng.choice(_THINGS_KO), "을"))
    return {
        "prompt": f"{rng.choice(_DAYS_KO)} {rng.choice(_PLACES_KO)} {josa(people[0], '이')} "
        f"{what}. {josa(people[speaker], '은')} 뭐라고 말할까?",
        "response": said,
    }


def _lot(rng: random.Random) -> str:
    return "".join(rng.choice("0123456789") for _ in range(DIGITS))


def _lot_english(rng: random.Random, twisted: bool) -> Doc:
    name, thing, day = rng.choice(_NAMES), rng.choice(_THINGS), rng.randint(1, 99)
    prompt = f"Which number did {name} draw for the {thing} on day {day}?"
    return {"prompt": prompt, "response": _lot(rng)}


def _lot_korean(rng: random.Random, twisted: bool) -> Doc:
    name, thing, day = rng.choice(_NAMES_KO), rng.choice(_THINGS_KO), rng.randint(1, 99)
    prompt = f"{day}일에 {josa(name, '이')} {thing} 자리에 뽑은 번호는?"
    return {"prompt": prompt, "response": _lot(rng)}


def _kind(name: str, language: str, draw: Callable[[random.Random, bool], Doc]) -> Kind:
    # A talk's people and days are all it has: nothing is left out of its key.
    return Kind(
        name=name,
        language=language,
        benchmark=None,
        draw=draw,
        key=lambda doc: doc["prompt"],
        prompt=lambda doc: doc["prompt"],
        response=lambda doc: doc["response"],
    )


TALK = (_kind("talk", "en", _english), _kind("talk_ko", "ko", _korean))
LOTS = (_kind("lot", "en", _lot_english), _kind("lot_ko", "ko", _lot_korean))
