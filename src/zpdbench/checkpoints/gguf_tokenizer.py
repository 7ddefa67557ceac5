"""The tokenizer that a GGUF file carries, as files of a checkpoint folder.

transformers rebuilds the vocabulary and the merges; what it leaves out or guesses is said here: how
text is split where its table has no entry (it falls back on GPT-2's in silence), that a whole word
of the vocabulary needs no merges (Llama 3, Tekken), normal forms, the space before a text, and the
tokens put before and after it (without its beginning token Gemma 3 writes nonsense).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from zpdbench.checkpoints.gguf_header import CONTROL, Header

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from tokenizers.pre_tokenizers import PreTokenizer

# Names of tokenizer.ggml.pre; sources are llama.cpp's llama-vocab.cpp and its makers' tokenizers.
_DIGITS = {"starcoder", "smollm", "refact", "codeshell", "exaone", "minerva-7b"}
_GPT2 = {"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "a.x-4.0", "mellum", "exaone4"}
_WORDS_WHOLE = {
    "llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2",
    "tekken",
}  # fmt: skip
_NFC = {"qwen2", "deepseek-r1-qwen", "kormo", "megrez"}
_BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


def texts(header: Header) -> dict[str, str]:
    """File name -> text: tokenizer.json, tokenizer_config.json and the chat template if it has one.

    Args:
        header: a checked one.
    """
    tokenizer = _rebuilt(header)
    names = {name: header.of_tokenizer(f"{key}_token_id") for name, key in _SPECIAL.items()}
    tokens = header.of_tokenizer("tokens")
    special = {f"{n}_token": tokens[i] for n, i in names.items() if i is not None}
    before, after = _added(header)
    _surround(tokenizer, before, after)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special,
        "add_bos_token": before is not None,
        "add_eos_token": after is not None,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": header.of_model("context_length"),
    }
    found = {
        "tokenizer.json": tokenizer.to_str() + "\n",
        "tokenizer_config.json": json.dumps(config, indent=1, sort_keys=True) + "\n",
    }
    if template := header.fields.get("tokenizer.chat_template"):
        found["chat_template.jinja"] = template
    return found


def _rebuilt(header: Header) -> Tokenizer:
    """Vocabulary, merges and special tokens by transformers; the rest as the file means it."""
    from tokenizers import AddedToken, decoders, normalizers, pre_tokenizers
    from transformers.integrations.gguf import GGUF_TOKENIZER_MAPPING, convert_gguf_tokenizer

    told = {
        name: header.fields[f"tokenizer.{key}"]
        for key, name in GGUF_TOKENIZER_MAPPING["tokenizer"].items()
        if f"tokenizer.{key}" in header.fields
    }
    tokenizer, _ = convert_gguf_tokenizer(header.architecture, told)
    tokens = header.of_tokenizer("tokens")
    tokenizer = _without_others(tokenizer, len(tokens))
    if told["tokenizer_type"] == "gpt2":
        split = header.split
        assert split is not None, "a checked header says it"
        tokenizer.pre_tokenizer = _splitter(split)
        tokenizer.normalizer = normalizers.NFC() if split in _NFC else None
        tokenizer.decoder = decoders.ByteLevel()
        tokenizer.model.ignore_merges = split in _WORDS_WHOLE
    elif not (header.of_tokenizer("add_space_prefix", True) or "gemma" in header.architecture):
        tokenizer.normalizer = None  # Phi-3's puts the space there
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never", split=False)
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
        )
    if (unknown := header.of_tokenizer("unknown_token_id")) is not None:
        tokenizer.model.unk_token = tokens[unknown]
    # Control tokens that transformers leaves to be cut into pieces.
    kinds = header.of_tokenizer("token_type") or []
    left = [t for t, k in zip(tokens, kinds, strict=False) if k == CONTROL]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in left])
    return tokenizer


def _without_others(tokenizer: Tokenizer, size: int) -> Tokenizer:
    """Without the tokens that transformers adds behind the file's `size`: no model embeds them."""
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = [t for t in content["added_tokens"] if t["id"] < size]
    return type(tokenizer).from_str(json.dumps(content))


def _splitter(name: str) -> PreTokenizer:
    """How text is cut into words before bytes are merged, by the name that GGUF has for it."""
    from tokenizers import Regex, pre_tokenizers
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS

    gpt2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name in _GPT2:
        return gpt2
    if name in _DIGITS:
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), gpt2])
    if name == "falcon":
        return pre_tokenizers.Sequence(
            [
                pre_tokenizers.Punctuation(behavior="contiguous"),
                gpt2,
                pre_tokenizers.Digits(individual_digits=False),
                pre_tokenizers.Split(Regex("[0-9][0-9][0-9]"), behavior="isolated"),
            ]
        )
    own = {"bloom": _BLOOM, "stablelm2": GGUF_PRE_TOKENIZER_SPLITS["qwen2"]}
    pattern = own.get(name) or GGUF_PRE_TOKENIZER_SPLITS[name]
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _added(header: Header) -> tuple[int | None, int | None]:
    """Ids put before and after a text; where the file does not say, as llama.cpp has them."""
    usual = header.of_tokenizer("model") == "llama" or header.split in _WORDS_WHOLE
    first, last = header.of_tokenizer("bos_token_id"), header.of_tokenizer("eos_token_id")
    return (
        first if header.of_tokenizer("add_bos_token", usual) else None,
        last if header.of_tokenizer("add_eos_token", False) else None,
    )


def _surround(tokenizer: Tokenizer, before: int | None, after: int | None) -> None:
    from tokenizers import processors

    ids = [i for i in (before, after) if i is not None]
    names: dict[int, Any] = {i: tokenizer.id_to_token(i) for i in ids}
    first = [names[before]] if before is not None else []
    last = [names[after]] if after is not None else []
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*first, "$A", *last],
        pair=[*first, "$A", *last, *(f"{t}:1" for t in first), "$B:1", *(f"{t}:1" for t in last)],
        special_tokens=[(name, i) for i, name in names.items()],
    )
