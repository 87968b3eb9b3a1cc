"""A lineage as a file: lineage.parquet, written as a whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from popcomm.evolution.lineage import COLUMNS

LINEAGE = "lineage.parquet"
SPECIES = "species"


def write(folder: Path, table: Mapping[str, NDArray[Any]], more: Mapping[str, pa.Array] | None = None) -> None:
    """Write the family tree so far. -1 of parents, mates and deaths and nan of fitness become null.

    Args:
        folder: of a run, or of a sweep.
        table: {"species" and the names of COLUMNS: [M]}.
        more: other columns, [M] each, in front of which these stand.
    """
    columns: dict[str, pa.Array] = {SPECIES: pa.array(table[SPECIES], pa.string())}
    for name, (kind, _) in COLUMNS.items():
        values: NDArray[Any] = np.asarray(table[name], kind)
        columns[name] = pa.array(values, mask=np.isnan(values) if kind is np.float64 else values < 0)
    about = {name: {"about": text} for name, (_, text) in COLUMNS.items()} | {SPECIES: {"about": "of which kind"}}
    columns |= more or {}
    fields = [pa.field(name, values.type, metadata=about.get(name)) for name, values in columns.items()]
    half = folder / f".{LINEAGE}.half"
    pq.write_table(pa.table(list(columns.values()), schema=pa.schema(fields)), half)
    os.replace(half, folder / LINEAGE)
