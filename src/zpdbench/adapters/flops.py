"""Floating-point operations of a pass, by formula; a multiply-add counts as two."""

from __future__ import annotations

from collections.abc import Sequence

from zpdbench.adapters.decoder import Shape


def forward(shape: Shape, lengths: Sequence[int], targets: int, rank: int, adapted: int) -> int:
    """Operations of one forward pass.

    Linear layers on every token, causal attention (half of the square), the vocabulary projection
    at the targets only, and the adapters. Norms and activations are left out (under 1 %).

    Args:
        lengths: tokens of each sequence.
        targets: positions whose logits are made.
        rank: adapter rank; 0 without.
        adapted: sum of in + out over the adapted layers.
    """
    return _linear(shape, lengths, targets, rank, adapted) + _attention(shape, lengths)


def training(
    shape: Shape, lengths: Sequence[int], targets: int, rank: int, adapted: int, full: bool
) -> int:
    """Operations of one forward and backward pass.

    Backward costs a linear layer's forward again for its input's gradient; the trained weights'
    gradients cost once more: all of them in full fine-tuning, the adapters' alone with LoRA.
    Attention has no weights, but each of its two products has two factors with a gradient: its
    backward costs twice its forward in either case.
    """
    linear = _linear(shape, lengths, targets, rank, adapted)
    attention = 3 * _attention(shape, lengths)
    if full:
        return 3 * linear + attention
    return 2 * linear + attention + 2 * sum(lengths) * rank * adapted


def _linear(shape: Shape, lengths: Sequence[int], targets: int, rank: int, adapted: int) -> int:
    inner = shape.heads * shape.head_dim
    block = (
        shape.hidden_size * (2 * inner + 2 * shape.kv_heads * shape.head_dim)
        + 3 * shape.hidden_size * shape.intermediate_size
    )
    linear = 2 * sum(lengths) * (shape.layers * block + rank * adapted)
    return linear + 2 * targets * shape.vocab_size * shape.hidden_size


def _attention(shape: Shape, lengths: Sequence[int]) -> int:
    inner = shape.heads * shape.head_dim
    return 2 * shape.layers * inner * sum(n * (n + 1) for n in lengths)
