"""Counterfactual credit of messages: against sums worked out on paper."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.counterfactual import counterfactual_credit
from popcomm.rllib.fragment import as_tensors
from tests.rllib.test_credit import config_of
from tests.rllib.test_learner import learner_of, update, weights
from tests.rllib.test_listening import BIT, Deaf, Echo
from tests.rllib.test_reflexes import ALL, air_config
from tests.rllib.test_rollout import clock_config, runner_of


class Follower(Echo):
    """It does what it hears with probability e / (1 + e), and says 1 with probability .8."""

    sharpness = 0.5

    def forward(self, obs: Tensor, inbox: Any, state: Any) -> Any:
        output = super().forward(obs, inbox, state)
        assert output.message is not None
        return output._replace(message=torch.tensor([0.2, 0.8]).log().expand_as(output.message))


def credited(agent: Any, gamma: float = 0.0, **settings: Any) -> tuple[Any, Tensor, Tensor, Tensor]:
    """(arrays of the pair, its advantages, credit, heard) of a fragment of ToldWorld."""
    config = config_of("counterfactual", gamma=gamma).population(agent=agent, agent_config={}, **settings)
    config.validate()
    runner = runner_of(config)
    arrays = {n: as_tensors(dict(a)) for n, a in runner.sample().policy_batches.items()}
    gained = torch.randn(arrays["pair"]["rewards"].shape, generator=torch.Generator().manual_seed(1))
    modules = {"pair": runner.module["pair"]}
    credit, heard = counterfactual_credit(arrays, [gained], config.plan, modules, torch.Generator())
    return arrays["pair"], gained, credit, heard


@pytest.mark.parametrize("members", [1, 2])
def test_a_message_is_credited_with_how_much_likelier_it_made_what_was_done(members: int) -> None:
    """Of the listener's action and its own message, which does not depend on what it hears, the action alone counts."""
    a, gained, credit, heard = credited(Follower, members=members)
    said, done = a["messages"][:, 1, :, 0], a["actions"][:, 1]
    for sender, listener in ((0, 1), (1, 0)):
        for world in range(8):
            m, u = int(said[world, sender]), int(done[world, listener])
            now = _likely(m, u)
            mean = 0.2 * _likely(0, u) + 0.8 * _likely(1, u)
            expected = (1 - mean / now) * gained[world, 1, listener].item()
            assert credit[world, 0, sender].item() == pytest.approx(expected, abs=1e-5)
    assert heard[:, [0, 3, 6]].all()
    # What is said when an episode ends nobody hears, and what is said last is heard in the next fragment.
    assert not heard[:, [1, 2, 4, 5, 7, 8]].any()
    assert not credit[~heard].any()


def _likely(message: int, action: int) -> float:
    """pi(action given message): logits 0 and sharpness (2 message - 1)."""
    one = torch.tensor(0.5 * (2 * message - 1)).sigmoid().item()
    return one if action else 1 - one


def test_the_credit_of_a_message_has_the_mean_of_comas_advantage() -> None:
    """Over what the listener does: Q(m) - sum of p(m') Q(m'), with the advantages of its actions for Q."""
    worth = {0: -1.0, 1: 3.0}
    for message in (0, 1):
        mean = sum(
            _likely(message, u) * (1 - (0.2 * _likely(0, u) + 0.8 * _likely(1, u)) / _likely(message, u)) * worth[u]
            for u in (0, 1)
        )
        q = [sum(_likely(m, u) * worth[u] for u in (0, 1)) for m in (0, 1)]
        assert mean == pytest.approx(q[message] - (0.2 * q[0] + 0.8 * q[1]))


def test_who_is_not_listened_to_gets_no_credit() -> None:
    _, _, credit, heard = credited(Deaf)
    assert heard.any()
    assert credit.abs().max() < 1e-6


def test_a_message_that_changes_what_its_listener_says_is_credited_for_it() -> None:
    """Nobody acts on what it hears, and everybody passes it on."""

    class Parrot(Deaf):
        def forward(self, obs: Tensor, inbox: Any, state: Any) -> Any:
            output = super().forward(obs, inbox, state)
            heard = (inbox.messages[..., 0] * inbox.mask).sum(-1).float()
            return output._replace(message=torch.stack([torch.zeros_like(heard), 2 * heard - 1], -1).unsqueeze(-2))

    _, _, credit, heard = credited(Parrot)
    assert credit[heard].abs().mean() > 0.1


def test_a_message_that_changes_whether_its_listener_speaks_is_credited_for_it() -> None:
    """Nobody acts on what it hears; who hears 1 speaks with probability e / (1 + e), who hears 0 with the rest."""

    class Shy(Deaf):
        gates_messages = True

        def forward(self, obs: Tensor, inbox: Any, state: Any) -> Any:
            output = super().forward(obs, inbox, state)
            heard = (inbox.messages[..., 0] * inbox.mask).sum(-1).float()
            manner = torch.stack([2 * heard - 1, torch.zeros_like(heard), torch.zeros_like(heard)], -1)
            return output._replace(manner=manner)

    config = config_of("counterfactual").population(agent=Shy, agent_config={}).communication(gate="sender")
    config.validate()
    runner = runner_of(config)
    arrays = {n: as_tensors(dict(a)) for n, a in runner.sample().policy_batches.items()}
    a, gained = arrays["pair"], torch.ones_like(arrays["pair"]["rewards"])
    credit, heard = counterfactual_credit(arrays, [gained], config.plan, dict(runner.module.items()), torch.Generator())
    for sender, listener in ((0, 1), (1, 0)):
        there = heard[:, 0, sender]
        as_told = a["messages"][there, 1, sender, 0].bool() == (a["opens"][there, 1, listener] > 0)
        likely = torch.where(as_told, 1.0, -1.0).sigmoid()
        torch.testing.assert_close(credit[there, 0, sender], 1 - 0.5 / likely)
    assert heard.any()


def test_credit_is_scaled_for_each_member_and_not_centred() -> None:
    config = config_of("counterfactual").population(agent=Follower, agent_config={}, members=2)
    config.validate()
    arrays = {n: as_tensors(dict(a)) for n, a in runner_of(config).sample().policy_batches.items()}
    learner_of(config)._add_advantages(arrays)
    a = arrays["pair"]
    values, speaks = a["message_advantages"], torch.zeros(9, dtype=torch.bool)
    speaks[[0, 3, 6]] = True
    for member in range(2):
        own = values[:, speaks][a["members"][:, speaks] == member]
        assert own.std(correction=0).item() == pytest.approx(1.0, abs=1e-4)
    assert not values[:, ~speaks].any()


KINDS = {
    "memory, noise and several members": lambda: clock_config(agent="gru", members=3, noise=0.1),
    "members who spell": lambda: clock_config(agent="gru", members=1, env_config={"death": 2}),
    "a vocabulary that grows": lambda: clock_config(agent="gru", members=1, noise=0.1).communication(
        vocabulary={"first": 2, "schedule": {"kind": "linear", "begin": 0, "end": 1000}}
    ),
    "several symbols": lambda: clock_config(messages={"kind": "symbols", "vocab_size": 4, "length": 3}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_is_the_same_again_from_the_same_seed(kind: str) -> None:
    after = []
    for _ in range(2):
        config: PopulationPPOConfig = KINDS[kind]().communication(gradient="reinforce", credit="counterfactual")
        config.validate()
        learner = learner_of(config)
        update(learner, runner_of(config))
        after.append([weights(module) for module in learner.networks.values()])
    for one, other in zip(*after, strict=True):
        assert all(torch.equal(one[name], other[name]) and one[name].isfinite().all() for name in one)


def test_the_silenced_control_and_a_gamma_of_0_are_fine() -> None:
    config = config_of("counterfactual", gamma=0.0)
    config.validate()
    config.communication(messages=None).validate()


def test_seats_that_are_one_network_cannot_be_asked_apart() -> None:
    class Together(Echo):
        collective = True

    config = config_of("counterfactual").population(agent=Together, agent_config={})
    with pytest.raises(UserError, match="credit is 'counterfactual', and the Together of species 'pair' is one netw"):
        config.validate()


def test_through_a_routed_channel_there_is_no_message_to_ask_about() -> None:
    config = config_of("counterfactual").communication(topology={"kind": "routed", "latents": 2})
    config.population(agent="symbolic", agent_config={})
    with pytest.raises(UserError, match=r"communication.credit is 'counterfactual', and through topology routed"):
        config.validate()


ASKED = {
    "memory": lambda: clock_config(agent="gru", members=1, env_config={"death": 2}),
    "members": lambda: clock_config(agent="gru", members=8, dropout=0.2, env_config={"death": 2}),
    "vectors": lambda: clock_config(agent="mlp", messages={"kind": "vectors", "size": 3}, gradient="through"),
    "points of the simplex": lambda: clock_config(agent="mlp", gradient="relaxed"),
    "a log of words": lambda: air_config(*ALL, agent="mlp", channel={"inbox": 3}),
}


@pytest.mark.parametrize("kind", ASKED)
def test_asking_whose_messages_matter_changes_nothing_in_what_is_sampled(kind: str) -> None:
    asking, mute = (runner_of(ASKED[kind]().recording(importance_every=every)) for every in (2, 0))
    told = []
    for iteration in range(1, 5):
        ours, theirs = asking.sample(iteration=iteration), mute.sample(iteration=iteration)
        told.append(asking.statistics.language.get("importance"))
        assert "importance" not in mute.statistics.language
        for name, part in ours.policy_batches.items():
            for key, values in part.items():
                np.testing.assert_array_equal(values, theirs.policy_batches[name][key], err_msg=key)
    assert [value is None for value in told] == [True, False, True, False]
    assert all(0 <= value <= 1 for value in told if value is not None)


def test_each_pair_of_seats_has_a_number_and_all_together_their_mean() -> None:
    runner = runner_of(clock_config(agent=Echo, messages=BIT).recording(importance_every=1, conversation_worlds=12))
    runner.sample(iteration=1)
    found, agents = runner.statistics.language, runner.layout.agents
    each = {f"importance/{a}/{b}": found.get(f"importance/{a}/{b}", -1.0) for a in agents for b in agents if a != b}
    assert {key for key in found if key.startswith("importance/")} == each.keys()
    # All are heard equally often.
    assert found["importance_removed"] == pytest.approx(np.mean(list(each.values())))
    # Of three coins the echo adds up, the one that comes first matters where the others are 0, and the echo is sure.
    assert 0.05 < found["importance"] < 0.5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.recording(importance_every=-1), "recording.importance_every is -1"),
        (
            lambda c: c.recording(importance_every=1, conversation_worlds=0),
            "importance_every is 1, and recording.conversation_worlds is 0",
        ),
    ],
)
def test_what_cannot_be_asked_is_told(change: Any, sentence: str) -> None:
    config = config_of("step")
    change(config)
    with pytest.raises(UserError, match=sentence):
        config.validate()


def test_silence_is_told_to_have_nothing_of_importance(caplog: pytest.LogCaptureFixture) -> None:
    config = config_of("step").communication(messages=None, credit=None).recording(importance_every=1)
    with caplog.at_level("WARNING"):
        config.validate()
    assert "recording.importance_every: nobody speaks here" in caplog.text
