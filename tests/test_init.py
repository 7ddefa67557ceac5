"""What `zpdbench init` writes is a study that holds, and so is every alternative in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from zpdbench import cli, init, study
from zpdbench.errors import UserError


def test_the_study_holds_and_can_be_planned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "mine"]) == 0
    assert "zpdbench plan --configfile mine.yaml" in capsys.readouterr().out
    loaded = study.load("mine.yaml")
    assert loaded.results == "results/mine"
    assert cli.main(["plan", "--configfile", "mine.yaml"]) == 0
    text = Path("mine.yaml").read_text("utf-8")
    assert "NAME" not in text and "RESULTS" not in text and " FILE" not in text
    assert cli.main(["init", "mine"]) == 2
    assert "is there already" in capsys.readouterr().err


def test_it_goes_beside_the_other_configurations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").mkdir()
    monkeypatch.chdir(tmp_path)
    assert cli.main(["init", "mine"]) == 0
    assert study.load("config/mine.yaml").models


@pytest.mark.parametrize("name", ["", "../mine", "a b", "-x", "x" * 65, "a/b"])
def test_a_name_that_is_none(name: str) -> None:
    with pytest.raises(UserError, match="is no name"):
        init.text_for(name, "x.yaml")


def test_every_alternative_holds_too(tmp_path: Path) -> None:
    text = init.text_for("mine", "mine.yaml")
    assert text.count("#|") > 15
    # Alternatives that have the name of a line they replace come instead of it.
    models = text.index("  small:\n"), text.index("#| small:")
    text = text[: models[0]] + text[models[1] :]
    path = tmp_path / "mine.yaml"
    path.write_text(re.sub(r"^#\|", " ", text, flags=re.M), "utf-8")
    loaded = study.load(path)
    assert isinstance(loaded.models["small"], study.HubModel)
    assert isinstance(loaded.models["large"], study.LocalModel)
    assert set(loaded.conditions) == {"random", "zpd", "easy_to_hard", "hard_to_easy"}
    assert loaded.corpus.sources["alpaca"].repo == "tatsu-lab/alpaca"
    assert loaded.corpus.prepare.near_duplicates == 0.8
    assert loaded.hypotheses.h3a is not None and loaded.hypotheses.h3a.claimed.d is not None
