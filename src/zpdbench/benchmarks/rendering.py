"""From a document to what the model reads: the harness's prompt, choices and chat messages.

Source of the rules: EleutherAI/lm-evaluation-harness 0.4.13, `ConfigurableTask.fewshot_context`
and `construct_requests`. Compared byte for byte in tests/benchmarks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from random import Random
from typing import Any

import jinja2
import jinja2.sandbox

from zpdbench.benchmarks.definition import (
    FEWSHOT_DELIMITER,
    TARGET_DELIMITER,
    Definition,
    Task,
    find,
)

Doc = Mapping[str, Any]
FEWSHOT_SEED = 1234
"""The harness's default `fewshot_random_seed`."""

# A definition may come in a stranger's bundle: its templates see documents and nothing else.
_ENVIRONMENT = jinja2.sandbox.ImmutableSandboxedEnvironment(
    undefined=jinja2.StrictUndefined, keep_trailing_newline=True
)


@dataclass(frozen=True)
class Rendered:
    """One document as it is asked.

    Attributes:
        prompt: the whole context as plain text.
        messages: the same as chat messages (role, content), for a chat template; the last is the
            assistant's where the answer is begun for the model.
        choices: what is scored as a continuation, delimiter included; empty if text is generated.
        gold: the right choice's index; None if text is generated.
        answer: a right answer's text without delimiter, as a shot shows it.
    """

    prompt: str
    messages: tuple[dict[str, str], ...]
    choices: tuple[str, ...]
    gold: int | None
    answer: str


@lru_cache(maxsize=1024)
def _compiled(template: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(template)


def fill(template: str, doc: Doc) -> str:
    """A template with a document's fields filled in.

    Raises:
        KeyError: a field that the template names is not in the document.
    """
    try:
        return _compiled(template).render(doc)
    except jinja2.UndefinedError as error:
        raise KeyError(str(error)) from error


def choice_texts(task: Task, doc: Doc) -> list[str]:
    """The texts of a document's choices, without delimiter."""
    return [fill(choice, doc) for choice in task.choices]


def gold_index(task: Task, doc: Doc) -> int | None:
    """0-based index of the right choice; None where text is generated.

    Raises:
        ValueError: it is no index of a choice.
    """
    if not task.choices:
        return None
    index = int(fill(task.gold, doc))
    if not 0 <= index < len(task.choices):
        raise ValueError(f"gold {index} is not one of {len(task.choices)} choices")
    return index


def answer_text(task: Task, doc: Doc) -> str:
    """A right answer's text, as a shot shows it."""
    gold = gold_index(task, doc)
    return fill(task.target, doc) if gold is None else fill(task.choices[gold], doc)


def render(
    task: str | Task,
    doc: Doc,
    shots: Sequence[Doc] = (),
    *,
    chat: bool = False,
    multiturn: bool = True,
) -> Rendered:
    """Render one document.

    Args:
        task: a task, or its name (`gsm8k`, `kobest_copa`, an MMLU subject; `mmlu` for a document
            that has a subject).
        doc: the document, its fields named as in the hub's data set.
        shots: the documents shown before it, in order.
        chat: whether a chat template will be applied: the harness then scores choices without
            the delimiter.
        multiturn: whether each shot is a turn of the chat; else the question's turn holds all.

    Raises:
        KeyError: a field is missing.
        ValueError: the gold is not one of the choices.
    """
    if isinstance(task, str):
        definition, only = find(task)
        task = definition.task(only or definition.task_of(doc))
    description = fill(task.description, doc)
    text = fill(task.text, doc)
    messages = [{"role": "system", "content": description}] if description else []
    prompt = description
    for shot in shots:
        shot_text, shot_answer = fill(task.text, shot), answer_text(task, shot)
        prompt += shot_text + TARGET_DELIMITER + shot_answer + FEWSHOT_DELIMITER
        messages += [
            {"role": "user", "content": shot_text},
            {"role": "assistant", "content": shot_answer},
        ]
    asked = text
    if not multiturn:
        messages = [m for m in messages if m["role"] == "system"]
        asked = prompt.removeprefix(description) + text
    delimiter = "" if chat else TARGET_DELIMITER
    prefix = fill(task.prefix, doc)
    begun = [{"role": "assistant", "content": prefix}] if prefix else []
    # Source: lm_eval.api.utils.requires_delimiter.
    apart = bool(prefix and text) and not (text[-1].isspace() or prefix[0].isspace())
    return Rendered(
        prompt=prompt + text + TARGET_DELIMITER * apart + prefix,
        messages=(*messages, {"role": "user", "content": asked}, *begun),
        choices=tuple(delimiter + choice for choice in choice_texts(task, doc)),
        gold=gold_index(task, doc),
        answer=answer_text(task, doc),
    )


def draw_shots(
    definition: Definition, pool: Sequence[Doc], documents: int, num_fewshot: int
) -> list[list[Doc]]:
    """The shots of a task's first `documents` documents, in order.

    `sample`: one generator a task, seeded once, draws for each document in turn, so the i-th
    document has the same shots however many are asked. `first`: the pool's first.

    Raises:
        ValueError: the pool is smaller than `num_fewshot`.
    """
    if num_fewshot == 0 or definition.fewshot == "none":
        return [[] for _ in range(documents)]
    if len(pool) < num_fewshot:
        raise ValueError(f"{num_fewshot} shots asked of {len(pool)} documents")
    if definition.fewshot == "first":
        return [list(pool[:num_fewshot]) for _ in range(documents)]
    generator = Random(FEWSHOT_SEED)
    pool = list(pool)
    return [generator.sample(pool, num_fewshot) for _ in range(documents)]
