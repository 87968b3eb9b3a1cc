"""Messages and meanings from files: run folders, tables (CSV, Parquet, JSON lines) and EGG's interaction dumps."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from numpy.typing import NDArray

from popcomm.errors import UserError, unknown
from popcomm.language.arrays import as_classes, as_messages
from popcomm.language.cells import folded, meanings_of, messages_of, read_table, values_of
from popcomm.language.recording import (
    NEWEST,
    conversations_of,
    end_symbol_of,
    ending_with,
    filled,
    has_rounds,
    last_round,
    padded,
    read_conversations,
)

Array = NDArray[Any]

# What a column is taken for by its name, if it is not said; the first that is there.
MESSAGE_NAMES = ("message", "messages", "symbols", "msg", "utterance")
MEANING_NAMES = ("meaning", "meanings", "sender_input", "label", "labels", "input", "object", "target")
STREAM_NAMES = ("stream", "episode")
SPEAKER_NAMES = ("speaker", "sender", "member")
ACTION_NAMES = ("action",)
TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".json")
DUMPS = (".pt", ".pth")
EGG_CLASS = "egg.core.interaction.Interaction"


class Columns(NamedTuple):
    """Which columns of a table are what; None or empty: by their names."""

    messages: Sequence[str] = ()  # several: one for each position
    meanings: Sequence[str] = ()  # several: one for each attribute
    stream: str | None = None
    speaker: str | None = None
    action: str | None = None


class Corpus(NamedTuple):
    """M messages and what is known of them."""

    messages: Array  # [M, L] int64, -1 for what was not sent
    # [M, A]; integers that are all -1, or negative where A is 1: none.
    meanings: Array | None = None
    streams: Array | None = None  # [M], rows of a speaker in one stand in the order of time; None: rows are independent
    speakers: Array | None = None  # [M]
    actions: Array | None = None  # [M]
    notes: tuple[str, ...] = ()  # what was taken for what
    seats: Array | None = None  # [M], where speakers sit; None: each speaker has one
    table: pa.Table | None = None  # conversations with all that is known of them, silent seats included


def read_corpus(
    path: Path, columns: Columns | None = None, end_symbol: int | None = None, whole: bool = False
) -> Corpus:
    """Read a run folder, a table or a dump.

    Of a run the newest parts of its conversations that together hold NEWEST rows: the language as it is now, and as its
    report has it; with `whole` those of the whole training. Where messages are exchanged in rounds, they are those of
    the last round of each step; the corpus' table has all.

    A cell of a message is a list, or a text of integers ("3 7 0"), of words or of letters; of several columns each is a
    position. Rows without a message are left out. In dumps of messages of varying length the end symbol is 0.

    Raises:
        UserError: nothing of the kind, no messages in it, a column that is not there, or `whole` of what is no run.
    """
    path, columns = Path(path), columns or Columns()
    if whole and path.is_file():
        raise UserError(f"--all: '{path}' is no run folder, and of a file all is taken")
    if path.is_file() and path.suffix.lower() in TABLES:
        if not any(columns) and (table := _exported(path)) is not None:
            return _of_conversations(path, table, end_symbol_of(table) if end_symbol is None else end_symbol)
        return _of_table(path, read_table(path), columns, end_symbol)
    given = [f"--{name}" for name, value in columns._asdict().items() if value]
    if path.exists() and given:
        raise UserError(f"{', '.join(given)}: '{path}' is no table, and only tables have columns of other names")
    if path.is_dir():
        return _of_run(path, end_symbol, None if whole else NEWEST)
    if not path.is_file():
        raise UserError(f"'{path}' is neither a file nor a run folder")
    if path.suffix.lower() in DUMPS or path.name.startswith("interaction"):
        return _of_dump(path, end_symbol)
    raise UserError(f"'{path}' is none of {', '.join((*TABLES, *DUMPS))}, and no run folder")


# ---- run folders ----


def _of_run(path: Path, end_symbol: int | None, at_least: int | None) -> Corpus:
    if not (path / "conversations").is_dir():
        raise UserError(f"'{path}' is no run folder with conversations: there is no folder conversations in it")
    table = read_conversations(path, at_least)
    return _of_conversations(path, table, _run_end(path) if end_symbol is None else end_symbol)


def _of_conversations(path: Path, table: pa.Table, end_symbol: int | None) -> Corpus:
    """The messages of a table of conversations, of one seat after another in every step, one episode after another."""
    newest = last_round(table)
    spoken = newest.filter(np.asarray(newest["symbols"].is_valid()))
    symbols = padded(spoken, "symbols")
    if symbols is None:
        raise UserError(f"'{path}' holds no messages of symbols: its agents are silent, or say vectors")
    when = {name: _known(spoken, name) for name in ("sender", "round", "step", "episode", "world")}
    keys = [values for values in when.values() if values is not None]
    order = np.lexsort(keys) if keys else np.arange(len(symbols))
    label = spoken["label"].combine_chunks().fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    meanings = filled(spoken, "meaning")
    if meanings is None:
        meanings = label[:, None] if (label >= 0).any() else None
    places = [when[name] for name in ("world", "episode")]
    streams = None if any(place is None for place in places) else as_classes(np.stack(places, 1))  # type: ignore[arg-type]
    columns = (meanings, streams, _speakers(spoken), _single(spoken["action"].to_pylist()), when["sender"])
    notes = _taken(spoken, has_rounds(table), streams is not None)
    *in_order, seats = [None if column is None else column[order] for column in columns]
    said, whole = as_messages(symbols[order], end_symbol), ending_with(table, end_symbol)
    return Corpus._make([said, *in_order, notes, seats, whole])


def _speakers(spoken: pa.Table) -> Array | None:
    """[M], members, those of different species apart; or seats, where each species is one network."""
    member = _known(spoken, "member")
    if member is None or spoken["species"].null_count:
        return _known(spoken, "sender")
    species = as_classes(np.array(spoken["species"].to_pylist()))
    who = as_classes(np.stack([species, member], 1))
    return _known(spoken, "sender") if who.max() == species.max() else who


def _taken(spoken: pa.Table, in_rounds: bool, episodes: bool) -> tuple[str, ...]:
    """Which messages they are, in sentences."""
    notes, when = [], _known(spoken, "iteration")
    if when is not None:
        first, last = when.min(), when.max()
        notes.append(f"messages of iteration {last}" if first == last else f"messages of iterations {first} to {last}")
    if in_rounds:
        notes.append("of the rounds of a step the last one's")
    if not episodes:
        notes.append("rows are taken as independent, since no episodes are known")
    return tuple(notes)


def _exported(path: Path) -> pa.Table | None:
    """Conversations as a Parquet of a run, or an export, has them; None: another table."""
    if path.suffix.lower() != ".parquet":
        return None
    try:
        return conversations_of(pq.read_table(path))
    except (pa.ArrowException, OSError):
        return None  # whoever reads it as a table says why not


def _known(table: pa.Table, name: str) -> Array | None:
    """A column of integers; None where one is null."""
    return None if table[name].null_count else table[name].combine_chunks().to_numpy(zero_copy_only=False)


def _run_end(path: Path) -> int | None:
    """0 where the config of the run says that messages end with it."""
    try:
        config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
        return 0 if config["communication"]["messages"].get("end_symbol") else None
    except (OSError, yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, AttributeError):
        return None


def _single(values: list[list[float] | None]) -> Array | None:
    """Discrete actions, one for each row; None: there are none, or they are vectors."""
    if any(value is None or len(value) != 1 for value in values):
        return None
    flat = np.array(values, float)[:, 0]
    return flat.astype(np.int64) if (flat == np.floor(flat)).all() else None


# ---- tables ----


def _of_table(path: Path, frame: pd.DataFrame, columns: Columns, end_symbol: int | None) -> Corpus:
    notes: list[str] = []
    frame.columns = [str(name) for name in frame.columns]
    said = _columns(path, frame, "--messages", columns.messages, MESSAGE_NAMES, r"(message|symbol|m)_?\d+")
    if not said:
        raise UserError(
            f"'{path}' has no column of messages ({', '.join(MESSAGE_NAMES)}); name it with --messages, its columns "
            f"are: {', '.join(frame.columns)}"
        )
    frame = frame[frame[said].notna().any(axis=1)].reset_index(drop=True)
    if not len(frame):
        raise UserError(f"'{path}' holds no messages")
    taken = f"messages: {', '.join(said)}"
    meant = _columns(path, frame, "--meanings", columns.meanings, MEANING_NAMES, r"(meaning|attribute|attr|x)_?\d+")
    meanings, one_hots = meanings_of(frame, meant) if meant else (None, False)
    if meanings is not None and not _known_meanings(meanings):
        notes.append(f"{', '.join(meant)}: negative throughout, so no message has a meaning")
        meanings = None
    elif meanings is not None:
        taken += f"; meanings: {', '.join(meant)}"
        taken += f", whose one-hots are {meanings.shape[1]} attributes" if one_hots else ""
    found = {}
    for option, name, names in (
        ("--stream", columns.stream, STREAM_NAMES),
        ("--speaker", columns.speaker, SPEAKER_NAMES),
        ("--action", columns.action, ACTION_NAMES),
    ):
        if chosen := _columns(path, frame, option, [name] if name else [], names, None):
            taken += f"; {option[2:]}: {chosen[0]}"
            found[option] = frame[["world", *chosen] if _of_worlds(option, name, frame) else chosen]
    notes.insert(0, taken)
    if "--stream" not in found:
        notes.append("rows are taken as independent; if they are a time series, name its episodes with --stream")
    classes = {option: as_classes(values_of(table)) for option, table in found.items()}
    streams = classes.get("--stream")
    return Corpus(
        as_messages(messages_of(frame, said), end_symbol),
        meanings,
        streams,
        classes.get("--speaker"),
        classes.get("--action"),
        tuple(notes),
    )


def _known_meanings(meanings: Array) -> bool:
    """Is there a row that has one? `Corpus` says which have none."""
    return not np.issubdtype(meanings.dtype, np.integer) or bool((meanings >= 0).any())


def _of_worlds(option: str, name: str | None, frame: pd.DataFrame) -> bool:
    """Episodes are numbered in each world."""
    return option == "--stream" and name is None and "world" in frame


def _columns(
    path: Path, frame: pd.DataFrame, option: str, given: Sequence[str], names: Sequence[str], pattern: str | None
) -> list[str]:
    for name in given:
        if name not in frame:
            raise unknown(f"'{path}': the column of {option}", name, frame.columns)
    if given:
        return list(given)
    lower = {name.lower(): name for name in reversed(list(frame.columns))}
    known = [lower[name] for name in names if name in lower]
    if known:  # one that is not empty, if there is
        return [name for name in known if frame[name].notna().any()][:1] or known[:1]
    return [name for name in frame.columns if pattern and re.fullmatch(pattern, name.lower())]


# ---- dumps of EGG ----


class _Interaction:
    """Stands for EGG's class when a dump is read: its attributes, and none of its code."""


def _of_dump(path: Path, end_symbol: int | None) -> Corpus:
    import pickle

    import torch

    try:
        # Only tensors and plain values are loaded: a dump of a stranger runs nothing.
        with torch.serialization.safe_globals([(_Interaction, EGG_CLASS)]):
            found = vars(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, ValueError, EOFError, TypeError, KeyError, pickle.UnpicklingError) as error:
        raise UserError(f"'{path}' is no dump of EGG's interactions") from error
    message, length = found.get("message"), found.get("message_length")
    if not isinstance(message, torch.Tensor) or not len(message):
        raise UserError(f"'{path}' holds no messages")
    if message.ndim == 3:  # relaxed ones: probabilities of symbols
        message = message.argmax(-1)
    elif message.ndim == 2 and message.is_floating_point():
        message = message.argmax(-1, keepdim=True)
    ends = length is not None and message.ndim == 2 and message.shape[1] > 1
    notes = ["messages and sender_input of EGG's interactions; rows are independent"]
    if ends and end_symbol is None:
        notes.append("the end symbol is 0")
        end_symbol = 0
    seen = found.get("sender_input")
    meanings = None
    if isinstance(seen, torch.Tensor):
        values = seen.reshape(len(seen), -1).numpy()
        attributes = folded(values)
        notes += [f"one-hots of sender_input are {attributes.shape[1]} attributes"] if attributes is not values else []
        meanings = attributes
    return Corpus(as_messages(message.numpy(), end_symbol), meanings, notes=tuple(notes))
