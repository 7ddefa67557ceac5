"""Items: a benchmark's documents as they are asked, with ids, golds and digests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from zpdbench import files
from zpdbench.benchmarks import answers, rendering
from zpdbench.benchmarks.definition import TARGET_DELIMITER, Definition
from zpdbench.benchmarks.loaders import Docs
from zpdbench.errors import UserError
from zpdbench.text.unicode import encodable


@dataclass(frozen=True)
class Item:
    """One row of an items file; the columns' meaning is in docs/benchmarks.md."""

    item_id: str
    task: str
    kind: str
    prompt: str
    messages: str
    choices: list[str]
    letters: bool
    stop: list[str]
    max_tokens: int
    gold: str
    interim: bool
    doc: str
    template: str
    digest: str


def item_id(definition: Definition, task: str, row: int, doc: Mapping[str, Any]) -> str:
    """HumanEval's task_id; SUBJECT/row where there are several tasks; else the 0-based row."""
    if "task_id" in doc:
        return str(doc["task_id"])
    return f"{task}/{row}" if definition.open or len(definition.tasks) > 1 else str(row)


def gold_of(definition: Definition, task: str, doc: Mapping[str, Any]) -> str:
    """What an answer is compared with: a choice's index, a number, a text; ``""`` for programs."""
    if definition.kind == "choice":
        return str(rendering.gold_index(definition.task(task), doc))
    if definition.answer == "number":
        return answers.number_gold(doc)
    gold = definition.task(task).gold
    return rendering.fill(gold, doc) if gold else ""


def make_items(
    definition: Definition,
    docs: Docs,
    pools: Docs,
    *,
    num_fewshot: int | None = None,
    max_tokens: int | None = None,
    chat: bool = False,
    multiturn: bool = True,
    items: int | None = None,
    interim_items: int | None = None,
    items_per: str = "benchmark",
    draw: str = "random",
    draw_seed: int = 0,
) -> list[Item]:
    """Render a benchmark.

    Args:
        docs: task -> documents, in the file's order.
        pools: task -> the documents that shots come from.
        num_fewshot, max_tokens: the definition's if None.
        chat: whether a chat template is applied.
        multiturn: whether each shot is then a turn; else the question's turn holds all.
        items: how many, in all or a task; all if None. Tasks share a total as evenly as they can.
        interim_items: how many of those are also asked on the way.
        items_per: `benchmark` or `task`.
        draw: `random`, or `first`: a task's first are taken (the harness's `--limit`). Either way
            the items of a smaller number are among those of a larger, interim ones among the final.
        draw_seed: of the random draw.

    Raises:
        UserError: more asked than there are, too few shots, or a document that does not render.
    """
    shots = definition.num_fewshot if num_fewshot is None else num_fewshot
    if definition.fewshot == "none" and shots:
        raise UserError(
            f"benchmarks.{definition.name}.num_fewshot: {definition.name} has no shots",
            fix="take it out",
        )
    limit = definition.max_tokens if max_tokens is None else max_tokens
    sizes = {task: len(members) for task, members in docs.items()}
    order = {t: _order(definition.name, t, n, draw, draw_seed) for t, n in sizes.items()}
    # Whose turn it is where a total does not go round; of the first, spread over the list.
    turns = None if draw == "first" else _ranked(definition.name, list(sizes), draw_seed)
    chosen = _quota(definition.name, sizes, items, items_per, turns)
    interim = _quota(definition.name, chosen, interim_items or 0, items_per, turns)
    result = []
    for task, members in docs.items():
        template = definition.template_id(
            task, num_fewshot=shots, chat=chat, multiturn=multiturn, max_tokens=limit
        )
        try:
            rows = sorted(order[task][: chosen[task]])
            documents = rows[-1] + 1 if rows else 0
            drawn = rendering.draw_shots(definition, pools.get(task, []), documents, shots)
        except ValueError as error:
            raise UserError(
                f"{task}: {error}", fix=f"lower benchmarks.{definition.name}.num_fewshot"
            ) from error
        on_the_way = set(order[task][: interim[task]])
        for row in rows:
            doc = members[row]
            name = item_id(definition, task, row, doc)
            try:
                rendered = rendering.render(
                    definition.task(task), doc, drawn[row], chat=chat, multiturn=multiturn
                )
                gold = gold_of(definition, task, doc)
            except (KeyError, ValueError) as error:
                raise UserError(
                    f"{definition.name} {name}: {error}", fix="mend the document or the template"
                ) from error
            fields: dict[str, Any] = {
                "item_id": name,
                "task": task,
                "kind": definition.kind,
                "prompt": rendered.prompt,
                "messages": files.canonical_json(rendered.messages) if chat else "",
                "choices": list(rendered.choices),
                "letters": definition.answer == "letter",
                "stop": definition.stops,
                "max_tokens": limit if definition.kind == "generate" else 0,
                "gold": gold,
                "doc": encodable(files.canonical_json(dict(doc)), f"{definition.name} {name}"),
                "template": template,
            }
            # Being asked on the way does not change an item: its answers stay in the cache.
            result.append(Item(**fields, interim=row in on_the_way, digest=files.digest(fields)))
    seen = set()
    for item in result:
        if item.item_id in seen:
            raise UserError(
                f"{definition.name}: two items are called {item.item_id!r}",
                fix="give each document an id of its own",
            )
        seen.add(item.item_id)
    return result


def _order(benchmark: str, task: str, size: int, draw: str, seed: int) -> list[int]:
    """A task's rows in the order in which they are taken; they are asked in the file's."""
    return (
        list(range(size)) if draw == "first" else _ranked(f"{benchmark}/{task}", range(size), seed)
    )


def _ranked(name: str, members: Sequence[Any], seed: int) -> list[Any]:
    """Members in the order of a hash of seed, name and member: a random order.

    No generator is in it, and a longer file does not change the order of what was there.
    """

    def rank(member: Any) -> bytes:
        return hashlib.sha256(f"{seed}\0{name}\0{member}".encode()).digest()

    return sorted(members, key=rank)


def _quota(
    name: str, sizes: Mapping[str, int], wanted: int | None, per: str, turns: list[str] | None
) -> dict[str, int]:
    """How many items each task gives: all, so many each, or an even share of a total.

    Args:
        turns: the tasks in the order in which they give what is left of a total; None: spread.
    """
    if wanted is None:
        return dict(sizes)
    if per == "task":
        for task, size in sizes.items():
            if size < wanted:
                raise UserError(
                    f"benchmarks.{name}.items: {task} has only {size} items, {wanted} asked",
                    fix="ask for fewer",
                )
        return dict.fromkeys(sizes, wanted)
    if wanted > sum(sizes.values()):
        raise UserError(
            f"benchmarks.{name}.items: there are only {sum(sizes.values())} items, {wanted} asked",
            fix="ask for fewer",
        )
    quota = dict.fromkeys(sizes, 0)
    left = wanted
    while left:
        room = [t for t in sizes if quota[t] < sizes[t]]
        # Fewer items than tasks: by turns, or spread over the list, so that no end is missed.
        if left < len(room):
            by_turns = [t for t in turns or () if t in room]
            share = by_turns[:left] or [room[i * len(room) // left] for i in range(left)]
        else:
            share = room
        for task in share:
            quota[task] += 1
        left -= len(share)
    return quota


def digest_of(items: Sequence[Item]) -> str:
    """What a set of items is: each one's name and digest, in order, and whether it is interim."""
    return files.digest([[i.item_id, i.digest, i.interim] for i in items])


def choice_texts(item: Mapping[str, Any]) -> list[str]:
    """An item's choices without the delimiter that was put before them."""
    delimiter = "" if item["messages"] else TARGET_DELIMITER
    return [choice.removeprefix(delimiter) for choice in item["choices"]]


COLUMNS = tuple(Item.__dataclass_fields__)


def write(path: Any, benchmark: str, items: Sequence[Item]) -> None:
    """Write items as Parquet: equal items give equal bytes."""
    import polars as pl

    schema: dict[str, Any] = {
        "benchmark": pl.String,
        **dict.fromkeys(COLUMNS, pl.String),
        "choices": pl.List(pl.String),
        "stop": pl.List(pl.String),
        "letters": pl.Boolean,
        "interim": pl.Boolean,
        "max_tokens": pl.Int64,
    }
    frame = pl.DataFrame([{"benchmark": benchmark, **asdict(i)} for i in items], schema=schema)
    with files.atomic_path(path) as temporary:
        frame.write_parquet(temporary, compression="zstd", statistics=False)


def read(path: Any) -> list[dict[str, Any]]:
    """The rows of an items file, a dictionary each.

    Raises:
        UserError: missing, truncated, or no items file.
    """
    import polars as pl

    try:
        frame = pl.read_parquet(path)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(
            "no readable items file", where=str(path), fix="delete it; it is made again"
        ) from error
    if missing := [c for c in ("benchmark", *COLUMNS) if c not in frame.columns]:
        raise UserError(f"no column {missing[0]!r}", where=str(path), fix="delete it")
    return frame.to_dicts()
