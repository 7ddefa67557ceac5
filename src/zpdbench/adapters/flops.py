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
    tokens = sum(lengths)
    inner = shape.heads * shape.head_dim
    block = (
        shape.hidden_size * (2 * inner + 2 * shape.kv_heads * shape.head_dim)
        + 3 * shape.hidden_size * shape.intermediate_size
    )
    linear = 2 * tokens * (shape.layers * block + rank * adapted)
    attention = 2 * shape.layers * inner * sum(n * (n + 1) for n in lengths)
    return linear + attention + 2 * targets * shape.vocab_size * shape.hidden_size


def training(
    shape: Shape, lengths: Sequence[int], targets: int, rank: int, adapted: int, full: bool
) -> int:
    """Operations of one forward and backward pass.

    Backward costs the forward again for the activations' gradients; the trained weights' gradients
    cost once more: all of them in full fine-tuning, the adapters' alone with LoRA.
    """
    once = forward(shape, lengths, targets, rank, adapted)
    if full:
        return 3 * once
    return 2 * once + 2 * sum(lengths) * rank * adapted
