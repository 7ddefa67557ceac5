"""Pinning and fetching through the real client, against a hub that misbehaves."""

from __future__ import annotations

import argparse
import errno
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.hub import server
from tests.hub.conftest import DATA, MODEL
from tests.hub.server import COMMIT, OTHER, Fault
from zpdbench import files, revisions, study
from zpdbench.checkpoints import make_checkpoint
from zpdbench.errors import UserError
from zpdbench.hub import fetch, pin
from zpdbench.hub.fetch import Repository

WEIGHTS = "model.safetensors"


def pinned(config: Path, **options: bool) -> study.Study:
    """Pin a study's repositories and read it again."""
    given = {"configfile": [str(config)], "lock": None, "update": False, **options}
    pin.main(argparse.Namespace(**given))
    return study.load(config)


def model_of(settings: study.Study) -> study.HubModel:
    model = settings.models["tiny"]
    assert isinstance(model, study.HubModel)
    return model


def make(settings: study.Study, out: Path) -> dict[str, object]:
    return make_checkpoint.make("tiny", model_of(settings), out, hub=settings.hub)


def test_pin_then_load(config: Path, hub: server.Hub, checkpoint, tmp_path: Path) -> None:
    settings = pinned(config)
    table = revisions.read(config.parent / revisions.NAME)
    entry = table["models"][MODEL]
    assert entry.revision == COMMIT and entry.license == "Apache-2.0"
    assert set(entry.files) == set(checkpoint) - {"README.md"}
    # The weights' hash stands in the listing: nothing large is fetched to be pinned.
    assert not any(p.startswith("/cdn/") for _, p, _ in hub.asked)
    made = make(settings, tmp_path / "out")
    assert made["origin"] == f"{MODEL}@{COMMIT}" and made["layers"] == 3
    for name in entry.files:
        assert (tmp_path / "out" / name).read_bytes() == checkpoint[name]
    assert not (tmp_path / "out" / "pytorch_model.bin").exists()
    assert not (tmp_path / "out" / "run.py").exists()
    assert files.check_manifest(tmp_path / "out")["digest"] == made["digest"]


def test_the_second_job_asks_nobody(config: Path, hub: server.Hub, tmp_path: Path) -> None:
    settings = pinned(config)
    first = make(settings, tmp_path / "a")
    asked = len(hub.asked)
    assert make(settings, tmp_path / "b")["digest"] == first["digest"]
    assert len(hub.asked) == asked


def test_a_hub_model_can_be_made_deeper(config: Path, tmp_path: Path) -> None:
    settings = pinned(config)
    model = model_of(settings).model_copy(update={"upscale": study.Upscale(drop=1)})
    made = make_checkpoint.make("tiny", model, tmp_path / "out", hub=settings.hub)
    assert made["layers"] == 4
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".hub-")] == []


def test_unpinned_is_refused_before_anything_is_asked(
    config: Path, hub: server.Hub, tmp_path: Path
) -> None:
    settings = study.load(config)
    with pytest.raises(UserError, match=r"no revision is pinned.*zpdbench pin"):
        make(settings, tmp_path / "out")
    only_commit: revisions.Table = {
        "models": {MODEL: revisions.Pin(COMMIT)},
        "datasets": {},
    }
    revisions.write(config.parent / revisions.NAME, only_commit)
    with pytest.raises(UserError, match=r"hashes are not pinned.*zpdbench pin"):
        make(study.load(config), tmp_path / "out")
    assert hub.asked == [] and not (tmp_path / "out").exists()


def test_pin_keeps_a_commit_that_was_looked_up(config: Path, hub: server.Hub) -> None:
    path = config.parent / revisions.NAME
    looked_up = revisions.Pin(COMMIT, seen="the model's page")
    revisions.write(path, {"models": {MODEL: looked_up}, "datasets": {}})
    hub.repos["models/else/where"] = server.Repo({"config.json": b"{}"})
    pinned(config)
    after = revisions.read(path)
    assert after["models"][MODEL].seen == "the model's page" and after["models"][MODEL].files
    assert after["datasets"][DATA].seen == "the hub's main branch, by zpdbench pin"
    before = path.read_bytes()
    pinned(config)
    assert path.read_bytes() == before


def test_pin_follows_a_moved_branch_only_when_asked(
    config: Path, hub: server.Hub, tmp_path: Path
) -> None:
    pinned(config)
    repo = hub.repos[f"models/{MODEL}"]
    repo.commit = OTHER
    assert model_of(pinned(config)).revision == COMMIT
    with pytest.raises(UserError, match=r"no such commit.*pin --update"):
        make(study.load(config), tmp_path / "out")
    assert model_of(pinned(config, update=True)).revision == OTHER


# what goes wrong, what must be said
LASTING = {
    "no such repository": (lambda h: h.repos.clear(), r"is not there, or is private"),
    "gated": (
        lambda h: setattr(h.repos[f"models/{MODEL}"], "gated", True),
        r"terms be accepted.*HF_TOKEN",
    ),
    "no such commit": (
        lambda h: setattr(h.repos[f"models/{MODEL}"], "commit", OTHER),
        r"no such commit",
    ),
    "no such file": (
        lambda h: h.repos[f"models/{MODEL}"].files.pop(WEIGHTS),
        r"a pinned file is not there",
    ),
    "unauthorised": (
        lambda h: h.faults.append(Fault(WEIGHTS, "status", 99, 401)),
        r"is not there, or is private",
    ),
    "another file": (
        lambda h: h.faults.append(Fault(f"tiny/{WEIGHTS}", "other", 99, methods=("GET",))),
        r"model\.safetensors is not the file that was pinned",
    ),
    "another size": (
        lambda h: h.faults.append(Fault(WEIGHTS, "longer", 99)),
        r"model\.safetensors has \d+ bytes where \d+ were pinned",
    ),
    "too many requests": (
        lambda h: h.faults.append(Fault(WEIGHTS, "status", 99, 429, {"Retry-After": "0"})),
        r"too many requests.*wait some minutes and start again",
    ),
    "cut again and again": (
        lambda h: h.faults.append(Fault(f"tiny/{WEIGHTS}", "cut", 99, methods=("GET",))),
        r"cannot be fetched.*what is there is kept.*mirror.*hub\.folder",
    ),
    "an empty answer": (
        lambda h: h.faults.append(Fault(WEIGHTS, "hung up", 99)),
        r"cannot be fetched.*what is there is kept.*mirror.*hub\.folder",
    ),
    "moved": (
        lambda h: h.faults.append(Fault(WEIGHTS, "moved", 99)),
        r"the hub answers with commit 'f{40}'",
    ),
}


@pytest.mark.parametrize("name", LASTING)
def test_what_cannot_be_mended_is_one_clear_line(
    config: Path, hub: server.Hub, tmp_path: Path, name: str
) -> None:
    settings = pinned(config)
    spoil, message = LASTING[name]
    spoil(hub)
    with pytest.raises(UserError, match=message) as caught:
        make(settings, tmp_path / "out")
    assert "\n" not in str(caught.value) and MODEL in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert [p for p in tmp_path.iterdir() if p.name.startswith(".out")] == []


def test_a_hub_that_cannot_be_reached(config: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        settings = pinned(config)
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
        elsewhere = study.Hub(endpoint=nobody, cache=str(tmp_path / "c"))
        gone = settings.model_copy(update={"hub": elsewhere})
        with pytest.raises(UserError, match=r"cannot be fetched.*set hub\.endpoint to a mirror"):
            make(gone, tmp_path / "out")
        value = yaml.safe_load(config.read_text("utf-8"))
        value["hub"]["endpoint"] = nobody
        config.write_text(yaml.safe_dump(value), "utf-8")
        with pytest.raises(UserError, match=r"cannot be fetched.*set hub\.endpoint to a mirror"):
            pinned(config, update=True)
    assert not (tmp_path / "out").exists()


def test_without_a_network_as_the_user_asks(
    config: Path, hub: server.Hub, tmp_path: Path, root: Path
) -> None:
    settings = pinned(config)
    lock = tmp_path / "study.lock.yaml"
    lock.write_text(study.lock_text(settings), "utf-8")
    hub.asked.clear()
    verb = ["make-checkpoint", "--study", str(lock), "--model", "tiny"]
    done = subprocess.run(
        [sys.executable, "-m", "zpdbench.cli", *verb, "--out", str(tmp_path / "out")],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(root / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "is not in the cache, and HF_HUB_OFFLINE forbids to fetch it" in done.stderr
    assert "hub.folder" in done.stderr and len(done.stderr.splitlines()) == 1
    assert not hub.asked


def test_a_file_that_was_not_what_was_pinned_is_not_kept(
    config: Path, hub: server.Hub, tmp_path: Path
) -> None:
    settings = pinned(config)
    hub.faults.append(Fault(f"tiny/{WEIGHTS}", "other", 1, methods=("GET",)))
    with pytest.raises(UserError, match="not the file that was pinned"):
        make(settings, tmp_path / "out")
    assert make(settings, tmp_path / "out")["layers"] == 3


def test_a_wrong_pin_deletes_nothing_of_a_shared_cache(
    config: Path, hub: server.Hub, tmp_path: Path
) -> None:
    settings = pinned(config)
    make(settings, tmp_path / "a")
    blobs = sorted((tmp_path / "cache").rglob("blobs/*"))
    model = model_of(settings)
    assert blobs and model.files
    wrong = {p: f.model_copy(update={"sha256": "0" * 64}) for p, f in model.files.items()}
    spoilt = model.model_copy(update={"files": wrong})
    with pytest.raises(UserError, match="not the file that was pinned"):
        make_checkpoint.make("tiny", spoilt, tmp_path / "b", hub=settings.hub)
    assert sorted((tmp_path / "cache").rglob("blobs/*")) == blobs
    # A blob that is not what it is called is nobody's, and goes.
    weights = next(b for b in blobs if b.stat().st_size == model.files[WEIGHTS].size)
    weights.chmod(0o644)
    weights.write_bytes(b"x" * model.files[WEIGHTS].size)
    with pytest.raises(UserError, match="not the file that was pinned"):
        make(settings, tmp_path / "c")
    assert not weights.exists()
    assert make(settings, tmp_path / "c")["layers"] == 3


def test_a_full_disk_is_one_clear_line(
    config: Path, hub: server.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = pinned(config)
    into = tmp_path / "into"
    into.mkdir()

    def full(self: Path, *args: object, **more: object) -> object:
        if self.is_relative_to(into):
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return open(self, *args, **more)  # type: ignore[call-overload]  # noqa: PTH123

    wanted = Repository("models", MODEL, COMMIT, model_of(settings).files)
    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(UserError, match=r"No space left on device.*free disk"):
        fetch.fetch(wanted, into, settings.hub)


def test_another_study_s_pin_is_not_replaced_silently(config: Path, hub: server.Hub) -> None:
    pinned(config)
    path = config.parent / revisions.NAME
    before = path.read_bytes()
    text = config.read_text("utf-8")
    other = config.with_name("other.yaml")
    other.write_text(text.replace(f"repo: {MODEL}", f"repo: {MODEL}, revision: {OTHER}"), "utf-8")
    hub.repos[f"models/{MODEL}"].commit = OTHER
    with pytest.raises(UserError, match=r"models\.tiny names f{8}.*--lock.*--update"):
        pinned(other)
    assert path.read_bytes() == before
    assert model_of(pinned(other, update=True)).revision == OTHER
    assert revisions.read(path)["models"][MODEL].revision == OTHER


def test_gated_with_a_token(
    config: Path, hub: server.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = pinned(config)
    hub.repos[f"models/{MODEL}"].gated = True
    hub.tokens.add("hf_secret")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    # The address stands in the configuration, which may be somebody else's.
    with pytest.raises(UserError, match="a mirror gets it only if HF_ENDPOINT names it"):
        make(settings, tmp_path / "out")
    assert hub.told == {""}
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    assert make(settings, tmp_path / "out")["layers"] == 3
    assert "hf_secret" in hub.told


def test_too_many_requests_are_waited_for(config: Path, hub: server.Hub, tmp_path: Path) -> None:
    settings = pinned(config)
    hub.faults.append(Fault(WEIGHTS, "status", 2, 429, {"Retry-After": "0"}))
    assert make(settings, tmp_path / "out")["layers"] == 3
    assert hub.faults[0].times == 0


def test_too_many_requests_for_bytes_are_waited_for_as_long_as_the_hub_asks(
    config: Path, hub: server.Hub, tmp_path: Path
) -> None:
    settings = pinned(config)
    slow = Fault(f"tiny/{WEIGHTS}", "status", 1, 429, {"Retry-After": "1"}, methods=("GET",))
    hub.faults.append(slow)
    started = time.monotonic()
    assert make(settings, tmp_path / "out")["layers"] == 3
    assert slow.times == 0 and time.monotonic() - started >= 1


# Of a file's own address the hub's client repeats the question, at once where it may.
@pytest.mark.parametrize(("ends", "least"), [("/main", 1.0), ("config.json", 0.0)])
def test_too_many_requests_while_pinning(
    config: Path, hub: server.Hub, ends: str, least: float
) -> None:
    hub.faults.append(Fault(ends, "status", 1, 429, {"Retry-After": "1"}))
    started = time.monotonic()
    assert model_of(pinned(config)).files
    assert hub.faults[0].times == 0 and time.monotonic() - started >= least


def test_the_environment_s_address_alone(
    config: Path, hub: server.Hub, tmp_path: Path, root: Path
) -> None:
    value = yaml.safe_load(config.read_text("utf-8"))
    del value["hub"]["endpoint"]
    config.write_text(yaml.safe_dump(value), "utf-8")
    hub.repos[f"models/{MODEL}"].gated = True
    hub.tokens.add("hf_secret")
    environment = {
        **{k: v for k, v in os.environ.items() if not k.endswith("_OFFLINE") and k != "HF_HOME"},
        **{"HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_secret", "PYTHONPATH": str(root / "src")},
    }
    code = (
        "import sys; from zpdbench import study; from zpdbench.checkpoints import make_checkpoint;"
        "s = study.load(sys.argv[1]);"
        "make_checkpoint.make('tiny', s.models['tiny'], sys.argv[2], hub=s.hub)"
    )
    for command in (
        ["-m", "zpdbench.cli", "pin", "--configfile", str(config)],
        ["-c", code, str(config), str(tmp_path / "out")],
    ):
        done = subprocess.run(
            [sys.executable, *command], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]
    assert files.check_manifest(tmp_path / "out")["layers"] == 3
    assert "hf_secret" in hub.told


def test_a_cut_connection_is_resumed(
    config: Path, hub: server.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = pinned(config)
    # The client keeps whole pieces of 10 MB; the weights here are smaller.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    hub.faults.append(Fault(f"tiny/{WEIGHTS}", "cut", 1, methods=("GET",)))
    assert make(settings, tmp_path / "out")["layers"] == 3
    assert any(m == "GET" and r for m, p, r in hub.asked if p.startswith("/cdn/"))


def test_a_folder_is_asked_before_the_hub(
    config: Path, hub: server.Hub, checkpoint, tmp_path: Path
) -> None:
    settings = pinned(config)
    mirror = tmp_path / "mirror"
    for name, data in checkpoint.items():
        (mirror / MODEL).mkdir(parents=True, exist_ok=True)
        (mirror / MODEL / name).write_bytes(data)
    away = settings.model_copy(
        update={"hub": study.Hub(folder=str(mirror), endpoint="http://127.0.0.1:9")}
    )
    asked = len(hub.asked)
    assert make(away, tmp_path / "out")["layers"] == 3
    assert len(hub.asked) == asked
    (mirror / MODEL / WEIGHTS).write_bytes(b"x" * len(checkpoint[WEIGHTS]))
    with pytest.raises(UserError, match="not the file that was pinned"):
        make(away, tmp_path / "other")
    assert (mirror / MODEL / WEIGHTS).exists(), "a user's own file is not deleted"


def _job(config: str, out: str) -> None:
    settings = study.load(config)
    make(settings, Path(out))


def test_jobs_at_once_share_one_cache(
    config: Path, hub: server.Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # An engine that an earlier test opened in this process has set them; a new process reads them.
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    pinned(config)
    context = multiprocessing.get_context("spawn")
    jobs = [
        context.Process(target=_job, args=(str(config), str(tmp_path / f"out{i}")))
        for i in range(3)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(120)
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    digests = {files.check_manifest(tmp_path / f"out{i}")["digest"] for i in range(3)}
    assert len(digests) == 1
    # Locks of the client: the weights crossed the wire once.
    cdn = [p for m, p, _ in hub.asked if m == "GET" and p.endswith(f"cdn/models/{MODEL}/{WEIGHTS}")]
    assert len(cdn) == 1


@pytest.mark.parametrize("path", ["../evil", "/etc/evil", "a/../../evil", ".hidden"])
def test_a_hostile_listing_writes_nowhere(hub: server.Hub, tmp_path: Path, path: str) -> None:
    hub.repos[f"models/{MODEL}"].files[path + ".safetensors"] = b"x"
    wanted = Repository("models", MODEL, COMMIT, {path: study.HubFile(sha256="0" * 64, size=1)})
    with pytest.raises(UserError, match="no plain path"):
        fetch.fetch(wanted, tmp_path, study.Hub(endpoint=hub.url))
    assert list(tmp_path.iterdir()) == []


def test_pickles_alone_are_refused(config: Path, hub: server.Hub) -> None:
    repo = hub.repos[f"models/{MODEL}"]
    del repo.files[WEIGHTS]
    with pytest.raises(UserError, match=r"pytorch_model\.bin is a pickle, which can run code"):
        pinned(config)


def test_too_little_disk_is_said_before_a_byte_is_fetched(hub: server.Hub, tmp_path: Path) -> None:
    huge = {"model.safetensors": study.HubFile(sha256="0" * 64, size=10**15)}
    with pytest.raises(UserError, match=r"needs 1000000\.0 GB"):
        fetch.fetch(
            Repository("models", MODEL, COMMIT, huge), tmp_path, study.Hub(endpoint=hub.url)
        )
    assert hub.asked == []
