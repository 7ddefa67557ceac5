"""A checkpoint's tokenizer: tokenizer.json, the special tokens' names and the chat template."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zpdbench import files
from zpdbench.errors import UserError
from zpdbench.text.template import DATE, Messages, Template, one_line

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_NAMED = (
    "bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token",
)  # fmt: skip
_ANSWER = "ZPDBENCH"
"""An answer that no template has in its own text."""


class Tokenizer:
    """What training and evaluation encode with.

    Args:
        checkpoint: folder in Hugging Face's layout.
        date: what a chat template takes for today.

    Attributes:
        backend: tokenizer.json as it is.
        special: name -> text of the special tokens, as transformers gives them to a template.
        template: the chat template's text, None where there is none.
        begin, after: ids that tokenizer.json puts before every text, and behind it. The latter
            are never added: behind a prompt they would end what is to be continued.

    Raises:
        UserError: no readable tokenizer.json, or several templates and none of them the default.
    """

    def __init__(self, checkpoint: str | Path, *, date: datetime.date = DATE) -> None:
        from tokenizers import Tokenizer as Backend

        self.folder, self.date = Path(checkpoint), date
        path = self.folder / "tokenizer.json"
        try:
            self.backend: Backend = Backend.from_file(str(path))
            self.backend.no_padding()
            self.backend.no_truncation()
            self.begin, self.after = _around(self.backend)
        except Exception as error:  # the library raises plain Exception
            raise UserError(
                f"no readable tokenizer.json ({one_line(error)})",
                where=str(path),
                fix="put the model's fast tokenizer into the checkpoint folder",
            ) from error
        self.config = self._json("tokenizer_config.json")
        self.special = self._special()
        self.template = self._template()
        self._mark = self.special.get("bos_token") or self.special.get("eos_token")

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            value = json.loads(path.read_text("utf-8")) if path.exists() else {}
            if not isinstance(value, dict):
                raise ValueError
        except (ValueError, OSError) as error:
            raise UserError(
                "is no JSON object", where=str(path), fix="make the checkpoint again"
            ) from error
        return value

    def _special(self) -> dict[str, str]:
        """Named tokens, and those that a model names itself (`turn_token`, say)."""
        given = dict(self.config)
        if "added_tokens_decoder" not in given:  # else transformers does not read the old file
            given |= self._json("special_tokens_map.json")
        extra = given.get("extra_special_tokens")
        given |= extra if isinstance(extra, dict) else {}
        own = [n for n in given if n.endswith("_token") or n in (extra or ())]
        found = {}
        for name in (*_NAMED, *sorted({*own} - {*_NAMED})):
            value = given.get(name)
            text = value.get("content") if isinstance(value, dict) else value
            if isinstance(text, str):
                found[name] = text
        return found

    def _template(self) -> str | None:
        path = self.folder / "chat_template.jinja"
        given = self.config.get("chat_template")
        try:
            if path.exists():
                return path.read_text("utf-8")
            if given is None or isinstance(given, str):
                return given or None
            named = {str(t["name"]): str(t["template"]) for t in given}
        except (ValueError, OSError, KeyError, TypeError) as error:
            raise UserError(
                f"no readable chat template ({one_line(error)})",
                where=str(self.folder),
                fix="mend chat_template in the checkpoint's tokenizer files",
            ) from error
        if "default" not in named:
            raise UserError(
                f"has the chat templates {', '.join(sorted(named))}, and none called default",
                where=str(self.folder / "tokenizer_config.json"),
                fix="name one of them default, or leave one",
            )
        return named["default"]

    # -- ids --------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[int]:
        """Ids of a text; what begins every text once, also where the text has it itself.

        As lm-evaluation-harness 0.4.13 does (HFLM.tok_encode), so that likelihoods and texts
        compare item by item.
        """
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of each text."""
        found = self.backend.encode_batch_fast(list(texts), add_special_tokens=False)
        marked = [bool(self._mark and t.startswith(self._mark)) for t in texts]
        return [e.ids if m else [*self.begin, *e.ids] for e, m in zip(found, marked, strict=True)]

    def continued(self, prompt: Sequence[int], text: str) -> list[int]:
        """Ids that spell `text` behind `prompt`, encoded apart from it.

        Llama 2's kind puts a space before whatever it encodes; behind a line feed it does not.
        """
        alone = self.backend.encode(text, add_special_tokens=False).ids
        anchor = self.backend.encode("\n", add_special_tokens=False).ids
        behind = self.backend.encode("\n" + text, add_special_tokens=False).ids
        shown = text
        for special in self._special_ids:
            shown = shown.replace(special, "")
        if behind[: len(anchor)] == anchor and self.spell(prompt, alone) != shown:
            other = behind[len(anchor) :]
            return other if self.spell(prompt, other) == shown else alone
        return alone

    def decode(self, ids: Sequence[int]) -> str:
        """Text of ids that nothing stands before, special tokens left out."""
        return str(self.backend.decode(list(ids), skip_special_tokens=True))

    def spell(self, prompt: Sequence[int], ids: Iterable[int]) -> str:
        """The text that ids spell behind a prompt. See `Spelling`."""
        spelling = Spelling(self, prompt)
        for token in ids:
            spelling.add(token)
        return spelling.text

    def special_id(self, text: str) -> int | None:
        """The id of a special token, which no text shows; None if `text` is none."""
        return self._special_ids.get(text)

    def holds_special(self, text: str) -> bool:
        """Whether a text has a special token in it, and more."""
        return text not in self._special_ids and any(s in text for s in self._special_ids if s)

    @cached_property
    def _special_ids(self) -> dict[str, int]:
        added = self.backend.get_added_tokens_decoder()
        return {token.content: number for number, token in added.items() if token.special}

    # -- turns ------------------------------------------------------------------------------------

    @cached_property
    def _compiled(self) -> Template:
        assert self.template is not None
        where = f"chat template of {self.folder}"
        return Template(self.template, self.special, self.date, where)

    def render(self, messages: Messages, *, add_generation_prompt: bool = False) -> str:
        """A conversation under the chat template, which must be there.

        Raises:
            UserError: the template does not compile, or refuses the messages.
        """
        return self._compiled.render(messages, add_generation_prompt=add_generation_prompt)

    def ask(self, messages: Messages) -> str:
        """What the model reads of a conversation: up to where its turn begins, or where the turn
        that is begun for it ends.

        Raises:
            UserError: as `render`.
        """
        if messages[-1]["role"] == "assistant":
            return self._compiled.render_open(messages)
        return self.render(messages, add_generation_prompt=True)

    def exchange(self, prompt: str, response: str) -> tuple[str, str]:
        """A user's turn up to where the answer begins, and the answer with what closes it.

        Raises:
            UserError: the template refuses it, or an answered turn begins otherwise than an open
                one, so that nothing asked would look like what was learnt.
        """
        user = {"role": "user", "content": prompt}
        before = self.render([user], add_generation_prompt=True)
        whole = self.render([user, {"role": "assistant", "content": response}])
        if not whole.startswith(before):
            raise UserError(
                "with an answer does not begin as without one",
                where=self._compiled.where,
                fix="use a template whose generation prompt is a prefix",
            )
        return before, whole[len(before) :]

    @property
    def template_key(self) -> str:
        """All that a rendered text depends on beside the tokenizer's files: template and date."""
        if self.template is None:
            return ""
        date = self._compiled.date
        return self.template if date is None else f"{self.template}\n{date.isoformat()}"

    @cached_property
    def closing(self) -> str:
        """What the template puts behind an answer; `` without a template.

        Raises:
            UserError: the template refuses a turn and its answer, or hides the answer.
        """
        if self.template is None:
            return ""
        _, answer, closing = self.exchange("question", _ANSWER)[1].rpartition(_ANSWER)
        if not answer:
            raise UserError(
                "the chat template does not show an answer as it is",
                where=self._compiled.where,
                fix="use a template that does",
            )
        return closing

    @cached_property
    def turn_end(self) -> str | None:
        """The special token that ends an answer: the first in `closing`, else `eos_token`."""
        ids = set(self._special_ids.values())
        for token in self.backend.encode(self.closing, add_special_tokens=False).ids:
            if token in ids:
                return self.backend.id_to_token(token)
        return self.special.get("eos_token")

    @property
    def digest(self) -> str:
        """Digest of all that decides how a text is encoded."""
        return files.digest(
            [files.sha256_file(self.folder / "tokenizer.json"), self.template_key, self.special]
        )


class Spelling:
    """The text that ids spell behind a prompt, token by token, as vLLM 0.32 gives it.

    A token's text depends on what stands before it: Llama 2's kind drops a space at the beginning
    of whatever is decoded, and a character may be spread over tokens. Half a character at the end
    is no text yet.
    """

    def __init__(self, tokenizer: Tokenizer, prompt: Sequence[int]) -> None:
        from tokenizers.decoders import DecodeStream

        self._backend = tokenizer.backend
        self._stream = DecodeStream(ids=list(prompt), skip_special_tokens=True)
        self.text = ""

    def add(self, token: int) -> str:
        """Add a token; the text that is new with it."""
        try:
            new = self._stream.step(self._backend, token)
        except Exception as error:
            if not str(error).startswith("Invalid prefix"):
                raise
            # Bytes that are no UTF-8 change what was read before them: begin anew, as vLLM does.
            from tokenizers.decoders import DecodeStream

            self._stream = DecodeStream(skip_special_tokens=True)
            new = self._stream.step(self._backend, token)
        self.text += new or ""
        return new or ""


def _around(backend: Backend) -> tuple[list[int], list[int]]:
    """Ids that a post-processor puts before and behind a text."""
    whole = backend.encode("a").ids
    text = backend.encode("a", add_special_tokens=False).ids
    at = next(i for i in range(len(whole)) if whole[i : i + len(text)] == text)
    return whole[:at], whole[at + len(text) :]
