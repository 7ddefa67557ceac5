"""`zpdbench pin`: look up commits and files' hashes on the hub, and write revisions.lock.yaml."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from zpdbench import files, revisions, study
from zpdbench.errors import UserError
from zpdbench.hub import faults
from zpdbench.hub.fetch import quiet, token
from zpdbench.revisions import Kind, Pin

# What a checkpoint consists of, at the top of its repository; never a pickle, never code.
_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
_REST = (
    "config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json",
    "tokenizer.model", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
# The hub's names of licences are SPDX's in lower case; these are SPDX's.
_SPDX = {
    name.lower(): name
    for name in (
        "Apache-2.0", "MIT", "BSD-3-Clause", "CC0-1.0", "CC-BY-4.0", "CC-BY-SA-4.0",
        "CC-BY-NC-4.0", "CC-BY-NC-SA-4.0", "GPL-3.0", "AGPL-3.0", "ODC-By-1.0",
    )
}  # fmt: skip
_LONGEST_WAIT = 300.0
"""Seconds: a hub that asks for more is given up."""
_SECOND_COPY = "consolidated*"
# A text file larger than this is no tokenizer; it is not fetched to be hashed.
_LARGEST_SMALL_FILE = 64 << 20


def main(args: argparse.Namespace) -> None:
    """Pin all that a configuration takes from the hub; entries of others stay as they are."""
    quiet()
    # What the configuration itself says; not what the table fills in.
    settings = study.load(*args.configfile, pins=False)
    path = Path(args.lock) if args.lock else Path(args.configfile[-1]).parent / revisions.NAME
    table = revisions.read(path)
    if not settings.hub_sources:
        print("nothing in this configuration is taken from the hub", file=sys.stderr)
    for wanted in settings.hub_sources:
        known = table[wanted.kind].get(wanted.repo, Pin())
        revision = wanted.revision or (None if args.update else known.revision)
        _check_free(wanted, known, path, update=args.update)
        complete = wanted.files or (known.revision == revision and known.covers(wanted.patterns))
        if complete and not (args.update and wanted.revision is None):
            print(f"{wanted.repo}: is pinned", file=sys.stderr)
            continue
        pin = look_up(wanted.kind, wanted.repo, revision, wanted.patterns, settings.hub, known)
        table[wanted.kind][wanted.repo] = pin
        # After each, so that what was looked up is kept when a later one fails.
        revisions.write(path, table)
        size = sum(size for _, size in pin.files.values())
        print(
            f"{wanted.repo}: {pin.revision}, {len(pin.files)} files, {size / 1e9:.2f} GB",
            file=sys.stderr,
        )


def _check_free(wanted: study.HubSource, known: Pin, path: Path, *, update: bool) -> None:
    """Check that pinning takes no entry away from a study that goes by another commit.

    Raises:
        UserError: the table names another commit than the configuration.
    """
    if update or None in (known.revision, wanted.revision) or known.revision == wanted.revision:
        return
    raise UserError(
        f"{wanted.repo} is pinned to {str(known.revision)[:8]}, {wanted.section}.{wanted.name} "
        f"names {str(wanted.revision)[:8]}",
        where=str(path),
        fix="give this study a table of its own (--lock, a folder of its own), or replace the "
        "entry for all studies with --update",
    )


def look_up(
    kind: Kind,
    repo: str,
    revision: str | None,
    patterns: Sequence[str],
    hub: study.Hub,
    known: Pin | None = None,
) -> Pin:
    """A repository's pin, as the hub has it now.

    Large files' SHA-256 stand in the hub's listing; the small ones are fetched and hashed.

    Args:
        revision: the commit; None: the newest of the main branch.
        patterns: which files of a data set, added to what `known` has; a model is taken whole.

    Raises:
        UserError: not there, not allowed, a damaged listing, or nothing that may be loaded.
    """
    quiet()
    from huggingface_hub import HfApi, hf_hub_download

    type_ = "model" if kind == "models" else "dataset"
    api = HfApi(endpoint=hub.endpoint, token=token(hub))
    seen = known.seen if known is not None and known.revision == revision else None
    try:
        info = _patiently(lambda: api.repo_info(repo, repo_type=type_, revision=revision or "main"))
        if revision is None:
            revision = str(info.sha)
            seen = "the hub's main branch, by zpdbench pin"
        if info.sha != revision:
            raise UserError(
                f"the hub answers with commit {str(info.sha)[:40]!r}",
                where=repo,
                fix="a moved revision is no accident: find out why, or use another mirror",
            )
        listed = _patiently(
            lambda: list(
                api.list_repo_tree(repo, repo_type=type_, revision=revision, recursive=True)
            )
        )
        chosen = _choose(repo, listed, patterns or (*_WEIGHTS, *_REST))
        found: dict[str, tuple[str, int]] = {}
        with tempfile.TemporaryDirectory(prefix="zpdbench-pin-") as folder:
            for entry in chosen:
                if entry.lfs is not None:
                    found[entry.path] = (entry.lfs.sha256, entry.lfs.size)
                    continue
                if entry.size > _LARGEST_SMALL_FILE:
                    raise UserError(
                        f"{entry.path} has {entry.size} bytes",
                        where=repo,
                        fix="fetch it by hand and use a folder (hub.folder), or another repository",
                    )
                fetched = hf_hub_download(
                    repo,
                    entry.path,
                    repo_type=type_,
                    revision=revision,
                    cache_dir=folder,
                    endpoint=hub.endpoint,
                    token=token(hub),
                )
                path = Path(fetched)
                found[entry.path] = (files.sha256_file(path), path.stat().st_size)
    except UserError:
        raise
    except Exception as error:  # see fetch.py
        raise faults.explain(error, kind, repo, revision) from error
    looked_for = set(patterns)
    if known is not None and known.revision == revision:
        _agree(repo, known, found)
        found = {**known.files, **found}
        looked_for |= set(known.patterns)
    card = getattr(info, "card_data", None)
    stated = _license(getattr(card, "license", None)) or (known.license if known else None)
    return Pin(revision, found, seen, stated, tuple(sorted(looked_for)))


def _patiently(ask: Callable[[], Any]) -> Any:
    """The answer; too many requests are waited for as the hub asks, three times at most.

    The client does so for files, not for its questions.
    """
    for left in (2, 1, 0):
        try:
            return ask()
        except Exception as error:  # see fetch.py
            seconds = faults.asked_to_wait(error)
            if seconds is None or seconds > _LONGEST_WAIT or not left:
                raise
            time.sleep(seconds)
    raise AssertionError


def _license(stated: Any) -> str | None:
    """A card's licence: a text, or a list of one or more."""
    names = stated if isinstance(stated, list) else [stated]
    said = [_SPDX.get(name.lower(), name) for name in names if isinstance(name, str)]
    return " AND ".join(said) or None


def _choose(repo: str, listed: Sequence[Any], patterns: Sequence[str]) -> list[Any]:
    entries = [e for e in listed if getattr(e, "blob_id", None) is not None]
    chosen = [
        e
        for e in entries
        if any(revisions.matches(e.path, p) for p in patterns)
        and not revisions.matches(e.path, _SECOND_COPY)
    ]
    for entry in chosen:
        if not revisions.is_safe_path(entry.path):
            raise UserError(
                f"{entry.path[:80]!r} is no plain path",
                where=repo,
                fix="do not trust this hub or mirror",
            )
    weights = patterns[0] == _WEIGHTS[0]
    if weights and not any(e.path.endswith(".safetensors") for e in chosen):
        pickles = [e.path for e in entries if e.path.endswith((".bin", ".pt", ".pth"))]
        raise UserError(
            "has no weights as safetensors"
            + (f"; {pickles[0]} is a pickle, which can run code" if pickles else ""),
            where=repo,
            fix="take another repository, or convert it where that is safe and use source: local",
        )
    if weights and not any(e.path == "tokenizer.json" for e in chosen):
        raise UserError(
            "has no tokenizer.json, which training and evaluation read",
            where=repo,
            fix="take another repository, or save its fast tokenizer and use source: local",
        )
    for pattern in () if weights else patterns:
        if not any(revisions.matches(e.path, pattern) for e in chosen):
            some = ", ".join(sorted(e.path for e in entries)[:5])
            raise UserError(f"has no file {pattern}", where=repo, fix=f"it has {some}, ...")
    return sorted(chosen, key=lambda e: str(e.path))


def _agree(repo: str, known: Pin, found: dict[str, tuple[str, int]]) -> None:
    for path, facts in found.items():
        if known.files.get(path, facts) != facts:
            raise UserError(
                f"{path} is another file than was pinned, at the same commit",
                where=repo,
                fix="one commit has one content: do not trust this hub or mirror",
            )
