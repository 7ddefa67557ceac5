"""The generated content: disjoint, true, graded, and the same every time."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from zpdbench import benchmarks, embedded
from zpdbench.embedded import mixture
from zpdbench.embedded.josa import josa
from zpdbench.embedded.kinds import Part, cycle, part_of
from zpdbench.errors import UserError

KINDS = {kind.name: kind for kind in mixture.KINDS}


def _kind(doc: dict) -> mixture.Kind:
    return KINDS[doc["task"] if doc["task"] in KINDS else "mmlu"]


@pytest.fixture(scope="module")
def examples() -> list[dict[str, str]]:
    return embedded.examples(4800)


@pytest.fixture(scope="module")
def items() -> dict[str, list[dict]]:
    return {name: embedded.benchmark_docs(name, 100) for name in embedded.BENCHMARKS}


def test_no_item_is_in_the_corpus_or_in_pretraining(examples, items) -> None:
    asked = {_kind(doc).prompt(doc) for docs in items.values() for doc in docs}
    texts = embedded.pretraining_texts(6000)
    assert not asked & {row["prompt"] for row in examples}
    assert not asked & {t.given for t in texts if t.is_conversation}


def test_parts_stay_apart_whatever_the_seed() -> None:
    for seed in (1, 7):
        for name in embedded.BENCHMARKS:
            for doc in embedded.benchmark_docs(name, 40, seed):
                assert part_of(_kind(doc), doc) is Part.ITEMS
    tuned = {row["prompt"] for row in embedded.examples(2000, seed=3)}
    for name in embedded.BENCHMARKS:
        assert not tuned & {_kind(d).prompt(d) for d in embedded.benchmark_docs(name, 40, seed=9)}


def test_equal_seeds_give_equal_content() -> None:
    assert embedded.examples(500, 4) == embedded.examples(500, 4)
    assert embedded.examples(500, 4) != embedded.examples(500, 5)
    assert embedded.pretraining_texts(200, 1) == embedded.pretraining_texts(200, 1)


def test_the_corpus_is_large_distinct_and_in_two_languages(examples) -> None:
    assert len(examples) == 4800
    assert len({row["id"] for row in examples}) == len(examples)
    assert len({row["prompt"] for row in examples}) == len(examples)
    assert all(row["response"] for row in examples)
    languages = Counter(row["language"] for row in examples)
    assert min(languages.values()) > 0.4 * len(examples)
    for row in examples:
        assert bool(re.search("[가-힣]", row["prompt"])) == (row["language"] == "ko")


def test_difficulty_is_graded(examples) -> None:
    for source, lines in (("gsm8k", {2, 3, 4}), ("humaneval", {2, 3, 4})):
        found = {len(r["response"].strip().split("\n")) for r in examples if r["source"] == source}
        assert lines <= found


def test_sums_are_right(items) -> None:
    for doc in items["gsm8k"]:
        total = int(re.search(r"has (\d+)", doc["question"])[1])
        for left, sign, change, result in re.findall(r"(\d+)([+-])(\d+)=(\d+)", doc["answer"]):
            assert int(left) == total
            total += int(change) if sign == "+" else -int(change)
            assert int(result) == total
        assert doc["answer"].endswith(f"#### {total}")


def test_reference_programs_pass_their_own_tests_and_another_does_not(items) -> None:
    for doc in items["humaneval"]:
        scope: dict = {}
        # The generator's own text.
        exec(doc["prompt"] + doc["canonical_solution"] + "\n" + doc["test"], scope)
        scope["check"](scope[doc["entry_point"]])
        with pytest.raises(AssertionError):
            scope["check"](lambda x: x + 1000)


def test_kobest_is_balanced_over_its_tasks_in_any_prefix(items) -> None:
    tasks = [doc["task"] for doc in items["kobest"]]
    assert Counter(tasks) == dict.fromkeys(set(tasks), 20) and len(set(tasks)) == 5
    assert set(Counter(tasks[:25]).values()) == {5}


def test_no_answer_dominates_a_choice_task(items) -> None:
    letters = Counter(doc["answer"] for doc in items["mmlu"])
    assert len(letters) == 4 and max(letters.values()) <= 40
    for task in {doc["task"] for doc in items["kobest"]}:
        docs = [d for d in embedded.benchmark_docs("kobest", 500) if d["task"] == task]
        labels = Counter(doc["label"] for doc in docs)
        assert max(labels.values()) <= 0.65 * len(docs), task


@pytest.mark.parametrize("name", embedded.BENCHMARKS)
def test_trained_prompts_are_what_the_benchmarks_templates_render(name: str) -> None:
    for doc in embedded.benchmark_docs(name, 20):
        kind = _kind(doc)
        rendered = benchmarks.render(doc["task"] if name == "kobest" else name, doc, chat=True)
        shown = "".join(message["content"] for message in rendered.messages)
        assert shown == kind.prompt(doc)
        if rendered.choices:
            assert rendered.choices[rendered.gold] == kind.response(doc)


@pytest.mark.parametrize("kind", mixture.KINDS, ids=lambda kind: kind.name)
def test_every_kind_has_plain_text_that_says_something(kind) -> None:
    rng = random.Random(0)
    for _ in range(20):
        given, learnt = kind.plain(cycle(rng, kind, Part.BASE, familiar=False))
        assert given and learnt


def test_mistakes_are_told() -> None:
    with pytest.raises(UserError, match="at least one"):
        embedded.examples(0)
    with pytest.raises(UserError, match="no embedded items"):
        embedded.benchmark_docs("arc", 10)
    with pytest.raises(UserError, match="distinct pieces"):
        embedded.benchmark_docs("kobest", 500_000)


def test_josa() -> None:
    assert [josa(w, p) for w, p in (("책", "을"), ("사과", "을"), ("공", "이"), ("배", "은"))] == [
        "책을",
        "사과를",
        "공이",
        "배는",
    ]
