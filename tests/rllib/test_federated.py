"""Federated averaging: means with known answers, bounds and noise, what is spent, an attack, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from popcomm.analysis.experiments.local_training import LocalTraining
from scipy.stats import norm

from popcomm.cli import schema
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig, federated, state_files
from popcomm.rllib.federated import Federation, published
from popcomm.rllib.federated_plan import Federated

DELTA = 1e-5
PRIVATE = {"every": 2, "clip": 0.5, "epsilon": 4.0, "delta": DELTA, "rounds": 9}


def config_of(ways: Any, members: int = 4, messages: Any = None, **more: Any) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment("swarm_v0", env_config={"num_agents": 4, "max_steps": 6})
        .communication(messages=messages, **more)
        .population(agent="mlp", agent_config={"hidden": 8}, members=members)
        .training(federated=ways, num_epochs=1, minibatch_size=8)
        .env_runners(num_worlds_per_env_runner=8, rollout_fragment_length=7)
        .debugging(seed=3)
    )


def trained(ways: Any, iterations: int) -> LocalTraining:
    training = LocalTraining(config_of(ways), 8)
    for _ in range(iterations):
        training.iterate()
    return training


def weights(training: LocalTraining) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in training.learner.networks["swarm"].named_parameters()}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def updates(members: int = 5, seed: int = 1, size: float = 1.0) -> list[torch.Tensor]:
    drawn = generator(seed)
    return [size * torch.randn(members, *shape, generator=drawn) for shape in [(3, 4), (4,), (2, 2, 2)]]


def flat(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([part.flatten(1) for part in parts], 1)


# ---- a round ----


def test_without_noise_and_clip_all_go_on_from_the_plain_mean_of_what_each_would_have_alone() -> None:
    together, apart = trained({"every": 2}, 2), trained({"every": 3}, 2)
    mean = {name: own.mean(0, keepdim=True) for name, own in weights(apart).items()}
    for name, own in weights(together).items():
        torch.testing.assert_close(own, mean[name].expand_as(own), rtol=1e-5, atol=1e-6)
        assert not torch.equal(weights(apart)[name][0], weights(apart)[name][1])


def test_all_begin_with_the_weights_of_the_first_and_are_alike_after_rounds_alone() -> None:
    training = LocalTraining(config_of({"every": 2}), 8)
    seen = []
    for _ in range(5):
        seen.append(all(bool((w == w[:1]).all()) for w in weights(training).values()))
        training.iterate()
    assert seen == [True, False, True, False, True]


def test_no_update_is_longer_than_the_clip_and_short_ones_stay_what_they_are() -> None:
    told = published(updates(size=10.0), 0.5, 0.0, generator())
    assert flat(told.updates).double().norm(dim=1).max() <= 0.5
    assert flat(told.updates).norm(dim=1).numpy() == pytest.approx(0.5, rel=1e-5)
    torch.testing.assert_close(told.norms, flat(updates(size=10.0)).double().norm(dim=1))
    short = updates(size=0.001)
    assert all(torch.equal(*pair) for pair in zip(published(short, 0.5, 0.0, generator()).updates, short, strict=True))


def test_a_long_update_of_one_member_moves_the_mean_by_clip_over_members_at_most() -> None:
    one, other = updates(), updates()
    for part in other:
        part[2] *= -1e6
    means = [flat(published(u, 0.5, 0.0, generator()).updates).mean(0) for u in (one, other)]
    assert float((means[0] - means[1]).norm()) <= 2 * 0.5 / 5 + 1e-6


def test_every_member_adds_noise_of_its_own_as_large_as_sigma_says() -> None:
    ways, none = Federated(**PRIVATE), [torch.zeros(4, 200, 50), torch.zeros(4, 50)]
    noise = flat(published(none, ways.clip, ways.sigma, generator()).updates)
    assert noise.std(1).numpy() == pytest.approx(ways.sigma, rel=0.03)
    assert noise.mean(0).std() == pytest.approx(ways.sigma / 2, rel=0.03)
    assert np.abs(np.corrcoef(noise.numpy()) - np.eye(4)).max() < 0.05


def test_every_round_has_noise_of_its_own_and_the_same_seed_the_same() -> None:
    def rounds(seed: int) -> list[torch.Tensor]:
        weight = torch.nn.Parameter(torch.zeros(3, 2, 2))
        federation, seen = Federation(Federated(**{**PRIVATE, "every": 1}), {"a": 3}, lambda _: [weight], seed), []
        for iteration in range(2):
            before = weight.detach().clone()
            federation.end(iteration, ["a"])
            seen.append(weight.detach() - before)
        return seen

    (first, second), again, other = rounds(1), rounds(1), rounds(2)
    assert torch.equal(first, again[0])
    assert not torch.allclose(first, second)
    assert not torch.allclose(first, other[0])


# ---- what is spent ----


def test_sigma_is_that_of_the_analytic_gaussian_mechanism_over_all_rounds() -> None:
    """3.7306 for (1, 1e-5) and a sensitivity of 1; updates lie 2 clip apart at most, R rounds take sqrt(R) of it."""
    assert Federated(5, 0.5, 1.0, DELTA, 16).sigma == pytest.approx(4 * 3.730632, rel=1e-6)
    assert Federated(5, 0.5).sigma == 0


def test_what_is_spent_is_below_the_renyi_bound_and_that_of_loss_distributions() -> None:
    """Renyi: (alpha, n alpha / 2 s^2), s = sigma / sensitivity (Mironov 2017, corollary 3), which is looser."""
    from dp_accounting import GaussianDpEvent, pld, rdp

    ways = Federated(**PRIVATE)
    assert ways.spent(np.array([0, 9])).tolist() == pytest.approx([0.0, 4.0], rel=1e-6)
    spread = ways.sigma / (2 * PRIVATE["clip"])
    for rounds in (1, 20):
        spent = float(ways.spent(np.array(rounds)))
        exact, loose = pld.PLDAccountant(), rdp.RdpAccountant()
        for accountant in (exact, loose):
            accountant.compose(GaussianDpEvent(spread), rounds)
        assert spent == pytest.approx(exact.get_epsilon(DELTA), rel=2e-3)
        by_hand = min(
            a * rounds / (2 * spread**2) + math.log(1 / DELTA) / (a - 1) for a in np.linspace(1.01, 100, 9999)
        )
        assert spent <= loose.get_epsilon(DELTA) <= by_hand * 1.001


def told_apart(ways: Federated, size: int = 40, rounds: int = 9, trials: int = 4000) -> float:
    """AUC of the best attack on all rounds' updates of a member: had it lived through what moves one weight by clip?

    The other half lived through the opposite, which is as far away as clipping allows.
    """
    lived = torch.zeros(trials, size)
    lived[:, 0] = 100.0
    lived[trials // 2 :] *= -1
    seen = [published([lived], ways.clip, ways.sigma, generator(r)).updates[0][:, 0] for r in range(rounds)]
    score = torch.stack(seen).mean(0)
    members, others = score[: trials // 2], score[trials // 2 :]
    return float((members[:, None] > others).double().mean())


def test_the_best_membership_attack_comes_to_what_the_mechanism_allows_and_no_further() -> None:
    """Two normals a distance mu apart, mu = sensitivity sqrt(R) / sigma: AUC = Phi(mu / sqrt 2)."""
    for epsilon, most in ((0.1, 0.53), (1.0, 0.6), (8.0, 0.96)):
        ways = Federated(**{**PRIVATE, "epsilon": epsilon})
        mu = 2 * PRIVATE["clip"] * 3 / ways.sigma
        assert told_apart(ways) == pytest.approx(norm.cdf(mu / math.sqrt(2)), abs=0.02)
        assert told_apart(ways) < most
    assert told_apart(Federated(2, 0.5)) == 1.0


def test_rounds_are_told_with_what_they_cost_each_member() -> None:
    training = LocalTraining(config_of(PRIVATE), 8)
    results = [training.iterate() for _ in range(4)]
    told = [{name: {k: _peek(v) for k, v in own.items()} for name, own in r.items()} for r in results]
    rounds = [federated.scalars(training.plan.federated, t).get("federated/rounds") for t in told]
    assert rounds == [0, 1, 1, 2]
    ways = Federated(**PRIVATE)
    spent = federated.scalars(ways, told[-1])
    assert spent["federated/epsilon"] == pytest.approx(float(ways.spent(np.array(2))))
    assert (spent["federated/delta"], spent["federated/sigma"]) == (DELTA, ways.sigma)
    assert (
        federated.arrays(training.plan, told[-1])["federated/swarm/epsilon"].tolist()
        == [spent["federated/epsilon"]] * 4
    )
    assert told[1]["swarm"]["federated/update_norm"] > 0
    assert 0 <= told[1]["swarm"]["federated/clipped"] <= 1
    assert federated.scalars(None, told[-1]) == {}


def _peek(value: Any) -> float:
    return float(value.peek() if hasattr(value, "peek") else value)


# ---- the same in other places ----


def test_the_same_seed_gives_the_same_weights_and_a_state_in_files_goes_on_bit_for_bit(tmp_path: Any) -> None:
    straight, again = trained(PRIVATE, 5), trained(PRIVATE, 3)
    # In the middle between two rounds: what members have in common is not what they are.
    kept = {"learner": again.learner.get_state(), "runner": again.runner.run_state()}
    state_files.write(tmp_path / "state", kept["learner"])
    other = LocalTraining(config_of(PRIVATE), 8)
    other.learner.set_state(state_files.read(tmp_path / "state", trust=True)[0])
    other.runner.set_run_state(kept["runner"])
    other.iteration, other.env_steps = again.iteration, again.env_steps
    for training in (again, other):
        training.iterate()
        training.iterate()
    for training in (again, other):
        ours, theirs = weights(training), weights(straight)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert training.learner.federation is not None
        assert training.learner.federation.rounds == {"swarm": 2}


def test_weights_that_are_loaded_alone_are_made_those_of_the_first_in_the_next_update() -> None:
    apart, training = trained({"every": 99}, 1), LocalTraining(config_of({"every": 99, "clip": 1e-9}), 8)
    loaded = weights(apart)
    training.learner.set_state({"rl_module": apart.learner.get_state()["rl_module"]})
    assert all(torch.equal(w, loaded[name]) for name, w in weights(training).items())
    assert training.learner.federation is not None
    training.learner.federation.begin()
    assert all(torch.equal(w, loaded[name][:1].expand_as(w)) for name, w in weights(training).items())


def test_two_learners_find_what_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has half of the worlds; with the same noise they come to the same weights, up to the order of sums."""
    one, halves = LocalTraining(config_of({**PRIVATE, "every": 1}), 8), []
    start = one.learner.get_state()
    batch = one.runner.sample()
    one.learner.update_from_fragments([batch], [8], 0, {"num_env_steps_sampled_lifetime": 0})
    for _ in range(2):
        half = LocalTraining(config_of({**PRIVATE, "every": 1}), 8)
        half.learner.set_state(start)
        halves.append(half)
    _together(monkeypatch, [half.learner for half in halves], batch)
    for name, own in weights(one).items():
        first, second = (weights(half)[name] for half in halves)
        assert torch.equal(first, second)
        torch.testing.assert_close(first, own, rtol=1e-4, atol=1e-5)


def _together(monkeypatch: pytest.MonkeyPatch, learners: list[Any], batch: Any) -> None:
    """Let learners update at once, each in a thread with its rank, as two processes would."""
    import threading

    from popcomm.rllib import learner as module

    barrier, parts, rank = threading.Barrier(len(learners)), {}, threading.local()

    def reduce(values: torch.Tensor, op: Any = None) -> None:
        parts[rank.own] = values.clone()
        barrier.wait(30)
        stacked = torch.stack([parts[r] for r in range(len(learners))])
        barrier.wait(30)
        values.copy_(stacked.amin(0) if op == torch.distributed.ReduceOp.MIN else stacked.sum(0))

    monkeypatch.setattr(module.torch.distributed, "is_initialized", lambda: hasattr(rank, "own"))
    monkeypatch.setattr(module.torch.distributed, "get_world_size", lambda: len(learners))
    monkeypatch.setattr(module.torch.distributed, "get_rank", lambda: rank.own)
    monkeypatch.setattr(module.torch.distributed, "all_reduce", reduce)
    failed: list[BaseException] = []

    def work(own: int) -> None:
        rank.own = own
        try:
            learners[own].update_from_fragments([batch], [8], 0, {"num_env_steps_sampled_lifetime": 0})
        except BaseException as error:
            failed.append(error)
            barrier.abort()

    threads = [threading.Thread(target=work, args=(own,)) for own in range(len(learners))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed, failed


# ---- what is refused ----

SYMBOLS = {"kind": "symbols", "vocab_size": 4, "length": 1}


def grounded(weights: dict[str, float], ways: Any = PRIVATE, messages: Any = SYMBOLS) -> PopulationPPOConfig:
    """Of agents with losses that ground what is said."""
    config = config_of(ways, messages=messages, gradient="reinforce")
    return config.population(agent="symbolic", agent_config={"hidden_dim": 8, **weights})


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"every": 0}, "training.federated.every is 0, and must be a whole number of at least 1"),
        ({"epsilon": 0}, "training.federated.epsilon is 0, and must be a finite number above 0"),
        ({"epsilon": -1.0}, "epsilon is -1.0, and must be"),
        ({"delta": 1.0}, "training.federated.delta is 1.0, and must lie between 0 and 1, both excluded"),
        ({"delta": 0}, "delta is 0, and must lie"),
        ({"clip": 0}, "training.federated.clip is 0, and must be a finite number above 0"),
        ({"rounds": 0}, "training.federated.rounds is 0, and must be a whole number"),
        ({"rounds": None}, "training.federated has no 'rounds', and epsilon 4.0 needs clip, delta and rounds"),
        ({"epsilon": None}, "training.federated.delta is 1e-05, of a guarantee that epsilon is missing to"),
        ({"epsilom": 2}, "'epsilom'.*epsilon"),
    ],
)
def test_what_gives_no_guarantee_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        config_of({**PRIVATE, **changes}).validate()


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        (lambda: config_of(3), "training.federated is 3, and must be a mapping"),
        (lambda: config_of({"clip": 1.0}), "training.federated has no 'every'"),
        (lambda: config_of({"every": 1}, members=1), "population.members is 1, who has nobody to be averaged with"),
        (
            lambda: config_of({"every": 1}).survival(strategy={"kind": "top_k", "k": 2}),
            "training.federated and survival.strategy are both given",
        ),
        (lambda: config_of(PRIVATE, messages=SYMBOLS), "gradient 'relaxed' listeners hand gradients"),
        (
            lambda: config_of(PRIVATE, messages=SYMBOLS, gradient="reinforce", credit="receivers"),
            "credit 'receivers' tells senders what became of those who heard them",
        ),
        (lambda: config_of(PRIVATE).population(critic="central"), "critic 'central' looks at what all others see"),
        (
            lambda: config_of(PRIVATE).training(joint_critic=True),
            "joint_critic learns from what all members saw and did",
        ),
        (
            lambda: grounded({"world_weight": 0}),
            "agent_config.reconstruction_weight 0.1 a member of species 'swarm' learns from what those whom it hears",
        ),
        (
            lambda: grounded({"reconstruction_weight": 0}),
            "by agent_config.world_weight 0.1 a member of species 'swarm' learns from the state of the world",
        ),
        (
            lambda: config_of({"every": 1}).population(agent="bottom_up", agent_config={}, seating="worlds"),
            "weights of population.agent .* are not the same ones of every member",
        ),
        (
            lambda: config_of({"every": 2}).reporting(min_time_s_per_iteration=5),
            "reporting.min_time_s_per_iteration is 5, .* and training.federated counts iterations",
        ),
        (
            lambda: config_of({"every": 2}).reporting(min_train_timesteps_per_iteration=9),
            "reporting.min_train_timesteps_per_iteration is 9, .* and training.federated counts iterations",
        ),
    ],
)
def test_what_cannot_be_averaged_or_would_tell_more_is_refused(config: Any, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        config().validate()


def test_what_tells_nothing_more_is_allowed_and_without_an_epsilon_all_gradients_are() -> None:
    config_of(PRIVATE, messages=SYMBOLS, gradient="reinforce", credit="next").validate()
    config_of({"every": 3, "clip": 1.0}, messages=SYMBOLS).validate()
    grounded({"reconstruction_weight": 0, "world_weight": 0}).validate()
    grounded({"world_weight": 0}, messages=None).validate()  # nobody hears what others saw
    grounded({}, {"every": 3, "clip": 1.0}).validate()


def test_a_document_gives_it() -> None:
    document = {
        "environment": {"env": "swarm_v0"},
        "population": {"members": 4, "agent_config": {"world_weight": 0.0}},
        "training": {"federated": {**PRIVATE, "clip": 1}},
    }
    config = schema.apply(document, PopulationPPOConfig())
    config.validate()
    assert config.plan.federated == Federated(**{**PRIVATE, "clip": 1})
