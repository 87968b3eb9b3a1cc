"""The experiment on privacy: its attacks have known answers, its bounds hold, and its claims are told by numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from popcomm.analysis.experiments import privacy_utility
from popcomm.analysis.experiments.frame import markdown
from popcomm.analysis.experiments.privacy_attacks import alikeness, membership, over_rounds, rebuilt

from popcomm.agents.contract import AgentOutput
from popcomm.channels import message_kind
from popcomm.rllib.federated import published
from popcomm.rllib.federated_plan import Federated

MEMBERS, THINGS, HIDDEN = 6, 40, 8


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Teller:
    """Says where on a circle of radius one it saw something. observations: one-hot."""

    def __call__(self, obs: torch.Tensor, inbox: None, state: Any) -> AgentOutput:
        angle = obs.argmax(-1) * 2 * math.pi / obs.size(-1)
        return AgentOutput(torch.zeros(0), torch.stack([angle.cos(), angle.sin()], -1), torch.zeros(0), {}, {})


def kind(**ways: Any) -> Any:
    hidden = {"privacy": {"delta": 1e-5, "clip": 1.0, "messages": 2, **ways}} if ways else {}
    return message_kind({"kind": "vectors", "size": 2, **hidden})


def test_a_message_is_traced_to_its_source_unless_it_is_private() -> None:
    seen = torch.eye(8)
    assert rebuilt(Teller(), kind(), seen) == 1.0
    assert rebuilt(Teller(), kind(epsilon=0.5), seen) == pytest.approx(1 / 8, abs=0.03)
    shares = [rebuilt(Teller(), kind(epsilon=epsilon), seen) for epsilon in (3, 10, 100)]
    assert shares == sorted(shares)
    # Of one message of two, which is more private than both together.
    for epsilon, share in zip((3, 10, 100), shares, strict=True):
        assert share < privacy_utility.most_named(epsilon)


def lives(seed: int = 0) -> tuple[torch.Tensor, np.ndarray]:
    """Updates [P, O, H] of members that saw a third of the things, each of which moved its own row, and all a bias."""
    drawn = generator(seed)
    saw = torch.rand(MEMBERS, THINGS, generator=drawn) < 1 / 3
    rows = torch.randn(MEMBERS, THINGS, HIDDEN, generator=drawn) * saw.unsqueeze(-1)
    return torch.cat([rows, torch.randn(MEMBERS, 1, HIDDEN, generator=drawn)], 1), saw.numpy()


def things() -> torch.Tensor:
    """[C, O]: a thing, and beside it what everybody sees."""
    return torch.cat([torch.eye(THINGS), torch.ones(THINGS, 1)], 1)


def test_what_a_member_learned_from_is_found_in_its_update_and_not_under_noise() -> None:
    update, saw = lives()
    assert membership(update, things(), saw) > 0.99
    ways = Federated(1, 1.0, 1.0, 1e-5, 20)
    told = [published([update], 1.0, ways.sigma, generator(seed)).updates[0] for seed in range(30)]
    found = over_rounds(told, things(), [saw] * 30)
    assert found["auc"] == pytest.approx(0.5, abs=0.03)
    assert found["auc_of_mean"] == pytest.approx(0.5, abs=0.04)
    assert found["auc"] < privacy_utility.most_ranked(ways.sigma) + 0.03


def test_the_mean_hides_who_saw_what_but_not_what_was_seen_at_all() -> None:
    update, saw = lives()
    own = over_rounds([update], things(), [saw])
    assert 0.5 < own["auc_of_mean"] < own["auc"] - 0.1


def test_what_all_candidates_share_does_not_count() -> None:
    update, _ = lives()
    moved = update.clone()
    moved[:, -1] += 100
    torch.testing.assert_close(alikeness(update, things()), alikeness(moved, things()), rtol=1e-4, atol=1e-3)


def test_digits_that_members_saw_are_read_from_a_fragment() -> None:
    members, digits = privacy_utility.MEMBERS, 5
    obs = np.zeros((1, 3, 2, 2 + digits + 2), np.float32)
    for step, seat, digit in [(0, 0, 1), (0, 1, 4), (1, 0, 2), (1, 1, 3), (2, 0, 0), (2, 1, 0)]:
        obs[0, step, seat, 2 + digit] = 1
    alive = np.array([[[True, True], [True, False]]])
    seen = privacy_utility.digits_seen({"obs": obs, "alive": alive, "members": np.array([[[7, 3], [7, 3]]])}, digits)
    assert seen.shape == (members, digits)
    assert [np.flatnonzero(seen[m]).tolist() for m in (3, 7, 0)] == [[4], [1, 2], []]


def test_all_arms_are_of_one_configuration_and_can_be_trained() -> None:
    for way, epsilons in privacy_utility.EPSILONS.items():
        for epsilon in epsilons:
            privacy_utility.settings(way, epsilon, 1, 6_000).validate()


def record(way: str, epsilon: float | None, seed: int, score: float, attack: float) -> dict[str, Any]:
    more = {"attack_on_mean": 0.5, "seen": 0.4, "weights": 900, "rounds": 9, "sigma": 1.0 if epsilon else 0.0}
    parts = {"way": way, "epsilon": epsilon, "seed": seed, "env_steps": 10, "score": score, "attack": attack}
    return {**parts, "seconds": 1.0, **more}


def test_claims_follow_from_the_runs_and_the_page_tells_them() -> None:
    runs = []
    for seed in (1, 2, 3):
        shake = 0.01 * seed
        runs += [record("messages", None, seed, 2 - shake, 1.0), record("messages", 1, seed, shake, 0.13)]
        runs += [record("updates", None, seed, 1 + shake, 0.5 + shake), record("updates", 10, seed, 1 + shake, 0.7)]
    held = {claim.text.split(" (")[0]: claim.holds for claim in privacy_utility.claims(runs)}
    assert list(held.values()) == [True, True, True, False, False, False]
    page = markdown(privacy_utility.EXPERIMENT, runs, "python -m it")
    assert "clipped, no noise" in page
    assert "| 10 | 1.020" in page
