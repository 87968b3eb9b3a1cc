"""Learning from a joint critic: known payoffs, how policies follow it, what is kept, and what is refused."""

from __future__ import annotations

import math
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from gymnasium import spaces
from popcomm.analysis.experiments.local_training import LocalTraining
from torch import Tensor

from popcomm.cli import schema
from popcomm.envs.world import Species
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig, state_files
from popcomm.rllib.joint_learning import EXPLAINED, JointLearning, divergence
from popcomm.rllib.joint_plan import JointCriticWays
from popcomm.rllib.ppo import same


def config_of(ways: Any = True, env: str = "switch_riddle_v0", **training: Any) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment(env)
        .communication(messages={"kind": "symbols", "vocab_size": 2, "length": 1})
        .population(agent="mlp", agent_config={"hidden": 8})
        .training(joint_critic=ways, minibatch_size=8, **training)
        .env_runners(num_worlds_per_env_runner=16, rollout_fragment_length=7)
        .debugging(seed=3)
    )


def weights(training: LocalTraining) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": p.detach().clone()
        for name, network in training.learner.networks.items()
        for key, p in network.named_parameters()
    }


def joint(training: LocalTraining) -> JointLearning:
    assert training.learner.joint is not None
    return training.learner.joint


# ---- what it learns ----


def both_right(batch: int = 512) -> dict[str, Any]:
    """One step of a game of two seats that see a bit each: 1 for both if each names the *other's* bit, else 0."""
    drawn = torch.Generator().manual_seed(5)
    bits = torch.randint(2, (batch, 2), generator=drawn)
    actions = torch.randint(2, (batch, 1, 2), generator=drawn)
    pays = (actions[:, 0] == bits.flip(1)).all(1).float().view(batch, 1, 1).expand(-1, -1, 2)
    yes = torch.ones(batch, 2, 2, dtype=torch.bool)
    obs = bits.float().view(batch, 1, 2, 1).expand(-1, 2, -1, -1)
    return {
        "obs": obs,
        "actions": actions,
        "alive": yes[:, :1],
        "first": yes,
        "value_targets": pays.contiguous(),
        "bits": bits,
    }


def of_bits() -> JointLearning:
    """A joint critic of one species with two seats that see one number and have two actions."""
    player = Species("player", 0, 2, 1, spaces.Discrete(2))
    ways = JointCriticWays(lr=1e-2)
    plan: Any = SimpleNamespace(species={"player": SimpleNamespace(species=player, joint_critic=ways)})
    return JointLearning(ways, plan, seed=1, device=torch.device("cpu"))


def test_it_learns_what_each_action_would_have_been_worth_given_what_the_other_did() -> None:
    game = both_right()
    learning = of_bits()
    for _ in range(40):
        arrays: Any = {"player": dict(game)}
        learning.learn(arrays, list(torch.arange(512).split(64)), same)
    worth = arrays["player"]["worth"][:, 0]  # [B, 2, 2]
    returns = learning.returns["player"].denormalise(worth.reshape(1, -1)).view_as(worth)
    wants, other_right = game["bits"].flip(1), (game["actions"][:, 0] == game["bits"].flip(1)).flip(1)
    right = torch.nn.functional.one_hot(wants, 2).float() * other_right.unsqueeze(-1)
    torch.testing.assert_close(returns, right, atol=0.1, rtol=0)


def test_several_learners_learn_what_one_learns_of_all_their_worlds() -> None:
    """Both halves side by side, each reduction answered by the sum over both."""
    game = both_right(64)
    alone: Any = {"player": dict(game)}
    one = of_bits()
    one.learn(alone, [None, None], same)

    halves: list[Any] = [{"player": {k: v[i * 32 : (i + 1) * 32] for k, v in game.items()}} for i in range(2)]
    barrier, given = threading.Barrier(2), [torch.zeros(())] * 2

    def reduction(rank: int) -> Any:
        def reduce(values: Tensor) -> Tensor:
            given[rank] = values.clone()
            barrier.wait()
            total = given[0] + given[1]
            barrier.wait()
            return values.copy_(total)

        return reduce

    both = [of_bits(), of_bits()]
    threads = [
        threading.Thread(target=each.learn, args=(halves[i], [None, None], reduction(i))) for i, each in enumerate(both)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for learner in both:
        for (name, expected), found in zip(one.critic.named_parameters(), learner.critic.parameters(), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5, msg=name)
    joined = torch.cat([half["player"]["worth"] for half in halves])
    torch.testing.assert_close(joined, alone["player"]["worth"], atol=1e-5, rtol=1e-5)


def test_returns_that_are_not_finite_leave_it_as_it_was() -> None:
    game, learning = both_right(32), of_bits()
    before = {name: p.detach().clone() for name, p in learning.critic.named_parameters()}
    game["value_targets"][3] = math.nan
    learning.learn({"player": dict(game)}, [None], same)  # type: ignore[dict-item]
    for name, parameter in learning.critic.named_parameters():
        assert torch.equal(parameter, before[name]), name


# ---- how policies follow it ----


def test_the_divergence_is_that_of_the_recommendation_from_the_policy() -> None:
    """Q = (.3 ln 3, 0) at a temperature of .3 recommends (3/4, 1/4)."""
    even = torch.zeros(1, 2)
    worth = torch.tensor([[0.3 * math.log(3), 0.0]])
    by_hand = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert float(divergence(even, worth, 0.3)) == pytest.approx(by_hand, abs=1e-6)
    assert float(divergence(torch.tensor([[math.log(3), 0.0]]), worth, 0.3)) == pytest.approx(0, abs=1e-6)


def test_actions_that_are_not_allowed_are_not_recommended() -> None:
    allowed = torch.tensor([[True, True, False]])
    worth, logits = torch.tensor([[0.0, 0.0, 50.0]]), torch.zeros(1, 3, requires_grad=True)
    distance = divergence(logits, worth, 1.0, allowed).sum()
    distance.backward()
    assert distance.item() == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None
    assert logits.grad.abs().max() < 1e-6


def test_its_gradient_does_not_fade_where_the_policy_is_sure_of_something_else() -> None:
    logits = torch.tensor([[20.0, 0.0]], requires_grad=True)
    divergence(logits, torch.tensor([[0.0, 5.0]]), 0.5).sum().backward()
    assert logits.grad is not None
    assert logits.grad[0, 0] > 0.99


# ---- in a training ----


def test_a_training_tells_how_much_it_explains_and_how_far_policies_are_from_it() -> None:
    training = LocalTraining(config_of(), 8)
    (results,) = (training.iterate()[name] for name in training.learner.networks)
    told = {key: float(results[key]) for key in (EXPLAINED, "joint_critic_loss")}
    assert told["joint_critic_loss"] > 0
    assert told[EXPLAINED] <= 1


def test_its_weight_follows_a_schedule() -> None:
    off = {"joint_critic": {"kind": "linear", "begin": 0, "end": 1, "start": 0, "stop": 0}}
    without, faded = LocalTraining(config_of(None), 8), LocalTraining(config_of(True, loss_schedules=off), 8)
    for training in (without, faded):
        training.iterate()
    expected = weights(without)
    for name, found in weights(faded).items():
        assert torch.equal(found, expected[name]), name


def test_the_same_seed_gives_the_same_bits() -> None:
    first, second = LocalTraining(config_of(), 8), LocalTraining(config_of(), 8)
    for training in (first, second):
        training.iterate()
        training.iterate()
    expected = weights(first)
    for name, found in weights(second).items():
        assert torch.equal(found, expected[name]), name


def test_its_state_goes_on_bit_for_bit(tmp_path: Path) -> None:
    training, other = LocalTraining(config_of(), 8), LocalTraining(config_of(), 8)
    training.iterate()
    state_files.write(tmp_path / "state", training.learner.get_state())
    other.learner.set_state(state_files.read(tmp_path / "state", trust=True)[0])
    for (name, mine), theirs in zip(
        joint(training).critic.named_parameters(), joint(other).critic.parameters(), strict=True
    ):
        assert torch.equal(mine, theirs), name
        for key, value in joint(training).optimizer.state[mine].items():
            assert torch.equal(value, joint(other).optimizer.state[theirs][key]), (name, key)
    for species, normaliser in joint(training).returns.items():
        for mine, theirs in zip(normaliser.buffers(), joint(other).returns[species].buffers(), strict=True):
            assert torch.equal(mine, theirs)


def test_a_checkpoint_from_before_starts_it_anew() -> None:
    before, now = LocalTraining(config_of(None), 8), LocalTraining(config_of(), 8)
    started = {name: p.detach().clone() for name, p in joint(now).critic.named_parameters()}
    now.learner.set_state(before.learner.get_state())
    for name, parameter in joint(now).critic.named_parameters():
        assert torch.equal(parameter, started[name]), name


# ---- what is refused ----


@pytest.mark.parametrize(
    ("ways", "words"),
    [
        (3, "training.joint_critic is 3, and must be a mapping"),
        ({"temprature": 1}, "training.joint_critic: the key 'temprature'"),
        ({"weight": 0}, "training.joint_critic.weight is 0, and must be a finite number above 0"),
        ({"temperature": -1}, "training.joint_critic.temperature is -1, and must be a finite number above 0"),
        ({"lr": math.inf}, "training.joint_critic.lr is inf, and must be a finite number above 0"),
        ({"epochs": 0}, "training.joint_critic.epochs is 0, and must be a whole number of at least 1"),
        ({"hidden": 0}, "training.joint_critic.hidden is 0, and must be a whole number of at least 1"),
    ],
)
def test_values_that_mean_nothing_are_refused(ways: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        config_of(ways).validate()


def test_it_is_refused_where_actions_are_learned_from_answers_or_there_is_but_one() -> None:
    with pytest.raises(UserError, match=r"training\.joint_critic is given, and has no effect"):
        config_of(env="referential_v0", learn_from="answers").validate()


def test_a_file_can_ask_for_it() -> None:
    document = {
        "environment": {"env": "switch_riddle_v0"},
        "training": {"joint_critic": {"temperature": 0.5}},
    }
    assert schema.apply(document, PopulationPPOConfig()).plan.joint_critic == JointCriticWays(temperature=0.5)
