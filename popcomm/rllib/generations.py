"""What is written down of members and generations: scalars, arrays, and the lineage as a table."""

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
# Members up to which a line of progress has the numbers of each.
MEMBERS_IN_LINES = 128

Array = NDArray[Any]


def scalars(selected: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """survival/<name> of the species that is selected; survival/<species>/<name> where there are several.

    Args:
        selected: {species: {name: number}}, empty where no generation ended.
    """
    if len(selected) == 1:
        return {f"survival/{name}": value for told in selected.values() for name, value in told.items()}
    return {f"survival/{species}/{name}": value for species, told in selected.items() for name, value in told.items()}


def arrays(members: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    """{member/<species>/<measure>: [P]}. members: {species: {measure: [P]}}."""
    return {f"member/{name}/{key}": values for name, measures in members.items() for key, values in measures.items()}


def in_lines(told: Mapping[str, Array]) -> dict[str, Array]:
    """Those that are short enough for a line of progress.jsonl."""
    return {name: values for name, values in told.items() if len(values) <= MEMBERS_IN_LINES}


def write_lineage(run_dir: Path, table: Mapping[str, Array]) -> None:
    """Write the family tree so far, as a whole. table: {"species" and the names of COLUMNS: [M]}.

    -1 of parents, mates and deaths and nan of fitness become null.
    """
    columns = {"species": pa.array(table["species"], pa.string())}
    for name, (kind, _) in COLUMNS.items():
        values = table[name]
        unknown = np.isnan(values) if kind is np.float64 else values < 0
        columns[name] = pa.array(values, mask=unknown)
    about = {name: text for name, (_, text) in COLUMNS.items()} | {"species": "of which kind"}
    fields = [pa.field(name, values.type, metadata={"about": about[name]}) for name, values in columns.items()]
    whole = pa.table(list(columns.values()), schema=pa.schema(fields))
    half = run_dir / f".{LINEAGE}.half"
    pq.write_table(whole, half)
    os.replace(half, run_dir / LINEAGE)
