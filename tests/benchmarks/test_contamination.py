"""Contamination: what is found, and what is only a phrase."""

from __future__ import annotations

import importlib.util
import unicodedata
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from zpdbench.benchmarks import items, load
from zpdbench.benchmarks.contamination import Hit, Text, find, texts_of, too_short, words

QUESTION = "Anna has nine red apples and gives her brother four of them before lunch on Monday."
ITEM = Text("gsm8k", "7", QUESTION, (f"Question: {QUESTION}\nAnswer:",))


def test_equal_texts_whatever_case_and_punctuation() -> None:
    examples = [
        ("a", "question: anna has NINE red apples and gives her brother four of them before lunch "
         "on monday answer", ""),
        ("b", QUESTION + "  ", "5"),
        ("c", "How many apples has Anna?", "5"),
    ]  # fmt: skip
    assert find([ITEM], examples, n=None) == [
        Hit("a", "gsm8k", "7", "exact"),
        Hit("b", "gsm8k", "7", "exact"),
    ]


# Forty words, of which a run of thirteen is too few to be the item.
LONG = Text(
    "gsm8k",
    "8",
    "A baker in Lisbon fills twelve trays with nine almond tarts each, sells seventy of them "
    "before noon, gives the eleven broken ones to her neighbours, and packs what is left in boxes "
    "of four for the evening market.",
)


def _padding(count: int) -> list[tuple[str, str, str]]:
    """Examples without any item, so that the items' words are rare ones."""
    return [(f"other{i:03}", f"What is the size of lake {i}?", "It is deep.") for i in range(count)]


def test_thirteen_words_in_prompt_or_response() -> None:
    thirteen = " ".join(LONG.content.split()[1:14])
    twelve = " ".join(LONG.content.split()[1:13])
    examples = [
        ("a", f"Translate: {thirteen}!", ""),
        ("b", "Translate this.", f"Well: {thirteen}"),
        ("c", f"Translate: {twelve}", ""),
        ("d", " ".join(LONG.content.split()[1:8]), " ".join(LONG.content.split()[8:14])),
    ]
    assert [(h.example, h.kind) for h in find([LONG], examples)] == [
        ("a", "13-gram"),
        ("b", "13-gram"),
    ]


def test_a_run_in_many_examples_is_a_phrase() -> None:
    text = "Say: " + " ".join(LONG.content.split()[:14]) + " now."
    assert len(find([LONG], [(str(i), text, "") for i in range(10)])) == 10
    assert find([LONG], [(str(i), text, "") for i in range(11)]) == []


def test_a_whole_item_is_found_in_however_many_examples() -> None:
    whole = [(f"whole{i:02}", f"Say: {LONG.content} Now.", "") for i in range(11)]
    part = ("part", "Say: " + " ".join(LONG.content.split()[:14]) + " now.", "")
    hits = find([LONG], [*whole, part])
    assert [(h.example, h.kind) for h in hits] == [(name, "words") for name, *_ in whole]
    response = [(name, "Translate.", prompt) for name, prompt, _ in whole]
    assert len(find([LONG], response)) == 11


CAPITALS = [
    Text("mmlu", f"geo/{i}", f"What is the capital of {land}?", (f"What is it? A. {town}",))
    for i, (land, town) in enumerate([("Norway", "Oslo"), ("Chile", "Santiago")])
]


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("Answer briefly. What is the capital of Norway?", ["geo/0"]),
        ("Is it Oslo? WHAT IS\nTHE  CAPITAL OF NORWAY", ["geo/0"]),
        ("the capital of Chile?", ["geo/1"]),
        ("What is the capital of Peru?", []),
        ("Who in Norway has the capital for a firm?", []),
        ("Norway, Chile", []),
    ],
)
def test_the_words_that_tell_an_item_decide(prompt: str, found: list[str]) -> None:
    others = [
        (f"e{i}", f"What is the capital of {land}?", "I know.")
        for i, land in enumerate(["Peru", "Kenya", "Laos", "Malta", "Cuba", "Iraq"])
    ]
    hits = find(CAPITALS, [*_padding(300), *others, ("a", prompt, "Well.")])
    assert [hit.item_id for hit in hits] == found


def test_a_response_must_have_more_of_an_item() -> None:
    """An answer says as a sentence what a question asks."""
    listed = LONG.content.split()
    for every, found in ((4, ["prompt"]), (9, ["prompt", "response"])):
        text = " ".join(word for i, word in enumerate(listed, 1) if i % every)
        examples = [*_padding(300), ("prompt", text, "Yes."), ("response", "Tell a story.", text)]
        assert [hit.example for hit in find([LONG], examples)] == found


@pytest.mark.parametrize(
    "spelt",
    [
        lambda text: unicodedata.normalize("NFD", text),
        lambda text: text.upper(),
        lambda text: "\u200b".join(text),
        lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
        lambda text: text.replace("fi", "\ufb01").replace("a", "\u00ada"),
        lambda text: text.replace(" ", "\u00a0\u2028"),
    ],
)
def test_other_spellings_of_the_same_words(spelt: Any) -> None:
    korean = Text("kobest", "wic/3", "그는 어제 시장에서 싱싱한 생선을 두 마리 샀다")
    for item in (LONG, korean):
        text = f"Look: {spelt(item.content)}"
        assert words(text)[1:] == words(item.content)
        hits = find([item], [*_padding(40), ("a", text, "Yes.")])
        assert [(h.example, h.kind) for h in hits] == [("a", "words")]


def test_korean_and_short_items() -> None:
    item = Text("kobest", "kobest_sentineg/0", "만족입니다", ("문장: 만족입니다 긍부정:",))
    examples = [
        ("a", "만족입니다.", "네"),
        ("b", "정말 만족입니다.", ""),
        ("c", "좋은 말인가요?\n\n만족입니다!", "네"),
        ("d", "좋은 말인가요?\n문장: 만족입니다 긍부정:\n답하세요.", "네"),
        ("e", "이것은?", "만족입니다."),
    ]
    assert [h.example for h in find([item], examples)] == ["a", "c", "d"]
    assert [h.example for h in find([item], examples, n=None)] == ["a"], "prompts only"


def test_what_cannot_be_seen_is_counted() -> None:
    items = [
        Text("k", "0", "아주 좋아요", ("문장: 아주 좋아요",)),
        Text("k", "1", "값도 싸고 정말 아주 좋아요", ("문장: 값도 싸고 정말 아주 좋아요",)),
        Text("k", "2", "왜 웃었나", ("왜 웃었나 그가 이겨서 그가 넘어져서",)),
    ]
    assert too_short(items) == {"k": (2, 1, 3)}


def test_no_item_and_no_example() -> None:
    assert find([], _padding(3)) == [] == find([LONG], [])
    assert find([Text("k", "0", "?!")], [("a", "...", ""), ("b", "", "")]) == []


@pytest.fixture(scope="module")
def script() -> Any:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "contamination_found.py"
    spec = importlib.util.spec_from_file_location("contamination_found", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_real_items_in_six_forms_and_real_instructions(script: Any, data_dir: Path) -> None:
    result = script.measure(data_dir, 10, seed=3)
    names = {name for name, _ in result["pasted"]}
    assert len(names) == 8 and len(result["pasted"]) == 8 * 6
    for name in names:
        found = sum(n for (of, _), n in result["found"].items() if of == name)
        assert found >= 0.95 * 60, (name, result["found"])
    for name, (alarms, size) in result["sets"].items():
        assert alarms <= 0.005 * size, name
    assert result["short"]["kobest"] == (1044, 67, 4561)


def test_items_of_a_file_are_found_as_asked() -> None:
    doc = {"question": "What is it?", "choices": list("abcd"), "answer": 1, "subject": "high_x"}
    (item,) = items.make_items(load("mmlu"), {"high_x": [doc]}, {}, chat=True)
    (text,) = texts_of([{"benchmark": "mmlu", **asdict(item)}])
    assert text.content == "What is it?"
    for asked in (item.prompt, "What is it?\nA. a\nB. b\nC. c\nD. d\nAnswer:"):
        assert [h.kind for h in find([text], [("a", asked, "B")])] == ["exact"]
