"""Llama and Qwen2 decoders in plain torch, on packed tokens.

The same arithmetic and parameter names as transformers' classes (tests compare them), but without
padding: the linear layers see each real token once, (tokens, hidden); only attention is laid out as
(batch, heads, length, head). Right padding needs no mask there, since a causal query never looks at
what follows it. Not importing transformers also saves six seconds a run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from zpdbench.adapters import products
from zpdbench.errors import UserError


@dataclass(frozen=True)
class Block:
    """Sequences that follow one another in a batch and are padded to one length.

    Attributes:
        tokens: where the block's tokens lie in the batch.
        rows: its sequences.
        length: what each is padded to.
    """

    tokens: slice
    rows: int
    length: int


@dataclass(frozen=True)
class Packed:
    """A batch of token sequences without padding.

    Attributes:
        ids: all tokens, sequence after sequence, shape (tokens,).
        positions: each token's position in its sequence, shape (tokens,).
        slots: each token's place in its block's padded (sequences * length) layout, (tokens,).
        blocks: the sequences that attention lays out together, one block after another.
        lengths: tokens of each sequence.
        select: places of the tokens whose successor is to be predicted, shape (targets,).
        targets: those successors, shape (targets,).
        owner: the sequence of each target, shape (targets,).
    """

    ids: Tensor
    positions: Tensor
    slots: Tensor
    blocks: tuple[Block, ...]
    lengths: tuple[int, ...]
    select: Tensor
    targets: Tensor
    owner: Tensor


@dataclass(frozen=True)
class Shape:
    """What of a config.json the decoder needs."""

    model_type: str
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    eps: float
    rope_theta: float
    tied: bool
    attention_bias: bool


class RmsNorm(nn.Module):
    """Root-mean-square norm (Zhang and Sennrich 2019), in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """(tokens, size) -> the same shape."""
        if x.device.type == "cpu" and not self.weight.requires_grad:
            return _FrozenNorm.apply(x, x, self.weight, self.eps)
        return functional.rms_norm(x, (x.shape[-1],), self.weight, self.eps)


class _FrozenNorm(torch.autograd.Function):
    """`rms_norm` whose weight is not trained, as CPUs compute it: in single operations.

    One node instead of six and fewer passes over x in backward. x is taken twice, since its two
    gradients must be added one by one to what else x gets, as autograd does: the same bits.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, _: Tensor, weight: Tensor, eps: float) -> Tensor:
        scale = x.pow(2).mean(-1, keepdim=True).add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, scale = ctx.saved_tensors
        d_normed = dy * weight
        d_scale = (d_normed * x).sum(-1, keepdim=True)
        d_mean = (-0.5 * d_scale).mul_(scale.pow(3)).div_(x.shape[-1])
        return d_normed.mul_(scale), x * (2.0 * d_mean), None, None


class Linear(nn.Linear):
    """A linear layer that computes in its weight's type and answers in its input's.

    `compute` is another type to compute in, for weights that are trained in float32.
    """

    compute: torch.dtype | None = None

    def reset_parameters(self) -> None:
        """Nothing: weights are loaded, and drawing them on `meta` would import the compiler."""

    def forward(self, x: Tensor) -> Tensor:
        """(tokens, in) -> (tokens, out)."""
        weight = self.weight if self.compute is None else self.weight.to(self.compute)
        bias = None if self.bias is None else products.cast(self.bias, weight.dtype)
        y = products.linear(products.cast(x, weight.dtype), weight, bias)
        return products.cast(y, x.dtype)


class Embedding(nn.Embedding):
    """Token embeddings, loaded and never drawn."""

    def reset_parameters(self) -> None:
        """Nothing: see `Linear`."""


class Attention(nn.Module):
    """Grouped-query attention with rotary positions.

    With a bfloat16 input also the scores are made of bfloat16 queries and keys, where the device
    has such arithmetic; positions are turned in float32.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = shape.heads, shape.kv_heads, shape.head_dim
        q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.q_proj = Linear(shape.hidden_size, q, bias=shape.attention_bias)
        self.k_proj = Linear(shape.hidden_size, kv, bias=shape.attention_bias)
        self.v_proj = Linear(shape.hidden_size, kv, bias=shape.attention_bias)
        self.o_proj = Linear(q, shape.hidden_size, bias=False)

    def forward(self, x: Tensor, batch: Packed, cos: Tensor, sin: Tensor) -> Tensor:
        """(tokens, hidden) -> (tokens, hidden)."""
        tokens = x.shape[0]
        dtype = x.dtype if products.native(x.device.type) else torch.float32
        q = rotate(self.q_proj(x).view(tokens, self.heads, self.head_dim), cos, sin)
        k = rotate(self.k_proj(x).view(tokens, self.kv_heads, self.head_dim), cos, sin)
        v = self.v_proj(x).view(tokens, self.kv_heads, self.head_dim)
        mixed = [self._mix(q, k, v, batch, block, dtype) for block in batch.blocks]
        joined = mixed[0] if len(mixed) == 1 else torch.cat(mixed)
        return self.o_proj(products.cast(joined, x.dtype))

    def _mix(
        self, q: Tensor, k: Tensor, v: Tensor, batch: Packed, block: Block, dtype: torch.dtype
    ) -> Tensor:
        """Of one block's tokens: (tokens, heads, head_dim) -> (tokens of the block, hidden)."""
        rows, length = block.rows, block.length
        slots = batch.slots[block.tokens]
        padded = rows * length != len(slots)

        def lay_out(t: Tensor) -> Tensor:
            t = products.cast(t[block.tokens], dtype)
            if padded:
                t = t.new_zeros(rows * length, *t.shape[1:]).index_copy_(0, slots, t)
            t = t.view(rows, length, *t.shape[1:]).transpose(1, 2)
            # The CPU kernel for grouped queries is the unfused one: repeat, then the fused one.
            if t.shape[1] != self.heads:
                t = t.repeat_interleave(self.heads // t.shape[1], dim=1)
            return t

        mixed = functional.scaled_dot_product_attention(
            lay_out(q), lay_out(k), lay_out(v), is_causal=True
        )
        mixed = mixed.transpose(1, 2).reshape(rows * length, self.heads * self.head_dim)
        return mixed.index_select(0, slots) if padded else mixed


class Mlp(nn.Module):
    """SwiGLU feed-forward layer (Shazeer 2020)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gate_proj = Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(tokens, hidden) -> (tokens, hidden)."""
        return self.down_proj(swiglu(self.gate_proj(x), self.up_proj(x)))


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) up` (Shazeer 2020), all of shape (tokens, intermediate)."""
    if not torch.is_grad_enabled():
        return products.rowwise(functional.silu, gate).mul_(up)
    return _SwiGlu.apply(gate, up)


class _SwiGlu(torch.autograd.Function):
    """What autograd would compute, to the last bit.

    silu(gate) is made anew in backward instead of kept: an MLP holds a third less until then.
    """

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return functional.silu(gate).mul_(up)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        d_gate = torch.ops.aten.silu_backward(dy * up, gate)
        return d_gate, functional.silu(gate).mul_(dy)


class Layer(nn.Module):
    """One transformer block, norms first; linear layers and attention in `compute`.

    What is added up from block to block is float32, as autocast has it; it is rounded once for all
    the layers that read it.
    """

    compute: torch.dtype = torch.float32

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(shape)
        self.mlp = Mlp(shape)
        self.input_layernorm = RmsNorm(shape.hidden_size, shape.eps)
        self.post_attention_layernorm = RmsNorm(shape.hidden_size, shape.eps)

    def forward(self, x: Tensor, batch: Packed, cos: Tensor, sin: Tensor) -> Tensor:
        """(tokens, hidden) -> (tokens, hidden)."""
        normed = products.cast(self.input_layernorm(x), self.compute)
        x = x + self.self_attn(normed, batch, cos, sin)
        return x + self.mlp(products.cast(self.post_attention_layernorm(x), self.compute))


class Body(nn.Module):
    """Embeddings, layers and the last norm."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embed_tokens = Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = RmsNorm(shape.hidden_size, shape.eps)


class Decoder(nn.Module):
    """A causal language model whose vocabulary projection is left to the caller."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.checkpointing = False
        self.model = Body(shape)
        self.lm_head = Linear(shape.hidden_size, shape.vocab_size, bias=False)
        if shape.tied:
            self.lm_head.weight = self.model.embed_tokens.weight

    @property
    def head(self) -> Tensor:
        """The vocabulary projection, shape (vocabulary, hidden)."""
        weight = self.lm_head.weight
        return weight if self.lm_head.compute is None else weight.to(self.lm_head.compute)

    def forward(self, batch: Packed) -> Tensor:
        """Hidden states at `batch.select`, after the last norm; shape (targets, hidden)."""
        cos, sin = rotary(batch.positions, self.shape.head_dim, self.shape.rope_theta)
        x = self.model.embed_tokens(batch.ids)
        for layer in self.model.layers:
            if self.checkpointing and torch.is_grad_enabled():
                from torch.utils.checkpoint import checkpoint

                x = checkpoint(layer, x, batch, cos, sin, use_reentrant=False)
            else:
                x = layer(x, batch, cos, sin)
        return self.model.norm(x.index_select(0, batch.select))


def rotary(positions: Tensor, head_dim: int, theta: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines of rotary positions (Su et al. 2021), shape (tokens, 1, head_dim)."""
    exponent = torch.arange(0, head_dim, 2, dtype=torch.int64, device=positions.device)
    frequency = 1.0 / theta ** (exponent.float() / head_dim)
    angle = positions.float()[:, None] * frequency
    angle = torch.cat((angle, angle), dim=-1)[:, None, :]
    return products.rowwise(torch.cos, angle), products.rowwise(torch.sin, angle)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn (tokens, heads, head_dim) by its positions; halves paired as transformers pairs them."""
    return _Rotate.apply(x, cos, sin)


class _Rotate(torch.autograd.Function):
    """`x cos + (-x2, x1) sin`: one node, and what autograd would compute, to the last bit.

    cos and sin are float32, and so is the result; the gradient is of x's type.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        ctx.dtype = x.dtype
        first, second = x.chunk(2, dim=-1)
        return (x * cos).add_(torch.cat((-second, first), dim=-1).mul(sin))

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        cos, sin = ctx.saved_tensors
        first, second = products.cast(dy * sin, ctx.dtype).chunk(2, dim=-1)
        dx = products.cast(dy * cos, ctx.dtype).add_(torch.cat((second, -first), dim=-1))
        return dx, None, None


def read_shape(folder: Path) -> Shape | None:
    """The decoder's shape out of config.json; None if it is no plain Llama or Qwen2.

    Raises:
        UserError: config.json is missing or unreadable.
    """
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            "no readable config.json",
            where=str(path),
            fix="delete the checkpoint folder; it is made again",
        ) from error
    kind = config.get("model_type")
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    plain = (
        kind in ("llama", "qwen2")
        and config.get("hidden_act", "silu") == "silu"
        and rope.get("rope_type", rope.get("type", "default")) == "default"
        and not config.get("use_sliding_window")
        and not config.get("attention_dropout")
        and not config.get("mlp_bias")
        and not (kind == "llama" and config.get("attention_bias"))
        and not config.get("quantization_config")
    )
    if not plain:
        return None
    heads = config["num_attention_heads"]
    return Shape(
        model_type=str(kind),
        vocab_size=config["vocab_size"],
        hidden_size=config["hidden_size"],
        intermediate_size=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        kv_heads=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        eps=config["rms_norm_eps"],
        rope_theta=rope.get("rope_theta") or config.get("rope_theta") or 10000.0,
        tied=bool(config.get("tie_word_embeddings", False)),
        attention_bias=kind == "qwen2",
    )


def load(
    folder: str | Path,
    dtype: torch.dtype = torch.float32,
    device: str = "cpu",
    trained: bool = False,
) -> Decoder:
    """The checkpoint's decoder: linear layers in `dtype`, embeddings and norms in float32.

    That is what autocast would compute, without casting the weights anew at each step. The
    vocabulary projection is in `dtype` too (tied to the embeddings: a copy of them), but in float32
    where the device has no bfloat16 arithmetic. With `trained` all weights are float32 and have
    gradients, and linear layers cast as they compute.

    Raises:
        UserError: another architecture, or weights that are missing, truncated or misshapen.
    """
    folder = Path(folder)
    shape = read_shape(folder)
    if shape is None:
        raise UserError(
            "the architecture is neither a plain Llama nor a plain Qwen2",
            where=str(folder / "config.json"),
            fix="train another model",
        )
    with torch.device("meta"):
        model = Decoder(shape)
    state = {k: v for k, v in read_weights(folder).items() if not k.endswith("inv_freq")}
    if shape.tied:
        state.setdefault("lm_head.weight", state.get("model.embed_tokens.weight", torch.empty(0)))
    wanted = model.state_dict()
    for name, value in wanted.items():
        if name not in state:
            raise UserError(f"no weight {name}", where=str(folder), fix="make the checkpoint again")
        if state[name].shape != value.shape:
            raise UserError(
                f"{name} has shape {tuple(state[name].shape)}, config.json says "
                f"{tuple(value.shape)}",
                where=str(folder),
                fix="make the checkpoint again",
            )
    native = products.native(torch.device(device).type)
    head_dtype = dtype if native and not trained else torch.float32
    linear = {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and name != "lm_head"
    }
    state = {
        name: state[name].to(
            device=device, dtype=dtype if name in linear and not trained else torch.float32
        )
        for name in wanted
    }
    if shape.tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    state["lm_head.weight"] = state["lm_head.weight"].to(head_dtype)
    model.load_state_dict(state, assign=True)
    if shape.tied and head_dtype == torch.float32:
        model.lm_head.weight = model.model.embed_tokens.weight
    for layer in model.model.layers:
        assert isinstance(layer, Layer)
        layer.compute = torch.float32 if trained else dtype
    if trained and dtype != torch.float32:
        for name, module in model.named_modules():
            if f"{name}.weight" in linear and isinstance(module, Linear):
                module.compute = dtype
    return model.requires_grad_(trained)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint folder's safetensors files.

    Raises:
        UserError: none is there, or one is truncated.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise UserError(
            "no safetensors file in the checkpoint",
            where=str(folder),
            fix="delete the folder; it is made again",
        )
    state: dict[str, Tensor] = {}
    for file in files:
        try:
            state.update(load_file(file))
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"unreadable or truncated ({error})",
                where=str(file),
                fix="delete the checkpoint folder; it is made again",
            ) from error
    return state
