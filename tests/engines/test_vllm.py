"""vLLM against transformers + peft, with base and adapters mixed in one batch."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.engines.conftest import (
    ADAPTERS,
    ARCHITECTURES,
    PROMPTS,
    TOLERANCE,
    Model,
    assert_adapters_act,
    assert_equal_answers,
    mixed_requests,
)
from zpdbench.engines import Answer, Request, Settings, open_engine
from zpdbench.engines.adapters import checkpoint_shapes, read_adapter
from zpdbench.errors import UserError

pytest.importorskip("vllm")


@pytest.fixture(scope="module", params=ARCHITECTURES)
def served(
    request: pytest.FixtureRequest, models: dict[str, Model]
) -> Iterator[tuple[Model, Any, dict[int, Answer]]]:
    """A model, its engine with fewer slots than adapters, and answers to the mixed requests."""
    model = models[request.param]
    engine = open_engine(
        "vllm", model.checkpoint, Settings(max_model_len=128, adapters_in_flight=3)
    )
    yield model, engine, dict(engine.ask(mixed_requests(model)))
    engine.close()


def _on_cpu() -> bool:
    from vllm.platforms import current_platform

    return bool(current_platform.is_cpu())


def reference(model: Model, tokens: Any, requests: list[tuple[int, Request]]) -> dict[int, Answer]:
    """One prompt at a time by peft's model and transformers' own generate."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model.checkpoint, dtype=torch.float32)
    first, *others = model.adapters
    wrapped: Any = PeftModel.from_pretrained(base, first.path, adapter_name=first.name)
    for adapter in others:
        wrapped.load_adapter(adapter.path, adapter_name=adapter.name)
    wrapped.eval()
    answers = {}
    with torch.inference_mode():
        for tag, request in requests:
            if request.adapter:
                wrapped.set_adapter(request.adapter.name)
            with nullcontext() if request.adapter else wrapped.disable_adapter():
                if request.choices:
                    sums = []
                    for choice in request.choices:
                        ids = torch.tensor([[*request.prompt, *choice]])
                        scores = wrapped(input_ids=ids).logits[0].log_softmax(-1)
                        at = range(len(request.prompt) - 1, ids.shape[1] - 1)
                        sums.append(
                            sum(float(scores[i, t]) for i, t in zip(at, choice, strict=True))
                        )
                    answers[tag] = Answer(logprobs=tuple(sums))
                else:
                    ids = torch.tensor([request.prompt])
                    made = wrapped.generate(
                        input_ids=ids,
                        attention_mask=torch.ones_like(ids),
                        do_sample=False,
                        max_new_tokens=request.max_tokens,
                    )[0, len(request.prompt) :].tolist()
                    answers[tag] = Answer(
                        *tokens.finish(request.prompt, made, request.stop, request.max_tokens)
                    )
    return answers


def test_answers_equal_transformers_and_peft(served: tuple[Model, Any, dict[int, Answer]]) -> None:
    model, engine, answers = served
    requests = mixed_requests(model)
    assert len(requests) == PROMPTS * 3 * (ADAPTERS + 1)
    assert_equal_answers(requests, answers, reference(model, engine.tokens, requests))


@pytest.mark.slow
def test_trained_models_answer_alike(trained: Model) -> None:
    engine: Any = open_engine(
        "vllm", trained.checkpoint, Settings(max_model_len=128, adapters_in_flight=1)
    )
    requests = mixed_requests(trained, prompts=4)
    answers = dict(engine.ask(requests))
    assert_equal_answers(requests, answers, reference(trained, engine.tokens, requests))
    assert_adapters_act(requests, answers)
    engine.close()


def test_every_adapter_acts(served: tuple[Model, Any, dict[int, Answer]]) -> None:
    model, _, answers = served
    assert_adapters_act(mixed_requests(model), answers)


def test_answers_do_not_depend_on_the_order(served: tuple[Model, Any, dict[int, Answer]]) -> None:
    model, engine, answers = served
    engine.forget()
    again = dict(engine.ask(reversed(mixed_requests(model))))
    for tag, answer in answers.items():
        assert again[tag].token_ids == answer.token_ids
        assert again[tag].text == answer.text
        # On CPU in float32 to the last bit, whoever is beside it in the batch.
        tolerance = 0.0 if _on_cpu() else TOLERANCE
        assert again[tag].logprobs == pytest.approx(answer.logprobs, abs=tolerance, rel=0)


def test_asked_alone_the_answer_is_the_same(served: tuple[Model, Any, dict[int, Answer]]) -> None:
    model, engine, answers = served
    for tag, request in mixed_requests(model)[:: 3 * (ADAPTERS + 1) + 1]:
        engine.forget()
        ((_, alone),) = list(engine.ask([(tag, request)]))
        assert alone.text == answers[tag].text
        tolerance = 0.0 if _on_cpu() else TOLERANCE
        assert alone.logprobs == pytest.approx(answers[tag].logprobs, abs=tolerance, rel=0)


def test_prefixes_are_computed_once(served: tuple[Model, Any, dict[int, Answer]]) -> None:
    model, engine, _ = served
    prompt = tuple(range(5, 105))
    # Letters, then choices of two tokens, which are scored by forced decoding.
    for choices in (((1,),), ((1, 2), (1, 3))):
        engine.forget()
        before = engine.metrics()["cached_prompt_tokens"]
        asked = [
            (n, Request((*prompt, n + 5), model.adapters[0], choices=choices)) for n in range(4)
        ]
        assert len(dict(engine.ask(asked))) == 4
        assert engine.metrics()["cached_prompt_tokens"] - before >= 3 * 96


def test_metrics_tell_rate_cache_and_load(served: tuple[Model, Any, dict[int, Answer]]) -> None:
    _, engine, _ = served
    before = engine.metrics()
    assert before["load_seconds"] > 0
    engine.forget()
    prompt = tuple(range(5, 105))
    asked = [(n, Request((*prompt, n + 5), max_tokens=4)) for n in range(3)]
    made = sum(len(answer.token_ids) for _, answer in engine.ask(asked))
    after = engine.metrics()
    assert after["load_seconds"] == before["load_seconds"]
    assert after["generated_tokens"] - before["generated_tokens"] == made
    assert after["prompt_tokens"] - before["prompt_tokens"] == 3 * 101
    assert after["cached_prompt_tokens"] - before["cached_prompt_tokens"] >= 2 * 96
    seconds = after["answer_seconds"]
    assert after["tokens_per_second"] == pytest.approx(
        (after["prompt_tokens"] + after["generated_tokens"]) / seconds, rel=1e-3
    )


def test_no_more_adapters_are_let_in_than_leave_a_slot_free(
    served: tuple[Model, Any, dict[int, Answer]], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, engine, _ = served
    lora = engine._engine.vllm_config.lora_config
    assert lora.max_loras == engine.settings.adapters_in_flight + 1
    loaded = engine._engine.model_executor.driver_worker.worker.model_runner.lora_manager
    seen = []
    step = engine._engine.step

    def watched() -> Any:
        outputs = step()
        scheduler = engine._engine.engine_core.engine_core.scheduler
        seen.append({r.lora_request.lora_name for r in scheduler.running if r.lora_request})
        return outputs

    monkeypatch.setattr(engine._engine, "step", watched)
    assert len(list(engine.ask(mixed_requests(model)))) == PROMPTS * 3 * (ADAPTERS + 1)
    assert max(map(len, seen)) == engine.settings.adapters_in_flight < ADAPTERS
    assert len(loaded.list_adapters()) <= lora.max_loras


def test_changed_weights_at_the_same_path_are_another_adapter(
    served: tuple[Model, Any, dict[int, Answer]], tmp_path: Path
) -> None:
    model, engine, _ = served
    shapes = checkpoint_shapes(model.checkpoint)
    folder = tmp_path / "adapter"
    prompt = tuple(range(5, 90))
    found = []
    for source in model.adapters[:2]:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(source.path, folder)
        adapter = read_adapter(folder, shapes, 8)
        choices = ((7,), (8,), (9,))
        (here,) = dict(engine.ask([(0, Request(prompt, adapter, choices=choices))])).values()
        (there,) = dict(engine.ask([(0, Request(prompt, source, choices=choices))])).values()
        assert here.logprobs == pytest.approx(there.logprobs, abs=TOLERANCE)
        found.append(here.logprobs)
    assert found[0] != pytest.approx(found[1], abs=TOLERANCE)


def test_samples_follow_their_seeds(served: tuple[Model, Any, dict[int, Answer]]) -> None:
    model, engine, _ = served
    prompt = tuple(range(5, 25))
    ways = itertools.product((None, model.adapters[0]), (1.0, 0.95), range(6))
    requests = [
        (n, Request(prompt, a, max_tokens=12, temperature=0.8, top_p=p, seed=seed))
        for n, (a, p, seed) in enumerate(ways)
    ]
    first = dict(engine.ask(requests))
    greedy = [(99 + n, Request(tuple(range(5, 30 + n)), max_tokens=9)) for n in range(5)]
    second = dict(engine.ask([*greedy, *reversed(requests)]))
    assert all(second[n].token_ids == first[n].token_ids for n in first)
    assert len({first[n].token_ids for n in range(6)}) > 1


def test_a_cache_that_does_not_fit_is_one_clear_line(models: dict[str, Model]) -> None:
    with pytest.raises(UserError, match="KV cache does not fit") as caught:
        open_engine(
            "vllm", models["qwen2"].checkpoint, Settings(max_model_len=512, kv_cache_gib=1e-4)
        )
    assert "kv_cache_gib" in caught.value.where


def test_a_rank_above_vllms_limit_is_one_clear_line(models: dict[str, Model]) -> None:
    with pytest.raises(UserError, match="limit of 512"):
        open_engine("vllm", models["qwen2"].checkpoint, Settings(max_rank=1024))


def test_a_damaged_checkpoint_is_one_clear_line(tmp_path: Path) -> None:
    folder = tiny.save_checkpoint(tmp_path / "base", "qwen2")
    config = (folder / "config.json").read_text("utf-8")
    (folder / "config.json").write_text(config.replace('"Qwen2ForCausalLM"', '"NoSuchModel"'))
    with pytest.raises(UserError, match="cannot load the checkpoint"):
        open_engine("vllm", folder, Settings(max_model_len=128))
