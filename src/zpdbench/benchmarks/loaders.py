"""Authors' own files and the hub's data sets, both to the same documents.

A document is a mapping with the hub's field names, because the harness's templates name those:
GSM8K question answer; HumanEval task_id prompt canonical_solution test entry_point; MMLU question
choices answer subject; KoBEST's as `kobest.yaml` lists them.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from zpdbench.benchmarks.answers import number_gold
from zpdbench.benchmarks.definition import Definition, resolve
from zpdbench.errors import UserError
from zpdbench.text.unicode import encodable

Doc = dict[str, Any]
Docs = dict[str, list[Doc]]
"""Task -> its documents in the file's order."""

_TRUTH = {"true": 1, "false": 0}
MMLU_LETTERS = "ABCD"


# -- files ------------------------------------------------------------------------------------


def read_text(path: Path) -> str:
    """A text file, gzip or not, as UTF-8 with or without a byte order mark.

    Raises:
        UserError: missing, empty, truncated, or no UTF-8 (the line is given).
    """
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except FileNotFoundError as error:
        raise UserError("no such file", where=str(path), fix="check the path") from error
    except IsADirectoryError as error:
        raise UserError(
            "is a folder", where=str(path), fix="give the file; only MMLU's is a folder"
        ) from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UserError("truncated gzip file", where=str(path), fix="copy it again") from error
    except OSError as error:
        raise UserError(
            f"cannot be read: {error.strerror}", where=str(path), fix="make the file readable"
        ) from error
    if not data.strip():
        raise UserError("the file is empty", where=str(path), fix="copy it again")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"no UTF-8: byte 0x{data[error.start]:02x}",
            where=f"{path}:{line}",
            fix="convert the file to UTF-8",
        ) from error


def read_jsonl(path: Path) -> Iterator[tuple[int, Doc]]:
    """(line number, object) of each line that is not blank.

    Raises:
        UserError: as `read_text`; a line is no JSON object.
    """
    # Only \n ends a line of JSONL: splitlines() would cut at U+2028 inside a string.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(
                "malformed line: no JSON", where=f"{path}:{number}", fix="mend or remove it"
            ) from error
        if not isinstance(value, dict):
            raise UserError(
                "malformed line: no JSON object", where=f"{path}:{number}", fix="mend or remove it"
            )
        yield number, value


def _string(doc: Mapping[str, Any], key: str, where: str) -> str:
    value = doc.get(key)
    if not isinstance(value, str):
        raise UserError(
            f"malformed line: {key!r} is {'missing' if key not in doc else 'no text'}",
            where=where,
            fix="is this the benchmark's own file?",
        )
    return encodable(value, where)


def _rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """(number of the row's last line, fields) of a CSV or TSV whose fields may be quoted."""
    # As pandas reads them for the hub: a quote opens a field only at its start, the rest is text.
    reader = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=delimiter)
    try:
        for row in reader:
            if row:
                yield reader.line_num, row
    except csv.Error as error:
        raise UserError(
            f"malformed line: {error}", where=f"{path}:{reader.line_num}", fix="copy the file again"
        ) from error


# -- the authors' formats ---------------------------------------------------------------------


def _problems(path: Path, keys: tuple[str, ...]) -> list[Doc]:
    seen: dict[str, int] = {}
    docs = []
    for number, value in read_jsonl(path):
        where = f"{path}:{number}"
        for key in ("task_id", "prompt", "entry_point", *keys):
            _string(value, key, where)
        if value["task_id"] in seen:
            raise UserError(
                f"task_id {value['task_id']!r} is also in line {seen[value['task_id']]}",
                where=where,
                fix="keep one",
            )
        seen[value["task_id"]] = number
        docs.append(value)
    return docs


def load_humaneval(path: Path, task: str) -> Docs:
    """HumanEval's JSONL (gzip or not): task_id prompt entry_point canonical_solution test."""
    return {task: _problems(path, ("canonical_solution", "test"))}


def load_humaneval_plus(path: Path, task: str) -> Docs:
    """HumanEval+'s JSONL: instead of a test, base_input and plus_input and a tolerance atol."""
    docs = _problems(path, ("canonical_solution",))
    for doc in docs:
        for key in ("base_input", "plus_input"):
            if not isinstance(doc.get(key), list):
                raise UserError(
                    f"{doc['task_id']}: {key!r} is no list",
                    where=str(path),
                    fix="is this HumanEval+'s own file?",
                )
        if not isinstance(doc.get("atol"), int | float):
            raise UserError(
                f"{doc['task_id']}: 'atol' is no number",
                where=str(path),
                fix="is this HumanEval+'s own file?",
            )
    return {task: docs}


def load_gsm8k(path: Path, task: str) -> Docs:
    """GSM8K's JSONL: question, and an answer that ends with '#### number'."""
    docs = []
    for number, value in read_jsonl(path):
        where = f"{path}:{number}"
        doc = {key: _string(value, key, where) for key in ("question", "answer")}
        if "####" not in doc["answer"]:
            raise UserError(
                "item without an answer: no '#### number'", where=where, fix="mend or remove it"
            )
        try:
            number_gold(doc)
        except ValueError as error:
            raise UserError(
                f"item without an answer: {error}", where=where, fix="mend it"
            ) from error
        docs.append(doc)
    return {task: docs}


def load_mmlu_file(path: Path, subject: str) -> list[Doc]:
    """One subject's CSV without a header: question, four choices, letter."""
    docs = []
    for number, row in _rows(path, ","):
        where = f"{path}:{number}"
        if len(row) != 6:
            raise UserError(
                f"malformed line: {len(row)} fields, not 6", where=where, fix="copy the file again"
            )
        letter = row[5].strip()
        if len(letter) != 1 or letter not in MMLU_LETTERS:
            raise UserError(
                f"item without an answer: {letter!r} is no letter A-D",
                where=where,
                fix="copy the file again",
            )
        docs.append(
            {
                "question": row[0],
                "choices": row[1:5],
                "answer": MMLU_LETTERS.index(letter),
                "subject": subject,
            }
        )
    return docs


def load_mmlu(path: Path, task: str | None) -> Docs:
    """MMLU's folder of SUBJECT_SPLIT.csv; of the whole release's, its `test/`.

    Raises:
        UserError: no folder, or no such file in it.
    """
    if path.is_file():
        return {(s := _mmlu_subject(path)): load_mmlu_file(path, s)}
    if not path.is_dir():
        raise UserError("no such folder", where=str(path), fix="give MMLU's folder of CSV files")
    files = sorted(path.glob("*.csv"))
    if not files and (path / "test").is_dir():
        files = sorted((path / "test").glob("*.csv"))
    if task is not None:
        files = [f for f in files if _mmlu_subject(f) == task]
    if not files:
        raise UserError(
            f"no {task or 'SUBJECT'}_test.csv in it",
            where=str(path),
            fix="give MMLU's folder of CSV files",
        )
    docs: Docs = {}
    for file in files:
        subject = _mmlu_subject(file)
        if subject in docs:
            raise UserError(
                f"two files of subject {subject}", where=str(file), fix="one split a folder"
            )
        docs[subject] = load_mmlu_file(file, subject)
    return docs


def _mmlu_subject(path: Path) -> str:
    for split in ("_test", "_dev", "_val"):
        if path.stem.endswith(split):
            return path.stem.removesuffix(split)
    return path.stem


_KOBEST_COLUMNS = {
    "kobest_boolq": {"Text": "paragraph", "Question": "question", "Answer": "label"},
    "kobest_copa": {
        "sentence": "premise",
        "question": "question",
        "1": "alternative_1",
        "2": "alternative_2",
        "Answer": "label",
    },
    "kobest_wic": {
        "Target": "word",
        "SENTENCE1": "context_1",
        "SENTENCE2": "context_2",
        "ANSWER": "label",
    },
    "kobest_hellaswag": {
        "context": "context",
        **{f"choice{i}": f"ending_{i}" for i in range(1, 5)},
        "label": "label",
    },
    "kobest_sentineg": {"Text": "sentence", "Label": "label"},
}


def _kobest_label(task: str, text: str) -> int:
    """The 0-based gold: True/TRUE/False/FALSE, COPA's 1 or 2, else the number itself."""
    text = text.strip()
    if task in ("kobest_boolq", "kobest_wic"):
        return _TRUTH[text.lower()]
    label = int(text) - (task == "kobest_copa")
    if not 0 <= label < (4 if task == "kobest_hellaswag" else 2):
        raise ValueError
    return label


def load_kobest(path: Path, task: str) -> Docs:
    """One KoBEST task's TSV with a header; columns are found by name, as they differ by split."""
    columns = _KOBEST_COLUMNS[task]
    rows = _rows(path, "\t")
    _, header = next(rows, (0, []))
    missing = [c for c in columns if c not in header]
    if missing:
        raise UserError(
            f"no column {missing[0]!r}", where=f"{path}:1", fix=f"is this a TSV of {task}?"
        )
    places = {field: header.index(column) for column, field in columns.items()}
    docs = []
    for number, row in rows:
        where = f"{path}:{number}"
        if len(row) != len(header):
            raise UserError(
                f"malformed line: {len(row)} fields, not {len(header)}",
                where=where,
                fix="copy the file again",
            )
        doc: Doc = {field: row[place] for field, place in places.items()}
        try:
            doc["label"] = _kobest_label(task, doc["label"])
        except (KeyError, ValueError) as error:
            raise UserError(
                f"item without an answer: {doc['label']!r} is no label",
                where=where,
                fix="copy the file again",
            ) from error
        docs.append(doc)
    return {task: docs}


LOADERS: dict[str, Callable[[Path, Any], Docs]] = {
    "humaneval": load_humaneval,
    "humaneval_plus": load_humaneval_plus,
    "gsm8k": load_gsm8k,
    "mmlu": load_mmlu,
    "kobest": load_kobest,
}


def load_file(definition: Definition, path: str | Path, task: str | None) -> Docs:
    """A benchmark's own file (MMLU: folder) as documents; `task` None: all that are in it.

    Raises:
        UserError: unreadable or malformed (the line is given), or without an item.
    """
    path = Path(path)
    docs: Docs = resolve("loader", definition.loader, LOADERS)(path, task)
    if not any(docs.values()):
        raise UserError("no items in it", where=str(path), fix="give the benchmark's own file")
    return docs


# -- the hub ----------------------------------------------------------------------------------


def documents_of_rows(
    definition: Definition, task: str, rows: Iterator[Mapping[str, Any]] | list[Any]
) -> list[Doc]:
    """Rows of the hub's data set as the documents that the authors' file gives.

    Columns that the templates do not know are dropped, labels become plain integers.

    Raises:
        UserError: a column that is needed is not there, or a row has nothing in it.
    """
    known = definition.task(task).fields or _HUB_FIELDS.get(definition.loader)
    docs = []
    for number, row in enumerate(rows, 1):
        for key in known or row:
            if row.get(key) is None:
                raise UserError(
                    f"row {number} has no {key!r}",
                    where=f"{definition.name} {task}",
                    fix="is this the benchmark's own data set? Or use source: files",
                )
        doc = {k: row[k] for k in (known or row)}
        if definition.name == "mmlu":
            doc["subject"] = row.get("subject") or task
        docs.append(doc)
    return docs


_HUB_FIELDS = {
    "humaneval": ["task_id", "prompt", "entry_point", "canonical_solution", "test"],
    "gsm8k": ["question", "answer"],
    "mmlu": ["question", "choices", "answer"],
}


def load_hub(definition: Definition, task: str, split: str, folder: Path) -> list[Doc]:
    """One split of a task out of a folder that holds its repository's files.

    Args:
        split: `test`, or the few-shot split.
        folder: with the files where they are in the repository: Parquet or JSON lines.

    Raises:
        UserError: no such file there, or none that can be read.
    """
    _, pattern = definition.hub_files(task, split)
    paths = sorted(folder.glob(pattern))
    if not paths:
        raise UserError(
            f"no file {pattern}",
            where=f"{definition.name} {task}",
            fix="`zpdbench pin`, which looks up its files, or source: files",
        )
    rows = [row for path in paths for row in _hub_rows(path)]
    return documents_of_rows(definition, task, rows)


def _hub_rows(path: Path) -> list[Doc]:
    if path.suffix != ".parquet":
        return [row for _, row in read_jsonl(path)]
    import polars as pl

    try:
        return pl.read_parquet(path).to_dicts()
    except (OSError, pl.exceptions.PolarsError) as error:
        raise UserError(
            f"no readable Parquet file ({error.__class__.__name__})",
            where=str(path),
            fix="is this the benchmark's own data set? Or use source: files",
        ) from error
