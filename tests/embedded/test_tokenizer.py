"""The mini models' tokenizer is the same for everyone who opens it."""

from __future__ import annotations

from pathlib import Path

import pytest

from zpdbench import embedded
from zpdbench.embedded import tokenizer as bpe


@pytest.fixture(scope="module")
def trained():
    return bpe.train(embedded.tokenizer_texts())


def test_training_is_deterministic(trained) -> None:
    assert bpe.train(embedded.tokenizer_texts()).to_str() == trained.to_str()


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_transformers_opens_it_with_the_same_ids(trained, architecture, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, LlamaConfig, Qwen2Config

    {"qwen2": Qwen2Config, "llama": LlamaConfig}[architecture]().save_pretrained(tmp_path)
    bpe.save(trained, tmp_path, 512)
    opened = AutoTokenizer.from_pretrained(tmp_path)
    assert (opened.eos_token, opened.pad_token) == (bpe.END, bpe.PAD)
    for row in embedded.examples(300):
        given, learnt = bpe.conversation(row["prompt"], row["response"])
        user = {"role": "user", "content": row["prompt"]}
        assistant = {"role": "assistant", "content": row["response"]}
        assert opened.apply_chat_template([user, assistant], tokenize=False) == given + learnt
        assert (
            opened.apply_chat_template([user], tokenize=False, add_generation_prompt=True) == given
        )
        ids = opened(given + learnt)["input_ids"]
        # No merge across the prompt's end, and the text comes back.
        assert ids == trained.encode(given).ids + trained.encode(learnt).ids
        assert opened.decode(ids) == given + learnt


def test_a_system_message_stands_before_the_users_words(trained, tmp_path: Path) -> None:
    from transformers import AutoTokenizer, Qwen2Config

    Qwen2Config().save_pretrained(tmp_path)
    bpe.save(trained, tmp_path, 512)
    opened = AutoTokenizer.from_pretrained(tmp_path)
    apart = [{"role": "system", "content": "About birds.\n\n"}, {"role": "user", "content": "Why?"}]
    joined = [{"role": "user", "content": "About birds.\n\nWhy?"}]
    assert opened.apply_chat_template(apart, tokenize=False) == opened.apply_chat_template(
        joined, tokenize=False
    )


def test_a_digit_is_a_token(trained) -> None:
    assert trained.encode("13+5=18").tokens == ["1", "3", "+", "5", "=", "1", "8"]


def test_everything_asked_fits_a_short_context(trained) -> None:
    lengths = [
        sum(len(trained.encode(part).ids) for part in bpe.conversation(r["prompt"], r["response"]))
        for r in embedded.examples(2000)
    ]
    assert max(lengths) <= 192
