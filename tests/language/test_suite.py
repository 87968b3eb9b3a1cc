"""The table of all metrics: what a corpus allows, and what its numbers are."""

from __future__ import annotations

import math
import re
from itertools import product
from pathlib import Path

import numpy as np
import pytest

import popcomm.language as language
from popcomm.errors import UserError
from popcomm.language.corpora import Corpus
from popcomm.language.suite import METRICS, measure

PAGE = Path(__file__).parents[2] / "docs" / "language.md"
GRID = np.array(list(product(range(6), repeat=2)))
NAMED = np.stack([GRID[:, 0], GRID[:, 1] + 6], 1)
# Two speakers tell every meaning by its attributes, three times each, and do what they say.
RULES = Corpus(
    np.tile(NAMED, (6, 1)),
    np.tile(GRID, (6, 1)),
    None,
    np.repeat([0, 1], 108),
    np.tile(GRID[:, 0], 6),
)


def numbers(corpus: Corpus, metrics: list[str] | None = None) -> dict[str, float]:
    return {row.name: row.value for row in measure(corpus, metrics)[0]}


def test_all_metrics_of_a_regular_language_are_at_their_best() -> None:
    rows, left_out = measure(RULES)
    assert left_out == []
    found = {row.name: row for row in rows}
    expected = {
        "information": np.log2(36), "speaker_consistency": np.log2(6), "topographic_similarity": 1.0,
        "positional_disentanglement": 1.0, "bag_of_symbols_disentanglement": 1.0, "tree_reconstruction_error": 0.0,
        "message_entropy": np.log2(36), "vocabulary.messages_per_meaning": 1.0, "vocabulary.ambiguity": 1.0,
        "inter_speaker_similarity": 1.0, "zipf_exponent": 0.0, "ngram_entropies.1": np.log2(12),
    }  # fmt: skip
    assert {name: found[name].value for name in expected} == pytest.approx(expected, abs=0.01)
    tested = [row for row in rows if not math.isnan(row.p_value) and not row.note]
    assert len(tested) == 7  # besides those of the best position, which are named
    assert all(row.p_value <= 0.05 for row in tested)
    assert found["law_of_abbreviation"].note == "all words are as common, so nothing can go with it"


def test_wholes_say_as_much_and_have_no_structure() -> None:
    names = np.random.default_rng(1).permutation(36)
    wholes = RULES._replace(messages=np.tile(np.stack([names // 6, names % 6 + 6], 1), (6, 1)))
    rows = {row.name: row for row in measure(wholes)[0]}
    assert rows["information"].value == pytest.approx(np.log2(36), abs=0.01)
    structure = ["topographic_similarity", "positional_disentanglement", "tree_reconstruction_error"]
    assert [rows[name].p_value > 0.05 for name in structure] == [True] * 3


def test_what_the_corpus_has_not_is_left_out_and_said_and_asking_for_it_is_an_error() -> None:
    rows, left_out = measure(Corpus(GRID))
    assert {row.name.partition(".")[0] for row in rows} == {name for name, m in METRICS.items() if not m.needs}
    assert "information needs meanings, and there are none" in left_out
    with pytest.raises(UserError, match="speaker_consistency needs actions"):
        measure(Corpus(GRID, GRID), ["speaker_consistency"])
    with pytest.raises(UserError, match="did you mean 'zipf_exponent'"):
        measure(RULES, ["zipf_exponents"])


def test_rows_of_a_series_are_compared_with_other_episodes() -> None:
    """Two slow series that have nothing to do with each other, as rows and as episodes."""
    rng = np.random.default_rng(3)
    said, seen = (np.repeat(rng.integers(0, 4, 40), 25) for _ in range(2))
    series = Corpus(said[:, None], seen[:, None], np.repeat(np.arange(40), 25))
    told, as_rows = (measure(c, ["information"])[0][0] for c in (series, series._replace(streams=None)))
    assert told.p_value > 0.05
    assert told.value < as_rows.value - 0.1  # which takes rows for independent


def test_one_attribute_has_no_similar_meanings_and_is_not_tested_for_structure() -> None:
    names = np.tile(np.arange(8), 6)
    rows = {row.name: row for row in measure(Corpus(np.stack([names, names * 0], 1), names[:, None]))[0]}
    for name in ("topographic_similarity", "positional_disentanglement", "tree_reconstruction_error"):
        assert math.isnan(rows[name].p_value)
        assert "one attribute" in rows[name].note
    assert rows["information.best_position"].value == pytest.approx(3.0)
    assert rows["information.best_position"].note == "position 1"
    assert rows["information.best_position"].p_value == 0.01


def test_rows_without_a_label_have_no_part_in_what_is_about_meanings() -> None:
    some = Corpus(np.array([[1], [2], [9]] * 30), np.array([[0], [1], [-1]] * 30))
    assert numbers(some, ["vocabulary"])["vocabulary.messages"] == 2
    assert numbers(some, ["message_entropy"])["message_entropy"] == pytest.approx(np.log2(3))


@pytest.mark.parametrize(
    "corpus",
    [
        Corpus(np.zeros((20, 2), int), GRID[:20], None, np.zeros(20, int), np.zeros(20, int)),
        Corpus(GRID[:20], np.zeros((20, 2), int), None, np.zeros(20, int), np.zeros(20, int)),
        Corpus(np.full((20, 1), -1), GRID[:20], np.zeros(20, int)),
        Corpus(np.array([[3]]), np.array([[4]]), None, np.array([0]), np.array([0])),
    ],
)
def test_no_number_is_nan_in_silence(corpus: Corpus) -> None:
    rows, _ = measure(corpus)
    assert [row.name for row in rows if math.isnan(row.value) and not row.note] == []
    assert {row.name for row in rows if math.isnan(row.value)} <= {"inter_speaker_similarity"}


def test_the_seed_repeats_it() -> None:
    some = ["information", "positional_disentanglement", "ease_of_teaching"]
    assert str(measure(RULES, some, seed=3)) == str(measure(RULES, some, seed=3))


def test_every_metric_is_a_function_and_a_line_of_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert set(METRICS) <= set(language.__all__)
    for name, metric in METRICS.items():
        assert f"| `{name}` |" in page, name
        assert all(paper in page for paper in re.split("; ", metric.source)), name
    assert [name for name in language.__all__ if f"`{name}`" not in page] == []
