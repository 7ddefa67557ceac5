"""Record what lm-evaluation-harness 0.4.13 sends, as digests that tests compare ours with.

Run in an environment of its own that has `lm_eval==0.4.13` and `datasets`:

    python benchmarks/record_harness_prompts.py DATA_DIR tests/benchmarks/harness_prompts.json

The harness's own task files are used, over data sets that are built here from the authors' files,
read by pandas and json alone: nothing of zpdbench is imported. Each entry is the SHA-256 of the
JSON list, one element a document, of `[context, [continuation, ...], {"until": ..., ...}]`; with a
chat template the context is the JSON list of its messages.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import yaml

KOBEST = {
    "boolq": ("BoolQ", {"Text": "paragraph", "Question": "question", "Answer": "label"}),
    "copa": (
        "COPA",
        {
            "sentence": "premise",
            "question": "question",
            "1": "alternative_1",
            "2": "alternative_2",
            "Answer": "label",
        },
    ),
    "hellaswag": (
        "HellaSwag",
        {"context": "context", "label": "label"}
        | {f"choice{i}": f"ending_{i}" for i in (1, 2, 3, 4)},
    ),
    "sentineg": ("SentiNeg", {"Text": "sentence", "Label": "label"}),
    "wic": (
        "WiC",
        {"Target": "word", "SENTENCE1": "context_1", "SENTENCE2": "context_2", "ANSWER": "label"},
    ),
}


def kobest_split(data: Path, name: str, split: str) -> list[dict[str, Any]]:
    """One KoBEST split with the hub's columns."""
    folder, columns = KOBEST[name]
    frame = pd.read_csv(data / "kobest" / folder / f"{split}.tsv", sep="\t")
    frame = frame[list(columns)].rename(columns=columns)
    if name in ("boolq", "wic"):
        frame["label"] = [int(str(v).lower() == "true") for v in frame["label"]]
    elif name == "copa":
        frame["label"] = frame["label"] - 1
    return frame.to_dict("records")


def mmlu_split(data: Path, subject: str, split: str) -> list[dict[str, Any]]:
    """One subject of MMLU with the hub's columns."""
    path = data / "mmlu" / split / f"{subject}_{split}.csv"
    frame = pd.read_csv(path, header=None, dtype=str, keep_default_na=False)
    return [
        {
            "question": row[0],
            "subject": subject,
            "choices": [row[1], row[2], row[3], row[4]],
            "answer": "ABCD".index(row[5]),
        }
        for row in frame.itertuples(index=False)
    ]


def splits(data: Path, task: str) -> dict[str, list[dict[str, Any]]]:
    """A harness task's data set, by split."""
    if task.startswith("humaneval"):
        frame = pd.read_json(data / "humaneval" / "HumanEval.jsonl.gz", lines=True)
        return {"test": frame.to_dict("records")}
    if task == "gsm8k":
        return {
            s: [json.loads(x) for x in (data / "gsm8k" / f"{s}.jsonl").open(encoding="utf-8")]
            for s in ("train", "test")
        }
    if task.startswith("kobest_"):
        name = task.removeprefix("kobest_")
        files = {"train": "train", "validation": "dev", "test": "test"}
        return {s: kobest_split(data, name, f) for s, f in files.items()}
    subject = task.removeprefix("mmlu_")
    return {s: mmlu_split(data, subject, s) for s in ("dev", "test")}


def harness_task(data: Path, task: str) -> Any:
    """The harness's task of that name, over local data."""
    import datasets
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.tasks import TaskManager

    def download(self: Any, *_: Any, **__: Any) -> None:
        parts = splits(data, task)
        self.dataset = datasets.DatasetDict(
            {s: datasets.Dataset.from_list(rows) for s, rows in parts.items()}
        )

    ConfigurableTask.download = download
    loaded = TaskManager().load([task])
    return loaded["tasks"][task] if "tasks" in loaded else loaded[task]


def digest(value: Any) -> str:
    """SHA-256 of a value's JSON."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def requests(task: Any, shots: int, chat: bool, multiturn: bool) -> list[Any]:
    """What the harness would send for every document of a task's test split."""
    task.set_config("num_fewshot", shots)
    task.set_fewshot_seed(1234)
    task.build_all_requests(
        apply_chat_template=chat,
        fewshot_as_multiturn=multiturn,
        chat_template=(lambda messages, add_generation_prompt=True: json.dumps(messages))
        if chat
        else None,
        tokenizer_name="recorded",
    )
    by_doc: dict[int, list[Any]] = {}
    for instance in task.instances:
        by_doc.setdefault(instance.doc_id, []).append(instance)
    result = []
    for members in by_doc.values():
        context = members[0].args[0]
        if task.OUTPUT_TYPE == "multiple_choice":
            result.append([context, [m.args[1] for m in members], {}])
        else:
            sent = members[0].args[1]
            kept = {k: sent[k] for k in ("until", "max_gen_toks") if k in sent}
            result.append([context, [], kept])
        if chat:
            result[-1][0] = json.loads(context)
    return result


def main() -> int:
    """Record all tasks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    import evaluate
    import lm_eval

    # The harness fetches code_eval from the hub when it loads humaneval; no program is run here.
    evaluate.load = lambda *_: SimpleNamespace(compute=lambda **__: None)
    folder = Path(lm_eval.__file__).parent / "tasks" / "mmlu" / "default"
    subjects = sorted(
        yaml.safe_load(p.read_text("utf-8"))["dataset_name"] for p in folder.glob("mmlu_*.yaml")
    )
    names = [
        "humaneval",
        "humaneval_instruct",
        "gsm8k",
        *(f"kobest_{k}" for k in KOBEST),
        *(f"mmlu_{s}" for s in subjects),
    ]
    recorded: dict[str, dict[str, str]] = {}
    for name in names:
        task = harness_task(args.data, name)
        entry = recorded.setdefault(name, {})
        for shots in (0,) if name.startswith("humaneval") else (0, 5):
            if name != "humaneval_instruct":  # which is for chats only
                entry[f"{shots}-shot"] = digest(requests(task, shots, chat=False, multiturn=False))
            for form, multiturn in (("chat", True), ("chat-one-turn", False)):
                sent = requests(task, shots, chat=True, multiturn=multiturn)
                entry[f"{shots}-shot {form}"] = digest(sent)
    args.out.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
