"""What a report says of conversations whose answer is known."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from popcomm.analysis import comparison, findings, report
from popcomm.analysis.run_folder import RunFolder

from popcomm.language import basics, progress
from popcomm.language.corpora import read_corpus
from popcomm.language.recording import conversation_path, write_conversations
from popcomm.language.suite import measure
from tests.language.test_mutual_information import missing_seats


def written(folder: Path, parts: dict[int, dict[str, Any]], **messages: Any) -> Path:
    """A run folder of symbols with these rows at these iterations."""
    folder.mkdir(parents=True, exist_ok=True)
    said = {"kind": "symbols", "vocab_size": 8, "length": 1} | messages
    (folder / "config.yaml").write_text(yaml.safe_dump({"communication": {"messages": said}}), encoding="utf-8")
    for iteration, columns in parts.items():
        size = len(columns["step"])
        usual = {"world": np.zeros(size, int), "sender": np.zeros(size, int), "member": np.zeros(size, int)}
        usual |= {"iteration": np.full(size, iteration), "env_steps": np.full(size, iteration * 100)}
        write_conversations(conversation_path(folder, iteration), {**usual, "species": ["a"] * size, **columns})
    return folder


def dying(by_step: bool) -> dict[str, Any]:
    """Rows of seats that die, as they are recorded, by step; or each seat's after those of another."""
    symbols, labels, episode, seat = missing_seats(np.random.default_rng(5), True)
    order = np.arange(len(symbols)) if by_step else np.lexsort((seat, episode))
    step = np.concatenate([[0], np.cumsum((np.diff(seat) <= 0) & (np.diff(episode) == 0))])
    columns = {"symbols": symbols[:, None], "label": labels, "episode": episode, "sender": seat, "step": step}
    return {name: values[order] for name, values in columns.items()}


def test_controls_are_the_same_whether_rows_stand_by_step_or_by_seat(tmp_path: Path) -> None:
    """Where seats are missing, controls of rows by step lose what lasts, and independent symbols seem to mean."""
    one, other = (RunFolder.read(written(tmp_path / str(by), {1: dying(by)})) for by in (True, False))
    assert findings.symbol_specialisation(one).findings[0] == findings.symbol_specialisation(other).findings[0]
    assert "no more than chance" in findings.symbol_specialisation(one).headline
    assert comparison._language(one) == comparison._language(other)
    by_label = [findings._by_label(run, 0, 3) for run in (one, other)]
    assert by_label[0].p_value == by_label[1].p_value > basics.LEVEL


def test_a_corpus_of_a_run_is_called_meaningless_where_seats_die(tmp_path: Path) -> None:
    rows = dying(True)
    corpus = read_corpus(written(tmp_path, {1: rows}))
    assert corpus.seats is not None
    ((told,), _) = measure(corpus, ["information"])
    assert told.p_value > basics.LEVEL
    assert np.bincount(corpus.seats).tolist() == np.bincount(rows["sender"]).tolist()
    as_one = corpus._replace(seats=None, speakers=None)
    assert measure(as_one, ["information"])[0][0].p_value <= basics.LEVEL


def two_rounds() -> dict[str, Any]:
    """Of each step a round of noise and a last one that tells the label; 4 worlds, 5 episodes, 5 steps, 2 seats."""
    world, episode, step, turn, seat = (axis.ravel() for axis in np.indices((4, 5, 5, 2, 2)))
    label = (world + 3 * episode + 7 * step + seat) % 4
    noise = np.random.default_rng(0).integers(0, 4, len(label))
    return {
        "world": world, "episode": episode, "step": step, "round": turn, "sender": seat, "label": label,
        "symbols": np.where(turn == 1, label + 4, noise)[:, None],
    }  # fmt: skip


def test_of_rounds_the_last_is_measured_everywhere_and_the_page_says_so(tmp_path: Path) -> None:
    folder = written(tmp_path, {10: two_rounds()})
    run, corpus = RunFolder.read(folder), read_corpus(folder)
    assert [run.talk.size, len(run.history.symbols), len(corpus.messages)] == [200] * 3
    assert min(run.talk.symbols.min(), run.history.symbols.min(), corpus.messages.min()) == 4
    assert "200 messages of the last round of each step, of iteration 10" in report._basis(run)
    assert corpus.notes == ("messages of iteration 10", "of the rounds of a step the last one's")
    assert corpus.table is not None
    assert len(corpus.table) == 400


def growing_shorter(last: int, labels: int = 2) -> dict[int, dict[str, Any]]:
    """Four checkpoints of 16 episodes of 6 steps; messages name the label three times, in the last one `last` times."""
    parts = {}
    for number in range(1, 5):
        episode, step = (axis.ravel() for axis in np.indices((16, 6)))
        label = (episode + step) % 2 + (labels if number == 4 else 0)
        times = last if number == 4 else 3
        said = [[int(name) % 2 + 1] * times + [0] for name in label]
        parts[number * 10] = {"episode": episode + 16 * number, "step": step, "label": label, "symbols": said}
    return parts


@pytest.mark.parametrize(("last", "bits"), [(3, 0.0), (1, 0.75)])
def test_messages_that_grow_shorter_have_drifted_by_the_positions_that_are_over(
    tmp_path: Path, last: int, bits: float
) -> None:
    """Of four positions two are over in the last checkpoint, and at one it ends: a bit each."""
    run = RunFolder.read(written(tmp_path, growing_shorter(last, labels=0), length=4, end_symbol=True))
    headline = findings.vocabulary_over_training(run).headline
    told = re.search(r"drifted (-?[\d.]+) bits above chance at the last step", headline)
    assert told is not None
    assert float(told[1]) == pytest.approx(bits, abs=0.1)
    assert ("it has not settled" in headline) == (bits > 0)


def test_where_the_last_checkpoints_have_no_label_in_common_the_report_says_so(tmp_path: Path) -> None:
    run = RunFolder.read(written(tmp_path, growing_shorter(3), length=4, end_symbol=True))
    section = findings.vocabulary_over_training(run)
    assert "not known, as the last two checkpoints have no label in common" in section.headline
    assert "settled" not in section.headline
    assert not any("nan" in finding for finding in section.findings)


def test_a_vocabulary_that_grows_is_as_large_as_it_was_in_the_last_iteration(tmp_path: Path) -> None:
    size = 400
    said = np.random.default_rng(0).integers(0, 8, (size, 1))
    rows = {"step": np.arange(size), "episode": np.zeros(size, int), "symbols": said}
    folder = written(tmp_path, {10: rows}, vocab_size=64)
    assert "8 of 64 symbols" in findings.symbol_use(RunFolder.read(folder)).headline
    progress.append(folder / "progress.jsonl", {"iteration": 9, "env_steps": 900, "channel/open_symbols": 4})
    progress.append(folder / "progress.jsonl", {"iteration": 10, "env_steps": 1000, "channel/open_symbols": 8})
    assert "8 of 8 symbols in use (100%)" in findings.symbol_use(RunFolder.read(folder)).headline
