"""progress.jsonl: one JSON object per iteration, appended as training goes on."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd


def append(path: Path, values: Mapping[str, Any]) -> None:
    """Add one line. Numbers of numpy and torch become plain ones; nan and the infinities, which JSON has not, null."""
    line = json.dumps({key: _plain(value) for key, value in values.items()}, allow_nan=False)
    with open(path, "ab+") as file:
        # A process that died left half a line, which must not swallow this one.
        if file.tell() and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n":
            file.write(b"\n")
        file.write(line.encode() + b"\n")


def read(path: Path) -> pd.DataFrame:
    """One row per iteration, null as nan; empty without a file.

    A line that is no JSON object (half-written when the process died) is skipped. Where a resumed run wrote an
    iteration again, its last line counts.
    """
    if not path.is_file():
        return pd.DataFrame()
    rows = [row for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if (row := _parse(line))]
    frame = pd.DataFrame(rows)
    if "iteration" in frame:
        frame = frame.drop_duplicates("iteration", keep="last").sort_values("iteration", ignore_index=True)
    return frame


def _plain(value: Any) -> Any:
    if hasattr(value, "item"):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return None
    return row if isinstance(row, dict) else None
