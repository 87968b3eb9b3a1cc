"""The lexicon: which message means what, and how each meaning is told, with probabilities."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from popcomm.errors import UserError
from popcomm.language.arrays import Messages, as_classes, as_meanings, as_messages
from popcomm.language.distributions import entropy

Array = NDArray[Any]

COLUMNS = ("message", "meaning", "count", "p_meaning", "p_message")


class Lexicon(NamedTuple):
    """Which messages go with which meanings; one row for each two that occurred together.

    Both tables have the columns message ("3 7", symbols with blanks between), meaning ("2 5", attribute values), count,
    p_meaning (p(meaning given message)) and p_message (p(message given meaning)).
    """

    messages: pd.DataFrame  # by message: the commonest first, and of each its likeliest meaning first
    meanings: pd.DataFrame  # by meaning, likewise

    def write(self, path: Path) -> None:
        """As CSV, by message."""
        self.messages.to_csv(path, index=False)


class Vocabulary(NamedTuple):
    """Which messages there are."""

    messages: int  # different ones
    perplexity: float  # 2 ** entropy: as many equally common ones have the same entropy
    symbols: int  # different ones
    meanings: int  # different ones
    messages_per_meaning: float  # 2 ** H(message given meaning): 1 without synonyms
    ambiguity: float  # 2 ** H(meaning given message): how many meanings a message leaves open; 1 without homonyms


def lexicon(meanings: ArrayLike, messages: Messages, end_symbol: int | None = None) -> Lexicon:
    """What was said of what: relative frequencies of M messages [M, L] and their meanings [M, A] or [M].

    Rows with a negative integer as their only attribute have no meaning and are left out.

    Raises:
        UserError: no messages with a meaning, or other numbers of them.

    >>> lexicon([4, 4, 9], [[1], [1], [2]]).messages[["message", "meaning", "p_meaning"]].values.tolist()
    [['1', '4', 1.0], ['2', '9', 1.0]]
    """
    said, meant = _with_meaning(meanings, messages, end_symbol)
    frame = pd.DataFrame({"message": _texts(said), "meaning": _texts(meant)})
    table = frame.groupby(["message", "meaning"], sort=False).size().rename("count").reset_index()
    by_message, by_meaning = (table.groupby(name)["count"].transform("sum") for name in ("message", "meaning"))
    table["p_meaning"], table["p_message"] = table["count"] / by_message, table["count"] / by_meaning

    def sorted_by(name: str, total: pd.Series) -> pd.DataFrame:
        order = table.assign(total=total).sort_values(["total", name, "count"], ascending=[False, True, False])
        return order[list(COLUMNS)].reset_index(drop=True)

    return Lexicon(sorted_by("message", by_message), sorted_by("meaning", by_meaning))


def vocabulary(meanings: ArrayLike, messages: Messages, end_symbol: int | None = None) -> Vocabulary:
    """How many messages there are, and how far they are synonyms and homonyms; plug-in, so few rows of many messages
    have too little of both.

    Args:
        meanings: [M, A] or [M]; messages: [M, L].

    >>> vocabulary([0, 0, 1, 1], [[5], [6], [7], [7]]).ambiguity
    1.0
    """
    said, meant = _with_meaning(meanings, messages, end_symbol)
    word, meaning = as_classes(said), as_classes(meant)
    h_word, h_meaning, both = (
        float(entropy(np.bincount(codes))) for codes in (word, meaning, as_classes(np.stack([word, meaning], 1)))
    )
    return Vocabulary(
        int(word.max()) + 1,
        2.0**h_word,
        len(np.unique(said[said >= 0])),
        int(meaning.max()) + 1,
        2.0 ** max(0.0, both - h_meaning),
        2.0 ** max(0.0, both - h_word),
    )


def _with_meaning(meanings: ArrayLike, messages: Messages, end_symbol: int | None) -> tuple[Array, Array]:
    """[M, L] and [M, A], as they are, of the rows that have a meaning."""
    said, meant = as_messages(messages, end_symbol), np.asarray(meanings)
    meant = meant.reshape(len(meant), -1) if meant.ndim else meant
    as_meanings(meant)
    if len(said) != len(meant):
        raise UserError(f"there are {len(meant)} meanings and {len(said)} messages, and each message has one meaning")
    if meant.shape[1] == 1 and np.issubdtype(meant.dtype, np.integer):
        rows = meant[:, 0] >= 0
        said, meant = said[rows], meant[rows]
    if not len(said):
        raise UserError("no message has a meaning: all of them are negative")
    return said, meant


def _texts(values: Array) -> list[str]:
    """[M, k] -> M strings, "3 7"; -1 of a message is left out."""
    first, inverse = np.unique(as_classes(values), return_index=True, return_inverse=True)[1:]
    hide = np.issubdtype(values.dtype, np.integer)
    texts = [" ".join(str(v) for v in row if not (hide and v == -1)) for row in values[first].tolist()]
    return [texts[i] for i in inverse]
