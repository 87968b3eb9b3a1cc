"""A folder that a killed training left goes on as if it had never been killed."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from torch.utils.tensorboard import SummaryWriter

from popcomm.language import progress
from popcomm.language.recording import conversation_path, write_conversations
from popcomm.rllib.rewind import rewind

STEPS = 10  # env steps of an iteration


def record(folder: Path, iterations: range, value: float = 0.0) -> None:
    """A line, an event and a part for each iteration; the values tell who wrote them."""
    folder.mkdir(exist_ok=True)
    writer = SummaryWriter(str(folder / "tensorboard"))
    for iteration in iterations:
        steps = STEPS * iteration
        progress.append(folder / "progress.jsonl", {"iteration": iteration, "env_steps": steps, "x": value + iteration})
        writer.add_scalar("charts/x", value + iteration, steps)
        names = ("world", "episode", "step", "sender", "member")
        rows: dict[str, Any] = {name: np.zeros(1, int) for name in names} | {"species": ["a"]}
        rows |= {"iteration": [iteration], "env_steps": [steps], "reward": [value]}
        write_conversations(conversation_path(folder, iteration), rows)
    writer.close()


def events(folder: Path) -> dict[int, float]:
    """All that is in the files, whatever TensorBoard itself would hide."""
    found = [
        (event.step, event.summary.value[0].tensor.float_val[0])
        for file in sorted((folder / "tensorboard").iterdir())
        for event in EventFileLoader(str(file)).Load()
        if event.HasField("summary")
    ]
    assert len({step for step, _ in found}) == len(found)
    return dict(found)


def test_what_is_trained_again_is_there_once_for_any_reader(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Killed after iteration 7, gone on with from the checkpoint of iteration 4, as far as 6."""
    run = tmp_path / "run"
    record(run, range(1, 8))
    with open(run / "progress.jsonl", "ab") as file:
        file.write(b'{"iteration": 8, "env_st')
    with caplog.at_level(logging.WARNING):
        rewind(run, 5)
    assert "from iteration 5 on is recorded anew" in caplog.text
    record(run, range(5, 7), value=100.0)
    expected = {1: 1.0, 2: 2.0, 3: 3.0, 4: 4.0, 5: 105.0, 6: 106.0}
    lines = pd.read_json(run / "progress.jsonl", lines=True)
    assert dict(zip(lines["iteration"], lines["x"], strict=True)) == expected
    assert events(run) == {STEPS * iteration: x for iteration, x in expected.items()}
    shown = EventAccumulator(str(run / "tensorboard")).Reload().Scalars("charts/x")
    assert [(event.step, event.value) for event in shown] == [(STEPS * i, x) for i, x in expected.items()]
    assert pd.read_parquet(run / "conversations")["iteration"].tolist() == [1, 2, 3, 4, 5, 6]


def test_a_training_that_begins_leaves_nothing_of_another(tmp_path: Path) -> None:
    run = tmp_path / "run"
    record(run, range(1, 4))
    rewind(run, 1)
    assert (run / "progress.jsonl").read_text() == ""
    assert events(run) == {}
    assert not list((run / "conversations").iterdir())


def test_a_folder_with_nothing_to_lose_is_not_touched(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run = tmp_path / "run"
    record(run, range(1, 4))
    before = {file: (file.stat().st_ino, file.read_bytes()) for file in run.rglob("*") if file.is_file()}
    rewind(run, 4)
    assert {file: (file.stat().st_ino, file.read_bytes()) for file in run.rglob("*") if file.is_file()} == before
    assert not caplog.records
    rewind(tmp_path / "new", 1)


def test_half_an_event_ends_its_file(tmp_path: Path) -> None:
    """What a process that dies leaves is no event, and those before it count."""
    run = tmp_path / "run"
    record(run, range(1, 6))
    file = next((run / "tensorboard").iterdir())
    file.write_bytes(file.read_bytes()[:-5])
    (run / "conversations" / "part-000006.half").write_bytes(b"PAR1")
    rewind(run, 4)
    assert events(run) == {10: 1.0, 20: 2.0, 30: 3.0}
    assert not list((run / "conversations").glob("*.half"))


def test_lines_come_back_in_the_order_of_iterations_each_once(tmp_path: Path) -> None:
    """As an older version left them: an iteration twice, and lines that are none."""
    path = tmp_path / "progress.jsonl"
    lines = [{"iteration": i, "x": x} for i, x in ((1, 1), (2, 2), (3, 3), (2, 20))]
    path.write_text("\n".join([*map(json.dumps, lines), "[1]", "", '{"iteration']))
    assert progress.rewind(path, 9)
    assert [json.loads(line) for line in path.read_text().splitlines()] == [lines[0], lines[3], lines[2]]
    assert not progress.rewind(path, 9)
