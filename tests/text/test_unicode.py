"""Texts as they are kept and as they are compared."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zpdbench.errors import UserError
from zpdbench.text.unicode import composed, encodable, fold, fold_spaces


@given(st.text())
def test_folding_twice_is_folding_once(text: str) -> None:
    assert fold(fold(text)) == fold(text)


@given(st.text(), st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
def test_spellings_that_unicode_calls_compatible_fold_alike(text: str, form: str) -> None:
    assert fold(unicodedata.normalize(form, text)) == fold(text)  # type: ignore[arg-type]


@given(st.text(alphabet=st.characters(max_codepoint=127)))
def test_ascii_is_lowered(text: str) -> None:
    assert fold(text) == text.lower()


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("\u1112\u1161\u11ab글", "한글"),
        ("Ｆｕｌｌ　ｗｉｄｔｈ", "full width"),
        ("o\ufb03ce co\u00adop\u200berate\ufeff", "office cooperate"),
        ("Straße ΣΑΣ", "strasse σασ"),
        ("a\u2066b\ufe0f\u3164c", "abc"),
    ],
)
def test_folded(text: str, folded: str) -> None:
    assert fold(text) == folded


def test_spaces_and_composition() -> None:
    assert fold_spaces(" A\u00a0b\n\tc ") == "a b c"
    assert composed("e\u0301\u1100\u1161") == "\u00e9가" and composed("ﬁ") == "ﬁ"


def test_half_of_a_pair() -> None:
    assert encodable("한\U0001f600", "f:1") == "한\U0001f600"
    with pytest.raises(UserError, match=r"f:2: lone surrogate U\+D83D in the text \(mend"):
        encodable("x\ud83d", "f:2")
