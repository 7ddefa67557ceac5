"""Fetch pinned files: from a folder, the shared cache or the hub, whichever has them first.

Whoever sends a file is not believed: its size is compared before a byte of it is fetched, and its
SHA-256 while it is copied to where it is used. The cache is huggingface_hub's own, whose locks and
renames let any number of jobs share it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from zpdbench import files, revisions
from zpdbench.errors import UserError
from zpdbench.hub import faults
from zpdbench.revisions import Kind
from zpdbench.study import Hub, HubFile

_BLOCK = 1 << 20
_TYPES: dict[Kind, str] = {"models": "model", "datasets": "dataset"}


@dataclass(frozen=True)
class Repository:
    """One repository at one commit.

    Attributes:
        files: path -> what it must be; what is not named is not fetched.
    """

    kind: Kind
    repo: str
    revision: str | None
    files: Mapping[str, HubFile] | None

    @property
    def where(self) -> str:
        """How messages name it."""
        return f"{self.repo}@{self.revision[:8]}" if self.revision else self.repo


def check_pinned(wanted: Repository) -> None:
    """Check that there is something to hold a repository's files to.

    Raises:
        UserError: no commit, no hashes of files, or a path that is none.
    """
    fix = "`zpdbench pin --configfile CONFIG` looks both up, once, where there is a network"
    if wanted.revision is None:
        raise UserError("no revision is pinned", where=wanted.where, fix=fix)
    if not wanted.files:
        raise UserError("its files' hashes are not pinned", where=wanted.where, fix=fix)
    for path in wanted.files:
        if not revisions.is_safe_path(path):
            raise UserError(f"{path!r} is no plain path", where=wanted.where, fix="pin it again")


def fetch(wanted: Repository, into: Path, hub: Hub) -> list[Path]:
    """Put a repository's pinned files below folder `into`; returns them, sorted by path.

    Raises:
        UserError: not pinned, not to be had, or not what was pinned.
    """
    check_pinned(wanted)
    assert wanted.files is not None
    _check_room(wanted, into)
    made = []
    for path, what in sorted(wanted.files.items()):
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        local = None if hub.folder is None else Path(hub.folder).expanduser() / wanted.repo / path
        if local is not None and local.is_file():
            _copy(local, target, what, wanted)
        else:
            cached, is_new = _from_hub(wanted, path, what, hub)
            try:
                _copy(cached, target, what, wanted)
            except UserError:
                # Not to be found again by the next try, nor by anybody else. But the cache is
                # shared: what is what its name says stays, it may be right and the pin wrong.
                if is_new or not _is_what_it_is_called(cached.resolve()):
                    cached.resolve().unlink(missing_ok=True)
                    cached.unlink(missing_ok=True)
                raise
        made.append(target)
    return made


def _is_what_it_is_called(blob: Path) -> bool:
    """Whether a blob of the cache has the hash that is its name: Git LFS's, or Git's own."""
    name = blob.name
    if len(name) == 64:
        return files.sha256_file(blob) == name
    if len(name) != 40:
        return False
    with blob.open("rb") as read:
        digest = hashlib.sha1(b"blob %d\0" % blob.stat().st_size, usedforsecurity=False)
        while block := read.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest() == name


def _check_room(wanted: Repository, into: Path) -> None:
    assert wanted.files is not None
    size = sum(what.size for what in wanted.files.values())
    free = shutil.disk_usage(into).free
    if size > free:
        raise UserError(
            f"needs {size / 1e9:.1f} GB, {free / 1e9:.1f} GB are free",
            where=str(into),
            fix="free disk, or set results: to a folder with more",
        )


def _copy(source: Path, target: Path, what: HubFile, wanted: Repository) -> None:
    """Copy and hash in one pass, so that the bytes that were checked are the bytes that stay."""
    digest, size = hashlib.sha256(), 0
    try:
        with source.open("rb") as read, target.open("wb") as write:
            while block := read.read(_BLOCK):
                size += len(block)
                if size > what.size:
                    break
                digest.update(block)
                write.write(block)
    except OSError as error:
        target.unlink(missing_ok=True)
        raise UserError(
            f"{source.name} cannot be copied ({error.strerror or error})",
            where=str(error.filename or target),
            fix="free disk, or set results: to a folder with more"
            if files.is_full(error)
            else "make the file readable and the folder writable",
        ) from error
    if size != what.size or digest.hexdigest() != what.sha256:
        target.unlink()
        raise UserError(
            f"{source.name} is not the file that was pinned (its SHA-256 or size is another)",
            where=wanted.where,
            fix="a changed file is no accident: find out why before `zpdbench pin --update`",
        )


def _from_hub(wanted: Repository, path: str, what: HubFile, hub: Hub) -> tuple[Path, bool]:
    """(one file in the hub's cache, whether it was fetched just now); bytes are not checked yet."""
    quiet()
    from huggingface_hub import constants, hf_hub_download, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.file_download import get_hf_file_metadata, repo_folder_name

    cache = None if hub.cache is None else Path(hub.cache).expanduser()
    kind = _TYPES[wanted.kind]
    found = try_to_load_from_cache(
        wanted.repo, path, cache_dir=cache, revision=wanted.revision, repo_type=kind
    )
    if isinstance(found, str):
        return Path(found), False
    try:
        url = hf_hub_url(
            wanted.repo, path, repo_type=kind, revision=wanted.revision, endpoint=hub.endpoint
        )
        facts = get_hf_file_metadata(
            url, endpoint=hub.endpoint, token=token(hub), retry_on_errors=True
        )
        if facts.commit_hash != wanted.revision:
            raise UserError(
                f"the hub answers with commit {str(facts.commit_hash)[:40]!r} for it",
                where=wanted.where,
                fix="a moved revision is no accident: find out why, or use another mirror",
            )
        if facts.size != what.size:
            raise UserError(
                f"{path} has {facts.size} bytes where {what.size} were pinned",
                where=wanted.where,
                fix="a changed file is no accident: find out why before `zpdbench pin --update`",
            )
        folder = Path(cache or constants.HF_HUB_CACHE) / repo_folder_name(
            repo_id=wanted.repo, repo_type=kind
        )
        was_there = (folder / "blobs" / str(facts.etag)).exists()
        got = hf_hub_download(
            wanted.repo,
            path,
            repo_type=kind,
            revision=wanted.revision,
            cache_dir=cache,
            endpoint=hub.endpoint,
            token=token(hub),
        )
        return Path(got), not was_there
    except UserError:
        raise
    except (
        Exception
    ) as error:  # the client's, its HTTP library's and the system's have no common base
        raise faults.explain(error, wanted.kind, wanted.repo, wanted.revision) from error


def token(hub: Hub) -> bool | None:
    """What the client is told about the user's token: None, send it; False, do not.

    A configuration may be somebody else's: the address that it names gets no token, unless the
    user's own environment names the same.
    """
    trusted = {"https://huggingface.co", os.environ.get("HF_ENDPOINT", "").rstrip("/")}
    return None if hub.endpoint is None or hub.endpoint.rstrip("/") in trusted else False


def quiet() -> None:
    """No progress bars in logs, no usage reports; before huggingface_hub is imported."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
