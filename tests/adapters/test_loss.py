from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional

from zpdbench.adapters import loss


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    monkeypatch.setattr(loss, "CHUNK", 16 * 50)  # several chunks, the last one short
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(70, 12, generator=generator, requires_grad=True)
    head = torch.randn(50, 12, generator=generator, requires_grad=True)
    return hidden, head, torch.randint(50, (70,), generator=generator)


def test_chunked_cross_entropy_and_its_gradients(
    case: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    hidden, head, targets = case
    assert loss.chunk_rows(50) == 16
    total, each = loss.cross_entropy(hidden, head, targets)
    (total / 7).backward()
    ours = (hidden.grad, head.grad)
    hidden.grad = head.grad = None
    expected = functional.cross_entropy(hidden @ head.T, targets, reduction="none")
    (expected.sum() / 7).backward()
    torch.testing.assert_close(each, expected.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(total, expected.sum(), rtol=1e-5, atol=1e-5)
    assert ours[0] is not None and ours[1] is not None
    torch.testing.assert_close(ours[0], hidden.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours[1], head.grad, rtol=1e-4, atol=1e-5)


def test_measures(case: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> None:
    hidden, head, targets = case
    found = loss.measure(hidden, head, targets)
    probability = (hidden @ head.T).double().softmax(-1)
    chosen = probability.gather(-1, targets[:, None])[:, 0]
    entropy = -(probability * probability.log()).sum(-1) / math.log(50)
    torch.testing.assert_close(found.loss.double(), -chosen.log(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        found.confidence.double(), probability.max(-1).values, rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(found.entropy.double(), entropy, rtol=1e-3, atol=1e-4)
    assert torch.equal(found.correct, probability.argmax(-1) == targets)


def test_uniform_logits_have_entropy_one() -> None:
    found = loss.measure(torch.zeros(3, 4), torch.randn(50, 4), torch.tensor([0, 1, 2]))
    torch.testing.assert_close(found.entropy, torch.ones(3))
    torch.testing.assert_close(found.confidence, torch.full((3,), 0.02))
