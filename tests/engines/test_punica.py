"""Rows of one adapter brought together: every row once, and the products right to the last bit."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from zpdbench.engines.punica import MIN_ROWS, GroupedPunicaWrapper, group_rows  # noqa: E402

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(deadline=None, max_examples=25)
@given(slots=SLOTS.filter(lambda s: len(s) <= 100))
def test_products_are_each_rows_own_adapters(slots: list[int], dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(len(slots))

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    sizes = (24, 16)
    x, y = random(len(slots), 32), random(len(slots), sum(sizes))
    a = tuple(random(4, 1, 8, 32) for _ in sizes)
    b = tuple(random(4, 1, size, 8) for size in sizes)
    expected = y.clone().float()
    for row, slot in enumerate(slots):
        if slot >= 0:
            parts = [
                w[slot, 0].float() @ (v[slot, 0].float() @ x[row].float())
                for v, w in zip(a, b, strict=True)
            ]
            expected[row] += torch.cat(parts)
    wrapper = GroupedPunicaWrapper(128, 128, "cpu")
    wrapper.order, wrapper.filling, wrapper.groups = group_rows(torch.tensor(slots))
    untouched = [row for row, slot in enumerate(slots) if slot < 0]
    before = y[untouched].clone()
    wrapper.add_lora_linear(y, x, a, b, 1.0, sizes)
    tolerance = (
        {"atol": 1e-3, "rtol": 1e-4} if dtype == torch.float32 else {"atol": 0.5, "rtol": 0.02}
    )
    torch.testing.assert_close(y.float(), expected, **tolerance)
    assert torch.equal(y[untouched], before)


def test_vllms_own_products_are_the_same_while_the_last_slot_is_empty() -> None:
    from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU

    slots = torch.tensor([0, 0, -1, 1, 1, 1, -1, 0] * 3)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(slots), 32, generator=generator)
    y = torch.randn(len(slots), 24, generator=generator)
    a = (torch.randn(3, 1, 8, 32, generator=generator),)
    b = (torch.randn(3, 1, 24, 8, generator=generator),)
    results = []
    for filled in (False, True):
        if not filled:
            a[0][2], b[0][2] = 0.0, 0.0
        else:
            a[0][2], b[0][2] = a[0][0], b[0][0]
        ours = GroupedPunicaWrapper(64, 64, "cpu")
        ours.order, ours.filling, ours.groups = group_rows(slots)
        theirs = PunicaWrapperCPU(64, 64, "cpu")
        theirs._token_lora_indices[: len(slots)] = slots
        theirs.indices_len[0] = len(slots)
        outputs = [y.clone(), y.clone()]
        for wrapper, out in zip((ours, theirs), outputs, strict=True):
            wrapper.add_lora_linear(out, x, a, b, 1.0, (24,))
        results.append(outputs)
    torch.testing.assert_close(results[0][0], results[0][1], atol=1e-4, rtol=1e-4)
    assert torch.equal(results[0][0], results[1][0])
    # The trap that ours avoids: with the last slot filled, vLLM's changes the base's rows.
    base = slots < 0
    assert not torch.allclose(results[1][1][base], y[base])
