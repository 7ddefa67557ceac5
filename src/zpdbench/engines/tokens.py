"""Text to token ids and back, the same for every engine.

Follows EleutherAI/lm-evaluation-harness 0.4.13 (HFLM.tok_encode, TemplateLM._encode_pair), so
that log-likelihoods and texts compare item by item.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from zpdbench.errors import UserError
from zpdbench.text.template import DATE
from zpdbench.text.tokenizer import Tokenizer


class Tokens:
    """A checkpoint's tokenizer, and how an answer of its model ends.

    Args:
        checkpoint: folder in Hugging Face's layout.
        apply_chat_template: whether prompts may become messages of the chat template.
        date: what the template takes for today.

    Attributes:
        end_ids: every id that ends an answer: the tokenizer's, the generation's and the model's
            end of sequence, and the token that ends a turn of the chat template, as it is learnt.

    Raises:
        UserError: no usable tokenizer, or no chat template where one is asked for.
    """

    def __init__(
        self,
        checkpoint: str | Path,
        *,
        apply_chat_template: bool = False,
        date: datetime.date = DATE,
    ) -> None:
        self.checkpoint = Path(checkpoint)
        self.tokenizer = Tokenizer(checkpoint, date=date)
        if apply_chat_template and self.tokenizer.template is None:
            raise UserError(
                "the tokenizer has no chat template",
                where=str(checkpoint),
                fix="set apply_chat_template: false",
            )
        self.apply_chat_template = apply_chat_template
        named = (self.tokenizer.special.get("eos_token"), self.tokenizer.turn_end)
        found = (self.tokenizer.backend.token_to_id(name) for name in named if name)
        configured = _configured_ends(self.checkpoint)
        self.end_ids = configured | {i for i in found if i is not None}

    def template(self) -> str:
        """The chat template and the date it asks for, or `` where none is applied.

        Part of what a cell that is asked by it is.
        """
        return self.tokenizer.template_key if self.apply_chat_template else ""

    def render(self, prompt: str, messages: Sequence[Mapping[str, str]] = ()) -> str:
        """The text that the model sees: the prompt, or the template over the chat messages.

        Without messages the whole prompt is one user message; an assistant's message at the end is
        left open (continue_final_message). Where the template refuses them, system messages are
        left out (HFLM.apply_chat_template).

        Raises:
            UserError: the template refuses what is left, too.
        """
        if not self.apply_chat_template:
            return prompt
        chat = messages or [{"role": "user", "content": prompt}]
        try:
            return self.tokenizer.ask(chat)
        except UserError:
            rest = [m for m in chat if m["role"] != "system"]
            if len(rest) == len(chat):
                raise
        return self.tokenizer.ask(rest)

    def encode(self, text: str) -> list[int]:
        """Token ids; a beginning-of-sequence token once, where the tokenizer adds one."""
        return self.tokenizer.encode(text)

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

    def stop_ids(self, stop: Sequence[str]) -> frozenset[int]:
        """Ids of the stop strings that are special tokens, which no text shows."""
        found = (self.tokenizer.special_id(s) for s in stop)
        return frozenset(i for i in found if i is not None)

    def mixed(self, stop: Sequence[str]) -> str | None:
        """The first stop string that holds a special token and more, which no text would show."""
        return next((s for s in stop if self.tokenizer.holds_special(s)), None)

    def finish(
        self,
        prompt: Sequence[int],
        ids: Iterable[int],
        stop: Sequence[str],
        max_tokens: int,
        *,
        stopped: bool = False,
    ) -> tuple[str, tuple[int, ...], str]:
        """Text, ids and finish reason of a generation, as every engine reports it.

        Args:
            prompt: the ids that stand before it, which its text depends on.
            ids: generated ids; those from a token that ends it on do not count.
            stop: strings; the text ends before the first of them.
            max_tokens: the limit that the generation had.
            stopped: whether the engine itself says that it met an end or a stop string.
        """
        ends = self.end_ids | self.stop_ids(stop)
        kept: list[int] = []
        ended = stopped
        for token in ids:
            if token in ends:
                ended = True
                break
            kept.append(token)
        kept = kept[:max_tokens]
        text = self.tokenizer.spell(prompt, kept)
        cut = min((at for s in stop if s and (at := text.find(s)) >= 0), default=-1)
        if cut >= 0:
            return text[:cut], tuple(kept), "stop"
        return text, tuple(kept), "stop" if ended else "length"


def _configured_ends(checkpoint: Path) -> frozenset[int]:
    """The ids that end a sequence by the generation's and the model's configuration."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        try:
            value = json.loads((checkpoint / name).read_text("utf-8")).get("eos_token_id")
        except (OSError, ValueError, AttributeError):
            continue
        found |= set(value) if isinstance(value, list) else {value} if value is not None else set()
    return frozenset(found)
