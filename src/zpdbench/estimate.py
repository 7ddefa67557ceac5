"""What a study costs: tokens, arithmetic, hours, memory, disk, by formulas with their sources.

Pure arithmetic on a configuration; docs/r4.md explains the formulas and compares them with
measured runs. A figure is an estimate for planning, never a result.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from zpdbench import grid
from zpdbench.hardware import (
    BANDWIDTH_SHARE,
    CPU_CORE_GFLOPS,
    CPU_ENGINE_SECONDS,
    CPU_FOLDER_SECONDS,
    CPU_PACKED,
    CPU_START_SECONDS,
    CPU_TABLE_SECONDS,
    PROGRAMS_A_SECOND,
    SCORE_SECONDS,
    UTILISATION,
    Machine,
    cpu_gflops,
    cpu_tokens_a_second,
)
from zpdbench.study import Benchmark, CorpusSource, EmbeddedModel, HubModel, Study

VOCABULARY = 150_000
TASKS = {"mmlu": 57, "kobest": 5}
# Items where the configuration takes all: the benchmark's own number, tasks, shots' share aside.
_ALL_ITEMS = {
    "humaneval": 164,
    "humaneval_instruct": 164,
    "gsm8k": 1319,
    "mmlu": 14042,
    "kobest": 4561,
}
_UNKNOWN_PARAMETERS = 200_000_000

_ENGLISH_BYTES = 4.6
"""UTF-8 bytes of a token of English; SmolLM2's tokenizer on 2,000 examples of Alpaca: 4.63."""
_KOREAN_BYTES = 1.2
"""The same of Korean, by a tokenizer that was not made for it: SmolLM2's on KoAlpaca 1.19. That of
SOLAR-10.7B (32,000 tokens, of Llama 2) falls back on bytes likewise."""
_KOREAN_BYTES_MULTILINGUAL = 3.0
"""Of a tokenizer with Korean in it, such as Qwen2.5's: an assumption, one syllable a token."""
_TEMPLATE_TOKENS = 30.0
"""What a chat template adds to an example; SmolLM2's does."""

# Mean bytes of an example's prompt and response, measured on public files (docs/data.md);
# OpenOrca-KO's those of its first part (2,868,164 bytes of 2,117 examples, by an early version of
# its card), as the other parts' are not published.
_EXAMPLE_BYTES = {("alpaca", "en"): 355.0, ("alpaca", "ko"): 261.0, ("openorca_ko", "ko"): 1355.0}
_EMBEDDED_TOKENS = 23.1


@dataclass(frozen=True)
class Prompts:
    """Mean bytes of a benchmark's requests, measured on its authors' files (tests measure again).

    Attributes:
        own: an item's own text. shot: one example before it. shared: whether all of a task's items
            have the same examples, so that they are computed once. answer: what is written.
        forced: continuations whose probability is asked, an item.
    """

    language: str
    own: float
    shot: float
    shots: int
    shared: bool
    answer: float
    forced: float = 0.0


PROMPTS = {
    "humaneval": Prompts("en", 451, 0, 0, False, 181),
    "humaneval_instruct": Prompts("en", 1042, 0, 0, False, 181),
    "gsm8k": Prompts("en", 258, 542, 5, False, 293),
    "mmlu": Prompts("en", 552, 495, 0, True, 0, 1),
    "kobest": Prompts("ko", 269, 293, 0, False, 55, 2.2),
}
_UNKNOWN = Prompts("en", 500, 500, 0, False, 200)
# Tokens of a generated item and of its answer where it is written, in the mini models' tokenizer:
# a run of config/mini.yaml read 31.0 and wrote 11.3 where it writes.
_EMBEDDED_READ, _EMBEDDED_WRITTEN = 31.0, 11.3
_ANSWER_BYTES = 300.0
"""Of a stored answer on disk, packed: mini's has less, a GSM8K chain more."""


def parameters(study: Study, model: str) -> float:
    """Parameters of a model: as configured, else by its form or its pinned files, else 200 million.

    An embedded model: 13 h^2 a layer (attention 4, gated feed-forward of width 3 h: 9) and a tied
    table of 1,620 tokens; of depth up-scaling by its layers. A hub's: two bytes a parameter.
    """
    spec = study.models[model]
    if spec.parameters is not None:
        return float(spec.parameters)
    if isinstance(spec, EmbeddedModel):
        layers = 2 * (spec.layers - spec.upscale.drop) if spec.upscale else spec.layers
        return _embedded_parameters(spec.hidden_size, layers)
    if isinstance(spec, HubModel) and spec.files:
        weights = [f.size for name, f in spec.files.items() if name.endswith(".safetensors")]
        if weights:
            return sum(weights) / 2
    return float(_UNKNOWN_PARAMETERS)


def _embedded_parameters(hidden_size: int, layers: int) -> float:
    return 13.0 * hidden_size**2 * layers + 1620.0 * hidden_size


def items_asked(name: str, benchmark: Benchmark) -> tuple[int, int]:
    """Items asked at the last step and at each step before."""
    per = TASKS.get(name, 1) if benchmark.items_per == "task" else 1
    last = benchmark.items * per if benchmark.items else _ALL_ITEMS.get(name, 2000)
    return last, (benchmark.interim_items or 0) * per


def adapter_parameters(parameters: float, rank: int) -> float:
    """Values of a LoRA adapter of all linear layers: rank x (inputs + outputs) of each.

    For decoders of 12 h^2 parameters a layer with h/128 layers, whose layers' inputs and outputs
    sum to about 25 h (grouped attention, gated feed-forward).
    """
    return rank * 25 * hidden_size(parameters) ** 2 / 128


def hidden_size(parameters: float) -> float:
    """Width of a decoder whose 12 h^2 parameters a layer times h/128 layers make this many."""
    return (parameters * 128 / 12) ** (1 / 3)


# -- tokens -------------------------------------------------------------------------------------


def bytes_a_token(study: Study, model: str, language: str) -> float:
    """UTF-8 bytes of a token of a language, by a model's tokenizer."""
    if language != "ko":
        return _ENGLISH_BYTES
    spec = study.models[model]
    named = spec.repo if isinstance(spec, HubModel) else getattr(spec, "path", "")
    known = "qwen" in named.lower()
    return _KOREAN_BYTES_MULTILINGUAL if known else _KOREAN_BYTES


def example_tokens(study: Study, model: str) -> float:
    """Mean tokens of a training example, cut at max_tokens, by the corpus's sources.

    Lengths are taken as gamma distributed with shape 2: cut at c, their mean is
    `2 s - exp(-c / s) (2 s + c)` with s half the uncut mean.
    """
    total = tokens = 0.0
    for source in study.corpus.sources.values():
        count = examples(source)
        total += count
        each = source_tokens(study, model, source)
        half, cut = each / 2, float(study.training.max_tokens)
        tokens += count * (each - math.exp(-cut / half) * (each + cut))
    return tokens / total


def source_tokens(study: Study, model: str, source: CorpusSource) -> float:
    """Mean tokens of one source's examples before any is cut."""
    if source.format == "embedded":
        return _EMBEDDED_TOKENS
    language = source.language or ("ko" if source.format == "openorca_ko" else "en")
    size = _EXAMPLE_BYTES.get((source.format, language), 500.0)
    return size / bytes_a_token(study, model, language) + _TEMPLATE_TOKENS


PUBLISHED = {"kyujinpy/OpenOrca-KO": 21_632, "tatsu-lab/alpaca": 52_002}
"""Examples of public data sets, as their cards give them."""


def examples(source: CorpusSource) -> int:
    """Examples of a source: as many as are asked for, and no more than are public."""
    if source.format == "embedded":
        return source.examples or 4800
    public = PUBLISHED.get(source.repo or "", 50_000)
    return min(source.examples or public, public)


PROBED = {"zpd": 1, "success_probability": 0}
"""Orders that score a pool at each update, and how often they measure the probe there."""


def training_tokens(study: Study, model: str, condition: str) -> tuple[float, float]:
    """(trained, only scored) tokens of one run of a model under a condition."""
    training, chosen = study.training, study.conditions[condition]
    each = example_tokens(study, model)
    trained = each * training.steps * training.batch_size
    scored = 0.0
    probed = PROBED.get(chosen.order)
    if probed is not None:
        updates = -(-training.steps // int(chosen.options.get("update_every", 500)))
        pool = int(chosen.options.get("pool_size", 2048))
        scored = each * updates * (pool + probed * study.corpus.probe)
    return trained, scored


def answer_tokens(
    study: Study, model: str, members: Sequence[grid.Run] | None = None
) -> tuple[float, float]:
    """(read, written) tokens of evaluating runs at all their served steps; all of a model's runs.

    Args:
        members: only these runs, as of one chunk.
    """
    runs = [run for run in study.all_runs if run.model == model] if members is None else members
    interim_steps = len(study.served_steps) - 1
    read = written = 0.0
    for name, benchmark in study.benchmarks.items():
        last, interim = items_asked(name, benchmark)
        points = [(0 if r.condition == grid.BASE else interim_steps) * interim + last for r in runs]
        asked = sum(points) * benchmark.samples
        told = PROMPTS.get(name, _UNKNOWN)
        if benchmark.source == "embedded":
            read += asked * _EMBEDDED_READ
            written += asked * (told.forced or _EMBEDDED_WRITTEN)
            continue
        width = bytes_a_token(study, model, told.language)
        shots = told.shots if benchmark.num_fewshot is None else benchmark.num_fewshot
        own = told.own + told.answer * (told.forced > 0)
        if told.shared:
            tasks = len(benchmark.tasks or ()) or TASKS.get(name, 1)
            served = sum(1 + (interim_steps if r.condition != grid.BASE else 0) for r in runs)
            read += served * tasks * shots * told.shot / width
        else:
            own += shots * told.shot
        read += asked * own / width
        steps = told.forced or min(told.answer / width, float(benchmark.max_tokens or 1e9))
        written += asked * steps
    return read, written


# -- arithmetic and time ------------------------------------------------------------------------


@dataclass(frozen=True)
class Hours:
    """Device-hours, from the good case to the cautious one."""

    low: float
    high: float

    def __add__(self, other: Hours) -> Hours:
        return Hours(self.low + other.low, self.high + other.high)


def train_flop(study: Study, model: str, condition: str) -> float:
    """Floating-point operations of one run.

    2 a parameter and token forward, 2 backward for the activations' gradients, 2 more for the
    weights' own where all are trained (Kaplan et al. 2020, table 1); with LoRA the weights have
    none. Scoring is a forward pass.
    """
    trained, scored = training_tokens(study, model, condition)
    size = parameters(study, model)
    a_token = 6.0 if study.training.method == "full" else 4.0
    return size * (a_token * trained + 2.0 * scored)


def train_hours(
    study: Study, model: str, machine: Machine, condition: str | None = None
) -> Hours | None:
    """Device-hours of all runs of a model; None where the machine's arithmetic is not known.

    Args:
        condition: only one run, under this condition.
    """
    if machine.tflops is None:
        return None
    if condition is None:
        flop = sum(train_flop(study, model, c) for c in study.conditions) * len(study.seeds)
    else:
        flop = train_flop(study, model, condition)
    seconds = flop / (machine.tflops * 1e12)
    return Hours(seconds / UTILISATION[1] / 3600, seconds / UTILISATION[0] / 3600)


def serve_hours(
    study: Study,
    model: str,
    machine: Machine,
    batch: int = 128,
    members: Sequence[grid.Run] | None = None,
) -> Hours | None:
    """Device-hours of all answers of a model: reading bound by arithmetic, writing by bandwidth.

    A token is written for `batch` requests at once by reading all weights once.

    Args:
        members: only of these runs, as of one chunk.
    """
    if machine.tflops is None or machine.bandwidth_gbs is None:
        return None
    read, written = answer_tokens(study, model, members)
    size = parameters(study, model)
    reading = 2.0 * size * read / (machine.tflops * 1e12)
    width = 4 if study.generations.dtype == "float32" else 2
    writing = written / batch * size * width / (machine.bandwidth_gbs * 1e9)
    return Hours(
        (reading / UTILISATION[1] + writing / BANDWIDTH_SHARE[1]) / 3600,
        (reading / UTILISATION[0] + writing / BANDWIDTH_SHARE[0]) / 3600,
    )


def cpu_train_seconds(study: Study, model: str, condition: str) -> float:
    """Seconds of one run's job on the machine whose rates were measured (see `slowness`)."""
    flop = train_flop(study, model, condition)
    rate = cpu_gflops(parameters(study, model)) * 1e9
    return CPU_START_SECONDS + flop / rate


def cpu_serve_seconds(study: Study, model: str, members: Sequence[grid.Run] | None = None) -> float:
    """Seconds of answers on that machine: engines' starts, reading, writing.

    Reading is bound by arithmetic at the rate of training, writing by the measured rates.

    Args:
        members: only these runs, which share an engine; else all of the model's.
    """
    read, written = answer_tokens(study, model, members)
    size = parameters(study, model)
    starts = 1 if members is not None else sum(name == model for name, _ in study.chunks)
    reading = 2.0 * size * read / (cpu_gflops(size) * 1e9)
    return starts * CPU_ENGINE_SECONDS + reading + written / cpu_tokens_a_second(size)


def score_seconds(study: Study) -> float:
    """Seconds of all verdicts on that machine: a job's start, and the programs that are run."""
    programs = 0.0
    interim_steps = len(study.served_steps) - 1
    for name, benchmark in study.benchmarks.items():
        if "humaneval" in name:
            last, interim = items_asked(name, benchmark)
            runs = len(study.runs) * (last + interim_steps * interim) + len(study.models) * last
            programs += runs * benchmark.samples
    return len(study.all_runs) * SCORE_SECONDS + programs / PROGRAMS_A_SECOND


def cpu_make_seconds(study: Study, model: str) -> float:
    """Seconds of making a base model on that machine, fetching apart.

    An embedded one is trained: 6 operations a parameter and token, 8 rows of 128 tokens a step; one
    that is scaled up goes on as the larger one.
    """
    spec = study.models[model]
    if not isinstance(spec, EmbeddedModel):
        return CPU_FOLDER_SECONDS
    size = parameters(study, model)
    flop = 6.0 * size * 8 * 128 * (spec.upscale.steps if spec.upscale else spec.steps)
    if spec.upscale:
        alone = _embedded_parameters(spec.hidden_size, spec.layers)
        flop += 6.0 * alone * 8 * 128 * spec.steps
    return CPU_START_SECONDS + flop / (cpu_gflops(size) * CPU_PACKED * 1e9)


def slowness(core_gflops: float) -> float:
    """How many times as long as there all of it takes.

    Args:
        core_gflops: of float32 matrix products on one core of another CPU.
    """
    return CPU_CORE_GFLOPS / core_gflops


@dataclass(frozen=True)
class CpuSeconds:
    """Seconds of a study's jobs on a CPU, summed over jobs, and of all of it, `whole`."""

    models: float
    training: float
    answers: float
    scores: float
    others: float
    whole: float


def cpu_seconds(
    study: Study, other_jobs: int, cores: int, core_gflops: float = CPU_CORE_GFLOPS
) -> CpuSeconds:
    """What a study takes on a CPU, with as many jobs at once as there are cores for.

    Args:
        other_jobs: those that are neither models, runs, answers nor scores.
        cores: an estimate of the whole fills all of them at all times.
        core_gflops: as in `slowness`.
    """
    times = slowness(core_gflops)
    models = times * sum(cpu_make_seconds(study, m) for m in study.models)
    training = times * sum(
        cpu_train_seconds(study, m, c) * len(study.seeds)
        for m in study.models
        for c in study.conditions
    )
    answers = times * sum(cpu_serve_seconds(study, m) for m in study.models)
    scores = times * score_seconds(study)
    others = times * other_jobs * CPU_TABLE_SECONDS
    trainers = min(study.training.threads * study.training.processes, cores)
    busy = models + trainers * training + min(study.generations.threads, cores) * answers
    whole = (busy + scores + others) / cores
    return CpuSeconds(models, training, answers, scores, others, whole)


# -- memory and disk ----------------------------------------------------------------------------


def train_gb(study: Study, model: str, method: str, micro_batch: int | None = None) -> float:
    """Peak device memory of training, 10^9 bytes.

    Args:
        method: `lora`: weights once, 16 bytes a trained value. `full`: 16 bytes a parameter
            (weights and gradients in 16 bits, weights, first and second moments in 32;
            Rajbhandari et al. 2020, section 3.1).
        micro_batch: examples a pass; else the configuration's.

    The processes share a batch, and in full fine-tuning the state. Without gradient checkpointing.
    Activations: 34 bytes a token, hidden unit and layer at 16 bits, attention scores not kept
    (Korthikanti et al. 2022, eq. 1); logits of the whole pass in 32 bits with their gradient.
    """
    size, training = parameters(study, model), study.training
    width = 2 if training.precision == "bfloat16" else 4
    most = training.batch_size // training.processes
    micro = micro_batch or min(training.micro_batch or most, most)
    tokens = micro * training.max_tokens
    hidden = hidden_size(size)
    activations = tokens * 17 * width * hidden * (hidden / 128)
    vocabulary = min(VOCABULARY, size / 100)
    logits = 2 * 4 * tokens * vocabulary
    if method == "full":
        state = 16.0 * size / training.processes
    else:
        state = width * size + 16 * adapter_parameters(size, training.lora.rank)
    return (state + activations + logits) / 1e9


def serve_gb(study: Study, model: str) -> float:
    """Device memory of serving, 10^9 bytes: weights, cache of keys and values, adapters."""
    size = parameters(study, model)
    width = 4 if study.generations.dtype == "float32" else 2
    adapters = study.generations.adapters_in_flight
    held = adapters * adapter_parameters(size, study.training.lora.rank) * width
    return (size * width + study.generations.kv_cache_gib * 2**30 + held) / 1e9


def disk_gb(study: Study) -> dict[str, float]:
    """Disk, 10^9 bytes: base models, data, the hub's cache of both, adapters at every kept step,
    answers, and this project's own cache, which holds the answers once more.
    """
    kept = len(study.evaluation_steps)
    models = cache = adapters = 0.0
    for name, spec in study.models.items():
        size = parameters(study, name)
        stored = size * (2 if isinstance(spec, HubModel) else 4)
        models += stored
        cache += stored if isinstance(spec, HubModel) else 0.0
        runs = len(study.conditions) * len(study.seeds)
        if study.training.method == "full":
            adapters += (2 if study.training.precision == "bfloat16" else 4) * size * runs
            continue
        adapters += 4 * adapter_parameters(size, study.training.lora.rank) * kept * runs
    data = 0.0
    for source in study.corpus.sources.values():
        language = source.language or "en"
        size = examples(source) * _EXAMPLE_BYTES.get((source.format, language), 500.0)
        data += size
        cache += size if source.repo is not None else 0.0
    answers = 0.0
    interim_steps = len(study.served_steps) - 1
    for name, benchmark in study.benchmarks.items():
        last, interim = items_asked(name, benchmark)
        asked = len(study.runs) * (last + interim_steps * interim) + len(study.models) * last
        answers += asked * benchmark.samples * _ANSWER_BYTES
    found = {
        "base models": models,
        "data": data,
        "hub's cache": cache,
        "adapters": adapters,
        "answers": answers,
        "own cache": answers,
    }
    return {name: value / 1e9 for name, value in found.items()}
