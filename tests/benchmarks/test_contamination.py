"""Contamination: what is found, and what is only a phrase."""

from __future__ import annotations

from dataclasses import asdict

from zpdbench.benchmarks import items, load
from zpdbench.benchmarks.contamination import Hit, Text, find, texts_of

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


def test_thirteen_words_in_prompt_or_response() -> None:
    thirteen = " ".join(QUESTION.split()[1:14])
    twelve = " ".join(QUESTION.split()[1:13])
    examples = [
        ("a", f"Translate: {thirteen}!", ""),
        ("b", "Translate this.", f"Well: {thirteen}"),
        ("c", f"Translate: {twelve}", ""),
        ("d", " ".join(QUESTION.split()[1:8]), " ".join(QUESTION.split()[8:14])),
    ]
    assert [(h.example, h.kind) for h in find([ITEM], examples)] == [
        ("a", "13-gram"),
        ("b", "13-gram"),
    ]


def test_a_run_in_many_examples_is_a_phrase() -> None:
    text = "Say: " + " ".join(QUESTION.split()[:14]) + " now."
    assert len(find([ITEM], [(str(i), text, "") for i in range(10)])) == 10
    assert find([ITEM], [(str(i), text, "") for i in range(11)]) == []


def test_a_whole_item_is_found_in_however_many_examples() -> None:
    whole = [(f"whole{i:02}", f"Say: {QUESTION} Now.", "") for i in range(11)]
    part = ("part", "Say: " + " ".join(QUESTION.split()[:14]) + " now.", "")
    hits = find([ITEM], [*whole, part])
    assert [(h.example, h.kind) for h in hits] == [(name, "13-gram") for name, *_ in whole]
    response = [(name, "Translate.", prompt) for name, prompt, _ in whole]
    assert len(find([ITEM], response)) == 11


def test_korean_and_short_items() -> None:
    item = Text("kobest", "kobest_sentineg/0", "만족입니다", ("문장: 만족입니다 긍부정:",))
    hits = find([item], [("a", "만족입니다.", "네"), ("b", "정말 만족입니다.", "")])
    assert [h.example for h in hits] == ["a"]


def test_items_of_a_file_are_found_as_asked() -> None:
    doc = {"question": "What is it?", "choices": list("abcd"), "answer": 1, "subject": "high_x"}
    (item,) = items.make_items(load("mmlu"), {"high_x": [doc]}, {}, chat=True)
    (text,) = texts_of([{"benchmark": "mmlu", **asdict(item)}])
    assert text.content == "What is it?"
    for asked in (item.prompt, "What is it?\nA. a\nB. b\nC. c\nD. d\nAnswer:"):
        assert [h.kind for h in find([text], [("a", asked, "B")])] == ["exact"]
