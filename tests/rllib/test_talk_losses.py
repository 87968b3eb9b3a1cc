"""What keeps a language alive and what ends an episode: the balance of symbols, time limits, sizes of minibatches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from popcomm.agents.evenness import RARE, SCARCE
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.balance import evenness
from popcomm.rllib.fragment import as_tensors
from popcomm.rllib.ppo import same
from popcomm.rllib.rows import Rows
from tests.rllib.test_learner import learner_of
from tests.rllib.test_relaxed_messages import OneWayWorld
from tests.rllib.test_rollout import SYMBOLS, clock_config, runner_of
from tests.rllib.worlds import BanditWorld, ClockWorld

# ---- the balance of symbols ----


def entropy(shares: torch.Tensor) -> torch.Tensor:
    """Of [..., positions, alphabet], nats, summed over the positions."""
    return -(shares * shares.log()).sum((-1, -2))


def random_shares(members: int, rows: int, seed: int = 0) -> torch.Tensor:
    logits = torch.randn(members, rows, 2, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (2 * logits).softmax(-1)


def test_its_mean_over_a_group_is_the_entropy_of_the_mean() -> None:
    shares = random_shares(1, 12)
    group = torch.arange(12).remainder(3).unsqueeze(0)
    found = evenness(shares, group, 3, torch.ones(1, 12, dtype=torch.bool), same)
    for g in range(3):
        mine = group[0] == g
        torch.testing.assert_close(found[0, mine].mean(), entropy(shares[0, mine].mean(0)))


def test_its_gradient_is_that_of_the_entropy_of_the_mean_and_of_the_mean_log_share() -> None:
    logits = torch.randn(1, 8, 2, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    given = logits.clone().requires_grad_()
    one = torch.zeros(1, 8, dtype=torch.int64)
    evenness(given.softmax(-1), one, 1, torch.ones(1, 8, dtype=torch.bool), same).mean().backward()
    true = logits.clone().requires_grad_()
    mean = true.softmax(-1).mean((0, 1))
    (entropy(mean) + RARE * mean.log().mean(-1).sum()).backward()
    assert true.grad is not None
    assert true.grad.abs().max() > 1e-3
    torch.testing.assert_close(given.grad, true.grad)


def test_a_symbol_that_is_hardly_said_is_pulled_at_by_the_row_that_is_nearest_to_it() -> None:
    """Two rows, three symbols; the third one has the shares e and e / 4. By hand, e -> 0: its logits are pulled at with
    RARE / 3 * p / m each, so by RARE / 3 * 1.6 and RARE / 3 * 0.4; the entropy's pull is e log e."""
    for rare in (SCARCE * 4, SCARCE * 2):
        logits = torch.tensor([[4.0, 4.0, math.log(rare)], [4.0, 4.0, math.log(rare / 4)]]).view(1, 2, 1, 3)
        logits[..., :2] = math.log(0.5)
        given = logits.double().requires_grad_()
        both = torch.zeros(1, 2, dtype=torch.int64)
        evenness(given.softmax(-1), both, 1, torch.ones(1, 2, dtype=torch.bool), same).mean().backward()
        assert given.grad is not None
        near, far = (2 * given.grad[0, :, 0, 2]).tolist()  # the mean halves them
        assert near == pytest.approx(RARE / 3 * 1.6, rel=0.35)
        assert far == pytest.approx(RARE / 3 * 0.4, rel=0.35)


def test_rows_that_do_not_count_and_members_of_others_change_nothing() -> None:
    shares = random_shares(2, 6)
    mask = torch.tensor([[True, True, False, True, True, False], [False, True, True, True, True, True]])
    group = torch.tensor([[0, 1, 0, 0, 1, 1], [2, 2, 3, 3, 2, 3]])
    found = evenness(shares, group, 4, mask, same)
    assert not found[~mask].any()
    for g in range(4):
        mine = (group == g) & mask
        torch.testing.assert_close(found[mine].mean(), entropy(shares[mine].mean(0)))


def test_two_learners_together_find_what_one_finds_on_all_rows() -> None:
    shares, group = random_shares(1, 10), torch.arange(10).remainder(2).unsqueeze(0)
    mask = torch.arange(10).ne(3).unsqueeze(0)
    whole = evenness(shares, group, 2, mask, same)
    halves = (slice(0, 4), slice(4, 10))
    told: list[list[torch.Tensor]] = []
    for half in halves:  # what each hands to the others does not depend on what it gets from them
        own: list[torch.Tensor] = []
        evenness(shares[:, half], group[:, half], 2, mask[:, half], lambda v, own=own: own.append(v.clone()) or v)
        told.append(own)
    for half in halves:
        sums = iter([a + b for a, b in zip(*told, strict=True)])
        found = evenness(shares[:, half], group[:, half], 2, mask[:, half], lambda v, sums=sums: next(sums))
        torch.testing.assert_close(found, whole[:, half])


@pytest.mark.parametrize("world", [ClockWorld, OneWayWorld])
@pytest.mark.parametrize(("members", "seating"), [(1, "shuffled"), (3, "fixed"), (3, "shuffled")])
def test_a_member_is_balanced_in_each_step_and_on_seats_that_it_keeps(members: int, seating: str, world: type) -> None:
    """The logged number is the mean, over members and their rows, of the entropy of what they say in a step (on a seat,
    unless they are drawn to seats); here by loops over all of them."""
    config = clock_config(agent="mlp", members=members, env_config={"death": 2}).environment(world)
    config.population(seating=seating)
    runner, learner = runner_of(config), learner_of(config)
    runner.sample()
    arrays = {name: as_tensors(dict(a)) for name, a in runner.sample().policy_batches.items()}
    learner._add_advantages(arrays)
    run, a = learner.unroller.run(arrays)["speaker"], arrays["speaker"]
    _, logged = learner.losses["speaker"](a, run, 0.0, arrays, same, False)
    rows = Rows(a, run.places, members)
    worlds, steps, seats = a["alive"].shape
    place = rows.gather(torch.arange(steps * seats).view(1, steps, seats).expand(worlds, -1, -1))
    place = place if members == 1 or seating == "fixed" else place // seats
    shares, total = run.outputs.message.detach().softmax(-1), 0.0
    for p in range(members):
        lived = int(run.mask[p].sum())
        for where in place[p][run.mask[p]].unique():
            mine = (place[p] == where) & run.mask[p]
            total += float(entropy(shares[p, mine].mean(0))) * int(mine.sum()) / lived
    assert logged["message_balance"].item() == pytest.approx(total / members, rel=1e-5)


# ---- what follows a time limit ----


@pytest.mark.parametrize("time_limit", ["bootstrap", "end"])
def test_the_learner_hopes_for_more_after_a_time_limit_only_where_it_is_no_end(time_limit: str) -> None:
    """Episodes of four steps that are cut: with gamma and lambda 1 the first step's target is the episode's return,
    and the value of the final observation where the limit is no end."""
    config = PopulationPPOConfig().environment(BanditWorld, time_limit=time_limit).communication(messages=None)
    config.population(agent="mlp", agent_config={"hidden": 8}).training(gamma=1.0, lambda_=1.0)
    config.env_runners(num_worlds_per_env_runner=3, rollout_fragment_length=5).debugging(seed=1)
    runner, learner = runner_of(config), learner_of(config)
    arrays = {name: as_tensors(dict(a)) for name, a in runner.sample().policy_batches.items()}
    a = arrays["player"]
    assert a["truncated"][:, 3].all()
    learner._add_advantages(arrays)
    hoped = a["values"][:, 4] if time_limit == "bootstrap" else torch.zeros(3, 1)
    assert (a["values"][:, 4].abs() > 1e-3).all()
    torch.testing.assert_close(a["value_targets"][:, 0], a["rewards"][:, :4].sum(1) + hoped)


# ---- how many worlds make up a gradient step ----


@pytest.mark.parametrize(
    ("env_config", "members", "worlds", "expected"),
    [
        ({}, 1, 64, 32),  # shared weights
        ({}, 2, 64, 32),  # as many as seats
        ({}, 8, 256, 128),  # four members to a seat: each has the rows of 32 worlds
        ({}, 8, 64, 64),  # all there are
        ({}, 1, 20, 20),
        ({}, 3, 96, 48),  # 1.5 to a seat, in blocks of 3
        ({}, {"speaker": 6, "listener": 2}, 192, 96),  # the species that needs most
        ({"speakers": 40, "listeners": 40}, 41, 82, 41),  # one block at least
    ],
)
def test_a_minibatch_has_32_worlds_for_each_members_share(
    env_config: dict[str, int], members: Any, worlds: int, expected: int
) -> None:
    config = clock_config(members=members, env_config=env_config).env_runners(num_worlds_per_env_runner=worlds)
    config.validate()
    assert config.plan.worlds_in_minibatch(worlds) == expected
    assert config.plan.worlds_in_minibatch(worlds) % config.plan.balanced_block == 0 or worlds == 20
    config.training(minibatch_size=7)
    assert config.plan.worlds_in_minibatch(worlds) == 7


def test_an_epoch_of_the_learner_takes_as_many_steps_as_there_are_minibatches() -> None:
    config = clock_config(agent="mlp").env_runners(num_worlds_per_env_runner=70).training(num_epochs=1)
    runner, learner = runner_of(config), learner_of(config)
    results = learner.update_from_fragments([runner.sample()], [70], 0, {})
    assert results["__all_modules__"]["num_updates"].peek() == math.ceil(70 / 32)


# ---- which losses there are ----


@pytest.mark.parametrize(
    ("messages", "gradient", "names"),
    [
        (SYMBOLS, "straight_through", {"quality_loss", "message_balance"}),
        (SYMBOLS, "reinforce", {"message_balance"}),
        ({"kind": "vectors", "size": 2}, "through", {"quality_loss"}),
        ({"kind": "dru", "size": 2}, "through", {"quality_loss", "message_balance"}),
        (None, "none", set()),
    ],
)
def test_losses_of_talk_follow_from_the_channel_where_a_config_leaves_them_open(
    messages: Any, gradient: str, names: set[str]
) -> None:
    config = clock_config(agent="mlp", messages=messages, gradient=gradient)
    runner, learner = runner_of(config), learner_of(config)
    results = learner.update_from_fragments([runner.sample()], [12], 0, {})["speaker"]
    assert {"quality_loss", "message_balance", "message_kl"} & set(results) == names
    assert (learner.networks["speaker"].quality is not None) == ("quality_loss" in names)


def test_a_config_from_before_these_losses_goes_on_without_them() -> None:
    """As it comes out of an old checkpoint: nothing of them stands in it."""
    config = clock_config(agent="mlp")
    for key in ("quality_coeff", "message_balance_coeff", "message_kl_coeff", "time_limit"):
        del config.__dict__[key]
    config.validate()
    speaker = config.plan.species["speaker"]
    assert (speaker.quality_weight, speaker.balance_weight, config.plan.keeps_message_logp) == (0.0, 0.0, False)
    runner, learner = runner_of(config), learner_of(config)
    results = learner.update_from_fragments([runner.sample()], [12], 0, {})["speaker"]
    assert not {"quality_loss", "message_balance", "message_kl"} & set(results)


def test_messages_that_are_not_learned_are_not_balanced_either() -> None:
    """A control whose speakers say what they happen to."""
    config = clock_config(agent="mlp", gradient="none")
    runner, learner = runner_of(config), learner_of(config)
    before = {k: v.clone() for k, v in learner.networks["speaker"].agent.message_head.named_parameters()}
    learner.update_from_fragments([runner.sample()], [12], 0, {})
    for key, now in learner.networks["speaker"].agent.message_head.named_parameters():
        assert torch.equal(now, before[key])


def test_messages_are_held_to_what_they_were_where_it_is_asked_for() -> None:
    """At the weights that acted nothing has moved: the first update's divergence is 0, and later ones' is above."""
    config = clock_config(agent="mlp").training(message_kl_coeff=1.0, num_epochs=1)
    runner, learner = runner_of(config), learner_of(config)
    batch = runner.sample()
    first = learner.update_from_fragments([batch], [12], 0, {})["speaker"]["message_kl"].peek()
    assert first == pytest.approx(0.0, abs=1e-8)
    second = learner.update_from_fragments([batch], [12], 1, {})["speaker"]["message_kl"].peek()
    assert second > first
    assert np.isfinite(second)


def test_the_rounding_of_bfloat16_does_not_pass_for_a_change_of_messages() -> None:
    config = clock_config(agent="mlp").training(message_kl_coeff=1.0, num_epochs=1).acceleration(autocast="bf16")
    runner, learner = runner_of(config), learner_of(config)
    result = learner.update_from_fragments([runner.sample()], [12], 0, {})["speaker"]
    assert result["message_kl"].peek() == pytest.approx(0.0, abs=1e-8)
