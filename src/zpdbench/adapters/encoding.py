"""Examples as token sequences: template, tokens, labels, and the limit on length.

Text becomes tokens as in evaluation, by `zpdbench.text`, without transformers: importing it takes
six seconds a run.
"""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zpdbench import files
from zpdbench.errors import UserError
from zpdbench.text.template import DATE
from zpdbench.text.tokenizer import Tokenizer

FORMAT = 2
"""Raised when encoded tokens change for equal input; part of the cache's key."""

PLAIN_TEMPLATE = "### Instruction:\n{prompt}\n\n### Response:\n"
"""For models without a chat template."""


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
    """How a checkpoint's examples become tokens.

    Args:
        checkpoint: folder in Hugging Face's layout.
        date: what its chat template takes for today.

    Attributes:
        tokenizer: tokenizer.json as it is.
        end: the token that ends an answer, as it is learnt: the turn's end under the chat template,
            `eos_token` where that has none.

    Raises:
        UserError: no readable tokenizer.json, or no end token is named.
    """

    def __init__(self, checkpoint: str | Path, *, date: datetime.date = DATE) -> None:
        self.text = Tokenizer(checkpoint, date=date)
        self.tokenizer, self.template = self.text.backend, self.text.template
        eos = self.text.special.get("eos_token")
        ends = {t: self.tokenizer.token_to_id(t) for t in (self.text.turn_end, eos) if t}
        self._ends = {text: token for text, token in ends.items() if token is not None}
        if eos not in self._ends:
            raise UserError(
                "names no eos_token that the tokenizer has",
                where=str(self.text.folder / "tokenizer_config.json"),
                fix="a model must have an end token to be fine-tuned",
            )
        self.end: int = next(iter(self._ends.values()))

    @property
    def digest(self) -> str:
        """Digest of all that decides how a text is encoded."""
        return files.digest([FORMAT, PLAIN_TEMPLATE, self.text.digest])

    def ends_early(self, response: str) -> bool:
        """Whether a response's own text holds an end token, so that it is cut there."""
        return any(text in response for text in self._ends)

    def renderer(self) -> Callable[[str, str], tuple[str, str]]:
        """A function (prompt, response) -> (text before the response, response and its end)."""
        if self.template is None:
            return lambda prompt, response: (PLAIN_TEMPLATE.format(prompt=prompt), response)

        def chat(prompt: str, response: str) -> tuple[str, str]:
            before, answered = self.text.exchange(prompt, response)
            return before, answered.removesuffix(self._loose)

        return chat

    def encode(
        self, prompts: Sequence[str], responses: Sequence[str], max_tokens: int, batch: int = 2048
    ) -> Tokens:
        """Encode examples; labels are the response's tokens and one end-of-turn token.

        An example longer than `max_tokens` loses tokens at its prompt's left, at least one prompt
        token stays; one whose response alone leaves no room for it is marked as not fitting.
        """
        render = self.renderer()
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
            before = self.text.encode_batch([t[0] for t in texts])
            whole = self.text.encode_batch([t[0] + t[1] for t in texts])
            for text, head, full in zip(texts, before, whole, strict=True):
                tail = full[len(head) :]
                if full[: len(head)] != head:
                    # A merge reaches across the prompt's end; generation never sees it, so the
                    # two parts are encoded apart.
                    tail = self.text.continued(head, text[1])
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

    @property
    def _loose(self) -> str:
        """What the template puts behind an answer, where no special token is in it: not learnt."""
        closing = self.text.closing
        return "" if any(text in closing for text in self._ends) else closing

    def _ended(self, tail: list[int]) -> list[int]:
        """`tail` up to its first end token; one is put there if it has none."""
        at = next((i for i, token in enumerate(tail) if token in self._ends.values()), None)
        return [*tail, self.end] if at is None else tail[: at + 1]


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
