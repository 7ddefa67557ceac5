"""Tiny models of both architectures with four adapters each, and prompts of three kinds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests import tiny
from zpdbench.engines import Adapter, Request
from zpdbench.engines.adapters import checkpoint_shapes, read_adapter

ARCHITECTURES = ("qwen2", "llama")
ADAPTERS = 4
PROMPTS = 12


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
