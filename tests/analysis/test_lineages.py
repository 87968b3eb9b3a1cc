"""The report of survival: the family tree, and whether lines speak alike."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from popcomm.analysis import lineages
from popcomm.analysis.lineages import Lineage, likeness
from popcomm.analysis.report import write_report
from popcomm.analysis.run_folder import RunFolder

from popcomm.evolution import COLUMNS, Generation, lineage_file, lived, succeeded
from popcomm.evolution.lineage import rows
from popcomm.language.recording import conversation_path, write_conversations
from tests.analysis.synthetic_run import make_run

P = 4


def write(folder: Path, *successions: list[int], ends: list[int] | None = None) -> None:
    """A lineage of members whose fitness is their place. ends: iterations of the generations; None: 1, 2, ..."""
    generation, parts = Generation.first(P), []
    for sources, end in zip(successions, ends or range(1, 1 + len(successions)), strict=True):
        generation = lived(generation, np.arange(P, dtype=float))
        parts.append(rows(generation, np.array(sources), end))
        generation = succeeded(generation, np.array(sources))
    parts.append(rows(generation, np.arange(P)))
    table = {name: np.concatenate([part[name] for part in parts]) for name in COLUMNS}
    lineage_file.write(folder, {"species": np.full(len(table["id"]), "swarm", object), **table})


def test_a_lineage_is_read_as_it_was_written(tmp_path: Path) -> None:
    write(tmp_path, [3, 1, 2, 3], [0, 0, 2, 3])
    (lineage,) = Lineage.read(tmp_path)
    assert lineage.ids.tolist() == [[0, 1, 2, 3], [4, 1, 2, 3], [4, 5, 2, 3]]
    assert lineage.founders[-1].tolist() == [3, 3, 2, 3]
    assert lineage.order.tolist() == [0, 1, 3, 2]  # the line of three first
    assert next(iter(lineage.colours())) == 3


def test_each_life_is_a_bar_that_tells_whose_it_was(tmp_path: Path) -> None:
    write(tmp_path, [3, 1, 2, 3], [0, 0, 2, 3])
    (lineage,) = Lineage.read(tmp_path)
    chart = lineages.chart(lineage)
    assert chart is not None
    assert sorted((m.left, m.row, m.width) for m in chart.marks) == [
        (0, 0, 1), (0, 1, 2), (0, 2, 3), (0, 3, 3), (1, 0, 2), (2, 1, 1),
    ]  # fmt: skip
    told = {m.text for m in chart.marks}
    assert (
        "member 4, child of 3, line of 3; born in generation 1, still alive; fitness 0" in told
    )  # on place 0, whose fitness is 0
    assert "member 0, founder, line of 0; born in generation 0, replaced after generation 0; fitness 0" in told


def test_a_tree_with_too_many_lives_has_no_bars(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, [3, 1, 2, 3])
    monkeypatch.setattr(lineages, "MOST_MARKS", 4)
    assert lineages.chart(Lineage.read(tmp_path)[0]) is None


def test_likeness_is_1_of_the_same_words_and_0_of_different_ones_for_the_same_thing() -> None:
    members = np.repeat([0, 1, 2], 20)
    labels = np.tile(np.repeat([0, 1], 10), 3)
    # 0 and 1 have one word for each label, 2 has them the other way round.
    symbols = np.concatenate([labels[:20], labels[:20], 1 - labels[:20]])[:, None]
    found = likeness(members, symbols, labels, 4)
    assert found[0, 1] == pytest.approx(1)
    assert found[0, 2] == 0
    assert np.isnan(found[3]).all()


def test_likeness_of_half_shared_words() -> None:
    members, labels = np.repeat([0, 1], 10), np.zeros(20, int)
    symbols = np.concatenate([np.zeros(10, int), np.tile([0, 1], 5)])[:, None]
    assert likeness(members, symbols, labels, 2)[0, 1] == pytest.approx(np.sqrt(0.5))


def test_a_run_with_selection_has_its_family_tree_in_the_report(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", agents=P, members=P, iterations=6, steps=8)
    write(run, [3, 1, 2, 3], [0, 0, 2, 3])
    page = write_report(run).read_text()
    assert "Survival of &#39;swarm&#39;: 2 selections, 2 births; 2 lines of 4 are left" in page
    assert "as diverse as 1.6 of equal size" in page
    assert page.count("<rect") == 6
    assert "Do lines have languages of their own?" in page


def talk(folder: Path, *said: tuple[int, list[int]]) -> None:
    """Conversations: in iterations, ten times, members who see one thing and say a word of it each, by their places."""
    shutil.rmtree(folder / "conversations")
    for iteration, words in said:
        step, member = (a.ravel() for a in np.meshgrid(np.arange(10), np.arange(P), indexing="ij"))
        same = {"world": 0, "episode": iteration, "label": 0, "reward": 0.0, "iteration": iteration}
        columns = {name: np.full(len(step), value) for name, value in same.items()}
        columns |= {"env_steps": step, "step": step, "sender": member, "member": member}
        columns |= {"species": ["swarm"] * len(step), "symbols": np.array(words)[member][:, None]}
        write_conversations(conversation_path(folder, iteration), columns, None)


def of_speech(folder: Path) -> str:
    return lineages.sections(RunFolder.read(folder))[-1].findings[0]


def test_what_a_predecessor_said_on_a_place_is_not_what_its_newborn_says(tmp_path: Path) -> None:
    """Place 1 said word 1, was replaced by place 0's child, and says 0 now."""
    run = make_run(tmp_path / "run", agents=P, members=P)
    write(run, [0, 0, 2, 3], ends=[5])
    talk(run, (5, [0, 1, 2, 3]), (6, [0, 0, 2, 3]))
    assert of_speech(run) == (
        "Of those who live, members of one line have 1.00 of what they say in common (1 pair), those of different "
        "lines 0.00 (5 pairs); 1 is the same symbols as often of the same things."
    )


def test_newborns_that_said_nothing_yet_are_compared_with_nobody(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", agents=P, members=P)
    write(run, [0, 0, 2, 2], ends=[5])
    talk(run, (4, [0, 1, 2, 3]), (5, [0, 1, 2, 3]))
    assert of_speech(run) == (
        "Of those who live, only members of different lines could be compared: they have 0.00 of what they say in "
        "common (1 pair)."
    )
    write(run, [0, 0, 0, 0], ends=[5])
    assert of_speech(run) == "No two members were recorded often enough of the same things to be compared."


def test_generations_are_told_by_the_iterations_at_which_they_ended(tmp_path: Path) -> None:
    """`every` was 2, and 5 after a resumption."""
    write(tmp_path, [0, 0, 2, 3], [0, 1, 0, 3], ends=[2, 7])
    (lineage,) = Lineage.read(tmp_path)
    assert lineage.who(np.array([1, 2, 3, 7, 8]), np.array([1, 1, 1, 2, 2])).tolist() == [1, 1, 4, 2, 5]


def test_what_an_heirs_folder_holds_of_the_population_before_is_not_its_language(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", agents=P, members=P)
    write(run, [0, 0, 2, 3], ends=[3])
    talk(run, (5, [0, 1, 2, 3]), (6, [0, 0, 2, 3]))
    (run / "origin.json").write_text(json.dumps({"source": "00001", "iteration": 5, "generation": 1}))
    assert "members of one line have 1.00 of what they say in common" in of_speech(run)


def test_messages_that_end_early_are_alike_where_they_end_alike() -> None:
    members, labels = np.repeat([0, 1, 2], 10), np.zeros(30, int)
    symbols = np.repeat([[0, -1], [0, -1], [0, 0]], 10, axis=0)
    found = likeness(members, symbols, labels, 3)
    assert found[0, 1] == pytest.approx(1)
    assert found[0, 2] == found[1, 2] == pytest.approx(0.5)


def test_a_run_without_selection_says_nothing_of_it(tmp_path: Path) -> None:
    page = write_report(make_run(tmp_path / "run", iterations=6, steps=8)).read_text()
    assert "Survival of" not in page
