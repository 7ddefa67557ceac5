"""Chat templates, rendered as transformers 5.19 renders them, but for the date.

Same sandbox, extensions, filters and names as `transformers.utils.chat_template_utils`, which takes
seconds to import (a test compares the two). What a template takes for today is the
configuration's date: a prompt must be the same tomorrow.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zpdbench.errors import UserError

DATE = datetime.date(2024, 7, 26)
"""Llama 3's templates have it where nobody tells them the date."""

_CONTINUE = "CONTINUE_FINAL_MESSAGE_TAG "
"""transformers' own mark: a template may ask how long a text is."""

Messages = Sequence[Mapping[str, str]]


class Template:
    """A compiled chat template.

    Args:
        source: its text.
        special: names and texts of the special tokens that a template may ask for.
        date: what `strftime_now` takes for today.
        where: what a message names.

    Raises:
        UserError: it does not compile.
    """

    def __init__(
        self, source: str, special: Mapping[str, str], date: datetime.date, where: str
    ) -> None:
        from jinja2.exceptions import TemplateError
        from jinja2.nodes import Name

        self.source, self.where = source, where
        self._special = dict(special)
        environment = _environment(date)
        try:
            names = {name.name for name in environment.parse(source).find_all(Name)}
            self._render: Callable[..., str] = environment.from_string(source).render
        except (TemplateError, RecursionError) as error:
            raise UserError(
                f"the chat template does not compile ({one_line(error)})",
                where=where,
                fix="mend chat_template in the checkpoint's tokenizer files",
            ) from error
        self.date = date if "strftime_now" in names else None
        """The date that its texts depend on, None if they depend on none."""

    def render_open(self, messages: Messages) -> str:
        """The text of a conversation up to its last message's end, which is to be continued.

        Source: transformers' `continue_final_message`; where the template trims what is said, white
        space at that end is lost.

        Raises:
            UserError: as `render`; or the last message is not in the text as it is.
        """
        *before, last = messages
        marked = {**last, "content": last["content"] + _CONTINUE}
        text = self.render([*before, marked], add_generation_prompt=False)
        at = text.rfind(_CONTINUE.strip())
        if at < 0 or last["content"].strip() not in text or "content" not in self.source:
            raise UserError(
                "the chat template does not show an answer that is begun",
                where=self.where,
                fix="mend the template, or ask a benchmark that begins none",
            )
        return text[:at] if text.startswith(_CONTINUE, at) else text[:at].rstrip()

    def render(self, messages: Messages, *, add_generation_prompt: bool) -> str:
        """The text of a conversation.

        Raises:
            UserError: the template refuses it, or breaks on it.
        """
        try:
            return self._render(
                messages=[dict(m) for m in messages],
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special,
            )
        except Exception as error:  # a template is a program: it may raise anything
            raise UserError(
                f"the chat template refuses the messages ({one_line(error)})",
                where=self.where,
                fix="mend the template, or set apply_chat_template: false",
            ) from error


def _environment(date: datetime.date) -> Any:
    from jinja2 import nodes
    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}`: marks the assistant's text, and is a scope of its own."""

        tags = {"generation"}  # noqa: RUF012 - jinja2's own form

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_spell"), [], [], body).set_lineno(line)

        def _spell(self, caller: Callable[[], str]) -> str:
            return caller()

    def fail(message: str) -> None:
        raise TemplateError(message)

    def to_json(
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        return json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals |= {"raise_exception": fail, "strftime_now": date.strftime}
    return environment


def one_line(error: BaseException) -> str:
    """The beginning of what an error says, on one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
