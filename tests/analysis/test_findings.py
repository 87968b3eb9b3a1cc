"""What a report says of conversations whose answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from popcomm.analysis import comparison, findings, report
from popcomm.analysis.run_folder import RunFolder

from popcomm.language import basics
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
