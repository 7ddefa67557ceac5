from __future__ import annotations

import pytest
import torch

from zpdbench.adapters.optimiser import AdamW, schedule


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
