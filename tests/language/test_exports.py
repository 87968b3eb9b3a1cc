"""Corpora that are written, and read again: by us, and by those who know the forms alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

from popcomm.errors import UserError
from popcomm.language import read_corpus, write_corpus
from popcomm.language.corpora import Corpus
from popcomm.language.recording import SCHEMA, conversation_path, write_conversations
from popcomm.language.suite import meaningful

COLUMNS = ("messages", "meanings", "streams", "speakers", "actions")


def run_of(folder: Path, end_symbol: bool = True) -> Path:
    """Two worlds, two seats: the second of them is told nothing but a label, and speaks once."""
    rows: dict[str, Any] = {
        "iteration": [1] * 6, "env_steps": [2] * 6, "world": [0, 0, 1, 1, 0, 0], "episode": [3] * 6,
        "step": [1, 1, 0, 0, 0, 0], "sender": [0, 1] * 3, "member": [4, 5] * 3, "species": ["a"] * 6,
        "generation": [2] * 6, "receivers": [[1], [], [1], [], [1], [0]],
        "symbols": [[5, 0], None, [6, 6], None, [0], [2, 7]], "label": [1, 3, 2, -1, -1, 0],
        "meaning": [[0, 1], [1, 1], [1, 0], None, None, [0, 0]], "action": [[2.0], [1.0], [0.0], [0.0], [3.0], [1.0]],
        "reward": [0.5] * 6,
    }  # fmt: skip
    write_conversations(conversation_path(folder, 1), rows, torus=(4.0,))
    config = {"communication": {"messages": {"kind": "symbols", "end_symbol": end_symbol}}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    return folder


def same(one: Corpus, other: Corpus) -> None:
    for name in COLUMNS:
        ours, theirs = getattr(one, name), getattr(other, name)
        assert (ours is None) == (theirs is None), name
        if ours is not None:
            np.testing.assert_array_equal(ours, theirs, err_msg=name)


def test_lines_are_lists_of_integers_without_the_end_and_without_empty_ones(tmp_path: Path) -> None:
    """The form of XferBench: every line a list, none of them empty, in the order of worlds and steps."""
    corpus = read_corpus(run_of(tmp_path))
    assert write_corpus(corpus, tmp_path / "a.jsonl") == 3
    lines = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert lines == [[2, 7], [5], [6, 6]]
    assert read_corpus(tmp_path / "a.jsonl").messages.tolist() == [[2, 7], [5, -1], [6, 6]]


@pytest.mark.parametrize("end_symbol", [True, False])
def test_a_run_comes_back_from_its_parquet_with_seats_that_were_silent(tmp_path: Path, end_symbol: bool) -> None:
    corpus = read_corpus(run_of(tmp_path, end_symbol))
    assert write_corpus(corpus, tmp_path / "a.parquet") == 6
    again = read_corpus(tmp_path / "a.parquet")
    same(corpus, again)
    assert again.messages[0].tolist() == ([-1, -1] if end_symbol else [0, -1])
    frame = pd.read_parquet(tmp_path / "a.parquet")
    silent = frame[frame["symbols"].isna()]
    assert silent["label"].tolist() == [3, -1]
    assert [None if meant is None else meant.tolist() for meant in silent["meaning"]] == [[1, 1], None]
    assert frame["generation"].tolist() == [2] * 6


def test_attributes_are_meanings_and_rows_without_a_label_have_none(tmp_path: Path) -> None:
    corpus = read_corpus(run_of(tmp_path))
    assert corpus.meanings is not None
    assert corpus.meanings.tolist() == [[-1, -1], [0, 0], [0, 1], [1, 0]]
    assert meaningful(corpus).messages.tolist() == [[2, 7], [5, -1], [6, 6]]


def test_every_column_of_the_schema_says_what_it_holds(tmp_path: Path) -> None:
    write_corpus(read_corpus(run_of(tmp_path)), tmp_path / "a.parquet")
    schema = pq.read_schema(tmp_path / "a.parquet")
    for name in ("world", "episode", "step", "sender", "member", "species", "generation", "receivers", "symbols",
                 "meaning", "label", "action", "reward"):  # fmt: skip
        told = schema.field(name).metadata
        assert told[b"about"], name
        assert b"unit" in told, name
    assert schema.metadata[b"popcomm.end_symbol"] == b"0"
    assert [field.name for field in SCHEMA if not (field.metadata or {}).get(b"about")] == []


def test_a_corpus_of_others_comes_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    messages = np.array([[1, 2, -1], [3, -1, -1], [0, 0, 4], [-1, -1, -1]])
    whole = Corpus(
        messages, rng.integers(0, 3, (4, 2)), np.array([0, 0, 1, 1]), np.array([1, 0, 1, 0]), messages[:, 0] + 1
    )
    bare = Corpus(messages)
    classes = Corpus(messages, np.array([[3], [-1], [0], [1]]))
    for corpus in (whole, bare, classes):
        assert write_corpus(corpus, tmp_path / "a.parquet") == 4
        same(corpus, read_corpus(tmp_path / "a.parquet"))


def test_one_file_of_a_runs_conversations_is_a_corpus_too(tmp_path: Path) -> None:
    run = run_of(tmp_path, end_symbol=False)
    same(read_corpus(run), read_corpus(conversation_path(run, 1)))


def test_what_cannot_be_written_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"written as .jsonl or .parquet, and '.*a.csv' ends otherwise"):
        write_corpus(Corpus(np.array([[1]])), tmp_path / "a.csv")
    with pytest.raises(UserError, match="does not exist"):
        write_corpus(Corpus(np.array([[1]])), tmp_path / "nowhere" / "a.jsonl")
    (tmp_path / "b.jsonl").mkdir()
    with pytest.raises(UserError, match=r"'.*b.jsonl' is a folder; name a file"):
        write_corpus(Corpus(np.array([[1]])), tmp_path / "b.jsonl")
    (tmp_path / "b.jsonl").rmdir()
    with pytest.raises(UserError, match="all messages are empty"):
        write_corpus(Corpus(np.array([[-1]])), tmp_path / "a.jsonl")
    assert list(tmp_path.iterdir()) == []
