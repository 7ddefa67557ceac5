"""The grid: which cells there are, what they are called and where their files lie.

The only module that knows a path below the results folder. Pure functions, no I/O, standard
library only: the Snakefile imports it on every call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

BASE = "base"
"""The condition of an untuned model: seed 0, step 0, no adapter."""

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
"""What an adapter is: the files of a served step's folder that answers depend on."""
FULL_FILES = ("config.json", "model.safetensors")
"""The same of a step of full fine-tuning, whose folder is a checkpoint."""

GROUP_KEYS = ("model", "condition", "seed")

# A name is a path component and a wildcard: nothing that could climb out of a folder.
NAME = r"[A-Za-z0-9][A-Za-z0-9._]*(?:-[A-Za-z0-9._]+)*"
WILDCARDS = {
    "model": NAME,
    "condition": r"[A-Za-z0-9][A-Za-z0-9_]*",
    "seed": r"\d+",
    "corpus": NAME,
    "benchmark": r"[a-z0-9_]+",
    "chunk": r"all|s\d+|[A-Za-z0-9][A-Za-z0-9_]*-s\d+",
}


class Run(NamedTuple):
    """One fine-tuning run, or an untuned base (`condition` is `base`, `seed` 0)."""

    model: str
    condition: str
    seed: int


class Point(NamedTuple):
    """A run at one optimiser step: what is served and evaluated."""

    run: Run
    step: int


@dataclass(frozen=True)
class Paths:
    """Every path below one results folder; wildcards such as `{model}` may be passed through."""

    results: str = "results"

    @property
    def study_lock(self) -> str:
        """The validated, merged configuration that every job reads."""
        return f"{self.results}/study.lock.yaml"

    def checkpoint(self, model: str = "{model}") -> str:
        """Folder of a base model in Hugging Face's layout, with MANIFEST.json."""
        return f"{self.results}/checkpoints/{model}"

    def corpus(self, corpus: str = "{corpus}") -> str:
        """The instruction corpus, one row an example."""
        return f"{self.results}/corpora/{corpus}.parquet"

    def items(self, benchmark: str = "{benchmark}") -> str:
        """A benchmark's items as they are asked: prompt, choices, gold, digest."""
        return f"{self.results}/items/{benchmark}.parquet"

    def adapter(
        self, model: str = "{model}", condition: str = "{condition}", seed: int | str = "{seed}"
    ) -> str:
        """Folder of one run: `step{step}/` adapters, trace.parquet, MANIFEST.json."""
        return f"{self.results}/adapters/{model}/{condition}/s{seed}"

    def generations(self, model: str = "{model}", chunk: str = "{chunk}") -> str:
        """One chunk's answers: a row an item, sample and adapter."""
        return f"{self.results}/generations/{model}/{chunk}.parquet"

    def scores(
        self, model: str = "{model}", condition: str = "{condition}", seed: int | str = "{seed}"
    ) -> str:
        """One run's verdicts: a row an item, sample and step."""
        return f"{self.results}/scores/{model}/{condition}/s{seed}.parquet"

    def table(self, name: str) -> str:
        """A statistics table, {results}/{name}.tsv."""
        return f"{self.results}/{name}.tsv"

    def figure(self, name: str) -> str:
        """A figure, {results}/figures/{name}."""
        return f"{self.results}/figures/{name}"

    def record(self, output: str) -> str:
        """What a job recorded of itself; `output` is its first output's path below results."""
        return f"{self.results}/records/{output}.json"

    def log(self, rule: str, *wildcards: str) -> str:
        """A rule's log; `wildcards` are names such as `model`."""
        return f"{self.results}/logs/{'/'.join((rule, *(f'{{{w}}}' for w in wildcards)))}.log"

    def benchmark(self, rule: str, *wildcards: str) -> str:
        """Snakemake's own measurement (seconds, memory) of a rule's job."""
        stem = "/".join((rule, *(f"{{{w}}}" for w in wildcards)))
        return f"{self.results}/benchmarks/{stem}.tsv"


def adapter_step(step: int) -> str:
    """Folder name of a run's adapter at one step."""
    return f"step{step}"


def evaluation_steps(steps: int, every: int) -> list[int]:
    """The steps at which a run is evaluated: every `every`, and the last."""
    return [*range(every, steps, every), steps]


def runs(models: Iterable[str], conditions: Iterable[str], seeds: Iterable[int]) -> list[Run]:
    """All fine-tuning runs, ordered by model, condition and seed as given."""
    seeds = list(seeds)
    conditions = list(conditions)
    return [Run(m, c, s) for m in models for c in conditions for s in seeds]


def bases(models: Iterable[str]) -> list[Run]:
    """The untuned bases, one a model."""
    return [Run(m, BASE, 0) for m in models]


def chunk_of(run: Run, group_by: Sequence[str]) -> str:
    """The chunk (one engine's work) that a run belongs to.

    `[model]` -> `all`; `[model, seed]` -> `s0`; `[model, condition, seed]` -> `zpd-s0`. A base is
    its own chunk unless the whole model shares one.
    """
    if "condition" in group_by:
        return f"{run.condition}-s{run.seed}"
    if "seed" in group_by:
        return f"{BASE}-s0" if run.condition == BASE else f"s{run.seed}"
    return "all"


def chunks(all_runs: Iterable[Run], group_by: Sequence[str]) -> dict[tuple[str, str], list[Run]]:
    """(model, chunk) -> its runs, in the order given."""
    groups: dict[tuple[str, str], list[Run]] = {}
    for run in all_runs:
        groups.setdefault((run.model, chunk_of(run, group_by)), []).append(run)
    return groups
