"""What the search for contamination finds: items pasted in six forms, and false alarms.

    python benchmarks/contamination_found.py --data DIR [--items 10] [--seed 0]

Of each real benchmark (DIR has the files that docs/benchmarks.md lists) `--items` items of five or
more words are drawn and pasted, each in six forms, among the real instruction sets. The bars: 95 %
of a benchmark's pasted examples are found, and 0.5 % or less of a set's own examples are taken for
an item. Those that really are one (the capital of New Zealand is asked in MMLU and in Alpaca) count
as false alarms all the same. Lists them with `--show`.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ("gsm8k", "humaneval", "mmlu", "kobest")
SETS = {
    "Alpaca, 9,229 at random": "instruct_en/alpaca_random_9229.json",
    "Alpaca, hardest 5 %": "instruct_en/alpaca_cherry_5_percent.json",
    "LLMs from scratch": "instruct_en/rasbt_instruction_1100.json",
    "KoAlpaca": "instruct_ko/koalpaca_v1.0_11432.json",
}
FOUND_BAR, ALARM_BAR = 0.95, 0.005
LEAST_WORDS = 5

Example = tuple[str, str, str]


def items_of(folder: Path) -> list[tuple[str, Any, list[str]]]:
    """(task or benchmark, what is looked for, its choices) of all real items."""
    from zpdbench.benchmarks import contamination, load, loaders, rendering

    found = []
    for name in BENCHMARKS:
        definition = load(name)
        for task_name, task in definition.tasks.items():
            path = folder / task.files["test"]
            docs = loaders.load_file(definition, path, task_name)[task_name]
            rows = [
                {
                    "benchmark": name,
                    "item_id": f"{task_name}/{i}",
                    "task": task_name,
                    "doc": json.dumps(doc),
                }
                for i, doc in enumerate(docs)
            ]
            for doc, text in zip(docs, contamination.texts_of(rows), strict=True):
                choices = doc.get("choices") or rendering.choice_texts(task, doc)
                found.append((task_name if name == "kobest" else name, text, choices))
    return found


def forms(content: str, asked: str, choices: list[str]) -> dict[str, str]:
    """Name -> an example's prompt that holds an item."""
    words = content.split()
    lines = [f"{mark}) {choice}" for mark, choice in zip("abcd", choices, strict=False)]
    return {
        "as asked": asked,
        "as input": f"Do what the text asks, and give a reason.\n\n{content}",
        "with choices": "\n".join([content, *lines]),
        "other case and spaces": "  \n".join(content.swapcase().split()),
        "first 90 % of the words": " ".join(words[: len(words) * 9 // 10]),
        "without each tenth word": " ".join(w for i, w in enumerate(words, 1) if i % 10),
    }


def real_examples(folder: Path) -> dict[str, list[Example]]:
    """Set -> (id, prompt, response) of its examples."""
    return {
        name: [
            (f"{name} {i}", "\n\n".join(filter(None, (r["instruction"], r["input"]))), r["output"])
            for i, r in enumerate(json.loads((folder / file).read_text("utf-8")))
        ]
        for name, file in SETS.items()
    }


def measure(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Pasted and found by (benchmark, form); alarms by set; seconds and CPU seconds."""
    from zpdbench.benchmarks import contamination

    items = items_of(folder)
    drawn = random.Random(f"pasted items {seed}")
    pasted: list[Example] = []
    meant: dict[str, tuple[str, str, str]] = {}
    for name in sorted({name for name, *_ in items}):
        long = [i for i in items if i[0] == name and len(i[1].content.split()) >= LEAST_WORDS]
        for _, text, choices in drawn.sample(long, min(count, len(long))):
            for form, prompt in forms(text.content, text.asked[-1], choices).items():
                example = f"pasted {len(pasted)}"
                meant[example] = (name, form, text.item_id)
                pasted.append((example, prompt, "I do not know."))
    sets = real_examples(folder)
    texts = [text for _, text, _ in items]
    started, used = time.monotonic(), time.process_time()
    hits = contamination.find(texts, [*pasted, *(e for part in sets.values() for e in part)])
    spent = (time.monotonic() - started, time.process_time() - used)
    right = {h.example for h in hits if h.example in meant and meant[h.example][2] == h.item_id}
    alarms = {h.example for h in hits} - set(meant)
    return {
        "pasted": Counter(where[:2] for where in meant.values()),
        "found": Counter(meant[example][:2] for example in right),
        "sets": {n: (sum(e[0] in alarms for e in part), len(part)) for n, part in sets.items()},
        "hits": [h for h in hits if h.example in alarms],
        "short": contamination.too_short(texts),
        "seconds": spent,
    }


def main() -> int:
    """Print the tables; 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--items", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--show", action="store_true", help="list the false alarms")
    args = parser.parse_args()
    sys.path.insert(0, str(ROOT / "src"))
    result = measure(args.data, args.items, args.seed)
    bad = False
    names = list(dict.fromkeys(name for name, _ in result["pasted"]))
    kinds = list(dict.fromkeys(form for _, form in result["pasted"]))
    for name in names:
        of = sum(result["pasted"][name, kind] for kind in kinds)
        found = sum(result["found"][name, kind] for kind in kinds)
        bad |= found < FOUND_BAR * of
        parts = ", ".join(f"{kind} {result['found'][name, kind]}" for kind in kinds)
        print(f"{name:<18}{found:5} of {of} found: {parts}")
    for name, (alarms, size) in result["sets"].items():
        bad |= alarms > ALARM_BAR * size
        print(f"{name:<24}{alarms:4} of {size} alarms ({alarms / size:.2%})")
    for name, (few, always, total) in result["short"].items():
        print(f"{name:<18}{few} of {total} items of under five words, {always} also as asked")
    print("{:.0f} s, CPU {:.0f} s".format(*result["seconds"]))
    for hit in result["hits"] if args.show else ():
        print(f"{hit.example}: {hit.item_id} ({hit.kind})")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
