"""A whole generation job on a tiny model: what it writes, finds again, and refuses."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tests import tiny
from tests.generations.conftest import CONDITIONS, STEPS, Grid
from zpdbench import files
from zpdbench import study as studies
from zpdbench.engines import Answer, Request
from zpdbench.errors import UserError
from zpdbench.generations import generate_chunk

ANSWERS = 30 + len(CONDITIONS) * (12 + 30)
COLUMNS = [
    "model", "condition", "seed", "step", "benchmark", "task", "item_id", "sample", "text",
    "finish_reason", "n_prompt_tokens", "n_tokens", "logprobs", "adapter", "items", "engine",
]  # fmt: skip


@pytest.fixture(scope="module")
def done(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The chunk's file, made from nothing by vLLM, and the cache that it left."""
    folder = tmp_path_factory.mktemp("done")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ZPDBENCH_CACHE", str(folder / "cache"))
        generate_chunk.main(grid.arguments(folder / "all.parquet"))
    return folder / "all.parquet", folder / "cache"


def with_benchmark(grid: Grid, name: str, **fields: Any) -> Grid:
    config = copy.deepcopy(grid.config)
    config["benchmarks"][name].update(fields)
    return Grid(grid.folder, config)


def test_every_item_is_answered_once(done: tuple[Path, Path]) -> None:
    frame = pl.read_parquet(done[0])
    assert frame.columns == COLUMNS
    assert frame.height == ANSWERS
    keys = ["condition", "seed", "step", "benchmark", "item_id", "sample"]
    assert frame.select(keys).is_unique().all()
    counts = dict(
        frame.group_by("condition", "step")
        .len()
        .select(pl.concat_str("condition", "step", separator=" "), "len")
        .iter_rows()
    )
    expected = {f"{c} {s}": 12 if s < STEPS[-1] else 30 for c in CONDITIONS for s in STEPS}
    assert counts == {"base 0": 30, **expected}


def test_prompts_with_a_common_beginning_follow_each_other(grid: Grid, cache: Path) -> None:
    """So that the engine computes that beginning once, however small its cache is."""
    args = grid.arguments(cache.parent / "all.parquet")
    study = studies.resolve(studies.load(args.study))
    members = study.chunks["tiny", "all"]
    job = generate_chunk.Job(
        study, "tiny", members, Path(args.checkpoint), args.adapters, args.items
    )
    by_cell: dict[str, list[tuple[int, ...]]] = {}
    for asked, request in job._requests(job.cells):
        by_cell.setdefault(asked.cell.key, []).append(request.prompt)
    assert list(by_cell) == [cell.key for cell in job.cells], "one cell after the other"
    assert all(prompts == sorted(prompts) for prompts in by_cell.values())
    for cell in job.cells:
        as_written = [job.prompts[cell.benchmark][name].ids for name in cell.items]
        assert as_written != sorted(as_written), "else this test says nothing"


def test_answers_have_what_their_kind_has(done: tuple[Path, Path]) -> None:
    frame = pl.read_parquet(done[0])
    texts = frame.filter(pl.col("benchmark") == "gsm8k")
    assert set(texts["finish_reason"]) <= {"stop", "length"}
    assert (texts["logprobs"].list.len() == 0).all()
    assert (texts["n_tokens"] > 0).any()
    assert (texts["n_tokens"] <= 16).all()
    choices = frame.filter(pl.col("benchmark") != "gsm8k")
    assert (choices["text"] == "").all()
    assert set(choices["logprobs"].list.len()) == {2, 3, 4}
    assert (choices["logprobs"].list.max() < 0).all()


def test_the_sample_probed_alone_agrees(done: tuple[Path, Path]) -> None:
    about = json.loads(pl.read_parquet_metadata(done[0])["batch_invariance"])
    assert about == {"asked": 8, "equal": 8}
    timing = json.loads(done[0].with_suffix(".timing.json").read_text("utf-8"))
    assert timing["batch_invariance"]["largest"] < 1e-4
    assert timing["engine"]["generated_tokens"] > 0
    assert timing["engine"]["tokens_per_second"] > 0
    assert timing["engine"]["load_seconds"] > 0
    assert timing["engine"]["cached_prompt_tokens"] >= 0


def test_the_transformers_engine_gives_the_same(
    done: tuple[Path, Path], grid: Grid, cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "reference.parquet"
    generate_chunk.main(grid.arguments(out, changes={"engine": "transformers"}))
    ours, reference = pl.read_parquet(done[0]), pl.read_parquet(out)
    assert set(reference["engine"]) != set(ours["engine"])
    same = [c for c in COLUMNS if c not in ("engine", "logprobs")]
    assert ours.select(same).equals(reference.select(same))
    for a, b in zip(ours["logprobs"].to_list(), reference["logprobs"].to_list(), strict=True):
        assert a == pytest.approx(b, abs=1e-4)


def test_a_second_job_starts_no_engine_and_writes_the_same(
    done: tuple[Path, Path],
    grid: Grid,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("ZPDBENCH_CACHE", str(done[1]))
    monkeypatch.setattr(generate_chunk, "open_engine", lambda *_: pytest.fail("engine started"))
    out = tmp_path / "all.parquet"
    generate_chunk.main(grid.arguments(out))
    assert out.read_bytes() == done[0].read_bytes()
    first, second = (
        json.loads(p.with_suffix(".timing.json").read_text("utf-8")) for p in (done[0], out)
    )
    assert second["engine"] == first["engine"], "what they cost is told still"
    assert second["cells_from_cache"] == second["cells"]
    assert "15 cells, 15 found in the cache, 0 to answer" in capsys.readouterr().err


def test_progress_is_told_by_tokens(
    grid: Grid, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "all.parquet"
    generate_chunk.main(grid.arguments(out))
    # The last line of a log, where the total is that of the prompts, known from the start.
    said = capsys.readouterr().err.splitlines()
    *_, line = [x for x in said if x.startswith("generate tiny: ")]
    frame = pl.read_parquet(out)
    prompts = f"{frame['n_prompt_tokens'].sum():,}"
    assert line.startswith(f"generate tiny: {prompts}/{prompts} prompt tokens (100 %), ")
    assert f", {frame['n_tokens'].sum():,} generated, " in line
    assert re.search(r" [\d,]+ tokens/s, 15/15 cells, ", line)


def test_only_what_is_new_is_asked(
    done: tuple[Path, Path],
    grid: Grid,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(done[1], tmp_path / "cache")
    monkeypatch.setenv("ZPDBENCH_CACHE", str(tmp_path / "cache"))
    # A new condition's adapter; the others' cells are found.
    config = copy.deepcopy(grid.config)
    config["conditions"]["easy_to_hard"] = {"order": "easy_to_hard"}
    more = Grid(tmp_path / "more", config)
    shutil.copytree(grid.folder, more.folder)
    tiny.save_run(more.adapter("easy_to_hard"), more.checkpoint, STEPS, seed=9)
    out = tmp_path / "all.parquet"
    generate_chunk.main(more.arguments(out))
    assert "21 cells, 15 found in the cache, 6 to answer (42 requests)" in capsys.readouterr().err
    old = pl.read_parquet(out).filter(pl.col("condition") != "easy_to_hard")
    assert old.equals(pl.read_parquet(done[0]))


def test_a_chunk_without_the_base_asks_it_for_comparison(
    grid: Grid, cache: Path, tmp_path: Path
) -> None:
    out = tmp_path / "zpd-s0.parquet"
    changes = {"group_by": ["model", "condition", "seed"], "engine": "transformers"}
    generate_chunk.main(grid.arguments(out, chunk="zpd-s0", changes=changes))
    frame = pl.read_parquet(out)
    assert set(frame["condition"]) == {"zpd"}
    assert frame.height == 42
    base = tmp_path / "base-s0.parquet"
    generate_chunk.main(grid.arguments(base, chunk="base-s0", changes=changes))
    assert set(pl.read_parquet(base)["adapter"]) == {""}


def test_an_adapter_that_does_nothing_fails_the_job(
    grid: Grid, cache: Path, tmp_path: Path
) -> None:
    broken = Grid(tmp_path / "broken", grid.config)
    shutil.copytree(grid.folder, broken.folder)
    shutil.rmtree(broken.adapter("zpd"))
    tiny.save_run(broken.adapter("zpd"), broken.checkpoint, STEPS, seed=2, scale=0.0)
    arguments = broken.arguments(tmp_path / "all.parquet", changes={"engine": "transformers"})
    for _ in range(2):  # the second time from the cache: it must fail all the same
        with pytest.raises(UserError, match="zpd/s0/step4: all 12 answers equal the untuned base"):
            generate_chunk.main(arguments)
    assert not (tmp_path / "all.parquet").exists()


def test_samples_differ_and_repeat(grid: Grid, cache: Path, tmp_path: Path) -> None:
    sampled = with_benchmark(grid, "gsm8k", samples=3, temperature=0.9, top_p=0.95)
    frames = []
    for name in ("a", "b"):
        out = tmp_path / name / "all.parquet"
        generate_chunk.main(sampled.arguments(out, changes={"engine": "transformers"}))
        frames.append(out.read_bytes())
        shutil.rmtree(cache)
    assert frames[0] == frames[1]
    frame = pl.read_parquet(tmp_path / "a/all.parquet").filter(pl.col("benchmark") == "gsm8k")
    assert set(frame["sample"]) == {0, 1, 2}
    texts = frame.group_by("condition", "step", "item_id").agg(pl.col("text").n_unique())
    assert texts["text"].max() > 1


def job(grid: Grid, out: Path, cache: Path) -> list[str]:
    arguments = grid.arguments(out)
    code = (
        "import argparse, json, sys; from zpdbench.generations import generate_chunk; "
        "generate_chunk.main(argparse.Namespace(**json.loads(sys.argv[1])))"
    )
    return [sys.executable, "-c", code, json.dumps(vars(arguments))]


@pytest.mark.slow
def test_a_killed_job_goes_on_at_the_cell(
    done: tuple[Path, Path], grid: Grid, tmp_path: Path, root: Path
) -> None:
    cache = tmp_path / "cache"
    out = tmp_path / "all.parquet"
    environment = {**os.environ, "ZPDBENCH_CACHE": str(cache), "PYTHONPATH": str(root / "src")}
    command = job(grid, out, cache)
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 300
        while not list(cache.glob("cells/*/*.parquet")):
            assert process.poll() is None, "ended before the first cell was stored"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not out.exists()
    kept = len(list(cache.glob("cells/*/*.parquet")))
    assert 1 <= kept < 15
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert f"15 cells, {kept} found in the cache" in again.stderr
    assert out.read_bytes() == done[0].read_bytes()


@pytest.mark.slow
def test_the_program_writes_the_same_bytes_from_nothing_and_leaves_nothing_else(
    done: tuple[Path, Path], grid: Grid, tmp_path: Path, root: Path
) -> None:
    """It ends without taking its engine down: with the process goes all that this would remove."""
    out, temporary = tmp_path / "all.parquet", tmp_path / "temporary"
    temporary.mkdir()
    environment = {
        **os.environ, "ZPDBENCH_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(root / "src"),
        "TMPDIR": str(temporary),
    }  # fmt: skip
    given = vars(grid.arguments(out)).items()
    words = [
        w for k, v in given for w in (f"--{k}", *(map(str, v) if isinstance(v, list) else [v]))
    ]
    command = [sys.executable, "-m", "zpdbench.cli", "generate-chunk", *words]
    subprocess.run(command, env=environment, check=True, capture_output=True)
    assert out.read_bytes() == done[0].read_bytes()
    left = [p.name for p in temporary.iterdir() if p.name.startswith("vllm")]
    assert left == []


def _no_adapter(grid: Grid) -> None:
    shutil.rmtree(grid.adapter("zpd"))


def _no_step(grid: Grid) -> None:
    shutil.rmtree(grid.adapter("zpd") / "step4")
    files.write_manifest(grid.adapter("zpd"), {})


def _truncated_adapter(grid: Grid) -> None:
    path = grid.adapter("random") / "step8/adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def _other_base(grid: Grid) -> None:
    files.write_manifest(grid.adapter("zpd"), {"base": "0" * 64})


def _changed_base(grid: Grid) -> None:
    (grid.checkpoint / "config.json").write_text("{}")


def _truncated_items(grid: Grid) -> None:
    path = grid.items()[0]
    path.write_bytes(path.read_bytes()[:50])


def _empty_items(grid: Grid) -> None:
    tiny.save_items(grid.items()[0], "generate", count=0)


def _empty_prompt(grid: Grid) -> None:
    tiny.save_items(grid.items()[1], "letters", prompt="")


def _empty_choice(grid: Grid) -> None:
    tiny.save_items(grid.items()[1], "letters", choices=[" A", ""])


def _equal_choices(grid: Grid) -> None:
    tiny.save_items(grid.items()[1], "letters", choices=[" A", " B", " A"])


def _stop_within_a_special_token(grid: Grid) -> None:
    tiny.save_items(grid.items()[0], "generate", stop=["def", "<|im_end|>\n"])


def _long_prompt(grid: Grid) -> None:
    tiny.save_items(grid.items()[0], "generate", prompt="fox " * 500)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_no_adapter, "manifest"),
        (_no_step, "no readable adapter configuration"),
        (_truncated_adapter, "against its manifest"),
        (_other_base, "trained on another base"),
        (_changed_base, "against its manifest"),
        (_truncated_items, "no readable items file"),
        (_empty_items, "no items in it"),
        (_empty_prompt, "item '0'.*empty prompt"),
        (_empty_choice, "item '0'.*choice is empty"),
        (_equal_choices, "item '0'.*two of its choices have the same tokens"),
        (_stop_within_a_special_token, "item '0'.*holds a special token and more"),
        (_long_prompt, r"item '0'.*needs \d+ tokens"),
    ],
)
def test_bad_input_is_one_line_before_the_engine_starts(
    grid: Grid,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Grid], None],
    message: str,
) -> None:
    monkeypatch.setattr(generate_chunk, "open_engine", lambda *_: pytest.fail("engine started"))
    broken = Grid(tmp_path / "broken", grid.config)
    shutil.copytree(grid.folder, broken.folder)
    damage(broken)
    with pytest.raises(UserError, match=message) as caught:
        generate_chunk.main(broken.arguments(tmp_path / "all.parquet"))
    assert "\n" not in str(caught.value)
    assert caught.value.fix or "manifest" in message


def test_an_unknown_chunk_is_named(grid: Grid, cache: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no chunk 's7'") as caught:
        generate_chunk.main(grid.arguments(tmp_path / "x.parquet", chunk="s7"))
    assert caught.value.fix == "one of all"


def test_missing_items_are_named(grid: Grid, cache: Path, tmp_path: Path) -> None:
    arguments = grid.arguments(tmp_path / "x.parquet")
    arguments.items.pop()
    with pytest.raises(UserError, match="no items of kobest"):
        generate_chunk.main(arguments)


class Breaking:
    """An engine that dies in its work, as at the end of memory."""

    name = "breaking"

    def __init__(self, good: int) -> None:
        self.good = good

    def ask(self, requests: Iterable[tuple[Any, Request]]) -> Iterator[tuple[Any, Answer]]:
        for number, (tag, request) in enumerate(requests):
            if number == self.good:
                raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")
            logprobs = tuple(-1.0 - n for n in range(len(request.choices)))
            yield tag, Answer(text="7", token_ids=(7,), finish_reason="stop", logprobs=logprobs)

    def metrics(self) -> dict[str, float]:
        return {"requests": float(self.good)}

    def close(self, last: bool = False) -> None:
        return


def test_an_engine_that_dies_is_one_clear_line_and_loses_nothing(
    grid: Grid, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generate_chunk, "open_engine", lambda *_: Breaking(35))
    arguments = grid.arguments(tmp_path / "all.parquet", changes={"engine": "transformers"})
    with pytest.raises(UserError, match="the engine failed") as caught:
        generate_chunk.main(arguments)
    assert "out of memory. Tried" in str(caught.value) and "\n" not in str(caught.value)
    assert "finished cells are kept" in str(caught.value.fix)
    assert len(list((cache / "cells").rglob("*.parquet"))) == 4, "four were finished"


@pytest.fixture(scope="module")
def full(grid: Grid, tmp_path_factory: pytest.TempPathFactory) -> Grid:
    """The same study with all weights trained: each run's last step is a checkpoint."""
    config = copy.deepcopy(grid.config)
    config["training"]["method"] = "full"
    made = Grid(tmp_path_factory.mktemp("full"), config)
    for part in ("checkpoints", "items"):
        shutil.copytree(grid.folder / part, made.folder / part)
    base = files.read_manifest(made.checkpoint)["digest"]
    for number, condition in enumerate(CONDITIONS):
        folder = made.adapter(condition)
        tiny.save_checkpoint(folder / f"step{STEPS[-1]}", "qwen2", seed=20 + number)
        (folder / f"step{STEPS[-1]}/MANIFEST.json").unlink()
        files.write_manifest(folder, {"kind": "full", "base": base})
    return made


@pytest.mark.parametrize("engine", ["transformers", pytest.param("vllm", marks=pytest.mark.slow)])
def test_runs_of_all_weights_are_served_one_after_the_other(
    full: Grid, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    opened: list[str] = []
    original = generate_chunk.open_engine

    def look(kind: str, checkpoint: Path, settings: Any) -> Any:
        opened.append(Path(checkpoint).parent.parent.name)
        return original(kind, checkpoint, settings)

    monkeypatch.setattr(generate_chunk, "open_engine", look)
    generate_chunk.main(full.arguments(tmp_path / "all.parquet", changes={"engine": engine}))
    assert opened[:3] == [full.folder.name, *CONDITIONS]
    frame = pl.read_parquet(tmp_path / "all.parquet")
    assert set(frame.filter(pl.col("condition") != "base")["step"]) == {STEPS[-1]}
    assert frame.group_by("condition").len().sort("condition").rows() == [
        ("base", 30), *((c, 30) for c in CONDITIONS)
    ]  # fmt: skip
    assert frame["adapter"].n_unique() == 1 + len(CONDITIONS)
    # What each engine says is what its checkpoint says when it stands alone.
    from zpdbench.engines import Settings
    from zpdbench.engines.transformers_engine import TransformersEngine
    from zpdbench.generations.generate_chunk import Job

    arguments = full.arguments(tmp_path / "x.parquet", changes={"engine": "transformers"})
    study = generate_chunk.studies.load(arguments.study)
    job = Job(
        study, "tiny", study.chunks["tiny", "all"], full.checkpoint, arguments.adapters,
        arguments.items,
    )  # fmt: skip
    for condition in CONDITIONS:
        alone = TransformersEngine(full.adapter(condition) / "step8", Settings())
        cells = [c for c in job.cells if c.run.condition == condition]
        for cell in cells:
            asked = {a.item_id: answer for a, answer in alone.ask(job._requests([cell]))}
            rows = frame.filter(
                (pl.col("condition") == condition) & (pl.col("benchmark") == cell.benchmark)
            )
            for row in rows.iter_rows(named=True):
                assert row["text"] == asked[row["item_id"]].text
                assert row["logprobs"] == pytest.approx(asked[row["item_id"]].logprobs, abs=1e-4)


def test_one_run_of_all_weights_and_the_base_it_is_compared_with(
    full: Grid, cache: Path, tmp_path: Path
) -> None:
    changes = {"group_by": ["model", "condition", "seed"], "engine": "transformers"}
    out = tmp_path / "zpd-s0.parquet"
    generate_chunk.main(full.arguments(out, chunk="zpd-s0", changes=changes))
    assert pl.read_parquet(out).height == 30
    # Weights that are the base's own have learnt nothing, and that is said.
    broken = Grid(tmp_path / "broken", full.config)
    shutil.copytree(full.folder, broken.folder)
    folder = broken.adapter("zpd")
    shutil.copy(broken.checkpoint / "model.safetensors", folder / "step8")
    files.write_manifest(folder, {"base": files.read_manifest(broken.checkpoint)["digest"]})
    with pytest.raises(UserError, match=r"zpd/s0/step8: all .* equal the untuned base"):
        generate_chunk.main(broken.arguments(out, chunk="zpd-s0", changes=changes))
    # And another model's are refused before any engine starts.
    other = tmp_path / "other"
    tiny.save_checkpoint(other, "qwen2", layers=2)
    for name in ("model.safetensors", "config.json"):
        shutil.copy(other / name, folder / "step8")
    files.write_manifest(folder, {"base": files.read_manifest(broken.checkpoint)["digest"]})
    with pytest.raises(UserError, match="is a model of another base"):
        generate_chunk.main(broken.arguments(out, chunk="zpd-s0", changes=changes))
