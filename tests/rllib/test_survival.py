"""Survival in training: what is moved with a member, what is not, and how members come to their fitness."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from popcomm.analysis.experiments.local_training import LocalTraining
from ray.rllib.algorithms.ppo.ppo import PPO

from popcomm.errors import UserError
from popcomm.evolution import Strategy, lineage_file
from popcomm.rllib import PopulationPPO, PopulationPPOConfig
from popcomm.rllib.lessons import lesson_loss, teachers
from popcomm.rllib.member_statistics import MemberStatistics
from popcomm.rllib.restoring import CLOCK, set_own_state
from popcomm.rllib.succession import Succession, carry_out
from popcomm.rllib.survival import Survival

P = 4
TOP = {"kind": "top_k", "k": 2}


def config_of(seed: int = 3, members: int = P, agent: str = "symbolic", **survival: Any) -> PopulationPPOConfig:
    config = (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": 2, "max_steps": 6})
        .communication(messages={"kind": "symbols", "vocab_size": 4, "length": 1})
        .population(agent=agent, members=members, agent_config={"hidden_dim": 8})
        .env_runners(num_worlds_per_env_runner=2 * members, rollout_fragment_length=4)
        .debugging(seed=seed)
    )
    return config.survival(**{"strategy": TOP, "every": 2, **survival}) if survival.get("strategy", TOP) else config


def trained(iterations: int = 1, **survival: Any) -> LocalTraining:
    training = LocalTraining(config_of(**survival), 8)
    for _ in range(iterations):
        training.iterate()
    return training


def succession(*sources: int, **changes: Any) -> Succession:
    values: dict[str, Any] = {
        "mates": np.full(len(sources), -1), "fresh": False, "lessons": 0, "mutation_std": 0.0, "crossover": 0.0,
        "scales": {}, "seed": 5,
    }  # fmt: skip
    return Succession(np.array(sources), **{**values, **changes})


def parts(training: LocalTraining) -> dict[str, torch.Tensor]:
    """All that belongs to members, [P, ...] each: weights, moments, statistics."""
    network = training.learner.networks["swarm"]
    ((_, optimizer),) = training.learner.get_optimizers_for_module("swarm")
    found = {name: value.clone() for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        for key, value in optimizer.state.get(parameter, {}).items():
            if value.ndim:
                found[f"{key} of {name}"] = value.clone()
    return found


def carried_out(training: LocalTraining, how: Succession) -> dict[str, torch.Tensor]:
    optimizers = [optimizer for _, optimizer in training.learner.get_optimizers_for_module("swarm")]
    carry_out(how, training.learner.networks["swarm"], optimizers)
    return parts(training)


def test_a_copy_without_mutation_is_the_parent_bit_for_bit_with_its_moments_and_statistics() -> None:
    training = trained(2, strategy=None)
    before = parts(training)
    after = carried_out(training, succession(0, 0, 2, 0))
    assert sum("exp_avg" in name for name in after) > 10
    for name, values in after.items():
        assert torch.equal(values, before[name][[0, 0, 2, 0]]), name


def test_nothing_is_shared_between_a_parent_and_its_child() -> None:
    training = trained(1, strategy=None)
    carried_out(training, succession(0, 0, 2, 3))
    before = parts(training)
    for parameter in training.learner.networks["swarm"].parameters():
        parameter.data[0] += 1.0
    after = parts(training)
    assert all(torch.equal(after[name][1:], values[1:]) for name, values in before.items())


def test_mutation_moves_children_alone_and_neither_moments_nor_statistics() -> None:
    training = trained(1, strategy=None)
    before = parts(training)
    after = carried_out(training, succession(0, 0, 2, 3, mutation_std=0.1))
    for name, values in after.items():
        assert torch.equal(values[[0, 2, 3]], before[name][[0, 2, 3]]), name
        weights = name in dict(training.learner.networks["swarm"].named_parameters())
        assert torch.equal(values[1], before[name][0]) != (weights and bool(before[name][0].any())), name


def test_by_crossover_whole_tensors_are_the_mates_and_their_moments_go_along() -> None:
    training = trained(1, strategy=None)
    before = parts(training)
    after = carried_out(training, succession(0, 0, 2, 3, mates=np.array([-1, 2, -1, -1]), crossover=0.5))
    names = [name for name, _ in training.learner.networks["swarm"].named_parameters()]
    of_mate = {name for name in names if torch.equal(after[name][1], before[name][2])}
    of_parent = {name for name in names if torch.equal(after[name][1], before[name][0])}
    assert of_mate | of_parent == set(names)
    assert len(of_mate - of_parent) > 3
    assert len(of_parent - of_mate) > 3
    for name in of_mate - of_parent:
        if f"exp_avg of {name}" in after:
            assert torch.equal(after[f"exp_avg of {name}"][1], before[f"exp_avg of {name}"][2])


def test_one_made_anew_has_weights_of_the_seed_no_momentum_and_no_returns() -> None:
    training = trained(2, strategy=None)
    before = parts(training)
    after = carried_out(training, succession(0, -1, 2, 3))
    again = carried_out(trained(2, strategy=None), succession(0, -1, 2, 3))
    other = carried_out(trained(2, strategy=None), succession(0, -1, 2, 3, seed=6))
    names = [name for name, _ in training.learner.networks["swarm"].named_parameters()]
    assert all(torch.equal(after[name], again[name]) for name in after)
    assert any(not torch.equal(after[name][1], other[name][1]) for name in names)
    assert all(not after[f"exp_avg of {name}"][1].any() for name in names if f"exp_avg of {name}" in after)
    assert after["returns.weight"].tolist()[1] == 0
    for name, values in after.items():
        assert torch.equal(values[[0, 2, 3]], before[name][[0, 2, 3]]), name


def test_the_first_step_of_one_made_anew_is_no_jump() -> None:
    training = trained(3, strategy=None)
    carried_out(training, succession(0, -1, 2, 3))
    before = parts(training)
    training.iterate()
    after = parts(training)
    updates, rate = 4, 4e-3
    names = [name for name, _ in training.learner.networks["swarm"].named_parameters()]
    assert max(float((after[n] - before[n])[1].abs().max()) for n in names) < 1.5 * updates * rate


@pytest.mark.parametrize(
    "survival",
    [
        {},
        {"mutation_std": 0.1, "crossover": 0.5, "hyperparameters": {"lr": [0.5, 2.0], "entropy_coeff": [0.5, 2.0]}},
        {"strategy": {"kind": "age_limit", "age": 2}},
        {"newborns": "imitate", "lessons": 2},
        {"strategy": {"kind": "novelty", "k": 1, "weight": 0.5}},
    ],
    ids=["plain", "all", "fresh", "imitate", "novelty"],
)
def test_the_same_seed_gives_the_same_weights_and_the_same_family_tree(survival: dict[str, Any]) -> None:
    first, second = (trained(5, **survival) for _ in range(2))
    one, other = parts(first), parts(second)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert first.survival is not None
    assert second.survival is not None
    assert first.survival.generations["swarm"].born > P
    pd.testing.assert_frame_equal(pd.DataFrame(first.survival.table()), pd.DataFrame(second.survival.table()))


@pytest.mark.parametrize("newborns", ["copy", "fresh", "imitate"])
@pytest.mark.parametrize("agent", ["mlp", "gru", "tiny"])
def test_every_agent_can_be_selected(agent: str, newborns: str) -> None:
    small = {
        "mlp": {},
        "gru": {"hidden": 8, "embedding": 4},
        "tiny": {"hidden_dim": 16, "num_heads": 2, "latent_tokens": 2, "depth": 1},
    }
    own: dict[str, Any] = {"copy": {"crossover": 0.3}, "fresh": {}, "imitate": {"lessons": 2}}[newborns]
    config = config_of(newborns=newborns, **own).population(agent=agent, agent_config=small[agent])
    training = LocalTraining(config, 8)
    for _ in range(5):
        training.iterate()
    assert training.survival is not None
    assert training.survival.generations["swarm"].born > P
    assert all(bool(value.isfinite().all()) for value in parts(training).values())


def test_elites_are_never_worse_than_before() -> None:
    training = trained(2, strategy=None)
    before = parts(training)
    elites = [1, 3]
    after = carried_out(training, succession(1, 1, 3, 3, mutation_std=0.3, crossover=0.5))
    assert all(torch.equal(values[elites], before[name][elites]) for name, values in after.items())


def test_a_selection_goes_on_from_its_state_bit_for_bit() -> None:
    whole = trained(4)
    assert whole.survival is not None
    plan = whole.plan
    copy = Survival(plan, 3)
    copy.set_state(json.loads(json.dumps(_listed(whole.survival.get_state()))))
    first, second = whole.survival.select(6), copy.select(6)
    assert first.successions["swarm"].sources.tolist() == second.successions["swarm"].sources.tolist()
    assert first.successions["swarm"].seed == second.successions["swarm"].seed
    pd.testing.assert_frame_equal(pd.DataFrame(whole.survival.table()), pd.DataFrame(copy.table()))


def test_the_generation_of_a_step_is_how_many_selections_went_before_also_where_every_was_another() -> None:
    """Selections are at the end of iterations 2, 4, 6, and after a resumption with `every` 5 of 10."""
    whole = trained(6)
    assert whole.survival is not None
    late = Survival(config_of(every=5).plan, 3)
    assert late.generations_before(np.arange(1, 4)).tolist() == [0, 0, 0]
    late.set_state(json.loads(json.dumps(_listed(whole.survival.get_state()))))
    assert [late.due(at) for at in (8, 10)] == [False, True]
    late.select(iteration=10)
    assert late.generations_before(np.array([1, 2, 3, 4, 5, 6, 7, 10, 11])).tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    assert pd.DataFrame(late.table()).groupby("generation").iteration.unique().map(list).tolist() == [
        [2], [4], [6], [10], [-1],
    ]  # fmt: skip


@pytest.mark.parametrize(("iteration", "first"), [(0, 5), (1, 10), (5, 10), (6, 15)])
def test_selection_that_is_switched_on_in_a_resumed_run_begins_with_a_whole_generation(
    iteration: int, first: int
) -> None:
    algorithm = MagicMock(iteration=iteration, survival=Survival(config_of(every=5).plan, 3))
    set_own_state(algorithm, {})  # of a component of a checkpoint
    assert algorithm.survival.get_state()["last"] == 0
    set_own_state(algorithm, {CLOCK: {}})
    assert next(at for at in range(iteration + 1, 16) if algorithm.survival.due(at)) == first


def test_a_state_without_iterations_has_those_that_every_says() -> None:
    whole = trained(4)
    assert whole.survival is not None
    older = whole.survival.get_state()
    older["ended"] = {
        name: {k: v for k, v in told.items() if k != "iteration"} for name, told in older["ended"].items()
    }
    copy = Survival(whole.plan, 3)
    copy.set_state(older)
    assert copy.generations_before(np.array([2, 3, 5])).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("survival", "has_parents"),
    [
        ({"strategy": {"kind": "age_limit", "age": 2}}, False),
        ({"newborns": "fresh", "hyperparameters": {"lr": [0.5, 2.0]}}, False),
        ({"newborns": "imitate", "lessons": 2}, True),
        ({}, True),
    ],
    ids=["age_limit", "fresh", "imitate", "copy"],
)
def test_a_parent_is_one_who_gave_weights_or_lessons(survival: dict[str, Any], has_parents: bool) -> None:
    training = trained(4, **survival)
    assert training.survival is not None
    born = pd.DataFrame(training.survival.table()).query("birth > 0")
    assert len(born)
    assert (born.parent >= 0).tolist() == [has_parents] * len(born)
    assert (born.founder == born.id).tolist() == [survival != {}] * len(born)


def _listed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _listed(inner) for key, inner in value.items()}
    return value.tolist() if isinstance(value, np.ndarray) else value


def test_a_state_of_another_population_is_refused() -> None:
    survival = trained(1).survival
    other = trained(1, members=6).survival
    assert survival is not None
    assert other is not None
    with pytest.raises(UserError, match=r"among members {'swarm': 6}, and this configuration among {'swarm': 4}"):
        survival.set_state(other.get_state())


# ---- newborns in the rollout ----


def test_a_newborn_begins_its_seats_lives_anew_and_others_go_on() -> None:
    training = trained(1, strategy=None)
    players = training.runner.rollout.players
    seats = players.members["swarm"]
    before = {k: players.seatings["swarm"].to_worlds(v).clone() for k, v in players.memories["swarm"].items()}
    heard = players.mail.mask.clone()
    assert heard.any()
    newborn = np.array([False, True, False, False])
    training.runner.succeed({"swarm": newborn})
    after = {k: players.seatings["swarm"].to_worlds(v) for k, v in players.memories["swarm"].items()}
    start = training.runner.agent("swarm").initial_state(1)
    is_new = torch.from_numpy(seats == 1)
    assert is_new.any()
    for key, values in after.items():
        assert torch.equal(values[~is_new], before[key][~is_new])
        assert torch.equal(values[is_new], start[key][1].expand_as(values[is_new]))
    assert not players.mail.mask[is_new].any()
    assert torch.equal(players.mail.mask[~is_new], heard[~is_new])


def test_a_life_that_its_predecessor_began_does_not_count_for_a_newborn() -> None:
    training = LocalTraining(config_of(strategy=None), 8)
    runner = training.runner
    runner.sample(0)  # four of six steps
    runner.statistics.read_members()
    newborn = np.array([True, False, False, False])
    runner.succeed({"swarm": newborn})
    runner.sample(0)  # these lives end
    lives = runner.statistics.members["swarm"].measures()["lives"]
    assert lives.tolist() == [0, 4, 4, 4]
    runner.sample(0)
    runner.sample(0)  # and those after them
    assert (runner.statistics.members["swarm"].measures()["lives"] > 0).all()


def test_a_whole_life_counts_that_begins_where_the_episode_before_had_ended() -> None:
    """A generation ends in the row between two episodes, or right behind it: nothing of a predecessor's goes on."""
    for rows, episodes in ((6, 1), (7, 2)):  # that end in the two fragments after it
        config = config_of(strategy=None).env_runners(rollout_fragment_length=rows)
        runner = LocalTraining(config, 8).runner
        runner.sample(0)
        assert not runner.rollout.players.under_way.any()
        runner.succeed({"swarm": np.array([True, True, False, False])})
        runner.statistics.read_members()
        runner.sample(0)
        runner.sample(0)
        measures = runner.statistics.members["swarm"].measures()
        assert np.isfinite(measures["return"]).all()
        assert measures["lives"].sum() == 2 * 8 * episodes


def test_nothing_of_a_life_that_a_predecessor_began_counts_for_a_newborn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two fragments of four rows the first two of the second are of lives that were begun in the first."""
    monkeypatch.setattr("popcomm.rllib.listening.EVERY", 4)
    every = []
    for born in (False, True):
        runner = LocalTraining(config_of(strategy=None), 8).runner
        runner.sample(0)  # four of six steps
        runner.statistics.read_members()
        players = runner.rollout.players
        before = np.bincount(players.members["swarm"].reshape(-1), minlength=P)
        runner.succeed({"swarm": np.array([born, False, False, False])})
        runner.sample(0)  # two steps, the row between two episodes, and one step
        after = np.bincount(players.members["swarm"].reshape(-1), minlength=P)
        every.append((runner.statistics.members["swarm"], before, after))
    (plain, before, after), (own, _, _) = every
    assert plain.measures()["steps"].tolist() == (2 * before + after).tolist()
    assert own.measures()["steps"].tolist() == [after[0], *(2 * before + after)[1:]]
    for name in ("actions", "messages", "occasions"):
        less = plain.sums[name].reshape(P, -1).sum(1) - own.sums[name].reshape(P, -1).sum(1)
        assert less[0] > 0, name
        assert not less[1:].any(), name
    assert own.sums["actions"][0].sum() == after[0]
    assert own.sums["messages"][0].sum() <= after[0]
    for name in ("asked", "followers"):
        assert plain.sums[name][0] > own.sums[name][0], name


def test_a_new_generation_is_learned_from_as_it_was_lived() -> None:
    """The unroll of the fragment after a succession gives the rollout's log-probabilities."""
    training = trained(2, every=2)
    training.runner.module.set_state(training.learner.module.get_state())
    batch = training.runner.sample(training.env_steps).policy_batches["swarm"]
    from popcomm.rllib.shares import load_share

    arrays = load_share([training.runner.sample(0)], [8], 0, 1, 1, torch.device("cpu"))
    assert batch["action_logp"].shape == (8, 4, 2)
    run = training.learner._unroll(arrays)
    decided = training.learner.losses["swarm"].decisions.relived(arrays["swarm"], run["swarm"])
    alive = arrays["swarm"]["alive"]
    assert torch.allclose(decided["action_logp"][alive], arrays["swarm"]["action_logp"][alive], atol=1e-5)


# ---- hyper-parameters and lessons ----


def test_a_member_with_twice_the_rate_moves_twice_as_far() -> None:
    config = config_of(hyperparameters={"lr": [0.5, 4.0]})
    training = LocalTraining(config, 8)
    network = training.learner.networks["swarm"]
    plain = LocalTraining(config_of(strategy=None), 8)
    network.lr_scale.copy_(torch.tensor([1.0, 2.0, 0.0, 1.0]))
    start = parts(training)
    batch = training.runner.sample(0)
    for one in (training, plain):
        one.learner.config.num_epochs = 1
        one.learner.update_from_fragments([batch], [8], 0, {})
    moved, usual = parts(training), parts(plain)
    for name, _ in network.named_parameters():
        far, near = moved[name] - start[name], usual[name] - start[name]
        assert torch.allclose(far[[0, 3]], near[[0, 3]], atol=1e-7)
        assert torch.allclose(far[1], 2 * near[1], atol=1e-6)
        assert not far[2].any()


def test_a_member_with_twice_the_entropy_coefficient_learns_as_if_all_had_it() -> None:
    # In silence: what others say would carry the difference over to all.
    own = LocalTraining(config_of(hyperparameters={"entropy_coeff": [0.5, 4.0]}).communication(messages=None), 8)
    own.learner.networks["swarm"].entropy_coeff_scale.copy_(torch.tensor([1.0, 2.0, 1.0, 1.0]))
    batch = own.runner.sample(0)
    silent = (config_of(strategy=None).communication(messages=None) for _ in range(2))
    once, twice = (LocalTraining(c.training(entropy_coeff=x), 8) for c, x in zip(silent, (0.05, 0.1), strict=True))
    for one in (own, once, twice):
        one.learner.update_from_fragments([batch], [8], 0, {})
    found, plain, double = (parts(one) for one in (own, once, twice))
    for name, _ in own.learner.networks["swarm"].named_parameters():
        assert torch.allclose(found[name][[0, 2, 3]], plain[name][[0, 2, 3]], atol=1e-6), name
        assert torch.allclose(found[name][1], double[name][1], atol=1e-6), name
    assert not torch.allclose(plain["agent.policy.layers.1.weight"][1], double["agent.policy.layers.1.weight"][1])


def test_a_pupil_comes_to_do_and_say_what_its_teacher_does() -> None:
    training = trained(1, newborns="imitate", lessons=3, every=1000)
    network = training.learner.networks["swarm"]
    training.learner.succeed({"swarm": succession(0, 0, 2, 3, fresh=True, lessons=3)})
    assert network.lessons_left.tolist() == [0, 3, 0, 0]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter[0] *= 2.0  # a teacher that is sure of what it does
    obs = torch.rand(1, 64, network.spec.obs_size, generator=torch.Generator().manual_seed(0)).expand(P, -1, -1)
    weight, generator = torch.full((P, 64), 1 / 64), torch.Generator().manual_seed(0)
    distribution = training.learner.losses["swarm"].distribution
    optimizer = torch.optim.Adam(network.parameters(), 0.01)

    def apart() -> tuple[float, float]:
        """Divergence (nats) of what member 1 does and says from what member 0 does and says."""
        with torch.no_grad():
            output = network.agent(obs, None, network.agent.initial_state(64))
        logs = (output.action_logits.log_softmax(-1), output.message.log_softmax(-1))
        actions, messages = (float((v[0].exp() * (v[0] - v[1])).sum(-1).mean()) for v in logs)
        return actions, messages

    before, teacher_before = apart(), {n: p[0].clone() for n, p in network.named_parameters()}
    for _ in range(150):
        with torch.no_grad(), teachers([network]):
            shown = network.agent(obs, None, network.agent.initial_state(64))
        output = network.agent(obs, None, network.agent.initial_state(64))
        optimizer.zero_grad()
        lesson_loss(network, distribution, output, shown, None, weight, generator).backward()
        optimizer.step()
    assert all(torch.equal(p[0], teacher_before[n]) for n, p in network.named_parameters())
    assert [now < 0.2 * then for now, then in zip(apart(), before, strict=True)] == [True, True]


def test_lessons_end_and_so_do_those_of_a_teacher_that_is_replaced() -> None:
    training = trained(1, newborns="imitate", lessons=2, every=1000)
    network = training.learner.networks["swarm"]
    training.learner.succeed({"swarm": succession(0, 0, 3, 3, fresh=True, lessons=2)})
    assert network.lessons_left.tolist() == [0, 2, 2, 0]
    assert "lesson_loss" in training.iterate()["swarm"]
    training.learner.succeed({"swarm": succession(0, 1, 2, 0, fresh=True, lessons=2)})
    assert network.lessons_left.tolist() == [0, 1, 0, 2]
    assert network.teacher.tolist()[1::2] == [0, 0]
    for _ in range(2):
        training.iterate()
    assert not network.is_taught


class OfOneThatIsReplaced(Strategy):
    """Place 1 gets a child of 2, on whose place sits a child of 3 from now on."""

    def select(self, generation, traits, rng):
        return np.array([0, 2, 3, 3])


def test_pupils_are_never_taught_by_newborns() -> None:
    strategy = {"kind": f"{__name__}:OfOneThatIsReplaced"}
    training = trained(2, strategy=strategy, newborns="imitate", lessons=9)
    network = training.learner.networks["swarm"]
    assert network.lessons_left.tolist() == [0, 9, 9, 0]
    assert network.teacher.tolist()[1:3] == [3, 3]
    assert training.survival is not None
    assert training.survival.generations["swarm"].parents.tolist() == [-1, 3, 3, -1]


# ---- fitness ----


def test_fitness_is_a_members_mean_return_and_newborns_have_none() -> None:
    survival = trained(2).survival
    assert survival is not None
    generation = survival.generations["swarm"]
    assert np.isnan(generation.fitness).sum() == 2
    table = pd.DataFrame(survival.table())
    first = table[table.generation == 0]
    assert set(first[first.death.eq(-1)].fitness) == set(first.fitness.nlargest(2))


@pytest.mark.parametrize(
    ("survival", "told"),
    [
        ({"every": 1}, ["at the end of generation 0 nothing was measured of any of the 4 members of species 'swarm'"]),
        ({}, []),
        ({"every": 1, "strategy": {"kind": "age_limit", "age": 2}}, []),
        ({"every": 1, "strategy": {"kind": "novelty"}}, []),
    ],
    ids=["short", "long", "age", "novelty"],
)
def test_generations_that_end_before_anybody_is_known_are_told_once(
    survival: dict[str, Any], told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    trained(1, **survival)
    found = [record.getMessage() for record in caplog.records if record.name == "popcomm.rllib.survival"]
    assert [line for line in found if "more steps than two episodes" in line] == found
    assert len(found) == len(told)
    assert all(part in line for part, line in zip(told, found, strict=True))


def test_newborns_whose_lives_do_not_fit_into_a_generation_are_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    training = trained(2)  # eight rows, an episode and the row between two
    survival = training.survival
    assert survival is not None
    elders = np.flatnonzero(survival.generations["swarm"].known).tolist()
    for iteration in (4, 6, 8):
        survival.take([{"swarm": _of_one_life(elders)}])
        survival.select(iteration)
    lines = [record.getMessage() for record in caplog.records if record.name == "popcomm.rllib.survival"]
    assert len(lines) == 1
    assert "nothing is known of 2 of the 4 members of species 'swarm'" in lines[0]


def _of_one_life(members: list[int]) -> dict[str, Any]:
    """What members have told after a life each."""
    own = MemberStatistics(P)
    seats = np.array([members])
    own.ended(seats, np.ones(seats.shape), np.ones(1), np.ones(seats.shape, bool))
    return own.get_state()


@pytest.mark.parametrize("name", ["survival", "survival_sweep"])
def test_generations_of_shipped_configs_are_longer_than_two_episodes(name: str) -> None:
    config = yaml.safe_load((Path(__file__).parents[2] / "rllib_configs" / f"{name}.yaml").read_text())
    steps = config["survival"]["every"] * config["env_runners"]["rollout_fragment_length"]
    assert steps >= 2 * (config["environment"]["env_config"]["max_steps"] + 1)  # and the row between two


def worth(measures: dict[str, np.ndarray]) -> np.ndarray:
    return -np.arange(len(measures["return"]), dtype=float)


def test_a_function_of_ones_own_is_the_fitness() -> None:
    survival = trained(2, fitness=f"{__name__}:worth").survival
    assert survival is not None
    assert survival.generations["swarm"].ids.tolist()[:2] == [0, 1]


def entropy(measures: dict[str, np.ndarray]) -> np.ndarray:
    return measures["message_entropy"]


def test_what_nobody_did_yet_is_nan_for_a_function_of_ones_own() -> None:
    survival = Survival(config_of(fitness=entropy).plan, 3)
    assert np.isnan(survival.fitness("swarm")).all()
    assert survival.select(2).successions["swarm"].sources.tolist() == [0, 1, 2, 3]


class TooFew(Strategy):
    def select(self, generation, traits, rng):
        return np.zeros(2, int)


def too_few(measures: dict[str, np.ndarray]) -> np.ndarray:
    return np.zeros(2)


def infinite_of_one(measures: dict[str, np.ndarray]) -> np.ndarray:
    return np.array([3.0, -np.inf, 2.0, 1.0])


def test_an_infinite_fitness_is_nobodys_but_the_members_of_which_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    survival = trained(4, fitness=infinite_of_one).survival
    assert survival is not None
    generation = survival.generations["swarm"]
    assert np.array_equal(generation.fitness, [3.0, np.nan, 2.0, np.nan], equal_nan=True)
    assert generation.ids.tolist()[:3] == [0, 1, 2]  # of whom nothing is known lives on
    lines = [record.getMessage() for record in caplog.records if "infinite" in record.getMessage()]
    assert len(lines) == 1
    assert "infinite of members 1 of species 'swarm' at the end of generation 0" in lines[0]


def strings(measures: dict[str, np.ndarray]) -> list[str]:
    return ["1", "high", "2", "low"]


def unequal(measures: dict[str, np.ndarray]) -> list[object]:
    return [[1.0], [1.0, 2.0], 3.0, 4.0]


def with_gradient(measures: dict[str, np.ndarray]) -> torch.Tensor:
    return torch.ones(4, requires_grad=True)


@pytest.mark.parametrize(
    ("survival", "said"),
    [
        ({"strategy": {"kind": "top_k", "k": 9}}, "k is 9, and must be at most the 4 members"),
        ({"every": 0}, "survival.every is 0, and must be a whole number of at least 1"),
        ({"members": 1}, "selection needs 2 members or more in a species that learns.*is 1 of 'swarm'"),
        ({"fitness": "returns"}, "survival.fitness 'returns' does not exist; did you mean 'return'"),
        ({"fitness": "agreed"}, "survival.fitness 'agreed' does not exist; did you mean 'agreement'"),
        ({"mutation_std": -0.1}, "survival.mutation_std is -0.1, and must be a number of at least 0"),
        ({"crossover": 2}, r"survival.crossover is 2, and must lie in \[0, 1\]"),
        ({"newborns": "copied"}, "survival.newborns is 'copied'; did you mean 'copy'"),
        ({"hyperparameters": {"lrs": [1, 2]}}, "survival.hyperparameters.lrs does not exist; did you mean 'lr'"),
        ({"hyperparameters": {"lr": [2, 1]}}, "its lowest must not be above its highest"),
        ({"hyperparameters": {"lr": 2}}, r"must be \[lowest, highest\], multiples of training.lr"),
        ({"perturbation": 0.5}, "survival.perturbation is 0.5, and must be a finite number of at least 1"),
        ({"perturbation": float("inf")}, "survival.perturbation is inf, and must be a finite number of at least 1"),
        ({"fitness": ["return"]}, r"survival.fitness is \['return'\], and must be a function, .*one of return, shared"),
        ({"hyperparameters": ["lr"]}, r"survival.hyperparameters is \['lr'\], and must map lr or entropy_coeff to"),
        ({"pressure": 0}, "survival.pressure is 0, and has no effect: nobody whom the strategy replaces is replaced"),
        ({"pressure": {"kind": "constant", "value": 0}}, "survival.pressure is .*, and has no effect"),
        ({"mutation_schedule": 0}, "survival.mutation_schedule is 0, and has no effect: it multiplies"),
        ({"smoothing": 1.0}, "survival.smoothing is 1.0, and must be at least 0 and below 1"),
        ({"within": "communities"}, "population.communities is 1; it needs 2 or more"),
        ({"within": "species_"}, "did you mean 'species'"),
    ],
)
def test_what_cannot_be_is_told_before_work_starts(survival: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        config_of(**survival).validate()


@pytest.mark.parametrize(
    ("survival", "said"),
    [
        ({"every": 5}, "survival.every is given, and survival.strategy is missing: nobody is selected without it"),
        (
            {"strategy": TOP, "newborns": "fresh", "mutation_std": 0.1},
            "survival.mutation_std is 0.1, and has no effect",
        ),
        ({"strategy": TOP, "newborns": "fresh", "crossover": 0.1}, "survival.crossover is 0.1, and has no effect"),
        (
            {
                "strategy": {"kind": "age_limit", "age": 2},
                "mutation_schedule": {"kind": "linear", "begin": 0, "end": 9},
            },
            "survival.mutation_schedule is .*, and has no effect",
        ),
        ({"strategy": TOP, "lessons": 3}, "survival.lessons is 3, and has no effect.*is 'imitate'"),
        ({"strategy": TOP, "perturbation": 1.5}, "has no effect without survival.hyperparameters"),
    ],
)
def test_what_has_no_effect_is_told(survival: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        config_of(strategy=None).copy(copy_frozen=False).survival(**survival).validate()


def test_null_switches_selection_off_whatever_else_is_said_of_it() -> None:
    config = config_of(strategy=None).survival(strategy=None, every=5, mutation_std=0.1)
    config.validate()
    assert config.plan.survival is None


def success(measures: dict[str, np.ndarray]) -> np.ndarray:
    return measures["success"]


class Misspelt(TooFew):
    traits = ("message",)


class Imitators(TooFew):
    newborns = "imitates"


@pytest.mark.parametrize(
    ("survival", "said"),
    [
        (
            {"fitness": success},
            "success asks for 'success', which is not measured of species 'swarm'; allowed: return,",
        ),
        (
            {"strategy": Misspelt()},
            "survival.strategy Misspelt: the trait 'message' does not exist; did you mean 'mess",
        ),
        ({"strategy": Imitators()}, "survival.strategy Imitators: newborns is 'imitates'; did you mean 'imitate'"),
        ({"strategy": {"kind": f"{__name__}:TooFew"}}, "returned 2 members, and must return 4"),
        ({"fitness": too_few}, r"survival.fitness too_few returned \[2\] numbers for species 'swarm'"),
        ({"fitness": strings}, r"fitness strings returned <U4 \[4\] for species 'swarm', and must return one number"),
        ({"fitness": unequal}, "fitness unequal returned list, which is no array .*, and must return one number"),
        ({"fitness": with_gradient}, "with_gradient returned Tensor, .* must return one number for each of its 4"),
    ],
)
def test_what_strategies_and_functions_answer_is_checked_before_work_starts(
    survival: dict[str, Any], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        config_of(**survival).validate()


class Counting(Strategy):
    """Remembers how often it was asked."""

    traits = ("messages",)

    def __init__(self) -> None:
        self.asked = 0

    def select(self, generation, traits, rng):
        self.asked += 1
        assert traits["messages"].shape[0] == generation.members
        return np.arange(generation.members)


def test_what_strategies_are_asked_beforehand_they_do_not_remember() -> None:
    strategy = Counting()
    config_of(strategy=strategy).validate()
    assert strategy.asked == 0


@pytest.mark.parametrize("key", ["pressure", "mutation_schedule"])
def test_what_causes_no_load_has_no_schedule_of_load(key: str) -> None:
    with pytest.raises(UserError, match=f"survival.{key} has the schedule 'load_linear', which is for word_repetition"):
        config_of(**{key: {"kind": "load_linear", "begin": 0, "end": 9}}).validate()


# ---- once in a generation ----


def selecting(training: LocalTraining, monkeypatch: pytest.MonkeyPatch) -> PopulationPPO:
    """An algorithm with the selection of a training, and nothing else."""
    monkeypatch.setattr("popcomm.rllib.algorithm.learners.ask", lambda group, how: [how(training.learner)])
    algorithm = object.__new__(PopulationPPO)
    algorithm.survival, algorithm.schedules = training.survival, training.schedules
    algorithm.learner_group, algorithm.members, algorithm.selected = None, {}, {}  # type: ignore[assignment]
    return algorithm


def test_a_generation_ends_once_however_often_is_trained_in_an_iteration_and_is_not_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Iterations of several trainings, and two in which nothing is learned: 4, that was to end the second generation,
    and 7."""
    algorithm = selecting(trained(1), monkeypatch)
    assert algorithm.survival is not None
    ended = []
    for iteration, trainings in enumerate((1, 3, 2, 0, 2, 2, 0, 1), 1):
        algorithm._iteration = iteration - 1
        ended += [iteration for _ in range(trainings) if algorithm._select()]
    assert ended == [2, 5, 6, 8]


def test_an_iteration_tells_of_births_of_its_own_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several trainings in one iteration the first selects; in the next iteration nothing is learned."""
    algorithm = selecting(trained(1, fitness=worth), monkeypatch)
    monkeypatch.setattr("popcomm.rllib.algorithm.learners.loss_told", lambda group: nullcontext())

    def results_of(iteration: int, trainings: int) -> dict[str, Any]:
        algorithm._iteration = iteration - 1

        def step(self: PopulationPPO) -> dict[str, Any]:
            for _ in range(trainings):
                self._select()
            return {}

        monkeypatch.setattr(PPO, "step", step)
        return algorithm.step()

    told = results_of(2, 3)["survival"]
    assert isinstance(told, dict)
    assert told["swarm"]["births"] == 2
    algorithm.members = {"swarm": {}}
    later = results_of(3, 0)
    assert (later["survival"], later["member"]) == ({}, {})


def test_after_a_restore_the_next_generation_ends_where_it_would_have() -> None:
    whole = trained(3)  # a selection at 2
    assert whole.survival is not None
    state = whole.survival.get_state()
    copy, before = Survival(whole.plan, 3), Survival(whole.plan, 3)
    copy.set_state(state)
    before.set_state({key: value for key, value in state.items() if key != "last"})  # an earlier checkpoint
    for survival in (whole.survival, copy, before):
        assert [survival.due(iteration) for iteration in (3, 4)] == [False, True]
    assert copy.due(5)  # if nothing was learned in 4


# ---- what is written ----


def test_the_lineage_is_a_table_with_null_where_nothing_is(tmp_path: Path) -> None:
    survival = trained(4).survival
    assert survival is not None
    lineage_file.write(tmp_path, survival.table())
    table = pd.read_parquet(tmp_path / "lineage.parquet")
    assert {"species", "generation", "member", "id", "parent", "birth", "death", "fitness"} <= set(table)
    assert len(table) == 3 * P
    assert table.groupby("generation").member.apply(list).tolist() == [[0, 1, 2, 3]] * 3
    assert table[table.generation == 0].parent.isna().all()
    dead = table[table.death.notna()]
    assert (dead.death == dead.generation).all()
    children = table[table.parent.notna()]
    assert set(children.parent) <= set(table.id)


def test_members_are_counted_without_selection_too() -> None:
    told = LocalTraining(config_of(strategy=None), 8)
    told.iterate()
    told.iterate()
    measures = told.runner.statistics.members["swarm"].measures()
    assert measures["steps"].sum() == 8 * 2 * 7  # the eighth row only starts the worlds over
    assert (measures["lives"] == 4).all()
    talk = {"message_entropy", "agreement", "listening", "influence"}
    assert set(measures) == {"return", "shared_return", "reward", "lives", "steps", *talk}
    assert measures["return"].mean() == pytest.approx(measures["shared_return"].mean())
