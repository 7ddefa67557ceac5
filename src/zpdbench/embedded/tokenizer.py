"""The mini models' tokenizer: byte-level BPE on their own text, with a chat template."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from zpdbench import files

if TYPE_CHECKING:
    from tokenizers import Tokenizer

VOCABULARY = 1600
PAD, USER, ASSISTANT, END = "<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"
SPECIAL = (PAD, USER, ASSISTANT, END)

# One special token on each side of a message: nothing can merge across the prompt's end. A system
# message stands before the first user's words, as MMLU's description does without a template.
CHAT_TEMPLATE = (
    "{%- set ns = namespace(system='') -%}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}{%- set ns.system = message['content'] -%}"
    "{%- else -%}"
    "{{- '<|' + message['role'] + '|>' + ns.system + message['content'] + '<|end|>' -}}"
    "{%- set ns.system = '' -%}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


def conversation(prompt: str, response: str) -> tuple[str, str]:
    """What the chat template makes of a question and its answer: (given, to be learnt)."""
    return f"{USER}{prompt}{END}{ASSISTANT}", f"{response}{END}"


def train(texts: Iterable[str], vocabulary: int = VOCABULARY) -> Tokenizer:
    """Byte-level BPE with Qwen2's pre-tokenizer: one token a digit.

    A folder with model_type qwen2 is opened as Qwen2Tokenizer, which brings its own
    pre-tokenizer whatever tokenizer.json says; so that one is trained with, for both models.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
    from tokenizers import pre_tokenizers as pre
    from tokenizers.trainers import BpeTrainer
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre.Sequence(
        [
            pre.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False),
            pre.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        initial_alphabet=pre.ByteLevel.alphabet(),
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path, max_tokens: int) -> None:
    """Write tokenizer.json, tokenizer_config.json and chat_template.jinja into `folder`."""
    files.write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=False) + "\n")
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "model_max_length": max_tokens,
        "add_bos_token": False,
        "bos_token": None,
        "eos_token": END,
        "pad_token": PAD,
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
    }
    files.write_text(
        folder / "tokenizer_config.json", json.dumps(config, indent=1, sort_keys=True) + "\n"
    )
    files.write_text(folder / "chat_template.jinja", CHAT_TEMPLATE)
