"""Chat templates are rendered as transformers renders them, whatever the day."""

from __future__ import annotations

import datetime

import pytest

from zpdbench.errors import UserError
from zpdbench.text.template import DATE, Template

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "turn_token": "<|turn|>"}
CHAT = [
    {"role": "system", "content": 'Say "é" & <b>.'},
    {"role": "user", "content": " 1\n"},
    {"role": "assistant", "content": "2"},
]
EACH = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{{ eos_token }}\n{% endfor %}"
TEMPLATES = {
    "plain": "{{ bos_token }}" + EACH,
    "asked for": EACH + "{% if add_generation_prompt %}[assistant]{% endif %}",
    "tools are none": "{% if tools is not none %}tools{% endif %}{{ documents }}" + EACH,
    "defined": "{{ tools is defined }} {{ date_string is defined }} {{ strftime_now is defined }}",
    "a name of its own": "{% for m in messages %}{{ m.content }}{{ turn_token }}{% endfor %}",
    "generation": (
        "{% set n = 1 %}{% for m in messages %}{% generation %}{% set n = n + 1 %}"
        "{{ m.content }}{{ n }}{% endgeneration %}{% endfor %}{{ n }}"
    ),
    "loop controls": (
        "{% for m in messages %}{% if loop.index == 2 %}{% break %}{% endif %}x{% endfor %}"
    ),
    "json": "{{ messages | tojson }}{{ messages[0] | tojson(indent=1, sort_keys=true) }}",
    "json, ascii": "{{ messages[0].content | tojson(ensure_ascii=true, separators=(',', ':')) }}",
    "lines": (
        "{%- for m in messages %}\n    {{- m.role }}\n  {% if true %}\n x\n  {% endif %}\n"
        "{% endfor %}"
    ),
    "undefined": "{{ nothing }}{{ messages[7] }}",
}
REFUSED = {
    "says so": "{{ raise_exception('no system') }}",
    "goes through nothing": "{{ nothing.more }}",
    "adds text to none": "{{ tools + 'x' }}",
    "writes": "{{ messages.append(1) }}",
    "looks behind": "{{ messages.__class__.__mro__ }}",
}


def _rendered(source: str, *, add_generation_prompt: bool, date: datetime.date = DATE) -> str:
    template = Template(source, SPECIAL, date, "here")
    return template.render(CHAT, add_generation_prompt=add_generation_prompt)


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("asked", [True, False])
def test_a_text_is_transformers_s(name: str, asked: bool) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    ((text,), _) = render_jinja_template(
        [CHAT], chat_template=TEMPLATES[name], add_generation_prompt=asked, **SPECIAL
    )
    assert _rendered(TEMPLATES[name], add_generation_prompt=asked) == text


BEGUN = ["```python\ndef f():\n\n", "Here: ", " is", "a CONTINUE_FINAL_MESSAGE_TAG b"]


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("begun", BEGUN)
def test_an_answer_that_is_begun_is_left_open_as_transformers_does(name: str, begun: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    chat = [*CHAT[:2], {"role": "assistant", "content": begun}]
    template = Template(TEMPLATES[name], SPECIAL, DATE, "here")
    try:
        ((text,), _) = render_jinja_template(
            [chat], chat_template=TEMPLATES[name], continue_final_message=True, **SPECIAL
        )
    except ValueError:
        with pytest.raises(UserError, match=r"^here: the chat template does not show an answer"):
            template.render_open(chat)
    else:
        assert template.render_open(chat) == text
        assert text.endswith(begun.strip() if "trim" in TEMPLATES[name] else begun)


@pytest.mark.parametrize("name", REFUSED)
def test_what_transformers_refuses_is_one_clear_line(name: str) -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    with pytest.raises(Exception):  # noqa: B017 - of many kinds
        render_jinja_template([CHAT], chat_template=REFUSED[name], **SPECIAL)
    with pytest.raises(UserError, match=r"^here: the chat template refuses the messages") as caught:
        _rendered(REFUSED[name], add_generation_prompt=True)
    assert "\n" not in str(caught.value)


def test_today_is_the_configuration_s_date() -> None:
    guarded = (
        "{% if strftime_now is defined %}{{ strftime_now('%d %b %Y') }}{% else %}never{% endif %}"
    )
    day = datetime.date(2031, 2, 3)
    assert _rendered(guarded, add_generation_prompt=True) == "26 Jul 2024"
    assert _rendered(guarded, add_generation_prompt=True, date=day) == "03 Feb 2031"
    assert Template(guarded, {}, day, "").date == day
    # One that asks for none is the same text under every date.
    assert Template(TEMPLATES["plain"], {}, day, "").date is None
