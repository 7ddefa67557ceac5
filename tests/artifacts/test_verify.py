"""Verification as a reviewer does it: clean bundles hold, signatures, comparison, explanation."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.artifacts import tampering
from zpdbench import cli
from zpdbench.artifacts import manifest


def rows(path: Path) -> list[dict[str, str]]:
    lines = [line.split("\t") for line in path.read_text("utf-8").splitlines()]
    return [dict(zip(lines[0], line, strict=True)) for line in lines[1:]]


@pytest.mark.slow
def test_a_clean_bundle_holds(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one thread and on two, no alarm at levels 0 to 2."""
    for threads in ("1", "2"):
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
        monkeypatch.setenv("POLARS_MAX_THREADS", threads)
        out = tmp_path / "v.tsv"
        assert cli.main(["verify", str(bundle), "--level", "2", "--out", str(out)]) == 0
        found = rows(out)
        assert {r["verdict"] for r in found} <= {"reproduced", "not checked"}
        assert {r["level"] for r in found if r["verdict"] == "reproduced"} == {"0", "1", "2"}
        claims = [r for r in found if r["claim"].startswith("H3a ")]
        assert len(claims) == 15 and sum("inconclusive" in r["got"] for r in claims) == 1


def test_the_digest_is_printed_and_checked(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "v.tsv")
    assert cli.main(["verify", str(bundle), "--level", "0", "--out", out]) == 0
    with zipfile.ZipFile(bundle) as archive:
        digest = manifest.digest(archive.read(manifest.NAME))
    assert f"digest {digest}" in capsys.readouterr().out
    command = ["verify", str(bundle), "--level", "0", "--out", out, "--digest"]
    assert cli.main([*command, digest.upper()]) == 0
    assert cli.main([*command, digest[:-1] + ("0" if digest[-1] != "0" else "1")]) == 1
    for none in ("", " ", "sha256:", digest[:-1], digest + "0", "x" * 64):
        assert cli.main([*command, none]) == 2
        assert "is no digest" in capsys.readouterr().err


def test_packed_again_by_another_tool(unpacked: Path, tmp_path: Path) -> None:
    """Order, times, folders' entries and one folder around all of it do not matter."""
    out = str(tmp_path / "v.tsv")
    assert cli.main(["verify", str(unpacked), "--level", "0", "--out", out]) == 0
    plain = shutil.make_archive(str(tmp_path / "plain"), "zip", unpacked)
    assert cli.main(["verify", plain, "--level", "0", "--out", out]) == 0
    inside = shutil.make_archive(str(tmp_path / "in"), "zip", unpacked.parent, unpacked.name)
    assert cli.main(["verify", inside, "--level", "0", "--out", out]) == 0


@pytest.fixture
def key(tmp_path: Path) -> Path:
    if not shutil.which("ssh-keygen"):
        pytest.skip("no ssh-keygen")
    path = tmp_path / "key"
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "author", "-f", str(path)]
    subprocess.run(command, check=True)
    return path


def test_signatures(bundle: Path, key: Path, tmp_path: Path) -> None:
    mine = tmp_path / "crate.zip"
    shutil.copyfile(bundle, mine)
    assert cli.main(["sign", str(mine), "--key", str(key)]) == 0
    signature = tmp_path / "crate.zip.sig"
    assert signature.is_file()
    public = key.with_suffix(".pub").read_text("utf-8")
    signers = tmp_path / "signers"
    signers.write_text(f"author@example.org {public}")
    out = tmp_path / "v.tsv"
    command = ["verify", str(mine), "--level", "0", "--out", str(out)]

    def verdict() -> dict[str, str]:
        return next(r for r in rows(out) if "signed" in r["claim"])

    signature.rename(tmp_path / "taken away")
    assert cli.main([*command, "--signers", str(signers)]) == 1
    assert verdict()["got"] == "unsigned"
    (tmp_path / "taken away").rename(signature)
    assert cli.main(command) == 0
    assert verdict()["verdict"] == "not checked" and "--signers" in verdict()["why"]
    assert cli.main([*command, "--signers", str(signers)]) == 0
    assert verdict()["got"].startswith("author@example.org")
    # Somebody else of that name.
    other = tmp_path / "other"
    other.mkdir()
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other / "key")], check=True
    )
    stranger = tmp_path / "strangers"
    stranger.write_text("author@example.org " + (other / "key.pub").read_text("utf-8"))
    assert cli.main([*command, "--signers", str(stranger)]) == 1


def test_a_signature_is_of_one_manifest(
    bundle: Path, unpacked: Path, key: Path, tmp_path: Path
) -> None:
    signature, signers = tmp_path / "sig", tmp_path / "signers"
    assert cli.main(["sign", str(bundle), "--key", str(key), "--out", str(signature)]) == 0
    signers.write_text(f"a@b {key.with_suffix('.pub').read_text('utf-8')}")
    changed = tmp_path / "changed"
    shutil.copytree(unpacked, changed)
    path = changed / "h3a.tsv"
    path.write_text(path.read_text("utf-8").replace("inconclusive", "supported"), "utf-8")
    tampering.forge(changed)
    command = ["verify", str(changed), "--level", "0", "--out", str(tmp_path / "v.tsv")]
    assert cli.main(command) == 0
    assert cli.main([*command, "--signature", str(signature), "--signers", str(signers)]) == 1


def test_unsigned_is_said(bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "v.tsv"
    assert cli.main(["verify", str(bundle), "--level", "0", "--out", str(out)]) == 0
    row = next(r for r in rows(out) if "signed" in r["claim"])
    assert (row["verdict"], row["got"]) == ("not checked", "unsigned")


def test_why_walks_to_every_answer(
    unpacked: Path, synthetic_study: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder in (unpacked, synthetic_study.parent):
        table = str(folder / "h3a.tsv")
        assert cli.main(["why", table, "--row", "gsm8k/pp", "--items", "2"]) == 0
        text = capsys.readouterr().out
        for model in ("small", "large"):
            for condition in ("random", "zpd"):
                for seed in range(3):
                    assert f"{model}/{condition}/{seed} step 4" in text
                    assert f"scores/{model}/{condition}/s{seed}.parquet" in text
        assert "base" not in text.split("\n\n", 1)[1].split("\n")[0]
        assert text.count("answered") == 2 * 12 and "NOT what" not in text
        assert "train_adapter" in text and "as its job recorded" in text


def test_why_of_an_unknown_row(
    unpacked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["why", str(unpacked / "h3a.tsv"), "--row", "gsm8k/miles"]) == 2
    assert "gsm8k/pp" in capsys.readouterr().err
    assert cli.main(["why", str(tmp_path / "h3a.tsv"), "--row", "x"]) == 2


def test_why_says_when_a_file_is_not_its_job_s(
    unpacked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "b"
    shutil.copytree(unpacked, folder)
    path = folder / "scores/small/zpd/s0.parquet"
    other = folder / "scores/small/zpd/s1.parquet"
    path.write_bytes(other.read_bytes())
    assert cli.main(["why", str(folder / "h3a.tsv"), "--row", "mmlu/pp"]) == 0
    assert "NOT what its job recorded" in capsys.readouterr().out


def test_diff_of_a_run_with_itself_and_with_another(
    bundle: Path, unpacked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["diff", str(bundle), str(unpacked)]) == 0
    assert "nothing differs" in capsys.readouterr().out
    other = tmp_path / "b"
    shutil.copytree(unpacked, other)
    tampering.edit_config(other, tampering.Draw(0))
    tampering.swap_runs(other, tampering.Draw(1))
    tampering.edit_statistic(other, tampering.Draw(2))
    out = tmp_path / "d.tsv"
    assert cli.main(["diff", str(bundle), str(other), "--out", str(out)]) == 1
    lines = out.read_text("utf-8").splitlines()
    assert lines[0].split("\t") == ["part", "what", "a", "b", "note"]
    assert any(line.startswith("configuration\t") for line in lines)
    # Pairs are of one run and its final step only.
    tests = [line.split("\t") for line in lines if "McNemar" in line]
    assert tests and all(row[1].count("/") == 2 for row in tests)
    counts = {row[1].split()[1]: int(row[4].split()[0]) for row in tests}
    assert set(counts.items()) <= {("humaneval", 6), ("gsm8k", 12), ("mmlu", 12), ("kobest", 15)}
    assert cli.main(["diff", str(tmp_path / "none"), str(other)]) == 2


def test_diff_of_runs_that_have_nothing_in_common(
    unpacked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from zpdbench.artifacts import diff

    a = diff.open_side(unpacked, tmp_path)
    models = {f"other-{name}": model for name, model in a.study.models.items()}
    b = diff.Side("b", a.folder, a.study.model_copy(update={"models": models}), a.records)
    lines = [line for line in diff.compare(a, b) if line.part == "verdicts"]
    assert len(lines) == 1 and "no run in common" in lines[0].note


@pytest.mark.slow
def test_a_relative_folder_is_the_same_bundle(
    unpacked: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The verbs that check it run elsewhere; so with the folder that a zip is unpacked in."""
    monkeypatch.chdir(unpacked.parent)
    out = str(tmp_path / "v.tsv")
    assert cli.main(["verify", unpacked.name, "--level", "1", "--out", out]) == 0
    assert {r["verdict"] for r in rows(Path(out))} <= {"reproduced", "not checked"}
    (tmp_path / "scratch").mkdir()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.zip").symlink_to(unpacked.parent / "crate.zip")
    command = ["verify", "link.zip", "--level", "1", "--out", out]
    assert cli.main([*command, "--scratch", "scratch"]) == 0
    assert not list((tmp_path / "scratch").iterdir())
    monkeypatch.chdir(unpacked)
    assert cli.main(["verify", ".", "--level", "0", "--out", out]) == 0
    capsys.readouterr()
    assert cli.main(["verify", ".", "--out", out, "--scratch", str(tmp_path / "none")]) == 2
    assert "--scratch" in capsys.readouterr().err


def test_the_table_through_a_pipe(unpacked: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No page can lie beside it, and none is told of."""
    before = set(Path("/dev").iterdir())
    assert cli.main(["verify", str(unpacked), "--level", "0", "--out", "/dev/stdout"]) == 0
    said = capfd.readouterr().out
    assert said.startswith("level\t") and "the page is" not in said
    assert set(Path("/dev").iterdir()) == before
