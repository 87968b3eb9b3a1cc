"""Emergent hubs: measures and controls of attention made by hand, and the experiment's page."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from popcomm.analysis.experiments import emergent_hubs as hubs
from popcomm.analysis.experiments.emergent_hubs import EXPERIMENT, Attention
from popcomm.analysis.experiments.frame import markdown
from popcomm.analysis.experiments.local_training import LocalTraining

WORLDS, STEPS, BOIDS, NEAREST = 6, 30, 8, 3


def attention(prefers: Any = None, sharp: float = 0.8, seed: int = 0) -> Attention:
    """All hear three others, drawn evenly in each step; of those heard, `prefers` [B, T, N] or none gets most.

    prefers: who is preferred among those heard: the one with the highest number.
    """
    rng = np.random.default_rng(seed)
    others = np.array([[j for j in range(BOIDS) if j != i] for i in range(BOIDS)])
    drawn = rng.random((WORLDS, STEPS, BOIDS, BOIDS - 1)).argsort(-1)[..., :NEAREST]
    senders = others[np.arange(BOIDS)[None, None, :, None], drawn]
    perceiving = rng.random((WORLDS, STEPS, BOIDS)) < 0.3
    weights = np.full(senders.shape, (1 - sharp) / (NEAREST - 1))
    liking = rng.random(senders.shape) if prefers is None else prefers(senders, perceiving)
    np.put_along_axis(weights, liking.argmax(-1)[..., None], sharp, -1)
    members = np.stack([rng.permutation(BOIDS) for _ in range(WORLDS)])
    return Attention(senders, weights, np.ones(senders.shape, bool), perceiving, members, 1.0)


def known(senders: np.ndarray, perceiving: np.ndarray) -> np.ndarray:
    """Those who perceived one step before."""
    before = np.concatenate([perceiving[:, :1], perceiving[:, :-1]], 1)
    worlds, steps = np.indices(senders.shape)[:2]
    return before[worlds, steps, senders].astype(float)


def test_where_attention_is_chance_nothing_is_above_the_control() -> None:
    p_values = [hubs.looked_at(attention(seed=seed), seed) for seed in range(12)]
    for name in ("received", "lasting", "perceivers"):
        assert abs(np.mean([found[f"{name} above"] for found in p_values])) < 0.03
        assert sum(found[f"{name} p"] <= 0.05 for found in p_values) <= 3


def test_a_seat_that_all_prefer_is_a_hub_within_episodes_and_on_the_paths() -> None:
    found = hubs.looked_at(attention(lambda senders, _: (senders == 2) * 1.0 + 0.1 * (senders == 5), seed=3), 1)
    assert found["received p"] == pytest.approx(1 / (hubs.SHUFFLES + 1))
    assert found["received above"] > 0.1
    assert found["between above"] > 0.1
    assert found["lasting p"] > 0.05, "the seat is another member's in every episode"
    assert found["top"] == pytest.approx(0.8)


def test_a_member_that_all_prefer_is_a_hub_that_lasts() -> None:
    one = attention()
    seats = np.argsort(one.members, 1)[:, 3]  # where member 3 sits
    liked = one.senders == seats[:, None, None, None]
    weights = np.where(liked.any(-1, keepdims=True), np.where(liked, 0.8, 0.1), 1 / NEAREST)
    found = hubs.looked_at(one._replace(weights=weights), 1)
    assert found["lasting p"] == pytest.approx(1 / (hubs.SHUFFLES + 1))
    assert found["lasting above"] > 0.05


def test_attention_to_those_who_perceive_is_told_from_an_even_share() -> None:
    found = hubs.looked_at(attention(known), 1)
    assert found["perceivers p"] == pytest.approx(1 / (hubs.SHUFFLES + 1))
    assert found["perceivers"] > 1.4
    assert found["perceivers by chance"] == pytest.approx(1, abs=0.05)


def test_the_control_keeps_who_is_heard_and_how_sharply() -> None:
    one, rng = attention(), np.random.default_rng(0)
    mask = np.random.default_rng(1).random(one.mask.shape) < 0.7
    one = one._replace(mask=mask, weights=one.weights * mask)
    control = hubs.dealt(one, rng)
    assert np.array_equal(np.sort(control.weights, -1), np.sort(one.weights, -1))
    assert not np.array_equal(control.weights, one.weights)
    assert (control.weights[~mask] == 0).all()
    assert np.array_equal(control.senders, one.senders)


def test_evenness_has_its_limits() -> None:
    assert hubs.gini(np.ones(5)) == 0
    assert hubs.gini(np.array([0, 0, 0, 0, 3.0])) == pytest.approx(0.8)
    assert np.isnan(hubs.gini(np.zeros(3)))


@pytest.mark.parametrize("arm", hubs.ARMS)
def test_an_untrained_swarm_is_listened_to(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hubs, "PLAYED", 2)
    monkeypatch.setattr(hubs, "LENGTH", 12)
    population = LocalTraining(hubs.settings(arm, 1, 1000), 10).population()
    found = hubs.listened(population, 1)
    assert found.senders.shape == (2, 12, hubs.BOIDS, hubs.NEAREST)
    heard = found.mask.any(-1)
    assert heard[:, 1:].all()
    assert found.weights.sum(-1)[heard] == pytest.approx(1, abs=1e-5)
    if arm == "silent":
        assert heard[:, 0].all()
        assert found.weights == pytest.approx(1 / hubs.NEAREST)
        assert hubs.looked_at(found, 1)["between above"] == pytest.approx(0)
    assert (np.sort(found.members, 1) == np.arange(hubs.BOIDS)).all()
    assert (found.members == np.arange(hubs.BOIDS)).all() == (arm != "individuals")


def record(arm: str, seed: int, gain: float) -> dict[str, Any]:
    def point(steps: int, value: float) -> dict[str, Any]:
        own = {"env_steps": steps, "score": 20.0 + seed, "top": 0.4, "perceiving": 0.3}
        for name in hubs.MEASURES:
            told = None if (arm, name) == ("silent", "perceivers") else 0.3 + value + 0.001 * seed
            own |= {name: told, f"{name} by chance": told and 0.3, f"{name} above": told and value, f"{name} p": 0.05}
        return own

    return {"arm": arm, "seed": seed, "env_steps": 1000, "seconds": 2.0, "curve": [point(0, 0.01), point(1000, gain)]}


def test_claims_follow_the_intervals_and_the_page_is_written() -> None:
    gains = {"talking": 0.2, "individuals": 0.2, "random": 0.05, "silent": 0.0}
    records = [record(arm, seed, gain + 0.001 * seed) for arm, gain in gains.items() for seed in (1, 2, 3)]
    told = hubs.claims(hubs.grouped(records))
    assert all(claim.holds for claim in told)
    assert sum("silence" in claim.text for claim in told) == 4, "of attention to who perceives silence says nothing"
    page = markdown(EXPERIMENT, records, "python -m x")
    assert "nan" not in page
    assert "None" not in page
    assert hubs.draw(records).axes
    assert markdown(EXPERIMENT, records[:1], "python -m x")
