"""The lexicon's reading of each message: what it meant most often when it was said in other episodes.

A reading from all messages would know each of them already: of messages that are said once it is always right. So the
episode of a message is left out of the lexicon that it is read with.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from popcomm.language.arrays import as_classes

Array = NDArray[Any]

WHOLE = -1  # the message is read as a whole


class Readings(NamedTuple):
    """What M messages mean by what was said in other episodes.

    Attributes:
        position: that is read; WHOLE: all of the message.
        label: [M] int64, the likeliest meaning; -1: never said of anything in another episode.
        share: [M] float64, of the times that it was said there, those in which it meant this; nan: never.
        times: [M] int64, how often it was said there of anything that has a label.
        right: share of the labelled messages that are read as their label, unread ones being wrong.
        commonest: that share, if all were read as the commonest label.
        labelled: messages that have a label.
    """

    position: int
    label: Array
    share: Array
    times: Array
    right: float
    commonest: float
    labelled: int

    @property
    def by(self) -> str:
        return "the whole message" if self.position == WHOLE else f"its symbol at position {self.position + 1}"


def readings(symbols: Array, labels: Array, episodes: Array) -> Readings | None:
    """Read M messages as wholes, or by one position, whichever is right more often; None: fewer than two labels.

    Args:
        symbols: [M, L] int64, -1 for what was not sent.
        labels: [M] int64, what the speaker saw; -1 nothing.
        episodes: [M] int64, one number for each episode of a world.

    >>> readings(np.array([[1], [1], [2]]), np.array([4, 4, 9]), np.array([0, 1, 2])).label.tolist()
    [4, 4, -1]
    """
    told = labels >= 0
    if len(np.unique(labels[told])) < 2:
        return None
    commonest = float(np.bincount(labels[told]).max() / told.sum())
    places = [WHOLE, *(range(symbols.shape[1]) if symbols.shape[1] > 1 else ())]
    found = []
    for place in places:
        said = as_classes(symbols if place == WHOLE else symbols[:, [place]])
        label, share, times = read(said, labels, episodes)
        right = float((label[told] == labels[told]).mean())
        found.append(Readings(place, label, share, times, right, commonest, int(told.sum())))
    return max(found, key=lambda reading: reading.right)  # the first of equal ones: the whole message


def read(said: Array, labels: Array, episodes: Array) -> tuple[Array, Array, Array]:
    """(likeliest label [M], its share [M], times [M]) of what was said, in the episodes other than its own.

    Args:
        said: [M] int64, classes of messages; labels, episodes: [M] int64.
    """
    frame = pd.DataFrame({"said": said, "label": labels, "episode": episodes})
    told = frame[frame["label"] >= 0]
    everywhere = told.groupby(["said", "label"]).size().rename("all").reset_index()
    own = told.groupby(["said", "episode", "label"]).size().rename("own").reset_index()
    places = frame[["said", "episode"]].drop_duplicates()
    elsewhere = places.merge(everywhere, on="said").merge(own, on=["said", "episode", "label"], how="left")
    elsewhere["left"] = elsewhere["all"] - elsewhere["own"].fillna(0)
    elsewhere = elsewhere[elsewhere["left"] > 0].sort_values(["left", "label"], ascending=[False, True], kind="stable")
    grouped = elsewhere.groupby(["said", "episode"], sort=False)
    best = grouped.first().assign(times=grouped["left"].sum()).reset_index()
    row = frame.merge(best[["said", "episode", "label", "left", "times"]], on=["said", "episode"], how="left",
                      suffixes=("", "_read"))  # fmt: skip
    share = (row["left"] / row["times"]).to_numpy(float)
    return row["label_read"].fillna(-1).to_numpy(np.int64), share, row["times"].fillna(0).to_numpy(np.int64)
