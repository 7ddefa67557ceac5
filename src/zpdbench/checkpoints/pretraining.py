"""Pretraining of a mini model from scratch on one CPU thread, the same bytes every time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from zpdbench import startup
from zpdbench.progress import track

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

    from zpdbench.embedded import Text

CONTEXT = 512
"""Positions that a mini model is made for (tokens); the generated texts are far shorter."""


@dataclass(frozen=True)
class Recipe:
    """What makes a model of a million parameters learn in a minute (all measured, docs/mini.md).

    Attributes:
        rows, width: a step's texts are packed into so many rows of so many tokens.
        learning_rate: the peak; a short warm-up, then a cosine to a tenth.
        prompt_weight: weight of a given token in the loss (one to be learnt weighs 1).
        answer_weight: a text's learnt tokens weigh this much together at least, so that a
            one-letter answer is heard beside a chain of sums.
        initializer_range: standard deviation of the initial weights; 0.02 is for wide models.
    """

    rows: int = 8
    width: int = 128
    learning_rate: float = 3e-3
    weight_decay: float = 0.1
    warmup: int = 30
    prompt_weight: float = 0.1
    answer_weight: float = 16.0
    initializer_range: float = 0.08


RECIPE = Recipe()


def build(
    architecture: Literal["qwen2", "llama"],
    *,
    vocabulary: int,
    hidden_size: int,
    layers: int,
    eos: int,
    pad: int,
    seed: int,
    recipe: Recipe = RECIPE,
) -> PreTrainedModel:
    """A fresh float32 model; heads of size 32 (vLLM's smallest on CPU), tied embeddings."""
    with startup.uncollected():
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    kinds = {"qwen2": (Qwen2Config, Qwen2ForCausalLM), "llama": (LlamaConfig, LlamaForCausalLM)}
    make_config, make_model = kinds[architecture]
    heads = hidden_size // 32
    config = make_config(
        vocab_size=vocabulary,
        hidden_size=hidden_size,
        intermediate_size=hidden_size * 3,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        initializer_range=recipe.initializer_range,
        bos_token_id=None,
        eos_token_id=eos,
        pad_token_id=pad,
        dtype="float32",
    )
    torch.manual_seed(seed)
    model = make_model(config).float()
    model.generation_config.do_sample = False
    return model


def encode(tokenizer: Tokenizer, texts: Sequence[Text]) -> list[tuple[list[int], int]]:
    """Token ids of each text, and how many of them are given (their loss does not count)."""
    from zpdbench.embedded.tokenizer import END, conversation

    pairs = [
        conversation(t.given, t.learnt) if t.is_conversation else (t.given, t.learnt + END)
        for t in texts
    ]
    given = tokenizer.encode_batch([g for g, _ in pairs])
    learnt = tokenizer.encode_batch([e for _, e in pairs])
    return [(g.ids + e.ids, len(g.ids)) for g, e in zip(given, learnt, strict=True)]


def pack(lengths: Iterable[int], rows: int, width: int) -> Iterator[list[list[int]]]:
    """Positions of documents, row by row, batch by batch.

    Documents are taken in order; each goes to the first of `rows` rows of `width` tokens that
    has room, and one that fits nowhere starts the next batch. The last batch may be short.

    Raises:
        ValueError: a document is longer than a row.
    """
    batch: list[list[int]] = [[] for _ in range(rows)]
    room = [width] * rows
    for position, length in enumerate(lengths):
        if length > width:
            raise ValueError(f"a document of {length} tokens in rows of {width}")
        row = next((i for i in range(rows) if room[i] >= length), None)
        if row is None:
            yield batch
            batch, room, row = [[] for _ in range(rows)], [width] * rows, 0
        batch[row].append(position)
        room[row] -= length
    yield batch


def pretrain(
    model: PreTrainedModel,
    tokenizer: Tokenizer,
    *,
    steps: int,
    seed: int,
    shares: Mapping[str, float],
    title: str,
    recipe: Recipe = RECIPE,
) -> float:
    """Train `model` in place for `steps` steps on generated text; returns the last mean loss.

    Args:
        seed, shares: of `embedded.pretraining_texts`.

    Raises:
        FloatingPointError: the loss is not finite.
    """
    import torch
    from torch.nn import functional

    from zpdbench.embedded import pretraining_texts

    # About 24 documents fit a batch; what is drawn is never short of the steps.
    texts = pretraining_texts(steps * 40, seed, shares)
    documents: list[tuple[list[int], int]] = []

    def lengths() -> Iterator[int]:
        # Encoded as they are asked for: two fifths never are.
        for start in range(0, len(texts), 1024):
            documents.extend(encode(tokenizer, texts[start : start + 1024]))
            yield from (len(ids) for ids, _ in documents[start:])

    packed = pack(lengths(), recipe.rows, recipe.width)
    groups: list[dict[str, Any]] = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(
        groups,
        lr=recipe.learning_rate,
        betas=(0.9, 0.98),
        weight_decay=recipe.weight_decay,
        fused=True,
    )

    def rate(step: int) -> float:
        if step < recipe.warmup:
            return (step + 1) / recipe.warmup
        share = (step - recipe.warmup) / max(steps - recipe.warmup, 1)
        return 0.1 + 0.45 * (1 + math.cos(math.pi * share))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    causal = torch.ones(recipe.width, recipe.width, dtype=torch.bool).tril()
    model.train()
    recent: list[float] = []
    with track(title, steps) as progress:
        for _ in range(steps):
            ids = torch.zeros(recipe.rows, recipe.width, dtype=torch.long)
            targets = torch.full((recipe.rows, recipe.width), -1)
            weights = torch.zeros(recipe.rows, recipe.width)
            positions = torch.zeros(recipe.rows, recipe.width, dtype=torch.long)
            owner = torch.full((recipe.rows, recipe.width), -1)
            for row, members in enumerate(next(packed)):
                at = 0
                for tokens, given in (documents[i] for i in members):
                    end = at + len(tokens)
                    ids[row, at:end] = torch.tensor(tokens)
                    # The token at a place is predicted from the place before it.
                    targets[row, at : end - 1] = ids[row, at + 1 : end]
                    first = max(at + given - 1, at)
                    weights[row, at:first] = recipe.prompt_weight
                    learnt = max(end - 1 - first, 1)
                    weights[row, first : end - 1] = max(1.0, recipe.answer_weight / learnt)
                    positions[row, at:end] = torch.arange(len(tokens))
                    owner[row, at:end] = at
                    at = end
            # A text sees itself alone, as it does when it is asked.
            seen = (owner[:, :, None] == owner[:, None, :]) & causal
            hidden = model.model(
                input_ids=ids,
                position_ids=positions,
                attention_mask=seen[:, None],
                use_cache=False,
            ).last_hidden_state
            logits = functional.linear(hidden, model.lm_head.weight).flatten(0, 1)
            losses = functional.cross_entropy(
                logits, targets.flatten(), ignore_index=-1, reduction="none"
            )
            loss = (losses * weights.flatten()).sum() / weights.sum()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
            value = float(loss.detach())
            if not math.isfinite(value):
                raise FloatingPointError(f"{title}: the loss is {value}")
            recent = [*recent[-19:], value]
            progress.advance(1, f"loss {sum(recent) / len(recent):.3f}")
    model.eval()
    return sum(recent) / len(recent)
