"""Token ids as the reference harness makes them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests import tiny, tokenizer_kinds
from tests.engines.conftest import Model
from zpdbench.benchmarks import load
from zpdbench.benchmarks.items import make_items
from zpdbench.benchmarks.loaders import load_file
from zpdbench.engines.tokens import Tokens
from zpdbench.errors import UserError


@pytest.fixture(scope="module")
def tokens(models: dict[str, Model]) -> Tokens:
    return Tokens(models["qwen2"].checkpoint)


def test_context_and_choice_together_are_the_whole_text(tokens: Tokens) -> None:
    context, choices = tokens.encode_choices(
        "Question: how many?\nAnswer:", [" A", " 학교에 갔다."]
    )
    for text, choice in zip((" A", " 학교에 갔다."), choices, strict=True):
        assert context + choice == tokens.encode("Question: how many?\nAnswer:" + text)


def test_white_space_at_the_end_goes_to_the_choice(tokens: Tokens) -> None:
    context, choices = tokens.encode_choices("Answer: \n", ["A"])
    assert tokens.tokenizer.decode(context) == "Answer:"
    assert tokens.tokenizer.decode(choices[0]) == " \nA"


def test_chat_template_is_applied_to_messages(models: dict[str, Model]) -> None:
    tokens = Tokens(models["llama"].checkpoint, apply_chat_template=True)
    assert tokens.render("hi") == ("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n")
    shots = [
        {"role": "user", "content": "1"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "3"},
    ]
    assert tokens.render("1 2 3", shots).count("<|im_start|>") == 4
    assert tokens.template() == tiny.CHAT_TEMPLATE


CHAT = [
    {"role": "system", "content": "About maps."},
    {"role": "user", "content": "1"},
]


def _with_template(models: dict[str, Model], folder: Path, template: str) -> Tokens:
    shutil.copytree(models["llama"].checkpoint, folder)
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    return Tokens(folder, apply_chat_template=True)


def test_a_refused_system_message_is_left_out(models: dict[str, Model], tmp_path: Path) -> None:
    """As the harness does; Gemma's and the first Mistral's templates have none."""
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "<{{ m.role }}>{{ m.content }}{% endfor %}"
    )
    tokens = _with_template(models, tmp_path / "m", template)
    assert tokens.render("About maps.\n\n1", CHAT) == "<user>1"


@pytest.mark.parametrize("kind", ["qwen2", "llama2", "llama3"])
@pytest.mark.parametrize("spoken", ["", "{{ bos_token }}"])
def test_a_begun_answer_is_asked_as_transformers_asks(
    data_dir: Path, tmp_path: Path, kind: str, spoken: str
) -> None:
    """All of humaneval_instruct, as HFLM.apply_chat_template calls it."""
    from transformers import AutoTokenizer

    template = (
        f"{spoken}{{% for m in messages %}}[{{{{ m.role }}}}]\n{{{{ m.content }}}}"
        "{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}[assistant]\n{% endif %}"
    )
    folder = tokenizer_kinds.save(tmp_path / "m", kind, template)
    theirs = AutoTokenizer.from_pretrained(folder)
    ours = Tokens(folder, apply_chat_template=True)
    definition = load("humaneval_instruct")
    docs = load_file(definition, data_dir / "humaneval/HumanEval.jsonl.gz", "humaneval_instruct")
    for item in make_items(definition, docs, {}, chat=True):
        chat = json.loads(item.messages)
        assert [m["role"] for m in chat] == ["user", "assistant"]
        text = theirs.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=False, continue_final_message=True
        )
        assert ours.render(item.prompt, chat) == text
        assert text.endswith("\n```python\n" + json.loads(item.doc)["prompt"] + "\n")


def test_an_answer_is_begun_where_the_system_message_is_refused(
    models: dict[str, Model], tmp_path: Path
) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'system' %}"
        "{{ raise_exception('System role not supported') }}{% endif %}"
        "<{{ m.role }}>{{ m.content | trim }}</>{% endfor %}"
    )
    tokens = _with_template(models, tmp_path / "m", template)
    chat = [*CHAT, {"role": "assistant", "content": "It is:\n"}]
    assert tokens.render("", chat) == "<user>1</><assistant>It is:"


def test_a_template_that_refuses_what_is_left_is_one_clear_line(
    models: dict[str, Model], tmp_path: Path
) -> None:
    template = (
        "{% for m in messages %}{% if m.content == '1' %}{{ raise_exception('not\\nthis') }}"
        "{% endif %}{{ m.content }}{{ eos_token }}{% endfor %}"
    )
    tokens = _with_template(models, tmp_path / "m", template)
    with pytest.raises(UserError, match="refuses the messages") as caught:
        tokens.render("About maps.\n\n1", CHAT)
    assert "\n" not in str(caught.value)


def test_without_chat_template_the_prompt_is_sent_as_it_is(tokens: Tokens) -> None:
    assert tokens.render("hi", [{"role": "user", "content": "ho"}]) == "hi"
    assert tokens.template() == ""


@pytest.mark.parametrize(
    ("stop", "expected", "reason"),
    [
        (["brown"], "The quick ", "stop"),
        (["brown", "quick"], "The ", "stop"),
        (["zebra"], "The quick brown fox", "length"),
    ],
)
def test_text_ends_before_the_first_stop_string(
    tokens: Tokens, stop: list[str], expected: str, reason: str
) -> None:
    text, _, why = tokens.finish([], tokens.encode("The quick brown fox"), stop, 99)
    assert (text, why) == (expected, reason)


def test_text_ends_at_the_limit(tokens: Tokens) -> None:
    ids = tokens.encode("The quick brown fox")
    text, kept, why = tokens.finish([], ids, [], 2)
    assert (kept, why) == (tuple(ids[:2]), "length")
    assert text == tokens.tokenizer.decode(ids[:2])


def test_text_ends_at_the_end_token(tokens: Tokens) -> None:
    (end,) = tokens.end_ids
    the_dog = tokens.encode("The dog")
    ids = [*the_dog, end, *tokens.encode("!")]
    assert tokens.finish([], ids, [], 99) == ("The dog", tuple(the_dog), "stop")


def test_a_stop_string_that_is_a_special_token_ends_the_text(tokens: Tokens) -> None:
    """No text shows it: the harness's `</s>` and `<|im_end|>` of GSM8K, where they are special."""
    ids = [*tokens.encode("The dog"), *tokens.encode("<|im_start|>"), *tokens.encode("jumps")]
    assert tokens.finish([], ids, [], 99)[0] == "The dogjumps"
    stop = ["Question:", "</s>", "<|im_start|>"]
    assert tokens.finish([], ids, stop, 99) == ("The dog", tuple(tokens.encode("The dog")), "stop")
    assert tokens.stop_ids(stop) == set(tokens.encode("<|im_start|>"))


def test_a_damaged_tokenizer_is_one_clear_line(tmp_path: Path, models: dict[str, Model]) -> None:
    for name in ("config.json", "tokenizer_config.json"):
        (tmp_path / name).write_text((models["qwen2"].checkpoint / name).read_text("utf-8"))
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model"')
    with pytest.raises(UserError, match=r"no readable tokenizer\.json"):
        Tokens(tmp_path)
