"""A corpus whose source is a data set of the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hub import server
from tests.hub.conftest import DATA
from tests.hub.test_fetch import pinned
from zpdbench import study
from zpdbench.corpora import make_corpus
from zpdbench.errors import UserError


def test_pinned_data_become_a_corpus(config: Path, hub: server.Hub) -> None:
    with pytest.raises(UserError, match=r"no revision is pinned.*zpdbench pin"):
        make_corpus.build(study.load(config))
    frame, notes = make_corpus.build(pinned(config))
    assert (
        len(frame) == 40
        and set(frame["language"]) == {"ko"}
        and notes == ["orca: fields that are not used: id (40)"]
    )
    assert frame["prompt"][1].startswith("당신은 도움이 되는 조수입니다.\n\n1에 2을")
    asked = len(hub.asked)
    again, _ = make_corpus.build(study.load(config))
    assert again.equals(frame) and len(hub.asked) == asked


def test_data_that_are_not_what_was_pinned(config: Path, hub: server.Hub) -> None:
    settings = pinned(config)
    data = hub.repos[f"datasets/{DATA}"].files["data/train-0.parquet"]
    hub.repos[f"datasets/{DATA}"].files["data/train-0.parquet"] = bytes(reversed(data))
    with pytest.raises(UserError, match=r"train-0\.parquet is not the file that was pinned"):
        make_corpus.build(settings)
