"""Cross-entropy and competence measures at target positions, never all logits at once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zpdbench.arithmetic import filled

CHUNK = 1 << 24
"""Logits that may stand in memory at once (float32: 64 MiB)."""
ROWS = 512
"""Positions whose logits are made together at most: more would leave the caches."""


def chunk_rows(vocabulary: int) -> int:
    """Target positions whose logits are made together."""
    return min(max(CHUNK // vocabulary, 16), ROWS)


class _ChunkedCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of `hidden @ head'`, its gradients made chunk by chunk in forward.

    The gradient of the logits is softmax minus one-hot, so each chunk's logits can be thrown away
    before the next is made (as in Liger kernels, Hsu et al. 2024).
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        need_hidden, need_head, _ = ctx.needs_input_grad
        d_hidden = torch.empty_like(hidden) if need_hidden else None
        d_head = torch.zeros_like(head, dtype=torch.float32) if need_head else None
        losses = torch.empty(len(targets), dtype=torch.float32, device=hidden.device)
        rows = chunk_rows(head.shape[0])
        for start in range(0, len(targets), rows):
            part = slice(start, start + rows)
            h = hidden[part].to(head.dtype)
            target = targets[part, None]
            logits = (h @ head.T).float()
            normaliser = logits.logsumexp(-1, keepdim=True)
            losses[part] = (normaliser - logits.gather(-1, target))[:, 0]
            if d_hidden is None and d_head is None:
                continue
            gradient = logits.sub_(normaliser).exp_()
            gradient.scatter_add_(-1, target, gradient.new_full(target.shape, -1.0))
            gradient = gradient.to(head.dtype)
            if d_hidden is not None:
                d_hidden[part] = (gradient @ head).to(hidden.dtype)
            if d_head is not None:
                d_head += (gradient.T @ h).float()
        ctx.save_for_backward(d_hidden, d_head)
        ctx.mark_non_differentiable(losses)
        ctx.head_dtype = head.dtype
        return losses.sum(), losses

    @staticmethod
    def backward(ctx: Any, d_total: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        d_hidden, d_head = ctx.saved_tensors
        return (
            None if d_hidden is None else d_hidden * d_total,
            None if d_head is None else (d_head * d_total).to(ctx.head_dtype),
            None,
        )


def cross_entropy(hidden: Tensor, head: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(summed loss, loss of each target), nats.

    Args:
        hidden: hidden states at the target positions, shape (targets, hidden).
        head: vocabulary projection, shape (vocabulary, hidden).
        targets: token ids, shape (targets,).
    """
    return _ChunkedCrossEntropy.apply(hidden, head, targets)


@dataclass(frozen=True)
class TokenMeasures:
    """Measures of each target token, all of shape (targets,).

    Attributes:
        loss: negative log-likelihood, nats.
        confidence: probability of the most probable token.
        entropy: entropy over log(vocabulary).
        correct: whether the most probable token is the target.
    """

    loss: Tensor
    confidence: Tensor
    entropy: Tensor
    correct: Tensor


@torch.no_grad()
def measure(hidden: Tensor, head: Tensor, targets: Tensor) -> TokenMeasures:
    """Measures at the target positions; arguments as `cross_entropy`."""
    rows = chunk_rows(head.shape[0])
    parts: list[tuple[Tensor, ...]] = []
    for start in range(0, len(targets), rows):
        part = slice(start, start + rows)
        target = targets[part]
        logits = (filled(hidden[part].to(head.dtype)) @ head.T).float()
        normaliser = logits.logsumexp(-1)
        best, index = logits.max(-1)
        # entropy = log Z - E[logit]; the expectation by one fused product.
        probability = torch.exp(logits - normaliser[:, None])
        entropy = normaliser - torch.linalg.vecdot(probability, logits)
        count = len(target)
        parts.append(
            (
                normaliser[:count] - logits[:count].gather(-1, target[:, None])[:, 0],
                (best - normaliser).exp()[:count],
                (entropy / math.log(head.shape[0])).clamp_(0.0, 1.0)[:count],
                index[:count] == target,
            )
        )
    return TokenMeasures(*(torch.cat(column) for column in zip(*parts, strict=True)))
