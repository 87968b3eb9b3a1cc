"""Agreement on words, against languages made by hand."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from popcomm.language.agreement import Agreement, jargon_agreement

# What is said of each label, a row for each member.
Lexicon = list[list[int]]


def spoken(lexicon: Lexicon, times: int = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every member names every label so often: words, labels, members."""
    rows = [(word, label, member) for member, said in enumerate(lexicon) for label, word in enumerate(said)]
    words, labels, members = np.array(rows * times).T
    return words, labels, members


def agreement(lexicon: Lexicon, **options: Any) -> Agreement:
    return jargon_agreement(*spoken(lexicon), num_labels=len(lexicon[0]), **options)


class TestLanguages:
    def test_a_shared_jargon_is_agreed_on_whatever_its_words(self) -> None:
        told = agreement([[5, 2**40, 9]] * 4)
        assert told.per_label.tolist() == [1, 1, 1]
        assert told.words.tolist() == [5, 2**40, 9]
        assert (told.mean, told.converged, told.distinct) == (1.0, True, 3)

    def test_private_words_leave_one_member_who_agrees_with_itself(self) -> None:
        told = agreement([[1, 2], [3, 4], [5, 6], [7, 8]])
        assert told.per_label.tolist() == [0.25, 0.25]
        assert not told.converged

    def test_one_word_for_everything_is_agreed_on_and_not_distinct(self) -> None:
        told = agreement([[6, 6, 6]] * 4)
        assert (told.mean, told.converged, told.distinct) == (1.0, True, 1)

    def test_the_majority_has_the_populations_word(self) -> None:
        told = agreement([[1, 9], [1, 9], [1, 8], [2, 7]])
        assert told.per_label.tolist() == [0.75, 0.5]
        assert told.words.tolist() == [1, 9]
        assert told.mean == 0.625

    def test_members_count_alike_however_much_they_say(self) -> None:
        # Member 0 says 5 a hundred times; 1 and 2 say 7 once.
        words = np.array([5] * 100 + [7, 7])
        told = jargon_agreement(words, np.zeros(102, int), np.array([0] * 100 + [1, 2]), 1)
        assert told.words.tolist() == [7]
        assert told.per_label.tolist() == [pytest.approx(2 / 3)]

    def test_a_members_word_is_the_one_that_it_says_most(self) -> None:
        words, members = np.array([3, 3, 4, 4, 4, 3]), np.array([0, 0, 0, 1, 1, 1])
        told = jargon_agreement(words, np.zeros(6, int), members, 1)
        assert told.per_label.tolist() == [0.5]

    def test_ties_go_to_the_smallest_word(self) -> None:
        members = np.array([0, 0, 1, 1])
        assert jargon_agreement(np.array([8, 3, 3, 8]), np.zeros(4, int), members, 1).words.tolist() == [3]
        assert agreement([[8], [3]]).words.tolist() == [3]

    @pytest.mark.parametrize(("threshold", "converged"), [(0.75, True), (0.76, False)])
    def test_the_threshold_is_met_by_the_worst_label(self, threshold: float, converged: bool) -> None:
        assert agreement([[1, 2], [1, 2], [1, 2], [1, 9]], threshold=threshold).converged is converged


class TestSilence:
    def test_the_mute_do_not_agree(self) -> None:
        told = agreement([[4], [4], [0], [0]])
        assert told.per_label.tolist() == [0.5]
        assert told.words.tolist() == [4]

    def test_nobody_agrees_where_nobody_speaks(self) -> None:
        told = agreement([[0, 5], [0, 5]])
        assert told.per_label.tolist() == [0, 1]
        assert told.words.tolist() == [0, 5]
        assert told.distinct == 1

    @pytest.mark.parametrize(("silent", "share"), [(2, 1.0), (3, 0.5)])
    def test_who_is_silent_more_than_half_the_time_has_no_word(self, silent: int, share: float) -> None:
        words = np.array([7, 7] + [7, 7] + [0] * silent)
        told = jargon_agreement(words, np.zeros_like(words), np.array([0, 0] + [1] * (2 + silent)), 1)
        assert told.per_label.tolist() == [share]

    def test_silence_does_not_compete_with_words(self) -> None:
        words, members = np.array([0, 0, 6, 5, 0, 6, 6, 5]), np.array([0] * 4 + [1] * 4)
        assert jargon_agreement(words, np.zeros(8, int), members, 1).words.tolist() == [5]


class TestOccasions:
    def test_who_never_saw_it_does_not_count(self) -> None:
        # Member 2 saw label 1 alone, and calls it otherwise.
        words, labels, members = np.array([4, 4, 6, 6, 9]), np.array([0, 0, 1, 1, 1]), np.array([0, 1, 0, 1, 2])
        assert jargon_agreement(words, labels, members, 2).per_label.tolist() == [1, pytest.approx(2 / 3)]

    def test_a_label_that_was_never_seen_is_unknown_and_nothing_has_converged(self) -> None:
        told = jargon_agreement(np.array([4, 4]), np.array([1, 1]), np.array([0, 1]), 2)
        assert np.isnan(told.per_label[0])
        assert told.per_label[1] == told.mean == 1
        assert not told.converged
        assert told.words.tolist() == [0, 4]

    def test_what_is_said_of_nothing_does_not_count(self) -> None:
        words, labels, members = np.array([4, 4, 9, 9, 9]), np.array([0, 0, -1, -1, -1]), np.array([0, 1, 0, 1, 1])
        assert jargon_agreement(words, labels, members, 1).words.tolist() == [4]

    def test_without_occasions_there_is_no_number(self) -> None:
        nothing = np.zeros(0, int)
        told = jargon_agreement(nothing, nothing, nothing, 2)
        assert np.isnan(told.per_label).all()
        assert np.isnan(told.mean)
        assert (told.converged, told.distinct, told.words.tolist()) == (False, 0, [0, 0])


def by_loops(words: np.ndarray, labels: np.ndarray, members: np.ndarray, num_labels: int) -> list[float]:
    """Agreement as its definition reads."""
    shares = []
    for label in range(num_labels):
        modes = []
        for member in np.unique(members[labels == label]):
            said = words[(labels == label) & (members == member)]
            heard = [w for w in said if w]
            word = min(set(heard), key=lambda w: (-heard.count(w), w)) if 2 * len(heard) >= len(said) else None
            modes.append(word if heard else None)
        known = [m for m in modes if m is not None]
        shares.append(max((known.count(m) for m in known), default=0) / len(modes) if modes else np.nan)
    return shares


corpora = st.integers(0, 40).flatmap(
    lambda m: st.tuples(
        st.lists(st.integers(0, 3), min_size=m, max_size=m),
        st.lists(st.integers(-1, 2), min_size=m, max_size=m),
        st.lists(st.integers(0, 3), min_size=m, max_size=m),
    )
)


class TestProperties:
    @settings(max_examples=200, deadline=None)
    @given(corpora)
    def test_it_is_its_definition(self, corpus: tuple[list[int], list[int], list[int]]) -> None:
        words, labels, members = (np.array(part, int) for part in corpus)
        told = jargon_agreement(words, labels, members, 3)
        np.testing.assert_allclose(told.per_label, by_loops(words, labels, members, 3))

    @settings(max_examples=50, deadline=None)
    @given(corpora, st.randoms(use_true_random=False))
    def test_the_order_of_occasions_and_the_names_of_members_do_not_matter(self, corpus: Any, random: Any) -> None:
        words, labels, members = (np.array(part, int) for part in corpus)
        order = np.array(random.sample(range(len(words)), len(words)), int)
        names = np.array(random.sample(range(100), 4))
        told = jargon_agreement(words, labels, members, 3)
        other = jargon_agreement(words[order], labels[order], names[members][order], 3)
        np.testing.assert_array_equal(told.per_label, other.per_label)
        np.testing.assert_array_equal(told.words, other.words)

    @pytest.mark.parametrize("renamed", [np.array([0, 9, 4, 2**50]), np.array([0, 3, 2, 1])])
    def test_agreement_does_not_depend_on_which_words_are_used(self, renamed: np.ndarray) -> None:
        # Split votes among two members, for all pairs of lexicons.
        for said in product(range(1, 4), repeat=4):
            words, labels, members = spoken([list(said[:2]), list(said[2:])])
            told, other = (jargon_agreement(w, labels, members, 2) for w in (words, renamed[words]))
            np.testing.assert_array_equal(told.per_label, other.per_label)


class TestMistakes:
    def test_arrays_that_do_not_fit_are_refused(self) -> None:
        with pytest.raises(ValueError, match="must all be"):
            jargon_agreement(np.zeros(3, int), np.zeros(2, int), np.zeros(3, int), 1)

    def test_labels_that_do_not_exist_are_refused(self) -> None:
        with pytest.raises(ValueError, match="labels reach 5, and must be below 2"):
            jargon_agreement(np.ones(2, int), np.array([0, 5]), np.zeros(2, int), 2)
