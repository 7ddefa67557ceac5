"""Which variables a processor gets, and that a row's numbers are its own in either setting."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from zpdbench import arithmetic, study
from zpdbench.arithmetic import Processor
from zpdbench.errors import UserError

AVX512 = {"avx2", "fma", "avx512f", "avx512vl", "avx512bw", "avx512dq"}
SERVER = Processor("x86_64", "GenuineIntel", "a server's", frozenset(AVX512))
EPYC = Processor("x86_64", "AuthenticAMD", "an EPYC", frozenset({"avx2", "fma"}))
OLD = Processor("x86_64", "GenuineIntel", "an old one", frozenset({"avx", "sse4_2"}))
ARM = Processor("aarch64", "unknown", "aarch64", frozenset({"asimd"}))


@pytest.mark.parametrize("cpu", [SERVER, EPYC])
def test_portable_is_the_same_on_all_that_have_avx2(cpu: Processor) -> None:
    found = arithmetic.variables("portable", cpu, {})
    assert found == arithmetic.variables("portable", SERVER, {"MKL_ENABLE_INSTRUCTIONS": "AVX2"})
    assert found["MKL_CBWR"] == "AVX2,STRICT"


@pytest.mark.parametrize("cpu", [OLD, ARM])
def test_portable_is_refused_where_it_cannot_be(cpu: Processor) -> None:
    with pytest.raises(UserError, match="has not the instructions of portable") as caught:
        arithmetic.variables("portable", cpu, {})
    assert caught.value.where == "arithmetic: portable"
    assert "MKL_CBWR" not in arithmetic.variables("native", cpu, {})
    assert "OPENBLAS_CORETYPE" not in arithmetic.variables("native", cpu, {})


def test_native_names_the_branch_that_there_is() -> None:
    def branch(cpu: Processor, **given: str) -> str:
        return arithmetic.variables("native", cpu, given)["MKL_CBWR"]

    assert branch(SERVER) == "AVX512,STRICT"
    assert branch(SERVER, MKL_ENABLE_INSTRUCTIONS="AVX2") == branch(EPYC) == "AVX2,STRICT"
    assert "ATEN_CPU_CAPABILITY" not in arithmetic.variables("native", SERVER, {})


def test_native_after_portable_is_not_capped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A job of a native study that is started by a portable process."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(arithmetic, "processor", lambda: SERVER)
    arithmetic.choose("portable")
    assert arithmetic.is_portable() and os.environ["DNNL_MAX_CPU_ISA"] == "AVX2"
    arithmetic.choose("native")
    assert not arithmetic.is_portable() and "DNNL_MAX_CPU_ISA" not in os.environ
    assert os.environ["MKL_CBWR"] == "AVX512,STRICT"


def test_classes_are_makers() -> None:
    lesser = Processor("x86_64", "GenuineIntel", "a desktop's", frozenset({"avx2", "fma"}))
    classes = {arithmetic.portable_class(cpu) for cpu in (SERVER, lesser)}
    assert classes == {"x86-64 with AVX2, Intel"}
    assert arithmetic.portable_class(EPYC) == "x86-64 with AVX2, AMD"


def test_what_cannot_compute_portably_is_of_no_class() -> None:
    unfused = Processor("x86_64", "AuthenticAMD", "without fma", frozenset({"avx2"}))
    arm = Processor("aarch64", "unknown", "says so", frozenset({"avx2", "fma"}))
    for cpu in (OLD, ARM, unfused, arm):
        assert arithmetic.portable_class(cpu) == "no x86-64 with AVX2", cpu


def test_embedded_studies_are_portable_and_real_ones_native(root: Path) -> None:
    mini, r4 = (study.load(root / f"config/{n}.yaml") for n in ("mini", "r4"))
    assert (mini.computes, r4.computes) == ("portable", "native")
    other = mini.model_copy(update={"arithmetic": "native"})

    class Job:
        model, chunk, condition, seed, benchmark = "mini-qwen", "all", "zpd", "0", "gsm8k"

    changed = {r for r in study._DEPENDS if mini.digest(r, Job) != other.digest(r, Job)}
    assert {"make_checkpoint", "train_adapter", "generate_chunk"} <= changed
    assert not changed & {"make_corpus", "make_items", "score_run", "h3a", "aggregate_scores"}


@pytest.mark.parametrize(
    ("setting", "instructions", "threads"),
    [("portable", "", 1), ("portable", "AVX2", 2), ("native", "", 2), ("native", "AVX2", 1)],
)
def test_a_row_is_its_own(setting: str, instructions: str, threads: int) -> None:
    """On this processor as it is, and as oneMKL would be on one without AVX-512."""
    if setting == "portable" and not arithmetic.processor().has_avx2:
        pytest.skip("this processor has no AVX2")
    known = {k: v for k, v in os.environ.items() if not k.startswith(("MKL_", "DNNL_", "ATEN_"))}
    if instructions:
        known["MKL_ENABLE_INSTRUCTIONS"] = instructions
    done = subprocess.run(
        [sys.executable, "-m", "tests.rows", setting, str(threads)],
        env=known,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "every row is its own\n"), done.stderr


@pytest.mark.slow
def test_vllms_answers_are_their_own_in_native_arithmetic_too(root: Path) -> None:
    """The other tests of vLLM compute portably."""
    pytest.importorskip("vllm")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider",
         "tests/engines/test_punica.py", "tests/engines/test_vllm.py",
         "-k", "order or alone or min_rows or own_adapters"],
        env={**os.environ, "ZPDBENCH_TEST_ARITHMETIC": "native"},
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
