"""Conversations in Parquet: one row per agent and step, and round, of the worlds that are recorded."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from popcomm.errors import UserError

Array = NDArray[Any]


def _field(name: str, kind: pa.DataType, about: str, unit: str = "") -> pa.Field:
    """A column that says itself what it holds, and in which unit."""
    return pa.field(name, kind, metadata={"about": about, "unit": unit})


SCHEMA = pa.schema(
    [
        _field("iteration", pa.int64(), "of the training, in which it was said", "iterations, from 1"),
        _field(
            "env_steps",
            pa.int64(),
            "of all worlds of all runners, up to the step in which it was said",
            "environment steps",
        ),
        _field("world", pa.int64(), "which copy of the environment", "number, from 0"),
        _field("episode", pa.int64(), "of that world", "number, from 0"),
        _field("step", pa.int64(), "in the episode", "environment steps, from 0"),
        _field(
            "round",
            pa.int64(),
            "of the step, where messages are exchanged in rounds: each has a row of its own, with the same "
            "observation, action and reward; null where a message is heard one step later",
            "number, from 0",
        ),
        _field("sender", pa.int64(), "the seat whose row this is, whether it spoke or not", "seat, from 0"),
        _field("member", pa.int64(), "the individual on that seat: its place on the species' member axis", "from 0"),
        _field("species", pa.string(), "the kind of agent on that seat", "name"),
        _field("generation", pa.int64(), "selections before it was said; 0 where there are none", "generations"),
        _field(
            "receivers", pa.list_(pa.int64()), "who heard the message one step later, or in the step itself", "seats"
        ),
        _field(
            "weights",
            pa.list_(pa.float32()),
            "attention that each receiver gave the message; null without attention",
            "share, 0 ... 1",
        ),
        _field(
            "symbols",
            pa.list_(pa.int64()),
            "the message: null in silence and where messages are vectors; of words their bits, or the index in a "
            "lexicon, 0 for silence; of messages with an end symbol what was sent, the end (0) included",
            "symbols, 0 ... V - 1",
        ),
        _field(
            "vector", pa.list_(pa.float32()), "the message: null in silence and where messages are symbols or words"
        ),
        _field("message_entropy", pa.float32(), "of the sender's choice of this message", "nats"),
        _field(
            "label",
            pa.int64(),
            "what the seat privately perceived, speaker or not, as a class; -1: nothing",
            "class, from 0",
        ),
        _field(
            "meaning",
            pa.list_(pa.int64()),
            "the attributes of the label, where the world knows them; null: it does not, or there is no label",
            "class of each attribute, from 0",
        ),
        _field(
            "observation",
            pa.list_(pa.float32()),
            "what the seat saw, in the world's units; of pictures a glimpse: means over 8 x 8 parts",
        ),
        _field("position", pa.list_(pa.float32()), "where it was; null where there are no places", "the world's"),
        _field("action", pa.list_(pa.float32()), "what it did in this step: the number of a choice, or a vector"),
        _field("reward", pa.float32(), "what it earned by this step", "the world's"),
    ]
)
REQUIRED = ("iteration", "env_steps", "world", "episode", "step", "sender", "member", "species")
# Messages that make up "the language as it is now": the newest parts that hold as many rows.
NEWEST = 5_000
_TORUS, _END = b"popcomm.torus", b"popcomm.end_symbol"


def conversation_path(run_dir: Path, iteration: int) -> Path:
    """Where an iteration's conversations are kept."""
    return run_dir / "conversations" / f"part-{iteration:06d}.parquet"


def drop_conversations(run_dir: Path, iteration: int) -> int:
    """Remove the parts of an iteration and all later ones, and what a process that died had half written.

    Returns:
        how many parts.
    """
    folder = run_dir / "conversations"
    later = [part for part in folder.glob("part-*.parquet") if int(part.stem.partition("-")[2]) >= iteration]
    for file in (*later, *folder.glob("part-*.half")):
        file.unlink()
    return len(later)


def write_conversations(
    path: Path, rows: Mapping[str, Array | Sequence[Any] | None], torus: tuple[float, ...] | None = None
) -> None:
    """Write M rows; the file appears whole or not at all.

    Args:
        rows: {column: [M] values, [M, k] for a list column, or a list of M lists}; a column that is missing or None is
            null in every row.
        torus: the world's extent along each axis where it wraps round, kept beside the rows for pictures.

    Raises:
        ValueError: an unknown column, a required one missing, or columns of different lengths.
    """
    if strange := sorted(set(rows) - set(SCHEMA.names)):
        raise ValueError(f"conversations have no column {', '.join(strange)}; columns: {', '.join(SCHEMA.names)}")
    if missing := [name for name in REQUIRED if rows.get(name) is None]:
        raise ValueError(f"conversations need the column {', '.join(missing)}")
    lengths = {name: len(values) for name, values in rows.items() if values is not None}
    size = lengths["sender"]
    if wrong := {name: n for name, n in lengths.items() if n != size}:
        raise ValueError(f"columns of conversations differ in length: {wrong}, and sender has {size}")
    columns = [_column(rows.get(field.name), field.type, size) for field in SCHEMA]
    metadata = None if torus is None else {_TORUS: json.dumps([float(x) for x in torus]).encode()}
    table = pa.Table.from_arrays(columns, schema=SCHEMA.with_metadata(metadata))
    path.parent.mkdir(parents=True, exist_ok=True)
    half_written = path.with_suffix(".half")
    pq.write_table(table, half_written, compression="zstd")
    os.replace(half_written, path)


def read_conversations(run_dir: Path, at_least: int | None = None) -> pa.Table:
    """The rows of a run folder, oldest first; a table without rows where there are none.

    With `at_least`, only the newest parts that together hold that many rows: the language as it is now.

    Raises:
        UserError: a part that cannot be read.
    """
    tables: list[pa.Table] = []
    for part in sorted((run_dir / "conversations").glob("part-*.parquet"), reverse=True):
        if at_least is not None and sum(map(len, tables)) >= at_least:
            break
        try:
            tables.append(pq.read_table(part))
        except (pa.ArrowException, OSError) as error:
            raise UserError(f"{part} is no whole Parquet file ({str(error).splitlines()[0]}); move it away") from error
    metadata = tables[0].schema.metadata if tables else None
    whole = [_with_schema(table) for table in reversed(tables)]
    joined = pa.concat_tables(whole) if whole else SCHEMA.empty_table()
    return joined.replace_schema_metadata(metadata)


def has_rounds(table: pa.Table) -> bool:
    """Were messages exchanged in more rounds than one in a step?"""
    return "round" in table.column_names and (pc.max(table["round"]).as_py() or 0) > 0


def last_round(table: pa.Table) -> pa.Table:
    """Of conversations the rows of each step's last round: what measures of the language are of, as in training.

    Those who are silent in the last round count too, so give all rows. Where there are no rounds, all are kept.
    """
    if not has_rounds(table):
        return table
    frame = table.select(["world", "episode", "step", "round"]).to_pandas()
    last = frame.groupby(["world", "episode", "step"], dropna=False)["round"].transform("max")
    return table.filter(pa.array((frame["round"].isna() | (frame["round"] == last)).to_numpy()))


def torus_of(table: pa.Table) -> tuple[float, ...] | None:
    """The extent that was given to `write_conversations`."""
    stored = (table.schema.metadata or {}).get(_TORUS)
    return None if stored is None else tuple(json.loads(stored))


def ending_with(table: pa.Table, end_symbol: int | None) -> pa.Table:
    """The table, which says itself which symbol ends its messages; None: none does."""
    beside = {key: value for key, value in (table.schema.metadata or {}).items() if key != _END}
    return table.replace_schema_metadata(beside | ({} if end_symbol is None else {_END: str(end_symbol).encode()}))


def end_symbol_of(table: pa.Table) -> int | None:
    """What was given to `ending_with`."""
    stored = (table.schema.metadata or {}).get(_END)
    return None if stored is None else int(stored)


def conversations_of(table: pa.Table) -> pa.Table | None:
    """Any table with the columns that conversations need, as one; None: it has not, or not in the right types."""
    if not {*REQUIRED, "symbols"} <= set(table.column_names):
        return None
    try:
        return _with_schema(table).replace_schema_metadata(table.schema.metadata)
    except pa.ArrowException:
        return None


def symbols_said(symbols: Array) -> Array | list[Array]:
    """Messages as they are written: [M, L] integers, or M lists without what was not sent (-1), if that is anywhere."""
    there = symbols >= 0
    return symbols if there.all() else [row[real] for row, real in zip(symbols, there, strict=True)]


def padded(table: pa.Table, name: str) -> Array | None:
    """A list column of integers as [M, k], with -1 where a list is shorter than the longest; None: a null row, no rows.

    >>> padded(pa.table({"symbols": [[2, 0], [1, 2, 3]]}), "symbols").tolist()
    [[2, 0, -1], [1, 2, 3]]
    """
    return None if len(table) == 0 or table[name].null_count else filled(table, name)


def filled(table: pa.Table, name: str) -> Array | None:
    """As `padded`, and rows of -1 for null ones; None: no list holds anything.

    >>> filled(pa.table({"meaning": [[2, 0], None]}), "meaning").tolist()
    [[2, 0], [-1, -1]]
    """
    flat, row = ragged(table, name)
    if not len(flat):
        return None
    lengths = np.bincount(row, minlength=len(table))
    start = np.cumsum(lengths) - lengths
    whole = np.full((len(table), lengths.max()), -1, flat.dtype)
    whole[row, np.arange(len(flat)) - start[row]] = flat
    return whole


def stacked(table: pa.Table, name: str) -> Array | None:
    """A list column whose lists are equally long as [M, k]; None: a null row, lists that differ, or no rows."""
    column = table[name].combine_chunks()
    if len(column) == 0 or column.null_count:
        return None
    flat, row = ragged(table, name)
    width, rest = divmod(len(flat), len(column))
    lengths = np.bincount(row, minlength=len(column))
    return flat.reshape(-1, width) if rest == 0 and width and (lengths == width).all() else None


def ragged(table: pa.Table, name: str) -> tuple[Array, Array]:
    """A list column as (values [E], row [E]): all its numbers and the row that each stands in."""
    column = table[name].combine_chunks()
    lengths = np.asarray(column.value_lengths().fill_null(0))
    return column.flatten().to_numpy(zero_copy_only=False), np.repeat(np.arange(len(column)), lengths)


def heard_by(senders: Array, mask: Array, weights: Array | None = None) -> tuple[list[Array], list[Array] | None]:
    """Turn inboxes round: who heard each seat, and with what weight.

    Args:
        senders: [R, N, K] int64, whom each of N seats hears, in R worlds or steps.
        mask: [R, N, K] bool, which of them are real.
        weights: [R, N, K], the listener's attention, or None.

    Returns:
        receivers and weights: R * N arrays, row-major, receivers in the order of their seats.

    >>> heard_by(np.array([[[1], [0], [0], [2]]]), np.ones((1, 4, 1), bool))[0]
    [array([1, 2]), array([0]), array([3]), array([], dtype=int64)]
    """
    worlds, n = senders.shape[:2]
    sender = (senders + np.arange(worlds)[:, None, None] * n)[mask]
    receiver = np.broadcast_to(np.arange(n)[None, :, None], senders.shape)[mask]
    order = np.argsort(sender, kind="stable")
    ends = np.cumsum(np.bincount(sender, minlength=worlds * n))[:-1]
    return np.split(receiver[order], ends), None if weights is None else np.split(weights[mask][order], ends)


def _column(values: Any, kind: pa.DataType, size: int) -> pa.Array:
    if values is None:
        return pa.nulls(size, kind)
    if isinstance(values, np.ndarray) and values.ndim == 2 and pa.types.is_list(kind):
        offsets = np.arange(size + 1, dtype=np.int32) * values.shape[1]
        return pa.ListArray.from_arrays(offsets, pa.array(values.ravel()).cast(kind.value_type))
    if isinstance(values, np.ndarray):
        return pa.array(values).cast(kind)
    return pa.array(values, type=kind)


def _with_schema(table: pa.Table) -> pa.Table:
    """The table with all columns of the schema in their order, so that parts of older runs can be joined."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)
