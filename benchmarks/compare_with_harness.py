"""The same items through lm-evaluation-harness and through zpdbench: equal answers, and how fast.

    python benchmarks/compare_with_harness.py harness --data DATA_DIR --checkpoint DIR \
        [--adapter DIR ...] --ask gsm8k:40 mmlu_astronomy:60 kobest_copa:60 --out harness.jsonl
    python benchmarks/compare_with_harness.py ours    (the same arguments) --out ours.jsonl
    python benchmarks/compare_with_harness.py compare harness.jsonl ours.jsonl

`harness` runs where `lm_eval==0.4.13`, transformers and peft are installed; it takes the harness's
own tasks and its hf model, once for the base and once an adapter (`--no-base` leaves the base
out). `ours` runs in the project's environment: one vLLM engine for all. Both print whole seconds;
time the processes (`time -v`) for what includes imports. Each side judges its own answers by its
own code. `compare` exits 1 if a text differs, a log-likelihood by more than 1e-3, or a score; a
program is run by neither here, and its score follows from its text.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

TOLERANCE = 1e-3


def asked(words: list[str]) -> list[tuple[str, int]]:
    """`task:count` words."""
    return [(task, int(count)) for task, _, count in (w.partition(":") for w in words)]


def write(out: str, rows: list[dict[str, Any]]) -> None:
    """One JSON object a line."""
    with Path(out).open("w", encoding="utf-8") as handle:
        for row in rows:
            handle.write(json.dumps(row, ensure_ascii=False) + "\n")


def harness(args: argparse.Namespace) -> None:
    """Ask through the harness's hf model."""
    import evaluate

    # The harness fetches code_eval from the hub when it loads humaneval; no program is run here.
    evaluate.load = lambda *_: SimpleNamespace(compute=lambda **__: None)
    from lm_eval.models.huggingface import HFLM
    from record_harness_prompts import harness_task

    tasks = []
    for name, count in asked(args.ask):
        task = harness_task(Path(args.data), name)
        if args.num_fewshot is not None:
            task.set_config("num_fewshot", args.num_fewshot)
        task.set_fewshot_seed(1234)
        task.build_all_requests(limit=count)
        tasks.append((name, count, task))
    rows = []
    for adapter in [*([] if args.no_base else [None]), *args.adapter]:
        model = HFLM(
            pretrained=args.checkpoint,
            peft=adapter,
            dtype="float32",
            device="cpu",
            batch_size=args.batch_size,
        )
        # All likelihood requests together, so that the harness can batch as well as it can.
        scored = [(n, i) for n, _, t in tasks for i in t.instances if "loglike" in i.request_type]
        values = model.loglikelihood([i for _, i in scored]) if scored else []
        sums: dict[tuple[str, int], list[float]] = {}
        for (name, instance), (value, _) in zip(scored, values, strict=True):
            sums.setdefault((name, instance.doc_id), []).append(float(value))
        made_of = {name: task for name, _, task in tasks}
        docs = {(n, i.doc_id): i.doc for n, i in scored}
        rows += [
            row(adapter, name, doc, logprobs=v, scores=_choice(made_of[name], docs[name, doc], v))
            for (name, doc), v in sums.items()
        ]
        for name, _, task in tasks:
            made = [i for i in task.instances if i.request_type == "generate_until"]
            if made:
                texts = model.generate_until(made)
                for instance, text in zip(made, texts, strict=True):
                    instance.resps = [text]
                task.apply_filters()
                rows += [
                    row(adapter, name, i.doc_id, text=t, scores=_extracted(task, i))
                    for i, t in zip(made, texts, strict=True)
                ]
        del model
    write(args.out, rows)


def _choice(task: Any, doc: Any, values: list[float]) -> dict[str, float]:
    """The harness's own verdicts on a document's choices."""
    found = task.process_results(doc, [(v, False) for v in values])
    return {k: float(v) for k, v in found.items() if k in ("acc", "acc_norm")}


def _extracted(task: Any, instance: Any) -> dict[str, float]:
    """The harness's own verdicts on a text, by filter; none on a program."""
    if task.config.task == "humaneval":
        return {}
    return {
        f"exact_match,{name}": float(task.process_results(instance.doc, [found])["exact_match"])
        for name, found in instance.filtered_resps.items()
    }


def row(adapter: str | None, task: str, doc: int, **answer: Any) -> dict[str, Any]:
    """One answer, whoever gave it."""
    name = Path(adapter).name if adapter else "base"
    return {
        "adapter": name,
        "task": task,
        "doc": doc,
        "text": "",
        "logprobs": [],
        "scores": {},
        **answer,
    }


def ours(args: argparse.Namespace) -> None:
    """Ask through one vLLM engine."""
    from zpdbench.engines import Request, Settings, open_engine
    from zpdbench.engines.adapters import checkpoint_shapes, read_adapter
    from zpdbench.engines.tokens import Tokens
    from zpdbench.engines.vllm_engine import set_environment

    set_environment(args.threads)
    checkpoint = Path(args.checkpoint)
    tokens = Tokens(checkpoint)
    prompts = [(task, doc, item, _request(tokens, item)) for task, doc, item in _items(args)]
    shapes = checkpoint_shapes(checkpoint)
    adapters: list[Any] = [] if args.no_base else [None]
    adapters += [read_adapter(a, shapes, 512) for a in args.adapter]
    longest = max(r.length for *_, r in prompts) + 1
    options = {} if args.adapter else {"lora": False}
    if args.no_prefix_cache:
        options["enable_prefix_caching"] = False
    engine = open_engine(
        "vllm",
        checkpoint,
        Settings(
            max_model_len=-(-longest // 64) * 64,
            adapters_in_flight=max(1, len(args.adapter)),
            max_rank=max([8, *(a.rank for a in adapters if a)]),
            kv_cache_gib=args.kv_cache_gib,
            threads=args.threads,
            options=options,
        ),
    )

    def stream() -> Iterator[tuple[Any, Request]]:
        for adapter in adapters:
            for task, doc, item, r in sorted(prompts, key=lambda p: p[3].prompt):
                yield (
                    (adapter, task, doc, item),
                    Request(r.prompt, adapter, r.choices, r.max_tokens, r.stop),
                )

    rows = [
        row(
            str(a.path) if a else None,
            task,
            doc,
            text=answer.text,
            logprobs=answer.logprobs,
            scores=_judged(item, answer),
        )
        for (a, task, doc, item), answer in engine.ask(stream())
    ]
    print(json.dumps(engine.metrics()))
    engine.close()
    write(args.out, rows)


def _judged(item: Any, answer: Any) -> dict[str, float | None]:
    """Our verdicts, by the harness's names."""
    from zpdbench.benchmarks import answers, items

    if item.choices:
        texts = items.choice_texts({"messages": item.messages, "choices": item.choices})
        verdict = answers.judge_choice(answer.logprobs, item.gold, texts, norm=True)
        return {"acc": verdict.correct, "acc_norm": verdict.correct_norm}
    if not item.gold:
        return {}
    verdict = answers.judge_number(answer.text, item.gold)
    return {
        "exact_match,strict-match": verdict.correct,
        "exact_match,flexible-extract": verdict.correct_flexible,
    }


def _items(args: argparse.Namespace) -> list[tuple[str, int, Any]]:
    """(harness task, row, item) of what is asked, made by make-items' own code."""
    from zpdbench import study
    from zpdbench.corpora.make_items import items_of

    config, _ = study.read_yaml(Path(__file__).parents[1] / "config/smol.yaml")
    config |= {"data_dir": args.data}
    result = []
    for name, count in asked(args.ask):
        benchmark, _, task = name.partition("_")
        section: dict[str, Any] = {"source": "files", "items": count}
        if task:
            section["tasks"] = [task if benchmark == "mmlu" else name]
        if args.num_fewshot is not None:
            section["num_fewshot"] = args.num_fewshot
        made = items_of(study.parse({**config, "benchmarks": {benchmark: section}}), benchmark)
        result += [(name, number, item) for number, item in enumerate(made)]
    return result


def _request(tokens: Any, item: Any) -> Any:
    from zpdbench.engines import Request

    if item.choices:
        ids, choices = tokens.encode_choices(item.prompt, item.choices)
        return Request(tuple(ids), choices=tuple(map(tuple, choices)))
    return Request(
        tuple(tokens.encode(item.prompt)), max_tokens=item.max_tokens, stop=tuple(item.stop)
    )


def compare(args: argparse.Namespace) -> int:
    """Item by item."""
    sides = []
    for path in (args.one, args.other):
        rows = [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]
        sides.append({(r["adapter"], r["task"], r["doc"]): r for r in rows})
    if sides[0].keys() != sides[1].keys():
        print("not the same items", file=sys.stderr)
        return 1
    table: dict[tuple[str, str], list[float]] = {}
    scores: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for key, one in sides[0].items():
        other = sides[1][key]
        differences = [abs(a - b) for a, b in zip(one["logprobs"], other["logprobs"], strict=True)]
        worst = max(differences, default=0.0 if one["text"] == other["text"] else float("inf"))
        table.setdefault(key[:2], []).append(worst)
        for metric in sorted(one["scores"].keys() & other["scores"].keys()):
            pair = one["scores"][metric], other["scores"][metric]
            scores.setdefault((*key[:2], metric), []).append(pair)
    print("adapter\ttask\titems\tequal\tlargest difference of a log-likelihood")
    equal = True
    for (adapter, task), worst in table.items():
        good = sum(w <= TOLERANCE for w in worst)
        equal &= good == len(worst)
        print(f"{adapter}\t{task}\t{len(worst)}\t{good}\t{max(worst):.2g}")
    print("adapter\ttask\tmetric\titems\tequal\tone\tother")
    for (adapter, task, metric), pairs in scores.items():
        good = sum(a == b for a, b in pairs)
        equal &= good == len(pairs)
        means = (f"{sum(side) / len(side):.4f}" for side in zip(*pairs, strict=True))
        print(adapter, task, metric, len(pairs), good, *means, sep="\t")
    return 0 if equal else 1


def main() -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    for name in ("harness", "ours"):
        verb = verbs.add_parser(name)
        verb.add_argument("--data", required=True)
        verb.add_argument("--checkpoint", required=True)
        verb.add_argument("--adapter", nargs="*", default=[])
        verb.add_argument("--no-base", action="store_true")
        verb.add_argument("--ask", nargs="+", required=True, metavar="TASK:COUNT")
        verb.add_argument("--num-fewshot", type=int)
        verb.add_argument("--batch-size", type=int, default=8)
        verb.add_argument("--threads", type=int, default=2)
        verb.add_argument("--kv-cache-gib", type=float, default=2.0)
        verb.add_argument("--no-prefix-cache", action="store_true")
        verb.add_argument("--out", required=True)
    verb = verbs.add_parser("compare")
    verb.add_argument("one")
    verb.add_argument("other")
    args = parser.parse_args()
    begun = time.monotonic()
    if args.verb == "compare":
        return compare(args)
    {"harness": harness, "ours": ours}[args.verb](args)
    print(f"{args.verb}: {time.monotonic() - begun:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
