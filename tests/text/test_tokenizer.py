"""One tokenizer for training and evaluation, on tokenizers of five kinds and Mistral's own."""

from __future__ import annotations

import datetime
import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tokenizers import processors

from tests import tokenizer_kinds as kinds
from zpdbench.adapters.encoding import Encoder
from zpdbench.engines.tokens import Tokens
from zpdbench.errors import UserError
from zpdbench.text.tokenizer import Tokenizer

CONTINUED = [
    ("def f(x):\n", "    return x % 1.0\n\n"),
    ("Question: how many?\nAnswer:", " 3 + 4 = 7\n#### 7"),
    ("질문: 학교?\n답:", " 학교에 갔다. 🦊 예"),
    ("x", "\n\ty = 'é'\r\n"),
    ("The quick", " brown fox"),
]
TURNS = (
    "{% for m in messages %}[{{ m.role }}]\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)


@pytest.fixture(scope="module", params=kinds.KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kinds.save(tmp_path_factory.mktemp("k") / request.param, request.param)


def _behind(tokenizer: Tokenizer, prompt: str, text: str) -> tuple[list[int], list[int]]:
    """Ids of a prompt, and of a text behind it as a model would generate it."""
    ids, whole = tokenizer.encode(prompt), tokenizer.encode(prompt + text)
    if whole[: len(ids)] == ids:
        return ids, whole[len(ids) :]
    return ids, tokenizer.continued(ids, text)


@pytest.mark.parametrize(("prompt", "text"), CONTINUED)
def test_ids_spell_their_text_behind_the_prompt(folder: Path, prompt: str, text: str) -> None:
    tokenizer = Tokenizer(folder)
    ids, continued = _behind(tokenizer, prompt, text)
    assert tokenizer.spell(ids, continued) == text
    # Encoded apart, too, as an example whose parts would merge is.
    assert tokenizer.spell(ids, tokenizer.continued(ids, text)) == text


def _humaneval(data_dir: Path) -> list[dict[str, Any]]:
    with gzip.open(data_dir / "humaneval/HumanEval.jsonl.gz", "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_humaneval_s_solutions_come_out_whole(folder: Path, data_dir: Path) -> None:
    tokens = Tokens(folder)
    for doc in _humaneval(data_dir):
        ids, made = _behind(tokens.tokenizer, doc["prompt"], doc["canonical_solution"])
        text, kept, reason = tokens.finish(ids, made, [], len(made))
        assert (text, list(kept), reason) == (doc["canonical_solution"], made, "length")


def test_half_a_character_is_no_text_yet(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    ids, fox = _behind(tokenizer, "a", " 🦊")
    assert tokenizer.spell(ids, fox) == " 🦊"
    assert [tokenizer.spell(ids, fox[:n]) for n in (len(fox) - 1, len(fox) - 2)] in (
        [" ", " "],
        [" ", ""],
    )


def test_bytes_that_are_no_text_do_not_stop_it(folder: Path) -> None:
    """A line feed, half a character and a word: what is read changes what was read before."""
    tokenizer = Tokenizer(folder)
    name = "<0xED>" if tokenizer.backend.token_to_id("<0xED>") is not None else "í"
    half = tokenizer.backend.token_to_id(name)
    prompt, feed = tokenizer.encode("a"), tokenizer.encode("a\n")
    made = [*feed[len(prompt) :], half, *tokenizer.backend.encode(" b").ids[-1:]]
    assert tokenizer.spell(prompt, made).endswith("b")


def test_a_text_begins_once_as_tokenizer_json_says(folder: Path) -> None:
    tokenizer = Tokenizer(folder)
    assert tokenizer.encode("two words") == tokenizer.backend.encode("two words").ids
    assert tokenizer.after == []
    mark = tokenizer.special.get("bos_token")
    if tokenizer.begin:
        again = tokenizer.encode(f"{mark}two words")
        assert again[: len(tokenizer.begin) + 1].count(tokenizer.begin[0]) == 1


@pytest.mark.parametrize("name", ["LlamaTokenizerFast", "Qwen2Tokenizer", "GPT2Tokenizer", None])
def test_the_class_s_name_changes_nothing(folder: Path, tmp_path: Path, name: str | None) -> None:
    """transformers rebuilds what it is called; DeepSeek's kind loses its spaces so."""
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    (tmp_path / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": name}))
    text = "  two spaces, 1234 and 값"
    ids = Tokenizer(folder).backend.encode(text).ids
    assert Tokens(tmp_path).encode(text) == Encoder(tmp_path).text.encode(text) == ids


def _ended(folder: Path, kind: str) -> Path:
    kinds.save(folder, kind)
    tokenizer = Tokenizer(folder)
    end = tokenizer.special["eos_token"]
    first = f"{tokenizer.special['bos_token']} " if tokenizer.begin else ""
    names = [*first.split(), end]
    tokenizer.backend.post_processor = processors.TemplateProcessing(
        single=f"{first}$A {end}",
        pair=f"{first}$A $B {end}",
        special_tokens=[(n, tokenizer.backend.token_to_id(n)) for n in names],
    )
    tokenizer.backend.save(str(folder / "tokenizer.json"))
    return folder


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_no_end_token_is_put_behind_a_prompt(tmp_path: Path, kind: str) -> None:
    tokens = Tokens(_ended(tmp_path / "m", kind))
    (end,) = tokens.tokenizer.after
    ids, choices = tokens.encode_choices("Answer:", [" A", " B"])
    assert end not in ids and choices[0] != choices[1]
    encoder = Encoder(tmp_path / "m")
    labels = encoder.encode(["1 + 1?"], ["2"], 256)
    assert labels[0].tolist().count(end) == 1 and labels[0][-1] == end


FORMS = {"plain": None, "chat": TURNS, "chat that begins itself": "{{ bos_token }}" + TURNS}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_asked_is_what_was_learnt(folder: Path, tmp_path: Path, form: str) -> None:
    """100 examples: equal up to the response, which is followed by one end token."""
    kinds.save(tmp_path / "m", folder.name, FORMS[form])
    encoder, chat = Encoder(tmp_path / "m"), FORMS[form] is not None
    tokens = Tokens(tmp_path / "m", apply_chat_template=chat)
    prompts = [f"{CONTINUED[n % 5][0].strip()} {n}" for n in range(100)]
    responses = [f"{CONTINUED[n % 5][1].strip()} {n}" for n in range(100)]
    encoded = encoder.encode(prompts, responses, 1024)
    for n, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        learnt = encoded[n].tolist()
        text = tokens.render(prompt) if chat else encoder.renderer()(prompt, response)[0]
        asked = tokens.encode(text)
        assert learnt[: encoded.prompts[n]] == asked
        labels = learnt[len(asked) :]
        assert labels[-1] == encoder.end in tokens.end_ids
        assert not tokens.end_ids & set(labels[:-1])
        assert encoder.text.spell(asked, labels) == response


def test_one_end_token_is_learnt_where_the_turn_s_end_is_another(tmp_path: Path) -> None:
    """As Qwen2.5's base models: ChatML turns, and a text's end that no turn has."""
    turns = TURNS.replace("eos_token", "'<|im_end|>'")
    folder = kinds.save(tmp_path / "m", "qwen2", turns, eos_token="<|endoftext|>")
    encoder, tokens = Encoder(folder), Tokens(folder)
    encoded = encoder.encode(["1?", "2?"], ["one", "two<|endoftext|>three"], 256)
    ids = {t: encoder.tokenizer.token_to_id(t) for t in ("<|im_end|>", "<|endoftext|>")}
    for n, (response, end) in enumerate((("one", "<|im_end|>"), ("two", "<|endoftext|>"))):
        labels = encoded[n][encoded.prompts[n] :].tolist()
        assert labels == [*encoder.tokenizer.encode(response).ids, ids[end]]
    assert encoder.ends_early("two<|endoftext|>three") and not encoder.ends_early("one")
    assert tokens.end_ids >= set(ids.values()), "an answer ends where it was taught to"


def test_what_a_template_puts_behind_an_answer_is_not_learnt(tmp_path: Path) -> None:
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n\n{% endfor %}"
    template += "{% if add_generation_prompt %}assistant: {% endif %}"
    encoder = Encoder(kinds.save(tmp_path / "m", "llama2", template))
    encoded = encoder.encode(["1?"], ["one"], 256)
    prompt, labels = encoded[0][: encoded.prompts[0]], encoded[0][encoded.prompts[0] :].tolist()
    assert labels[-1] == encoder.end
    # "assistant: one" merges across the prompt's end; behind the space that is there it is "one".
    assert encoder.text.spell(prompt.tolist(), labels) == "one"
    # So it is where the answer is closed by a token that no text shows.
    closed = template.replace("{{ m.content }}", "{{ m.content }}{{ eos_token }}")
    encoder = Encoder(kinds.save(tmp_path / "c", "llama2", closed))
    again = encoder.encode(["1?"], ["one"], 256)
    assert again[0][again.prompts[0] :].tolist() == labels


def test_a_name_of_the_model_s_own_reaches_the_template(tmp_path: Path) -> None:
    turns = TURNS.replace("eos_token }}", "eos_token }}{{ turn_token }}")
    extra = {"turn_token": "<|im_start|>"}
    folder = kinds.save(tmp_path / "m", "qwen2", turns, extra_special_tokens=extra)
    text = Tokens(folder, apply_chat_template=True).render("hi")
    assert text == Encoder(folder).renderer()("hi", "ho")[0]
    assert text == "[user]\nhi<|im_end|><|im_start|>\n[assistant]\n"


def test_the_date_is_part_of_the_keys_that_depend_on_it(tmp_path: Path) -> None:
    day = datetime.date(2030, 1, 2)
    dated = kinds.save(tmp_path / "d", "llama3", "{{ strftime_now('%Y-%m-%d') }}\n" + TURNS)
    plain = kinds.save(tmp_path / "p", "llama3", TURNS)
    for folder, same in ((dated, False), (plain, True)):
        keys = {
            (
                Encoder(folder, date=d).digest,
                Tokens(folder, apply_chat_template=True, date=d).template(),
            )
            for d in (day, datetime.date(2031, 1, 2))
        }
        assert (len(keys) == 1) is same
    tokens = Tokens(dated, apply_chat_template=True, date=day)
    assert tokens.render("hi").startswith("2030-01-02\n[user]")
    assert Encoder(dated, date=day).renderer()("hi", "ho")[0] == tokens.render("hi")


def test_several_templates_and_none_the_default_is_refused(tmp_path: Path) -> None:
    named = [{"name": n, "template": TURNS} for n in ("rag", "tool_use")]
    with pytest.raises(UserError, match="none called default"):
        Tokenizer(kinds.save(tmp_path / "m", "qwen2", chat_template=named))
    with pytest.raises(UserError, match="no readable chat template"):
        Tokenizer(kinds.save(tmp_path / "m", "qwen2", chat_template=[{"name": "default"}]))
    named[0]["name"] = "default"
    assert Tokenizer(kinds.save(tmp_path / "m", "qwen2", chat_template=named)).template == TURNS


@cache
def _mistral(folder: Path) -> Path:
    """Mistral's 32,000 pieces, converted as transformers converts them."""
    mistral_common = pytest.importorskip("mistral_common")
    pytest.importorskip("sentencepiece")
    from transformers import LlamaTokenizerFast

    source = Path(mistral_common.__file__).parent / "data" / "tokenizer.model.v1"
    folder.mkdir()
    (folder / "tokenizer.model").write_bytes(source.read_bytes())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"})
    )
    LlamaTokenizerFast.from_pretrained(folder).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_mistral_s_pieces(tmp_path: Path, data_dir: Path) -> None:
    tokens = Tokens(_mistral(tmp_path / "m"))
    assert tokens.tokenizer.backend.get_vocab_size() == 32000
    alone = 0
    for doc in _humaneval(data_dir):
        ids, made = _behind(tokens.tokenizer, doc["prompt"], doc["canonical_solution"])
        assert tokens.finish(ids, made, [], 9999)[0] == doc["canonical_solution"]
        alone += tokens.tokenizer.decode(made) == doc["canonical_solution"]
    assert alone < 10, "which decoding the answer alone would lose"
