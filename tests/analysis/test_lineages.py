"""The report of survival: the family tree, and whether lines speak alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from popcomm.analysis import lineages
from popcomm.analysis.lineages import Lineage, likeness
from popcomm.analysis.report import write_report

from popcomm.evolution import COLUMNS, Generation, lineage_file, lived, succeeded
from popcomm.evolution.lineage import rows
from tests.analysis.synthetic_run import make_run

P = 4


def write(folder: Path, *successions: list[int]) -> None:
    """A lineage of members whose fitness is their place."""
    generation, parts = Generation.first(P), []
    for sources in successions:
        generation = lived(generation, np.arange(P, dtype=float))
        parts.append(rows(generation, np.array(sources)))
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


def test_a_run_without_selection_says_nothing_of_it(tmp_path: Path) -> None:
    page = write_report(make_run(tmp_path / "run", iterations=6, steps=8)).read_text()
    assert "Survival of" not in page
