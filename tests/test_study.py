from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import yaml

from zpdbench import plan, preflight, study
from zpdbench.corpora import make_items
from zpdbench.errors import UserError


@pytest.fixture(scope="module")
def mini(root: Path) -> str:
    return (root / "config/mini.yaml").read_text("utf-8")


# what to change, to what, the line's own text (to find its number), what the message must say
MISTAKES = [
    (
        "learning_rate:",
        "learning_rat:",
        "learning_rat:",
        "unknown key.*did you mean 'learning_rate'",
    ),
    ("small: mini-qwen", "small: mini-qwe", "small: mini-qwe", "no model 'mini-qwe'"),
    ("seeds: [0, 1, 2, 3, 4]", "seeds: []", "seeds:", "seeds: .*at least 1"),
    ("seeds: [0, 1,", "seeds: [-1, 1,", "seeds:", "seeds.0.*greater than or equal to 0"),
    ("seeds: [0, 1,", "seeds: [1, 1,", "seeds:", "each seed once"),
    ("2.0e-3", "-2.0e-3", "learning_rate:", "learning_rate.*greater than 0"),
    ("2.0e-3", "fast", "learning_rate:", "learning_rate.*valid number"),
    (
        "  random: { order: random }",
        "  random: { order: random }\n  random: { order: zpd }",
        "  random: { order: zpd }",
        "conditions.random is given twice",
    ),
    ("  random: {", "  a/b: {", "  a/b: {", "conditions.a/b"),
    ("  random: {", "  base: {", "conditions:", "'base' is the untuned model's name"),
    ("architecture: qwen2", "architecture: gpt", "architecture: gpt", "'qwen2' or 'llama'"),
    ("[model]", "[seed]", "group_by:", r"must be \[model\]"),
    ("control: random", "control: zpd", "control", "same condition"),
    (
        "engine: auto",
        "engine: openai\n  base_url: http://h/v1\n  #",
        "base_url:",
        "'mini-qwen' and 'mini-solar' would be answered by one and the same served model",
    ),
    (
        "engine: auto",
        "engine: openai\n  base_url: {mini-qwen: http://h/v1}\n  #",
        "base_url:",
        "generations.base_url: has none for model 'mini-solar'",
    ),
    (
        "engine: auto",
        "engine: openai\n  base_url: http://h/v1\n  server: {model: {mini-qwen: a, x: b}}\n  #",
        "server:",
        "generations.server.model: has none for model 'mini-solar'",
    ),
    ("control: random", "control: shuffled", "control:", "no condition 'shuffled'"),
    ("seeds: [0", "seeds: [0, [", "seeds:", "no valid YAML"),
]


@pytest.mark.parametrize(("old", "new", "line", "message"), MISTAKES)
def test_a_mistake_is_one_line_with_its_place(
    mini: str, tmp_path: Path, old: str, new: str, line: str, message: str
) -> None:
    assert old in mini
    path = tmp_path / "study.yaml"
    text = mini.replace(old, new, 1)
    path.write_text(text, "utf-8")
    with pytest.raises(UserError, match=message) as caught:
        study.load(path)
    assert "\n" not in str(caught.value)
    numbers = [i for i, t in enumerate(text.splitlines(), 1) if line in t]
    place = str(caught.value).removeprefix(f"{path}:").split(":")[0]
    # A whole-section mistake points at the section's head, at most a few lines above.
    assert any(n - 6 <= int(place) <= n for n in numbers)


def test_the_last_file_is_blamed(mini: str, tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text(mini, "utf-8")
    second.write_text("training:\n  batch_size: 0\n", "utf-8")
    with pytest.raises(UserError, match=rf"{second}:2: training.batch_size"):
        study.load(first, second)


def test_waived_layers_are_layers(mini: str, tmp_path: Path) -> None:
    from zpdbench import sandbox

    assert set(get_args(study.Layer)) == set(sandbox.LAYERS)
    path = tmp_path / "x.yaml"
    path.write_text(mini + "sandbox: {waive: [landlock]}\n", "utf-8")
    assert study.load(path).sandbox.waive == ["landlock"]
    path.write_text(mini + "sandbox: {waive: [selinux]}\n", "utf-8")
    with pytest.raises(UserError, match=r"sandbox\.waive"):
        study.load(path)


def test_schema_has_not_drifted(root: Path) -> None:
    assert (root / "config/schema.json").read_text("utf-8") == study.schema(), "make schema"


@pytest.mark.parametrize(
    "name", ["mini", "micro", "smol", "real", "ablations", "r4", "ladder", "laptop"]
)
def test_shipped_configurations_hold_and_round_trip(root: Path, name: str, tmp_path: Path) -> None:
    loaded = study.load(root / f"config/{name}.yaml")
    lock = tmp_path / "study.lock.yaml"
    lock.write_text(study.lock_text(loaded), "utf-8")
    assert study.load(lock) == loaded
    json.dumps(loaded.model_dump(mode="json"), allow_nan=False)


def _digests(text: str, tmp_path: Path) -> dict[str, str]:
    path = tmp_path / "x.yaml"
    path.write_text(text, "utf-8")
    loaded = study.load(path)
    wildcards: dict[str, Any] = {
        "make_checkpoint": {"model": "mini-qwen"},
        "make_corpus": {"corpus": "mini"},
        "make_items": {"benchmark": "gsm8k"},
        "train_adapter": {"model": "mini-qwen", "condition": "random", "seed": "0"},
        "generate_chunk": {"model": "mini-qwen", "chunk": "all"},
        "score_run": {"model": "mini-qwen", "condition": "random", "seed": "0"},
        "aggregate_scores": {},
        "h3a": {},
    }
    return {rule: loaded.digest(rule, SimpleNamespace(**w)) for rule, w in wildcards.items()}


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        # The digest of what is registered stands in every row, those of scores.tsv included.
        (
            "learning_rate: 2.0e-3",
            "learning_rate: 1.0e-4",
            {"train_adapter", "aggregate_scores", "h3a"},
        ),
        (
            "seeds: [0, 1, 2, 3, 4]",
            "seeds: [0, 1, 2, 3, 4, 5]",
            {"generate_chunk", "aggregate_scores", "h3a"},
        ),
        ("alpha: 0.025", "alpha: 0.01", {"aggregate_scores", "h3a"}),
        (
            "apply_chat_template: true",
            "apply_chat_template: false",
            {"make_items", "generate_chunk", "aggregate_scores", "h3a"},
        ),
        (
            "num_fewshot: 0, max_tokens: 64 }",
            "num_fewshot: 0, max_tokens: 64, fewshot_as_multiturn: false }",
            {"make_items", "generate_chunk", "score_run", "aggregate_scores", "h3a"},
        ),
        (
            "results: results",
            "template_date: 2030-01-02",
            {"train_adapter", "generate_chunk", "aggregate_scores", "h3a"},
        ),
        ("results: results", "template_date: 2024-07-26", set()),
        (
            "hard_to_easy: { order: hard_to_easy }",
            "hard_to_easy: { order: easy_to_hard }",
            {"aggregate_scores", "h3a"},
        ),
        ("results: results", "results: elsewhere", set()),
        (
            "group_by: [model]",
            "threads: 2\n  group_by: [model]",
            set(),
        ),
        (
            "group_by: [model]",
            "server: {timeout: 9}\n  group_by: [model]",
            set(),
        ),
    ],
)
def test_a_change_reaches_just_what_depends_on_it(
    mini: str, tmp_path: Path, old: str, new: str, changed: set[str]
) -> None:
    before, after = _digests(mini, tmp_path), _digests(mini.replace(old, new, 1), tmp_path)
    assert old in mini
    assert {rule for rule in before if before[rule] != after[rule]} == changed


@pytest.mark.parametrize(
    ("installed", "containers", "engine"),
    [("vllm", False, "vllm"), ("", False, "transformers"), ("", True, "vllm")],
)
def test_the_lock_names_the_engine_that_answers(
    mini: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    installed: str,
    containers: bool,
    engine: str,
) -> None:
    from zpdbench import devices

    monkeypatch.setattr(devices, "engine_for", lambda: installed or "transformers")
    text = mini.replace("results: results", f"results: {tmp_path}/results")
    config = yaml.safe_load(text)
    del config["generations"]["engine"]
    locked = study.lock_study(config, [], in_containers=containers)
    assert locked.generations.engine == engine
    assert study.load(locked.paths.study_lock).generations.engine == engine
    # As if it had been said: whoever has vLLM keeps what was made before.
    config["generations"]["engine"] = engine
    chunk = SimpleNamespace(model="mini-qwen", chunk="all")
    said = study.parse(config).digest("generate_chunk", chunk)
    assert locked.digest("generate_chunk", chunk) == said


@pytest.mark.parametrize(("has", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_the_lock_names_the_types_that_are_computed_in(
    mini: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has: bool, dtype: str
) -> None:
    from zpdbench import devices

    monkeypatch.setattr(devices, "has_bfloat16", lambda: has)
    # Portable arithmetic has no bfloat16, whatever the processor has.
    where = f"arithmetic: native\nresults: {tmp_path}/results"
    config = yaml.safe_load(mini.replace("results: results", where))
    config["training"]["precision"] = config["generations"]["dtype"] = "auto"
    locked = study.lock_study(config, [])
    assert locked.training.precision == locked.generations.dtype == dtype
    # A job on another kind of machine goes by the lock.
    monkeypatch.setattr(devices, "has_bfloat16", lambda: not has)
    read = study.resolve(study.load(locked.paths.study_lock))
    assert read.training.precision == read.generations.dtype == dtype
    config["training"]["precision"] = config["generations"]["dtype"] = dtype
    run = SimpleNamespace(model="mini-qwen", condition="zpd", seed="0", chunk="all")
    for rule in ("train_adapter", "generate_chunk"):
        said = study.resolve(study.parse(config))
        assert locked.digest(rule, run) == said.digest(rule, run)


@pytest.mark.parametrize(
    ("change", "remade"),
    [
        ({"base_url": {"mini-qwen": "http://elsewhere/v1", "mini-solar": "http://b/v1"}}, False),
        ({"server": {"retries": 1}}, False),
        ({"server": {"model": {"mini-qwen": "other", "mini-solar": "b"}}}, True),
    ],
    ids=["moved", "patience", "another model"],
)
def test_what_a_server_is_asked_for_is_in_the_digest(
    mini: str, change: dict[str, Any], remade: bool
) -> None:
    config = yaml.safe_load(mini)
    urls = {"mini-qwen": "http://a/v1", "mini-solar": "http://b/v1"}
    before = {**config["generations"], "engine": "openai", "base_url": urls}
    where = SimpleNamespace(model="mini-qwen", chunk="all")
    digests = {
        study.parse({**config, "generations": section}).digest("generate_chunk", where)
        for section in (before, {**before, **change})
    }
    assert len(digests) == 1 + remade


def test_a_benchmark_may_be_asked_otherwise(mini: str, tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        mini.replace("mmlu: { source", "mmlu: { apply_chat_template: false, source", 1)
        .replace("kobest: { source", "kobest: { fewshot_as_multiturn: false, source", 1)
        .replace("results: results", "template_date: 2030-01-02", 1),
        "utf-8",
    )
    loaded = study.load(path)
    assert {name: loaded.form(name) for name in loaded.benchmarks} == {
        "humaneval": "chat",
        "gsm8k": "chat",
        "mmlu": "plain",
        "kobest": "chat-one-turn",
    }
    assert loaded.template_date.isoformat() == "2030-01-02"


def _asking(root: Path, benchmarks: dict[str, Any], *, chat: bool) -> study.Study:
    config = study.load(root / "config/real.yaml").model_dump(mode="json")
    config["benchmarks"], config["hypotheses"] = benchmarks, {}
    config["generations"]["apply_chat_template"] = chat
    return study.parse(config)


def test_a_benchmark_for_chats_is_not_asked_plainly(root: Path) -> None:
    instruct = {"humaneval_instruct": {"source": "files"}}
    own = {"humaneval_instruct": {"source": "files", "apply_chat_template": True}}
    preflight.check_names(_asking(root, own, chat=False))
    preflight.check_names(_asking(root, instruct, chat=True))
    for asked in (instruct, {"humaneval_instruct": {"source": "hub"}}):
        for ask in (preflight.check_names, plan.make_plan):
            with pytest.raises(UserError, match="would be asked without a chat templ") as caught:
                ask(_asking(root, asked, chat=False))
            assert caught.value.where == "benchmarks.humaneval_instruct"
    with pytest.raises(UserError, match="would be asked without a chat template"):
        make_items.items_of(_asking(root, instruct, chat=False), "humaneval_instruct")
    assert _asking(root, {**instruct, "humaneval": {"source": "files"}}, chat=True).chats == {
        "humaneval_instruct": True,
        "humaneval": False,
    }
    assert _asking(root, own, chat=False).chats == {"humaneval_instruct": True}


def test_a_benchmark_of_completions_asked_as_a_chat_is_noted(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("humaneval", "humaneval_plus"):
        asked = _asking(root, {name: {"source": "files"}}, chat=True)
        preflight.check_names(asked)
        said = capsys.readouterr().err
        assert said.startswith(f"note: {name} is asked as a chat") and said.count("\n") == 1
        assert "humaneval_instruct" in said and said[6:].strip() in plan.make_plan(asked).warnings
    # Mini models answer embedded problems as they were taught, in their template.
    quiet = [
        _asking(root, {"humaneval": {"source": "embedded"}}, chat=True),
        _asking(root, {"humaneval": {"source": "files"}}, chat=False),
        _asking(root, {"gsm8k": {"source": "files"}}, chat=True),
    ]
    for asked in quiet:
        preflight.check_names(asked)
        assert capsys.readouterr().err == ""
        assert "as a chat" not in "".join(plan.make_plan(asked).warnings)


def test_full_fine_tuning_is_evaluated_at_its_last_step(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mini = study.load(root / "config/mini.yaml")
    full = mini.model_copy(update={"training": mini.training.model_copy(update={"method": "full"})})
    assert len(mini.served_steps) > 1
    assert full.evaluation_steps == full.served_steps == [mini.training.steps]
    assert full.weight_files == ("config.json", "model.safetensors")
    preflight.check_names(full)
    assert "note: training.method full keeps its last step only" in capsys.readouterr().err
    config = study.load(root / "config/mini.yaml").model_dump(mode="json")
    config["training"]["method"] = "full"
    config["generations"] |= {"engine": "openai", "base_url": "http://localhost:1/v1"}
    with pytest.raises(UserError, match="a server that is given adapters cannot serve"):
        study.parse(config)


def test_how_a_run_is_computed_retrains_nothing(root: Path) -> None:
    mini = study.load(root / "config/mini.yaml")
    wildcards = SimpleNamespace(model="mini-qwen", condition="random", seed="0")

    def digest(**training: object) -> str:
        changed = mini.training.model_copy(update=training)
        return mini.model_copy(update={"training": changed}).digest("train_adapter", wildcards)

    assert (
        digest(processes=2) == digest(gradient_checkpointing=True) == digest(threads=7) == digest()
    )
    assert digest(method="full") != digest()
