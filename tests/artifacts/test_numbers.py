"""When two tables are the same, and what a sample shows."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from scipy import stats

from zpdbench.artifacts import agreement, numbers


def _table(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(line.replace(" ", "\t") for line in lines) + "\n", "utf-8")
    return path


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ("x 1.5", "x 1.5", True),
        ("x 1.5", "x 1.5000000001", True),
        ("x 1.5", "x 1.50001", False),
        ("x 0", "x 1e-13", True),
        ("x 1e-3", "x 1.1e-3", False),
        ("x NA", "x 1", False),
        ("x inconclusive", "x supported", False),
        ("x 1", "y 1", False),
        ("x nan", "x nan", True),
        ("x inf", "x 1e308", False),
    ],
)
def test_cells_within_a_relative_distance(tmp_path: Path, a: str, b: str, same: bool) -> None:
    one, two = _table(tmp_path / "a", "k value", a), _table(tmp_path / "b", "k value", b)
    result = numbers.compare(one, two)
    assert (not result.differences) == same
    assert result.bytes_equal == (a == b)


def test_iterative_columns_have_more_room(tmp_path: Path) -> None:
    one = _table(tmp_path / "a", "k mde_80 difference", "x 1.5 1.5")
    two = _table(tmp_path / "b", "k mde_80 difference", "x 1.500001 1.5")
    assert not numbers.compare(one, two).differences
    three = _table(tmp_path / "c", "k mde_80 difference", "x 1.5 1.500001")
    assert [d.column for d in numbers.compare(one, three).differences] == ["difference"]


def test_rows_and_columns_must_be_the_same(tmp_path: Path) -> None:
    one = _table(tmp_path / "a", "k v", "x 1", "y 2")
    assert numbers.compare(one, _table(tmp_path / "b", "k v", "x 1")).differences
    assert numbers.compare(one, _table(tmp_path / "c", "k w", "x 1", "y 2")).differences
    assert numbers.compare(one, _table(tmp_path / "d", "k v", "y 2", "x 1")).differences
    assert numbers.compare(one, _table(tmp_path / "e", "k v", "x 1 9", "y 2")).differences
    (tmp_path / "f").write_bytes(b"")
    assert numbers.compare(one, tmp_path / "f").differences


def test_notes_may_differ_in_last_digits_only() -> None:
    assert numbers.same_text("power 0.123456789, 3 seeds", "power 0.123456788, 3 seeds", 1e-5)
    assert not numbers.same_text("power 0.12, 3 seeds", "power 0.12, 4 seeds", 1e-5)
    assert not numbers.same_text("power 0.12", "power 0.22", 1e-5)
    assert not numbers.same_text("a 1", "b 1", 1e-5)


def test_binomial_bounds_are_clopper_and_pearson_s() -> None:
    draw = random.Random(3)
    for _ in range(40):
        n = draw.randrange(1, 400)
        k = draw.randrange(n + 1)
        exact = stats.binomtest(k, n).proportion_ci(0.95, "exact")
        assert agreement.binomial_bounds(k, n) == pytest.approx((exact.low, exact.high), abs=1e-9)
    with pytest.raises(ValueError):
        agreement.binomial_bounds(2, 1)


def test_mcnemar_is_the_exact_test() -> None:
    for up, down in ((0, 0), (3, 3), (1, 9), (12, 2), (40, 41)):
        expected = stats.binomtest(up, up + down).pvalue if up + down else 1.0
        assert agreement.mcnemar(up, down) == pytest.approx(expected, rel=1e-9)


def test_a_sample_shows_what_its_size_allows() -> None:
    assert agreement.equivalence(0, 0, 1000).same
    small = agreement.equivalence(0, 0, 20)
    assert not small.same and not small.other
    assert agreement.equivalence(200, 10, 1000).other
    assert not agreement.equivalence(3, 2, 1000).other


def test_the_interval_keeps_its_level() -> None:
    """Coverage of the difference's interval, by simulation."""
    draw = random.Random(11)
    covered = 0
    for _ in range(400):
        up = sum(draw.random() < 0.06 for _ in range(120))
        down = sum(draw.random() < 0.03 / 0.94 for _ in range(120 - up))
        result = agreement.equivalence(up, down, 120)
        covered += result.low <= 0.03 <= result.high
    assert covered >= 0.95 * 400
