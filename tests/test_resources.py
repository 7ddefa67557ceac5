"""What jobs ask of a scheduler: more for more, none for nothing, and more again at a retry."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from zpdbench import estimate, hardware, plan, resources, study
from zpdbench.study import Condition, Study


@pytest.fixture
def mini(root: Path) -> Study:
    return study.load(root / "config/mini.yaml")


def with_model(given: Study, parameters: int, **training: object) -> Study:
    """`given` with its small model of another size, and other training."""
    spec = study.HubModel(source="hub", repo="example/model", parameters=parameters)
    return given.model_copy(
        update={
            "models": {**given.models, "mini-qwen": spec},
            "training": given.training.model_copy(update=training),
        }
    )


def asked(given: Study, rule: str, name: str, attempt: int = 1, **wildcards: object) -> int:
    job = {"model": "mini-qwen", "condition": "random", "seed": "0", "chunk": "all", **wildcards}
    value = resources.for_rule(given, rule)[name]
    if name == "gpu":
        return value(SimpleNamespace(**job))
    return value(SimpleNamespace(**job), attempt)


@pytest.mark.parametrize("rule", ["train_adapter", "generate_chunk", "make_checkpoint"])
@pytest.mark.parametrize("name", ["mem_mb", "runtime"])
def test_a_larger_model_asks_for_more(mini: Study, rule: str, name: str) -> None:
    sizes = [10_000_000, 350_000_000]
    found = [asked(with_model(mini, size), rule, name) for size in sizes]
    assert found[0] < found[1] or rule == "make_checkpoint"


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("mem_mb", {"batch_size": 64}),
        ("mem_mb", {"max_tokens": 2048}),
        ("runtime", {"steps": 100_000}),
        ("runtime", {"batch_size": 640}),
    ],
)
def test_a_larger_training_asks_for_more(mini: Study, name: str, change: dict[str, object]) -> None:
    before = asked(with_model(mini, 100_000_000), "train_adapter", name)
    assert asked(with_model(mini, 100_000_000, **change), "train_adapter", name) > before


def test_zpd_is_charged_for_its_scoring(mini: Study) -> None:
    large = with_model(mini, 7_600_000_000)
    found = [resources.train_minutes(large, "mini-qwen", c) for c in ("random", "zpd")]
    assert found[0] < found[1]


@pytest.mark.parametrize("config", ["r4", "ladder", "laptop"])
def test_real_studies_ask_for_what_a_site_gives(root: Path, config: str) -> None:
    """At most two days a job, and no model of 0.4 billion parameters or more on the CPU."""
    given = study.load(root / f"config/{config}.yaml")
    for model in given.models:
        assert asked(given, "train_adapter", "gpu", model=model) == 1
        assert asked(given, "generate_chunk", "gpu", model=model) >= 1
        for condition in given.conditions:
            names = {"model": model, "condition": condition}
            assert 15 <= asked(given, "train_adapter", "runtime", **names) <= 2880
        assert asked(given, "make_checkpoint", "runtime", model=model) <= 2880
    for model, chunk in given.chunks:
        assert 15 <= asked(given, "generate_chunk", "runtime", model=model, chunk=chunk) <= 2880


def test_time_is_twice_what_the_plan_says(root: Path) -> None:
    r4 = study.load(root / "config/r4.yaml")
    hours = estimate.train_hours(r4, "solar-10.7b", hardware.MACHINES["a100"], "zpd")
    assert hours is not None
    found = asked(r4, "train_adapter", "runtime", model="solar-10.7b", condition="zpd")
    assert found == pytest.approx(2 * 60 * (hours.low + hours.high) / 2, abs=16)
    # The runs of all chunks are the study's.
    machine = hardware.MACHINES["a100"]
    parts = [
        estimate.serve_hours(r4, "solar-10.7b", machine, members=members)
        for (model, _), members in r4.chunks.items()
        if model == "solar-10.7b"
    ]
    whole = estimate.serve_hours(r4, "solar-10.7b", machine)
    assert whole is not None
    assert sum(part.low for part in parts if part) == pytest.approx(whole.low)


def test_success_probability_scores_a_pool_and_no_probe(mini: Study) -> None:
    options = {"update_every": 20, "pool_size": 256}
    rival = Condition(order="success_probability", options=options)
    zpd = Condition(order="zpd", options=options)
    with_both = mini.model_copy(
        update={"conditions": {**mini.conditions, "procurl": rival, "zpd": zpd}}
    )
    updates = mini.training.steps // 20
    flop = {c: estimate.train_flop(with_both, "mini-qwen", c) for c in ("random", "zpd", "procurl")}
    share = (flop["procurl"] - flop["random"]) / (flop["zpd"] - flop["random"])
    assert updates and share == pytest.approx(256 / (256 + mini.corpus.probe))


@pytest.mark.parametrize("attempt", [2, 3, 4])
def test_each_attempt_asks_for_as_much_again(mini: Study, attempt: int) -> None:
    for name in ("mem_mb", "runtime"):
        once = asked(mini, "train_adapter", name)
        assert asked(mini, "train_adapter", name, attempt) == attempt * once


def test_only_large_models_ask_for_gpus(mini: Study) -> None:
    """One to train, and to serve a power of two that holds weights, cache and adapters."""
    generations = mini.generations.model_copy(update={"dtype": "bfloat16", "kv_cache_gib": 16.0})
    given = mini.model_copy(update={"generations": generations})
    sizes = {2_000_000: (0, 0), 135_000_000: (0, 0), 360_000_000: (0, 0), 494_032_768: (1, 1)}
    sizes |= {7_600_000_000: (1, 1), 32_800_000_000: (1, 2), 72_700_000_000: (1, 4)}
    for size, expected in sizes.items():
        model = with_model(given, size, precision="bfloat16")
        rules = ("train_adapter", "generate_chunk")
        assert tuple(asked(model, rule, "gpu") for rule in rules) == expected, size


def test_what_no_single_card_can_train_is_told(root: Path) -> None:
    said = "\n".join(plan.make_plan(study.load(root / "config/ladder.yaml")).warnings)
    for model in ("qwen2.5-32b", "qwen2.5-72b"):
        assert f"{model}: training takes about" in said
    assert "qwen2.5-14b: training takes" not in said


def test_a_hub_model_of_unknown_size_is_counted_by_its_files(mini: Study) -> None:
    files = {"model.safetensors": study.HubFile(sha256="0" * 64, size=988_000_000)}
    files["README.md"] = study.HubFile(sha256="0" * 64, size=5)
    spec = study.HubModel(source="hub", repo="example/model", files=files)
    given = mini.model_copy(update={"models": {**mini.models, "mini-qwen": spec}})
    assert estimate.parameters(given, "mini-qwen") == 494_000_000


def test_a_seven_billion_run_is_hours_and_fits_its_card(mini: Study) -> None:
    """The study that this is for: 10,000 steps of batch 8 at 1,024 tokens."""
    given = with_model(
        mini, 7_600_000_000, steps=10_000, batch_size=8, max_tokens=1024, precision="bfloat16"
    )
    assert 30 < asked(given, "train_adapter", "runtime") < 48 * 60
    assert 16_000 < asked(given, "train_adapter", "mem_mb") < 80_000


def test_every_rule_has_an_estimate(root: Path, mini: Study) -> None:
    import re

    text = "".join(p.read_text("utf-8") for p in sorted((root / "rules").glob("*.smk")))
    rules = set(re.findall(r"resources\.for_rule\(study, \"(\w+)\"\)", text))
    assert {"train_adapter", "generate_chunk", "score_run"} <= rules
    for rule in rules:
        assert asked(mini, rule, "mem_mb") >= 500
        assert asked(mini, rule, "runtime") >= 10


def test_the_larger_chunk_takes_longer(mini: Study) -> None:
    large = with_model(mini, 7_600_000_000)
    for given in (mini, large):
        members = given.chunks["mini-qwen", "all"]
        half = resources.serve_minutes(given, "mini-qwen", members[: len(members) // 2])
        whole = resources.serve_minutes(given, "mini-qwen", members)
        # A small one is all start.
        assert 0 < half <= whole and (half < whole or given is mini)


def test_full_fine_tuning_and_more_processes_ask_for_more(mini: Study) -> None:
    def of(size: int, name: str, **training: object) -> int:
        return asked(with_model(mini, size, batch_size=8, **training), "train_adapter", name)

    small, large = 100_000_000, 7_000_000_000
    assert of(small, "mem_mb", method="full") > of(small, "mem_mb") + 12 * small / 2**20
    assert of(small, "mem_mb", processes=2) > 1.3 * of(small, "mem_mb")
    assert of(small, "runtime", steps=10**6, method="full") > of(small, "runtime", steps=10**6)
    assert of(small, "runtime", steps=10**6, processes=4) < of(small, "runtime", steps=10**6)
    assert [of(large, "gpu"), of(large, "gpu", processes=4)] == [1, 4]
    assert of(small, "gpu", processes=4) == 0


def test_half_a_billion_parameters_train_on_a_cpu_where_it_is_no_matter_of_days(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zpdbench import devices, preflight

    real = study.load(root / "config/real.yaml")
    (large,) = (m for m in real.models if resources.wants_gpu(real, m))
    assert resources.why_gpu(real, large) is None
    for rule in ("train_adapter", "generate_chunk"):
        assert asked(real, rule, "gpu", model=large) == 0
        assert asked(real, rule, "runtime", model=large) > 15
    monkeypatch.delenv(devices.VARIABLE, raising=False)
    monkeypatch.setattr(devices, "gpu_here", lambda: None)
    preflight.check_gpu(real, real.models)
    longer = real.training.model_copy(update={"steps": 100_000})
    slow = real.model_copy(update={"training": longer})
    assert "days of a CPU" in str(resources.why_gpu(slow, large))
    assert asked(slow, "train_adapter", "gpu", model=large) == 1
    with pytest.raises(devices.UserError, match=r"wants a GPU, .*days of a CPU"):
        preflight.check_gpu(slow, real.models)
    wide = real.training.model_copy(update={"batch_size": 256})
    wide_study = real.model_copy(update={"training": wide})
    assert "GB" in str(resources.why_gpu(wide_study, large))


def test_a_plan_says_what_the_cpu_takes_where_it_will_do(root: Path) -> None:
    for config, machines in (("real", ["cpu"]), ("mini", ["cpu"]), ("r4", [*hardware.MACHINES])):
        assert plan._machines(study.load(root / f"config/{config}.yaml"), None) == machines
