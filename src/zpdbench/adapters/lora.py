"""Low-rank adapters (Hu et al. 2021) on the decoder's linear layers, saved in PEFT's format.

Initialised as PEFT initialises them, with the same draws from the same generator, so that a seed
gives the bits that PEFT would give (a test compares them).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from zpdbench.adapters.products import cast, operand
from zpdbench.errors import UserError

_PREFIX = "base_model.model."


class _LoraFunction(torch.autograd.Function):
    """`x W' + b + scale (x A') B'` with a frozen W: saves x and A x' only, one node a layer.

    x and W are of one type, float32 or bfloat16, and so is the result; A and B are float32, their
    gradients too. What is saved is of that type, so in bfloat16 half as large.

    The products of rank `rank` are laid out as (rank, tokens): on CPU they take a quarter to a half
    of the time that (tokens, rank) takes.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, a: Tensor, b: Tensor, scale: float
    ) -> Tensor:
        left = operand(x)
        dtype = left.dtype
        low = cast(a, dtype) @ left.T
        bias = None if bias is None else cast(bias, dtype)
        y = functional.linear(left, operand(weight), bias)
        y.addmm_(low.T, cast(b, dtype).T, alpha=scale)
        ctx.save_for_backward(x, weight, a, b, low)
        ctx.scale = scale
        return cast(y, x.dtype)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, a, b, low = ctx.saved_tensors
        wide = operand(dy)
        d_low = (cast(b, wide.dtype).T @ wide.T).mul_(ctx.scale)
        dx = None
        if ctx.needs_input_grad[0]:
            dx = wide @ operand(weight)
            dx = cast(dx.addmm_(d_low.T, cast(a, wide.dtype)), x.dtype)
        da = cast(d_low @ operand(x), a.dtype)
        db = cast((low @ wide).mul_(ctx.scale).T, b.dtype)
        return dx, None, None, da, db, None


class LoraLinear(nn.Module):
    """A frozen linear layer plus `scale * B A`; A is (rank, in), B (out, rank), both float32.

    Computes in its weight's type and answers in its input's.
    """

    def __init__(self, base: nn.Linear, rank: int, alpha: float, dropout: float) -> None:
        super().__init__()
        self.base = base
        self.scale = alpha / rank
        self.dropout = dropout
        # nn.Linear draws on creation, then PEFT draws A again: both are needed for PEFT's bits.
        lora_a = nn.Linear(base.in_features, rank, bias=False)
        lora_b = nn.Linear(rank, base.out_features, bias=False)
        nn.init.kaiming_uniform_(lora_a.weight, a=math.sqrt(5))
        nn.init.zeros_(lora_b.weight)
        self.lora_a = nn.Parameter(lora_a.weight.detach())
        self.lora_b = nn.Parameter(lora_b.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        """(tokens, in) -> (tokens, out)."""
        weight = self.base.weight
        if not (self.dropout and self.training):
            y = _LoraFunction.apply(
                cast(x, weight.dtype), weight, self.base.bias, self.lora_a, self.lora_b, self.scale
            )
            return cast(y, x.dtype)
        dropped = operand(functional.dropout(x, self.dropout, self.training).to(weight.dtype))
        low = functional.linear(dropped, self.lora_a.to(dropped.dtype))
        high = functional.linear(low, self.lora_b.to(dropped.dtype)).to(x.dtype)
        return self.base(x) + high * self.scale


def target_names(model: nn.Module, wanted: str | list[str]) -> list[str]:
    """Full names of the layers that get an adapter, in the model's order.

    Args:
        wanted: "all-linear" (all but the vocabulary projection), or last name parts.

    Raises:
        UserError: the model lacks a wanted module.
    """
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name != "lm_head"
    ]
    if wanted == "all-linear":
        return linear
    known = sorted({name.rpartition(".")[2] for name in linear})
    for target in wanted:
        if target not in known:
            raise UserError(
                f"the model has no module {target!r}",
                where="training.lora.target_modules",
                fix=f"use some of {', '.join(known)}, or all-linear",
            )
    return [name for name in linear if name.rpartition(".")[2] in wanted]


def apply(
    model: nn.Module, wanted: str | list[str], rank: int, alpha: float, dropout: float, seed: int
) -> dict[str, LoraLinear]:
    """Put freshly initialised adapters into `model`; returns them by full layer name.

    Raises:
        UserError: as `target_names`.
    """
    names = target_names(model, wanted)
    device = next(model.parameters()).device
    torch.manual_seed(seed)
    layers: dict[str, LoraLinear] = {}
    for name in names:
        parent, _, last = name.rpartition(".")
        owner = model.get_submodule(parent)
        layer = LoraLinear(getattr(owner, last), rank, alpha, dropout).to(device)
        setattr(owner, last, layer)
        layers[name] = layer
    return layers


def tensors(layers: dict[str, LoraLinear]) -> dict[str, Tensor]:
    """The adapter's tensors under the names that PEFT's files have."""
    result: dict[str, Tensor] = {}
    for name, layer in layers.items():
        result[f"{_PREFIX}{name}.lora_A.weight"] = layer.lora_a.detach()
        result[f"{_PREFIX}{name}.lora_B.weight"] = layer.lora_b.detach()
    return result


def config_text(base: str, targets: list[str], rank: int, alpha: float, dropout: float) -> str:
    """The adapter_config.json that PEFT and vLLM read; no path, no version, no date."""
    config: dict[str, Any] = {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": base,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "layers_to_transform": None,
        "lora_alpha": int(alpha) if alpha == int(alpha) else alpha,
        "lora_dropout": dropout,
        "modules_to_save": None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": {},
        "target_modules": sorted({name.rpartition(".")[2] for name in targets}),
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    }
    return json.dumps(config, indent=1, sort_keys=True) + "\n"


def save(folder: Path, state: dict[str, Tensor], config: str) -> None:
    """Write one adapter folder: adapter_model.safetensors and adapter_config.json."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    contiguous = {k: v.cpu().contiguous() for k, v in sorted(state.items())}
    save_file(contiguous, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(config, "utf-8")
