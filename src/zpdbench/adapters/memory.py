"""Whether a pass must forget its activations and make them again: an estimate against the device.

Gradient checkpointing (Chen et al. 2016) costs a second forward pass and changes no bit, so that
the decision may depend on the machine.
"""

from __future__ import annotations

import os
from pathlib import Path

from zpdbench.adapters.decoder import Shape
from zpdbench.adapters.loss import CHUNK

SHARE = 0.9
"""Part of a device's memory that an estimate may fill."""
_LIBRARIES = 1 << 30
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def needed(
    shape: Shape,
    *,
    full: bool,
    trained: int,
    rank: int,
    width: int,
    tokens: int,
    processes: int = 1,
) -> int:
    """Bytes of one process without gradient checkpointing: weights, state, activations, logits.

    Args:
        trained: values that are trained: 16 bytes each (value, gradient, two moments).
        rank: of the adapters; 0 in full fine-tuning.
        width: bytes a value of a linear layer's arithmetic.
        tokens: of a pass, at most.
        processes: that share the weights of full fine-tuning.
    """
    weights = parameters(shape)
    state = 16 * trained // (processes if full else 1)
    if full:
        # Weights cast for a layer's arithmetic are kept for its backward pass.
        held = weights * width if width < 4 else weights * 4 * (processes > 1)
    else:
        held = weights * width
    logits = 3 * 4 * CHUNK + (4 * shape.vocab_size * shape.hidden_size if full else 0)
    return _LIBRARIES + state + held + activations(shape, tokens, rank, width) + logits


def activations(shape: Shape, tokens: int, rank: int, width: int) -> int:
    """Bytes that the layers keep for the backward pass (a test counts them).

    A layer: the inputs of two norms and what they give; queries, keys, values and their mixture,
    laid out by heads, and the mixture again; gate, its activation, up, their product.
    """
    inner = shape.heads * shape.head_dim
    values = 4 * shape.hidden_size + 5 * inner + 4 * shape.intermediate_size
    casts = 0
    if width < 4 and rank:
        # Between norms all is as narrow; a CPU may widen queries, keys and values for attention.
        values = 2 * shape.hidden_size + 4 * inner
        casts = 2 * shape.hidden_size + 2 * inner + 4 * shape.intermediate_size
    elif width < 4:
        # What linear layers take is kept as they take it, each its own copy, and not before.
        values = 2 * shape.hidden_size + 4 * inner + 3 * shape.intermediate_size
        casts = 5 * shape.hidden_size + inner + shape.intermediate_size
    return shape.layers * tokens * (4 * values + width * (casts + 7 * rank))


def parameters(shape: Shape) -> int:
    """Values of a decoder of this shape."""
    inner, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    layer = shape.hidden_size * (2 * inner + 2 * kv + 3 * shape.intermediate_size + 2)
    tables = (1 if shape.tied else 2) * shape.vocab_size * shape.hidden_size
    return shape.layers * layer + tables + shape.hidden_size


def device_bytes(device: str) -> int:
    """Memory of a device: a GPU's own, else the machine's, less if this job is given less."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.get_device_properties(device).total_memory)
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(machine, int(_CGROUP.read_text("ascii")))
    except (OSError, ValueError):
        return machine
