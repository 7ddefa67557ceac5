"""The generated content: disjoint, true, graded, and the same every time."""

from __future__ import annotations

import importlib
import pkgutil
import random
import re
from collections import Counter
from enum import Enum
from pathlib import Path

import pytest

import zpdbench
from zpdbench import benchmarks, embedded, study
from zpdbench.embedded import mixture
from zpdbench.embedded.josa import josa
from zpdbench.embedded.kinds import SHARES, Part, cycle, draw_distinct, part_of
from zpdbench.errors import UserError
from zpdbench.study import Study

KINDS = {kind.name: kind for kind in mixture.KINDS}


def _kind(doc: dict) -> mixture.Kind:
    return KINDS[doc["task"] if doc["task"] in KINDS else "mmlu"]


@pytest.fixture(scope="module")
def examples() -> list[dict[str, str]]:
    return embedded.examples(4800)


@pytest.fixture(scope="module")
def items() -> dict[str, list[dict]]:
    return {name: embedded.benchmark_docs(name, 100) for name in embedded.BENCHMARKS}


# Names, times and what asks for the twist: what may differ where the content is one.
_DRESS = re.compile(
    r"\b(Tom|Anna|Ben|Mia|Sam|Lily|Monday|Tuesday|Wednesday|solve|step|change|work)\b"
    r"|Count in tenths\.|, and one more|Take the \w+ one\. | 반대로 답하라\.| doubled"
    r"|(민수|영희|지우|철수|수미|준호|유나|미나|태호|하나|소라|진우)(은|는|이|가)? ?"
    r"|(어제|오늘|아침에|낮에|저녁에|방금) |(정말|아주|너무) "
)


def _bare(prompt: str) -> str:
    return " ".join(_DRESS.sub("", prompt).split())


@pytest.fixture(scope="module")
def default() -> Study:
    return study.load(Path(__file__).parents[2] / "config/mini.yaml")


def test_no_content_is_in_two_of_pretraining_corpus_and_items(default, monkeypatch) -> None:
    # All that the default study draws: by key, as it was drawn, and by the text without its dress.
    drawn: dict[Part, set[tuple[str, str]]] = {part: set() for part in Part}

    def cycled(rng, kind, part):
        doc = cycle(rng, kind, part)
        drawn[part].add((kind.name, kind.key(doc)))
        return doc

    def distinct(kind, part, *rest):
        docs = draw_distinct(kind, part, *rest)
        drawn[part] |= {(kind.name, kind.key(doc)) for doc in docs}
        return docs

    monkeypatch.setattr(mixture, "cycle", cycled)
    monkeypatch.setattr(mixture, "draw_distinct", distinct)
    pretrained = set()
    for model in default.models.values():
        stages = [model.steps] + ([model.upscale.steps] if model.upscale else [])
        for seed, steps in enumerate(stages, model.seed):
            for text in embedded.pretraining_texts(steps * 40, seed):
                if text.is_conversation:
                    pretrained.add(_bare(text.given))
    source = default.corpus.sources["embedded"]
    corpus = embedded.examples(source.examples, default.corpus.seed, source.shares.model_dump())
    asked = [
        _kind(doc).prompt(doc)
        for name, section in default.benchmarks.items()
        for doc in embedded.benchmark_docs(name, section.items)
    ]
    pairs = [(Part.BASE, Part.TUNING), (Part.BASE, Part.ITEMS), (Part.TUNING, Part.ITEMS)]
    for one, other in pairs:
        assert drawn[one] and drawn[other] and not drawn[one] & drawn[other]
    trained = {_bare(row["prompt"]) for row in corpus if "lot" not in row["source"]}
    items = {_bare(prompt) for prompt in asked}
    assert not pretrained & items
    assert not trained & items
    # Small talk has nothing but names and days.
    tasks = {
        _bare(row["prompt"]) for row in corpus if not row["source"].startswith(("talk", "lot"))
    }
    assert not pretrained & tasks
    assert not pretrained & {row["prompt"] for row in corpus}


def test_no_two_items_are_one_but_for_names_and_times(items) -> None:
    for name, docs in items.items():
        assert len({_bare(_kind(doc).prompt(doc)) for doc in docs}) == 100, name


def test_a_hundred_items_ask_mostly_what_is_learnable(items) -> None:
    def twisted(doc: dict) -> bool:
        return bool(re.search("tenths|one more|Take the|반대로", _kind(doc).prompt(doc)))

    for name in ("gsm8k", "humaneval", "mmlu"):
        assert sum(map(twisted, items[name])) == 80
    by_task = Counter(doc["task"] for doc in items["kobest"] if twisted(doc))
    assert by_task == {"kobest_boolq": 16, "kobest_sentineg": 16}


def test_the_corpus_has_the_shares_that_a_study_names() -> None:
    shares = {"mastered": 0.5, "learnable": 0.3, "beyond": 0.2}
    rows = embedded.examples(1000, 1, shares)
    twisted = [row for row in rows if "-twist-" in row["id"]]
    assert abs(len(twisted) - 300) <= 2  # whole numbers of each kind
    assert sum(row["source"].startswith("lot") for row in rows) == 200
    assert all(re.search("tenths|one more|Take the|반대로", row["prompt"]) for row in twisted)
    others = [row for row in rows if "-twist-" not in row["id"]]
    assert not any(re.search("tenths|one more|Take the|반대로", r["prompt"]) for r in others)


def test_pretraining_has_no_twist_in_a_task() -> None:
    texts = embedded.pretraining_texts(4000, 3)
    twists = re.compile("tenths|one more|Take the|반대로")
    assert not any(twists.search(t.given) for t in texts if t.is_conversation)
    # The text book tells what most of them mean.
    assert any(twists.search(t.given) for t in texts if not t.is_conversation)


def test_a_lot_is_beyond_reach() -> None:
    digits = Counter(
        digit
        for row in embedded.examples(4000)
        if row["source"].startswith("lot")
        for digit in row["response"]
    )
    assert set(digits) == set("0123456789")
    assert max(digits.values()) < 1.2 * min(digits.values())


def test_parts_stay_apart_whatever_the_seed() -> None:
    for seed in (1, 7):
        for name in embedded.BENCHMARKS:
            for doc in embedded.benchmark_docs(name, 40, seed):
                assert part_of(_kind(doc), doc) is Part.ITEMS
    tuned = {row["prompt"] for row in embedded.examples(2000, seed=3)}
    for name in embedded.BENCHMARKS:
        assert not tuned & {_kind(d).prompt(d) for d in embedded.benchmark_docs(name, 40, seed=9)}


@pytest.mark.parametrize("kind", mixture.KINDS, ids=lambda kind: kind.name)
def test_each_part_has_its_share_of_a_kind(kind) -> None:
    rng = random.Random(5)
    docs = {kind.key(doc): doc for doc in (kind.draw(rng, False) for _ in range(6000))}
    found = Counter(part_of(kind, doc) for doc in docs.values())
    for part, share in SHARES.items():
        assert abs(found[part] / len(docs) - share) < 5 * (0.25 / len(docs)) ** 0.5


def test_no_enumeration_has_two_names_for_one_value() -> None:
    for module in pkgutil.walk_packages(zpdbench.__path__, "zpdbench."):
        if module.name.endswith("__main__"):
            continue
        for value in vars(importlib.import_module(module.name)).values():
            if isinstance(value, type) and issubclass(value, Enum):
                assert len(value) == len(value.__members__), value


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
    assert min(languages.values()) > 0.45 * len(examples)
    for row in examples:
        assert bool(re.search("[가-힣]", row["prompt"])) == (row["language"] == "ko")


def test_sums_are_right(items) -> None:
    for doc in items["gsm8k"]:
        start = int(re.search(r"has (\d+)", doc["question"])[1])
        [(left, sign, change, result)] = re.findall(r"(\d+)([+-])(\d+)=(\d+)", doc["answer"])
        total = start + int(sign + change)
        assert (int(left), int(result)) == (start, total) and total > 0
        told = re.search(r"(buys|finds|gets|loses|sells|breaks) (\d+)", doc["question"])
        assert told[2] == change and (told[1] in ("buys", "finds", "gets")) == (sign == "+")
        tenths = "tenths" in doc["question"]
        assert doc["answer"].endswith(f"#### {total * 10 if tenths else total}")


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
        docs = [
            d
            for seed in range(5)
            for d in embedded.benchmark_docs("kobest", 100, seed)
            if d["task"] == task
        ]
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


@pytest.mark.parametrize("kind", mixture.TAUGHT, ids=lambda kind: kind.name)
def test_every_task_that_is_taught_has_plain_text_that_says_something(kind) -> None:
    rng = random.Random(0)
    for _ in range(20):
        assert all(kind.plain(cycle(rng, kind, Part.BASE)))
        if kind.notion:
            assert all(kind.notion(rng))


def test_no_words_give_the_wrong_choices_of_copa_and_hellaswag_away(items) -> None:
    """The right one shares no more words with what is given than the wrong ones, on average."""
    for task, fields in (
        ("kobest_copa", ["alternative_1", "alternative_2"]),
        ("kobest_hellaswag", [f"ending_{i}" for i in range(1, 5)]),
    ):
        right = 0.0
        docs = [
            d
            for seed in range(6)
            for d in embedded.benchmark_docs("kobest", 100, seed)
            if d["task"] == task
        ]
        for doc in docs:
            given = set((doc.get("premise") or doc["context"]).split())
            shared = [len(given & set(doc[field].split())) for field in fields]
            best = [i for i, n in enumerate(shared) if n == max(shared)]
            right += (doc["label"] in best) / len(best)
        assert right / len(docs) < 1 / len(fields) + 0.13


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
