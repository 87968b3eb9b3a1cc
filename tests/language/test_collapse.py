"""Signs of collapse on curves made by hand: each where it is, none where a language is alive."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from popcomm.language.collapse import (
    ASKED,
    PATIENCE,
    SIGNS,
    Measures,
    Watch,
    episodes,
    messages_per_speaker,
    observe,
    replay,
)

HEALTHY = Measures(messages=4.0, listening=0.3, entropy=0.4)


def signs(series: list[Measures]) -> list[set[str]]:
    """Those that hold in each iteration."""
    watch, held = Watch(), []
    for measures in series:
        watch, now = observe(watch, measures)
        held.append(set(now))
    return held


def learning(iterations: int, noise: float = 0.5, seed: int = 0) -> np.ndarray:
    """A return that rises from 0 to 10."""
    rise = 10 * (1 - np.exp(-np.arange(iterations) / 30))
    return rise + noise * np.random.default_rng(seed).normal(size=iterations)


@pytest.mark.parametrize("seed", range(20))
def test_a_noisy_healthy_curve_raises_no_alarm(seed: int) -> None:
    """It starts as networks do: speakers choose nearly uniformly, and listeners hardly react. It ends without entropy,
    since a good code needs none."""
    rng = np.random.default_rng(seed)
    series = [
        Measures(
            messages=4 + rng.normal() * 0.3,
            listening=0.001 if i < PATIENCE - 1 else 0.2 + 0.05 * rng.normal(),
            entropy=max(0.0, 1 - i / 100),
            returns=value,
            agreement=0.5 + 0.3 * i / 400 + 0.05 * rng.normal(),
        )
        for i, value in enumerate(learning(400, noise=2.0, seed=seed))
    ]
    assert not set().union(*signs(series))


@pytest.mark.parametrize("repeats", [1, 5])
def test_noise_alone_is_nothing_that_can_be_lost(repeats: int) -> None:
    """Also where a value stands for five iterations, because no episode ended in the others."""
    for seed in range(40):
        noise = np.random.default_rng(seed).normal(size=1000 // repeats).repeat(repeats)
        assert not set().union(*signs([HEALTHY._replace(returns=value) for value in noise]))


def test_a_constant_speaker_is_told_at_once() -> None:
    assert signs([HEALTHY, HEALTHY._replace(messages=1.05), HEALTHY]) == [set(), {"constant_speaker"}, set()]


def test_a_deaf_listener_is_told_after_patience() -> None:
    series = [HEALTHY] + [HEALTHY._replace(listening=0.001 + 1e-6 * i) for i in range(PATIENCE)] + [HEALTHY]
    held = signs(series)
    assert held[PATIENCE - 1 :] == [set(), {"deaf_listener"}, set()]


def test_a_measurement_that_stands_for_many_iterations_is_one() -> None:
    standing = [HEALTHY._replace(listening=value) for value in np.linspace(0.001, 0.002, ASKED).repeat(10)]
    held = signs(standing)
    first = held.index({"deaf_listener"})
    assert first == 10 * (ASKED - 1)


def test_a_measurement_stands_for_the_iterations_in_which_nobody_was_asked() -> None:
    asked = [HEALTHY._replace(listening=value) for value in np.linspace(0.001, 0.002, ASKED)]
    held = signs([m for one in asked for m in (one, *[HEALTHY._replace(listening=math.nan)] * 9)])
    assert held.index({"deaf_listener"}) == 10 * (ASKED - 1)


def test_listeners_that_do_not_read_at_all_are_deaf() -> None:
    assert signs([HEALTHY._replace(listening=0.0)] * PATIENCE)[-1] == {"deaf_listener"}


def test_iterations_without_a_measurement_say_nothing() -> None:
    """They neither count nor begin anew."""
    noisy, gap = HEALTHY._replace(entropy=1.0), HEALTHY._replace(entropy=math.nan)
    held = signs([noisy] * (PATIENCE - 1) + [gap] * PATIENCE + [noisy])
    assert held[-2:] == [set(), {"entropy_maximum"}]
    assert not signs([Measures()] * 100)[-1]


def test_speakers_at_the_most_entropy_tell_nothing() -> None:
    assert signs([HEALTHY._replace(entropy=0.995)] * PATIENCE)[-2:] == [set(), {"entropy_maximum"}]
    assert not signs([HEALTHY._replace(entropy=0.98)] * 100)[-1]


@pytest.mark.parametrize(("gain", "expected"), [(0.0, {"entropy_zero"}), (20.0, set())])
def test_no_entropy_is_a_sign_only_where_nothing_was_gained(gain: float, expected: set[str]) -> None:
    noise = np.random.default_rng(3).normal(size=100)
    rise = np.clip((np.arange(100) - 10) / 20, 0, 1) * gain
    assert signs([HEALTHY._replace(entropy=0.0, returns=value) for value in rise + noise])[-1] == expected


def test_no_return_is_no_return_that_has_not_risen() -> None:
    assert not signs([HEALTHY._replace(entropy=0.0)] * 100)[-1]


@pytest.mark.parametrize(("rest", "lost"), [(0.3, True), (0.7, False)])
def test_a_return_that_falls_by_half_of_its_gain_is_lost(rest: float, lost: bool) -> None:
    """From -20 to -10, and back to the given share of the gain: half of the gain counts, not half of the number."""
    values = np.concatenate([np.full(10, -20.0), np.linspace(-20, -10, 30), np.full(30, -10.0)])
    values = np.concatenate([values, np.full(60, -20 + 10 * rest)])
    values += 0.2 * np.random.default_rng(1).normal(size=len(values))
    watch, told = Watch(), []
    for value in values:
        watch, held = observe(watch, HEALTHY._replace(returns=float(value)))
        told.append(held.get("protocol_lost", ""))
    assert bool(told[-1]) == lost
    assert not any(told[: 70 + PATIENCE])
    if lost:
        from_to = f"{watch.returns.best:.3g} to {values[-20:].mean():.2g}"
        assert told[-1] == f"the language was lost: return per world fell from {from_to}"


def uneven(values: list[float], size: float = 0.01) -> list[float]:
    """The same, with some noise: values that repeat count as not measured anew."""
    return (values + size * np.random.default_rng(0).normal(size=len(values))).tolist()


def test_what_comes_back_is_lost_no_more() -> None:
    values = uneven([0.0] * 10 + [10.0] * 40 + [0.0] * 50 + [10.0] * 20)
    held = signs([HEALTHY._replace(returns=value) for value in values])
    assert held[99] == {"protocol_lost"}
    assert held[-1] == set()


def test_a_short_fall_is_not_yet_a_loss() -> None:
    values = uneven([0.0] * 10 + [10.0] * 40 + [0.0] * (PATIENCE - 5) + [10.0] * 20)
    assert not set().union(*signs([HEALTHY._replace(returns=value) for value in values]))


def test_agreement_is_watched_like_the_return() -> None:
    values = uneven([0.2] * 10 + [0.8] * 40 + [0.2] * 60, 0.001)
    watch = Watch()
    for value in values:
        watch, held = observe(watch, HEALTHY._replace(agreement=value))
    assert held == {"protocol_lost": "the language was lost: agreement fell from 79% to 20%"}


def test_a_gain_is_measured_in_deviations_of_single_values() -> None:
    values = np.random.default_rng(0).normal(0.0, 3.0, 2000)
    watch = Watch()
    for value in values:
        watch, _ = observe(watch, HEALTHY._replace(returns=value))
    curve = watch.returns
    assert curve.deviation == pytest.approx(3.0, rel=0.25)  # the last fifty or so count
    assert curve.start == pytest.approx(values[:5].mean())
    assert curve.gain == pytest.approx((curve.best - curve.start) / curve.deviation)


def row(measures: Measures) -> dict[str, Any]:
    return {
        "language/messages_per_speaker": measures.messages,
        "language/listening": measures.listening,
        "language/message_entropy_share": measures.entropy,
        "charts/episodic_return": None if math.isnan(measures.returns) else measures.returns,
    }


def test_a_progress_that_is_read_again_gives_the_state_that_there_was() -> None:
    series = [HEALTHY._replace(listening=0.001 * i, returns=v) for i, v in enumerate(learning(60))]
    watch = Watch()
    for measures in series:
        watch, _ = observe(watch, measures)
    again = replay(row(measures) for measures in series)
    assert again == watch
    # What has not happened yet in the first half does not show.
    assert replay(row(m) for m in series[:30]) != watch


def test_episodes_say_when_a_sign_held() -> None:
    dead = HEALTHY._replace(messages=1.0)
    found = episodes(map(row, [HEALTHY] * 3 + [dead] * 2 + [HEALTHY] * 4 + [dead] * 5))
    assert [(e.sign, e.first, e.last) for e in found] == [("constant_speaker", 3, 4), ("constant_speaker", 9, 13)]
    assert found[0].sign in SIGNS


def test_two_speakers_with_a_word_each_have_one_message_each() -> None:
    messages, speakers = np.array([[1, 2], [3, 4]]).repeat(40, 0), np.array([0, 1]).repeat(40)
    assert messages_per_speaker(messages, speakers) == 1.0
    # Of whole messages: one speaker says both.
    assert messages_per_speaker(messages, np.zeros(80, int)) == pytest.approx(2.0)


def test_speakers_count_by_their_messages() -> None:
    """H = 30 / 50 of one bit."""
    messages = np.array([[0]] * 20 + [[1]] * 15 + [[2]] * 15)
    assert messages_per_speaker(messages, np.array([0] * 20 + [1] * 30)) == pytest.approx(2**0.6)


def test_few_messages_tell_nothing() -> None:
    messages = np.zeros((40, 1), int)
    assert math.isnan(messages_per_speaker(messages, np.arange(40)))
    assert math.isnan(messages_per_speaker(messages[:20], np.zeros(20, int)))
    assert math.isnan(messages_per_speaker(messages[:0], np.zeros(0, int)))
