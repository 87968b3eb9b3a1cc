"""The conversations of a whole run in checkpoints, every message once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from popcomm.errors import UserError
from popcomm.language import drift
from popcomm.language.recording import last_round, padded

Array = NDArray[Any]

# Enough to see where a language goes, and read in a second or two.
MOST_PARTS = 40
MOST_CHECKPOINTS = 10
# Of a checkpoint; fewer can be dealt in too few ways to see what chance gives.
FEWEST_STREAMS = 4
WHERE = ("iteration", "env_steps", "world", "episode", "step", "sender")


@dataclass(frozen=True)
class History:
    """M messages of L symbols, from C checkpoints, which are neighbouring parts of the conversations.

    In parts of older versions an episode that lasted longer than the time between two parts is in both.
    """

    table: pd.DataFrame  # WHERE, one row for each message
    symbols: Array  # [M, L], -1 for what was not sent
    labels: Array  # [M] int64, -1 none
    checkpoint: Array  # [M] in 0 ... C - 1
    env_steps: Array  # [C], when the newest message of each was said

    @property
    def streams(self) -> Array:
        """[M], one number for all that was said together."""
        return streams_of(self.table, self.checkpoint)

    @classmethod
    def read(cls, run_dir: Path, most_parts: int | None = MOST_PARTS, checkpoints: int = MOST_CHECKPOINTS) -> History:
        """Read up to `most_parts` parts, evenly spaced, and join neighbours to `checkpoints` at most.

        Raises:
            UserError: a part that cannot be read.
        """
        parts = sorted((run_dir / "conversations").glob("part-*.parquet"))
        if most_parts is not None and len(parts) > most_parts:
            parts = [parts[i] for i in np.linspace(0, len(parts) - 1, most_parts).round().astype(int)]
        # Those who never speak have no symbols.
        read = (_read(part) for part in parts)
        tables = [spoken for table in read if (spoken := table.filter(pc.is_valid(table["symbols"]))).num_rows]
        part = np.repeat(np.arange(len(tables)), [table.num_rows for table in tables])
        table = pa.concat_tables(tables) if tables else _EMPTY
        symbols = padded(table, "symbols")
        if symbols is None:  # none, or vectors
            return cls(_EMPTY.select(WHERE).to_pandas(), np.zeros((0, 1), int), *(np.zeros(0, int) for _ in range(3)))
        frame = table.select(WHERE).to_pandas()
        keep = (
            ~frame.drop(columns=["iteration", "env_steps"])
            .assign(said=drift.whole_messages(symbols)[0].ravel())
            .duplicated()
            .to_numpy()
        )
        labels = table["label"].combine_chunks().fill_null(-1).to_numpy(zero_copy_only=False)
        frame, symbols, labels = frame[keep].reset_index(drop=True), symbols[keep], labels[keep].astype(np.int64)
        checkpoint, env_steps = _joined(part[keep], frame["env_steps"].to_numpy(), checkpoints)
        return cls(frame, symbols, labels, checkpoint, env_steps)


def streams_of(table: pd.DataFrame, checkpoint: Array) -> Array:
    """One number for all that was said together, [M]: an episode, or a seat of one where checkpoints have few episodes.

    Args:
        table: world, episode and sender of M messages.
        checkpoint: [M].
    """
    episodes = table.groupby(["world", "episode"]).ngroup()
    if len(table) and episodes.groupby(checkpoint).nunique().min() >= FEWEST_STREAMS:
        return episodes.to_numpy()
    return table.groupby(["world", "episode", "sender"]).ngroup().to_numpy()


_EMPTY = pa.table(
    {name: pa.array([], pa.int64()) for name in (*WHERE, "label")} | {"symbols": pa.array([], pa.list_(pa.int64()))}
)


def _read(part: Path) -> pa.Table:
    """Of each step the last round, as everywhere in the report."""
    try:
        file = pq.ParquetFile(part)
        rounds = [name for name in ("round",) if name in file.schema_arrow.names]  # older versions had none
        table = last_round(file.read([*_EMPTY.column_names, *rounds]))
        return table.select(_EMPTY.column_names).replace_schema_metadata(None)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{part} is no whole Parquet file ({str(error).splitlines()[0]}); move it away") from error


def _joined(part: Array, said: Array, most: int) -> tuple[Array, Array]:
    """(checkpoint of each message [M], env_steps [C]): parts with new messages, neighbours joined to equal numbers.

    Args:
        part: [M], in ascending order.
        said: [M], env steps.
    """
    parts, place = np.unique(part, return_inverse=True)
    number = min(most, len(parts))
    checkpoint = (np.arange(len(parts)) * number // max(len(parts), 1))[place]
    newest = np.zeros(number, np.int64)
    np.maximum.at(newest, checkpoint, said)
    return checkpoint, newest
