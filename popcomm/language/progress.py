"""progress.jsonl: one JSON object per iteration, appended as training goes on."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

BLOCK = 4096  # bytes that are read at a time, backwards, for the end of a line


def append(path: Path, values: Mapping[str, Any]) -> None:
    """Add one line. Numbers and arrays of numpy and torch become plain ones; nan and the infinities, which JSON has
    not, null.

    The file has whole lines only: half a line that a process left when it died is removed, and so is this one if there
    is no room for all of it.
    """
    line = json.dumps({key: plain(value) for key, value in values.items()}, allow_nan=False).encode() + b"\n"
    with open(path, "ab+", buffering=0) as file:
        whole = _whole(file)
        file.truncate(whole)
        try:
            written = file.write(line)  # at once: no reader sees a part of it
        except OSError:
            file.truncate(whole)
            raise
        if written != len(line):
            file.truncate(whole)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def rewind(path: Path, iteration: int) -> bool:
    """Leave one line for each iteration before `iteration`, in their order; whether anything else was there.

    Of several lines of an iteration the last one stays.
    """
    if not path.is_file():
        return False
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [(row.get("iteration", -1), line) for line in lines if (row := _parse(line))]
    kept = [line for _, line in sorted({number: line for number, line in rows if number < iteration}.items())]
    if kept == lines:
        return False
    shorter = path.with_name(f".{path.name}.half")
    shorter.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
    os.replace(shorter, path)
    return True


def read(path: Path) -> pd.DataFrame:
    """One row per iteration, null as nan; empty without a file. Numbers alone: lists, one number for each member, are
    left out.

    A line that is no JSON object (half-written when the process died) is skipped. Where a resumed run wrote an
    iteration again, its last line counts.
    """
    if not path.is_file():
        return pd.DataFrame()
    rows = [row for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if (row := _parse(line))]
    numbers = [{key: value for key, value in row.items() if not isinstance(value, list)} for row in rows]
    frame = pd.DataFrame(numbers)
    if "iteration" in frame:
        frame = frame.drop_duplicates("iteration", keep="last").sort_values("iteration", ignore_index=True)
    return frame


def last(table: pd.DataFrame, metric: str) -> float | None:
    """The last number of a column of `read`; None where there is none."""
    if metric not in table:
        return None
    values = table[metric].dropna()
    return float(values.iloc[-1]) if len(values) else None


def _whole(file: Any) -> int:
    """Bytes of a file up to the end of its last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - BLOCK)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def plain(value: Any) -> Any:
    """The value as JSON has it: arrays as lists, and None for a number that is not finite; in mappings and lists, too.

    >>> plain({"a": [1.0, math.nan]})
    {'a': [1.0, None]}
    """
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return [plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None
