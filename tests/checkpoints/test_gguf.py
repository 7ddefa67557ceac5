"""A GGUF file becomes the model and the tokenizer that it holds, or is refused in one line."""

from __future__ import annotations

import json
import struct
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.checkpoints import gguf_files
from tests.checkpoints.gguf_files import TEXTS

from zpdbench import preflight, study
from zpdbench.checkpoints import gguf_header, gguf_model, gguf_tokenizer, make_checkpoint
from zpdbench.errors import UserError
from zpdbench.study import LocalModel, Upscale

SHAPE: dict[str, Any] = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 256,
    "max_position_embeddings": 512,
}


@cache
def _bytes() -> dict[str, Any]:
    from tokenizers import pre_tokenizers

    return gguf_files.byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))


@cache
def _pieces() -> dict[str, Any]:
    return gguf_files.sentence_pieces()


def _config(architecture: str) -> tuple[Any, dict[str, Any]]:
    """A small configuration of an architecture, and the tokenizer that its models have."""
    import transformers as t

    v, w = len(_bytes()["tokens"]), len(_pieces()["tokens"])
    experts = {"num_experts": 4, "num_experts_per_tok": 2}
    wide = SHAPE | {"hidden_size": 256, "num_attention_heads": 2, "head_dim": 128}
    made: dict[str, Any] = {
        "llama": lambda: t.LlamaConfig(vocab_size=w, rope_theta=50000.0, **SHAPE),
        "qwen2": lambda: t.Qwen2Config(vocab_size=v, tie_word_embeddings=True, **SHAPE),
        "qwen3": lambda: t.Qwen3Config(vocab_size=v, **wide),
        "gemma2": lambda: t.Gemma2Config(vocab_size=w, head_dim=32, sliding_window=64, **SHAPE),
        "gemma3": lambda: t.Gemma3TextConfig(vocab_size=w, head_dim=32, **SHAPE),
        "phi3": lambda: t.Phi3Config(vocab_size=w, pad_token_id=0, eos_token_id=2, **SHAPE),
        "gpt2": lambda: t.GPT2Config(vocab_size=v, n_embd=128, n_layer=2, n_head=4),
        "starcoder2": lambda: t.Starcoder2Config(vocab_size=v, **SHAPE),
        "stablelm": lambda: t.StableLmConfig(vocab_size=v, **SHAPE),
        "nemotron": lambda: t.NemotronConfig(vocab_size=v, **SHAPE),
        "falcon": lambda: t.FalconConfig(
            vocab_size=v, hidden_size=128, num_hidden_layers=2, num_attention_heads=4
        ),
        "bloom": lambda: t.BloomConfig(vocab_size=v, hidden_size=128, n_layer=2, n_head=4),
        "qwen2moe": lambda: t.Qwen2MoeConfig(vocab_size=v, **experts, **SHAPE),
        "qwen3moe": lambda: t.Qwen3MoeConfig(
            vocab_size=v, head_dim=32, norm_topk_prob=True, **experts, **SHAPE
        ),
        "lfm2": lambda: t.Lfm2Config(vocab_size=v, layer_types=["conv", "full_attention"], **SHAPE),
    }
    config = made[architecture]()
    return config, _pieces() if config.vocab_size == w else _bytes()


def _model(architecture: str) -> tuple[Any, dict[str, Any]]:
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config, words = _config(architecture)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    for (
        parameter
    ) in model.parameters():  # norms and biases too, which are drawn as ones and noughts
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model, words


def _file(tmp_path: Path, architecture: str = "llama", **how: Any) -> Path:
    model, words = _model(architecture)
    how = {"words": words, "pre": "gpt-2" if words is _bytes() else None} | how
    return gguf_files.write(tmp_path / "m.gguf", model, architecture, **how)


def _make(path: Path, out: Path) -> dict[str, Any]:
    return make_checkpoint.make("m", LocalModel(source="local", path=str(path)), out)


def _ids(folder: Path, text: str) -> list[int]:
    from tokenizers import Tokenizer

    return list(Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text).ids)


# -- the model ----------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", sorted(gguf_header.ARCHITECTURES))
def test_each_architecture_answers_as_the_model_that_was_written(
    tmp_path: Path, architecture: str
) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model, words = _model(architecture)
    lists = {"lfm2.attention.head_count_kv": [0, 2]} if architecture == "lfm2" else None
    pre = "gpt-2" if words is _bytes() else None
    path = gguf_files.write(tmp_path / "m.gguf", model, architecture, words, pre=pre, further=lists)
    manifest = _make(path, tmp_path / "out")
    assert manifest["layers"] == 2 and manifest["hidden_size"] == model.config.hidden_size
    assert manifest["chat_template"]
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    ids = torch.arange(80).view(2, 40) * 5
    with torch.no_grad():
        assert torch.equal(made(ids).logits, model(ids).logits)


def test_the_architectures_are_those_that_transformers_reads() -> None:
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    names = {name.replace("_moe", "moe") for name in GGUF_SUPPORTED_ARCHITECTURES}
    # No architecture, no decoder, not known to the gguf package or to AutoConfig, no text alone,
    # or experts whose layout is not tested here.
    others = {"general", "tokenizer", "t5", "umt5", "mamba", "mistral", "deci", "gemma4"}
    assert names - others - {"gpt_oss", "minimax_m2"} == gguf_header.ARCHITECTURES


def test_block_sizes_are_those_of_the_gguf_package() -> None:
    from gguf.constants import GGML_QUANT_SIZES

    theirs = {int(kind): size for kind, size in GGML_QUANT_SIZES.items()}
    assert all(theirs[kind] == size for kind, size in gguf_header._BLOCKS.items())


def test_ends_are_the_file_s_and_those_known_by_name(tmp_path: Path) -> None:
    path = _file(tmp_path, "qwen2")
    _make(path, tmp_path / "out")
    said = json.loads((tmp_path / "out/generation_config.json").read_text("utf-8"))
    tokens = _bytes()["tokens"]
    assert said["eos_token_id"] == [tokens.index("<|im_end|>"), tokens.index("<|endoftext|>")]
    assert said["do_sample"] is False


@pytest.mark.parametrize(
    ("architecture", "further"),
    [
        ("llama", {"llama.rope.scaling.type": "yarn"}),
        ("llama", {"llama.rope.scaling.factor": 8.0}),
        ("llama", {"llama.attention.sliding_window": 64}),
        ("llama", {"llama.logit_scale": 0.25}),
        ("gemma2", {"gemma2.final_logit_softcapping": 15.0}),
        ("stablelm", {"stablelm.rope.dimension_count": 32}),
    ],
)
def test_a_statement_that_transformers_passes_over_is_refused(
    tmp_path: Path, architecture: str, further: dict[str, Any]
) -> None:
    path = _file(tmp_path, architecture, further=further)
    with pytest.raises(UserError, match=next(iter(further))) as caught:
        _make(path, tmp_path / "out")
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_statement_that_is_kept_is_none(tmp_path: Path) -> None:
    further = {
        "llama.rope.scaling.type": "none",
        "llama.attention.key_length": 32,
        "llama.attention.value_length": 32,
        "llama.rope.dimension_count": 32,
        "general.file_type": 0,
    }
    assert _make(_file(tmp_path, further=further), tmp_path / "out")["layers"] == 2


def test_the_rotation_s_base_is_the_file_s(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model, words = _model("starcoder2")
    model.config.rope_parameters["rope_theta"] = 999999.5
    model = _like(model, model.config)
    said = {"starcoder2.rope.freq_base": 999999.5}  # no key that transformers knows
    path = gguf_files.write(
        tmp_path / "m.gguf", model, "starcoder2", words, pre="starcoder", further=said
    )
    _make(path, tmp_path / "out")
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32).eval()
    ids = torch.arange(40).view(1, 40)
    with torch.no_grad():
        assert torch.equal(made(ids).logits, model(ids).logits)


def _like(model: Any, config: Any) -> Any:
    """`model`'s weights in a model of another configuration."""
    made = type(model)(config).eval()
    made.load_state_dict(model.state_dict(), strict=False)
    return made


def test_a_model_out_of_a_file_is_made_deeper(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    spec = LocalModel(source="local", path=str(_file(tmp_path)), upscale=Upscale(drop=0))
    assert make_checkpoint.make("m", spec, tmp_path / "out")["layers"] == 4
    made = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    with torch.no_grad():
        assert torch.isfinite(made(torch.arange(20).view(1, 20)).logits).all()


def test_a_tensor_that_transformers_passes_over_is_refused(tmp_path: Path) -> None:
    import torch

    model, words = _model("llama")
    # A Llama with biases, which its configuration in GGUF cannot say.
    model.config.attention_bias = True
    biased = _like(model, model.config)
    torch.nn.init.ones_(biased.model.layers[0].self_attn.v_proj.bias)
    path = gguf_files.write(tmp_path / "m.gguf", biased, "llama", words)
    with pytest.raises(UserError, match="is not read by transformers"):
        _make(path, tmp_path / "out")


# -- the tokenizer ------------------------------------------------------------------------------


def _split(name: str) -> Any:
    """How its makers split text, as the tokenizers library has it."""
    from tokenizers import Regex, pre_tokenizers
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if name == "gpt-2":
        return words
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])
    llama = PRETOKENIZE_REGEX.replace(r"\p{N}|", r"\p{N}{1,3}|", 1)
    pattern = {"qwen2": PRETOKENIZE_REGEX, "llama-bpe": llama}[name]
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


@pytest.mark.parametrize("name", sorted(gguf_header.SPLITS))
def test_every_known_way_to_split_is_one(name: str) -> None:
    cut = gguf_tokenizer._splitter(name).pre_tokenize_str("It's 2026:  see")
    assert len(cut) > 3 and cut[-1][0].endswith("see")


@pytest.mark.parametrize("name", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
def test_byte_level_ids_are_those_of_the_tokenizer_that_was_written(
    tmp_path: Path, name: str
) -> None:
    import unicodedata

    words = gguf_files.byte_level(_split(name))
    header = _header(tmp_path, words, pre=name, further={"tokenizer.ggml.add_bos_token": False})
    folder = _tokenizer(tmp_path, header)
    for text in TEXTS:
        # Qwen2's own tokenizer composes letters first; no other of these does.
        meant = unicodedata.normalize("NFC", text) if name == "qwen2" else text
        assert _ids(folder, text) == words["reference"].encode(meant).ids
    whole = "<|im_start|>user\nhello<|im_end|>\n"
    assert _ids(folder, whole) == words["reference"].encode(whole).ids


def test_sentence_pieces_are_those_of_the_tokenizer_that_was_written(tmp_path: Path) -> None:
    words = _pieces()
    folder = _tokenizer(tmp_path, _header(tmp_path, words))
    for text in TEXTS:
        assert _ids(folder, text) == [1, *words["reference"].encode(text).ids]


def _header(tmp_path: Path, words: dict[str, Any], **how: Any) -> gguf_header.Header:
    """The header of a Llama with these words."""
    import transformers

    config = transformers.LlamaConfig(vocab_size=len(words["tokens"]), **SHAPE)
    model = transformers.LlamaForCausalLM(config)
    return gguf_header.check(gguf_files.write(tmp_path / "m.gguf", model, "llama", words, **how))


def _tokenizer(tmp_path: Path, header: gguf_header.Header) -> Path:
    for name, text in gguf_tokenizer.texts(header).items():
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "further", "before"),
    [
        ("llama", {}, True),  # where a file does not say: llama.cpp's usual
        ("llama", {"add_bos_token": False}, False),
        ("gpt-2", {}, False),
        ("gpt-2", {"add_bos_token": True}, True),
        ("llama-bpe", {}, True),
    ],
)
def test_a_text_is_surrounded_by_what_the_file_says(
    tmp_path: Path, kind: str, further: dict[str, bool], before: bool
) -> None:
    from transformers import AutoTokenizer

    words = _pieces() if kind == "llama" else _bytes()
    keys = {f"tokenizer.ggml.{key}": value for key, value in further.items()}
    pre = None if kind == "llama" else kind
    path = gguf_files.write(
        tmp_path / "m.gguf", _llama(len(words["tokens"])), "llama", words, pre=pre, further=keys
    )
    _make(path, tmp_path / "out")
    ids, named = _ids(tmp_path / "out", "hello"), words["ids"]
    assert (ids[0] == named["bos"]) is before and ids[-1] != named["eos"]
    assert AutoTokenizer.from_pretrained(tmp_path / "out").encode("hello") == ids


@pytest.mark.parametrize("kind", ["llama", "gpt-2"])
def test_a_file_that_ends_every_text_is_refused(tmp_path: Path, kind: str) -> None:
    """A prompt would be ended too, and every choice with it."""
    words = _pieces() if kind == "llama" else _bytes()
    further = {"tokenizer.ggml.add_eos_token": True}
    pre = None if kind == "llama" else kind
    path = gguf_files.write(
        tmp_path / "m.gguf", _llama(len(words["tokens"])), "llama", words, pre=pre, further=further
    )
    with pytest.raises(UserError, match="post-processor ends every text"):
        _make(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def _llama(vocabulary: int) -> Any:
    import transformers

    return transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=vocabulary, **SHAPE))


def test_the_space_before_a_text_is_the_file_s_choice(tmp_path: Path) -> None:
    words = _pieces()
    header = _header(tmp_path, words, further={"tokenizer.ggml.add_space_prefix": False})
    folder = _tokenizer(tmp_path, header)
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.encode("근접", add_special_tokens=False).tokens[0] != "▁"
    for text in (" a", "a  b", *TEXTS[2:3]):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids) == text


def test_a_word_of_llama_3_s_vocabulary_needs_no_merges(tmp_path: Path) -> None:
    words = dict(_bytes(), tokens=list(_bytes()["tokens"]))
    place = next(i for i, t in enumerate(words["tokens"]) if len(t) == 1 and t.isalpha())
    words["tokens"][place] = "quux"  # no merges lead there
    llama3 = _tokenizer(tmp_path, _header(tmp_path, words, pre="llama-bpe"))
    assert place in _ids(llama3, "quux")
    gpt2 = _tokenizer(tmp_path, _header(tmp_path, words, pre="gpt-2"))
    assert place not in _ids(gpt2, "quux")


# -- what is refused ----------------------------------------------------------------------------


def _patched(path: Path, old: bytes, new: bytes) -> None:
    data = path.read_bytes()
    assert data.count(old) == 1
    path.write_bytes(data.replace(old, new))


def _number(key: str, value: int) -> bytes:
    """A key of a header and its value, as they lie in a file."""
    return struct.pack("<Q", len(key)) + key.encode() + struct.pack("<II", 4, value)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"words": None}, "holds no tokenizer"),
        ({"further": {"tokenizer.ggml.model": "bert"}}, "tokenizer 'bert' is not converted"),
        ({"further": {"tokenizer.ggml.pre": "klingon"}}, "'klingon'"),
        ({"pre": None}, "does not say how text is split"),
        ({"further": {"tokenizer.ggml.eos_token_id": 99999}}, "eos_token_id is 99999 of"),
        ({"further": {"tokenizer.ggml.tokens": ["a", "a"]}}, "not different"),
        ({"further": {"tokenizer.ggml.token_type": [1, 1]}}, "not one value a token"),
        ({"further": {"llama.block_count": 2_000_000_000}}, "block_count is 2000000000"),
        ({"further": {"llama.embedding_length": 1 << 31}}, "embedding_length"),
        ({"further": {"llama.attention.head_count": 0}}, "head_count is 0"),
        ({"further": {"llama.attention.head_count": 128}}, "heads of size 1;"),
        ({"further": {"llama.feed_forward_length": 1 << 31}}, "values for model.layers"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(
    tmp_path: Path, how: dict[str, Any], message: str
) -> None:
    words = _bytes()
    how = {"words": words, "pre": "gpt-2"} | how
    path = gguf_files.write(tmp_path / "m.gguf", _llama(len(words["tokens"])), "llama", **how)
    with pytest.raises(UserError, match=message) as caught:
        _make(path, tmp_path / "out")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_unknown_architecture_is_one_line(tmp_path: Path) -> None:
    path = _file(tmp_path)
    _patched(path, b"architecture\x08\x00\x00\x00\x05\0\0\0\0\0\0\0llama",
             b"architecture\x08\x00\x00\x00\x05\0\0\0\0\0\0\0vicun")  # fmt: skip
    with pytest.raises(UserError, match="unknown architecture 'vicun'") as caught:
        gguf_header.check(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kept", [0, 3, 20, 24, 100, 2000, -64, -1])
def test_a_truncated_file_is_one_line(tmp_path: Path, kept: int) -> None:
    path = _file(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match=r"no readable GGUF model|cannot be read"):
        gguf_header.check(path)


@pytest.mark.parametrize(
    ("at", "form", "value"),
    [
        (4, "<I", 1),  # version
        (4, ">I", 3),  # big-endian
        (8, "<Q", 1 << 62),  # tensors
        (16, "<Q", 1 << 62),  # keys
        (24, "<Q", 1 << 62),  # the first key's length
    ],
)
def test_absurd_sizes_are_one_line(tmp_path: Path, at: int, form: str, value: int) -> None:
    path = _file(tmp_path)
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, at, value)
    path.write_bytes(data)
    with pytest.raises(UserError, match="no readable GGUF model"):
        gguf_header.check(path)


def test_an_absurd_array_is_one_line(tmp_path: Path) -> None:
    path = _file(tmp_path)
    data = path.read_bytes()
    key = b"tokenizer.ggml.scores"
    at = data.index(key) + len(key) + 8
    path.write_bytes(data[:at] + struct.pack("<Q", 1 << 60) + data[at + 8 :])
    with pytest.raises(UserError, match="no readable GGUF model"):
        gguf_header.check(path)


def test_tensors_that_share_their_bytes_are_one_line(tmp_path: Path) -> None:
    path = _file(tmp_path)
    header = gguf_header.read(path)
    name = list(header.tensors)[-1].encode()
    data = bytearray(path.read_bytes())
    at = data.index(struct.pack("<Q", len(name)) + name) + 8 + len(name)
    (dimensions,) = struct.unpack_from("<I", data, at)
    struct.pack_into("<Q", data, at + 4 + 8 * dimensions + 4, 0)
    path.write_bytes(data)
    with pytest.raises(UserError, match="one over the other"):
        gguf_header.check(path)


def test_flipped_bytes_of_a_header_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    import random

    path = _file(tmp_path)
    whole, draw = path.read_bytes(), random.Random(0)
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            data[draw.randrange(4, 16000)] = draw.randrange(256)
        path.write_bytes(data)
        try:
            gguf_header.check(path)
        except UserError as error:
            assert "\n" not in str(error)


# -- before the first job -----------------------------------------------------------------------


def _study(root: Path, path: Path) -> study.Study:
    loaded = study.load(root / "config/mini.yaml")
    models = {"own": LocalModel(source="local", path=str(path)), **loaded.models}
    return loaded.model_copy(update={"models": models})


def test_preflight_looks_into_the_file(root: Path, tmp_path: Path) -> None:
    path = _file(tmp_path)
    preflight.check_machine(_study(root, path))
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(UserError, match="truncated"):
        preflight.check_machine(_study(root, path))
    path.unlink()
    with pytest.raises(UserError, match="no file"):
        preflight.check_machine(_study(root, path))


def test_preflight_says_which_are_not_trained(root: Path, tmp_path: Path) -> None:
    loaded = _study(root, _file(tmp_path, "gpt2"))
    preflight.check_machine(loaded)
    preflight.check_trained(loaded, ["mini-qwen"])
    with pytest.raises(UserError, match="gpt2 models are served and scored, not trained"):
        preflight.check_trained(loaded, ["own"])


def test_the_cache_must_hold_a_request(root: Path, tmp_path: Path) -> None:
    loaded = _study(root, _file(tmp_path))
    small = loaded.generations.model_copy(update={"engine": "vllm", "kv_cache_gib": 1e-4})
    models = {"own": loaded.models["own"]}
    with pytest.raises(UserError, match="to own, which takes"):
        preflight.check_machine(loaded.model_copy(update={"generations": small, "models": models}))


def test_end_ids_come_once(tmp_path: Path) -> None:
    header = gguf_header.check(_file(tmp_path, "qwen2"))
    ids = gguf_model.end_ids(header)
    assert len(set(ids)) == len(ids) == 2


@pytest.mark.parametrize(
    ("how", "message"),
    [({"words": None}, "holds no tokenizer"), ({"architecture": "gpt2"}, "served and scored, not")],
)
def test_the_workflow_ends_before_its_first_job(
    root: Path, tmp_path: Path, how: dict[str, Any], message: str
) -> None:
    import os
    import subprocess
    import sys

    path = _file(tmp_path, **how)
    snakemake = Path(sys.executable).parent / "snakemake"
    done = subprocess.run(
        [
            *(snakemake, "--snakefile", root / "Snakefile", "--directory", tmp_path),
            *("--cores", "1", "all", "--configfile", root / "config/micro.yaml", "--config"),
            f"results={tmp_path}/results",
            f"models={{own: {{source: local, path: {path}}}}}",
        ],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "ZPDBENCH_CACHE": str(tmp_path / "cache")},
        check=False,
    )
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if message in line]
    assert line.startswith("configuration: ") and "Traceback" not in done.stderr
    made = sorted(p.name for p in (tmp_path / "results").rglob("*") if p.is_file())
    assert made == ["study.lock.yaml"]
    assert not list((tmp_path / ".snakemake/locks").glob("*"))
