"""Lineage: the table, the family tree, and a generation in numbers."""

import numpy as np
import pytest

from popcomm.evolution import COLUMNS, Generation, family_tree, lived, measures, succeeded
from popcomm.evolution.diversity import of_messages, of_weights
from popcomm.evolution.lineage import rows


def history() -> tuple[dict[str, np.ndarray], Generation]:
    """Three members: 1 replaces 0 and 2; then the child of place 0 replaces that of place 2."""
    first = lived(Generation.first(3), np.array([1.0, 5.0, 2.0]))
    sources = [np.array([1, 1, 1]), np.array([0, 1, 0])]
    second = lived(succeeded(first, sources[0]), np.array([7.0, 5.0, 1.0]))
    tables = [rows(first, sources[0]), rows(second, sources[1])]
    whole = {name: np.concatenate([t[name] for t in tables]) for name in COLUMNS}
    return whole, succeeded(second, sources[1])


def test_each_generation_has_a_row_for_each_member_and_tells_who_died_at_its_end() -> None:
    table, _ = history()
    assert table["generation"].tolist() == [0, 0, 0, 1, 1, 1]
    assert table["id"].tolist() == [0, 1, 2, 3, 1, 4]
    assert table["parent"].tolist() == [-1, -1, -1, 1, -1, 1]
    assert table["death"].tolist() == [0, -1, 0, -1, -1, 1]
    assert table["fitness"].tolist() == [1.0, 5.0, 2.0, 7.0, 5.0, 1.0]


def test_the_family_tree_goes_from_parents_to_children() -> None:
    tree = family_tree(history()[0])
    assert set(tree.edges) == {(1, 3), (1, 4)}
    assert tree.nodes[1] == {"birth": 0, "death": -1, "founder": 1, "fitness": 5.0}
    assert tree.nodes[4]["death"] == 1


def test_the_measures_of_a_selection() -> None:
    before = lived(Generation.first(4), np.array([1.0, 2.0, 3.0, np.nan]))
    told = measures(before, succeeded(before, np.array([2, 1, 2, 3])))
    assert (told.births, told.deaths, told.founders) == (1, 1, 3)
    assert told.effective_founders == pytest.approx(1 / (0.5**2 + 2 * 0.25**2))
    assert (told.age_mean, told.age_max) == (0.75, 1)
    assert told.fitness.tolist() == [1.0, 1.5, 2.0, 2.5, 3.0]


def test_one_line_is_one_effective_founder_and_nothing_known_is_no_number() -> None:
    before = Generation.first(3)
    told = measures(before, succeeded(before, np.zeros(3, int)))
    assert told.effective_founders == 1
    assert np.isnan(told.fitness).all()


def test_diversity_of_weights_is_0_of_clones_and_1_of_opposites() -> None:
    import torch

    weights = torch.randn(1, 20)
    assert of_weights([weights.expand(4, -1)]) == pytest.approx(0, abs=1e-6)
    assert of_weights([torch.cat([weights, -weights])]) == pytest.approx(1)
    assert of_weights([torch.zeros(2, 3)]) == 0


def test_diversity_of_messages_is_the_entropy_of_who_it_was_where_nobody_shares_a_symbol() -> None:
    assert of_messages(np.eye(4)) == pytest.approx(2.0)
    assert of_messages(np.full((3, 5), 0.2)) == pytest.approx(0.0)
    assert of_messages(np.array([[1.0, 0], [0, 1.0], [np.nan, np.nan]])) == pytest.approx(1.0)
    assert np.isnan(of_messages(np.full((2, 2), np.nan)))
