"""Operations by formula against torch's own count."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from tests.adapters import material
from zpdbench.adapters import batches, decoder, encoding, flops, lora


@pytest.mark.parametrize("full", [False, True])
def test_forward_and_backward_are_what_torch_counts(tmp_path: Path, full: bool) -> None:
    folder = material.checkpoint(tmp_path / "m", tie_word_embeddings=False)
    frame = material.examples(1)
    tokens = encoding.Encoder(folder).encode(
        frame["prompt"].to_list(), frame["response"].to_list(), 256
    )
    batch = batches.pack(tokens, np.arange(1))
    model = decoder.load(folder)
    rank, adapted = 0, 0
    layers: dict[str, lora.LoraLinear] = {}
    if full:
        model.requires_grad_(True)
    else:
        # The embeddings' gradient stands for a layer further down: the first one's is counted too.
        model.model.embed_tokens.weight.requires_grad_(True)
        rank = 8
        layers = lora.apply(model, "all-linear", rank, 16, 0.0, seed=0)
        adapted = sum(x.base.in_features + x.base.out_features for x in layers.values())
    # Attention as plain products, whose operations torch counts: the whole square, ours half of it.
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            # Logits by a plain product: the chunked loss makes its gradient in forward.
            logits = model(batch) @ model.head.T
        with FlopCounterMode(display=False) as backward:
            logits.sum().backward()
    n, shape, targets = batch.lengths[0], model.shape, len(batch.targets)
    inner = shape.heads * shape.head_dim
    square = 4 * shape.layers * inner * n * n
    half = 2 * shape.layers * inner * n * (n + 1)
    # torch leaves out what is added in place: an adapter's second product, and its gradient's.
    outputs = sum(x.base.out_features for x in layers.values())
    once = forward.get_total_flops() + 2 * n * rank * outputs
    assert once - square == flops.forward(shape, [n], targets, rank, adapted) - half
    both = once + backward.get_total_flops() + 2 * n * rank * (adapted - outputs)
    assert both - 3 * square == flops.training(shape, [n], targets, rank, adapted, full) - 3 * half
