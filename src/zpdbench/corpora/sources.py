"""Instruction data as it is published, read and checked."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zpdbench import files
from zpdbench.corpora.prepare import is_language, is_placeholder, scripts
from zpdbench.errors import UserError
from zpdbench.study import Corpus, CorpusSource
from zpdbench.text.unicode import composed, encodable, fold

Row = dict[str, str]
SHOWN = 20
"""Names of unused fields in a note."""

_LANGUAGES = {
    **dict.fromkeys(("ko", "kor", "korean", "한국어", "한국말", "조선말"), "ko"),
    **dict.fromkeys(("en", "eng", "english", "영어"), "en"),
}
# A tag of BCP 47, a locale (ko-KR, kor_Hang, en_GB.UTF-8) or a name with a region (English (US)).
_TAG = re.compile(
    r"([^\W\d_]+)(?:[-_][a-z]{4})?(?:[-_](?:(?!ko|en)[a-z]{2}|\d{3}))?(?:\.[\w-]+)?|"
    r"([^\W\d_]+)\s*\([^()]*\)"
)
# What a model would have to see to answer as the response does.
_CONTENT_FIELDS = """
    system system_prompt system_message system_instruction history chat_history chat conversation
    conversations messages dialog dialogue turns context passage documents tools functions image
    images audio audios video videos
"""
_CONTENT = frozenset(_CONTENT_FIELDS.split())


def read(
    name: str, source: CorpusSource, corpus: Corpus, paths: Sequence[Path]
) -> tuple[list[Row], list[str]]:
    """(all usable examples, notes) of one source: id, language, source, prompt, response.

    Args:
        paths: the source's files, in order; none for embedded.

    Raises:
        UserError: no such file, a malformed record, a missing field, one that would be lost, an
            unknown language, an empty response that is not allowed.
    """
    if source.format == "embedded":
        from zpdbench import embedded

        shares = source.shares.model_dump() if source.shares else embedded.CORPUS
        wanted = source.examples or 4800
        return [dict(row) for row in embedded.examples(wanted, corpus.seed, shares)], []
    rows: list[Row] = []
    counts: Counter[str] = Counter()
    unused: Counter[str] = Counter()
    # A record's number is its own in its file (a JSON line's is its line); of several files the
    # running one, so that ids differ.
    listed = ((path, place, record) for path in paths for place, record in _records(path))
    for running, (file, place, record) in enumerate(listed, 1):
        number = place if len(paths) == 1 else running
        where = f"{file}: record {place}"
        given = _fields(source.format, record, where)
        unused.update(_unused(record, given, where))
        prompt, response = (encodable(part, where) for part in _parts(source.format, given))
        if corpus.prepare.drop_defects:
            prompt = without_placeholder(prompt)
        # What shows nothing (zero-width characters alone) is empty.
        if not fold(response).strip():
            if corpus.on_empty == "error":
                raise UserError(
                    "the response is empty",
                    where=where,
                    fix="mend the record, or set corpus.on_empty: drop",
                )
            counts["with an empty response left out"] += 1
            continue
        if not fold(prompt).strip():
            raise UserError("the instruction is empty", where=where, fix="mend the record")
        kept = composed(prompt), composed(response)
        if kept != (prompt, response):
            counts["brought into Unicode's composed form (NFC)"] += 1
        said = _stated_language(record, name, source.language, where)
        if source.language and said != source.language:
            counts[f"taken as {source.language}, though their field language is another"] += 1
        language = source.language or said or detect_language("".join(kept))
        if not (source.language or said) and not is_language("".join(kept), language):
            counts[f"in neither Hangul nor Latin letters taken as {language}"] += 1
        rows.append(
            {
                "id": f"{name}-{number - 1:06d}",
                "language": language,
                "source": name,
                "prompt": kept[0],
                "response": kept[1],
            }
        )
    notes = [f"{name}: {count} examples {what}" for what, count in sorted(counts.items())]
    if unused:
        shown = [f"{field} ({count})" for field, count in sorted(unused.items())]
        more = f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else ""
        notes.append(f"{name}: fields that are not used: {', '.join(shown[:SHOWN])}{more}")
    return rows, notes


def sample(
    name: str, rows: list[Row], source: CorpusSource, corpus: Corpus
) -> tuple[list[Row], list[str]]:
    """(as many examples as the source is asked for, notes), drawn by the corpus's seed.

    Raises:
        UserError: fewer than asked for, where that is no explicit choice.
    """
    if source.format == "embedded" or source.examples is None:
        return rows, []
    if len(rows) < source.examples:
        message = f"has {len(rows)} usable examples, {source.examples} were asked for"
        if corpus.on_shortfall == "error":
            raise UserError(
                message,
                where=f"corpus.sources.{name}",
                fix="ask for fewer, or set corpus.on_shortfall: use_all",
            )
        return rows, [f"{name}: shortfall, {message}; all are used"]
    generator = np.random.default_rng([corpus.seed, *_words(name)])
    kept = np.sort(generator.permutation(len(rows))[: source.examples])
    return [rows[i] for i in kept], []


def without_placeholder(prompt: str) -> str:
    """A prompt without a last paragraph that only says that there is no input."""
    head, found, tail = prompt.rpartition("\n\n")
    return head if found and is_placeholder(tail) else prompt


def detect_language(text: str) -> str:
    """`ko` if at least a tenth of the letters are Hangul, else `en`."""
    return "ko" if scripts(text).get("hangul", 0.0) >= 0.1 else "en"


def named_language(text: str) -> str | None:
    """`ko` or `en` where a text names that language in one of the usual ways, else None."""
    folded = fold(text).strip()
    found = _TAG.fullmatch(folded)
    return _LANGUAGES.get(found[1] or found[2]) if found else None


def _stated_language(
    record: Mapping[str, Any], name: str, overruled_by: str | None, where: str
) -> str | None:
    """The language that a record names; None where it names none.

    Raises:
        UserError: one that is not known, unless the source's section says it for all.
    """
    value = record.get("language")
    if value is None or value == "":
        return overruled_by
    language = named_language(value) if isinstance(value, str) else None
    if language is None and overruled_by is None:
        raise UserError(
            f"language {value!r:.60} is neither Korean (ko) nor English (en)",
            where=where,
            fix=f"mend or remove the record, or set corpus.sources.{name}.language for all",
        )
    return language


def _words(name: str) -> list[int]:
    return [int(files.digest(name)[:8], 16)]


def _records(path: Path) -> list[tuple[int, Mapping[str, Any]]]:
    """(number from 1, record) of a JSON array, JSON lines or Parquet file."""
    if not path.is_file():
        raise UserError("no such file", where=str(path), fix="correct path: or data_dir:")
    if path.suffix == ".parquet":
        import polars as pl

        try:
            return list(enumerate(pl.read_parquet(path).iter_rows(named=True), 1))
        except (OSError, pl.exceptions.PolarsError) as error:
            raise UserError(
                f"no readable Parquet file ({error.__class__.__name__})",
                where=str(path),
                fix="copy it again",
            ) from error
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"no UTF-8 at byte {error.start}", where=str(path), fix="convert the file to UTF-8"
        ) from error
    records: list[Any]
    numbers: list[int]
    if text.lstrip().startswith("["):
        try:
            records = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"no valid JSON: {error}", where=str(path), fix="copy it again"
            ) from error
        numbers = list(range(1, len(records) + 1))
    else:
        records, numbers = [], []
        # Only \n ends a line of JSONL: splitlines() would cut at U+2028 inside a string.
        for number, line in enumerate(text.split("\n"), 1):
            if not line.strip():
                continue
            try:
                records.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"no valid JSON: {error}", where=f"{path}:{number}", fix="mend the line"
                ) from error
            numbers.append(number)
    if not records:
        raise UserError("holds no record", where=str(path), fix="give a file with examples")
    for number, record in zip(numbers, records, strict=True):
        if not isinstance(record, dict):
            raise UserError(
                "is no object", where=f"{path}: record {number}", fix="mend or remove the record"
            )
    return list(zip(numbers, records, strict=True))


def _fields(format_: str, record: Mapping[str, Any], where: str) -> dict[str, str]:
    """The fields that a format's example is made of, in the order of the prompt, response last.

    Alpaca's `input` is what the instruction is about and follows it; OpenOrca-KO's is the system
    prompt of OpenOrca, translated, and comes first. Either may be missing.

    Raises:
        UserError: a field is missing or no text.
    """
    names = {
        "parquet": ("prompt", "response"),
        "alpaca": ("instruction", "input", "output"),
        "openorca_ko": ("input", "instruction", "output"),
    }[format_]
    if format_ == "openorca_ko" and "question" in record:
        # OpenOrca's own names, which translations of it keep or rename.
        names = ("system_prompt", "question", "response")
    given: dict[str, str] = {}
    for field in names:
        if field not in record and field != "input":
            wanted = "prompt, response" if format_ == "parquet" else "instruction, input, output"
            raise UserError(
                f"no field {field!r}", where=where, fix=f"format {format_} has {wanted}"
            )
        value = record.get(field)
        if value is not None and not isinstance(value, str):
            raise UserError(f"{field} is no text", where=where, fix="mend the record")
        given[field] = (value or "").strip()
    return given


def _parts(format_: str, given: Mapping[str, str]) -> tuple[str, str]:
    """(prompt, response); the prompt's fields are paragraphs."""
    *asked, response = given.values()
    return "\n\n".join(part for part in asked if part), response


def _unused(record: Mapping[str, Any], given: Mapping[str, str], where: str) -> list[str]:
    """The fields of a record that hold something and are not used.

    Raises:
        UserError: what is in one belongs to the example, and would be lost.
    """
    found = []
    for field, value in record.items():
        if field in given or field == "language" or value is None or value in ("", [], {}):
            continue
        name = fold(encodable(field, where)).strip()
        if name in _CONTENT or name in given or name == "language":
            raise UserError(
                f"field {field!r:.60} belongs to the example and would be lost",
                where=where,
                fix=f"write it into {' or '.join(given)}, or take it out",
            )
        found.append(" ".join(field.split())[:40])
    return found
