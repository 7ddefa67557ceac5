"""Corpora from real and generated sources, and what is refused."""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from zpdbench import study
from zpdbench.corpora import make_corpus
from zpdbench.corpora.sources import detect_language, named_language
from zpdbench.curriculum.difficulty import rank_normalise
from zpdbench.errors import UserError
from zpdbench.text.unicode import fold_spaces

COLUMNS = [
    "id",
    "language",
    "source",
    "prompt",
    "response",
    "d1",
    "d2",
    "d3",
    "difficulty",
    "split",
]


def parsed(data: Path, sources: dict[str, Any], **corpus: Any) -> study.Study:
    return study.parse(
        {
            "results": "results",
            "data_dir": str(data),
            "seeds": [0],
            "models": {"m": {"source": "local", "path": "m"}},
            "conditions": {"random": {"order": "random"}},
            "corpus": {"name": "c", "sources": sources, "probe": 4, **corpus},
            "training": {"steps": 1, "evaluate_every": 1, "learning_rate": 1e-3},
            "benchmarks": {"gsm8k": {"source": "embedded", "items": 20, "num_fewshot": 0}},
            "hypotheses": {},
        }
    )


def alpaca(n: int = 30) -> list[dict[str, str]]:
    return [
        {
            "instruction": f"Count to {i} and say why." if i % 2 else f"{i}까지 세어 보세요.",
            "input": "Slowly." if i % 3 == 0 else "",
            "output": ". ".join(str(k) for k in range(1, i % 7 + 2)) + ".",
        }
        for i in range(n)
    ]


def examples(settings: study.Study) -> tuple[list[dict[str, str]], list[str]]:
    """The examples that a corpus is made of, without their difficulty (kiwipiepy is slow)."""
    return make_corpus._examples(settings, [])


Write = Callable[[Any], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(records: Any) -> Path:
        (tmp_path / "data.json").write_text(json.dumps(records), "utf-8")
        return tmp_path

    return to_file


SOURCE = {"a": {"format": "alpaca", "path": "data.json"}}


def test_alpaca(write: Write) -> None:
    settings = parsed(write(alpaca()), SOURCE)
    frame, notes = make_corpus.build(settings)
    assert frame.columns[:10] == COLUMNS
    assert notes == []
    assert frame["id"].to_list() == sorted(frame["id"])
    assert frame["prompt"][0] == "0까지 세어 보세요.\n\nSlowly."
    assert frame.group_by("language").len().sort("language").rows() == [("en", 15), ("ko", 15)]
    probe = frame.filter(pl.col("split") == "probe")
    assert probe.group_by("language").len().sort("language").rows() == [("en", 2), ("ko", 2)]
    assert frame["difficulty"].is_between(0, 1).all()


def test_same_bytes_twice_and_notes_in_the_file(write: Write, tmp_path: Path) -> None:
    records = alpaca()
    records.insert(3, {"instruction": "x", "input": "", "output": " "})
    records.append(records[0])
    settings = parsed(write(records), SOURCE, on_empty="drop")
    for name in ("one", "two"):
        make_corpus.write(tmp_path / f"{name}.parquet", *make_corpus.build(settings))
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    metadata = pl.read_parquet_metadata(tmp_path / "one.parquet")
    assert json.loads(metadata["zpdbench"])["notes"] == [
        "a: 1 examples with an empty response left out",
        "a: 1 exact duplicates left out",
    ]


def test_the_file_holds_every_part_of_difficulty(write: Write, tmp_path: Path) -> None:
    """From the raw measures alone d1, d2, d3 and their sum can be had again."""
    settings = parsed(write(alpaca()), SOURCE)
    make_corpus.write(tmp_path / "c.parquet", *make_corpus.build(settings))
    frame = pl.read_parquet(tmp_path / "c.parquet")
    raw = [c for c in frame.columns if c.startswith("raw_")]
    assert raw == frame.columns[10:] and len(raw) >= 5
    for name in raw:
        values = frame[name]
        assert values.dtype == pl.Float64 and values.is_finite().all(), name
    for language in ("en", "ko"):
        mine = frame.filter(pl.col("language") == language)
        for part, source in (("d2", "raw_steps"), ("d3", "raw_idf")):
            ranks = rank_normalise(mine[source].round(12).to_numpy())
            assert mine[part].to_list() == pytest.approx(list(ranks))
    whole = 0.3 * frame["d1"] + 0.5 * frame["d2"] + 0.2 * frame["d3"]
    assert frame["difficulty"].to_list() == pytest.approx(whole.to_list())


def test_a_sample_is_seeded(write: Write) -> None:
    data = write(alpaca(60))
    source = {"a": {**SOURCE["a"], "examples": 20}}
    drawn = [make_corpus.build(parsed(data, source, seed=s))[0]["id"].to_list() for s in (0, 0, 1)]
    assert len(drawn[0]) == 20
    assert drawn[0] == drawn[1] != drawn[2]


def test_shortfall(write: Write) -> None:
    data = write(alpaca(30))
    source = {"a": {**SOURCE["a"], "format": "openorca_ko", "examples": 100}}
    with pytest.raises(UserError, match=r"30 usable examples, 100 were asked.*use_all"):
        make_corpus.build(parsed(data, source))
    frame, notes = make_corpus.build(parsed(data, source, on_shortfall="use_all"))
    assert len(frame) == 30
    assert notes == ["a: shortfall, has 30 usable examples, 100 were asked for; all are used"]


def test_json_lines_and_parquet(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(r) for r in alpaca()), "utf-8")
    pl.DataFrame(
        {"prompt": [f"p{i}" for i in range(9)], "response": ["r"] * 9, "language": ["ko"] * 9}
    ).write_parquet(tmp_path / "b.parquet")
    sources = {
        "a": {"format": "alpaca", "path": "a.jsonl", "language": "en"},
        "b": {"format": "parquet", "path": "b.parquet"},
    }
    frame, _ = make_corpus.build(parsed(tmp_path, sources))
    assert frame.group_by("source", "language").len().sort("source").rows() == [
        ("a", "en", 30),
        ("b", "ko", 9),
    ]


def test_language() -> None:
    assert detect_language("안녕하세요, Anna") == "ko"
    assert detect_language("The Korean word 김치 appears once in this long sentence.") == "en"
    assert detect_language("1 2 3") == "en"


@pytest.mark.parametrize(
    ("name", "language"),
    [
        *((n, "ko") for n in ("ko", "KO", "ko-KR", "ko_kr.UTF-8", "kor", "kor_Hang")),
        *((n, "ko") for n in ("ko-Kore-KR", "ＫＯ")),
        *(
            (n, "ko")
            for n in ("Korean", " korean (South) ", "한국어", "\u1112\u1161\u11ab국어", "ＫＯ")
        ),
        *((n, "en") for n in ("en", "en-US", "EN_gb", "eng", "eng_Latn", "English (US)", "영어")),
        *(
            (n, None)
            for n in ("fr", "python", "en-ko", "ko-en", "kr", "unknown", "k", "en/ko", "x-ko")
        ),
    ],
)
def test_names_of_languages(name: str, language: str | None) -> None:
    assert named_language(name) == language


def test_languages_are_mapped_or_refused(write: Write) -> None:
    records: list[dict[str, Any]] = [
        {**r, "language": ("ko-KR", "English", "", None)[i % 4]} for i, r in enumerate(alpaca())
    ]
    rows, notes = examples(parsed(write(records), SOURCE))
    assert {row["language"] for row in rows} == {"ko", "en"} and notes == []
    assert [row["language"] for row in rows[:2]] == ["ko", "en"]
    for bad, shown in (("fr", "'fr'"), (["ko"], r"\['ko'\]"), (1, "1")):
        records[8]["language"] = bad
        with pytest.raises(UserError, match=rf"record 9: language {shown} is neither"):
            examples(parsed(write(records), SOURCE))
    said = {"a": {**SOURCE["a"], "language": "ko"}}
    rows, notes = examples(parsed(write(records), said))
    assert {row["language"] for row in rows} == {"ko"}
    assert notes == ["a: 9 examples taken as ko, though their field language is another"]


def test_text_of_no_known_script_is_counted(write: Write) -> None:
    records = [*alpaca(), {"instruction": "これは何ですか", "output": "本です"}]
    _, notes = examples(parsed(write(records), SOURCE))
    assert notes == ["a: 1 examples in neither Hangul nor Latin letters taken as en"]


def test_composed_and_decomposed_korean_are_the_same(write: Write) -> None:
    frames = []
    for form in ("NFC", "NFD"):
        records = json.loads(unicodedata.normalize(form, json.dumps(alpaca(), ensure_ascii=False)))
        frame, notes = make_corpus.build(parsed(write(records), SOURCE))
        frames.append(frame)
        assert len(notes) == (form == "NFD")
    assert frames[0].equals(frames[1])
    assert frames[0].group_by("language").len().sort("language").rows() == [("en", 15), ("ko", 15)]
    rows, notes = examples(parsed(write([*alpaca(), *records]), SOURCE))
    assert len(rows) == 30 and "a: 30 exact duplicates left out" in notes


def test_only_line_feeds_end_lines(tmp_path: Path) -> None:
    records = alpaca()
    for i, c in enumerate("\u2028\u2029\x85\x0c\x1c\x1e"):
        records[i]["output"] = f"one{c}two"
    lines = [json.dumps(r, ensure_ascii=False) for r in records]
    (tmp_path / "data.json").write_bytes("\r\n".join(lines).encode("utf-8"))
    rows, _ = examples(parsed(tmp_path, SOURCE))
    assert len(rows) == 30 and rows[0]["response"] == "one\u2028two"
    (tmp_path / "data.json").write_text("\n".join([*lines, "{"]), "utf-8")
    with pytest.raises(UserError, match=r"data\.json:31: no valid JSON"):
        examples(parsed(tmp_path, SOURCE))


def test_fields_that_are_not_used_are_named(write: Write) -> None:
    records = [{**r, "id": i, "history": [], "system": None} for i, r in enumerate(alpaca())]
    records[3] |= {"text": "Below is an instruction.", "score": 0}
    _, notes = examples(parsed(write(records), SOURCE))
    assert notes == ["a: fields that are not used: id (30), score (1), text (1)"]


def test_equal_rows_of_several_sources_stand_once(tmp_path: Path) -> None:
    first, second = alpaca(20), alpaca(30)[10:]
    second[0] = {**second[0], "output": second[0]["output"].upper() + "\u200b"}
    second[1] = {**second[1], "instruction": f"  {second[1]['instruction']}\n"}
    for name, records in (("one", first), ("two", second)):
        (tmp_path / f"{name}.json").write_text(json.dumps(records), "utf-8")
    sources = {n: {"format": "alpaca", "path": f"{n}.json"} for n in ("one", "two")}
    for how in ({}, {"drop_defects": True}):
        rows, notes = examples(parsed(tmp_path, sources, prepare=how))
        assert Counter(row["source"] for row in rows) == {"one": 20, "two": 10}
        assert notes == ["two: 10 examples left out (equal to one of one)"]


def test_a_probe_by_source_has_each_source_s_share(tmp_path: Path) -> None:
    for name, n, start in (("few", 8, 0), ("many", 32, 100)):
        rows = [
            {"instruction": f"Count to {start + i}.", "input": "", "output": f"It is {i}."}
            for i in range(n)
        ]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows), "utf-8")
    sources = {n: {"format": "alpaca", "path": f"{n}.json"} for n in ("few", "many")}
    shares = {}
    for by in ("language", "source"):
        settings = parsed(tmp_path, sources, probe=10, probe_by=by)
        probe = make_corpus.build(settings)[0].filter(pl.col("split") == "probe")
        shares[by] = Counter(probe["source"])
    assert shares["source"] == {"few": 2, "many": 8}
    default = make_corpus.build(parsed(tmp_path, sources, probe=10))[0]
    assert Counter(default.filter(pl.col("split") == "probe")["source"]) == shares["language"]
    plain, by_source = (parsed(tmp_path, sources, probe_by=b) for b in ("language", "source"))
    digests = [s.digest("make_corpus") for s in (parsed(tmp_path, sources), plain, by_source)]
    # A new key that is not used is no reason to make a corpus again.
    assert digests[0] == digests[1] != digests[2]
    assert "probe_by" not in plain.design["corpus"]


def test_what_the_probe_asks_is_not_trained_on(write: Write) -> None:
    records = [{**r, "output": f"{r['output']} {k}"} for r in alpaca() for k in ("Yes.", "No!")]
    settings = parsed(write(records), SOURCE)
    frame, notes = make_corpus.build(settings)
    probe = frame.filter(pl.col("split") == "probe")["prompt"]
    assert not set(probe) & set(frame.filter(pl.col("split") == "train")["prompt"])
    left = 60 - len(frame)
    assert 2 <= left <= 4
    assert notes == [f"a: {left} examples left out (they ask what an example of the probe asks)"]
    records = [{**r, "instruction": "Say it.", "input": ""} for r in alpaca(7)]
    with pytest.raises(UserError, match=r"corpus\.probe: the probe's prompts are those of all"):
        make_corpus.build(parsed(write(records), SOURCE))


def _without(key: str) -> list[dict[str, str]]:
    records = alpaca()
    del records[4][key]
    return records


def _with(index: int, **changes: Any) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = [*alpaca()]
    records[index] = {**records[index], **changes}
    return records


@pytest.mark.parametrize(
    ("records", "message"),
    [
        (_without("output"), r"record 5: no field 'output'"),
        (_without("instruction"), r"record 5: no field 'instruction'"),
        (_with(6, output="  "), r"record 7: the response is empty.*on_empty: drop"),
        (_with(6, output=None), r"record 7: the response is empty"),
        (_with(6, output="\u200b\u00ad "), r"record 7: the response is empty"),
        (_with(6, instruction="\ufeff", input=""), r"record 7: the instruction is empty"),
        (_with(4, instruction=""), r"record 5: the instruction is empty"),
        (_with(6, output=7), r"record 7: output is no text"),
        (_with(6, input=97), r"record 7: input is no text"),
        (_with(6, input=["a"]), r"record 7: input is no text"),
        (_with(6, input=False), r"record 7: input is no text"),
        (_with(6, system="Be brief."), r"record 7: field 'system' belongs to the example"),
        (_with(6, history=[["a", "b"]]), r"record 7: field 'history' .*write it into instruction"),
        (_with(6, Messages=[{"role": "user"}]), r"record 7: field 'Messages' belongs"),
        (_with(6, Input="Slowly."), r"record 7: field 'Input' belongs"),
        (_with(6, output="a \ud83d"), r"data\.json: record 7: lone surrogate U\+D83D"),
        (_with(6, instruction="\udc00"), r"data\.json: record 7: lone surrogate U\+DC00"),
        (_with(6, **{"x\ud83d": 1}), r"data\.json: record 7: lone surrogate"),
        ([*alpaca(), "text"], r"record 31: is no object"),
        ([], r"holds no record"),
        (alpaca(4), r"a probe of 4 out of 4"),
    ],
)
def test_bad_records(write: Write, records: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_corpus.build(parsed(write(records), SOURCE))


def test_bad_files(tmp_path: Path) -> None:
    settings = parsed(tmp_path, SOURCE)
    with pytest.raises(UserError, match="no such file"):
        make_corpus.build(settings)
    (tmp_path / "data.json").write_text('[{"instruction": "a"')
    with pytest.raises(UserError, match="no valid JSON"):
        make_corpus.build(settings)
    (tmp_path / "data.json").write_text('{"instruction": "a", "output": "b"}\n{"instruction"')
    with pytest.raises(UserError, match=r"data\.json:2: no valid JSON"):
        make_corpus.build(settings)
    (tmp_path / "data.json").write_bytes(b"[\xff\xfe]")
    with pytest.raises(UserError, match="no UTF-8"):
        make_corpus.build(settings)


@pytest.fixture
def items(tmp_path: Path) -> tuple[Path, str]:
    """Items as make-items writes them, and one item's question."""
    from zpdbench.corpora import make_items

    class Arguments:
        study = str(tmp_path / "study.yaml")
        benchmark = "gsm8k"
        out = str(tmp_path / "items" / "gsm8k.parquet")

    settings = parsed(tmp_path, SOURCE)
    Path(Arguments.study).write_text(study.lock_text(settings), "utf-8")
    Path(Arguments.out).parent.mkdir()
    make_items.main(Arguments)  # type: ignore[arg-type]
    doc = json.loads(pl.read_parquet(Arguments.out)["doc"][5])
    return Path(Arguments.out), doc["question"]


def test_contamination(write: Write, items: tuple[Path, str]) -> None:
    path, question = items
    records: list[dict[str, Any]] = [*alpaca(), {"instruction": question, "output": "#### 1"}]
    data = write(records)
    frame, notes = make_corpus.build(parsed(data, SOURCE), [path])
    assert len(frame) == 30 and question not in frame["prompt"].to_list()
    assert notes == ["contamination: 1 examples hold an item of gsm8k and are left out"]
    frame, notes = make_corpus.build(parsed(data, SOURCE, contamination="keep"), [path])
    assert len(frame) == 31 and "are kept" in notes[0]
    with pytest.raises(UserError, match="a-000030"):
        make_corpus.build(parsed(data, SOURCE, contamination="error"), [path])


def test_items_that_are_not_asked_are_looked_for_too(
    write: Write, items: tuple[Path, str], data_dir: Path
) -> None:
    """Ten GSM8K items are asked; an example is the thousandth: left out all the same."""
    lines = (data_dir / "gsm8k" / "test.jsonl").read_text("utf-8").splitlines()
    asked, other = (json.loads(lines[i])["question"] for i in (3, 999))
    records: list[dict[str, Any]] = [
        *alpaca(),
        {"instruction": asked, "output": "#### 1"},
        {"instruction": f"Please solve this for me. {other} Explain.", "output": "#### 1"},
    ]
    folder = write(records)
    (folder / "gsm8k").symlink_to(data_dir / "gsm8k")
    notes, digests = [], set()
    for count in (10, 20):
        section = {"source": "files", "items": count, "num_fewshot": 0}
        settings = parsed(folder, SOURCE).model_dump(mode="json", exclude_unset=True)
        settings["benchmarks"] = {"gsm8k": section}
        asking = study.parse(settings)
        frame, said = make_corpus.build(asking, [items[0]])
        assert len(frame) == 30
        notes.append(said)
        digests.add(asking.digest("make_corpus"))
    said = "contamination: 2 examples hold an item of gsm8k and are left out"
    assert notes[0] == notes[1] == [said]
    assert len(digests) == 1, "asking more items must train nothing again"


def test_the_embedded_corpus_holds_no_embedded_item(
    tmp_path: Path, items: tuple[Path, str]
) -> None:
    settings = parsed(tmp_path, {"e": {"format": "embedded", "examples": 300}})
    frame, notes = make_corpus.build(settings, [items[0]])
    assert len(frame) == 300 and notes == []
    assert set(frame["language"]) == {"en", "ko"}
    assert frame["difficulty"].n_unique() > 50


def test_real_data(data_dir: Path) -> None:
    sources = {
        "alpaca": {
            "format": "alpaca",
            "path": "instruct_en/alpaca_random_9229.json",
            "language": "en",
            "examples": 1000,
        },
        "koalpaca": {
            "format": "alpaca",
            "path": "instruct_ko/koalpaca_v1.0_11432.json",
            "language": "ko",
            "examples": 300,
        },
    }
    with pytest.raises(UserError, match=r"record \d+: the response is empty"):
        make_corpus.build(parsed(data_dir, sources, probe=32))
    frame, notes = make_corpus.build(parsed(data_dir, sources, probe=32, on_empty="drop"))
    assert len(frame) == 1300
    assert notes == [
        "alpaca: 4 examples with an empty response left out",
        "koalpaca: 1 examples with an empty response left out",
    ]
    for language in ("en", "ko"):
        mine = frame.filter(pl.col("language") == language)
        assert mine["difficulty"].mean() == pytest.approx(0.5)
        assert mine["difficulty"].std() > 0.1
        assert (mine["split"] == "probe").sum() == 16


def test_real_sources_share_no_row_and_no_probe_prompt(data_dir: Path) -> None:
    """The hardest of Alpaca and a sample of Alpaca have 552 examples in common."""
    files = ("alpaca_cherry_5_percent", "alpaca_random_9229")
    sources = {
        name: {"format": "alpaca", "path": f"instruct_en/{name}.json", "language": "en"}
        for name in files
    }
    settings = parsed(data_dir, sources, probe=256, on_empty="drop")
    rows, notes = examples(settings)
    keys = [(fold_spaces(row["prompt"]), fold_spaces(row["response"])) for row in rows]
    assert len(set(keys)) == len(keys)
    assert any(note.endswith("(equal to one of alpaca_cherry_5_percent)") for note in notes)
    frame, _ = make_corpus.build(settings)
    asked = {
        split: set(map(fold_spaces, frame.filter(pl.col("split") == split)["prompt"]))
        for split in ("train", "probe")
    }
    assert len(asked["probe"]) == 256 and not asked["probe"] & asked["train"]
