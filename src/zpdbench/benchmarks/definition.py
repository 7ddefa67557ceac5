"""A benchmark's definition: read from YAML, checked, found by name or by entry point."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from zpdbench import files
from zpdbench.errors import UserError
from zpdbench.text import form

ENTRY_POINTS = "zpdbench.benchmarks"
"""Group of the entry points that name further benchmarks: each loads to a YAML file's path."""

FOLDER = Path(__file__).parent / "definitions"
TARGET_DELIMITER = " "
FEWSHOT_DELIMITER = "\n\n"
METRICS = ("acc", "acc_norm", "exact_match", "f1", "pass@k")
"""All but f1 (macro-averaged over labels) are means over items."""
HARNESS = "lm-evaluation-harness 0.4.13"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Hub(_Part):
    """A data set of the Hugging Face hub: split -> its files, as a path in `repo`.

    `*` in a path stays within its folder, `{task}` stands for the task's name.
    """

    repo: str
    files: dict[str, str]


class Task(_Part):
    """One task (subject) of a benchmark. Templates are Jinja over a document's fields."""

    text: str
    description: str = ""
    prefix: Annotated[
        str, Field(description="how the model's answer is begun for it (the harness's gen_prefix)")
    ] = ""
    target: Annotated[str, Field(description="a shot's answer; of a choice task the gold's")] = ""
    choices: list[str] = []
    gold: Annotated[
        str, Field(description="the right choice's 0-based index; or what a text is judged by")
    ] = ""
    content: Annotated[
        str | list[str],
        Field(description="what contamination looks for; of several texts each on its own"),
    ] = []
    fields: list[str] = []
    metrics: list[str] | None = None
    files: dict[str, str] = {}
    hub: Hub | None = None

    @property
    def contents(self) -> list[str]:
        """Templates of the texts that hold the item, the shortest first; else the prompt's."""
        given = [self.content] if isinstance(self.content, str) else self.content
        return [text for text in given if text] or [self.text]


class Definition(_Part):
    """A benchmark: its tasks, and what they have in common."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
    version: str
    harness: Annotated[str | None, Field(description="the harness's task that it equals")] = None
    language: Literal["en", "ko"]
    kind: Literal["generate", "choice"]
    answer: Annotated[str, Field(description="number, letter, index, program, or module:function")]
    loader: Annotated[str, Field(description="how its authors' file is read: a name, or module:fn")]
    num_fewshot: Annotated[int, Field(ge=0)] = 0
    fewshot: Annotated[
        Literal["none", "first", "sample"],
        Field(description="no shots; the split's first; or drawn for each document"),
    ] = "none"
    fewshot_split: str = "train"
    stop: list[str] = []
    cut: Annotated[
        str, Field(description="ends a program, as a stop string and in texts from elsewhere")
    ] = ""
    suits: Annotated[
        Literal["any", "plain", "chat"],
        Field(description="chat: asked in no other form; plain: a chat's answers are cut short"),
    ] = "any"
    max_tokens: Annotated[int, Field(ge=0)] = 0
    metrics: list[str]
    template: Annotated[dict[str, Any], Field(description="defaults of every task")] = {}
    tasks: dict[str, Task] = {}
    groups: dict[str, list[str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _inherit(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        template = value.get("template") or {}
        tasks = {k: {**template, **(v or {})} for k, v in (value.get("tasks") or {}).items()}
        for members in (value.get("groups") or {}).values():
            for name in members:
                tasks.setdefault(name, dict(template))
        return {**value, "tasks": dict(sorted(tasks.items()))}

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.tasks:
            raise ValueError("tasks: at least one is needed")
        for name, task in self.tasks.items():
            if self.kind == "choice" and not (task.choices and task.gold):
                raise ValueError(f"tasks.{name}: a choice task needs choices and gold")
            if self.kind == "generate" and not self.max_tokens:
                raise ValueError("max_tokens: is needed where text is generated")
            if task.prefix and (self.kind == "choice" or self.fewshot != "none"):
                raise ValueError(f"tasks.{name}: prefix is for texts asked for without shots")
            for metric in task.metrics or self.metrics:
                if metric not in METRICS:
                    raise ValueError(f"metrics: no {metric!r}; one of {', '.join(METRICS)}")
                if metric == "f1" and not self.name.startswith("kobest"):
                    raise ValueError("metrics: f1 is computed for KoBEST's tasks only")
        if self.cut and self.answer != "program":
            raise ValueError("cut: is for programs only")
        return self

    @property
    def stops(self) -> list[str]:
        """The strings before which a text ends."""
        return [*self.stop, self.cut] if self.cut else list(self.stop)

    @property
    def open(self) -> bool:
        """Whether the template serves tasks of any name."""
        return "text" in self.template

    @property
    def begun(self) -> bool:
        """Whether answers are begun for the model."""
        return any(task.prefix for task in self.tasks.values())

    def task(self, name: str) -> Task:
        """The task of that name, or the template's where the benchmark is open.

        Raises:
            UserError: there is no such task.
        """
        if name in self.tasks:
            return self.tasks[name]
        if self.open:
            return Task.model_validate(self.template)
        raise UserError(
            f"benchmark {self.name} has no task {name!r}", fix=f"one of {', '.join(self.tasks)}"
        )

    def task_of(self, doc: Mapping[str, Any]) -> str:
        """The name of the task that a document belongs to, by `task`, `subject` or its fields.

        Raises:
            UserError: none fits.
        """
        for key in ("task", "subject"):
            if key in doc and (doc[key] in self.tasks or self.open):
                return str(doc[key])
        if len(self.tasks) == 1:
            return next(iter(self.tasks))
        for name, task in self.tasks.items():
            if task.fields and set(task.fields) == set(doc) - {"id", "task"}:
                return name
        raise UserError(
            f"no task of {self.name} has the fields {', '.join(sorted(doc))}",
            fix="give each document a task, or list the tasks' fields in the definition",
        )

    def hub_files(self, task: str, split: str) -> tuple[str, str]:
        """(repository, pattern of paths in it) of one split of a task on the hub.

        Raises:
            UserError: it is not said where that split is.
        """
        hub = self.task(task).hub
        if hub is None or split not in hub.files:
            raise UserError(
                f"{self.name} names no files of its split {split!r} on the hub",
                fix="use source: files, or add hub: { repo: ..., files: ... } to the definition",
            )
        return hub.repo, hub.files[split].replace("{task}", task)

    def hub_sources(self, tasks: Sequence[str] | None = None) -> tuple[str, list[str]]:
        """(repository, sorted patterns) of all that these tasks, or all, may be asked with.

        The shots' split is among them, however many shots are asked.

        Raises:
            UserError: not on the hub, or in more than one repository.
        """
        splits = ["test"] if self.fewshot == "none" else ["test", self.fewshot_split]
        found = [self.hub_files(t, s) for t in tasks or list(self.tasks) for s in splits]
        repos = sorted({repo for repo, _ in found})
        if len(repos) != 1:
            raise UserError(
                f"{self.name}: its tasks are in {len(repos)} repositories of the hub",
                fix="make it a benchmark a repository",
            )
        return repos[0], sorted({pattern for _, pattern in found})

    def group_of(self, task: str) -> str:
        """The group that a task is in (MMLU's `stem`, say), else ``""``."""
        return next((g for g, members in self.groups.items() if task in members), "")

    def task_metrics(self, task: str) -> list[str]:
        """The metrics of a task, the headline one first."""
        return self.task(task).metrics or self.metrics

    def template_id(
        self,
        task: str,
        *,
        num_fewshot: int,
        chat: bool,
        multiturn: bool = True,
        max_tokens: int | None = None,
    ) -> str:
        """What every row records of how it was asked: `name@version+hash`.

        Args:
            chat, multiturn: the harness's apply_chat_template and fewshot_as_multiturn.
            max_tokens: the limit of what is generated; the definition's if None.
        """
        limit = self.max_tokens if max_tokens is None else max_tokens
        own = self.task(task)
        apart = {"files", "hub", "content", *(() if own.prefix else ("prefix",))}
        part = files.digest(
            [
                own.model_dump(mode="json", exclude=apart),
                [self.version, self.kind, self.fewshot, self.fewshot_split, self.answer],
                [num_fewshot, chat if multiturn or not chat else form.CHAT_ONE_TURN],
                [self.stops, limit] if self.kind == "generate" else [],
            ]
        )
        return f"{self.name}@{self.version}+{part[:12]}"


def resolve(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    """A function by its short name in `known`, or as `module:function`.

    Raises:
        UserError: there is none.
    """
    if name in known:
        return known[name]
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(
            f"no {kind} {name!r}", fix=f"one of {', '.join(known)}, or module:function"
        ) from error


def read(path: str | Path) -> Definition:
    """Read and check one definition.

    Raises:
        UserError: unreadable, no YAML, or not a definition.
    """
    path = Path(path)
    try:
        value = yaml.safe_load(path.read_text("utf-8"))
        return Definition.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(p) for p in first["loc"])
        raise UserError(
            f"{key + ': ' if key else ''}{first['msg'].removeprefix('Value error, ')}",
            where=str(path),
            fix="docs/benchmarks.md shows a definition",
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(
            f"no readable benchmark definition ({error.__class__.__name__})",
            where=str(path),
            fix="give a UTF-8 YAML file",
        ) from error


@lru_cache
def _paths() -> dict[str, Path]:
    paths = {p.stem: p for p in sorted(FOLDER.glob("*.yaml"))}
    for point in sorted(entry_points(group=ENTRY_POINTS), key=lambda p: p.name):
        if point.name in paths:
            raise UserError(
                f"two benchmarks are called {point.name!r}", fix=f"rename {point.value}"
            )
        paths[point.name] = Path(point.load())
    return paths


def names() -> list[str]:
    """The benchmarks that there are, those of entry points included."""
    return list(_paths())


@lru_cache
def load(name: str) -> Definition:
    """The benchmark of that name, or of that YAML file.

    Raises:
        UserError: there is none, or its definition is wrong.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else _paths().get(name)
    if path is None:
        raise UserError(
            f"no benchmark {name!r}",
            fix=f"one of {', '.join(names())}, or a .yaml file",
        )
    return read(path)


@lru_cache
def find(name: str) -> tuple[Definition, str | None]:
    """A benchmark by its own name, or by a task's: (definition, task or None for all tasks).

    Raises:
        UserError: neither a benchmark nor a task is called so.
    """
    if name in names() or name.endswith((".yaml", ".yml")):
        definition = load(name)
        only = list(definition.tasks)
        return definition, only[0] if len(only) == 1 and not definition.open else None
    for benchmark in names():
        definition = load(benchmark)
        if name in definition.tasks:
            return definition, name
    known = [n for n in names() if n != "kobest"] + list(load("kobest").tasks)
    raise UserError(f"no benchmark {name!r}", fix=f"one of {', '.join(sorted(known))}")
