"""What a training run left in its folder, as arrays."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import yaml
from numpy.typing import NDArray
from popcomm.analysis.history import History

from popcomm.errors import UserError
from popcomm.language import progress
from popcomm.language.recording import (
    NEWEST,
    has_rounds,
    last_round,
    padded,
    ragged,
    read_conversations,
    stacked,
    torus_of,
)

Array = NDArray[Any]


@dataclass(frozen=True)
class RunFolder:
    """A run: its configuration, its progress [I rows], and its newest conversations."""

    path: Path
    config: dict[str, Any]
    progress: pd.DataFrame
    talk: Conversations

    @classmethod
    def read(cls, path: Path) -> RunFolder:
        """Read a folder.

        Raises:
            UserError: no folder, one that no training wrote, or a file in it that cannot be read.
        """
        path = Path(path)
        if not path.is_dir():
            raise UserError(f"'{path}' is no folder; give the run folder that training wrote")
        if not (path / "config.yaml").is_file() and not (path / "progress.jsonl").is_file():
            raise UserError(f"'{path}' is no run folder: it has neither config.yaml nor progress.jsonl")
        table = read_conversations(path, at_least=NEWEST)
        return cls(
            path, _read_config(path / "config.yaml"), progress.read(path / "progress.jsonl"), Conversations(table)
        )

    def setting(self, *keys: str) -> Any:
        """A value of the configuration, None where it is not set."""
        value: Any = self.config
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return value

    @cached_property
    def history(self) -> History:
        """The conversations of the whole run."""
        return History.read(self.path)

    @property
    def message_kind(self) -> str | None:
        """ "symbols", "words", "vectors" or None in silence; by the conversations where there is no configuration."""
        if self.config:
            messages = self.setting("communication", "messages")
            return messages.get("kind") if isinstance(messages, dict) else None
        return "symbols" if self.talk.symbols is not None else "vectors" if self.talk.has_vectors else None

    @property
    def vocab_size(self) -> int:
        """V, and no less than the symbols that were recorded. Words have two, or those of a lexicon and silence.

        A vocabulary that grows is as large as it was in the last iteration.
        """
        seen = 0 if self.talk.symbols is None else int(self.talk.symbols.max()) + 1
        if self.message_kind == "words":
            words = self.setting("communication", "messages", "vocab")
            return max(seen, 1 + words if isinstance(words, int) else 2)
        said = self.setting("communication", "messages", "vocab_size")
        size = said if isinstance(said, int) else 0
        opened = self.now("channel/open_symbols")
        return max(seen, int(min(size, opened)) if np.isfinite(opened) else size)

    def measured(self, key: str) -> pd.Series:
        """What was measured of a column of the progress, over the iterations that did."""
        return self.progress.get(key, pd.Series(dtype=float)).astype(float).dropna()

    def last(self, key: str) -> float:
        """Mean of the last tenth of what was measured of a column; nan where it never was.

        This is the number of the page for it, wherever it stands there.
        """
        values = self.measured(key)
        return float(values.tail(tenth(values)).mean()) if len(values) else float("nan")

    def first(self, key: str) -> float:
        """The same of the first tenth."""
        values = self.measured(key)
        return float(values.head(tenth(values)).mean()) if len(values) else float("nan")

    def now(self, key: str) -> float:
        """The last value, of a count for instance."""
        values = self.measured(key)
        return float(values.iloc[-1]) if len(values) else float("nan")


def tenth(values: pd.Series) -> int:
    """A tenth of so many values, at least one."""
    return max(1, len(values) // 10)


class Conversations:
    """The rows of the conversations as arrays of M messages and E links (a link is a message heard by one listener).

    An *agent* is a member where the population has several, and a seat where all seats share one set of weights. Rows
    of those who never speak are left out where others do.

    Args:
        speakers: leave them out.
    """

    def __init__(self, table: pa.Table, speakers: bool = True) -> None:
        self.has_rounds = has_rounds(table)
        self._all = table = last_round(table)
        spoke = pc.or_(pc.is_valid(table["symbols"]), pc.is_valid(table["vector"]))
        if speakers and pc.any(spoke).as_py():
            table = table.filter(spoke)
        self.table = table = _each_once(table)
        self.size = len(table)
        self.torus = torus_of(table)
        self.symbols = padded(table, "symbols")  # [M, L], -1 for what was not sent; or None
        self.positions = stacked(table, "position")  # [M, D] or None
        self.has_vectors = table["vector"].null_count < self.size

    @cached_property
    def everyone(self) -> Conversations:
        """With the rows of those who only listen."""
        return Conversations(self._all, speakers=False)

    def column(self, name: str) -> Array:
        """A column of numbers [M]."""
        return self.table[name].to_numpy()

    @cached_property
    def labels(self) -> Array:
        """[M] int64, -1 where nothing was perceived or labels were not recorded."""
        return self.table["label"].combine_chunks().fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)

    @cached_property
    def moments(self) -> Array:
        """[M], one number for each (world, episode, step)."""
        return self._numbered("world", "episode", "step")

    @cached_property
    def streams(self) -> Array:
        """[M], one number for each stay of a seat in an episode."""
        return self._numbered("world", "episode", "sender")

    @cached_property
    def episodes(self) -> Array:
        """[M], one number for each episode of a world."""
        return self._numbered("world", "episode")

    @property
    def seats(self) -> int:
        """N."""
        listeners = ragged(self.table, "receivers")[0]
        return 1 + int(max(self.column("sender").max(initial=-1), listeners.max(initial=-1)))

    @cached_property
    def species(self) -> list[str]:
        return sorted(self.table["species"].unique().to_pylist())

    @property
    def by_member(self) -> bool:
        """Are agents members (True) or seats?"""
        return bool((self.column("member") > 0).any())

    @cached_property
    def agents(self) -> tuple[Array, list[str]]:
        """(agent of each message [M] in 0 ... A - 1, A names)."""
        number = "member" if self.by_member else "sender"
        frame = pd.DataFrame({"species": self.table["species"].to_pylist(), "number": self.column(number)})
        agent = frame.groupby(["species", "number"], sort=True).ngroup().to_numpy()
        first = np.unique(agent, return_index=True)[1]
        several = len(self.species) > 1
        names = [f"{frame['species'][i]} {frame['number'][i]}" if several else str(frame["number"][i]) for i in first]
        return agent, names

    @cached_property
    def links(self) -> Links | None:
        """All links; None where nobody heard anybody."""
        listeners, row = ragged(self.table, "receivers")
        if not len(listeners):
            return None
        weights = ragged(self.table, "weights")[0]
        # Weights of another length than the listeners are no weights: the agents have no attention.
        real = len(weights) == len(listeners) and bool(np.isfinite(weights).all())
        return Links(row, listeners, weights if real else None, self.moments[row] * self.seats + listeners)

    @cached_property
    def heard(self) -> tuple[Array, Array]:
        """(sending agent, listening agent) of the links [E]; a listener that did not speak at that moment is -1."""
        links = self.links
        assert links is not None
        agent, _ = self.agents
        spoke = np.full((int(self.moments.max()) + 1) * self.seats, -1)
        spoke[self.moments * self.seats + self.column("sender")] = agent
        return agent[links.row], spoke[links.listening]

    def snapshot(self) -> Snapshot:
        """The newest moment among those with most links in the last iteration."""
        links = self.links
        assert links is not None
        moment = self.moments[links.row]
        newest = self.column("iteration")[links.row] == self.column("iteration")[links.row].max()
        many = np.bincount(moment, newest)
        chosen = np.flatnonzero(many == many.max())[-1]
        rows = np.flatnonzero(self.moments == chosen)
        place = np.full(self.seats, -1)
        place[self.column("sender")[rows]] = np.arange(len(rows))
        at = (moment == chosen) & (place[links.listener] >= 0)
        ends = np.stack([place[self.column("sender")[links.row[at]]], place[links.listener[at]]], 1)
        return Snapshot(rows, ends, None if links.weights is None else links.weights[at])

    def _numbered(self, *names: str) -> Array:
        return (
            pd.DataFrame({name: self.column(name) for name in names})
            .groupby(list(names), sort=True)
            .ngroup()
            .to_numpy()
        )


@dataclass(frozen=True)
class Links:
    """E links of the conversations."""

    row: Array  # [E], the message
    listener: Array  # [E], seat
    weights: Array | None  # [E], the listener's attention
    listening: Array  # [E], one number for each listener at each moment

    @property
    def inbox_size(self) -> float:
        """Messages that a listener heard at once; the harmonic mean over links, so that 1 / K is the uniform weight."""
        _, inverse, counts = np.unique(self.listening, return_inverse=True, return_counts=True)
        return float(1.0 / np.mean(1.0 / counts[inverse]))

    @property
    def top_attention(self) -> float:
        """Mean over listeners of their largest weight."""
        assert self.weights is not None
        return float(pd.Series(self.weights).groupby(self.listening).max().mean())


@dataclass(frozen=True)
class Snapshot:
    """One moment of one world: its messages [N] and who heard them."""

    rows: Array  # [N], rows of the conversations
    links: Array  # [E, 2], (sender, listener) as indices into `rows`
    weights: Array | None  # [E]


def _each_once(table: pa.Table) -> pa.Table:
    """Without rows that tell again what an earlier one did, as older versions wrote them."""
    frame = table.select(["world", "episode", "step", "sender", "member"]).to_pandas()
    repeated = frame.duplicated().to_numpy()
    return table.filter(pa.array(~repeated)) if repeated.any() else table


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"'{path}' is no YAML: {str(error).splitlines()[0]}") from error
    if not isinstance(config, dict):
        raise UserError(f"'{path}' holds no mapping of config methods")
    return config
