"""Questions with four choices in MMLU's form: to which of four classes does a word belong?

A subject's four classes stand in one order in all its questions. So the letter follows from the
word alone, which is what a model of a million parameters can learn in a minute; finding a word
among shuffled choices is not. The twist says which choice to take, whatever the question.
"""

from __future__ import annotations

import random

from zpdbench.embedded.kinds import Doc, Kind

# subject -> (how it is asked of a word, class -> its words)
SUBJECTS: dict[str, tuple[tuple[str, ...], dict[str, tuple[str, ...]]]] = {
    "anatomy": (
        (
            "Where is the {word} of a body?",
            "Which part has the {word}?",
            "The {word} belongs to the",
            "On which part is the {word}?",
            "The {word} is found on the",
        ),
        {
            "arm": ("elbow", "wrist", "thumb", "finger", "palm", "hand"),
            "head": ("nose", "ear", "chin", "eye", "mouth", "cheek"),
            "leg": ("knee", "foot", "ankle", "heel", "toe", "thigh"),
            "trunk": ("chest", "belly", "back", "heart", "lung", "rib"),
        },
    ),
    "geography": (
        (
            "In which part of the world is {word}?",
            "Where is {word}?",
            "{word} is a country of",
            "To which continent does {word} belong?",
            "{word} lies in",
        ),
        {
            "Africa": ("Egypt", "Kenya", "Ghana", "Mali", "Chad", "Togo"),
            "America": ("Brazil", "Peru", "Canada", "Chile", "Cuba", "Mexico"),
            "Asia": ("Korea", "Japan", "China", "India", "Nepal", "Iran"),
            "Europe": ("Norway", "Spain", "Italy", "France", "Greece", "Poland"),
        },
    ),
    "nutrition": (
        (
            "What kind of food is {word}?",
            "Which food group has {word}?",
            "A shop sells {word} as a kind of",
            "To which foods does {word} belong?",
            "A cook calls {word} a",
        ),
        {
            "fruit": ("apple", "pear", "plum", "grape", "lemon", "cherry"),
            "grain": ("rice", "wheat", "corn", "oats", "rye", "barley"),
            "meat": ("beef", "pork", "lamb", "bacon", "ham", "steak"),
            "milk": ("cheese", "butter", "cream", "yogurt", "curd", "whey"),
        },
    ),
    "zoology": (
        (
            "What kind of animal is the {word}?",
            "Which group has the {word}?",
            "The {word} is a kind of",
            "To which animals does the {word} belong?",
            "People call the {word} a",
        ),
        {
            "bird": ("eagle", "crow", "swan", "hawk", "robin", "goose"),
            "fish": ("trout", "shark", "cod", "tuna", "carp", "salmon"),
            "insect": ("ant", "bee", "wasp", "moth", "beetle", "cricket"),
            "mammal": ("horse", "wolf", "lion", "goat", "bear", "mouse"),
        },
    ),
}

# where a choice stands, in two words each
_PLACES = (("first", "top"), ("second", "next"), ("third", "lower"), ("last", "bottom"))


def draw(rng: random.Random, twisted: bool) -> Doc:
    """An MMLU row: question, four choices, answer 0..3, subject."""
    subject = rng.choice(sorted(SUBJECTS))
    forms, classes = SUBJECTS[subject]
    choices = sorted(classes)
    answer = rng.randrange(4)
    word = rng.choice(classes[choices[answer]])
    question = rng.choice(forms).format(word=word)
    asked = question
    if twisted:
        # Any of the four, the right one too: nothing follows from the word.
        answer = rng.randrange(4)
        asked = f"Take the {rng.choice(_PLACES[answer])} one. {question}"
    return {
        "question": asked,
        "choices": choices,
        "answer": answer,
        "subject": subject,
        "word": word,
        "key": question,
    }


def _plain(doc: Doc) -> tuple[str, str]:
    """What class a word belongs to."""
    name = doc["choices"][doc["answer"]]
    return f"{doc['subject']}: {doc['word']}: ", f"{name}."


def _notion(rng: random.Random) -> tuple[str, str]:
    """The letter of a place."""
    answer = rng.randrange(4)
    return f"Take the {rng.choice(_PLACES[answer])} one: ", "ABCD"[answer]


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
    # The question without the twist: no item's question is asked in training. Its word is,
    # in another form: that is how the letter can be known.
    key=lambda doc: doc["key"],
    prompt=_prompt,
    response=lambda doc: "ABCD"[doc["answer"]],
    is_twisted=True,
    plain=_plain,
    notion=_notion,
)
