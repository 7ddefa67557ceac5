"""Examples as token sequences: template, tokens, labels, and the limit on length.

Reads a checkpoint's tokenizer.json with the `tokenizers` library and renders its chat template with
jinja2 as transformers does, because importing transformers for it takes six seconds a run.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from zpdbench import files
from zpdbench.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FORMAT = 1
"""Raised when encoded tokens change for equal input; part of the cache's key."""

PLAIN_TEMPLATE = "### Instruction:\n{prompt}\n\n### Response:\n"
"""For models without a chat template."""

_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token")


@dataclass(frozen=True)
class Tokens:
    """Encoded examples: example i is `ids[starts[i]:starts[i] + lengths[i]]`.

    Attributes:
        ids: all tokens, shape (tokens,), int32; may be memory-mapped.
        starts, lengths: where each example is, shape (examples,), int64.
        prompts: leading tokens of each example that carry no label, shape (examples,), int64.
        cut: tokens cut from the prompt's left, shape (examples,), int64.
        fits: whether the response fits the limit; an example that does not is never trained on.
    """

    ids: NDArray[np.int32]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    prompts: NDArray[np.int64]
    cut: NDArray[np.int64]
    fits: NDArray[np.bool_]

    def take(self, rows: NDArray[np.int64]) -> Tokens:
        """The examples `rows`, in that order; shares `ids`."""
        return Tokens(
            self.ids,
            self.starts[rows],
            self.lengths[rows],
            self.prompts[rows],
            self.cut[rows],
            self.fits[rows],
        )

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        """Tokens of one example."""
        return self.ids[self.starts[row] : self.starts[row] + self.lengths[row]]


class Encoder:
    """A checkpoint's tokenizer and template."""

    def __init__(self, checkpoint: str | Path) -> None:
        """
        Raises:
            UserError: there is no tokenizer.json, or it is unreadable, or no end token is named.
        """
        from tokenizers import Tokenizer

        self.folder = Path(checkpoint)
        path = self.folder / "tokenizer.json"
        try:
            self.tokenizer: Tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:
            raise UserError(
                f"no readable tokenizer.json ({error})",
                where=str(path),
                fix="save the model's fast tokenizer into the checkpoint folder",
            ) from error
        self.tokenizer.no_padding()
        self.tokenizer.no_truncation()
        config = self._json("tokenizer_config.json")
        special = {**self._json("special_tokens_map.json"), **config}
        self.special: dict[str, str] = {}
        for name in _SPECIAL:
            value = special.get(name)
            value = value.get("content") if isinstance(value, dict) else value
            if value:
                self.special[name] = value
        end = self.special.get("eos_token")
        found = self.tokenizer.token_to_id(end) if end else None
        if found is None:
            raise UserError(
                "names no eos_token that the tokenizer has",
                where=str(self.folder / "tokenizer_config.json"),
                fix="a model must have an end token to be fine-tuned",
            )
        self.end: int = found
        self.template = self._template(config)

    def _json(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        try:
            return json.loads(path.read_text("utf-8")) if path.exists() else {}
        except ValueError as error:
            raise UserError(
                "is no JSON", where=str(path), fix="make the checkpoint again"
            ) from error

    def _template(self, config: dict[str, Any]) -> str | None:
        path = self.folder / "chat_template.jinja"
        if path.exists():
            return path.read_text("utf-8")
        template = config.get("chat_template")
        if isinstance(template, list):
            named = {t["name"]: t["template"] for t in template}
            template = named.get("default")
        return template

    @property
    def digest(self) -> str:
        """Digest of all that decides how a text is encoded."""
        return files.digest(
            [
                FORMAT,
                files.sha256_file(self.folder / "tokenizer.json"),
                self.template or PLAIN_TEMPLATE,
                self.special,
            ]
        )

    def ends_early(self, response: str) -> bool:
        """Whether a response's own text holds the end token, so that it is cut there."""
        return self.special["eos_token"] in response

    def renderer(self) -> Callable[[str, str], tuple[str, str]]:
        """A function (prompt, response) -> (text before the response, response and its end)."""
        if self.template is None:
            return lambda prompt, response: (PLAIN_TEMPLATE.format(prompt=prompt), response)
        render = _compile(self.template)

        def chat(prompt: str, response: str) -> tuple[str, str]:
            user = {"role": "user", "content": prompt}
            answer = {"role": "assistant", "content": response}
            before = render(messages=[user], add_generation_prompt=True, **self.special)
            whole = render(messages=[user, answer], add_generation_prompt=False, **self.special)
            if not whole.startswith(before):
                raise UserError(
                    "with an answer does not begin as without one",
                    where=f"chat template of {self.folder}",
                    fix="use a template whose generation prompt is a prefix",
                )
            return before, whole[len(before) :]

        return chat

    def encode(
        self, prompts: Sequence[str], responses: Sequence[str], max_tokens: int, batch: int = 2048
    ) -> Tokens:
        """Encode examples; labels are the response's tokens and one end-of-turn token.

        An example longer than `max_tokens` loses tokens at its prompt's left, at least one prompt
        token stays; one whose response alone leaves no room for it is marked as not fitting.
        """
        render = self.renderer()
        plain = self.template is None
        ids: list[NDArray[np.int32]] = []
        starts: list[int] = []
        cuts: list[int] = []
        fits: list[bool] = []
        for first in range(0, len(prompts), batch):
            texts = [
                render(p, r)
                for p, r in zip(
                    prompts[first : first + batch], responses[first : first + batch], strict=True
                )
            ]
            before = self._encode([t[0] for t in texts], plain)
            whole = self._encode([t[0] + t[1] for t in texts], plain)
            for text, head, full in zip(texts, before, whole, strict=True):
                tail = full[len(head) :]
                if full[: len(head)] != head:
                    # A merge reaches across the prompt's end; generation never sees it, so the
                    # two parts are encoded apart.
                    tail = self.tokenizer.encode(text[1], add_special_tokens=False).ids
                tail = self._ended(tail)
                cut = max(len(head) + len(tail) - max_tokens, 0)
                fit = cut < len(head)
                head = head[cut:] if fit else head[:1]
                tail = tail if fit else tail[: max_tokens - 1]
                ids.append(np.array([*head, *tail], dtype=np.int32))
                starts.append(len(head))
                cuts.append(cut)
                fits.append(fit)
        lengths = np.array([len(i) for i in ids], dtype=np.int64)
        return Tokens(
            ids=np.concatenate(ids) if ids else np.zeros(0, np.int32),
            starts=np.cumsum(lengths) - lengths,
            lengths=lengths,
            prompts=np.array(starts, dtype=np.int64),
            cut=np.array(cuts, dtype=np.int64),
            fits=np.array(fits, dtype=np.bool_),
        )

    def _encode(self, texts: list[str], special: bool) -> list[list[int]]:
        found = self.tokenizer.encode_batch_fast(texts, add_special_tokens=special)
        return [e.ids for e in found]

    def _ended(self, tail: list[int]) -> list[int]:
        """`tail` up to its first end-of-turn token; one is put there if it has none."""
        if self.end in tail:
            return tail[: tail.index(self.end) + 1]
        return [*tail, self.end]


def load_or_encode(
    encoder: Encoder,
    prompts: Sequence[str],
    responses: Sequence[str],
    max_tokens: int,
    corpus_digest: str,
    cache: Path,
) -> Tokens:
    """The corpus's tokens, memory-mapped from the content-addressed cache, encoded if not there."""
    key = files.digest([encoder.digest, corpus_digest, max_tokens])
    folder = cache / "tokens" / key
    names = [f.name for f in fields(Tokens)]
    if not folder.is_dir():
        tokens = encoder.encode(prompts, responses, max_tokens)
        with files.shared_directory(folder) as temporary:
            for name in names:
                np.save(temporary / f"{name}.npy", getattr(tokens, name))
    try:
        return Tokens(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in names))
    except (OSError, ValueError):
        shutil.rmtree(folder, ignore_errors=True)
        return encoder.encode(prompts, responses, max_tokens)


def _compile(template: str) -> Callable[..., str]:
    """A chat template as transformers compiles it (sandboxed jinja2, trimmed blocks)."""
    from jinja2.exceptions import TemplateError
    from jinja2.ext import loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def fail(message: str) -> None:
        raise TemplateError(message)

    def to_json(value: Any, indent: int | None = None, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=False, indent=indent, **options)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = fail
    try:
        return environment.from_string(template).render
    except TemplateError as error:
        raise UserError(
            f"the chat template does not compile ({error})",
            fix="mend chat_template in the checkpoint's tokenizer files",
        ) from error
