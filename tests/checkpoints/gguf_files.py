"""Small random models written as GGUF files, the way llama.cpp's converter writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

TEXTS = [
    "def add(a, b):\n    return a + b  # 12345\n",
    "It's 2026, we'll see: \tthe proof   is in the pudding.\n\n\nNext",
    "근접 발달 영역은 혼자서는 못 하지만 도움을 받으면 할 수 있는 일이다.",
    "naïve café, cafe\u0301 — “quotes” … 1,234,567.89 ½ ４２",
    "안녕 \u1112\u1161\u11ab\u1100\u1173\u11af 🙂",
]
"""English, Korean, composed and decomposed letters, digits, white space, what no vocabulary has."""

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6


def byte_level(split: Any, vocabulary: int = 400) -> dict[str, Any]:
    """A byte-level BPE trained on TEXTS, as fields of a GGUF file; `split` cuts text into words."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 3, trainer)
    tokenizer.add_special_tokens(SPECIAL)
    return _fields(tokenizer, "gpt2", len(SPECIAL))


def sentence_pieces(vocabulary: int = 450) -> dict[str, Any]:
    """A BPE over characters with byte fallback, as SentencePiece has it: scores and no merges."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    first = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=first, show_progress=False, max_token_length=8
    )
    tokenizer.train_from_iterator(TEXTS[:3] * 3, trainer)
    fields = _fields(tokenizer, "llama", 0)
    del fields["merges"]
    tokens = fields["tokens"]
    fields["token_type"] = [UNKNOWN, CONTROL, CONTROL, *[BYTE] * 256]
    fields["token_type"] += [NORMAL] * (len(tokens) - 259)
    fields["scores"] = [0.0] * 259 + [-float(i) for i in range(len(tokens) - 259)]
    fields["ids"] = {"unk": 0, "bos": 1, "eos": 2, "pad": 2}
    return fields


def _fields(tokenizer: Any, kind: str, special: int) -> dict[str, Any]:
    import json

    by_id = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    tokens = [token for token, _ in by_id]
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    end = len(tokens) - special
    return {
        "kind": kind,
        "tokens": tokens,
        "merges": [" ".join(pair) for pair in merges],
        "token_type": [NORMAL] * end + [CONTROL] * special,
        "ids": {"bos": end, "eos": len(tokens) - 1, "pad": end},
        "reference": tokenizer,
    }


def write(
    path: Path,
    model: Any,
    architecture: str,
    words: dict[str, Any] | None,
    *,
    pre: str | None = None,
    further: dict[str, Any] | None = None,
) -> Path:
    """Write a transformers model and a tokenizer's fields as a GGUF file in float32.

    Args:
        words: of `byte_level` or `sentence_pieces`; None: no tokenizer.
        pre: tokenizer.ggml.pre.
        further: more keys, whole names; they stand above what would be written.
    """
    from gguf import GGUFWriter
    from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    config = model.config
    keys: dict[str, Any] = {}
    mapping = GGUF_CONFIG_MAPPING[architecture.replace("moe", "_moe")]
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    for key, name in mapping.items():
        value = rope.get(name) if name == "rope_theta" else getattr(config, name or "", None)
        if value is not None:
            keys[f"{architecture}.{key}"] = value
    if words is not None:
        keys |= {
            "tokenizer.ggml.model": words["kind"],
            "tokenizer.ggml.tokens": words["tokens"],
            "tokenizer.ggml.token_type": words["token_type"],
            "tokenizer.chat_template": TEMPLATE,
        }
        names = {"unk": "unknown", "pad": "padding"}
        keys |= {f"tokenizer.ggml.{names.get(n, n)}_token_id": i for n, i in words["ids"].items()}
        keys |= {f"tokenizer.ggml.{k}": words[k] for k in ("merges", "scores") if k in words}
        if pre:
            keys["tokenizer.ggml.pre"] = pre
    keys |= further or {}
    writer = GGUFWriter(path, architecture)
    for key, value in keys.items():
        _add(writer, key, value)
    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=config.to_dict())
    state = model.state_dict()
    tied = config.tie_word_embeddings
    for gguf, name in get_gguf_hf_weights_map(model, processor).items():
        if "gate_up_exps" in gguf or (tied and gguf == "output.weight"):
            continue  # written as two tensors; not written twice
        if name in state:
            gguf += ".weight" if gguf.endswith("_exps") else ""
            writer.add_tensor(gguf, _as_written(state[name].numpy(), gguf, architecture, config))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: Any, key: str, value: Any) -> None:
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def _as_written(value: np.ndarray, name: str, architecture: str, config: Any) -> np.ndarray:
    """What llama.cpp's converter makes of a weight (convert_hf_to_gguf.py)."""
    if architecture == "llama" and (".attn_q." in name or ".attn_k." in name):
        heads = config.num_attention_heads if ".attn_q." in name else config.num_key_value_heads
        pairs = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
        value = pairs.swapaxes(1, 2).reshape(value.shape)
    if architecture in ("gemma2", "gemma3", "nemotron") and name.endswith("norm.weight"):
        value = value + 1
    if architecture == "bloom" and ".attn_qkv." in name:
        parts = value.reshape(config.n_head, 3, -1, *value.shape[1:])
        value = np.concatenate([parts[:, i].reshape(-1, *value.shape[1:]) for i in range(3)])
    if name.endswith(("ffn_gate_exps.weight", "ffn_up_exps.weight")):
        half = value.shape[1] // 2
        value = value[:, :half] if "gate" in name else value[:, half:]
    if name.endswith("ffn_gate_inp_shexp.weight"):
        value = value[0]
    if name.endswith("shortconv.conv.weight"):
        value = value[:, 0]
    turned = ("attn_qkv.weight", "attn_output.weight", "ffn_up.weight", "ffn_down.weight")
    if architecture == "gpt2" and name.endswith(turned):
        value = value.T
    return np.ascontiguousarray(value)
