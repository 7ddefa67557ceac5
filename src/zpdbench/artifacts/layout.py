"""What a bundle holds and where: a study's results folder, with the evidence of how it was made.

Names inside a bundle are those of the results folder. Besides them: `bundle.json` (what is
included, the code's version), `ro-crate-metadata.json`, `README.md` and `workflow/` (the rules,
locks and package that made it, to be read, never to be run).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from types import SimpleNamespace
from typing import Any

from zpdbench import grid
from zpdbench.study import EmbeddedModel, Study

FORMAT = "zpdbench-bundle/1"
STUDY, FACTS, CRATE, README = (
    "study.lock.yaml",
    "bundle.json",
    "ro-crate-metadata.json",
    "README.md",
)
PARTS = ("adapters", "traces", "checkpoints", "corpus", "items", "generations")
"""What may be left out of a bundle to make it smaller."""

_TABLE = re.compile(r"^[a-z][a-z0-9_]*\.tsv$")
_FIGURE = re.compile(r"^figures/[a-z0-9_.-]+\.(svg|png)$")
_WORKFLOW = re.compile(
    r"^workflow/(Snakefile|rules/[a-z_]+\.smk|envs/[A-Za-z0-9_.]+\.(txt|in)"
    r"|containers/(debian\.lock|exceptions\.txt|rootfs\.sh|zpdbench)"
    r"|zpdbench/[A-Za-z0-9_/.-]+\.(py|yaml|json|jinja|html|css|js|txt|typed|md))$"
)
_CHECKPOINT = re.compile(rf"^checkpoints/{grid.NAME}$")
_CHECKPOINT_FILE = re.compile(
    r"^(MANIFEST\.json|[A-Za-z0-9_.-]+\.(json|jinja|txt|safetensors|model))$"
)
REPORT = "report.html"
_TABLE_OF_VERB = {"rq1": "anova"}
FIGURES_OF = {
    "curves": "curves",
    "effects": "h3a",
    "power": "power",
    "ladder": "ladder",
    "expected": "expected",
    "interaction": "scores",
}
"""Figure -> the table that it is drawn from."""
TRAINING_FIGURES = ("window", "difficulty")
"""Those that are drawn from the runs' traces and the corpus."""
_MAX_CELLS, _MAX_SAMPLES = 200_000, 10_000
# Sources whose terms let anyone pass the text on (SPDX identifiers).
FREE_LICENSES = frozenset(
    [
        "CC0-1.0",
        "CC-BY-3.0",
        "CC-BY-4.0",
        "CC-BY-SA-3.0",
        "CC-BY-SA-4.0",
        "MIT",
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ODC-By-1.0",
        "PDDL-1.0",
        "Unlicense",
        "CDLA-Permissive-2.0",
    ]
)

Paths = grid.Paths


@dataclass(frozen=True)
class Included:
    """What a bundle says that it holds."""

    adapters: list[str] = field(default_factory=list)
    """Folders of runs whose weights are in it, such as `adapters/m/zpd/s0`."""
    traces: bool = True
    checkpoints: list[str] = field(default_factory=list)
    """Models whose base weights are in it."""
    corpus: bool = True
    items: bool = True
    generations: bool = True

    def as_json(self) -> dict[str, Any]:
        """For bundle.json."""
        return asdict(self)


def included_of(facts: Mapping[str, Any]) -> Included:
    """What bundle.json says is in the bundle.

    Raises:
        ValueError: another form.
    """
    value = facts.get("included")
    if not isinstance(value, dict) or set(value) != set(asdict(Included())):
        raise ValueError("included: not of this format")
    for key, kind in (("traces", bool), ("corpus", bool), ("items", bool), ("generations", bool)):
        if not isinstance(value[key], kind):
            raise ValueError(f"included.{key}: no {kind.__name__}")
    for key in ("adapters", "checkpoints"):
        if not isinstance(value[key], list) or not all(isinstance(v, str) for v in value[key]):
            raise ValueError(f"included.{key}: no list of names")
    return Included(**value)


def plan(study: Study, without: Iterable[str] = (), sample: int | None = None) -> Included:
    """What a new bundle holds.

    Args:
        study: the study.
        without: PARTS to leave out.
        sample: the weights of this many runs only, spread evenly over the grid.
    """
    without = set(without)
    runs = [_relative(study, study.paths.adapter(*run)) for run in study.runs]
    if sample is not None:
        count = min(sample, len(runs))
        runs = [runs[i * len(runs) // count] for i in range(count)] if count else []
    # Weights that the workflow made itself are tiny; published ones are named by their revision.
    own = [name for name, model in study.models.items() if isinstance(model, EmbeddedModel)]
    return Included(
        adapters=[] if "adapters" in without else runs,
        traces="traces" not in without,
        checkpoints=[] if "checkpoints" in without else own,
        corpus="corpus" not in without and may_copy_corpus(study),
        items="items" not in without,
        generations="generations" not in without,
    )


def may_copy_corpus(study: Study) -> bool:
    """Whether every source of the corpus may be passed on."""
    return all(
        source.format == "embedded" or source.license in FREE_LICENSES
        for source in study.corpus.sources.values()
    )


def _relative(study: Study, path: str) -> str:
    return path.removeprefix(f"{study.results}/")


# -- jobs ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A job of the grid by its rule and wildcards, with what it must read and make."""

    rule: str
    wildcards: dict[str, str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def settings(self, study: Study) -> str:
        """Digest (hex) of the keys that the job depends on."""
        return study.digest(self.rule, SimpleNamespace(**self.wildcards))


def jobs(study: Study) -> list[Job]:
    """Every job between the configuration and the scores, with paths relative to the bundle."""
    paths = Paths("results")

    def name(path: str) -> str:
        return path.removeprefix("results/")

    items = tuple(name(paths.items(b)) for b in study.benchmarks)
    corpus = name(paths.corpus(study.corpus.name))
    found = [
        Job("make_checkpoint", {"model": m}, (), (name(paths.checkpoint(m)),)) for m in study.models
    ]
    found += [
        Job("make_items", {"benchmark": b}, (), (name(paths.items(b)),)) for b in study.benchmarks
    ]
    found.append(Job("make_corpus", {"corpus": study.corpus.name}, (), (corpus,)))
    for run in study.runs:
        wildcards = {"model": run.model, "condition": run.condition, "seed": str(run.seed)}
        inputs = (name(paths.checkpoint(run.model)), corpus)
        found.append(Job("train_adapter", wildcards, inputs, (name(paths.adapter(*run)),)))
    for (model, chunk), members in study.chunks.items():
        adapters = tuple(name(paths.adapter(*r)) for r in members if r.condition != grid.BASE)
        found.append(
            Job(
                "generate_chunk",
                {"model": model, "chunk": chunk},
                (name(paths.checkpoint(model)), *adapters, *items),
                (name(paths.generations(model, chunk)),),
            )
        )
    for run in study.all_runs:
        wildcards = {"model": run.model, "condition": run.condition, "seed": str(run.seed)}
        chunk = grid.chunk_of(run, study.generations.group_by)
        found.append(
            Job(
                "score_run",
                wildcards,
                (name(paths.generations(run.model, chunk)), *items),
                (name(paths.scores(*run)),),
            )
        )
    return found


def record_name(output: str) -> str:
    """Where the record of the job with this first output lies."""
    return Paths("results").record(output).removeprefix("results/")


# -- names --------------------------------------------------------------------------------------


def required(study: Study, included: Included) -> set[str]:
    """Every file that a bundle of this study must hold."""
    names = {STUDY, FACTS, CRATE, README, "workflow/Snakefile", REPORT}
    names |= {*tables(study), *figures(study), *definitions(study).values()}
    for job in jobs(study):
        output = job.outputs[0]
        names.add(record_name(output))
        if (
            job.rule == "score_run"
            or (job.rule == "make_items" and included.items)
            or (job.rule == "make_corpus" and included.corpus)
            or (job.rule == "generate_chunk" and included.generations)
        ):
            names.add(output)
        elif job.rule == "make_checkpoint" and job.wildcards["model"] in included.checkpoints:
            names |= {f"{output}/MANIFEST.json", f"{output}/config.json"}
        elif job.rule == "train_adapter":
            names.add(f"{output}/MANIFEST.json")
            if included.traces:
                names.add(f"{output}/trace.parquet")
            if output in included.adapters:
                names |= {f"{output}/{n}" for n in adapter_files(study)}
    return names


def tables(study: Study) -> list[str]:
    """Every table that the workflow makes of this study."""
    verbs = ("scores", "curves", *study.tables)
    return [f"{_TABLE_OF_VERB.get(verb, verb)}.tsv" for verb in verbs]


def figures(study: Study) -> list[str]:
    """Every figure that the workflow draws of this study's tables."""
    held = set(tables(study))
    return [
        f"figures/{name}.{kind}"
        for name, table in FIGURES_OF.items()
        if f"{table}.tsv" in held
        for kind in ("svg", "png")
    ]


def definitions(study: Study) -> dict[str, str]:
    """Benchmark -> the name in a bundle of its own definition, where the study brings one."""
    return {
        name: f"definitions/{name}.yaml"
        for name, section in study.benchmarks.items()
        if section.definition and section.definition.endswith((".yaml", ".yml"))
    }


def too_large(study: Study) -> str | None:
    """Why a configuration's grid is too large to be listed at all, None if it is not.

    Plain arithmetic: the grid of a hostile configuration must not be built to be counted.
    """
    training = study.training
    steps = -(-training.steps // training.evaluate_every)
    runs = len(study.models) * len(study.conditions) * len(study.seeds)
    if runs * steps > _MAX_CELLS:
        return f"{runs} runs at {steps} steps are more than {_MAX_CELLS} in all"
    if max((b.samples for b in study.benchmarks.values()), default=0) > _MAX_SAMPLES:
        return f"more than {_MAX_SAMPLES} samples an item"
    return None


def adapter_files(study: Study) -> set[str]:
    """Weights of one run: two files at each step that is kept."""
    return {
        f"{grid.adapter_step(step)}/{name}"
        for step in study.evaluation_steps
        for name in study.weight_files
    }


def is_table(name: str) -> bool:
    """Whether a name is a statistics table's."""
    return bool(_TABLE.match(name))


def is_figure(name: str) -> bool:
    """Whether a name is a figure's."""
    return bool(_FIGURE.match(name))


def is_checkpoint(name: str) -> bool:
    """Whether a name is a base model's folder's."""
    return bool(_CHECKPOINT.match(name))


def foreign(names: Iterable[str], study: Study, included: Included) -> list[str]:
    """Names that no bundle of this study has: a pickle among the adapters, a run too many."""
    expected = required(study, included)
    folders = tuple(
        f"{Paths('results').checkpoint(m).removeprefix('results/')}/" for m in included.checkpoints
    )
    found = []
    for name in sorted(names):
        known = (
            name in expected
            or is_table(name)
            or is_figure(name)
            or name == REPORT
            or bool(_WORKFLOW.match(name))
            or any(
                name.startswith(f) and _CHECKPOINT_FILE.match(name.removeprefix(f)) for f in folders
            )
        )
        output = name.removeprefix("records/").removesuffix(".json")
        if name == record_name(output) and (
            is_table(output) or is_figure(output) or output == REPORT
        ):
            known = True
        if not known:
            found.append(name)
    return found
