"""bfloat16: what is computed in it, that both ways of multiplying agree, and whole runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.adapters import material
from tests.adapters.test_train_adapter import KilledError, configuration, contents
from zpdbench import study
from zpdbench.adapters import batches, decoder, encoding, loop, lora, products, train_adapter
from zpdbench.adapters.loss import cross_entropy


@pytest.fixture(params=[False, True], ids=["widened", "native"])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    """Both ways on any machine: slow ones have the arithmetic too."""
    monkeypatch.setattr(products, "native", lambda device: request.param)
    yield request.param


def batch_of(folder: Path, n: int = 8) -> decoder.Packed:
    frame = material.examples(n)
    tokens = encoding.Encoder(folder).encode(
        frame["prompt"].to_list(), frame["response"].to_list(), 256
    )
    return batches.pack(tokens, np.arange(n))


def trained_once(
    folder: Path, dtype: torch.dtype, **options: Any
) -> tuple[float, dict[str, torch.Tensor], dict[str, lora.LoraLinear]]:
    """(mean loss, the adapters' gradients, the layers) after one pass with B away from zero."""
    batch = batch_of(folder)
    model = decoder.load(folder, dtype)
    layers = lora.apply(model, "all-linear", 8, 16, options.get("dropout", 0.0), seed=5)
    generator = torch.Generator().manual_seed(0)
    for layer in layers.values():
        layer.lora_b.data.normal_(0, 0.05, generator=generator)
    model.train()
    torch.manual_seed(3)
    loss, _ = cross_entropy(model(batch), model.head, batch.targets)
    loss.backward()
    gradients: dict[str, torch.Tensor] = {}
    for name, layer in layers.items():
        assert layer.lora_a.grad is not None and layer.lora_b.grad is not None
        gradients |= {f"{name}.a": layer.lora_a.grad, f"{name}.b": layer.lora_b.grad}
    return loss.item() / len(batch.targets), gradients, layers


def alike(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """Smallest cosine between gradients of one name."""
    return min(
        float(torch.nn.functional.cosine_similarity(one[n].flatten(), other[n].flatten(), dim=0))
        for n in one
    )


@pytest.mark.parametrize("kind", ["qwen2", "llama"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_are_those_of_float32_but_for_rounding(
    tmp_path: Path, native: bool, kind: str, dropout: float
) -> None:
    folder = material.checkpoint(tmp_path / "m", kind)
    exact, expected, _ = trained_once(folder, torch.float32, dropout=dropout)
    loss, gradients, _ = trained_once(folder, torch.bfloat16, dropout=dropout)
    assert {g.dtype for g in gradients.values()} == {torch.float32}
    assert loss == pytest.approx(exact, rel=5e-3) and loss != exact
    assert alike(expected, gradients) > 0.99


def test_loss_is_that_of_autocast(tmp_path: Path, native: bool) -> None:
    from transformers import AutoModelForCausalLM

    folder = material.checkpoint(tmp_path / "m")
    batch = batch_of(folder, 1)
    model = decoder.load(folder, torch.bfloat16)
    ours, _ = cross_entropy(model(batch), model.head, batch.targets)
    peer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        logits = peer(input_ids=batch.ids[None]).logits[0, batch.select]
    theirs = torch.nn.functional.cross_entropy(logits.float(), batch.targets, reduction="sum")
    assert ours.item() == pytest.approx(theirs.item(), rel=5e-3)


def test_what_is_saved_for_backward_is_bfloat16_and_shared(tmp_path: Path, native: bool) -> None:
    folder = material.checkpoint(tmp_path / "m")
    saved: dict[str, set[int]] = {}
    seen: list[tuple[int, torch.dtype, tuple[int, ...]]] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        seen.append((tensor.data_ptr(), tensor.dtype, tuple(tensor.shape)))
        return tensor

    batch = batch_of(folder)
    model = decoder.load(folder, torch.bfloat16)
    lora.apply(model, ["q_proj", "k_proj", "v_proj"], 8, 16, 0.0, seed=5)
    weights = {p.data_ptr() for p in model.parameters() if p.dtype == torch.bfloat16}
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        model(batch)
    tokens = len(batch.ids)
    hidden = model.shape.hidden_size
    for pointer, dtype, shape in seen:
        if shape == (tokens, hidden) and dtype == torch.bfloat16:
            saved.setdefault("inputs", set()).add(pointer)
        wide = {tuple(p.shape) for p in model.parameters() if p.data_ptr() in weights}
        assert dtype == torch.bfloat16 or shape not in wide, "a widened weight outlives its product"
    inputs = [p for p, d, s in seen if d == torch.bfloat16 and s == (tokens, hidden)]
    assert max(inputs.count(p) for p in set(inputs)) >= 3, "q, k and v read one rounded input"


def test_the_projection_on_the_vocabulary(tmp_path: Path, native: bool) -> None:
    for kind in ("qwen2", "llama"):  # tied and not
        model = decoder.load(material.checkpoint(tmp_path / kind, kind), torch.bfloat16)
        assert model.head.dtype == (torch.bfloat16 if native else torch.float32)
        embedding = model.model.embed_tokens.weight
        assert embedding.dtype == torch.float32
        if model.shape.tied:
            assert torch.equal(model.head, embedding.to(model.head.dtype))
            assert (model.head is embedding) != native
    model = decoder.load(tmp_path / "qwen2", torch.float32)
    assert model.head is model.model.embed_tokens.weight


def test_a_run_in_bfloat16_and_one_taken_up_again_end_in_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    monkeypatch.setenv("ZPDBENCH_CACHE", str(tmp_path / "cache"))
    material.checkpoint(tmp_path / "m")
    material.examples(150).write_parquet(tmp_path / "c.parquet")

    def run(out: str, precision: str = "bfloat16") -> dict[str, bytes]:
        train_adapter.train(
            study.parse(configuration(precision=precision)),
            model="m",
            condition="zpd",
            seed=0,
            checkpoint=tmp_path / "m",
            corpus=tmp_path / "c.parquet",
            out=tmp_path / out,
        )
        return contents(tmp_path / out)

    expected = run("undisturbed")
    weights = "step24/adapter_model.safetensors"
    assert run("float32", "float32")[weights] != expected[weights]
    original = loop.Run._step

    def step(self: loop.Run, rows: Any) -> float:
        if self.progress.step == 19:
            raise KilledError
        return original(self, rows)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Run, "_step", step)
        with pytest.raises(KilledError):
            run("killed")
    assert run("killed") == expected
