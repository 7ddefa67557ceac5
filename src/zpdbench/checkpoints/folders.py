"""Checkpoint folders in Hugging Face's layout: what must be there before anything is loaded."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zpdbench.errors import UserError
from zpdbench.text.tokenizer import Tokenizer

SMALLEST_HEAD = 32
"""vLLM on CPU answers wrongly or not at all with smaller heads."""

_DTYPE_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16,
    "I16": 16, "U16": 16, "I8": 8, "U8": 8, "BOOL": 8, "F8_E4M3": 8, "F8_E5M2": 8,
}  # fmt: skip
_FLOATS = ("F64", "F32", "F16", "BF16")
_SIZES = ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
_WRAPPERS = ("module.", "_orig_mod.", "base_model.", "_fsdp_wrapped_module.")
"""What a training loop's wrappers put before the names of the weights they save."""
_PLAIN = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3_text", "phi3", "olmo2")
"""Architectures whose weights are `model.` (embed_tokens, layers, norm) and `lm_head.weight`."""
_EMBEDDINGS = (
    "model.embed_tokens.weight", "transformer.wte.weight", "gpt_neox.embed_in.weight",
    "model.decoder.embed_tokens.weight", "transformer.word_embeddings.weight",
)  # fmt: skip
_KEPT = (".safetensors", ".safetensors.index.json")
_KEPT_NAMES = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja", "chat_template.json",
)  # fmt: skip


def kept_files(folder: Path) -> list[Path]:
    """The files of a checkpoint folder that matter, sorted by name."""
    return sorted(
        p
        for p in folder.iterdir()
        if p.is_file() and (p.name in _KEPT_NAMES or p.name.endswith(_KEPT))
    )


def read_header(path: Path) -> dict[str, Any]:
    """The header of a safetensors file: tensor name -> dtype, shape, data_offsets.

    Format: 8 bytes little-endian header length, that much JSON, then the tensors' bytes.

    Raises:
        UserError: no such header, or the file is shorter or longer than the header says.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as handle:
            (length,) = struct.unpack("<Q", handle.read(8))
            if length > size - 8:
                raise ValueError
            header = json.loads(handle.read(length))
        tensors = {k: v for k, v in header.items() if k != "__metadata__"}
        end = max((v["data_offsets"][1] for v in tensors.values()), default=0)
        for name, value in tensors.items():
            count = 1
            for extent in value["shape"]:
                count *= extent
            begin, stop = value["data_offsets"]
            bits = _DTYPE_BITS.get(value["dtype"])
            if bits and (stop - begin) * 8 != count * bits:
                raise UserError(
                    f"tensor {name} has not the bytes of its shape",
                    where=str(path),
                    fix="get the file again",
                )
    except (struct.error, ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            "no readable safetensors header (truncated, or another format)",
            where=str(path),
            fix="get the file again",
        ) from error
    if size != 8 + length + end:
        raise UserError(
            f"has {size} bytes where its header says {8 + length + end} (truncated?)",
            where=str(path),
            fix="get the file again",
        )
    return tensors


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a decoder model.

    Raises:
        UserError: missing, no JSON object, without what every decoder has, or heads too small.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
        if not isinstance(config, dict):
            raise ValueError
    except OSError as error:
        raise UserError(
            "no readable config.json", where=str(path), fix="give a folder in Hugging Face's layout"
        ) from error
    except ValueError as error:
        raise UserError("is no JSON object", where=str(path), fix="get the file again") from error
    for key in ("model_type", *_SIZES):
        if key not in config:
            raise UserError(f"has no {key!r}", where=str(path), fix="give a decoder-only model")
        if key in _SIZES and not (isinstance(config[key], int) and config[key] > 0):
            raise UserError(
                f"{key}: {config[key]!r} is no size", where=str(path), fix="get the file again"
            )
    if config.get("quantization_config"):
        raise UserError(
            "its weights are quantised, which are neither trained here nor made deeper",
            where=str(path),
            fix="give the model as it was before it was quantised",
        )
    if "auto_map" in config:
        raise UserError(
            "needs code from the checkpoint, which is never run",
            where=str(path),
            fix="use a model whose architecture transformers and vLLM know",
        )
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    if head < SMALLEST_HEAD:
        raise UserError(
            f"heads of size {head}; the engine needs {SMALLEST_HEAD} or more",
            where=str(path),
            fix="use fewer heads or another model",
        )
    return config


def check(folder: Path) -> dict[str, Any]:
    """Check a folder (config, weights whole, tokenizer fits) and return its config.json.

    What is checked is what is loaded: the trainer and transformers take every *.safetensors file
    or one by its name, vLLM those of the index.

    Raises:
        UserError: the first thing that is wrong.
    """
    if not folder.is_dir():
        raise UserError("is no folder", where=str(folder), fix="mend `path` in the configuration")
    config = read_config(folder)
    rows = _check_weights(folder, config, _read_weights(folder))
    check_tokenizer(folder, rows)
    return config


def _read_weights(folder: Path) -> dict[str, Any]:
    """Tensor name -> what its file's header says, over the files that the index names.

    Raises:
        UserError: one of them is missing or damaged, or other weights lie beside them.
    """
    index = folder / "model.safetensors.index.json"
    listed: dict[str, str] | None = None
    if index.exists():
        try:
            listed = dict(json.loads(index.read_text("utf-8"))["weight_map"])
            named = list(listed.values())
            if not named or any(Path(n).name != n or not n.endswith(".safetensors") for n in named):
                raise ValueError
        except (ValueError, KeyError, AttributeError, TypeError, OSError) as error:
            raise UserError(
                "is no readable index of weights", where=str(index), fix="get the file again"
            ) from error
    names = ["model.safetensors"] if listed is None else sorted(set(listed.values()))
    tensors: dict[str, Any] = {}
    for name in names:
        path = folder / name
        if not path.is_file():
            pickled = sorted(
                p.name for p in folder.iterdir() if p.suffix in (".bin", ".pt", ".pth")
            )
            raise UserError(
                f"{name} is missing"
                + (f"; {pickled[0]} is a pickle, which can run code" if pickled else ""),
                where=str(folder),
                fix="give the weights as safetensors",
            )
        found = read_header(path)
        if other := sorted(t for t in found if listed is not None and listed.get(t) != name):
            raise UserError(
                f"holds {other[0]}, which the index does not have there",
                where=str(path),
                fix=f"get the file again, or {index.name}",
            )
        tensors |= found
    if lost := sorted(set(listed or ()) - set(tensors)):
        raise UserError(
            f"names {lost[0]}, which is not in its file", where=str(index), fix="get both again"
        )
    # transformers reads an adapter's configuration wherever it lies, and applies it.
    foreign = [*folder.glob("*.safetensors"), *folder.glob("adapter_config.json")]
    if beside := sorted(p.name for p in foreign if p.name not in names):
        raise UserError(
            f"{beside[0]} is no part of the model, whose weights are {names[0]}"
            + (" and its index's" if listed else "")
            + ": which of them is loaded would depend on the program",
            where=str(folder),
            fix="take it out of the folder, or give the folder that it belongs to",
        )
    return tensors


def _check_weights(folder: Path, config: dict[str, Any], tensors: dict[str, Any]) -> int:
    """Check that the weights are those of the configuration; the embedding's rows.

    Raises:
        UserError: quantised, of another model, or under names that nothing looks for.
    """
    plain = config["model_type"] in _PLAIN
    for name, value in sorted(tensors.items()):
        if name.endswith(("weight", "qweight", "weight_packed")) and value["dtype"] not in _FLOATS:
            raise UserError(
                f"{name} is {value['dtype']}: the weights are quantised",
                where=str(folder),
                fix="give the model as it was before it was quantised",
            )
        known = name.startswith("model.") or name.startswith("lm_head.")
        if name.startswith(_WRAPPERS) or (plain and not known):
            raise UserError(
                f"holds {name}, a name under which no {config['model_type']} model looks for it",
                where=str(folder),
                fix="save the model again without what wraps it (save_pretrained)",
            )
    if plain:
        layers = {n.split(".")[2] for n in tensors if n.startswith("model.layers.")}
        if layers != set(map(str, range(config["num_hidden_layers"]))):
            raise UserError(
                f"has the weights of {len(layers)} layers, config.json says "
                f"{config['num_hidden_layers']}",
                where=str(folder),
                fix="put the model's own config.json and weights together",
            )
    table = next((tensors[n] for n in _EMBEDDINGS if n in tensors), None)
    if table is None:
        if plain:
            raise UserError(
                f"has no {_EMBEDDINGS[0]}", where=str(folder), fix="get the weights again"
            )
        return int(config["vocab_size"])
    width = config.get("word_embed_proj_dim") or config["hidden_size"]
    if table["shape"] != [config["vocab_size"], width]:
        raise UserError(
            f"has an embedding of {table['shape']}, config.json says {config['vocab_size']} tokens "
            f"of size {width}",
            where=str(folder),
            fix="put the model's own config.json and weights together",
        )
    return int(table["shape"][0])


def check_tokenizer(folder: Path, rows: int) -> None:
    """Check that a folder's tokenizer can be trained and asked with as it is.

    Args:
        rows: tokens that the model embeds.

    Raises:
        UserError: the first thing that is wrong.
    """
    where = str(folder / "tokenizer.json")
    settings = str(folder / "tokenizer_config.json")
    if not (folder / "tokenizer.json").is_file():
        raise UserError(
            "no tokenizer.json"
            + (" (tokenizer.model alone is not read)" * (folder / "tokenizer.model").is_file()),
            where=str(folder),
            fix="save the model's fast tokenizer there (AutoTokenizer...save_pretrained)",
        )
    tokenizer = Tokenizer(folder)
    vocabulary = tokenizer.backend.get_vocab(with_added_tokens=True)
    token, number = max(vocabulary.items(), key=lambda pair: pair[1])
    if number >= rows:
        raise UserError(
            f"token {token!r} has the id {number}, the model embeds {rows} tokens",
            where=where,
            fix="give the tokenizer that the model was made with, or embed its tokens",
        )
    if tokenizer.after:
        ends = tokenizer.backend.id_to_token(tokenizer.after[0])
        raise UserError(
            f"its post-processor ends every text with {ends!r}, a prompt too",
            where=where,
            fix="take the token behind $A out of post_processor",
        )
    if tokenizer.config.get("add_bos_token") is True and not tokenizer.begin:
        raise UserError(
            "says add_bos_token, and tokenizer.json's post_processor puts no token before a text",
            where=settings,
            fix="put it there, or set add_bos_token to false if the model was trained without",
        )
    decoder = tokenizer.config.get("added_tokens_decoder") or {}
    named = [t.get("content") if isinstance(t, dict) else t for t in decoder.values()]
    own = [tokenizer.special.get(n) for n in ("bos_token", "eos_token")]
    for text in (*own, *named):
        if text is not None and text not in vocabulary:
            raise UserError(
                f"names the token {text!r}, which tokenizer.json does not have",
                where=settings,
                fix="give the two files of one tokenizer",
            )
    if tokenizer.special.get("eos_token") is None:
        raise UserError(
            "names no eos_token",
            where=settings,
            fix="a model must have an end token to be fine-tuned",
        )
    # The template compiles, and answers can be told from prompts.
    assert tokenizer.turn_end
    letters = [tokenizer.encode(f"Answer: {letter}") for letter in "ABCD"]
    if len({tuple(ids) for ids in letters}) < len(letters):
        raise UserError(
            "two of the answers A, B, C and D have the same ids",
            where=where,
            fix="give a tokenizer that tells them apart",
        )


def check_template(folder: Path, chats: Mapping[str, bool]) -> None:
    """Check that the benchmarks that will be asked as chats can be.

    Args:
        chats: their names, and whether an answer is begun for the model (`Study.chats`).

    Raises:
        UserError: the tokenizer has no chat template, or one that leaves no answer open.
    """
    tokenizer = Tokenizer(folder)
    if chats and tokenizer.template is None:
        raise UserError(
            f"has no chat template, by which {', '.join(chats)} will be asked",
            where=str(folder),
            fix="set apply_chat_template: false, for all or in the benchmark's section",
        )
    if any(chats.values()):
        turns = (("user", "question"), ("assistant", "answer"))
        tokenizer.ask([{"role": role, "content": content} for role, content in turns])
