"""Text to token ids and back, the same for every engine.

Follows EleutherAI/lm-evaluation-harness 0.4.13 (HFLM.tok_encode, TemplateLM._encode_pair), so
that log-likelihoods and texts compare item by item.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zpdbench import startup
from zpdbench.errors import UserError


class Tokens:
    """A checkpoint's tokenizer.

    Args:
        checkpoint: folder in Hugging Face's layout.
        apply_chat_template: whether a prompt becomes one user message of the chat template.

    Raises:
        UserError: no usable tokenizer, or no chat template where one is asked for.
    """

    def __init__(self, checkpoint: str | Path, *, apply_chat_template: bool = False) -> None:
        with startup.uncollected():
            from transformers import AutoTokenizer

        self.checkpoint = Path(checkpoint)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(
                self.checkpoint, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # transformers raises many kinds for one bad file
            raise UserError(
                f"no readable tokenizer ({_first_line(error)})",
                where=str(checkpoint),
                fix="delete the checkpoint folder; it is made again",
            ) from error
        if apply_chat_template and not self.tokenizer.chat_template:
            raise UserError(
                "the tokenizer has no chat template",
                where=str(checkpoint),
                fix="set generations.apply_chat_template: false",
            )
        self.apply_chat_template = apply_chat_template
        self.end_ids = end_token_ids(self.checkpoint, self.tokenizer.eos_token_id)
        prefix = self.tokenizer.bos_token or self.tokenizer.eos_token
        self._prefix: str | None = prefix or None

    def template(self) -> str:
        """The chat template's text, or `` where none is applied: part of what a cell is."""
        return str(self.tokenizer.chat_template) if self.apply_chat_template else ""

    def render(self, prompt: str, messages: Sequence[Mapping[str, str]] = ()) -> str:
        """The text that the model sees: the prompt, or the template over the chat messages.

        Without messages the whole prompt is one user message. Where the template refuses them,
        system messages are left out (HFLM.apply_chat_template).

        Raises:
            UserError: the template refuses what is left, too.
        """
        if not self.apply_chat_template:
            return prompt
        from jinja2.exceptions import TemplateError

        chat = [dict(m) for m in messages] or [{"role": "user", "content": prompt}]
        try:
            return self._templated(chat)
        except TemplateError:
            chat = [m for m in chat if m["role"] != "system"]
        try:
            return self._templated(chat)
        except TemplateError as error:
            raise UserError(
                f"the chat template refuses the messages ({_first_line(error)})",
                where=str(self.checkpoint),
                fix="set generations.apply_chat_template: false",
            ) from error

    def _templated(self, chat: list[dict[str, str]]) -> str:
        return str(
            self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        )

    def encode(self, text: str) -> list[int]:
        """Token ids; a beginning-of-sequence token once, where the tokenizer adds one."""
        if self._prefix and text.startswith(self._prefix):
            return list(self.tokenizer.encode(text, add_special_tokens=False))
        return list(self.tokenizer.encode(text))

    def encode_choices(
        self, context: str, continuations: Sequence[str]
    ) -> tuple[list[int], list[list[int]]]:
        """Ids of a context and of each continuation after it.

        White space at the context's end belongs to the continuation, and a continuation's ids are
        those of the whole text after as many as the context alone has.
        """
        stripped = context.rstrip()
        space = context[len(stripped) :]
        ids = self.encode(stripped)
        return ids, [self.encode(stripped + space + c)[len(ids) :] for c in continuations]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, special tokens left out."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def finish(
        self, ids: Iterable[int], stop: Sequence[str], max_tokens: int, *, stopped: bool = False
    ) -> tuple[str, tuple[int, ...], str]:
        """Text, ids and finish reason of a generation, as every engine reports it.

        Args:
            ids: generated ids; those after an end-of-sequence token do not count.
            stop: strings; the text ends before the first of them.
            max_tokens: the limit that the generation had.
            stopped: whether the engine itself says that it met an end or a stop string.
        """
        kept: list[int] = []
        ended = stopped
        for token in ids:
            if token in self.end_ids:
                ended = True
                break
            kept.append(token)
        kept = kept[:max_tokens]
        text = self.decode(kept)
        cut = min((at for s in stop if s and (at := text.find(s)) >= 0), default=-1)
        if cut >= 0:
            return text[:cut], tuple(kept), "stop"
        return text, tuple(kept), "stop" if ended else "length"


def end_token_ids(checkpoint: Path, eos: int | None) -> frozenset[int]:
    """Every id that ends a sequence: the tokenizer's, the generation's and the model's."""
    found: set[int] = set() if eos is None else {eos}
    for name in ("generation_config.json", "config.json"):
        try:
            value = json.loads((checkpoint / name).read_text("utf-8")).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        found |= set(value) if isinstance(value, list) else {value} if value is not None else set()
    return frozenset(found)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
