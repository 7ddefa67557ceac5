"""Depth up-scaling as SOLAR's authors describe it."""

from __future__ import annotations

import pytest

from zpdbench.checkpoints import pretraining, upscaling
from zpdbench.errors import UserError


def test_layer_order() -> None:
    assert upscaling.layer_order(4, 1) == [0, 1, 2, 1, 2, 3]
    solar = upscaling.layer_order(32, 8)
    assert len(solar) == 48 and solar == [*range(24), *range(8, 32)]
    assert len(upscaling.layer_order(30, 10)) == 40


@pytest.mark.parametrize("drop", [-1, 4, 9])
def test_a_drop_that_leaves_nothing_is_refused(drop: int) -> None:
    with pytest.raises(UserError, match=r"upscale\.drop"):
        upscaling.layer_order(4, drop)


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_layers_are_copied_and_the_model_stays(architecture) -> None:
    import torch

    model = pretraining.build(
        architecture, vocabulary=300, hidden_size=32, layers=4, eos=3, pad=0, seed=1
    )
    before = {k: v.clone() for k, v in model.state_dict().items()}
    deeper = upscaling.upscale(model, 1)
    assert deeper.config.num_hidden_layers == 6 and model.config.num_hidden_layers == 4
    for place, original in enumerate([0, 1, 2, 1, 2, 3]):
        ours, theirs = deeper.model.layers[place], model.model.layers[original]
        for (name, a), (_, b) in zip(
            ours.named_parameters(), theirs.named_parameters(), strict=True
        ):
            assert torch.equal(a, b), name
            assert a.data_ptr() != b.data_ptr()
    assert torch.equal(deeper.model.embed_tokens.weight, model.model.embed_tokens.weight)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert deeper(torch.tensor([[5, 6, 7]])).logits.shape == (1, 3, 300)
