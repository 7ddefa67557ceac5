"""What can go wrong between here and a hub, as one line with a next step."""

from __future__ import annotations

from zpdbench.errors import UserError
from zpdbench.revisions import Kind

_WAIT = 10.0
"""Seconds to wait where a hub says too many requests, and not for how long."""
_PAGES: dict[Kind, str] = {"models": "", "datasets": "datasets/"}


def explain(error: Exception, kind: Kind, repo: str, revision: str | None) -> UserError:
    """The user's mistake, or the world's, behind an exception of huggingface_hub's client."""
    from huggingface_hub import errors

    where = f"{repo}@{revision[:8]}" if revision else repo
    page = f"https://huggingface.co/{_PAGES[kind]}{repo}"
    local = "or have the files in a folder and name it by hub.folder"
    found = status(error)
    if isinstance(error, errors.GatedRepoError):
        what = "its owners ask that their terms be accepted first"
        fix = (
            f"accept them at {page}, then set HF_TOKEN to a token of that account "
            "(a mirror gets it only if HF_ENDPOINT names it)"
        )
    elif isinstance(error, errors.RevisionNotFoundError):
        what = "has no such commit: its history was rewritten, or it is another repository's"
        fix = "find out why, then `zpdbench pin --update`"
    elif isinstance(error, errors.RepositoryNotFoundError) or found in (401, 403):
        what = "is not there, or is private"
        fix = f"look at {page}; a private one needs HF_TOKEN"
    elif isinstance(error, errors.EntryNotFoundError) and not isinstance(
        error, errors.LocalEntryNotFoundError
    ):
        what = "a pinned file is not there"
        fix = "find out why, then `zpdbench pin --update`"
    elif found == 429:
        what = "the hub answers that there were too many requests"
        fix = f"wait some minutes and start again (what is there is kept), set HF_TOKEN, {local}"
    elif isinstance(error, errors.OfflineModeIsEnabled) or "offline" in str(error).lower():
        what = "is not in the cache, and HF_HUB_OFFLINE forbids to fetch it"
        fix = f"fetch it where there is a network, {local}"
    else:
        said = (str(error) or type(error).__name__).splitlines()[0][:160]
        what = f"cannot be fetched ({said})"
        fix = f"start again (what is there is kept), set hub.endpoint to a mirror, {local}"
    return UserError(what, where=where, fix=fix)


def asked_to_wait(error: Exception) -> float | None:
    """Seconds after which a hub that has had too many requests may be asked again; None: not it."""
    if status(error) != 429:
        return None
    response = getattr(error, "response", None)
    told = response.headers.get("Retry-After", "") if response is not None else ""
    return float(told) if told.isdigit() else _WAIT


def status(error: BaseException | None) -> int | None:
    """The HTTP status behind an exception or its causes; None without one."""
    while error is not None:
        response = getattr(error, "response", None)
        if response is not None and getattr(response, "status_code", None):
            return int(response.status_code)
        error = error.__cause__ or error.__context__
    return None
