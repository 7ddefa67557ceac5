"""Tiny models of both architectures with four adapters each, and prompts of three kinds.

Two trained ones too, with an adapter each, for the slow tests: random weights tell texts apart
that a trained model's sharper or flatter probabilities might not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import tiny
from tests.checkpoints.test_folders import GGUF
from zpdbench.checkpoints import make_checkpoint
from zpdbench.engines import Adapter, Answer, Request
from zpdbench.engines.adapters import checkpoint_shapes, read_adapter
from zpdbench.study import EmbeddedModel, GgufModel

ARCHITECTURES = ("qwen2", "llama")
ADAPTERS = 4
PROMPTS = 12
TRAINED = ("mini", "smollm2")
TOLERANCE = 1e-4
"""Nats within which log-likelihoods agree."""
RELATIVE = 5e-6
"""And within this share of them: a sentence's is the sum of many tokens' in float32."""


@dataclass(frozen=True)
class Model:
    """A checkpoint folder and its adapters."""

    checkpoint: Path
    adapters: list[Adapter]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Model]:
    """Architecture -> a random model with four random adapters."""
    import torch

    # Tiny models: a second thread only waits for the first.
    torch.set_num_threads(1)
    result = {}
    for architecture in ARCHITECTURES:
        folder = tmp_path_factory.mktemp(architecture)
        checkpoint = tiny.save_checkpoint(folder / "base", architecture)
        shapes = checkpoint_shapes(checkpoint)
        adapters = [
            read_adapter(tiny.save_adapter(folder / f"a{n}", checkpoint, seed=n), shapes, 8)
            for n in range(ADAPTERS)
        ]
        result[architecture] = Model(checkpoint, adapters)
    return result


@pytest.fixture(scope="session", params=TRAINED)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """SmolLM2-135M out of its package, or a mini model after a few steps, with one adapter."""
    folder = tmp_path_factory.mktemp(request.param)
    spec: EmbeddedModel | GgufModel = GgufModel(**GGUF)
    if request.param == "mini":
        spec = EmbeddedModel(
            source="embedded", architecture="qwen2", layers=4, hidden_size=128, steps=20
        )
    checkpoint = folder / "base"
    make_checkpoint.make(request.param, spec, checkpoint, threads=2)
    adapter = tiny.save_adapter(folder / "adapter", checkpoint, seed=0)
    return Model(checkpoint, [read_adapter(adapter, checkpoint_shapes(checkpoint), 8)])


def assert_equal_answers(
    requests: list[tuple[int, Request]], answers: dict[int, Answer], expected: dict[int, Answer]
) -> None:
    """Texts, their tokens and why they end are equal; log-likelihoods to TOLERANCE."""
    assert len(answers) == len(requests)
    for tag, request in requests:
        if request.choices:
            near = pytest.approx(expected[tag].logprobs, abs=TOLERANCE, rel=RELATIVE)
            assert answers[tag].logprobs == near
            continue
        assert answers[tag].text == expected[tag].text
        assert answers[tag].finish_reason == expected[tag].finish_reason
        # An engine may end at a stop string, where the reference generates on.
        count = len(answers[tag].token_ids)
        assert answers[tag].token_ids == expected[tag].token_ids[:count]
    # A model may end at once, but not at every prompt.
    assert any(answers[tag].token_ids for tag, request in requests if not request.choices)


def assert_adapters_act(requests: list[tuple[int, Request]], answers: dict[int, Answer]) -> None:
    """Nobody answers as another does."""
    by_adapter: dict[str, list[Answer]] = {}
    for tag, request in requests:
        name = request.adapter.name if request.adapter else ""
        by_adapter.setdefault(name, []).append(answers[tag])
    assert len({str(a) for a in by_adapter.values()}) == len(by_adapter) > 1


def mixed_requests(model: Model, prompts: int = PROMPTS) -> list[tuple[int, Request]]:
    """Every prompt to the base and to each adapter: text, letters and sentences by turns."""
    from zpdbench.engines.tokens import Tokens

    tokens = Tokens(model.checkpoint)
    requests = []
    for number in range(prompts):
        for kind in ("generate", "letters", "sentences"):
            item = tiny.item(number, kind, interim=True)
            ids, choices = tokens.encode_choices(item.prompt, item.choices)
            for adapter in (None, *model.adapters):
                requests.append(
                    Request(
                        tuple(ids),
                        adapter,
                        choices=tuple(map(tuple, choices)),
                        max_tokens=20 if kind == "generate" else 0,
                        stop=("e", "\n\n") if kind == "generate" else (),
                    )
                )
    return list(enumerate(requests))
