"""Does a vocabulary settle: change above stillness where it is known, checkpoints, verdicts, and the page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from popcomm.analysis.experiments import vocabulary_settling as settling
from popcomm.analysis.experiments.frame import markdown
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.vocabulary_settling import EXPERIMENT, above_stillness, checkpoints

from popcomm.language.distributions import jensen_shannon

EVEN, HALF = np.full(8, 1 / 8), np.array([1 / 4] * 4 + [0] * 4)


def distance(p: np.ndarray, q: np.ndarray) -> float:
    return float(jensen_shannon(p, q))


def sample(shares: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    return rng.multinomial(size, shares)


def test_what_does_not_change_is_not_above_stillness_however_small_its_samples() -> None:
    rng = np.random.default_rng(0)
    for size in (10, 100):
        found = [
            above_stillness(distance, *([sample(EVEN, size, rng) for _ in range(2)] for _ in range(2)))
            for _ in range(300)
        ]
        assert abs(np.mean(found)) < 4 * np.std(found) / np.sqrt(300)


def test_what_changes_is_above_it_by_its_divergence() -> None:
    rng = np.random.default_rng(0)
    found = [
        above_stillness(distance, [sample(EVEN, 2000, rng) for _ in range(2)], [sample(HALF, 2000, rng) for _ in "ab"])
        for _ in range(20)
    ]
    assert np.mean(found) == pytest.approx(distance(EVEN, HALF), abs=0.01)


def test_checkpoints_are_even_in_the_logarithm_and_end_with_the_last() -> None:
    found = checkpoints(settling.EPISODES)
    assert found[-1] == settling.EPISODES
    assert found[0] <= 1.5 * settling.FIRST
    assert np.diff(np.log2(found)) == pytest.approx(0.5, abs=0.01)
    assert checkpoints(settling.FIRST) == [settling.FIRST]


def test_two_samples_of_a_checkpoint_are_never_the_same() -> None:
    seeds = [seed for page in range(20) for seed in settling.seeds_of(1, page)]
    assert len(set(seeds)) == 40


def games(names: np.ndarray, noise: float, rng: np.random.Generator) -> dict[str, Any]:
    """A checkpoint of a pair with a one-symbol message for each of M meanings, some of its draws being others."""
    drawn = np.where(rng.random((2, len(names), 64)) < noise, rng.integers(9, size=(2, len(names), 64)), names[:, None])
    return {"said": names[:, None], "drawn": list(drawn[..., None].astype(np.int16)), "score": 0.9}


def test_a_language_that_wobbles_is_still_and_one_that_renames_moves() -> None:
    rng = np.random.default_rng(0)
    names = np.arange(20) % 9
    pages = [games(names, 0.3, rng) for _ in range(3)] + [games((names + 1) % 9, 0.3, rng)]
    found = settling.of_games(pages)
    assert found["renamed"].tolist() == [0, 0, 1]
    assert found["from end"].tolist() == [1, 1, 1]
    assert np.abs(found["drift"][:2]).max() < 0.02
    assert found["drift"][2] > 0.3
    assert all(0.02 < still < 0.2 for still in found["stillness"]), "samples of the same differ, too"


def swarm(turn: int, rng: np.random.Generator) -> dict[str, Any]:
    """Scouts say the label in the first symbol, moved by `turn`, and the second and third mean nothing."""

    def one() -> Any:
        labels = rng.integers(16, size=600)
        symbols = rng.integers(settling.SYMBOLS, size=(600, 3))
        symbols[:, 0] = (labels + turn) % settling.SYMBOLS
        return symbols, labels, np.arange(600) // 12

    return {"samples": [one(), one()], "score": 5.0}


def test_of_a_swarm_the_symbols_on_a_label_are_followed() -> None:
    rng = np.random.default_rng(0)
    found = settling.of_swarm([swarm(0, rng), swarm(0, rng), swarm(3, rng)])
    assert abs(found["drift"][0]) < 0.05
    assert found["drift"][1] == pytest.approx(1 / 3, abs=0.05), "one of three positions, by a bit"
    assert found["to end"][0] == pytest.approx(1 / 3, abs=0.05)
    assert found["renamed"] == [None, None]


@pytest.mark.parametrize("arm", settling.ARMS)
def test_a_population_is_written_down_as_it_is(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settling, "SPOKEN", 6)
    population = LocalTraining(settling.settings(arm, 1), 8).population()
    if arm == "swarm":
        (symbols, labels, worlds), other = settling.spoken(population, 1, 0)["samples"]
        assert symbols.shape == (len(labels), settling.LENGTH)
        assert len(labels) == 6 * settling.STEPS, "one scout in each world and step"
        assert np.array_equal(np.unique(worlds), np.arange(6))
        assert not np.array_equal(symbols, other[0])
    else:
        found = settling.played(population, 1, 0)
        assert found["said"].shape == (100, 2)
        assert not np.array_equal(*found["drawn"])


def record(arm: str, seed: int, late: float) -> dict[str, Any]:
    when = [0, *checkpoints(settling.EPISODES)]
    drift = [0.5 if steps < 2000 else late + 0.001 * seed for steps in when[:-1]]
    names = [None] * len(drift) if arm == "swarm" else [0.5 if steps < 2000 else 0.01 for steps in when[:-1]]
    return {
        "arm": arm, "seed": seed, "episodes": settling.EPISODES, "when": when, "drift": drift, "to end": drift,
        "stillness": [0.1] * len(when), "renamed": names, "from end": names, "score": [0.9] * len(when),
        "bits": [3.0 if arm == "swarm" else None] * len(when), "seconds": 2.0,
    }  # fmt: skip


def test_verdicts_follow_the_intervals_and_the_page_is_written() -> None:
    runs = {late: [record("swarm", seed, late) for seed in (1, 2, 3)] for late in (0.01, 0.2)}
    assert settling.verdict(runs[0.01]).count("is still") == 2
    assert settling.verdict(runs[0.2]).count("moves") == 2
    wild = [record("swarm", seed, late) for seed, late in ((1, 0.01), (2, 0.3))]
    assert settling.verdict(wild).count("is undecided") == 2
    assert settling.settled(runs[0.01][0], "drift", 0.05) == 2210
    assert settling.settled(runs[0.2][0], "drift", 0.05) is None
    records = [record(arm, seed, 0.01) for arm in settling.ARMS for seed in (1, 2)]
    page = markdown(EXPERIMENT, records, "python -m x")
    assert "nan" not in page
    assert "None" not in page
    assert "| pair, bonus | 2 |" in page
    assert settling.draw(records).axes
    assert markdown(EXPERIMENT, records[:1], "python -m x")
