"""`zpdbench show` and `draw-figures` on a real table."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pytest
from rich.console import Console

from tests.statistics.grids import CONFIG, grid
from zpdbench import files
from zpdbench.cli import main
from zpdbench.errors import UserError
from zpdbench.report import draw_figures, show
from zpdbench.statistics import aggregate_scores


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    grid(steps=(10, 20), conditions=("random", "zpd", "easy_to_hard")).write_csv(
        folder / "s.tsv", separator="\t"
    )
    (folder / "study.yaml").write_text(CONFIG, "utf-8")
    args = ["--configfile", str(folder / "study.yaml"), "--out", str(folder / "h3a.tsv")]
    assert main(["h3a", "--scores", str(folder / "s.tsv"), *args]) == 0
    aggregate_scores.main(
        argparse.Namespace(
            scores=[str(folder / "s.tsv")],
            study=None,
            out_scores=folder / "scores.tsv",
            out_curves=folder / "curves.tsv",
        )
    )
    return folder


def test_h3a_is_told_in_words_within_100_columns(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(results / "h3a.tsv")]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= 100
    words = "supported|smaller harm|difference only|contradicted|inconclusive"
    assert re.search(rf"Verdict: ({words})  \w", text)
    assert "does zpd gain over random in big, and more than in tiny?" in text
    assert "one-sided p: difference " in text and "gain in big " in text
    assert "new items of the kind:" in text and "one seed left out:" in text
    for word in ("gsm8k", "kobest", "mean", "MDE", "power", "Notes:"):
        assert word in text


@pytest.mark.parametrize("name", ["scores.tsv", "curves.tsv"])
def test_any_table_fits(results: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert main(["show", str(results / name)]) == 0
    text = capsys.readouterr().out
    assert name in text and max(map(len, text.splitlines())) <= 100
    assert "gsm8k" in text


def test_one_end_of_an_interval_is_not_shown_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = ["method", "difference", "low", "high", "p_value"]
    rows = [[f"{'a long name of a method ' * 3}{i}", f"{i}.5", "-1.25", f"{i}.123456", "0.5"]
            for i in range(3)]  # fmt: skip
    rows[1][2] = "-1.5" + "0" * 12
    text = "\n".join("\t".join(r) for r in [columns, *rows])
    for width in range(60, 110, 5):
        console = Console(width=width, highlight=False)
        (tmp_path / "x.tsv").write_text(text + "\n", "utf-8")
        show.render(tmp_path / "x.tsv", console=console)
        header = capsys.readouterr().out.splitlines()[1].split()
        assert ("low" in header) == ("high" in header)


def test_what_a_model_wrote_is_no_markup(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "x.tsv").write_text("name\tvalue\n[bold red]x[/bold red]\t1\n", "utf-8")
    assert main(["show", str(tmp_path / "x.tsv")]) == 0
    assert "[bold red]x" in capsys.readouterr().out


def test_only_line_feeds_end_lines(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text("name\tvalue\na\u2028b\x85c\t1\r\n\t2\n", "utf-8")
    _, rows = files.read_tsv(tmp_path / "x.tsv")
    assert [row["name"] for row in rows] == ["a\u2028b\x85c", ""]
    assert [row["value"] for row in rows] == ["1", "2"]


@pytest.mark.parametrize(
    ("text", "message"), [("", "is empty"), ("a\tb\n1\n", "x.tsv:2: 1 fields"), (None, "cannot be")]
)
def test_bad_table_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, message: str
) -> None:
    if text is not None:
        (tmp_path / "x.tsv").write_text(text, "utf-8")
    assert main(["show", str(tmp_path / "x.tsv")]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.strip().splitlines()) == 1


def draw(results: Path, folder: Path) -> list[Path]:
    outs = [folder / f"{n}.{k}" for n in ("curves", "effects") for k in ("svg", "png")]
    draw_figures.main(
        argparse.Namespace(curves=results / "curves.tsv", h3a=results / "h3a.tsv", out=outs)
    )
    return outs


def test_figures_have_the_same_bytes_twice(results: Path, tmp_path: Path) -> None:
    first, second = (draw(results, tmp_path / name) for name in ("a", "b"))
    for a, b in zip(first, second, strict=True):
        assert a.read_bytes() == b.read_bytes()
    svg = first[0].read_text("utf-8")
    assert svg.startswith("<?xml") and "<dc:date>" not in svg
    assert first[1].read_bytes().startswith(b"\x89PNG")


def test_power_and_ladder_are_drawn(tmp_path: Path) -> None:
    power = ["benchmark\tbasis\tn_seeds\tis_planned\tpower", "mean\tmeasured spread\t5\ttrue\tNA"]
    (tmp_path / "power.tsv").write_text("\n".join(power) + "\n", "utf-8")
    columns = [
        "benchmark",
        "scale",
        "term",
        "model",
        "left_out",
        "parameters",
        "estimate",
        "low",
        "high",
        "intercept",
    ]
    rows = [
        ["mean", "pp", "slope", "NA", "NA", "NA", "2.5", "-1", "6", "-20"],
        *(f"mean pp gain m{i} NA 1e{i} {i} {i - 1} {i + 1} NA".split() for i in (8, 9, 10)),
    ]
    ladder = "\n".join("\t".join(r) for r in [columns, *rows]) + "\n"
    (tmp_path / "ladder.tsv").write_text(ladder, "utf-8")
    tables = {n: tmp_path / f"{n}.tsv" for n in ("power", "ladder")}
    out = [tmp_path / f"{n}.svg" for n in tables]
    draw_figures.main(argparse.Namespace(**tables, out=out))
    # Text is drawn as paths, each glyph named: so words can be counted but not read.
    undefined = (tmp_path / "power.svg").stat().st_size
    power[1:] = [f"mean\tclaimed d alone, and more\t{n}\tfalse\t{n / 10}" for n in (2, 5, 9)]
    (tmp_path / "power.tsv").write_text("\n".join(power) + "\n", "utf-8")
    draw_figures.main(argparse.Namespace(**tables, out=out))
    assert (tmp_path / "power.svg").stat().st_size != undefined
    assert (tmp_path / "ladder.svg").read_text("utf-8").count("<use") > 40
    with pytest.raises(UserError, match="--ladder is missing"):
        draw_figures.main(argparse.Namespace(power=tables["power"], ladder=None, out=out))


def test_unknown_figure_is_refused(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "study.yaml").write_text(CONFIG, "utf-8")
    tables = ["--curves", str(results / "curves.tsv"), "--h3a", str(results / "h3a.tsv")]
    study = ["--study", str(tmp_path / "study.yaml")]
    code = main(["draw-figures", *study, *tables, "--out", "pie.svg"])
    assert code == 2 and "no figure of this name" in capsys.readouterr().err
