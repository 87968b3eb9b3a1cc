"""Corpora for others: JSON lines of integer messages (XferBench), and a Parquet whose schema says what is in it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from popcomm.errors import UserError
from popcomm.language.arrays import as_classes, as_meanings, lengths
from popcomm.language.corpora import Corpus
from popcomm.language.recording import SCHEMA

Array = NDArray[Any]


def write_corpus(corpus: Corpus, path: Path | str) -> int:
    """Write a corpus, as its suffix says; `read_corpus` reads both. The file appears whole or not at all.

    - `.jsonl`: a line for each message, its symbols as a list of integers, in the order of the corpus. That is what
      XferBench (Boldt & Mortensen 2024) trains on. It takes no empty messages, so they are left out.
    - `.parquet`: of conversations of popcomm one row for each agent and step, whether it spoke or not, with all columns
      of `recording.SCHEMA`; of other corpora one row for each message, with what is known of it. Each field bears in
      its metadata what it is `about` and its `unit`, and the schema which symbol ends a message, if one does
      (`popcomm.end_symbol`).

    Returns:
        how many rows.

    Raises:
        UserError: another suffix, no such folder, or no message to write.
    """
    path = Path(path)
    check_writable(path)
    half = path.with_name(f".{path.name}.half")
    try:
        rows = FORMS[path.suffix.lower()](corpus, half)
        os.replace(half, path)
    finally:
        half.unlink(missing_ok=True)
    return rows


def check_writable(path: Path) -> None:
    """Whether a corpus can be written there.

    Raises:
        UserError: another suffix, no such folder, or a folder itself.
    """
    if path.suffix.lower() not in FORMS:
        raise UserError(f"a corpus is written as {' or '.join(FORMS)}, and '{path}' ends otherwise")
    if not path.parent.is_dir():
        raise UserError(f"'{path}': the folder {path.parent} does not exist")
    if path.is_dir():
        raise UserError(f"'{path}' is a folder; name a file")


def _lines(corpus: Corpus, path: Path) -> int:
    size = lengths(corpus.messages)
    said = [row[:end] for row, end in zip(corpus.messages.tolist(), size.tolist(), strict=True) if end]
    if not said:
        raise UserError("all messages are empty, and XferBench takes none of these")
    path.write_text("".join(f"{json.dumps(symbols)}\n" for symbols in said), encoding="utf-8")
    return len(said)


def _table(corpus: Corpus, path: Path) -> int:
    table = _known(corpus) if corpus.table is None else corpus.table
    pq.write_table(table, path, compression="zstd")
    return len(table)


def _known(corpus: Corpus) -> pa.Table:
    """A corpus of others as conversations: streams are episodes of one world, and what is not known is null."""
    size = lengths(corpus.messages)
    rows = np.arange(len(size))
    columns: dict[str, Any] = {
        "symbols": [row[:end] for row, end in zip(corpus.messages.tolist(), size.tolist(), strict=True)],
        "step": rows,
        "sender": None if corpus.speakers is None else _numbered(corpus.speakers),
        "action": None if corpus.actions is None else _numbered(corpus.actions)[:, None].astype(float).tolist(),
    }
    if corpus.streams is not None:
        columns |= {"world": np.zeros_like(rows), "episode": _numbered(corpus.streams)}
    if corpus.meanings is not None:
        columns |= _meant(corpus.meanings)
    whole = [
        pa.nulls(len(rows), field.type)
        if columns.get(field.name) is None
        else pa.array(columns[field.name], field.type)
        for field in SCHEMA
    ]
    return pa.Table.from_arrays(whole, schema=SCHEMA)


def _numbered(values: Array) -> Array:
    """Integers as they are, anything else in its order."""
    return values if np.issubdtype(values.dtype, np.integer) else as_classes(values)


def _meant(meanings: Array) -> dict[str, Any]:
    """Classes as labels, attributes as meanings; values that are no integers are numbered in their order."""
    values = meanings if np.issubdtype(meanings.dtype, np.integer) else as_meanings(meanings)
    if values.shape[1] == 1:
        return {"label": values[:, 0]}
    return {"meaning": [None if set(row) == {-1} else row for row in values.tolist()]}


FORMS: dict[str, Callable[[Corpus, Path], int]] = {".jsonl": _lines, ".parquet": _table}
