"""A random tiny checkpoint and a small corpus, made in a second without transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.trainers import BpeTrainer

from zpdbench import files
from zpdbench.adapters import decoder

SPECIAL = ["<|pad|>", "<|user|>", "<|assistant|>", "<|end|>"]
TEMPLATE = (
    "{%- for m in messages -%}{{- '<|' + m['role'] + '|>' + m['content'] + '<|end|>' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def examples(n: int, seed: int = 0) -> pl.DataFrame:
    """Sums of graded length in two languages, as a corpus table."""
    generator = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        terms = generator.integers(1, 20, size=int(generator.integers(2, 6)))
        korean = i % 2 == 1
        words = " + ".join(str(t) for t in terms)
        prompt = f"{words} 은 얼마입니까?" if korean else f"What is {words}?"
        response, total = [], int(terms[0])
        for term in terms[1:]:
            response.append(f"{total} + {term} = {total + term}.")
            total += int(term)
        rows.append(
            {
                "id": f"x{i:05d}",
                "language": "ko" if korean else "en",
                "source": "sums",
                "prompt": prompt,
                "response": " ".join([*response, f"#### {total}"]),
                "d1": 0.0,
                "d2": float(len(terms)),
                "d3": 0.0,
                "difficulty": (len(terms) - 2 + i / n) / 4,
                "split": "probe" if i % 10 == 0 or i % 10 == 5 else "train",
            }
        )
    return pl.DataFrame(rows)


def tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE, one token a digit, Qwen2's pre-tokenizer."""
    from tokenizers import Regex

    made = Tokenizer(models.BPE())
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=400,
        special_tokens=[AddedToken(s, special=True) for s in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    return made


def config(kind: str, vocabulary: int, **changes: Any) -> dict[str, Any]:
    """config.json of a tiny model of this model_type."""
    common = {
        "architectures": [{"qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}[kind]],
        "model_type": kind,
        "vocab_size": vocabulary,
        "hidden_size": 64,
        "intermediate_size": 160,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "hidden_act": "silu",
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "tie_word_embeddings": kind == "qwen2",
        "use_cache": True,
        "torch_dtype": "float32",
        "bos_token_id": None,
        "eos_token_id": 3,
    }
    return {**common, **changes}


def checkpoint(folder: Path, kind: str = "qwen2", *, chat: bool = True, **changes: Any) -> Path:
    """A random checkpoint in Hugging Face's layout, with its manifest."""
    folder.mkdir(parents=True)
    frame = examples(200, seed=9)
    made = tokenizer(frame["prompt"].to_list() + frame["response"].to_list())
    made.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "PreTrainedTokenizerFast",
                "eos_token": "<|end|>",
                "pad_token": "<|pad|>",
            }
        )
    )
    if chat:
        (folder / "chat_template.jinja").write_text(TEMPLATE)
    written = config(kind, made.get_vocab_size(), **changes)
    (folder / "config.json").write_text(json.dumps(written))
    shape = decoder.read_shape(folder)
    assert shape is not None
    torch.manual_seed(1)
    model = decoder.Decoder(shape)
    for name, value in model.named_parameters():
        value.data.normal_(0.0, 0.08) if "norm" not in name else value.data.fill_(1.0)
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    if shape.tied:
        del state["lm_head.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    files.write_manifest(folder, {"kind": "checkpoint"})
    return folder
