"""One synthetic bundle that the tests of bundles share."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.artifacts import synthetic
from zpdbench import cli, files
from zpdbench.artifacts.workshop import Outcome, Workshop
from zpdbench.study import Study


@pytest.fixture(scope="session")
def synthetic_study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """study.lock.yaml of a complete results folder."""
    folder = tmp_path_factory.mktemp("artifacts")
    old = os.environ.get("ZPDBENCH_CACHE")
    os.environ["ZPDBENCH_CACHE"] = str(folder / "cache")
    yield synthetic.make(folder / "results")
    if old is None:
        del os.environ["ZPDBENCH_CACHE"]
    else:
        os.environ["ZPDBENCH_CACHE"] = old


@pytest.fixture(scope="session")
def bundle(synthetic_study: Path, root: Path) -> Path:
    """Its bundle."""
    target = synthetic_study.parent.parent / "crate.zip"
    command = ["make-crate", "--study", str(synthetic_study), "--workflow", str(root)]
    assert cli.main([*command, "--out", str(target)]) == 0
    return target


@pytest.fixture(scope="session")
def unpacked(bundle: Path) -> Path:
    """The bundle's folder; not to be changed."""
    target = bundle.parent / "unpacked"
    with zipfile.ZipFile(bundle) as archive:
        archive.extractall(target)
    return target


class RememberingWorkshop(Workshop):
    """Runs a verb once for the same arguments and the same bytes in every file that is named.

    Hundreds of mutations leave most inputs as they were; what a verb does with them is known.
    """

    memory: dict[str, dict[str, bytes] | Outcome]

    def __init__(self, folder: Path, study: Study, memory: Path) -> None:
        super().__init__(folder, study)
        self.store = memory

    def environment(self) -> dict[str, str]:
        return {**super().environment(), "ZPDBENCH_CACHE": str(self.store / "cache")}

    def run(
        self, verb: str, arguments: Sequence[object], *, seconds: float | None = None
    ) -> Outcome:
        made = self.folder / "made"
        words = []
        for argument in arguments:
            path = Path(str(argument))
            if isinstance(argument, Path) and path.is_file():
                words.append(files.sha256_file(path))
            elif isinstance(argument, Path) and path.is_relative_to(made):
                words.append(path.relative_to(made).as_posix())
            else:
                words.append(str(argument))
        key = files.digest([verb, words])
        kept = self.store / key
        outputs = [
            Path(str(a))
            for a in arguments
            if isinstance(a, Path) and a.is_relative_to(made) and not a.exists()
        ]
        if not kept.is_dir():
            outcome = super().run(verb, arguments, seconds=seconds)
            with files.atomic_directory(kept) as target:
                (target / "outcome").write_text(f"{outcome.code}\n{outcome.message}", "utf-8")
                for number, path in enumerate(outputs):
                    if path.is_file():
                        (target / str(number)).write_bytes(path.read_bytes())
            return outcome
        for number, path in enumerate(outputs):
            if (kept / str(number)).is_file():
                path.write_bytes((kept / str(number)).read_bytes())
        code, message = (kept / "outcome").read_text("utf-8").split("\n", 1)
        return Outcome(int(code), message)
