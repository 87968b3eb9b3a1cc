"""Information whose bits are known, over a grid of sizes, and data in which there is none."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pytest

import popcomm.language as language
from popcomm.errors import UserError
from popcomm.language import basics
from popcomm.language.mutual_information import information

Rng = np.random.Generator


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def slow(rng: Rng, classes: int, stay: float, streams: int, steps: int) -> np.ndarray:
    """Series [S, T] that keep their class with a probability, and draw another one otherwise."""
    series = rng.integers(classes, size=(streams, steps))
    for t in range(1, steps):
        kept = rng.random(streams) < stay
        series[kept, t] = series[kept, t - 1]
    return series


def synonyms(rng: Rng, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Three labels, each with 21 words of its own."""
    labels = rng.integers(3, size=rows)
    return labels * 21 + rng.integers(21, size=rows), labels


def noisy(rng: Rng, rows: int, classes: int, clear: float) -> tuple[np.ndarray, np.ndarray]:
    labels = rng.integers(classes, size=rows)
    return np.where(rng.random(rows) < clear, labels, rng.integers(classes, size=rows)), labels


def noisy_bits(classes: int, clear: float) -> float:
    p = np.full(classes, (1 - clear) / classes)
    p[0] += clear
    return float(np.log2(classes) + (p * np.log2(p)).sum())


@pytest.mark.parametrize("rows", [50, 100, 300])
def test_all_bits_are_found_where_words_are_many_and_rows_are_few(rows: int) -> None:
    """Plug-in less the mean over permutations has .43, .71 and 1.22 of the 1.58 bits."""
    rng = np.random.default_rng(rows)
    found = [information(*synonyms(rng, rows), streams=range(rows), shuffles=30, seed=s) for s in range(5)]
    assert np.mean(found) == pytest.approx(np.log2(3), abs=0.05)
    assert all(told.interval.low <= np.log2(3) <= told.interval.high + 1e-9 for told in found)
    assert all(told.p_value == pytest.approx(1 / 31) for told in found)


@pytest.mark.parametrize("rows", [50, 100, 300, 1000])
def test_nothing_is_found_on_average_where_there_is_nothing(rows: int) -> None:
    """The plug-in estimate has 1.15 bits at 50 rows."""
    rng = np.random.default_rng(rows)
    found = [
        information(rng.integers(64, size=rows), rng.integers(3, size=rows), range(rows), shuffles=30, seed=s)
        for s in range(12)
    ]
    assert abs(np.mean(found)) < 0.1
    assert all(told.interval.low == 0.0 < told.interval.high for told in found)
    assert found[0].plug_in > 0.05


@pytest.mark.parametrize("rows", [100, 300, 1000])
@pytest.mark.parametrize(("classes", "clear"), [(16, 0.8), (8, 0.5), (4, 0.9)])
def test_noisy_codes_are_within_a_tenth_whatever_the_number_of_rows(rows: int, classes: int, clear: float) -> None:
    rng, truth = np.random.default_rng(rows), noisy_bits(classes, clear)
    found = [information(*noisy(rng, rows, classes, clear), range(rows), shuffles=30, seed=s) for s in range(8)]
    assert np.mean(found) == pytest.approx(truth, rel=0.1, abs=0.05)
    assert sum(told.interval.low <= truth <= told.interval.high for told in found) >= 6


def test_independent_slow_series_are_called_meaningful_as_often_as_the_level_says() -> None:
    """200 languages: 10 of them are expected below .05, and more than 20 come once in a thousand."""
    rng, by_stream, as_one = np.random.default_rng(1), 0, 0
    streams = np.repeat(np.arange(24), 30)
    for seed in range(200):
        symbols, labels = slow(rng, 16, 0.9, 24, 30).ravel(), slow(rng, 8, 0.9, 24, 30).ravel()
        by_stream += _p_value(symbols, labels, streams, seed) <= 0.05
        as_one += _p_value(symbols, labels, None, seed) <= 0.05
    assert by_stream <= 20
    assert as_one <= 20


def _p_value(symbols: np.ndarray, labels: np.ndarray, streams: np.ndarray | None, seed: int) -> float:
    return basics.label_information(symbols[:, None], labels, shuffles=19, seed=seed, streams=streams).p_value


def missing_seats(rng: Rng, deaths: bool) -> tuple[np.ndarray, ...]:
    """Messages, labels, episodes and seats of 4 seats in 24 episodes of 30 steps, by step and then by seat, as they are
    recorded; all slow and independent. Seats die at some step, or are silent in four of ten."""
    symbols, labels = (slow(rng, classes, 0.9, 24 * 4, 30).reshape(24, 4, 30) for classes in (8, 3))
    there = np.arange(30) < rng.integers(1, 31, (24, 4, 1)) if deaths else rng.random((24, 4, 30)) < 0.6
    episode, step, seat = np.nonzero(there.swapaxes(1, 2))
    return symbols[episode, seat, step], labels[episode, seat, step], episode, seat


@pytest.mark.parametrize("deaths", [True, False])
def test_independent_series_are_not_called_meaningful_where_seats_die_or_are_silent(deaths: bool) -> None:
    """Of 60 languages 3 are expected at .05 or below; by step and then by seat it would be 40."""
    rng, by_position, whole = np.random.default_rng(3), 0, 0
    for seed in range(60):
        symbols, labels, episodes, seats = missing_seats(rng, deaths)
        told = basics.label_information(symbols[:, None], labels, shuffles=19, seed=seed, streams=episodes, seats=seats)
        by_position += told.p_value <= 0.05
        whole += information(symbols, labels, episodes, shuffles=19, seed=seed, seats=seats).p_value <= 0.05
    assert by_position <= 9
    assert whole <= 9


def test_seats_stand_one_after_another_in_whatever_order_their_rows_come() -> None:
    symbols, labels, episodes, seats = missing_seats(np.random.default_rng(4), True)
    order = np.lexsort((seats, episodes))
    settings = {"shuffles": 19, "seed": 0}
    sorted_rows = information(symbols[order], labels[order], episodes[order], **settings)
    assert information(symbols, labels, episodes, seats=seats, **settings).p_value == sorted_rows.p_value
    with pytest.raises(UserError, match="and 1 seats"):
        information([1, 2, 3], [1, 2, 3], seats=[1])


def test_a_slow_code_is_found_in_every_one_of_twenty_languages() -> None:
    rng, streams = np.random.default_rng(2), np.repeat(np.arange(24), 40)
    for seed in range(20):
        labels = slow(rng, 8, 0.9, 24, 40).ravel()
        symbols = np.where(rng.random(len(labels)) < 0.5, labels, rng.integers(8, size=len(labels)))
        told = information(symbols, labels, streams, shuffles=19, seed=seed)
        assert told.p_value == 0.05
        assert told.bits == pytest.approx(noisy_bits(8, 0.5), abs=0.25)


def test_bits_by_position_do_not_shrink_with_the_rows_either() -> None:
    """What the report and the training call bits above chance: 1.58 were .45 at 100 rows."""
    symbols, labels = synonyms(np.random.default_rng(0), 100)
    told = basics.label_information(symbols[:, None], labels, streams=np.arange(100))
    assert told.adjusted == pytest.approx(np.log2(3), abs=0.1)
    assert told.bits - told.chance < 0.9
    mean = basics.label_information(np.stack([symbols, symbols * 0], 1), labels, "mean", streams=np.arange(100))
    assert mean.adjusted == pytest.approx(np.log2(3) / 2, abs=0.1)


def test_whole_messages_are_one_thing_and_meanings_may_have_attributes() -> None:
    """Exclusive or: no symbol tells the label, and the message does."""
    messages = np.random.default_rng(0).integers(0, 2, (400, 2))
    labels = messages[:, 0] ^ messages[:, 1]
    assert information(messages, labels, range(400)).bits == pytest.approx(1.0, abs=0.02)
    assert basics.label_information(messages, labels, streams=np.arange(400)).adjusted < 0.05
    assert information(messages, messages[:, ::-1], range(400)).bits == pytest.approx(2.0, abs=0.03)
    assert information(labels, [["a", "b"][i] for i in labels], range(400)).bits == pytest.approx(1.0, abs=0.02)


def test_a_number_of_bits_is_a_number() -> None:
    labels = np.random.default_rng(0).integers(0, 2, 200)
    told = information(labels, labels, range(200))
    assert told == told.bits
    assert told + 1 == pytest.approx(2.0, abs=0.01)
    assert (told.samples, told.most) == (200, pytest.approx(1.0, abs=0.02))


@pytest.mark.parametrize(
    ("messages", "labels", "note"),
    [
        (np.zeros((50, 2), int), np.arange(50) % 5, "all messages are the same"),
        (np.arange(50) % 5, np.zeros(50, int), "all labels are the same"),
        (np.arange(50), np.arange(50), "hardly two rows are alike"),
        ([[3]], [1], "all messages are the same"),
    ],
)
def test_what_cannot_be_told_is_nothing_and_says_why(messages: object, labels: object, note: str) -> None:
    told = information(messages, labels)  # type: ignore[arg-type]
    assert (told.bits, told.p_value) == (0.0, 1.0)
    assert note in told.note
    assert told.interval.low == 0.0 <= told.interval.high


def test_rows_without_a_label_are_left_out_and_without_any_it_is_an_error() -> None:
    labels = np.tile([0, 1, -1], 60)
    assert information(labels + 1, labels).samples == 120
    with pytest.raises(UserError, match="no message has a label"):
        information(labels + 1, labels * 0 - 1)
    with pytest.raises(UserError, match="3 messages, 2 labels, 3 streams and 3 seats"):
        information([1, 2, 3], [1, 2])


def test_the_seed_repeats_it_and_the_cap_limits_it() -> None:
    symbols, labels = noisy(np.random.default_rng(0), 500, 8, 0.5)
    told = information(symbols, labels, cap=100, seed=3)
    assert told.samples == 100
    assert told == information(symbols, labels, cap=100, seed=3)
    assert told != information(symbols, labels, cap=100, seed=4)


def test_signalling_consistency_and_coordination_are_information_about_what_they_are_named_for() -> None:
    rng = np.random.default_rng(0)
    seen, said = rng.integers(0, 4, 400), rng.integers(0, 9, (400, 2))
    said[:, 0] = seen
    said[:, 1] = 0
    guided = (seen + 1) % 4
    assert language.positive_signalling(said, seen, range(400)).bits == pytest.approx(2.0, abs=0.02)
    assert language.speaker_consistency(said, guided, range(400)).bits == pytest.approx(2.0, abs=0.02)
    unmoved = language.instantaneous_coordination(said, rng.integers(0, 4, 400), range(400))
    assert unmoved.bits < 0.1
    assert unmoved.p_value > 0.05
