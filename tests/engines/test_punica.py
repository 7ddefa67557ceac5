"""Rows of one adapter brought together: every row once, and the products right to the last bit."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from zpdbench.engines.punica import MIN_ROWS, group_rows  # noqa: E402

SLOTS = st.lists(
    st.tuples(st.integers(-1, 3), st.integers(1, 12)).map(lambda p: [p[0]] * p[1]), min_size=1
).map(lambda runs: [slot for run in runs for slot in run])


@settings(deadline=None)
@given(SLOTS)
def test_every_row_is_in_its_adapters_group_once(slots: list[int]) -> None:
    order, filling, groups = group_rows(torch.tensor(slots))
    rows = list(range(len(slots))) if order is None else order.tolist()
    spare = set() if filling is None else set(filling.tolist())
    seen = []
    for slot, start, end in groups:
        assert end - start >= MIN_ROWS
        assert all(slots[rows[at]] == slot for at in range(start, end))
        seen += [rows[at] for at in range(start, end) if at not in spare]
    assert sorted(seen) == [row for row, slot in enumerate(slots) if slot >= 0]
    assert len({slot for slot, _, _ in groups}) == len(groups)


@pytest.mark.parametrize("width", [(128, 8), (352, 8), (576, 8), (8, 64), (8, 352), (8, 1536)])
def test_from_min_rows_on_a_row_does_not_depend_on_their_number(width: tuple[int, int]) -> None:
    inner, outer = width
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(600, inner, generator=generator)
    w = torch.randn(outer, inner, generator=generator)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        whole = x @ w.t()
        for count in (*range(MIN_ROWS, 40), 64, 100, 255, 256, 599):
            assert torch.equal(x[:count] @ w.t(), whole[:count])
    finally:
        torch.set_num_threads(threads)
