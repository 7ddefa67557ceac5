"""The configuration: what may be said in it, where a mistake is, and what depends on which key.

The only module that knows the configuration's form. `load` reads and checks YAML files, `digest`
condenses the keys that one rule's output depends on, so that a change re-runs just that.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from zpdbench import devices, files, grid, places, revisions
from zpdbench.errors import UserError
from zpdbench.hypotheses import Hypotheses
from zpdbench.text import form
from zpdbench.text.template import DATE

Name = Annotated[str, Field(pattern=rf"^{grid.NAME}$", max_length=64)]
Positive = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Repo = Annotated[str, Field(pattern=rf"^{revisions.REPO}$", max_length=96)]
Commit = Annotated[str, Field(pattern=rf"^{revisions.COMMIT}$")]
Place = Annotated[str, AfterValidator(places.anywhere)]
Below = Annotated[str, AfterValidator(places.below)]
AddressOrFile = Annotated[str, AfterValidator(places.address_or_file)]
Image = Annotated[str, AfterValidator(places.of_image)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Section(BaseModel):
    """A part of the configuration: unknown keys are mistakes, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Upscale(Section):
    """Depth up-scaling (Kim et al. 2023, SOLAR): two copies, less `drop` layers at the seam."""

    drop: Annotated[int, Field(ge=0, description="layers dropped at each side of the seam")]
    steps: Annotated[int, Field(ge=0, description="steps of continued pretraining")] = 0


class Shares(Section):
    """A whole divided."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if abs(sum(self.model_dump().values()) - 1) > 1e-6:
            raise ValueError("the shares must add up to 1")
        return self


class PretrainingShares(Shares):
    """What an embedded model's pretraining texts are (docs/mini.md)."""

    textbook: Annotated[Share, Field(description="what the tasks need to be known")]
    tasks: Annotated[Share, Field(description="the benchmarks' tasks, none with a twist")]
    talk: Annotated[Share, Field(description="small talk")]
    lots: Annotated[Share, Field(description="numbers drawn by lot")]


class CorpusShares(Shares):
    """What the embedded corpus is to the embedded models (docs/mini.md)."""

    mastered: Annotated[Share, Field(description="small talk, and tasks as in pretraining")]
    learnable: Annotated[Share, Field(description="tasks with a twist, as most items have it")]
    beyond: Annotated[Share, Field(description="numbers drawn by lot: nothing to be learnt")]


class EmbeddedModel(Section):
    """A tiny model that the workflow pretrains itself on the embedded corpus."""

    source: Annotated[Literal["embedded"], Field(description="made here")]
    architecture: Annotated[Literal["qwen2", "llama"], Field(description="whose decoder")]
    layers: Annotated[Positive, Field(description="of the decoder")]
    hidden_size: Annotated[
        int, Field(gt=0, multiple_of=32, description="width, a multiple of the head size")
    ]
    steps: Annotated[Positive, Field(description="of pretraining, 8 texts each")]
    seed: Annotated[int, Field(ge=0, description="of weights and pretraining texts")] = 0
    pretraining: Annotated[
        PretrainingShares | None, Field(description="what its texts are; if not said, as mini's")
    ] = None
    upscale: Annotated[Upscale | None, Field(description="made deeper after pretraining")] = None
    parameters: Annotated[int | None, Field(gt=0, description="for plans; else counted")] = None


class MadeElsewhere(Section):
    """What all models have in common that are not made here."""

    upscale: Annotated[Upscale | None, Field(description="made deeper, untrained")] = None
    parameters: Annotated[int | None, Field(gt=0, description="for plans and schedulers")] = None

    @field_validator("upscale")
    @classmethod
    def _not_trained_on(cls, value: Upscale | None) -> Upscale | None:
        if value is not None and value.steps:
            raise ValueError("upscale.steps: only embedded models are trained on; set it to 0")
        return value


class GgufModel(MadeElsewhere):
    """A model out of a GGUF file that an installed Python package carries."""

    source: Annotated[Literal["package"], Field(description="out of an installed package")]
    package: Annotated[str, Field(description="installed Python package")]
    file: Annotated[Below, Field(description="in that package")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$", description="of the file")]


class LocalModel(MadeElsewhere):
    """A folder in Hugging Face's layout (safetensors), or a GGUF file, on this machine."""

    source: Annotated[Literal["local"], Field(description="a folder of this machine")]
    path: Annotated[Place, Field(description="~ is the home folder")]

    @property
    def is_gguf(self) -> bool:
        """Whether it is a GGUF file, by its name."""
        return self.path.endswith(".gguf")


class HubFile(Section):
    """What a file of a hub's repository must be."""

    sha256: Annotated[Sha256, Field(description="of its bytes")]
    size: Annotated[int, Field(ge=0, description="bytes")]


class HubModel(MadeElsewhere):
    """A model of the Hugging Face hub at a pinned revision."""

    source: Annotated[Literal["hub"], Field(description="a repository of the hub")]
    repo: Annotated[Repo, Field(description="OWNER/NAME")]
    revision: Annotated[
        Commit | None, Field(description="commit; if not said, revisions.lock.yaml's")
    ] = None
    files: Annotated[
        dict[Below, HubFile] | None,
        Field(description="path -> what it must be; if not said, revisions.lock.yaml's"),
    ] = None


Model = Annotated[EmbeddedModel | GgufModel | LocalModel | HubModel, Field(discriminator="source")]


class Condition(Section):
    """An order of training examples: its plug-in's name and that plug-in's own options."""

    order: Annotated[
        str,
        Field(
            pattern=r"^[a-z][a-z0-9_]*$",
            description="random, easy_to_hard, hard_to_easy, zpd, or a plug-in's",
        ),
    ]
    options: Annotated[dict[str, Any], Field(description="of that order, docs/conditions.md")] = {}


class CorpusSource(Section):
    """Where training examples come from."""

    format: Annotated[
        Literal["embedded", "alpaca", "openorca_ko", "parquet"],
        Field(description="embedded is generated here"),
    ]
    path: Annotated[
        Below | None,
        Field(description="below data_dir, or in repo (may hold *); none for embedded"),
    ] = None
    language: Annotated[
        Literal["en", "ko"] | None, Field(description="if not said, told by script")
    ] = None
    examples: Annotated[int | None, Field(gt=0, description="how many; all if not said")] = None
    license: Annotated[str | None, Field(description="an SPDX identifier")] = None
    shares: Annotated[
        CorpusShares | None, Field(description="of embedded examples; if not said, as mini's")
    ] = None
    repo: Annotated[Repo | None, Field(description="a data set of the hub")] = None
    revision: Annotated[
        Commit | None, Field(description="commit; if not said, revisions.lock.yaml's")
    ] = None
    files: Annotated[
        dict[Below, HubFile] | None,
        Field(description="path -> what it must be; if not said, revisions.lock.yaml's"),
    ] = None

    @model_validator(mode="after")
    def _path_given(self) -> Self:
        if (self.format == "embedded") == (self.path is not None):
            raise ValueError("path: is for every format but embedded")
        if self.shares is not None and self.format != "embedded":
            raise ValueError("shares: are for the format embedded")
        if self.repo is None and (self.revision or self.files):
            raise ValueError("repo: is missing beside revision or files")
        if self.repo is not None and self.path is None:
            raise ValueError("path: which file of repo is meant")
        return self


class Preparation(Section):
    """What is done to examples before they are used; nothing unless asked for."""

    near_duplicates: Annotated[
        float | None,
        Field(ge=0.5, le=1, description="of examples this alike (Jaccard) only the first stays"),
    ] = None
    check_language: Annotated[
        bool, Field(description="leave out what is not in its source's language")
    ] = False
    min_characters: Annotated[int, Field(ge=0, description="of a response")] = 0
    max_characters: Annotated[
        int | None, Field(gt=0, description="of prompt and response together")
    ] = None
    drop_defects: Annotated[
        bool, Field(description="leave out what is known to be broken in Alpaca's data")
    ] = False
    balance_languages: Annotated[
        bool, Field(description="as many examples of each language as the rarest has")
    ] = False


class Corpus(Section):
    """The instruction corpus and how it is prepared."""

    name: Annotated[Name, Field(description="of its file")]
    sources: Annotated[
        dict[Name, CorpusSource],
        Field(min_length=1, description="name -> where examples come from"),
    ]
    probe: Annotated[int, Field(gt=0, description="held-out examples that tell competence")] = 256
    probe_by: Annotated[
        Literal["language", "source"],
        Field(
            description="as many of each language, or of each language's sources as their share of "
            "the examples is"
        ),
    ] = "language"
    difficulty: Annotated[
        Literal["reference", "base_perplexity"],
        Field(
            description="what the fixed orders sort by: measures of the text, or each model's own "
            "loss before training"
        ),
    ] = "reference"
    on_shortfall: Annotated[
        Literal["error", "use_all"],
        Field(description="fewer examples than asked: stop, or use all and say so in every result"),
    ] = "error"
    on_empty: Annotated[
        Literal["error", "drop"], Field(description="examples with an empty response")
    ] = "error"
    contamination: Annotated[
        Literal["remove", "keep", "error"],
        Field(description="examples that hold a benchmark's item"),
    ] = "remove"
    seed: Annotated[int, Field(ge=0, description="of samples and probe")] = 0
    prepare: Preparation = Preparation()


class Lora(Section):
    """Low-rank adaptation (Hu et al. 2021)."""

    rank: Annotated[Positive, Field(description="r")] = 8
    alpha: Annotated[float, Field(gt=0, description="scale is alpha / rank")] = 16
    dropout: Annotated[float, Field(ge=0, lt=1, description="of the adapter's input")] = 0.0
    target_modules: Annotated[
        Literal["all-linear"] | list[str], Field(description="names of linear layers, or all")
    ] = "all-linear"


class Training(Section):
    """One fine-tuning run; the same for all conditions."""

    method: Annotated[
        Literal["lora", "full"],
        Field(description="full: all weights; only the last step is kept, served and evaluated"),
    ] = "lora"
    steps: Annotated[Positive, Field(description="optimiser steps a run")]
    evaluate_every: Annotated[Positive, Field(description="steps between kept adapters")]
    batch_size: Annotated[Positive, Field(description="examples a step")] = 8
    micro_batch: Annotated[
        int | None, Field(gt=0, description="examples a pass (gradient accumulation); else all")
    ] = None
    learning_rate: Annotated[float, Field(gt=0, lt=1, description="peak of AdamW's")]
    warmup: Annotated[Share, Field(description="share of the steps, then linear decay")] = 0.03
    max_tokens: Annotated[int, Field(ge=16, description="an example is cut to this")] = 1024
    precision: Annotated[
        Literal["float32", "bfloat16", "auto"],
        Field(
            description="of weights and activations; auto: bfloat16 where the machine that starts "
            "the study has such arithmetic"
        ),
    ] = "float32"
    weight_decay: Annotated[float, Field(ge=0, description="AdamW's")] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0, description="gradients are clipped to it")] = 1.0
    threads: Annotated[Positive, Field(description="of a job on a CPU")] = 1
    processes: Annotated[
        int, Field(gt=0, description="that share each batch (full: also the weights)")
    ] = 1
    gradient_checkpointing: Annotated[
        bool | Literal["auto"],
        Field(description="less memory for a second forward pass; auto: if the device needs it"),
    ] = "auto"
    lora: Lora = Lora()

    @model_validator(mode="after")
    def _equal_shares(self) -> Self:
        if self.batch_size % self.processes:
            raise ValueError(
                f"training.processes: {self.processes} cannot share a batch of "
                f"{self.batch_size} equally"
            )
        return self


class Benchmark(Section):
    """How much of a benchmark is asked, and from where."""

    source: Annotated[
        Literal["embedded", "files", "hub"], Field(description="where its items come from")
    ]
    items: Annotated[
        int | None,
        Field(
            gt=0,
            description="items at the final step (a task, where it has tasks "
            "and items_per says so); all if not said",
        ),
    ] = None
    interim_items: Annotated[
        int | None, Field(gt=0, description="items at the steps before; none: final only")
    ] = None
    items_per: Annotated[
        Literal["benchmark", "task"],
        Field(description="whether items are counted in all or for each task"),
    ] = "benchmark"
    draw: Annotated[
        Literal["random", "first"],
        Field(description="which items where not all are asked; first: the harness's --limit"),
    ] = "random"
    draw_seed: Annotated[int, Field(ge=0, description="of the random draw; registered")] = 0
    items_digest: Annotated[
        Sha256 | None,
        Field(description="of its items, as zpdbench register has it: others are refused"),
    ] = None
    definition: Annotated[
        Place | None, Field(description="a YAML file that defines it; else the one of its name")
    ] = None
    revision: Annotated[
        Commit | None,
        Field(description="the hub data set's commit; if not said, revisions.lock.yaml's"),
    ] = None
    files: Annotated[
        dict[Below, HubFile] | None,
        Field(description="path -> what it must be; if not said, revisions.lock.yaml's"),
    ] = None
    tasks: Annotated[list[str] | None, Field(description="only these tasks or subjects")] = None
    num_fewshot: Annotated[int | None, Field(ge=0, description="the harness's if not said")] = None
    max_tokens: Annotated[int | None, Field(gt=0, description="the harness's if not said")] = None
    apply_chat_template: Annotated[bool | None, Field(description="else as generations says")] = (
        None
    )
    fewshot_as_multiturn: Annotated[bool | None, Field(description="else as generations says")] = (
        None
    )
    samples: Annotated[Positive, Field(description="answers an item")] = 1
    temperature: Annotated[float, Field(ge=0, description="0: greedy")] = 0.0
    top_p: Annotated[float, Field(gt=0, le=1, description="nucleus to draw from")] = 1.0
    self_consistency: Annotated[
        bool, Field(description="one verdict an item: the samples' most frequent answer")
    ] = False

    @model_validator(mode="after")
    def _interim_within(self) -> Self:
        if self.items and self.interim_items and self.interim_items > self.items:
            raise ValueError("interim_items: must not be larger than items")
        if self.samples > 1 and self.temperature == 0:
            raise ValueError("samples: more than one needs a temperature above 0")
        if self.self_consistency and self.samples == 1:
            raise ValueError("self_consistency: needs more than one of samples")
        if self.source != "hub" and (self.revision or self.files):
            raise ValueError("revision: and files: are for source: hub")
        return self


class Server(Section):
    """How a server is asked (engine openai); all but `model` change no answer."""

    model: Annotated[
        str | dict[str, str] | None,
        Field(description="the served base's name, or one a model; else the only one served"),
    ] = None
    in_flight: Annotated[int, Field(gt=0, le=1024, description="requests at once")] = 32
    requests_per_second: Annotated[float | None, Field(gt=0, description="at most")] = None
    timeout: Annotated[float, Field(gt=0, description="seconds one answer may take")] = 300
    retries: Annotated[int, Field(ge=0, le=20, description="of a failed request")] = 4


class Generations(Section):
    """How answers are made."""

    engine: Annotated[
        Literal["auto", "vllm", "transformers", "openai"],
        Field(description="auto: vllm where it is installed, else transformers"),
    ] = "auto"
    group_by: Annotated[
        list[Literal["model", "condition", "seed"]], Field(description="what shares an engine")
    ] = ["model"]
    apply_chat_template: Annotated[
        bool, Field(description="ask by the model's; else the harness's plain form")
    ] = False
    fewshot_as_multiturn: Annotated[
        bool,
        Field(description="under it, few-shot examples are turns; else one turn holds them all"),
    ] = True
    dtype: Annotated[
        Literal["float32", "bfloat16", "auto"],
        Field(description="of weights and activations; auto: as training.precision"),
    ] = "float32"
    max_model_len: Annotated[int, Field(ge=64, description="tokens of prompt and answer")] = 512
    adapters_in_flight: Annotated[int, Field(gt=0, description="adapters served at once")] = 8
    kv_cache_gib: Annotated[float, Field(gt=0, description="memory for keys and values")] = 1.0
    threads: Annotated[Positive, Field(description="of an engine on a CPU")] = 1
    seed: Annotated[int, Field(ge=0, description="of sampling")] = 0
    base_url: Annotated[
        AddressOrFile | dict[str, AddressOrFile] | None,
        Field(description="http://HOST:PORT/v1 or unix:/path/to/socket; or one a model"),
    ] = None
    server: Server = Server()

    @field_validator("group_by")
    @classmethod
    def _known_group(cls, value: list[str]) -> list[str]:
        if value not in (["model"], ["model", "seed"], ["model", "condition", "seed"]):
            raise ValueError("must be [model], [model, seed] or [model, condition, seed]")
        return value

    @model_validator(mode="after")
    def _url_given(self) -> Self:
        if (self.engine == "openai") != (self.base_url is not None):
            raise ValueError("base_url: is for engine openai, and only for it")
        return self

    def endpoint(self, model: str) -> tuple[str | None, str | None]:
        """Address of the server of a model, and the name that it has there (None: not said)."""
        url, name = self.base_url, self.server.model
        return (
            url[model] if isinstance(url, dict) else url,
            name[model] if isinstance(name, dict) else name,
        )


Layer = Literal["namespaces", "root", "capabilities", "seccomp", "landlock", "processes"]
"""The sandbox's layers, as `zpdbench.sandbox.LAYERS` (a test compares them)."""


class Sandbox(Section):
    """How model-written programs are run."""

    waive: Annotated[
        list[Layer], Field(description="protection layers that may be missing (docs/security.md)")
    ] = []
    seconds: Annotated[float | None, Field(gt=0, description="a program; else calibrated")] = None


class Images(Section):
    """The container images of the four stages; used with `--sdm apptainer` only."""

    folder: Annotated[Image, Field(description="where built images lie")] = ".cache/images"
    flavour: Annotated[
        Literal["cpu", "cuda"], Field(description="of the images for training and serving")
    ] = "cpu"
    nv: Annotated[bool, Field(description="give NVIDIA GPUs to the containers")] = False
    unpack: Annotated[
        bool,
        Field(
            description="a run on one machine unpacks images once, beside them: jobs start faster, "
            "for three times the disk"
        ),
    ] = True
    train: Annotated[
        Image | None,
        Field(description="another image: a file, or an address with @sha256:"),
    ] = None
    serve: Annotated[Image | None, Field(description="likewise")] = None
    score: Annotated[Image | None, Field(description="likewise")] = None
    stats: Annotated[Image | None, Field(description="likewise")] = None

    @model_validator(mode="after")
    def _pinned(self) -> Self:
        for name in ("train", "serve", "score", "stats"):
            image = getattr(self, name)
            if image and "://" in image and "@sha256:" not in image:
                raise ValueError(f"{name}: an address needs a digest, ...@sha256:...")
        return self


class Hub(Section):
    """Where files of the hub are had; changes no byte, as all are checked by hash."""

    endpoint: Annotated[
        str | None,
        Field(
            pattern=r"^https?://[^@\s]+$",
            description="a mirror's address; else HF_ENDPOINT. HF_TOKEN is not sent to it",
        ),
    ] = None
    folder: Annotated[
        Place | None,
        Field(description="a folder that holds OWNER/NAME/FILE and is asked first"),
    ] = None
    cache: Annotated[Place | None, Field(description="shared by all jobs; else HF_HUB_CACHE")] = (
        None
    )


@dataclass(frozen=True)
class HubSource:
    """What a study takes from one repository of the hub.

    Attributes:
        section: `models`, `corpus.sources` or `benchmarks`, where `name` stands.
        revision, files: as the configuration or revisions.lock.yaml has them; None where neither.
        patterns: of a data set, the paths that are wanted; of a model none, it is taken whole.
    """

    kind: revisions.Kind
    section: str
    name: str
    repo: str
    revision: str | None
    files: dict[str, HubFile] | None
    patterns: tuple[str, ...] = ()

    @property
    def is_pinned(self) -> bool:
        """Whether it is known which bytes are meant."""
        return self.revision is not None and bool(self.files)


class Study(Section):
    """The whole configuration."""

    study: Annotated[
        str | None, Field(min_length=1, max_length=120, description="its name, as reports show it")
    ] = None
    results: Annotated[
        str,
        AfterValidator(places.folder_of_results),
        Field(description="folder of all results"),
    ] = "results"
    data_dir: Annotated[
        Place | None, Field(description="where local data sets lie; else ZPDBENCH_DATA")
    ] = None
    arithmetic: Annotated[
        Literal["portable", "native"] | None,
        Field(
            description="portable: the same bytes on all processors of a class "
            "(docs/methods/arithmetic.md); native: as fast as this one can; if not said, portable "
            "where all models are embedded"
        ),
    ] = None
    seeds: Annotated[
        list[Annotated[int, Field(ge=0)]],
        Field(min_length=1, description="one repetition of everything each"),
    ]
    models: Annotated[dict[Name, Model], Field(min_length=1, description="name -> base model")]
    conditions: Annotated[
        dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_]*$")], Condition],
        Field(min_length=1),
    ]
    corpus: Corpus
    training: Training
    benchmarks: Annotated[
        dict[Annotated[str, Field(pattern=r"^[a-z0-9_]+$")], Benchmark], Field(min_length=1)
    ]
    generations: Generations = Generations()
    sandbox: Sandbox = Sandbox()
    hypotheses: Hypotheses
    template_date: Annotated[
        datetime.date, Field(description="what a chat template takes for today")
    ] = DATE
    images: Images = Images()
    hub: Hub = Hub()

    @field_validator("seeds")
    @classmethod
    def _distinct_seeds(cls, value: list[int]) -> list[int]:
        if len(set(value)) != len(value):
            raise ValueError("each seed once")
        return value

    @field_validator("conditions")
    @classmethod
    def _base_is_reserved(cls, value: dict[str, Condition]) -> dict[str, Condition]:
        if grid.BASE in value:
            raise ValueError(f"{grid.BASE!r} is the untuned model's name; call it otherwise")
        return value

    @model_validator(mode="after")
    def _references_exist(self) -> Self:
        wrong = self.hypotheses.unknown_name(self.models, self.conditions, self.benchmarks)
        if wrong:
            raise ValueError(": ".join(wrong))
        return self

    @model_validator(mode="after")
    def _servable(self) -> Self:
        if self.training.method == "full" and self.generations.engine == "openai":
            raise ValueError(
                "generations.engine: a server that is given adapters cannot serve the runs of "
                "training.method full; take vllm or transformers"
            )
        return self

    @model_validator(mode="after")
    def _an_endpoint_a_model(self) -> Self:
        section = self.generations
        if section.engine != "openai":
            return self
        for key, given in (("base_url", section.base_url), ("server.model", section.server.model)):
            for name in sorted(set(given) ^ set(self.models)) if isinstance(given, dict) else ():
                wrong = f"has none for model {name!r}" if name in self.models else f"no {name!r}"
                raise ValueError(f"generations.{key}: {wrong}; give one for each under models")
        seen: dict[tuple[str | None, str | None], str] = {}
        for name in self.models:
            other = seen.setdefault(section.endpoint(name), name)
            if other != name:
                raise ValueError(
                    f"generations.base_url: {other!r} and {name!r} would be answered by one and "
                    f"the same served model; give each an address: {{{other}: URL, {name}: URL}}"
                )
        return self

    # -- the grid -------------------------------------------------------------------------------

    @property
    def paths(self) -> grid.Paths:
        """Where this study's files lie."""
        return grid.Paths(self.results)

    @property
    def evaluation_steps(self) -> list[int]:
        """The steps whose weights are kept: with full fine-tuning the last one alone."""
        if self.training.method == "full":
            return [self.training.steps]
        return grid.evaluation_steps(self.training.steps, self.training.evaluate_every)

    @property
    def served_steps(self) -> list[int]:
        """The steps at which answers are generated: all, or the last if none asks for interim."""
        if any(b.interim_items for b in self.benchmarks.values()):
            return self.evaluation_steps
        return self.evaluation_steps[-1:]

    @property
    def resolved_hypotheses(self) -> Hypotheses:
        """The hypotheses with what they leave to the study filled in; its digest is the rows'."""
        return self.hypotheses.resolve(
            models=list(self.models),
            conditions=list(self.conditions),
            benchmarks=list(self.benchmarks),
            parameters={m: float(s.parameters) for m, s in self.models.items() if s.parameters},
            design=self.design,
        )

    @property
    def computes(self) -> Literal["portable", "native"]:
        """The arithmetic of its jobs (`zpdbench.arithmetic`)."""
        embedded = all(m.source == "embedded" for m in self.models.values())
        return self.arithmetic or ("portable" if embedded else "native")

    @property
    def design(self) -> dict[str, Any]:
        """What a registration covers beside the hypotheses: the runs, and what they are asked.

        Nothing of one machine: no path, address, thread or folder.
        """
        benchmarks = _benchmarks_keys(self)
        for name, section in benchmarks.items():
            section["items_digest"] = self.benchmarks[name].items_digest
            section["definition"] = section["definition"] and Path(section["definition"]).name
        return {
            "seeds": list(self.seeds),
            "models": {
                name: spec.model_dump(mode="json", exclude={"parameters", "path", "files"})
                for name, spec in self.models.items()
            },
            "conditions": {name: c.model_dump(mode="json") for name, c in self.conditions.items()},
            "corpus": _corpus_keys(self),
            "training": self.training.model_dump(mode="json", exclude=_HOW_TRAINED),
            "benchmarks": benchmarks,
            "generations": self.generations.model_dump(mode="json", exclude=_HOW_ASKED),
            "template_date": self.template_date.isoformat(),
        }

    @property
    def tables(self) -> list[str]:
        """Verbs of the study's tables, each a rule: those about two models need `h3a`."""
        about_two = ("h3a", "power", "expected", "h3a_sensitivity")
        return [
            t
            for t in ("h3a", *TABLES, *self.further_tables)
            if self.hypotheses.h3a is not None or t not in about_two
        ]

    @property
    def further_tables(self) -> list[str]:
        """Tables beside TABLES, each a rule of its own name: some are of certain studies only."""
        found = ["h3a_sensitivity", "calibration"] if self.hypotheses.h3a else ["calibration"]
        resolved = self.resolved_hypotheses
        ablations, ladder = resolved.ablations, resolved.ladder
        if ablations.conditions and ablations.full in self.conditions:
            found.append("ablations")
        rungs = [m for m in self.models if m in ladder.parameters]
        if len(rungs) >= 3 and {ladder.treatment, ladder.control} <= set(self.conditions):
            found.append("ladder")
        return found

    @property
    def runs(self) -> list[grid.Run]:
        """All fine-tuning runs."""
        return grid.runs(self.models, self.conditions, self.seeds)

    @property
    def all_runs(self) -> list[grid.Run]:
        """The untuned bases, then all fine-tuning runs."""
        return [*grid.bases(self.models), *self.runs]

    @property
    def chunks(self) -> dict[tuple[str, str], list[grid.Run]]:
        """(model, chunk) -> runs."""
        return grid.chunks(self.all_runs, self.generations.group_by)

    @property
    def weight_files(self) -> tuple[str, str]:
        """The files of a kept step that its answers depend on, below the step's folder."""
        return grid.FULL_FILES if self.training.method == "full" else grid.ADAPTER_FILES

    def chunk_adapters(self, model: str, chunk: str) -> list[str]:
        """Folders of the fine-tuned runs that one chunk serves (a base has none)."""
        runs = self.chunks.get((model, chunk), [])
        return [self.paths.adapter(*run) for run in runs if run.condition != grid.BASE]

    def run_generations(self, model: str, condition: str, seed: int | str) -> str:
        """The file that holds one run's answers."""
        run = grid.Run(model, condition, int(seed))
        return self.paths.generations(model, grid.chunk_of(run, self.generations.group_by))

    @property
    def data_folder(self) -> Path:
        """Where local data sets lie: `data_dir`, else the environment's ZPDBENCH_DATA.

        Raises:
            UserError: neither is given, or it is no folder.
        """
        given = self.data_dir or os.environ.get("ZPDBENCH_DATA")
        if not given:
            raise UserError(
                "no folder of local data sets is given",
                where="data_dir",
                fix="set data_dir: in the configuration, or ZPDBENCH_DATA",
            )
        folder = Path(given)
        if not folder.is_dir():
            raise UserError("is no folder", where=f"data_dir {given}", fix="correct the path")
        return folder

    @property
    def hub_sources(self) -> list[HubSource]:
        """All that is taken from the hub: models, the corpus's sources, benchmarks.

        Raises:
            UserError: a benchmark that is not known, or that is not on the hub.
        """
        found: list[HubSource] = []
        for name, model in self.models.items():
            if isinstance(model, HubModel):
                found.append(
                    HubSource("models", "models", name, model.repo, model.revision, model.files)
                )
        for name, source in self.corpus.sources.items():
            if source.repo is not None:
                given = (source.repo, source.revision, source.files, (str(source.path),))
                found.append(HubSource("datasets", "corpus.sources", name, *given))
        for name, section in self.benchmarks.items():
            if section.source == "hub":
                from zpdbench.benchmarks import definition

                repo, patterns = definition.load(section.definition or name).hub_sources(
                    section.tasks
                )
                said = (repo, section.revision, section.files, tuple(patterns))
                found.append(HubSource("datasets", "benchmarks", name, *said))
        return found

    # -- what depends on what -------------------------------------------------------------------

    def form(self, benchmark: str) -> str:
        """How a benchmark is asked: `plain`, `chat` or `chat-one-turn`."""
        own, all_ = self.benchmarks[benchmark], self.generations

        def said(key: str) -> bool:
            given = getattr(own, key)
            return bool(getattr(all_, key) if given is None else given)

        return form.name(
            apply_chat_template=said("apply_chat_template"),
            fewshot_as_multiturn=said("fewshot_as_multiturn"),
        )

    @property
    def chats(self) -> dict[str, bool]:
        """The benchmarks that are asked by a chat template: whether it must leave a turn open.

        Raises:
            UserError: a benchmark that is not known.
        """
        from zpdbench.benchmarks import definition

        return {
            name: definition.load(section.definition or name).begun
            for name, section in self.benchmarks.items()
            if self.form(name) != form.PLAIN
        }

    def digest(self, rule: str, wildcards: Any = None) -> str:
        """Digest (hex) of just those keys that a rule's output depends on.

        Args:
            rule: the rule's name.
            wildcards: Snakemake's wildcards, or any object with the same attributes.

        Raises:
            KeyError: the rule has no entry; every rule needs one.
        """
        return files.digest(_DEPENDS[rule](self, wildcards))

    def dump(self, *parts: str) -> Any:
        """JSON-able value at a key path, defaults filled in."""
        value: Any = self
        for part in parts:
            value = value[part] if isinstance(value, dict) else getattr(value, part)
        return value.model_dump(mode="json") if isinstance(value, BaseModel) else value


# Where an output's content depends on a file, that file is the rule's input; only what comes from
# the configuration itself stands here. Threads, folders and images change no bytes that count.
def _corpus_keys(study: Study) -> Any:
    """The corpus section less what is not said in it: a new key is no reason to make it again."""
    corpus = study.dump("corpus")
    corpus["difficulty"] = "reference"  # the table holds no other; a model's own is training's
    if study.corpus.prepare == Preparation():
        del corpus["prepare"]
    if study.corpus.probe_by == "language":
        del corpus["probe_by"]
    for source in corpus["sources"].values():
        source["license"] = None  # changes no example
        for key in ("repo", "revision", "files", "shares"):
            if source[key] is None:
                del source[key]
    return corpus


def _checkpoint_keys(study: Study, wildcards: Any) -> Any:
    model = study.models[wildcards.model]
    keys = model.model_dump(mode="json", exclude={"parameters"})
    # Others are copied, not computed.
    return [keys, study.computes] if model.source == "embedded" else keys


_HOW_TRAINED = {"threads", "processes", "gradient_checkpointing"}
_HOW_ASKED = {"threads", "group_by", "adapters_in_flight", "kv_cache_gib", "base_url", "server"}
"""Keys that change no byte of a result."""


def _training_keys(study: Study, wildcards: Any) -> Any:
    keys = [
        study.training.model_dump(mode="json", exclude=_HOW_TRAINED),
        study.dump("conditions", wildcards.condition),
        study.computes,
    ]
    keys += _date_keys(study)
    return keys if study.corpus.difficulty == "reference" else [*keys, study.corpus.difficulty]


def _date_keys(study: Study) -> list[Any]:
    """The date that a template may ask for, if it is said: a new key is no reason to do anew."""
    return [] if study.template_date == DATE else [study.template_date.isoformat()]


def _benchmarks_keys(study: Study) -> Any:
    """The benchmarks' sections less hashes: of one commit there is one content."""
    forms = ("apply_chat_template", "fewshot_as_multiturn")
    return {
        name: b.model_dump(
            mode="json",
            exclude={"files", "items_digest", *(f for f in forms if getattr(b, f) is None)},
        )
        for name, b in sorted(study.benchmarks.items())
    }


def _chunk_keys(study: Study, wildcards: Any) -> Any:
    members = study.chunks.get((wildcards.model, wildcards.chunk), [])
    benchmarks = _benchmarks_keys(study)
    generations = study.generations.model_dump(mode="json", exclude=_HOW_ASKED)
    if study.generations.engine == "openai":
        generations["served"] = study.generations.endpoint(wildcards.model)[1]
    if study.generations.fewshot_as_multiturn:
        del generations["fewshot_as_multiturn"]
    answers = [
        [list(r) for r in members], benchmarks, generations, study.served_steps, *_date_keys(study)
    ]  # fmt: skip
    # A server computes as it was started.
    return answers if study.generations.engine == "openai" else [*answers, study.computes]


def _score_keys(study: Study, wildcards: Any) -> Any:
    return [
        _benchmarks_keys(study),
        study.served_steps,
        study.sandbox.model_dump(mode="json"),
    ]


def _grid_keys(study: Study, wildcards: Any) -> Any:
    return [[list(r) for r in study.all_runs], study.served_steps, sorted(study.benchmarks)]


def _statistics_keys(study: Study, wildcards: Any) -> Any:
    # Every row names its benchmark's form.
    forms = {name: study.form(name) for name in sorted(study.benchmarks)}
    resolved = study.resolved_hypotheses
    hypotheses = [resolved.model_dump(mode="json"), resolved.digest()]
    return [_grid_keys(study, wildcards), *hypotheses, forms]


TABLES = ("rq1", "h3b", "r1", "efficiency", "power", "expected")
"""Secondary statistics, each a rule and a verb of its own name."""

_DEPENDS = {
    "make_checkpoint": _checkpoint_keys,
    "make_corpus": lambda s, w: [
        _corpus_keys(s),
        {
            name: b.model_dump(mode="json", include={"source", "definition", "revision", "tasks"})
            for name, b in sorted(s.benchmarks.items())
        },
    ],
    "make_items": lambda s, w: [
        _benchmarks_keys(s)[w.benchmark],
        s.benchmarks[w.benchmark].items_digest,
        s.form(w.benchmark),
    ],
    "train_adapter": _training_keys,
    "generate_chunk": _chunk_keys,
    "score_run": _score_keys,
    **dict.fromkeys(("aggregate_scores", "h3a", *TABLES), _statistics_keys),
    **dict.fromkeys(("h3a_sensitivity", "calibration", "ablations", "ladder"), _statistics_keys),
    "validate_statistics": lambda s, w: None,
    "draw_figures": _statistics_keys,
    "draw_training": _grid_keys,
    # The page shows the whole configuration.
    "report": lambda s, w: s.model_dump(mode="json", exclude={"results", "data_dir", "hub"}),
    "make_crate": lambda s, w: s.model_dump(mode="json", exclude={"results", "data_dir", "hub"}),
}


# -- reading ------------------------------------------------------------------------------------


class _LineLoader(yaml.SafeLoader):
    """Safe YAML with duplicate keys refused; `lines` maps key paths to line numbers."""


def _construct(
    loader: _LineLoader, node: yaml.Node, path: tuple[str, ...], lines: dict[tuple[str, ...], int]
) -> Any:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            here = (*path, str(key))
            if key in result:
                raise UserError(
                    f"{'.'.join(here)} is given twice",
                    where=f"{key_node.start_mark.name}:{key_node.start_mark.line + 1}",
                    fix="keep one",
                )
            result[key] = _construct(loader, value_node, here, lines)
            lines[here] = key_node.start_mark.line + 1
        return result
    if isinstance(node, yaml.SequenceNode):
        return [_construct(loader, n, (*path, str(i)), lines) for i, n in enumerate(node.value)]
    return loader.construct_object(node, deep=True)


def read_yaml(path: str | Path) -> tuple[dict[str, Any], dict[tuple[str, ...], int]]:
    """A YAML file's mapping, and the line of every key path.

    Raises:
        UserError: unreadable, no YAML, no mapping, or a key given twice.
    """
    path = Path(path)
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot be read ({error.__class__.__name__})",
            where=str(path),
            fix="give an existing UTF-8 YAML file",
        ) from error
    loader = _LineLoader(text)
    loader.name = str(path)
    try:
        node = loader.get_single_node()
        lines: dict[tuple[str, ...], int] = {}
        value = {} if node is None else _construct(loader, node, (), lines)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(
            f"no valid YAML: {error.problem}", where=f"{path}:{line}", fix="mend the syntax"
        ) from error
    finally:
        loader.dispose()
    if not isinstance(value, dict):
        raise UserError(
            "must be a mapping of keys to values",
            where=f"{path}:1",
            fix="write key: value lines, as config/mini.yaml has",
        )
    return value, lines


def parse(
    config: Mapping[str, Any], sources: Sequence[str | Path] = (), *, pins: bool = True
) -> Study:
    """Check a merged configuration; `sources` are the files it came from, for line numbers.

    Args:
        pins: whether what it does not say of revisions is filled in from revisions.lock.yaml.

    Raises:
        UserError: the first mistake, with file, line and what to do.
    """
    located: list[tuple[str, dict[tuple[str, ...], int]]] = []
    in_files: dict[str, Any] = {}
    for source in sources:
        value, lines = read_yaml(source)
        located.append((str(source), lines))
        _merge(in_files, value)
    try:
        study = Study.model_validate(config)
        return _with_pins(study, sources) if pins else study
    except ValidationError as error:
        explained, path = _explain(error, located)
        if sources and _at(config, path) != _at(in_files, path):
            explained = UserError(explained.what, where="--config", fix=explained.fix)
        raise explained from error


def _with_pins(study: Study, sources: Sequence[str | Path]) -> Study:
    """Fill in revisions and files' hashes from the revisions.lock.yaml beside the files given.

    Raises:
        UserError: a table that cannot be read, or one that names another revision.
    """
    tables = [
        revisions.read(path)
        for path in dict.fromkeys(Path(s).parent / revisions.NAME for s in sources)
        if path.is_file()
    ]
    sections: dict[str, dict[str, Any]] = {
        "models": dict(study.models),
        "corpus.sources": dict(study.corpus.sources),
        "benchmarks": dict(study.benchmarks),
    }
    for wanted in study.hub_sources if tables else ():
        if wanted.revision is not None and wanted.files is not None:
            continue
        for table in reversed(tables):
            pin = table[wanted.kind].get(wanted.repo)
            if pin is None or pin.revision is None:
                continue
            if wanted.revision not in (None, pin.revision):
                continue  # the configuration means another commit than the table
            # A data set may have been pinned in part, for another study.
            chosen = {
                path: HubFile(sha256=sha256, size=size)
                for path, (sha256, size) in pin.files.items()
                if pin.covers(wanted.patterns)
                and (
                    wanted.kind == "models"
                    or any(revisions.matches(path, p) for p in wanted.patterns)
                )
            }
            update = {"revision": pin.revision, "files": wanted.files or chosen or None}
            section = sections[wanted.section]
            section[wanted.name] = section[wanted.name].model_copy(update=update)
            break
    corpus = study.corpus.model_copy(update={"sources": sections["corpus.sources"]})
    return study.model_copy(
        update={
            "models": sections["models"],
            "corpus": corpus,
            "benchmarks": sections["benchmarks"],
        }
    )


def _at(value: Any, path: Sequence[str]) -> Any:
    for part in path:
        if isinstance(value, Mapping):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def load(*paths: str | Path, pins: bool = True) -> Study:
    """Read and check configuration files, later ones over earlier ones as Snakemake merges them.

    Args:
        pins: as in `parse`.

    Raises:
        UserError: as `parse` and `read_yaml`.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        _merge(merged, read_yaml(path)[0])
    return parse(merged, paths, pins=pins)


def _merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _explain(
    error: ValidationError, located: Sequence[tuple[str, dict[tuple[str, ...], int]]]
) -> tuple[UserError, list[str]]:
    # An unknown key is the likelier slip when a required one is missing beside it.
    mistakes = error.errors(include_url=False)
    first = min(mistakes, key=lambda mistake: mistake["type"] != "extra_forbidden")
    # Pydantic puts a union's tag and a dictionary's '[key]' into the path; the file has neither.
    tags = {"embedded", "package", "local", "hub"}
    path: list[str] = []
    for position, part in enumerate(first["loc"]):
        text = str(part)
        if text == "[key]" or (text in tags and position == 2 and first["loc"][0] == "models"):
            continue
        path.append(text)
    message = first["msg"].removeprefix("Value error, ")
    kind = first["type"]
    fix = "change it; config/schema.json says what may stand there"
    if kind == "extra_forbidden":
        message, fix = "unknown key", _suggest(path)
    elif kind == "missing":
        message, fix = "is missing", "add it"
    elif kind == "value_error" and ": " in message and not path:
        head, message = message.split(": ", 1)
        path = head.split(".")
    else:
        shown = repr(first.get("input"))
        if len(shown) <= 60:
            message += f", not {shown}"
    where = ""
    for file, lines in reversed(located):
        for depth in range(len(path), -1, -1):
            if tuple(path[:depth]) in lines and depth:
                where = f"{file}:{lines[tuple(path[:depth])]}"
                break
        if where:
            break
    if not where:
        where = str(located[-1][0]) if located else "configuration"
    return UserError(f"{'.'.join(path) or 'study'}: {message}", where=where, fix=fix), path


def _suggest(path: Sequence[str]) -> str:
    import difflib

    section: Any = Study.model_json_schema()
    definitions = section.get("$defs", {})
    candidates: set[str] = set(section["properties"])
    for definition in definitions.values() if len(path) > 1 else ():
        candidates |= set(definition.get("properties", {}))
    close = difflib.get_close_matches(path[-1], sorted(candidates), n=1)
    return f"did you mean {close[0]!r}?" if close else "take it out; config/schema.json lists all"


def schema() -> str:
    """The configuration's JSON schema, as text for config/schema.json."""
    import json

    return json.dumps(Study.model_json_schema(), indent=1, sort_keys=True) + "\n"


def lock_text(study: Study) -> str:
    """The study with all defaults filled in, as YAML that `load` reads back."""
    return yaml.safe_dump(
        study.model_dump(mode="json"), sort_keys=True, allow_unicode=True, width=100
    )


def resolve(study: Study, *, in_containers: bool = False) -> Study:
    """The study with this machine's engine and types in place of `auto`.

    Digests and results need them said: all jobs, wherever they run, and a bundle's verifier go by
    what the lock names.

    Args:
        in_containers: whether jobs run in the images, which have vLLM whatever the host has.
    """
    native = study.computes == "native"
    dtype = "bfloat16" if native and devices.has_bfloat16() else "float32"
    training, generations = study.training, study.generations
    answers: dict[str, str] = {}
    if generations.engine == "auto":
        answers["engine"] = "vllm" if in_containers else devices.engine_for()
    if generations.dtype == "auto":
        answers["dtype"] = dtype
    if training.precision == "auto":
        training = training.model_copy(update={"precision": dtype})
    generations = generations.model_copy(update=answers)
    return study.model_copy(update={"training": training, "generations": generations})


def lock_study(
    config: Mapping[str, Any], sources: Sequence[str], *, in_containers: bool = False
) -> Study:
    """Check Snakemake's merged configuration; write {results}/study.lock.yaml if there is none.

    An existing lock stays as it is until `write_lock`: jobs of a run under way may be reading it.

    Args:
        config: Snakemake's `config`, command-line overrides included.
        sources: the configuration files it came from, for line numbers.
        in_containers: as in `resolve`; the lock names the engine that answers.

    Raises:
        UserError: a mistake in the configuration, or a results folder that cannot be written.
    """
    study = resolve(parse(config, sources), in_containers=in_containers)
    if not Path(study.paths.study_lock).is_file():
        write_lock(study)
    return study


def write_lock(study: Study) -> None:
    """Write {results}/study.lock.yaml, which jobs read, if it says something else.

    Raises:
        UserError: a results folder that cannot be written.
    """
    lock, text = Path(study.paths.study_lock), lock_text(study)
    try:
        if not lock.is_file() or lock.read_text("utf-8") != text:
            files.write_text(lock, text)
    except UserError as error:
        fix = "set results: to a folder of yours"
        raise UserError(error.what, where=error.where, fix=fix) from error
    except OSError as error:
        raise UserError(
            f"cannot be written ({error.strerror})",
            where=str(error.filename or lock),
            fix="set results: to a folder of yours",
        ) from error
