"""Instruction data as it is published, read and checked."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zpdbench import files
from zpdbench.corpora.prepare import is_placeholder
from zpdbench.errors import UserError
from zpdbench.study import Corpus, CorpusSource

Row = dict[str, str]


def read(
    name: str, source: CorpusSource, corpus: Corpus, paths: Sequence[Path]
) -> tuple[list[Row], list[str]]:
    """(all usable examples, notes) of one source: id, language, source, prompt, response.

    Args:
        paths: the source's files, in order; none for embedded.

    Raises:
        UserError: no such file, a malformed record, a missing field, an empty response that is not
            allowed.
    """
    if source.format == "embedded":
        from zpdbench import embedded

        wanted = source.examples or 4800
        return [dict(row) for row in embedded.examples(wanted, corpus.seed)], []
    notes: list[str] = []
    rows: list[Row] = []
    empty = 0
    seen: set[tuple[str, str]] = set()
    duplicates = 0
    # A record's number is its own in its file (a JSON line's is its line); of several files the
    # running one, so that ids differ.
    listed = ((path, place, record) for path in paths for place, record in _records(path))
    for running, (file, place, record) in enumerate(listed, 1):
        number = place if len(paths) == 1 else running
        where = f"{file}: record {place}"
        prompt, response = _fields(source.format, record, where)
        if corpus.prepare.drop_defects:
            prompt = without_placeholder(prompt)
        if not response.strip():
            if corpus.on_empty == "error":
                raise UserError(
                    "the response is empty",
                    where=where,
                    fix="mend the record, or set corpus.on_empty: drop",
                )
            empty += 1
            continue
        if not prompt.strip():
            raise UserError("the instruction is empty", where=where, fix="mend the record")
        if (prompt, response) in seen:
            duplicates += 1
            continue
        seen.add((prompt, response))
        language = source.language or str(
            record.get("language") or detect_language(prompt + response)
        )
        rows.append(
            {
                "id": f"{name}-{number - 1:06d}",
                "language": language,
                "source": name,
                "prompt": prompt,
                "response": response,
            }
        )
    if empty:
        notes.append(f"{name}: {empty} examples with an empty response left out")
    if duplicates:
        notes.append(f"{name}: {duplicates} exact duplicates left out")
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
    letters = [c for c in text if c.isalpha()]
    hangul = sum("가" <= c <= "힣" or "ㄱ" <= c <= "ㆎ" for c in letters)
    return "ko" if letters and hangul * 10 >= len(letters) else "en"


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
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(
            f"no UTF-8 at byte {error.start}", where=str(path), fix="convert the file to UTF-8"
        ) from error
    records: list[Any]
    numbers: list[int]
    if text.lstrip().startswith("["):
        try:
            records = json.loads(text)
        except ValueError as error:
            raise UserError(
                f"no valid JSON: {error}", where=str(path), fix="copy it again"
            ) from error
        numbers = list(range(1, len(records) + 1))
    else:
        records, numbers = [], []
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip():
                continue
            try:
                records.append(json.loads(line))
            except ValueError as error:
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


def _fields(format_: str, record: Mapping[str, Any], where: str) -> tuple[str, str]:
    """(prompt, response); the instruction and `input` are two paragraphs.

    Alpaca's `input` is what the instruction is about and follows it; OpenOrca-KO's is the system
    prompt of OpenOrca, translated, and comes first.
    """

    wanted = "prompt, response" if format_ == "parquet" else "instruction, input, output"

    def text(field: str) -> str:
        if field not in record:
            raise UserError(
                f"no field {field!r}",
                where=where,
                fix=f"format {format_} has {wanted}",
            )
        value = record[field]
        if value is None:
            return ""
        if not isinstance(value, str):
            raise UserError(f"{field} is no text", where=where, fix="mend the record")
        return value

    if format_ == "parquet":
        return text("prompt").strip(), text("response").strip()
    if format_ == "openorca_ko" and "question" in record:
        # OpenOrca's own names, which translations of it keep or rename.
        asked = (text("system_prompt").strip(), text("question").strip())
        return "\n\n".join(part for part in asked if part), text("response").strip()
    instruction = text("instruction").strip()
    given = (record.get("input") or "").strip() if isinstance(record.get("input"), str) else ""
    parts = (given, instruction) if format_ == "openorca_ko" else (instruction, given)
    return "\n\n".join(part for part in parts if part), text("output").strip()
