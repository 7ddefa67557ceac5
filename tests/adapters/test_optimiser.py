from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from zpdbench.adapters.optimiser import AdamW, ShardedAdamW, schedule
from zpdbench.adapters.parallel import Group


def test_adamw_is_torch_s() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (5,), (2, 2)]
    start = [torch.randn(*s, generator=generator) for s in shapes]
    ours = [torch.nn.Parameter(p.clone()) for p in start]
    theirs = [torch.nn.Parameter(p.clone()) for p in start]
    mine = AdamW(ours, weight_decay=0.1, max_grad_norm=1.0)
    reference = torch.optim.AdamW(theirs, lr=1.0, weight_decay=0.1)
    for step in range(20):
        rate = 0.01 * (step + 1)
        gradients = [torch.randn(*s, generator=generator) for s in shapes]
        for parameter, other, gradient in zip(ours, theirs, gradients, strict=True):
            assert parameter.grad is not None
            parameter.grad += gradient
            other.grad = gradient.clone()
        norm = torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        reference.param_groups[0]["lr"] = rate
        reference.step()
        assert mine.step(rate) == pytest.approx(float(norm), rel=1e-5)
        for parameter, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(parameter, other, rtol=1e-5, atol=1e-6)
            assert parameter.grad is not None and not parameter.grad.any()


@pytest.mark.parametrize(
    "size", [1, 82_000, 1_000_003, 10_000_000, pytest.param(134_515_008, marks=pytest.mark.slow)]
)
def test_the_norm_is_float64_s_however_many_values(size: int) -> None:
    gradient = torch.randn(size, generator=torch.Generator().manual_seed(size)) * 1e-3
    squares = sum(float(part.double().square().sum()) for part in gradient.split(1 << 22))
    exact = pytest.approx(math.sqrt(squares), rel=1e-6)
    flat = AdamW([torch.nn.Parameter(torch.zeros(size))], weight_decay=0, max_grad_norm=1.0)
    flat.gradients.copy_(gradient)
    assert flat.step(0.0) == exact
    del flat

    # The sharded one has a tensor a parameter; both clip alike.
    def local(values: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(to_local=lambda: values)

    halves = gradient.tensor_split(2)
    parts = [SimpleNamespace(to_local=lambda h=h: torch.zeros_like(h)) for h in halves]
    for part, half in zip(parts, halves, strict=True):
        part.grad = local(half)
    sharded = ShardedAdamW(parts, weight_decay=0, max_grad_norm=1.0, group=Group())
    assert sharded.step(0.0) == exact


def test_schedule_is_transformers_s() -> None:
    from transformers import get_linear_schedule_with_warmup

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.SGD([parameter], lr=1.0)
    reference = get_linear_schedule_with_warmup(optimiser, 5, 100)
    for step in range(100):
        assert schedule(step, 100, 0.05) == pytest.approx(reference.get_last_lr()[0])
        optimiser.step()
        reference.step()
    assert schedule(0, 10, 0.0) == 1.0
