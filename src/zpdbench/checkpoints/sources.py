"""Base models that exist already: in an installed package, a GGUF file or a folder."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zpdbench import files
from zpdbench.checkpoints import folders
from zpdbench.errors import UserError
from zpdbench.study import GgufModel, LocalModel

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def locate(spec: GgufModel) -> Path:
    """The GGUF file inside an installed package, its hash checked. The package is not imported.

    Raises:
        UserError: the package or the file is not there, or it is another file.
    """
    found = importlib.util.find_spec(spec.package)
    if found is None or not found.submodule_search_locations:
        raise UserError(
            f"the Python package {spec.package!r} is not installed",
            fix=f"install {spec.package.replace('_', '-')} (envs/train.in names it)",
        )
    path = Path(next(iter(found.submodule_search_locations))) / spec.file
    if not path.is_file():
        there = sorted(p.name for p in path.parent.glob("*.gguf"))
        raise UserError(
            "no such file in the package",
            where=str(path),
            fix=f"it has {', '.join(there) or 'no GGUF file'}",
        )
    digest = files.sha256_file(path)
    if digest != spec.sha256:
        raise UserError(
            f"its SHA-256 is {digest}, the configuration says {spec.sha256}",
            where=str(path),
            fix="install the version that envs/train.txt locks, or correct the configuration",
        )
    return path


def load_gguf(path: Path) -> PreTrainedModel:
    """A Llama model out of a GGUF file, dequantised to float32.

    A model loaded from GGUF cannot be saved as it is: its weights are copied into a fresh one.

    Raises:
        UserError: unreadable, or another architecture.
    """
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

    try:
        loaded = AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        )
    except (ValueError, OSError, KeyError) as error:
        raise UserError(
            f"no readable GGUF model ({' '.join(str(error).split())[:160]})",
            where=str(path),
            fix="get the file again, or install its package again",
        ) from error
    if loaded.config.model_type != "llama":
        raise UserError(
            f"architecture {loaded.config.model_type}; only llama is converted from GGUF",
            where=str(path),
            fix="give the model as a safetensors folder (source: local)",
        )
    fields = loaded.config.to_dict()
    for name in ("quantization_config", "_name_or_path", "dtype", "architectures"):
        fields.pop(name, None)
    model = LlamaForCausalLM(LlamaConfig(**fields, dtype="float32")).float()
    model.load_state_dict(loaded.state_dict())
    model.generation_config.do_sample = False
    return model


def gguf_tokenizer(path: Path) -> dict[str, str]:
    """File name -> text of the tokenizer that a GGUF file carries.

    Byte-level BPE whose pre-tokenizer GGUF names only; SmolLM's splits digits one by one, then
    as GPT-2 does (llama.cpp, `LLAMA_VOCAB_PRE_TYPE_SMOLLM`).

    Raises:
        UserError: another kind of tokenizer.
    """
    import json

    from gguf import GGUFReader
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    fields = GGUFReader(path).fields

    def field(name: str) -> Any:
        return fields[f"tokenizer.{name}"].contents() if f"tokenizer.{name}" in fields else None

    if (field("ggml.model"), field("ggml.pre")) != ("gpt2", "smollm"):
        raise UserError(
            f"tokenizer {field('ggml.model')}/{field('ggml.pre')} is not converted",
            where=str(path),
            fix="give the model as a safetensors folder (source: local)",
        )
    tokens: list[str] = field("ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in field("ggml.merges")]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3  # GGUF's token type of special tokens
    special = [t for t, k in zip(tokens, field("ggml.token_type"), strict=True) if k == control]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": tokens[field("ggml.bos_token_id")],
        "eos_token": tokens[field("ggml.eos_token_id")],
        "pad_token": tokens[field("ggml.padding_token_id")],
        "unk_token": tokens[field("ggml.unknown_token_id")],
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": fields["llama.context_length"].contents(),
    }
    texts = {
        "tokenizer.json": tokenizer.to_str() + "\n",
        "tokenizer_config.json": json.dumps(config, indent=1, sort_keys=True) + "\n",
    }
    if field("chat_template"):
        texts["chat_template.jinja"] = field("chat_template")
    return texts


def copy_folder(folder: Path, out: Path) -> None:
    """Copy a checked folder's files; links (the hub's cache has them) become files."""
    for path in folders.kept_files(folder):
        shutil.copyfile(path, out / path.name)


def load_folder(folder: Path) -> PreTrainedModel:
    """The model of a checked folder, in the precision it is stored in.

    Raises:
        UserError: the weights do not fit the configuration, or transformers does not know it.
    """
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            folder, local_files_only=True, use_safetensors=True
        )
    except (ValueError, OSError, KeyError, RuntimeError) as error:
        raise UserError(
            f"cannot be loaded ({str(error).splitlines()[0]})",
            where=str(folder),
            fix="use a decoder-only model that transformers knows",
        ) from error


def local_folder(spec: LocalModel) -> Path:
    """The folder (or GGUF file) of a local model; `~` is the home folder."""
    return Path(spec.path).expanduser()
