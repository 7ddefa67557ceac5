"""Single levels on what they compare: verdicts with time-outs, retrained runs, machines' limits."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import polars as pl
import pytest

from tests.artifacts import tampering
from zpdbench import cli, files
from zpdbench.artifacts import archive, level0, level2, level3, level4, rerun, verify
from zpdbench.artifacts.findings import Table
from zpdbench.artifacts.level0 import Bundle, Outside
from zpdbench.sandbox import root as sandbox_root

SCORES = "scores/small/zpd/s0.parquet"


@pytest.fixture
def folder(unpacked: Path, tmp_path: Path) -> Path:
    target = tmp_path / "bundle"
    shutil.copytree(unpacked, target)
    return target


def opened(folder: Path, tmp_path: Path) -> Bundle:
    table = Table(0)
    bundle = level0.check(archive.open_bundle(folder, tmp_path), Outside(), table)
    assert bundle is not None and not [r for r in table.rows if r.verdict == "differs"]
    return bundle


# -- verdicts -------------------------------------------------------------------------------------


def programs(count: int, statuses: list[str]) -> pl.DataFrame:
    """A score file of `count` programs, the first of them with these statuses."""
    told = [*statuses, *["passed"] * (count - len(statuses))]
    names = ("model", "condition", "prediction", "gold", "finish_reason", "extracted", "template")
    text = dict.fromkeys(names, "x")
    rows = [
        {
            **text,
            **{"seed": 0, "step": 4, "benchmark": "humaneval", "task": "humaneval", "sample": 0},
            **{"item_id": f"H/{i}", "correct": float(s == "passed"), "status": s},
        }
        for i, s in enumerate(told)
    ]
    nothing = dict.fromkeys(("correct_flexible", "correct_norm", "confidence"), None)
    return pl.DataFrame(
        [{**r, **nothing} for r in rows],
        schema={
            **dict.fromkeys(("model", "condition"), pl.String),
            **dict.fromkeys(("seed", "step"), pl.Int64),
            **dict.fromkeys(("benchmark", "task", "item_id"), pl.String),
            "sample": pl.Int64,
            **dict.fromkeys(("prediction", "gold"), pl.String),
            **dict.fromkeys(
                ("correct", "correct_flexible", "correct_norm", "confidence"), pl.Float64
            ),
            **dict.fromkeys(("status", "finish_reason", "extracted", "template"), pl.String),
        },
    )


def verdict(tmp_path: Path, there: pl.DataFrame, here: pl.DataFrame) -> tuple[set[str], int]:
    """Verdicts of the rows on one run, and the exit code that they give."""
    for name, frame in (("there", there), ("here", here)):
        frame.write_parquet(tmp_path / name)
    compared = level2.compare(tmp_path / "there", tmp_path / "here", ["humaneval"], left_out=False)
    table = Table(0)
    run = level2.grid.Run("small", "zpd", 0)
    level2._add(level2.Judged(run, level2.Outcome(0, ""), "", compared), ["humaneval"], table)
    return {row.verdict for row in table.rows}, table.exit_code()


def test_a_program_that_ends_in_time_there_only_leaves_its_run_open(tmp_path: Path) -> None:
    for status in ("timeout", "killed"):
        here = programs(20, [status])
        assert verdict(tmp_path, programs(20, ["passed"]), here) == ({"not checked"}, 3)
        assert verdict(tmp_path, here, programs(20, ["passed"])) == ({"not checked"}, 3)


def test_many_such_programs_are_no_accident(tmp_path: Path) -> None:
    there = programs(300, ["passed"] * 4)
    assert verdict(tmp_path, there, programs(300, ["timeout"] * 3)) == ({"not checked"}, 3)
    assert verdict(tmp_path, there, programs(300, ["timeout"] * 4)) == ({"differs"}, 1)


@pytest.mark.parametrize("status", ["crashed", "memory", "output_limit", "failed"])
def test_nothing_but_time_is_excused(tmp_path: Path, status: str) -> None:
    assert verdict(tmp_path, programs(9, []), programs(9, [status])) == ({"differs"}, 1)


def test_a_verdict_that_its_own_status_does_not_give_is_not_excused(tmp_path: Path) -> None:
    lie = programs(9, ["failed"]).with_columns(correct=pl.lit(1.0))
    assert verdict(tmp_path, lie, programs(9, ["timeout"])) == ({"differs"}, 1)


# -- no sandbox -----------------------------------------------------------------------------------


def test_a_machine_without_a_sandbox_is_told_by_the_exit_code(
    unpacked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sandbox_root, "find_bubblewrap", lambda: None)
    monkeypatch.setenv("ZPDBENCH_CACHE", str(tmp_path / "cache"))
    command = ["score-run", "--study", str(unpacked / "study.lock.yaml"), "--model", "small"]
    command += ["--condition", "base", "--seed", "0"]
    command += ["--generations", str(unpacked / "generations/small/all.parquet")]
    command += ["--items", *map(str, sorted(unpacked.glob("items/*")))]
    command += ["--out", str(tmp_path / "s.parquet")]
    assert cli.main(command) == 4
    assert "bubblewrap" in capsys.readouterr().err
    assert cli.main([*command, "--skip-programs"]) == 0
    made = pl.read_parquet(tmp_path / "s.parquet")
    theirs = pl.read_parquet(unpacked / "scores/small/base/s0.parquet")
    assert made.equals(theirs.filter(pl.col("benchmark") != "humaneval"))
    assert level2.sandbox_problem()


@pytest.mark.slow
def test_without_a_sandbox_a_verification_does_not_pass(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything but programs is judged; what is left open is an exit code of its own."""
    monkeypatch.setattr(level2, "sandbox_problem", lambda: "no bubblewrap here")
    out = tmp_path / "v.tsv"
    assert cli.main(["verify", str(bundle), "--level", "2", "--out", str(out)]) == 3
    lines = [line.split("\t") for line in out.read_text("utf-8").splitlines()[1:]]
    runs = [r for r in lines if r[0] == "2" and r[1] == "the verdicts follow from the answers"]
    assert len(runs) == 14 and {r[5] for r in runs} == {"not checked"}
    assert all("humaneval" in r[6] and "no bubblewrap here" in r[6] for r in runs)
    others = [r for r in lines if r[1].endswith("programs left out")]
    assert len(others) == 14 and {r[5] for r in others} == {"reproduced"}


# -- what a level may not begin -------------------------------------------------------------------


def test_no_weights_are_loaded_after_level_0_found_something(folder: Path, tmp_path: Path) -> None:
    (folder / "adapters/small/zpd/s0/step4/extra.bin").write_bytes(b"x")
    tampering.rehash(folder)
    table = Table(4)
    bundle = level0.check(archive.open_bundle(folder, tmp_path), Outside(), table)
    assert bundle is not None
    assert "no weights" in verify._reason_to_skip(3, bundle, table)
    assert not verify._reason_to_skip(2, bundle, table)


@pytest.mark.parametrize("steps", [10**9, 10**15])
def test_a_grid_too_large_to_list_is_refused_at_once(
    folder: Path, tmp_path: Path, steps: int
) -> None:
    path = folder / "study.lock.yaml"
    text = path.read_text("utf-8").replace("  steps: 4\n", f"  steps: {steps}\n", 1)
    text = text.replace("  evaluate_every: 2\n", "  evaluate_every: 1\n")
    assert str(steps) in text
    path.write_text(text, "utf-8")
    tampering.rehash(folder)
    out = tmp_path / "v.tsv"
    assert cli.main(["verify", str(folder), "--level", "0", "--out", str(out)]) == 1
    assert "are more than" in out.read_text("utf-8")
    assert cli.main(["why", str(folder / "h3a.tsv"), "--row", "gsm8k/pp"]) == 2


def test_more_answers_than_can_be_looked_at(unpacked: Path, tmp_path: Path) -> None:
    bundle = opened(unpacked, tmp_path)
    benchmarks = dict(bundle.study.benchmarks)
    benchmarks["gsm8k"] = benchmarks["gsm8k"].model_copy(update={"samples": 10**9})
    large = bundle.study.model_copy(update={"benchmarks": benchmarks})
    items = pl.DataFrame({"benchmark": ["gsm8k"] * 12, "interim": [True] * 12})
    hostile = Bundle(unpacked, {}, {}, large, bundle.included, {})
    members = large.chunks["small", "all"]
    assert level2._count_answers(hostile, members, items) > level2.MOST_ANSWERS


# -- a run trained again --------------------------------------------------------------------------


def retrained(folder: Path, tmp_path: Path, change: object = None) -> list[tuple[str, str, str]]:
    """Level 4's rows where the run trained here is the unchanged one and the bundle's is forged."""
    made = tmp_path / "made"
    shutil.copytree(folder / "adapters/small/zpd/s0", made)
    if change is not None:
        change(folder, random.Random(0))
        tampering.forge(folder)
    bundle = opened(folder, tmp_path)
    run, table = level4.grid.Run("small", "zpd", 0), Table(4)
    equal = level4.compare_weights(bundle, run, made, table)
    level4.compare_facts(bundle, run, made, table, equal=equal)
    level4.compare_trace(bundle, run, made, table, equal=equal)
    return [(row.claim, row.verdict, f"{row.expected} {row.got}") for row in table.rows]


def test_the_same_weights_do_not_vouch_for_trace_and_facts(folder: Path, tmp_path: Path) -> None:
    assert {v for _, v, _ in retrained(folder, tmp_path)} == {"reproduced"}


@pytest.mark.parametrize(
    ("change", "claim", "what"),
    [
        (tampering.edit_trace, "its trace comes out again", "gradient_norm"),
        (tampering.edit_manifest_fact, "what its manifest says comes out again", "trained_param"),
    ],
)
def test_a_forged_trace_or_fact_is_found_beside_equal_weights(
    folder: Path, tmp_path: Path, change: object, claim: str, what: str
) -> None:
    rows = retrained(folder, tmp_path, change)
    wrong = [(c, text) for c, v, text in rows if v == "differs"]
    assert [c for c, _ in wrong] == [claim] and what in wrong[0][1]
    assert ("a training run comes out again", "reproduced") in {(c, v) for c, v, _ in rows}


# -- answers asked again --------------------------------------------------------------------------


def texts(equal: int, n: int, dtype: str, temperature: float = 0.0) -> set[str]:
    """The verdict on `n` texts of which `equal` came out again."""
    import types

    section = types.SimpleNamespace(temperature=temperature)
    study = types.SimpleNamespace(
        benchmarks={"gsm8k": section}, generations=types.SimpleNamespace(dtype=dtype)
    )
    frame = pl.DataFrame(
        {
            "benchmark": ["gsm8k"] * n,
            "text": ["a"] * n,
            "text_there": ["a"] * equal + ["b"] * (n - equal),
            "logprobs": pl.Series([[]] * n, dtype=pl.List(pl.Float64)),
            "logprobs_there": pl.Series([[]] * n, dtype=pl.List(pl.Float64)),
            "correct": [1.0] * n,
            "correct_there": [1.0] * n,
        }
    )
    table = Table(3)
    bundle = types.SimpleNamespace(study=study)
    level3.add_run(bundle, table, 3, "run", rerun.Answers(frame, "vllm", "vllm"))
    return {row.verdict for row in table.rows}


def test_texts_have_a_stated_bar_in_every_precision() -> None:
    assert texts(25, 25, "float32") == {"reproduced"}
    assert texts(23, 25, "float32") == {"differs"}
    assert texts(0, 25, "bfloat16") == {"differs"}
    assert texts(8, 25, "bfloat16") == {"not checked"}
    assert texts(13, 25, "bfloat16") == {"reproduced"}
    assert texts(0, 25, "bfloat16", temperature=0.8) == {"not checked"}


# -- definitions of the study's own ---------------------------------------------------------------


def test_a_definition_may_call_known_functions_only(tmp_path: Path, unpacked: Path) -> None:
    import yaml

    from zpdbench.artifacts import evidence
    from zpdbench.benchmarks import definition

    study = opened(unpacked, tmp_path).study
    sections = dict(study.benchmarks)
    sections["gsm8k"] = sections["gsm8k"].model_copy(update={"definition": "mine.yaml"})
    own = study.model_copy(update={"benchmarks": sections})
    target = tmp_path / "definitions/gsm8k.yaml"
    target.parent.mkdir()
    value = yaml.safe_load((definition.FOLDER / "gsm8k.yaml").read_text("utf-8"))
    for loader, foreign in (("gsm8k", []), ("os:system", ["os:system"])):
        target.write_text(yaml.safe_dump({**value, "loader": loader}), "utf-8")
        assert evidence.check_definitions(tmp_path, own) == ([], foreign)
        assert evidence.check_definitions(tmp_path, own, ["os:system"]) == ([], [])
    target.write_text("a: &a [x]\nb: *a\n", "utf-8")
    assert "aliases" in evidence.check_definitions(tmp_path, own)[0][0].why


def test_bundle_json_is_derived_again(folder: Path, tmp_path: Path) -> None:
    path = folder / "bundle.json"
    for key, value in (("seeds", [0, 1]), ("name", "x"), ("images", ["y"]), ("sources", {})):
        facts = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps({**facts, key: value}), "utf-8")
        tampering.rehash(folder)
        table = Table(0)
        level0.check(archive.open_bundle(folder, tmp_path), Outside(), table)
        wrong = {row.claim.rsplit(": ", 1)[-1] for row in table.rows if row.verdict == "differs"}
        assert key in wrong
        path.write_text(json.dumps(facts), "utf-8")


def test_a_difference_says_that_jobs_ran_other_code(folder: Path, tmp_path: Path) -> None:
    place = folder / "records/h3a.tsv.json"
    record = json.loads(place.read_text("utf-8"))
    place.write_text(json.dumps({**record, "code": "0" * 64}), "utf-8")
    tampering.forge(folder)
    table = Table(1)
    level0.check(archive.open_bundle(folder, tmp_path), Outside(), table)
    assert "differs" not in {row.verdict for row in table.rows}
    table.add(1, "the statistic follows", "h3a.tsv", "differs")
    assert "1 jobs ran with other states of the code" in table.rows[-1].why


def test_linked_data_give_each_file_s_hash(folder: Path, tmp_path: Path) -> None:
    path = folder / "ro-crate-metadata.json"
    path.write_text(
        path.read_text("utf-8").replace(files.sha256_file(folder / "h3a.tsv"), "0" * 64), "utf-8"
    )
    tampering.rehash(folder)
    table = Table(0)
    level0.check(archive.open_bundle(folder, tmp_path), Outside(), table)
    claims = [r for r in table.rows if r.verdict == "differs" and "linked data" in r.claim]
    assert [r.artefact for r in claims] == ["h3a.tsv"]
