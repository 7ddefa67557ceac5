"""Small tokenizers of five kinds, whole in every part that decides how text is read and spelled.

Where tests need a large vocabulary there is Mistral's, of Llama 2's kind, in an installed package.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from tests import tiny

BYTES = [f"<0x{number:02X}>" for number in range(256)]
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
TEXT = tiny.TEXT + "\n".join(" " * n + "return x  # 값" for n in (2, 4, 8, 12))


def _byte_level(split: Any, special: list[str], **options: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    return tokenizer


def _regex(pattern: str) -> Any:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level],
    )


def _begins(tokenizer: Tokenizer, token: str) -> Any:
    return processors.TemplateProcessing(
        single=f"{token} $A",
        pair=f"{token} $A {token} $B",
        special_tokens=[(token, tokenizer.token_to_id(token))],
    )


def qwen2() -> tuple[Tokenizer, dict[str, Any]]:
    """Byte-level BPE behind NFC and Qwen2's pattern; nothing begins a text."""
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    tokenizer = _byte_level(
        _regex(PRETOKENIZE_REGEX), ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    )
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer, {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"}


def gpt2() -> tuple[Tokenizer, dict[str, Any]]:
    """GPT-2's byte-level BPE with single digits, as SmolLM2's."""
    split = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer = _byte_level(split, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return tokenizer, {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
    }


def llama3() -> tuple[Tokenizer, dict[str, Any]]:
    """Byte-level BPE that takes whole words without merging; a token begins every text."""
    tokenizer = _byte_level(
        _regex(LLAMA3),
        ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"],
        ignore_merges=True,
    )
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=True), _begins(tokenizer, "<|begin_of_text|>")]
    )
    return tokenizer, {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot_id|>",
    }


def _pieces(special: list[str]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary with bytes, and merges, of a BPE over text with a mark for spaces."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(vocab_size=500, show_progress=False)
    tokenizer.train_from_iterator([line for line in TEXT.split("\n") for _ in range(3)], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    names = [*special, *BYTES, *(n for n in model["vocab"])]
    return {name: number for number, name in enumerate(names)}, [tuple(m) for m in model["merges"]]


def llama2() -> tuple[Tokenizer, dict[str, Any]]:
    """SentencePiece BPE with byte fallback, as converted: a space is put before every text."""
    special = ["<unk>", "<s>", "</s>"]
    vocab, merges = _pieces(special)
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    tokenizer.post_processor = _begins(tokenizer, "<s>")
    return tokenizer, {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }


def gemma() -> tuple[Tokenizer, dict[str, Any]]:
    """Byte fallback too, but no space is put before a text, and none is taken off."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    vocab, merges = _pieces(special)
    tokenizer = Tokenizer(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    tokenizer.post_processor = _begins(tokenizer, "<bos>")
    return tokenizer, {
        "tokenizer_class": "GemmaTokenizer",
        "add_bos_token": True,
        "bos_token": "<bos>",
        "eos_token": "<eos>",
        "unk_token": "<unk>",
    }


def unigram() -> tuple[Tokenizer, dict[str, Any]]:
    """Unigram with byte fallback, words by Metaspace, as llm-jp's."""
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=150, show_progress=False, unk_token="<unk>")
    trained.train_from_iterator([line for line in TEXT.split("\n") for _ in range(3)], trainer)
    pieces = [(p, s) for p, s in json.loads(trained.to_str())["model"]["vocab"] if p != "<unk>"]
    special = ["<unk>", "<s>", "</s>"]
    vocab = [*((t, 0.0) for t in special), *((b, -20.0) for b in BYTES), *pieces]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    tokenizer.post_processor = _begins(tokenizer, "<s>")
    return tokenizer, {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
    }


KINDS: dict[str, Callable[[], tuple[Tokenizer, dict[str, Any]]]] = {
    f.__name__: f for f in (qwen2, gpt2, llama2, unigram, llama3, gemma)
}


def save(folder: Path, kind: str, template: str | None = None, **config: Any) -> Path:
    """Write a kind's tokenizer.json and tokenizer_config.json, and a chat template."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer, named = KINDS[kind]()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({**named, **config}), "utf-8")
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, "utf-8")
    return folder
