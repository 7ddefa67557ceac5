"""Asking a bundle's models again: one run's adapters, a sample of its items, one engine."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zpdbench import files, grid
from zpdbench import study as studies
from zpdbench.artifacts import frames, layout, level2, reading
from zpdbench.artifacts.level0 import Bundle
from zpdbench.artifacts.reading import BadFileError
from zpdbench.artifacts.workshop import Workshop, harmless
from zpdbench.errors import NoSandboxError

if TYPE_CHECKING:
    import polars as pl

PATHS = layout.Paths("results")
GROUP = ["model", "condition", "seed"]
KEY = ("step", "benchmark", "item_id", "sample")


@dataclass(frozen=True)
class Answers:
    """What came out here beside what the bundle holds, one row an answer that both have.

    `frame`: KEY, text, logprobs, correct and the same with the suffix `_there`.
    """

    frame: pl.DataFrame
    engine: str
    engine_there: str


def engine_here(wanted: str) -> str | None:
    """The engine to ask with: the study's if it is installed, else transformers, else none."""
    for name in (wanted, "transformers"):
        if importlib.util.find_spec(name) is not None:
            return name
    return None


def run_study(study: studies.Study, run: grid.Run, engine: str) -> studies.Study:
    """A workshop's study cut down to one run, in a chunk of its own."""
    value = study.model_dump(mode="json")
    condition = run.condition if run.condition != grid.BASE else next(iter(study.conditions))
    generations = {**value["generations"], "group_by": GROUP, "engine": engine, "base_url": None}
    return harmless(
        study,
        models={run.model: value["models"][run.model]},
        conditions={condition: value["conditions"][condition]},
        seeds=[run.seed],
        hypotheses={},
        generations=generations,
    )


def write_study(folder: Path, study: studies.Study) -> Path:
    """Write a study's lock into a folder; its path."""
    lock = folder / "study.lock.yaml"
    files.write_text(lock, studies.lock_text(study))
    return lock


def checkpoint(bundle: Bundle, workshop: Workshop, model: str) -> Path | str:
    """The base model's folder, or why there is none.

    A published model is converted here from this machine's own copy; its digest must be the one
    that the authors' job recorded.
    """
    name = PATHS.checkpoint(model).removeprefix("results/")
    if model in bundle.included.checkpoints and isinstance(
        bundle.study.models[model], studies.EmbeddedModel
    ):
        return bundle.path(name)
    made = workshop.path(name)
    if not made.is_dir():
        outcome = workshop.run(
            "make-checkpoint", ["--study", workshop.lock, "--model", model, "--out", made]
        )
        if outcome.code:
            return f"the base model is not in the bundle and not here: {outcome.message}"
    recorded = bundle.records[layout.record_name(name)]["outputs"][name]
    if files.read_manifest(made)["digest"] != recorded:
        return "the base model here is not the one that the authors recorded"
    return made


def adapter(bundle: Bundle, workshop: Workshop, run: grid.Run) -> Path:
    """A run's folder as the verbs want it; without its trace if the bundle has none.

    A bundle holds of a run that trained all weights what its answers depend on; the tokenizer that
    an engine wants beside them is the base's.
    """
    name = PATHS.adapter(*run).removeprefix("results/")
    full = bundle.study.training.method == "full"
    if bundle.included.traces and not full:
        return bundle.path(name)
    target = workshop.path(name)
    if not target.is_dir():
        shutil.copytree(bundle.path(name), target)
        base = checkpoint(bundle, workshop, run.model) if full else ""
        for file in sorted(base.iterdir()) if isinstance(base, Path) else ():
            beside = target / grid.adapter_step(bundle.study.training.steps) / file.name
            if not (beside.exists() or ".safetensors" in file.name or file.name == "MANIFEST.json"):
                shutil.copyfile(file, beside)
        listed = reading.read_json(target / "MANIFEST.json", 16 << 20)
        files.write_manifest(target, {"base": listed.get("base")})
    return target


def sample_items(
    bundle: Bundle, workshop: Workshop, folder: Path, chosen: dict[str, list[str]]
) -> list[Path]:
    """Write items files with only the chosen ids (benchmark -> ids); their paths.

    Raises:
        BadFileError: an items file that cannot be read.
    """
    import polars as pl

    written = []
    for benchmark, ids in chosen.items():
        frame = frames.collect(
            frames.scan(level2.item_path(bundle, workshop, benchmark), frames.ITEMS)
        )
        path = folder / "items" / f"{benchmark}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.filter(pl.col("item_id").is_in(ids)).write_parquet(path)
        written.append(path)
    return written


def ask(
    bundle: Bundle,
    workshop: Workshop,
    run: grid.Run,
    chosen: dict[str, list[str]],
    adapter_folder: Path | None,
    label: str,
    *,
    seconds: float,
) -> Answers | str:
    """Answer the chosen items with one run's adapters, judge them, and join what the bundle has.

    Returns:
        The answers, or why there are none.
    """
    engine = engine_here(bundle.study.generations.engine)
    if engine is None:
        return "no engine here (vllm or transformers)"
    base = checkpoint(bundle, workshop, run.model)
    if isinstance(base, str):
        return base
    folder = workshop.path(f"{label}/x").parent
    study = run_study(workshop.study, run, engine)
    lock = write_study(folder, study)
    items = sample_items(bundle, workshop, folder, chosen)
    answers, verdicts = folder / "answers.parquet", folder / "verdicts.parquet"
    adapters = [adapter_folder] if adapter_folder is not None else []
    outcome = workshop.run(
        "generate-chunk",
        [
            *("--study", lock, "--model", run.model, "--chunk", grid.chunk_of(run, GROUP)),
            *("--checkpoint", base, "--items", *items, "--out", answers),
            *(["--adapters", *adapters] if adapters else []),
        ],
        seconds=seconds,
    )
    if outcome.code:
        return f"zpdbench generate-chunk: {outcome.message}"
    command = [
        *("--study", lock, "--model", run.model, "--condition", run.condition),
        *("--seed", run.seed, "--generations", answers, "--items", *items),
        *("--out", verdicts),
    ]
    outcome = workshop.run("score-run", command, seconds=max(seconds, 60.0))
    if outcome.code == NoSandboxError.exit_code:
        command.append("--skip-programs")
        outcome = workshop.run("score-run", command, seconds=max(seconds, 60.0))
    if outcome.code:
        return f"zpdbench score-run: {outcome.message}"
    try:
        joined = _join(bundle, run, answers, verdicts)
    except BadFileError as error:
        return str(error)
    return joined if joined.frame.height else "the bundle has no answer to what was asked here"


def _join(bundle: Bundle, run: grid.Run, answers: Path, verdicts: Path) -> Answers:
    import polars as pl

    chunk = grid.chunk_of(run, bundle.study.generations.group_by)
    given = frames.scan(
        bundle.path(PATHS.generations(run.model, chunk).removeprefix("results/")),
        frames.GENERATIONS,
    ).filter((pl.col("condition") == run.condition) & (pl.col("seed") == run.seed))
    scores = frames.scan(bundle.path(PATHS.scores(*run).removeprefix("results/")), frames.SCORES)
    own = frames.scan(answers, frames.GENERATIONS)
    judged = frames.scan(verdicts, frames.SCORES)

    def side(texts: pl.LazyFrame, marks: pl.LazyFrame) -> pl.LazyFrame:
        return texts.select(*KEY, "text", "logprobs", "engine").join(
            marks.select(*KEY, "correct"), on=KEY, how="left"
        )

    both = side(own, judged).join(side(given, scores), on=KEY, how="inner", suffix="_there")
    frame = frames.collect(both.sort(KEY))
    engines = [frame[c].unique().sort().to_list() for c in ("engine", "engine_there")]
    names = [", ".join(e) for e in engines]
    return Answers(frame.drop("engine", "engine_there"), names[0], names[1])


def counts(frame: pl.DataFrame) -> dict[str, Any]:
    """How far answers agree: texts, likelihoods, verdicts.

    Returns:
        texts, texts_equal: generated answers and those that are equal;
        choices, largest, median: answers by likelihood, and their difference in nats;
        up, down, judged: verdicts right here only, there only, and all pairs.
    """
    import polars as pl

    written = frame.filter(pl.col("logprobs").list.len() == 0)
    chosen = frame.filter(pl.col("logprobs").list.len() > 0)
    same_length = chosen.filter(
        pl.col("logprobs").list.len() == pl.col("logprobs_there").list.len()
    )
    far = same_length.select(
        (pl.col("logprobs") - pl.col("logprobs_there")).list.eval(pl.element().abs()).list.max()
    ).to_series()
    largest, middle = far.max(), far.median()
    lost = same_length.height < chosen.height
    marks = frame.filter(pl.col("correct").is_not_null() & pl.col("correct_there").is_not_null())
    return {
        "texts": written.height,
        "texts_equal": int((written["text"] == written["text_there"]).sum()),
        "choices": chosen.height,
        "largest": (
            float("inf") if lost else float(largest) if isinstance(largest, float) else 0.0
        ),
        "median": float("inf") if lost else float(middle) if isinstance(middle, float) else 0.0,
        "up": int((marks["correct"] > marks["correct_there"]).sum()),
        "down": int((marks["correct"] < marks["correct_there"]).sum()),
        "judged": marks.height,
    }
