"""The reference engine against the simplest possible loop, and against vLLM."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engines.conftest import (
    ARCHITECTURES,
    Model,
    assert_adapters_act,
    assert_equal_answers,
    mixed_requests,
)
from tests.engines.test_vllm import reference
from zpdbench.engines import Request, Settings, open_engine
from zpdbench.engines.transformers_engine import _passes
from zpdbench.errors import UserError


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batched_answers_equal_single_ones(models: dict[str, Model], architecture: str) -> None:
    model = models[architecture]
    # Two adapters held at once, so that they come and go.
    engine: Any = open_engine("transformers", model.checkpoint, Settings(adapters_in_flight=2))
    requests = sorted(
        mixed_requests(model, prompts=6),
        key=lambda pair: (pair[1].adapter.name if pair[1].adapter else "", bool(pair[1].choices)),
    )
    answers = dict(engine.ask(requests))
    assert_equal_answers(requests, answers, reference(model, engine.tokens, requests))
    assert engine.metrics()["requests"] == len(requests)
    assert engine.metrics()["tokens_per_second"] > 0
    # Another torch or device gives other last digits, so it is another engine.
    assert engine.name.split()[::2] == ["transformers", "torch", engine.name.split()[-1]]
    engine.close()


@pytest.mark.slow
def test_trained_models_answer_alike(trained: Model) -> None:
    engine: Any = open_engine("transformers", trained.checkpoint, Settings())
    requests = mixed_requests(trained, prompts=4)
    # One of each kind and adapter after the other, as a job asks them.
    requests.sort(key=lambda r: (r[1].adapter.name if r[1].adapter else "", bool(r[1].choices)))
    answers = dict(engine.ask(requests))
    assert_equal_answers(requests, answers, reference(trained, engine.tokens, requests))
    assert_adapters_act(requests, answers)
    engine.close()


def test_choices_that_end_differently_share_a_pass() -> None:
    asked = [Request((1, 2), choices=((5,), (6,), (7, 8), (7, 9))), Request((3,), choices=((5,),))]
    assert list(_passes(asked)) == [
        ((1, 2), 0, 0, [0, 1]),
        ((1, 2, 7), 1, 0, [2, 3]),
        ((3,), 0, 1, [0]),
    ]


def test_samples_follow_their_seeds(models: dict[str, Model]) -> None:
    engine = open_engine("transformers", models["qwen2"].checkpoint, Settings())
    requests = [
        (seed, Request(tuple(range(5, 25)), max_tokens=8, temperature=1.5, top_p=0.9, seed=seed))
        for seed in range(5)
    ]
    first = dict(engine.ask(requests))
    assert dict(engine.ask(reversed(requests))) == first
    assert len({a.token_ids for a in first.values()}) > 1


def test_a_missing_checkpoint_is_one_clear_line(tmp_path: Any) -> None:
    with pytest.raises(UserError, match="tokenizer"):
        open_engine("transformers", tmp_path / "nothing", Settings())
