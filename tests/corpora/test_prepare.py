"""Preparation of instruction data: what goes, what stays, that the search misses nothing."""

from __future__ import annotations

import json
import random
import unicodedata
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.corpora.test_make_corpus import Write, alpaca, parsed
from zpdbench.corpora import make_corpus, prepare
from zpdbench.corpora.sources import without_placeholder
from zpdbench.errors import UserError
from zpdbench.study import Preparation
from zpdbench.text.unicode import fold_spaces


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(records: Any) -> Path:
        (tmp_path / "data.json").write_text(json.dumps(records, ensure_ascii=False), "utf-8")
        return tmp_path

    return to_file


@pytest.mark.parametrize(
    ("prompt", "response", "kind"),
    [
        ("Add two and two.", "4", None),
        ("Add two and two.", "<nooutput>", "placeholder"),
        ("Add two and two.", "N/A", "placeholder"),
        ("Is there none?", "None of them is.", None),
        ("Summarise https://example.org/page.", "It is about pages.", "address"),
        ("Generate an image of a cat.", "[image]", "picture"),
        ("Draw a conclusion from the text, in detail.", "It follows that " + "x " * 200, None),
        ("Say a", "b\x00c", "control"),
        ("Say a", "caf\ufffd", "control"),
        ("서울의 수도를 말해 주세요.", "서울입니다.", None),
    ],
)
def test_known_defects(prompt: str, response: str, kind: str | None) -> None:
    found = prepare.defect(prompt, response)
    assert (found is None) if kind is None else (found is not None and kind in found)


def test_an_input_that_says_there_is_none_goes() -> None:
    assert without_placeholder("Tell a joke.\n\n<noinput>") == "Tell a joke."
    assert without_placeholder("Tell a joke.\n\nNo input") == "Tell a joke."
    assert without_placeholder("Translate.\n\nnone of it") == "Translate.\n\nnone of it"


@pytest.mark.parametrize(
    ("text", "language", "fits"),
    [
        ("The word 김치 is Korean.", "en", False),
        ("The Korean word 김치 appears just once in this rather long sentence.", "en", True),
        ("안녕하세요, Anna", "ko", True),
        ("Hello, Anna", "ko", False),
        ("これは日本語です", "en", False),
        ("1 + 2 = 3", "ko", True),
        ("Это по-русски", "en", False),
        (unicodedata.normalize("NFD", "안녕하세요, Anna"), "ko", True),
        ("ﾡﾢ ﾱﾲ Anna", "ko", True),
        ("Ｈｅｌｌｏ， Ａｎｎａ", "en", True),
        ("Tiếng Việt rất đẹp", "en", True),
    ],
)
def test_language_by_script(text: str, language: str, fits: bool) -> None:
    assert prepare.is_language(text, language) is fits


def _jaccard(a: str, b: str) -> float:
    """Jaccard similarity of 5-character runs, straight from its definition."""

    def runs(text: str) -> set[str]:
        normal = fold_spaces(text)
        return {normal[i : i + 5] for i in range(max(len(normal) - 4, 1))}

    one, other = runs(a), runs(b)
    return len(one & other) / len(one | other)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60), st.text(max_size=60))
def test_jaccard_is_the_definition(a: str, b: str) -> None:
    ours = prepare.jaccard(prepare.shingles(a), prepare.shingles(b))
    assert ours == pytest.approx(_jaccard(a, b))


def _texts(n: int) -> list[str]:
    """Texts in two scripts, some of them alike to several degrees."""
    drawn = random.Random(3)
    words = [f"word{i}" for i in range(80)] + [chr(0xAC00 + 37 * i) * 3 for i in range(80)]
    texts: list[str] = []
    for _ in range(n):
        if texts and drawn.random() < 0.6:
            parts = drawn.choice(texts).split()
            for _ in range(drawn.randrange(0, 5)):
                parts[drawn.randrange(len(parts))] = drawn.choice(words)
            texts.append(" ".join(parts))
        else:
            texts.append(" ".join(drawn.choices(words, k=40)))
    return texts


@pytest.mark.parametrize("threshold", [0.7, 0.8, 0.95])
def test_the_search_finds_what_all_pairs_find(threshold: float) -> None:
    texts = _texts(250)
    stay: list[int] = []
    gone = []
    for i, text in enumerate(texts):
        if any(_jaccard(text, texts[j]) >= threshold for j in stay):
            gone.append(i)
        else:
            stay.append(i)
    assert 5 < len(gone) < 240
    found = prepare.near_duplicates(texts, threshold)
    assert [i for i, _, _ in found] == gone
    assert all(_jaccard(texts[i], texts[j]) == pytest.approx(s) for i, j, s in found)


def test_signatures_estimate_jaccard() -> None:
    texts = _texts(60)
    hashes = [prepare.shingles(t) for t in texts]
    signed = [prepare.signature(h) for h in hashes]
    errors = [
        float((signed[i] == signed[j]).mean()) - prepare.jaccard(hashes[i], hashes[j])
        for i in range(60)
        for j in range(i)
    ]
    # The mean of 126 draws: no bias, a standard error of at most sqrt(1/4/126) = 0.045.
    assert abs(sum(errors) / len(errors)) < 0.01
    assert max(map(abs, errors)) < 5 * 0.045


SOURCE = {"a": {"format": "alpaca", "path": "data.json"}}


def test_nothing_is_done_unless_asked(write: Write) -> None:
    data = write([*alpaca(), {"instruction": "Draw a cat", "input": "", "output": "N/A"}])
    frame, notes = make_corpus.build(parsed(data, SOURCE))
    assert len(frame) == 31 and notes == []


def test_everything_asked_is_noted(write: Write) -> None:
    long = "Explain in a few sentences how a bill becomes a law in a country with two chambers."
    records: list[dict[str, Any]] = [
        *alpaca(),
        {"instruction": "Add.", "input": "<noinput>", "output": "There is nothing to add here."},
        {"instruction": "Add.", "input": "", "output": "n/a"},
        {"instruction": "これは何", "input": "", "output": "これは日本語です"},
        {"instruction": long, "input": "", "output": "Both vote on it in turn, then it is signed."},
        {"instruction": long, "input": "", "output": "Both vote on it in turn, then it is signed!"},
        {"instruction": "Repeat.", "input": "", "output": "again " * 200},
    ]
    how = {
        "near_duplicates": 0.8,
        "check_language": True,
        "max_characters": 1000,
        "drop_defects": True,
    }
    frame, notes = make_corpus.build(parsed(write(records), SOURCE, prepare=how))
    assert "Add." in frame["prompt"].to_list()
    said = "\n".join(notes)
    for what in (
        "a: 1 examples left out (not en)",
        "a: 1 examples left out (over 1000 characters)",
        "a: 1 examples left out (placeholder as response)",
    ):
        assert what in said
    assert "near-duplicates left out (Jaccard of 5-character runs 0.8 or more)" in said
    assert frame.filter(pl.col("prompt") == long).height == 1


def test_a_sample_is_drawn_of_what_is_left(write: Write) -> None:
    records = [*alpaca(40), *({**r, "output": r["output"] + " "} for r in alpaca(40))]
    source = {"a": {**SOURCE["a"], "examples": 20}}
    how = {"drop_defects": True}
    frame, _ = make_corpus.build(parsed(write(records), source, prepare=how))
    assert len(frame) == 20
    source = {"a": {**SOURCE["a"], "examples": 41}}
    with pytest.raises(UserError, match=r"has 40 usable examples, 41 were asked for.*use_all"):
        make_corpus.build(parsed(write(records), source, prepare=how))


def test_balance(write: Write) -> None:
    records = [r for i, r in enumerate(alpaca(60)) if i % 2 or i < 20]
    how = {"balance_languages": True}
    frame, notes = make_corpus.build(parsed(write(records), SOURCE, prepare=how))
    assert dict(frame.group_by("language").len().iter_rows()) == {"en": 10, "ko": 10}
    assert notes == ["en: 20 examples left out, so that each language has 10"]
    again, _ = make_corpus.build(parsed(write(records), SOURCE, prepare=how))
    assert again.equals(frame)


def test_openorca_ko_puts_the_system_prompt_first(tmp_path: Path) -> None:
    pl.DataFrame(
        {
            "id": ["cot.1", "t0.2"] * 5,
            "input": ["당신은 조수입니다.", ""] * 5,
            "instruction": [f"{i}을 설명해 주세요." for i in range(10)],
            "output": [f"{i}은 수입니다." for i in range(10)],
        }
    ).write_parquet(tmp_path / "train-0.parquet")
    source = {"o": {"format": "openorca_ko", "path": "train-*.parquet", "language": "ko"}}
    frame, _ = make_corpus.build(parsed(tmp_path, source))
    assert frame["prompt"][0] == "당신은 조수입니다.\n\n0을 설명해 주세요."
    assert frame["prompt"][1] == "1을 설명해 주세요."


def test_several_files_are_one_source(tmp_path: Path) -> None:
    for part in range(2):
        pl.DataFrame(
            {
                "instruction": [f"Say {part} and {i}, please." for i in range(5)],
                "input": [""] * 5,
                "output": [f"{part} and {i}" for i in range(5)],
            }
        ).write_parquet(tmp_path / f"train-{part}.parquet")
    source = {"o": {"format": "alpaca", "path": "train-*.parquet", "language": "en"}}
    frame, _ = make_corpus.build(parsed(tmp_path, source))
    assert len(frame) == 10 and frame["id"].n_unique() == 10


def test_defaults_do_nothing() -> None:
    assert Preparation().model_dump() == {
        "near_duplicates": None,
        "check_language": False,
        "min_characters": 0,
        "max_characters": None,
        "drop_defects": False,
        "balance_languages": False,
    }
