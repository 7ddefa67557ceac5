"""Questions with four choices in MMLU's form, on true facts of four small subjects."""

from __future__ import annotations

import random

from zpdbench.embedded.kinds import Doc, Kind

_CAPITALS = {
    "France": "Paris", "Japan": "Tokyo", "Italy": "Rome", "Spain": "Madrid",
    "Germany": "Berlin", "Egypt": "Cairo", "Korea": "Seoul", "China": "Beijing",
    "Russia": "Moscow", "Greece": "Athens", "Cuba": "Havana", "Peru": "Lima",
    "Kenya": "Nairobi", "Norway": "Oslo", "Austria": "Vienna", "Poland": "Warsaw",
    "Portugal": "Lisbon", "Ireland": "Dublin", "Sweden": "Stockholm", "Finland": "Helsinki",
}  # fmt: skip
_OPPOSITES = {
    "hot": "cold", "big": "small", "fast": "slow", "old": "new", "long": "short",
    "hard": "soft", "rich": "poor", "wet": "dry", "full": "empty", "clean": "dirty",
    "early": "late", "high": "low", "strong": "weak", "open": "closed", "dark": "bright",
    "loud": "quiet", "deep": "shallow", "wide": "narrow", "thick": "thin", "heavy": "light",
}  # fmt: skip
_YOUNG = {
    "dog": "puppy", "cat": "kitten", "cow": "calf", "horse": "foal", "sheep": "lamb",
    "goat": "kid", "pig": "piglet", "duck": "duckling", "goose": "gosling", "hen": "chick",
    "lion": "cub", "deer": "fawn", "swan": "cygnet", "kangaroo": "joey", "frog": "tadpole",
    "butterfly": "caterpillar", "eel": "elver", "owl": "owlet", "eagle": "eaglet",
    "hare": "leveret",
}  # fmt: skip
_COLOURS = {
    "snow": "white", "coal": "black", "blood": "red", "grass": "green", "sky": "blue",
    "lemon": "yellow", "carrot": "orange", "mouse": "grey", "plum": "purple",
    "chocolate": "brown", "flamingo": "pink", "milk": "white", "tomato": "red",
    "frog": "green", "sea": "blue", "banana": "yellow", "pumpkin": "orange",
    "elephant": "grey", "tar": "black", "bark": "brown",
}  # fmt: skip

# subject -> (facts, question forms, statement forms)
SUBJECTS: dict[str, tuple[dict[str, str], tuple[str, ...], tuple[str, ...]]] = {
    "geography": (
        _CAPITALS,
        (
            "What is the capital of {a}?",
            "Which city is the capital of {a}?",
            "{a} has which capital?",
            "Name the capital of {a}.",
        ),
        ("The capital of {a} is {b}.", "{b} is the capital of {a}."),
    ),
    "language": (
        _OPPOSITES,
        (
            "What is the opposite of {a}?",
            "Which word is the opposite of {a}?",
            "What is not {a}?",
            "Name the opposite of {a}.",
        ),
        ("The opposite of {a} is {b}.", "What is not {a} is {b}."),
    ),
    "zoology": (
        _YOUNG,
        (
            "What is a young {a} called?",
            "Which word is for a young {a}?",
            "A young {a} is a what?",
            "Name the young of a {a}.",
        ),
        ("A young {a} is called {b}.", "The young of a {a} is a {b}."),
    ),
    "colours": (
        _COLOURS,
        (
            "What colour is {a}?",
            "Which colour has {a}?",
            "{a} is of what colour?",
            "Name the colour of {a}.",
        ),
        ("The colour of {a} is {b}.", "As {b} as {a}."),
    ),
}


def _familiar(subject: str) -> list[str]:
    """The half of a subject's facts that base models meet as questions."""
    return sorted(SUBJECTS[subject][0])[::2]


def draw(rng: random.Random, familiar: bool) -> Doc:
    """An MMLU row: question, four choices, answer 0..3, subject."""
    subject = rng.choice(sorted(SUBJECTS))
    facts, forms, _ = SUBJECTS[subject]
    subject_of = rng.choice(_familiar(subject) if familiar else sorted(facts))
    right = facts[subject_of]
    wrong = sorted(set(facts.values()) - {right})
    choices = rng.sample(wrong, 3)
    answer = rng.randrange(4)
    choices.insert(answer, right)
    return {
        "question": rng.choice(forms).format(a=subject_of),
        "choices": choices,
        "answer": answer,
        "subject": subject,
    }


def plain(rng: random.Random) -> str:
    """A few facts as sentences."""
    told = []
    for _ in range(3):
        facts, _, forms = SUBJECTS[rng.choice(sorted(SUBJECTS))]
        a = rng.choice(sorted(facts))
        told.append(rng.choice(forms).format(a=a, b=facts[a]))
    return " ".join(told)


def _prompt(doc: Doc) -> str:
    lines = [
        f"The following are multiple choice questions (with answers) about {doc['subject']}.\n",
        doc["question"],
        *(f"{letter}. {choice}" for letter, choice in zip("ABCD", doc["choices"], strict=True)),
        "Answer:",
    ]
    return "\n".join(lines)


KIND = Kind(
    name="mmlu",
    language="en",
    benchmark="mmlu",
    draw=draw,
    key=lambda doc: doc["question"],
    prompt=_prompt,
    response=lambda doc: "ABCD"[doc["answer"]],
    plain=plain,
)
