"""What an engine says is what its tokens spell behind the prompt, on five kinds of tokenizer.

Each engine is made to generate the ids of known texts: HumanEval's reference solutions, and texts
that begin with a space, hold a stop string or a special token, or end within a character.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import tokenizer_kinds as kinds
from zpdbench.engines import Answer, Request, Settings, open_engine
from zpdbench.engines.tokens import Tokens

OWN = [
    ("def f(x):\n", "    return x % 1.0\n\n", ()),
    ("Question: how many?\nAnswer:", " 3 + 4 = 7 words", (" words",)),
    ("질문: 학교?\n답:", " 학교에 갔다. 🦊", ()),
    ("The quick", " brown fox\n\nclass A", ("\n\nclass", " zebra")),
]
Script = dict[tuple[int, ...], list[int]]


@pytest.fixture(params=[8, pytest.param(164, marks=pytest.mark.slow)])
def docs(request: pytest.FixtureRequest, data_dir: Path) -> list[dict[str, Any]]:
    """HumanEval's problems, the shortest solutions first."""
    with gzip.open(data_dir / "humaneval/HumanEval.jsonl.gz", "rt", encoding="utf-8") as lines:
        found = sorted(map(json.loads, lines), key=lambda d: len(d["canonical_solution"]))
    return found[: request.param]


@pytest.fixture(scope="module", params=kinds.KINDS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of one layer that embeds the kind's tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = kinds.save(tmp_path_factory.mktemp("s") / request.param, request.param)
    tokens = Tokens(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokens.tokenizer.backend.get_vocab_size(),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=2048,
        eos_token_id=min(tokens.end_ids),
    )
    LlamaForCausalLM(config).float().save_pretrained(folder)
    return folder


def _behind(tokens: Tokens, ids: list[int], prompt: str, text: str) -> list[int]:
    """The ids by which a model would say a text behind a prompt."""
    whole = tokens.encode(prompt + text)
    if whole[: len(ids)] == ids:
        return whole[len(ids) :]
    return tokens.tokenizer.continued(ids, text)


def _asked(tokens: Tokens, docs: list[dict[str, Any]]) -> list[tuple[Request, list[int], str]]:
    """(request, the ids that are to be generated, the text that is right)."""
    texts = list(OWN)
    texts += [(d["prompt"], d["canonical_solution"], ("\nclass", "\ndef")) for d in docs]
    asked = []
    for prompt, text, stop in texts:
        ids = tokens.encode(prompt)
        made = _behind(tokens, ids, prompt, text)
        right = text[: min((text.index(s) for s in stop if s in text), default=len(text))]
        asked.append((Request(tuple(ids), max_tokens=len(made), stop=stop), made, right))
    special = next(iter(tokens.end_ids))
    other = tokens.tokenizer.backend.token_to_id(
        next(s for s in ("<|im_start|>", "<|end_of_text|>", "<start_of_turn>", "<unk>")
             if tokens.tokenizer.backend.token_to_id(s) is not None)
    )  # fmt: skip
    name = tokens.tokenizer.backend.id_to_token(other)
    ids = tokens.encode("The")
    dog, fox = (_behind(tokens, ids, "The", word) for word in (" dog", " 🦊"))
    asked += [
        (Request((*ids, ids[-1]), max_tokens=9, stop=(name,)), [*dog, other, *dog], " dog"),
        (Request((*ids, *dog), max_tokens=9), [*dog, special, *dog], " dog"),
    ]
    asked.append((Request((*dog, *ids), max_tokens=len(fox) - 1), fox[:-1], " "))
    return asked


def _check(asked: list[tuple[Request, list[int], str]], answers: dict[int, Answer]) -> None:
    for number, (request, made, right) in enumerate(asked):
        answer = answers[number]
        assert answer.text == right, request
        assert answer.token_ids == tuple(made[: len(answer.token_ids)])
        ended = len(answer.token_ids) < len(made) or any(s in OWN[1][1] for s in request.stop)
        assert answer.finish_reason == "stop" or not ended


def test_transformers(
    checkpoint: Path, docs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from zpdbench.engines import transformers_engine

    engine: Any = open_engine("transformers", checkpoint, Settings())
    asked = _asked(engine.tokens, docs)
    left: Script = {request.prompt: list(made) for request, made, _ in asked}
    monkeypatch.setattr(
        transformers_engine, "_choose", lambda logits, request, _: left[request.prompt].pop(0)
    )
    _check(asked, dict(engine.ask([(n, r) for n, (r, *_) in enumerate(asked)])))
    # It stopped where the text ended, and generated nothing beyond.
    assert any(left.values())


def test_vllm(
    checkpoint: Path, docs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vllm")
    from zpdbench.engines.forced import KEY

    engine: Any = open_engine(
        "vllm", checkpoint, Settings(max_model_len=2048, options={"lora": False})
    )
    asked = _asked(engine.tokens, docs)
    made = {request.prompt: ids for request, ids, _ in asked}
    own: dict[tuple[int, ...], str] = {}
    parts, answer = engine._parts, engine._answer

    def forced(request: Request) -> Any:
        for part, params, prompt in parts(request):
            params.extra_args = {KEY: list(made[prompt])}
            yield part, params, prompt

    def heard(group: Any) -> Answer:
        own[group.request.prompt] = group.results[None].text
        return answer(group)

    monkeypatch.setattr(engine, "_parts", forced)
    monkeypatch.setattr(engine, "_answer", heard)
    answers = dict(engine.ask([(n, r) for n, (r, *_) in enumerate(asked)]))
    _check(asked, answers)
    for number, (request, *_) in enumerate(asked):
        assert own[request.prompt] == answers[number].text, "vLLM's own text"
    engine.close()


@pytest.mark.parametrize("ids", [True, False])
def test_openai(
    checkpoint: Path, docs: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, ids: bool
) -> None:
    """A server that sends ids, as vLLM's does, and one that sends its text, taken as it is."""
    from zpdbench.engines import openai_engine

    monkeypatch.setattr(openai_engine, "_client", lambda _: None)
    monkeypatch.setattr(openai_engine, "_version", lambda _: "vllm 0" if ids else None)
    served = openai_engine._Served("m", None, "")
    monkeypatch.setattr(openai_engine, "_base_model", lambda *_: served)
    engine: Any = open_engine("openai", checkpoint, Settings(base_url="http://localhost/v1"))
    asked = _asked(engine.tokens, docs)
    made = {r.prompt: m for r, m, _ in asked}
    right = {r.prompt: t for r, _, t in asked}
    sent: list[dict[str, Any]] = []

    def complete(request: Request, body: dict[str, Any]) -> dict[str, Any]:
        sent.append(body)
        if ids:
            return {"token_ids": made[request.prompt], "text": "?", "finish_reason": "length"}
        return {"text": right[request.prompt], "finish_reason": "length"}

    monkeypatch.setattr(engine, "_complete", complete)
    answers = dict(engine.ask([(n, r) for n, (r, *_) in enumerate(asked)]))
    for number, (request, ids_made, text) in enumerate(asked):
        assert answers[number].text == text
        if not ids and text not in ("", " "):
            assert engine.tokens.tokenizer.spell(request.prompt, answers[number].token_ids) == text
            assert len(answers[number].token_ids) <= len(ids_made) + 2
    if ids:
        stops = {tuple(b["stop_token_ids"]) for b in sent}
        assert len(stops) == 2, "a stop string that is a special token is a stop id"


def test_a_server_that_reads_the_vocabulary_otherwise_is_refused(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zpdbench.engines import openai_engine
    from zpdbench.errors import UserError

    monkeypatch.setattr(openai_engine, "_client", lambda _: None)
    monkeypatch.setattr(openai_engine, "_version", lambda _: "vllm 0")
    served = openai_engine._Served("m", None, "")
    monkeypatch.setattr(openai_engine, "_base_model", lambda *_: served)
    engine: Any = open_engine("openai", checkpoint, Settings(base_url="http://localhost/v1"))
    prompt = tuple(engine.tokens.encode("The quick"))
    made = _behind(engine.tokens, list(prompt), "The quick", " brown fox")
    said = {"token_ids": made, "text": " brown", "finish_reason": "stop", "stop_reason": "Ġfox"}
    complete: Callable[..., Any] = lambda *_: said  # noqa: E731
    monkeypatch.setattr(engine, "_complete", complete)
    with pytest.raises(UserError, match="does not spell"):
        dict(engine.ask([(0, Request(prompt, max_tokens=9, stop=("Ġfox", "fox")))]))
