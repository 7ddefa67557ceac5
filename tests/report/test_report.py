"""The report's text: what it says, that it is escaped, linked, bilingual and the same twice."""

from __future__ import annotations

import base64
import gzip
import hashlib
import html
import json
import math
import re
import shutil
import string
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from tests.report import material
from tests.statistics.grids import write
from tests.statistics.test_h3a import made
from zpdbench import cli, datasheet, study
from zpdbench.report import (
    charts,
    draw_figures,
    draw_training,
    evidence,
    explorer,
    report,
    results,
    sections,
    words,
)
from zpdbench.report.gains import gains_by_language

VOID = {"meta", "link", "img", "br", "input", "hr"}


class Outline(HTMLParser):
    """Elements, identifiers and links of a page; fails where elements do not nest."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.kinds: list[str] = []
        self.attributes: list[str] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.kinds.append(tag)
        self.attributes += given
        self.ids += [given["id"] or ""] if "id" in given else []
        self.links += [given["href"] or ""] if tag == "a" else []
        self.links += ["#" + (given["data-row"] or "")] if "data-row" in given else []
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def outline(text: str) -> Outline:
    parsed = Outline()
    parsed.feed(text)
    assert not parsed.open
    return parsed


def test_page_is_well_formed_and_every_link_has_its_row(page: Path) -> None:
    parsed = outline(page.read_text("utf-8"))
    assert len(parsed.ids) == len(set(parsed.ids))
    inside = {link for link in parsed.links if link.startswith("#")}
    assert {link[1:] for link in inside} <= set(parsed.ids)
    assert sum(link.startswith("#h3a.") for link in parsed.links) > 30
    assert {link for link in parsed.links if not link.startswith("#")} == {"report.timing.html"}
    for section in (
        "verdicts", "reading", "remarks", "effects", "curves", "power", "window", "difficulty",
        "interaction", "expected", "cost", "explorer", "provenance", "tables",
    ):  # fmt: skip
        assert section in parsed.ids


def test_linked_numbers_are_those_of_the_row(page: Path, lock: Path) -> None:
    text = page.read_text("utf-8")
    table = results.read([study.load(lock).paths.table("h3a")])["h3a"]
    row = table.first(benchmark="mean", scale="pp")
    assert row is not None
    lines = Path(study.load(lock).paths.table("h3a")).read_text("utf-8").splitlines()
    assert lines[row.line - 1].split("\t")[1:3] == ["mean", "pp"]
    shown = results.number(row.number("difference"), 1, sign=True)
    assert f'<a class="n" href="#h3a.{row.line}">{shown}</a>' in text


def test_page_needs_nothing_from_outside(page: Path) -> None:
    text = page.read_text("utf-8")
    parsed = outline(text)
    assert not {"link", "img", "iframe", "object", "base"} & set(parsed.kinds)
    assert "src" not in parsed.attributes and "style" not in parsed.attributes
    assert not [a for a in parsed.attributes if a.startswith("on")]
    policy = html.unescape(re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1])  # type: ignore[index]
    for tag, name in (("script", "script-src"), ("style", "style-src")):
        body = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        assert len(body) == 1
        digest = base64.b64encode(hashlib.sha256(body[0].encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy
    assert "unsafe" not in policy and policy.startswith("default-src 'none'")
    assert page.stat().st_size < 8e6


def test_same_inputs_same_bytes_and_no_times(lock: Path, page: Path, tmp_path: Path) -> None:
    again = material.write(lock, tmp_path / "report.html")
    assert again == page.read_text("utf-8")
    for run in study.load(lock).runs:
        timing = Path(study.load(lock).paths.adapter(*run)) / "train.timing.json"
        timing.write_text('{"seconds": 99.25, "peak_memory_mib": 301.0}\n', "utf-8")
    assert material.write(lock, tmp_path / "report.html") == again
    beside = (tmp_path / "report.timing.html").read_text("utf-8")
    outline(beside)
    assert "297.8" in beside and "297.8" not in again  # three seeds of 99.25 s


def test_hostile_text_is_text(page: Path) -> None:
    text = page.read_text("utf-8")
    parsed = outline(text)
    assert "<script>window.owned" not in text
    assert parsed.kinds.count("script") == 2 and "img" not in parsed.kinds
    assert any(material.HOSTILE in part for part in parsed.text)  # the runs' own remarks
    assert "1787569" not in text


@pytest.mark.parametrize("column", ["model_small", "benchmark", "note", "verdict", "treatment"])
def test_hostile_tables_are_text(lock: Path, tmp_path: Path, column: str) -> None:
    table = Path(study.load(lock).paths.table("h3a"))
    lines = table.read_text("utf-8").splitlines()
    place = lines[0].split("\t").index(column)
    rows = [line.split("\t") for line in lines]
    for row in rows[1:]:
        row[place] = f'"><script>window.owned = 4</script>{row[place]}'
    target = tmp_path / "h3a.tsv"
    target.write_text("\n".join("\t".join(r) for r in rows) + "\n", "utf-8")
    tables = results.read([target])
    parsed = outline(report.render(study.load(lock), tables))
    assert parsed.kinds.count("script") == 1


def test_first_card_says_what_the_table_says(page: Path, lock: Path) -> None:
    text = page.read_text("utf-8")
    row = results.read([study.load(lock).paths.table("h3a")])["h3a"].first(
        benchmark="mean", scale="pp"
    )
    assert row is not None
    first = re.search(r'<article class="card (\w+) main">(.*?)</article>', text, re.S)
    assert first and first[1] == sections.key(row["verdict"])
    words_ = re.sub(r"<[^>]+>", "", first[2])
    assert results.number(row.number("difference"), 1, sign=True) in words_
    for column in ("p_difference", "p_gain", "p_value"):
        assert results.p_value(row.number(column)) in html.unescape(words_)
    for column in ("effect_small", "effect_large"):
        assert results.number(row.number(column), 1, sign=True) in words_
    # What needs more seeds than there are is not told.
    assert (row["per_seed_small"] in words_) == (row["left_out_p_low"] != "NA")
    assert ("For new items of the kind" in words_) == (row["new_items_p"] != "NA")
    assert "Not random, and so not covered: base models, corpus, decoding seed" in words_
    assert f"{row['n_seeds']} seeds" in words_ and f"시드 {row['n_seeds']}개" in words_


def test_remarks_name_what_went_wrong(page: Path) -> None:
    text = re.sub(r"<[^>]+>", "", page.read_text("utf-8"))
    assert "zpd in large: on average 70 % of each block came from outside the window" in text
    assert "large의 zpd: 블록마다 평균 70 %" in text
    assert "98 % of that lay below the window: easier than meant, mostly mastered" in text
    assert "그중 98 %는 창 아래에 있었다" in text
    # The trace's answers: 9, 7, ... response tokens drawn where the pool has 12.
    assert "zpd in large: in 1 of 2 updates the answers drawn were much shorter" in text
    assert "at the most 7.0 response tokens, where the pool had 12.0" in text
    assert "Nothing was registered before the runs" in text


MADE = {
    "supported": (
        "Yes, in these two models: zpd gains over random in big",
        "이 두 모델에서는 그렇다",
    ),
    "smaller harm": (
        "No gain: zpd loses to random in big, only less",
        "손해가 tiny에서보다 작을 뿐",
    ),
    "difference only": ("but a gain of zpd over random in big is not shown", "입증되지 않았다"),
    "contradicted": ("a gain of zpd over random in big (above 0) is ruled out", "배제된다"),
}


@pytest.mark.parametrize("word", MADE)
def test_the_first_card_of_a_made_study(
    lock: Path, tmp_path: Path, word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is no gain is never told as one, in either language or on the terminal."""
    scores, config = write(tmp_path, made(word))
    out = tmp_path / "h3a.tsv"
    arguments = ["--scores", str(scores), "--configfile", str(config), "--out", str(out)]
    assert cli.main(["h3a", *arguments]) == 0
    text = report.render(study.load(lock), results.read([out]))
    first = re.search(r'<article class="card (\w+) main">(.*?)</article>', text, re.S)
    assert first and first[1] == word.replace(" ", "_")
    told = html.unescape(re.sub(r"<[^>]+>", "", first[2]))
    for said in (*MADE[word], "For new items of the kind", "With any one seed left out"):
        assert said in told
    for other in set(MADE) - {word}:
        assert MADE[other][0] not in told
    # The rows beside it have no verdict.
    assert text.count('<span class="chip') == 2
    capsys.readouterr()
    assert cli.main(["show", str(out)]) == 0
    assert f"Verdict: {word}" in capsys.readouterr().out


def test_interaction_shows_the_gains_that_r1_tests(lock: Path) -> None:
    """Korean is macro-F1 alone: accuracy stands beside it in scores.tsv and is no second gain."""
    paths = study.load(lock).paths
    tables = results.read([paths.table("scores"), paths.table("r1")])
    metrics = {r["metric"] for r in tables["scores"].where(benchmark="kobest", task="all")}
    assert {"acc", "macro_f1"} <= metrics
    languages = {"humaneval": "en", "gsm8k": "en", "mmlu": "en", "kobest": "ko"}
    found = gains_by_language(tables["scores"], languages, "zpd", "random")
    figure = str(sections.interaction(tables, languages, "zpd", "random").panels[0].chart)
    for model, gains in found.items():
        mean = {k: sum(g for _, g in v) / len(v) for k, v in gains.items()}
        row = tables["r1"].first(model=model, scale="pp")
        assert row is not None
        assert mean["ko"] - mean["en"] == pytest.approx(row.number("estimate"))
        assert f'data-row="{row.anchor}"' in figure
        assert f"{model}, ko: {results.number(mean['ko'], 1, sign=True)}" in figure


def _windows(**means: list[float]) -> list[str]:
    columns = {name: [0.1, 0.1] for name in evidence._WINDOW}
    w = evidence.Window("zpd", "large", [0, 5], {**columns, **means})
    said = sections.remarks({}, evidence.Traces(windows=[w]), registered="registered")
    return [re.sub(r"<[^>]+>", "", str(r)) for r in said]


def test_a_window_that_is_not_fed_is_told_with_the_side() -> None:
    mostly = {"fallback": [0.9, 0.7], "drawn_tokens": [5.0, 5.0], "pool_tokens": [5.0, 5.0]}
    assert any("above the window: harder" in s for s in _windows(**mostly, fallback_below=[0, 0.0]))
    assert any("both sides" in s for s in _windows(**mostly, fallback_below=[0.4, 0.4]))
    # An older trace does not say the side: nothing is made up.
    old = dict.fromkeys(("fallback_below", "drawn_tokens", "pool_tokens"), [float("nan")] * 2)
    (_, said) = _windows(fallback=[0.9, 0.7], **old)
    assert "80 % of each block" in said
    assert "both sides" not in said
    assert "above the window" not in said
    longer = {"drawn_tokens": [5.0, 30.0], "pool_tokens": [5.0, 10.0], "fallback": [0.1, 0.1]}
    (_, said) = _windows(**longer)
    assert "in 1 of 2 updates the answers drawn were much longer" in said


def test_a_trace_without_the_newer_columns_is_read(lock: Path, tmp_path: Path) -> None:
    loaded = study.load(lock)
    run = next(r for r in loaded.runs if r.condition == "zpd")
    folder = tmp_path / "old"
    shutil.copytree(loaded.paths.adapter(*run), folder)
    trace = pl.read_parquet(folder / "trace.parquet")
    newer = ["fallback_below", "pool_tokens", "drawn_tokens"]
    trace.drop(newer).write_parquet(folder / "trace.parquet")
    (window,) = evidence.read_traces([folder], None).windows
    assert all(math.isnan(v) for name in newer for v in window.means[name])
    assert window.means["fallback"] == [0.7] * len(window.steps)
    assert sections.window(evidence.Traces(windows=[window]))


def test_scores_without_a_model_stand_beside_the_curves(page: Path, lock: Path) -> None:
    text = page.read_text("utf-8")
    items = evidence.read_items([study.load(lock).paths.items(b) for b in ("gsm8k", "humaneval")])
    golds = Counter(i["gold"] for i in items if i["benchmark"] == "gsm8k")
    best = max(golds.values()) / sum(golds.values())
    table = text[text.index('id="t-constants"') :].split("</table>")[0]
    rows = [re.sub(r"<[^>]+>", "|", r) for r in table.split("<tr>")[2:]]
    (gsm8k,) = [r for r in rows if "gsm8k" in r and "(|all|" in r.replace("||", "|")]
    assert f"|{100 * best:.1f}|" in gsm8k
    assert any("humaneval" in r and "없음" in r for r in rows)
    assert "상수" in text or "고정 답" in text


def test_what_did_not_fit_is_said() -> None:
    counts = {"examples_too_long": 3, "examples_cut": 5, "tokens_cut": 70}
    fits = dict.fromkeys(evidence.LENGTHS, 0)
    traces = evidence.Traces(lengths={"small": fits, "large": {**fits, **counts}})
    found = [str(r) for r in sections.remarks({}, traces, registered="registered")]
    (said,) = [remark for remark in found if "large: 3 examples have a response longer" in remark]
    assert "up to 5 lost 70 tokens" in said and "small" not in said


def test_figures_of_the_page_are_files_too(lock: Path, tmp_path: Path) -> None:
    loaded = study.load(lock)
    paths = loaded.paths
    tables = [f"--{t}={paths.table(t)}" for t in ("scores", "expected")]
    traces = ["--adapters", *(paths.adapter(*run) for run in loaded.runs)]
    corpus = ["--corpus", paths.corpus(loaded.corpus.name)]
    drawn: dict[str, bytes] = {}
    for folder in (tmp_path / "a", tmp_path / "b"):
        for verb, given, names in (
            ("draw-figures", tables, ("expected", "interaction")),
            ("draw-training", [*traces, *corpus], ("window", "difficulty")),
        ):
            outs = [str(folder / f"{n}.{kind}") for n in names for kind in ("svg", "png")]
            assert cli.main([verb, "--study", str(lock), *given, "--out", *outs]) == 0
            for out in map(Path, outs):
                # The same bytes twice, and something in them.
                assert drawn.setdefault(out.name, out.read_bytes()) == out.read_bytes()
                assert out.suffix == ".png" or out.read_text("utf-8").count("<use") > 40
    assert len(drawn) == 8


def test_figures_with_nothing_to_draw_say_so(tmp_path: Path) -> None:
    figures = {
        "claims": draw_figures.draw_expected([]),
        "languages": draw_figures.draw_interaction([], {"gsm8k": "en"}, "zpd", "random"),
        "window": draw_training.draw_window(evidence.Traces()),
    }
    for name, figure in figures.items():
        (text,) = figure.axes[0].texts
        assert text.get_text().startswith(("nothing was claimed", "no ")), name


def test_interim_and_exploratory_are_said(lock: Path) -> None:
    loaded = study.load(lock)
    tables = results.read([loaded.paths.table("h3a")])
    row = tables["h3a"].rows[0]
    row.values["note"] = "interim: 1 cells missing (a/b/0)"
    found = sections.remarks(tables, evidence.Traces(), registered="exploratory")
    joined = " ".join(map(str, found))
    assert "Interim" in joined and "Exploratory" in joined


def test_words_have_both_languages_and_the_same_places() -> None:
    path = Path(words.__file__).parent / "words.yaml"
    loaded: dict[str, dict[str, str]] = yaml.safe_load(path.read_text("utf-8"))
    for key, texts in loaded.items():
        assert set(texts) == set(words.LANGUAGES), key
        places = {
            k: {f for _, f, _, _ in string.Formatter().parse(t) if f} for k, t in texts.items()
        }
        assert places["en"] == places["ko"], key
        assert "<" not in "".join(texts.values()), key


def test_every_word_is_used_somewhere() -> None:
    folder = Path(words.__file__).parent
    loaded = yaml.safe_load((folder / "words.yaml").read_text("utf-8"))
    code = "".join(
        p.read_text("utf-8") for p in [*folder.glob("*.py"), *folder.glob("templates/*")]
    )
    prefixes = ("h3a_", "estimate_", "anova_", "stage_", "head_", "scale_", "filter_", "data_")
    unused = [
        k
        for k in loaded
        if not k.startswith(prefixes)
        and not k.endswith("_question")
        and not re.search(rf"[\"']{re.escape(k)}[\"']", code)
    ]
    assert unused == []


def test_a_study_with_one_table_still_has_a_page(lock: Path) -> None:
    tables = results.read([study.load(lock).paths.table("h3a")])
    parsed = outline(report.render(study.load(lock), tables))
    assert "verdicts" in parsed.ids and "window" not in parsed.ids


def test_large_tables_are_cut_and_said(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "SHOWN_ROWS", 3)
    tables = results.read([study.load(lock).paths.table("h3a")])
    text = report.render(study.load(lock), tables)
    parsed = outline(text)
    assert {link[1:] for link in parsed.links if link.startswith("#")} <= set(parsed.ids)
    assert "The first 3 of 15 rows" in re.sub(r"<[^>]+>", "", text)


def unpack(packed: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(gzip.decompress(base64.b64decode(packed)))
    return value


def test_explorer_holds_the_pairs_of_the_final_step(lock: Path) -> None:
    loaded = study.load(lock)
    paths = loaded.paths
    scores = [paths.scores(*run) for run in loaded.all_runs]
    answers = [paths.generations(*c) for c in loaded.chunks]
    pairs = explorer.pair(scores, answers, treatment="zpd", control="random")
    items = evidence.read_items([paths.items(b) for b in loaded.benchmarks])
    assert pairs.height == 2 * 3 * len(items)
    found = explorer.pack(pairs, items, {"kobest": "ko"})
    data = unpack(found.packed)
    assert found.pairs == found.all_pairs == len(data["pairs"]["item"]) == pairs.height
    one = pl.read_parquet(paths.scores("large", "zpd", 1))
    one = one.filter((pl.col("step") == one["step"].max()) & (pl.col("benchmark") == "mmlu"))
    right = {r["item_id"]: r["correct"] for r in one.to_dicts()}
    place = data["models"].index("large"), data["seeds"].index("1")
    shown = {
        data["items"]["id"][i]: data["pairs"]["b"][n]
        for n, i in enumerate(data["pairs"]["item"])
        if (data["pairs"]["model"][n], data["pairs"]["seed"][n]) == place
        and data["items"]["benchmark"][i] == "mmlu"
    }
    assert shown == right
    assert any(material.HOSTILE in s for s in data["strings"])


def test_explorer_leaves_out_whole_seeds_and_cuts_texts() -> None:
    rows = [
        {
            "model": m, "seed": s, "benchmark": "gsm8k", "task": "t", "item_id": str(i),
            **{f"{side}_{k}": v for side in "ab" for k, v in (
                ("correct", 1.0), ("status", "ok"), ("prediction", ""), ("text", f"{s}{i}" * 900),
            )},
        }
        for m in ("x", "y") for s in range(3) for i in range(10)
    ]  # fmt: skip
    pairs = pl.DataFrame(rows)
    items = [
        {"benchmark": "gsm8k", "task": "t", "item_id": str(i), "prompt": "q" * 5000 + "end"}
        for i in range(10)
    ]
    found = explorer.pack(pairs, items, {}, max_pairs=45, budget=40_000)
    assert (found.pairs, found.all_pairs) == (40, 60)
    data = unpack(found.packed)
    assert data["seeds"] == ["0", "1"]
    prompt = data["strings"][data["items"]["prompt"][0]]
    assert prompt.endswith("end") and "more] …" in prompt and len(prompt) < found.limit + 40
    assert sum(map(len, data["strings"])) < 50_000
    fewer = explorer.pack(pairs, items, {}, max_pairs=7)
    assert 0 < fewer.pairs <= 7
    assert explorer.pack(pl.DataFrame(), items, {}).packed == ""


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 100, (0, 20, 40, 60, 80, 100)), (-1, 1, (-1, -0.5, 0, 0.5, 1)), (3, 3, (3,))],
)
def test_ticks_are_round(low: float, high: float, expected: tuple[float, ...]) -> None:
    assert charts.ticks(low, high) == expected


def test_charts_survive_undefined_values() -> None:
    nan = float("nan")
    chart = charts.line_chart(
        [charts.Line("x", 0, [charts.Point(1, nan), charts.Point(nan, 2)])],
        name="n", x_label={"": "x"}, y_label={"": "y"},
    )  # fmt: skip
    forest = charts.forest(
        [charts.ForestRow({"": "r"}, [(0, charts.Point(nan, 0)), (1, charts.Point(1.0, 0))])],
        name="n", x_label={"": "x"},
    )  # fmt: skip
    assert "nan" not in chart + forest and "inf" not in chart + forest


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.500"), (0.00005, "< 0.0001"), (0.99999, "> 0.999"), (0.0004, "0.0004")],
)
def test_p_values_read_well(value: float, text: str) -> None:
    assert results.p_value(value) == text


def test_missing_table_is_one_line(
    lock: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["report", "--study", str(lock), "--tables", str(tmp_path / "h3a.tsv")]
    assert cli.main([*arguments, "--out", str(tmp_path / "r.html")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_answers_that_depend_on_the_batch_are_told(lock: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "small/all.parquet", tmp_path / "small/s0.parquet", tmp_path / "x.parquet"]
    told: list[dict[str, str] | None] = [
        {"batch_invariance": '{"asked": 8, "equal": 8}'},
        {"batch_invariance": '{"asked": 8, "equal": 6}'},
        None,
    ]
    paths[0].parent.mkdir()
    for path, metadata in zip(paths, told, strict=True):
        pl.DataFrame({"a": [1]}).write_parquet(path, metadata=metadata)
    found = evidence.agreements(paths)
    assert found == [("small", "all", 8, 8), ("small", "s0", 8, 6)]
    remarks = " ".join(map(str, sections.remarks({}, evidence.Traces(), agreements=found)))
    assert "small, s0: of 8 prompts asked again alone, 2 were" in remarks
    assert "small, all" not in remarks
    told_lines = report.provenance_of(study.load(lock), [], [], {}, "none", found)
    (lines,) = [v for k, v in told_lines if "asked again alone" in str(k)]
    assert lines == ["small all: 8 of 8", "small s0: 6 of 8"]


def test_the_data_card_is_a_section(lock: Path, tmp_path: Path) -> None:
    loaded = study.load(lock)
    note = "embedded: shortfall, has 60 usable examples, 100 were asked for; <b>all</b> are used"
    corpus = tmp_path / "c.parquet"
    pl.read_parquet(loaded.paths.corpus(loaded.corpus.name)).write_parquet(
        corpus, metadata={datasheet.METADATA_KEY: json.dumps({"notes": [note]})}
    )
    given = material.arguments(lock, tmp_path / "report.html")
    given[given.index("--corpus") + 1] = str(corpus)
    assert cli.main(given) == 0
    text = (tmp_path / "report.html").read_text("utf-8")
    section = text.split('<section id="data"')[1].split("</section>")[0]
    for said in ("<td>generated by zpdbench</td>", "the project", "contamination", "held out"):
        assert said in section
    assert "100 were asked for; &lt;b&gt;all&lt;/b&gt; are used" in section
