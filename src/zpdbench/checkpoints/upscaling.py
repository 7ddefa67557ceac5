"""Depth up-scaling (Kim et al. 2023, "SOLAR 10.7B", section 3.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zpdbench.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def layer_order(layers: int, drop: int) -> list[int]:
    """Which original layer stands at each place of the deeper model.

    Two copies of the model, the last `drop` layers of the first and the first `drop` of the
    second left out: 2 x (layers - drop) layers. SOLAR took 32 layers and 8 to 48.

    Raises:
        UserError: nothing would be left of a copy.
    """
    if not 0 <= drop < layers:
        raise UserError(
            f"upscale.drop is {drop} with {layers} layers", fix=f"give 0 to {layers - 1}"
        )
    return [*range(layers - drop), *range(drop, layers)]


def upscale(model: PreTrainedModel, drop: int) -> PreTrainedModel:
    """A deeper model of the same architecture; the weights are copied, `model` stays as it is.

    Raises:
        UserError: as `layer_order`.
    """
    import copy

    import torch

    order = layer_order(model.config.num_hidden_layers, drop)
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = len(order)
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[i] for i in order]
    deeper = type(model)(config)
    torch.nn.Module.to(deeper, dtype=model.dtype)
    weights = model.state_dict()
    copied = {k: v for k, v in weights.items() if ".layers." not in k}
    for place, original in enumerate(order):
        prefix = f"model.layers.{original}."
        for name, value in weights.items():
            if name.startswith(prefix):
                copied[f"model.layers.{place}.{name.removeprefix(prefix)}"] = value
    deeper.load_state_dict(copied)
    if model.generation_config is not None:
        deeper.generation_config = copy.deepcopy(model.generation_config)
    return deeper
