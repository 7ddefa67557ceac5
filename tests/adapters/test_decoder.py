"""The packed decoder against transformers, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.adapters import material
from zpdbench.adapters import batches, decoder, encoding, lora
from zpdbench.adapters.loss import cross_entropy
from zpdbench.errors import UserError

VARIANTS: list[tuple[str, dict[str, Any]]] = [
    ("qwen2", {}),
    ("llama", {}),
    ("llama", {"tie_word_embeddings": True, "num_key_value_heads": 2, "rope_theta": 1e5}),
    ("qwen2", {"tie_word_embeddings": False, "head_dim": 48}),
]


def encoded(folder: Path, n: int = 8) -> encoding.Tokens:
    frame = material.examples(n)
    encoder = encoding.Encoder(folder)
    return encoder.encode(frame["prompt"].to_list(), frame["response"].to_list(), 256)


def padded_logits(model: Any, tokens: encoding.Tokens, batch: decoder.Packed) -> torch.Tensor:
    """transformers' logits at the packed batch's target positions, by right padding."""
    order = np.argsort(-tokens.lengths, kind="stable")
    width = int(tokens.lengths.max())
    ids = torch.zeros(len(order), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for line, row in enumerate(order):
        ids[line, : tokens.lengths[row]] = torch.from_numpy(tokens[row].astype(np.int64))
        mask[line, : tokens.lengths[row]] = 1
    logits = model(input_ids=ids, attention_mask=mask).logits.flatten(0, 1)
    return logits[batch.slots[batch.select]]


@pytest.mark.parametrize(("kind", "changes"), VARIANTS)
def test_same_logits_as_transformers(tmp_path: Path, kind: str, changes: dict[str, Any]) -> None:
    from transformers import AutoModelForCausalLM

    folder = material.checkpoint(tmp_path / "m", kind, **changes)
    tokens = encoded(folder)
    batch = batches.pack(tokens, np.arange(8))
    assert len(set(batch.lengths)) > 1
    with torch.no_grad():
        model = decoder.load(folder)
        ours = model(batch) @ model.head.T
        theirs = padded_logits(
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), tokens, batch
        )
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
def test_same_adapters_losses_and_gradients_as_peft(tmp_path: Path, kind: str) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = material.checkpoint(tmp_path / "m", kind)
    model = decoder.load(folder)
    layers = lora.apply(model, "all-linear", 8, 16, 0.0, seed=5)
    ours = lora.tensors(layers)
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    torch.manual_seed(5)
    config = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    peft = get_peft_model(base, config)
    named = {n.replace(".default", ""): p for n, p in peft.named_parameters() if "lora_" in n}
    assert named.keys() == ours.keys()
    for name, value in ours.items():
        assert torch.equal(named[name], value), f"{name} starts otherwise than PEFT's"

    generator = torch.Generator().manual_seed(0)
    for name, value in ours.items():
        if "lora_B" in name:
            value.normal_(0, 0.05, generator=generator)
            named[name].data.copy_(value)
    tokens = encoded(folder)
    batch = batches.pack(tokens, np.arange(8))
    loss, each = cross_entropy(model(batch), model.head, batch.targets)
    loss.backward()
    logits = padded_logits(peft, tokens, batch)
    expected = torch.nn.functional.cross_entropy(logits, batch.targets, reduction="none")
    expected.sum().backward()
    torch.testing.assert_close(each, expected.detach(), rtol=1e-4, atol=1e-4)
    for name, layer in layers.items():
        for part, value in (("A", layer.lora_a), ("B", layer.lora_b)):
            theirs = named[f"base_model.model.{name}.lora_{part}.weight"].grad
            assert theirs is not None and value.grad is not None
            scale = float(theirs.abs().max())
            torch.testing.assert_close(value.grad, theirs, rtol=1e-4, atol=1e-5 * scale)


def test_saved_adapter_is_read_by_peft(tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder = material.checkpoint(tmp_path / "m")
    model = decoder.load(folder)
    layers = lora.apply(model, ["q_proj", "down_proj"], 4, 8, 0.0, seed=1)
    for layer in layers.values():
        layer.lora_b.data.normal_(0, 0.1)
    lora.save(tmp_path / "a", lora.tensors(layers), lora.config_text("m", list(layers), 4, 8, 0.0))
    config = json.loads((tmp_path / "a/adapter_config.json").read_text())
    assert config["target_modules"] == ["down_proj", "q_proj"]
    assert config["base_model_name_or_path"] == "m"
    tokens = encoded(folder)
    batch = batches.pack(tokens, np.arange(8))
    base = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        ours = model(batch) @ model.head.T
        theirs = padded_logits(PeftModel.from_pretrained(base, tmp_path / "a"), tokens, batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_turning_has_the_bits_of_single_operations(dtype: torch.dtype) -> None:
    def by_autograd(x: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * cos + torch.cat((-second, first), dim=-1) * sin

    torch.manual_seed(0)
    cos, sin = decoder.rotary(torch.arange(50), 32, 1e4)
    x, grown = torch.randn(50, 3, 32, dtype=dtype), torch.randn(50, 3, 32)
    found = []
    for turn in (by_autograd, lambda x: decoder.rotate(x, cos, sin)):
        leaf = x.clone().requires_grad_()
        turned = turn(leaf)
        turned.backward(grown)
        assert leaf.grad is not None
        found.append((turned, leaf.grad))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_a_frozen_norm_has_the_bits_of_torch_s() -> None:
    torch.manual_seed(0)
    norm = decoder.RmsNorm(96, 1e-6)
    norm.weight.data.copy_(torch.rand(96) + 0.5)
    norm.requires_grad_(False)
    x, grown = torch.randn(50, 96) * torch.logspace(-3, 3, 50)[:, None], torch.randn(50, 96)
    found = []
    for apply in (lambda x: torch.rms_norm(x, (96,), norm.weight, norm.eps), norm):
        leaf = x.clone().requires_grad_()
        inner = leaf * 2.0
        # The stream goes on beside the norm, as in a layer: the order of the sum counts.
        normed = apply(inner)
        (inner * inner + normed).backward(grown)
        assert leaf.grad is not None
        found.append((normed, leaf.grad))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swiglu_has_the_bits_of_single_operations_and_keeps_two_tensors(
    dtype: torch.dtype,
) -> None:
    torch.manual_seed(0)
    gate, up, grown = (torch.randn(50, 96, dtype=dtype) * 4 for _ in range(3))
    found, kept = [], []
    for apply in (lambda g, u: torch.nn.functional.silu(g) * u, decoder.swiglu):
        leaves = [t.clone().requires_grad_() for t in (gate, up)]
        saved: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: s.append(t) or t, id):
            made = apply(*leaves)
        kept.append(len({t.data_ptr() for t in saved}))
        made = apply(*leaves)
        made.backward(grown)
        found.append((made, *(leaf.grad for leaf in leaves)))
    for one, other in zip(*found, strict=True):
        assert one is not None and torch.equal(one, other)
    assert kept == [3, 2]


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    folder = material.checkpoint(tmp_path / "m")
    batch = batches.pack(encoded(folder), np.arange(8))
    gradients = []
    for checkpointing in (False, True):
        model = decoder.load(folder)
        layers = lora.apply(model, "all-linear", 8, 16, 0.0, seed=5)
        model.checkpointing = checkpointing
        loss, _ = cross_entropy(model(batch), model.head, batch.targets)
        loss.backward()
        gradients.append([layer.lora_b.grad for layer in layers.values()])
    for one, other in zip(*gradients, strict=True):
        assert one is not None and torch.equal(one, other)


def test_lora_in_bfloat16_stays_near_float32(tmp_path: Path) -> None:
    folder = material.checkpoint(tmp_path / "m")
    batch = batches.pack(encoded(folder), np.arange(8))
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        model = decoder.load(folder, dtype)
        layers = lora.apply(model, "all-linear", 8, 16, 0.0, seed=5)
        assert {layer.lora_a.dtype for layer in layers.values()} == {torch.float32}
        loss, _ = cross_entropy(model(batch), model.head, batch.targets)
        loss.backward()
        assert all(layer.lora_b.grad is not None for layer in layers.values())
        losses.append(loss.item() / len(batch.targets))
    assert losses[1] == pytest.approx(losses[0], abs=0.02)
    assert losses[1] != losses[0]


def test_missing_module_names_those_that_are_there(tmp_path: Path) -> None:
    model = decoder.load(material.checkpoint(tmp_path / "m"))
    with pytest.raises(UserError, match=r"no module 'query'.*q_proj"):
        lora.apply(model, ["q_proj", "query"], 8, 16, 0.0, seed=0)


def test_unreadable_checkpoints(tmp_path: Path) -> None:
    folder = material.checkpoint(tmp_path / "m")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="truncated"):
        decoder.load(folder)
    weights.unlink()
    with pytest.raises(UserError, match="no safetensors file"):
        decoder.load(folder)
    weights.write_bytes(whole)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(UserError, match=r"no weight model\.layers\.2"):
        decoder.load(folder)
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 96}))
    with pytest.raises(UserError, match="has shape"):
        decoder.load(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"no readable config\.json"):
        decoder.load(folder)
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "gpt2"}))
    with pytest.raises(UserError, match="architecture"):
        decoder.load(folder)
