"""What the vocabulary's evolution is measured by: drift against episodes, of games and of swarms, and when it ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from popcomm.analysis.experiments.evolution_games import Diary, spaced
from popcomm.analysis.history import History, streams_of

from popcomm.errors import UserError
from popcomm.language import drift
from popcomm.language.drift import Drift, stable_from

Array = NDArray[Any]

CLAIM = 10_000  # episodes after which a vocabulary is said to be stable
WON = 0.95  # accuracy that is called success
SHUFFLES = 2  # of the controls, which are means over 100 meanings, or over 5 positions and 16 labels

RENAMED, ON_MEANING, OVERALL, WHOLE = "renamed", "on the same meaning", "all that is said", "whole messages"
# Shares of meanings, and bits above chance. From one checkpoint to the next, or to the last.
BOUNDS = {RENAMED: 0.05, ON_MEANING: drift.SETTLED, OVERALL: drift.SETTLED}


class Curve(NamedTuple):
    """One run: C checkpoints, each about 1.4 times later than the one before."""

    seed: int
    episodes: Array  # [C]; a game is an episode of its own, a swarm's episode has 100 steps
    accuracy: Array | None  # [C], mean over all pairs of a population
    measures: dict[str, Drift]  # of arrays [C - 1]

    @property
    def won(self) -> float | None:
        """The first checkpoint after which accuracy stays above WON."""
        return None if self.accuracy is None else stable_from(1 - self.accuracy, 1 - WON, self.episodes)

    def settled(self, measure: str, to_last: bool = False) -> float | None:
        """The first checkpoint after which a measure stays under its bound."""
        found = self.measures[measure]
        above = found.to_last_above_chance if to_last else found.consecutive_above_chance
        return stable_from(above, BOUNDS[measure], self.episodes[:-1])

    def at_end(self, measure: str) -> float:
        """From the last checkpoint but one to the last, above chance."""
        return float(self.measures[measure].consecutive_above_chance[-1])

    def kept(self) -> float:
        """Share of the names, as they were when the game was won, that are the same at the end; nan if it was not."""
        at = np.flatnonzero(self.episodes[:-1] == self.won)
        return float(1 - self.measures[RENAMED].to_last[at[0]]) if len(at) else float("nan")


def of_games(diary: Diary, seed: int) -> Curve:
    """Renaming by greedy speakers, and divergence of drawn messages on the same meaning and over all meanings.

    The means over speakers.
    """
    change = drift.changed_names(diary.said)
    nothing = np.zeros_like(change.consecutive)
    spoken = [_by_speaker(diary.drawn[:, speaker], seed) for speaker in range(diary.drawn.shape[1])]
    renamed = Drift(change.consecutive, nothing, change.to_last, nothing)
    measures = {
        RENAMED: Drift(*(values.mean(1) for values in renamed)),
        ON_MEANING: Drift(*np.mean([found[0] for found in spoken], 0)),
        OVERALL: Drift(*np.mean([found[1] for found in spoken], 0)),
    }
    return Curve(seed, diary.games, diary.accuracy.mean((1, 2)), measures)


def _by_speaker(drawn: Array, seed: int) -> tuple[Drift, Drift]:
    """Messages drawn [C, M, copies, L] -> whole messages' drift on the same meaning, and of all together."""
    times, meanings, copies, length = drawn.shape
    codes, number = drift.whole_messages(drawn.reshape(-1, length))
    checkpoint = np.repeat(np.arange(times), meanings * copies)
    meaning = np.tile(np.repeat(np.arange(meanings), copies), times)
    counts = drift.symbol_counts(codes, number, checkpoint, meaning, meanings)[:, 0]
    return drift.drift(counts, True, SHUFFLES, seed), drift.drift(counts.sum(1), False, SHUFFLES, seed)


def of_swarm(history: History, seed: int, worlds: int, steps: int, window: int, vocab_size: int) -> Curve:
    """Divergence of the symbols at each position (mean over them), on the same label and over all, and of messages.

    Messages are put into windows by when they were said.

    Args:
        history: all parts of a run whose conversations were recorded more often than episodes end.
        worlds: B of the run.
        steps: of an episode.
        window: steps of each world.

    Raises:
        UserError: fewer than two windows with messages.
    """
    when = said_at(history.table) // window
    sizes = np.bincount(when)
    # Episodes that were not over when training ended are not recorded, so the last windows are thin.
    full = int(np.flatnonzero(sizes >= sizes.max() / 2)[-1]) + 1 if len(sizes) else 0
    if full < 2:
        raise UserError(f"the run has {full} windows of {window} steps with conversations, and must have at least 2")
    chosen = np.array(spaced(full)) - 1
    place = np.full(len(sizes), -1)
    place[chosen] = np.arange(len(chosen))
    keep = place[when] >= 0
    checkpoint, symbols, labels = place[when][keep], history.symbols[keep], history.labels[keep]
    said = (checkpoint, streams_of(history.table[keep], checkpoint))
    codes, number = drift.whole_messages(symbols)
    chance: dict[str, Any] = {"shuffles": SHUFFLES, "seed": seed}
    measures = {
        ON_MEANING: _over_positions(drift.drift_of_streams(symbols, vocab_size, *said, labels, **chance)),
        OVERALL: _over_positions(drift.drift_of_streams(symbols, vocab_size, *said, **chance)),
        WHOLE: _over_positions(drift.drift_of_streams(codes, number, *said, **chance)),
    }
    # The middle of a window. Between two episodes of a world is one step in which nobody lives.
    return Curve(seed, (chosen + 0.5) * window * worlds / (steps + 1), None, measures)


def said_at(table: pd.DataFrame) -> Array:
    """When each message was said, in steps of its world since training began: [M].

    Args:
        table: world, episode (from 0, none missing) and step of M messages.
    """
    lengths = table.groupby(["world", "episode"])["step"].max() + 2  # the step from 0, and one between episodes
    starts = (lengths.groupby("world").cumsum() - lengths).rename("start").reset_index()
    return (table.merge(starts, on=["world", "episode"], how="left")["start"] + table["step"].to_numpy()).to_numpy()


def settled_by(curves: Sequence[Curve], measure: str, episodes: float) -> int:
    """In how many runs a measure stays under its bound from no later than that."""
    return sum(1 for c in curves if (since := c.settled(measure)) is not None and since <= episodes)


def _over_positions(found: Drift) -> Drift:
    return Drift(*(values.mean(1) for values in found))
