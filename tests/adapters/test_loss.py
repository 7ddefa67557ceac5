from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

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


class Largest(TorchDispatchMode):
    """The most elements of any tensor that has the vocabulary as a dimension, weights apart."""

    def __init__(self, vocabulary: int, hidden: int) -> None:
        super().__init__()
        self.vocabulary, self.weights, self.found = vocabulary, vocabulary * hidden, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            is_made = isinstance(tensor, torch.Tensor) and tensor.numel() != self.weights
            if is_made and self.vocabulary in tensor.shape:
                self.found = max(self.found, tensor.numel())
        return out


@pytest.mark.parametrize("frozen", [True, False])
def test_logits_never_stand_whole_in_memory(monkeypatch: pytest.MonkeyPatch, frozen: bool) -> None:
    """In a step, forward and backward, and in a scoring pass."""
    vocabulary, width, targets = 1009, 24, 300
    monkeypatch.setattr(loss, "CHUNK", 32 * vocabulary)
    hidden = torch.randn(targets, width, requires_grad=True)
    head = torch.randn(vocabulary, width, requires_grad=not frozen)
    wanted = torch.randint(vocabulary, (targets,))
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    with Largest(vocabulary, width) as step, saved_tensors_hooks(keep, lambda t: t):
        loss.cross_entropy(hidden, head, wanted)[0].backward()
    with Largest(vocabulary, width) as scoring:
        loss.measure(hidden.detach(), head.detach(), wanted)
    for seen in (step.found, scoring.found):
        assert 0 < seen <= 32 * vocabulary
    assert max(kept) <= vocabulary * width, "no logit waits for backward"
    with Largest(vocabulary, width) as whole:
        functional.cross_entropy(hidden @ head.T, wanted).backward()
    assert whole.found == targets * vocabulary, "what it is held against is seen"
