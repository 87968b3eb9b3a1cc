"""Tables of messages and meanings, and what stands in their cells."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from popcomm.errors import UserError

Array = NDArray[Any]


def read_table(path: Path) -> pd.DataFrame:
    """Raises UserError: a file that cannot be read as what its suffix says."""
    suffix = path.suffix.lower()
    try:
        if suffix == ".parquet":
            return pd.read_parquet(path)
        if suffix in (".csv", ".tsv"):
            return pd.read_csv(path, sep="\t" if suffix == ".tsv" else ",")
        return _read_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, UnicodeDecodeError, ImportError) as error:
        said = str(error).splitlines()
        raise UserError(
            f"'{path}' cannot be read as {suffix[1:]}: {said[0] if said else type(error).__name__}"
        ) from error


def _read_json(text: str) -> pd.DataFrame:
    """JSON lines, or one list; of objects, or of lists of integers, which are messages (as XferBench has them)."""
    stripped = text.strip()
    try:
        rows = json.loads(stripped)
        rows = rows if isinstance(rows, list) and rows and isinstance(rows[0], dict | list) else [rows]
    except json.JSONDecodeError:
        rows = [json.loads(line) for line in stripped.splitlines() if line.strip()]
    if all(isinstance(row, list) for row in rows):
        return pd.DataFrame({"message": rows})
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("its lines must be objects, or lists of integers")
    return pd.DataFrame(rows)


def messages_of(frame: pd.DataFrame, said: list[str]) -> Any:
    """M lists of symbols; -1 is what was not sent, as `arrays.as_messages` takes it."""
    if len(said) == 1:
        return _tokens(frame[said[0]].tolist())
    return [[symbol for symbol in row if not pd.isna(symbol)] for row in frame[said].to_numpy().tolist()]


def _tokens(cells: list[Any]) -> list[list[int]]:
    """Cells -> symbols: lists as they are, texts of integers (a minus behind a digit parts two), words or letters."""
    if not any(isinstance(cell, str) for cell in cells):
        return [list(cell) if np.ndim(cell) else [cell] for cell in cells]
    texts = ["" if cell is None or cell is np.nan else str(cell) for cell in cells]
    if all(re.fullmatch(r"[\[\](),;|\s\d-]*", text) for text in texts):
        return [[int(number) for number in re.findall(r"(?<!\d)-?\d+", text)] for text in texts]
    words = [text.split() for text in texts]
    if all(len(row) <= 1 for row in words):
        words = [list(text.strip()) for text in texts]
    number = {word: i for i, word in enumerate(sorted({word for row in words for word in row}))}
    return [[number[word] for word in row] for row in words]


def meanings_of(frame: pd.DataFrame, meant: list[str]) -> tuple[Array, bool]:
    """([M, A], whether one-hots stood for them).

    One column of lists, or of texts with as many parts each, has an attribute for each part.
    """
    if len(meant) > 1:
        numbers = all(pd.api.types.is_numeric_dtype(frame[name].dtype) for name in meant)
        values = frame[meant].to_numpy() if numbers else values_of(frame[meant])
        found = folded(values) if numbers else values
        return (values_of(frame[meant]), False) if found is values else (found, True)
    cells = frame[meant[0]].tolist()
    if any(isinstance(cell, str) for cell in cells):
        rows: list[Any] = [re.findall(r"[^\s,;|\[\]()]+", str(cell)) for cell in cells]
    else:
        rows = [list(np.ravel(cell)) if np.ndim(cell) else [cell] for cell in cells]
    if len({len(row) for row in rows}) > 1 or not rows[0]:
        return values_of(frame[meant]), False
    values = np.array(rows)
    found = folded(values)
    return found, found is not values


def values_of(table: pd.DataFrame) -> Array:
    """[M, k] classes of any values."""
    columns = []
    for name in table.columns:
        values = table[name]
        integers = pd.api.types.is_integer_dtype(values.dtype) and not values.isna().any()
        columns.append(values.to_numpy(np.int64) if integers else pd.factorize(values.map(str), sort=True)[0])
    return np.stack(columns, 1)


def folded(values: Array) -> Array:
    """One-hots side by side, [M, A * V] of 0 and 1, as attributes [M, A]; anything else as it is."""
    try:
        numbers = values.astype(float)
    except ValueError:
        return values
    if not np.isin(numbers, (0, 1)).all():
        return values
    for size in range(2, numbers.shape[1] + 1):
        if numbers.shape[1] % size == 0:
            blocks = numbers.reshape(len(numbers), -1, size)
            if (blocks.sum(-1) == 1).all():
                return blocks.argmax(-1)
    return values
