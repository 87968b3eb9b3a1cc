"""The experiment on messages of several encoders: its arms are comparable, and its claims are told by known numbers."""

from __future__ import annotations

from typing import Any

import pytest
from popcomm.analysis.experiments import superposition


@pytest.mark.parametrize("arm", superposition.ARMS)
def test_all_arms_have_as_many_weights(arm: str) -> None:
    aim = superposition.weights("learned", superposition.HIDDEN)
    assert superposition.weights(arm, superposition.width(arm)) == pytest.approx(aim, rel=0.05)


def record(arm: str, seed: int, score: float) -> dict[str, Any]:
    return {"arm": arm, "seed": seed, "score": score, "curve": [{"env_steps": 0, "score": score}]}


def test_a_claim_holds_where_the_same_seeds_are_better_and_not_where_they_are_alike() -> None:
    runs = [record("one", seed, 0.5 + 0.1 * seed) for seed in (1, 2, 3)]
    runs += [record("learned", seed, 0.6 + 0.1 * seed + 0.001 * seed) for seed in (1, 2, 3)]
    runs += [record("random", seed, 0.5 + 0.1 * seed + (-1) ** seed * 0.05) for seed in (1, 2, 3)]
    held = {claim.text.split("`")[1]: claim.holds for claim in superposition.claims(superposition.grouped(runs))}
    assert held == {"random": False, "learned": True}
