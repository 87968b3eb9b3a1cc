"""Conversations and progress come back as they were written, also after a process that died half-way."""

from __future__ import annotations

import io
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from popcomm.errors import UserError
from popcomm.language import progress
from popcomm.language.recording import (
    SCHEMA,
    conversation_path,
    heard_by,
    ragged,
    read_conversations,
    stacked,
    torus_of,
    write_conversations,
)


def rows(size: int, **more):
    whole = {
        name: np.arange(size) for name in ("iteration", "env_steps", "world", "episode", "step", "sender", "member")
    }
    return whole | {"species": ["swarm"] * size} | more


def test_columns_come_back(tmp_path):
    symbols = np.arange(6).reshape(3, 2)
    written = rows(3, symbols=symbols, receivers=[[1, 2], [], [0]], weights=[[0.5, 0.25], [], [1.0]], label=[-1, 4, 0])
    write_conversations(conversation_path(tmp_path, 10), written, torus=(10.0, 5.0))
    table = read_conversations(tmp_path)
    assert table.schema.names == SCHEMA.names
    assert stacked(table, "symbols").tolist() == symbols.tolist()
    values, row = ragged(table, "receivers")
    assert values.tolist() == [1, 2, 0]
    assert row.tolist() == [0, 0, 2]
    assert table["label"].to_pylist() == [-1, 4, 0]
    assert torus_of(table) == (10.0, 5.0)


def test_columns_that_were_not_given_are_null(tmp_path):
    write_conversations(conversation_path(tmp_path, 1), rows(2, vector=np.ones((2, 3)), symbols=None))
    table = read_conversations(tmp_path)
    assert stacked(table, "symbols") is None
    assert stacked(table, "vector").tolist() == [[1, 1, 1]] * 2
    assert table["position"].null_count == 2
    assert ragged(table, "receivers")[0].size == 0
    assert torus_of(table) is None


def test_null_rows_do_not_shift_the_others(tmp_path):
    write_conversations(
        conversation_path(tmp_path, 1), rows(3, receivers=[None, [5], [6, 7]], symbols=[[1], None, [2]])
    )
    table = read_conversations(tmp_path)
    values, row = ragged(table, "receivers")
    assert (values.tolist(), row.tolist()) == ([5, 6, 7], [1, 2, 2])
    assert stacked(table, "symbols") is None


def test_parts_are_joined_in_order_and_the_newest_can_be_had_alone(tmp_path):
    for iteration in (9, 100, 20):
        write_conversations(conversation_path(tmp_path, iteration), rows(4) | {"iteration": np.full(4, iteration)})
    assert read_conversations(tmp_path)["iteration"].to_pylist() == [9] * 4 + [20] * 4 + [100] * 4
    assert read_conversations(tmp_path, at_least=5)["iteration"].to_pylist() == [20] * 4 + [100] * 4


def test_a_folder_without_conversations_gives_an_empty_table(tmp_path):
    table = read_conversations(tmp_path)
    assert (len(table), table.schema.names) == (0, SCHEMA.names)
    assert stacked(table, "symbols") is None


def test_a_part_of_an_older_schema_can_be_read(tmp_path):
    path = conversation_path(tmp_path, 1)
    write_conversations(path, rows(2, reward=np.ones(2)))
    pq.write_table(pq.read_table(path).drop_columns(["label"]), path)
    assert read_conversations(tmp_path)["label"].to_pylist() == [None, None]


def test_a_broken_part_is_named(tmp_path):
    path = conversation_path(tmp_path, 3)
    path.parent.mkdir()
    path.write_bytes(b"PAR1 half")
    with pytest.raises(UserError, match=r"part-000003\.parquet is no whole Parquet file"):
        read_conversations(tmp_path)


def test_a_write_that_fails_leaves_the_old_part(tmp_path, monkeypatch):
    path = conversation_path(tmp_path, 1)
    write_conversations(path, rows(2))
    monkeypatch.setattr(pq, "write_table", lambda table, target, **_: target.write_bytes(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_conversations(path, rows(3))
    monkeypatch.undo()
    assert len(read_conversations(tmp_path)) == 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"colour": [1, 2]}, "no column colour"),
        ({"member": None}, "need the column member"),
        ({"reward": [1]}, "reward"),
    ],
)
def test_wrong_columns_are_named(tmp_path, more, said):
    with pytest.raises(ValueError, match=said):
        write_conversations(tmp_path / "part.parquet", rows(2, **more))


def test_inboxes_turned_round_name_the_listeners_and_their_weights():
    senders = np.array([[[1, 2], [0, 2], [0, 1]], [[1, 1], [2, 2], [1, 0]]])
    mask = np.array([[[1, 1], [1, 0], [1, 1]], [[1, 0], [0, 0], [0, 1]]], bool)
    weights = np.arange(12.0).reshape(2, 3, 2)
    receivers, given = heard_by(senders, mask, weights)
    assert [r.tolist() for r in receivers] == [[1, 2], [0, 2], [0], [2], [0], []]
    assert [w.tolist() for w in given] == [[2, 4], [0, 5], [1], [11], [6], []]
    assert heard_by(senders, mask)[1] is None


def test_progress_takes_numbers_of_all_kinds_and_nan_is_null(tmp_path):
    path = tmp_path / "progress.jsonl"
    values = {"iteration": np.int64(1), "a": torch.tensor(0.5), "b": float("nan"), "c": np.float32("inf"), "d": "word"}
    progress.append(path, values)
    assert json.loads(path.read_text()) == {"iteration": 1, "a": 0.5, "b": None, "c": None, "d": "word"}
    frame = progress.read(path)
    assert frame["a"].tolist() == [0.5]
    assert np.isnan(frame["b"].astype(float)).all()


def test_progress_skips_half_a_line_and_goes_on_after_it(tmp_path):
    path = tmp_path / "progress.jsonl"
    progress.append(path, {"iteration": 1, "x": 1.0})
    with open(path, "a") as file:
        file.write('{"iteration": 2, "x"')
    assert progress.read(path)["iteration"].tolist() == [1]
    progress.append(path, {"iteration": 2, "x": 3.0})
    assert progress.read(path)["x"].tolist() == [1.0, 3.0]


def test_half_a_line_is_gone_when_the_next_is_written(tmp_path):
    """Also one that is longer than what is looked through at a time, and one that is all there is."""
    path = tmp_path / "progress.jsonl"
    for half in ("", '{"a": ' + "1" * 10_000):
        path.write_text(('{"iteration": 1}\n' if half else "") + (half or '{"iter'))
        progress.append(path, {"iteration": 2})
        assert [json.loads(line)["iteration"] for line in path.read_text().splitlines()] == ([1, 2] if half else [2])


def test_a_line_without_room_leaves_none(tmp_path, monkeypatch):
    path = tmp_path / "progress.jsonl"
    progress.append(path, {"iteration": 1})
    before = path.read_bytes()
    monkeypatch.setattr("builtins.open", lambda *_, **__: Full(path))
    with pytest.raises(OSError, match="No space left"):
        progress.append(path, {"iteration": 2})
    monkeypatch.undo()
    assert path.read_bytes() == before


class Full(io.FileIO):
    """A file on a disk with room for three bytes."""

    def __init__(self, path):
        super().__init__(path, "ab+")

    def write(self, data):
        return super().write(data[:3])


def test_progress_of_a_resumed_run_has_each_iteration_once(tmp_path):
    path = tmp_path / "progress.jsonl"
    for iteration, x in ((1, 1.0), (2, 2.0), (3, 3.0), (2, 20.0)):
        progress.append(path, {"iteration": iteration, "x": x})
    assert progress.read(path)["x"].tolist() == [1.0, 20.0, 3.0]


def test_progress_without_a_file_is_empty(tmp_path):
    assert progress.read(tmp_path / "progress.jsonl").empty
