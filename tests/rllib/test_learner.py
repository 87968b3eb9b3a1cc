"""The learner: gradients between agents, freezing, guards. No Ray processes: runner and learner in this one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.utils.actor_manager import ResultOrError
from torch import nn

from popcomm.agents.contract import AgentOutput, AgentSpec
from popcomm.agents.population import PopulationLinear
from popcomm.channels import Vectors
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.fragment import as_tensors
from popcomm.rllib.learner import PopulationPPOLearner
from popcomm.rllib.learners import hand_over
from popcomm.rllib.module import PopulationRLModule
from popcomm.rllib.unroll import Unroller
from tests.rllib.test_rollout import SYMBOLS, clock_config, runner_of
from tests.rllib.worlds import BanditWorld


def learner_of(config: PopulationPPOConfig) -> PopulationPPOLearner:
    learner = PopulationPPOLearner(config=config, module_spec=config.get_multi_rl_module_spec())
    learner.build()
    return learner


def update(learner: PopulationPPOLearner, runner: PopulationEnvRunner, iteration: int = 0, steps: int = 0) -> Any:
    batch, timesteps = runner.sample(), {"num_env_steps_sampled_lifetime": steps}
    return learner.update_from_fragments([batch], [runner.num_worlds], iteration, timesteps)


def weights(module: Any) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def changed(module: Any, before: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, p in module.named_parameters() if not torch.equal(p, before[name])}


@pytest.mark.parametrize(
    ("messages", "gradient", "reaches"),
    [
        (SYMBOLS, "straight_through", True),
        (SYMBOLS, "none", False),
        ({"kind": "vectors", "size": 3}, "through", True),
        ({"kind": "vectors", "size": 3}, "none", False),
    ],
)
def test_the_receivers_loss_alone_changes_the_senders_weights(messages: Any, gradient: str, reaches: bool) -> None:
    """Only listeners' values make the loss; speakers' message heads get a gradient just where messages carry one."""
    config = clock_config(agent="mlp", messages=messages, gradient=gradient)
    runner = runner_of(config)
    runner.sample()
    arrays = {n: as_tensors(dict(a)) for n, a in runner.sample().policy_batches.items()}
    networks = {name: runner.module[name] for name in arrays}
    seats = {name: s.seats for name, s in runner.layout.species.items()}
    through = config.message_gradient in ("straight_through", "through")
    run = Unroller(networks, seats, config.message_kind, through).run(arrays)
    run["listener"].outputs.value.square().sum().backward()
    moved = {n for n, p in networks["speaker"].named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert bool(moved) == reaches


def test_a_runner_of_the_same_process_has_what_was_learned_as_its_own_copy() -> None:
    config = clock_config(agent="mlp")
    runner, learner = runner_of(config), learner_of(config)
    update(learner, runner)
    started = weights(runner.module["listener"])
    group = SimpleNamespace(is_local=True, foreach_learner=lambda give: [ResultOrError(give(learner))])
    assert hand_over(group, runner)
    for name, module in learner.networks.items():
        for key, value in module.state_dict().items():
            assert torch.equal(runner.module[name].state_dict()[key], value)
    assert changed(runner.module["listener"], started)
    taken = weights(runner.module["listener"])
    update(learner, runner, 1)
    assert changed(learner.networks["listener"], taken)
    assert not changed(runner.module["listener"], taken)
    assert not hand_over(SimpleNamespace(is_local=False), runner)


def test_who_sits_as_before_is_not_sorted_into_place_again() -> None:
    unroller = learner_of(clock_config(agent="mlp", members=2)).unroller
    seats = torch.tensor([[0, 1], [1, 0], [0, 1]])
    first = unroller._seating("speaker", seats)
    assert unroller._seating("speaker", seats.clone()) is first
    other = unroller._seating("speaker", seats[:2])
    values = torch.arange(4).view(2, 2)
    assert other.to_members(values).tolist() == [[0, 3], [1, 2]]


class Whisperer(nn.Module):
    """A toy agent: it says tanh(a o) and its value is b times the sum of what it hears, squared."""

    def __init__(self, spec: AgentSpec) -> None:
        super().__init__()
        assert isinstance(spec.messages, Vectors)
        self.spec = spec
        self.a = nn.Parameter(torch.full((spec.members, spec.obs_size, spec.messages.size), 0.3, dtype=torch.float64))
        self.b = nn.Parameter(torch.ones(spec.members, 1, dtype=torch.float64))

    def initial_state(self, rows: int) -> dict[str, torch.Tensor]:
        return {}

    def forward(self, obs: torch.Tensor, inbox: Any, state: Any) -> AgentOutput:
        assert self.spec.messages is not None
        heard = self.spec.messages.straight_through(inbox.messages.double(), inbox.soft)
        total = (heard * inbox.mask.unsqueeze(-1)).sum((-1, -2))
        logits = obs.new_zeros(*obs.shape[:-1], self.spec.action_params_size)
        return AgentOutput(logits, (obs.double() @ self.a).tanh(), self.b * total.square(), {}, {})

    def auxiliary_losses(self, batch: Any, outputs: AgentOutput) -> dict[str, torch.Tensor]:
        return {}


def test_gradients_through_vectors_are_those_of_finite_differences() -> None:
    """At the weights that spoke, stored vectors equal live ones, so the loss is a function that can be differenced."""
    config = clock_config(agent=Whisperer, messages={"kind": "vectors", "size": 2}, gradient="through")
    runner = runner_of(config)
    runner.sample()
    arrays = {n: as_tensors(dict(a)) for n, a in runner.sample().policy_batches.items()}
    for a in arrays.values():
        a["messages"] = a["messages"].double()
    networks = {name: runner.module[name] for name in arrays}
    seats = {name: s.seats for name, s in runner.layout.species.items()}
    unroller = Unroller(networks, seats, config.message_kind, through=True)

    def loss() -> torch.Tensor:
        _speak_again(arrays, networks)
        run = unroller.run(arrays)
        return torch.stack([r.outputs.value[r.mask].sum() for r in run.values()]).sum()

    loss().backward()
    for network in networks.values():
        for place in ((0, 0, 0), (0, 2, 1)):
            parameter, step = network.agent.a, 1e-6
            with torch.no_grad():
                parameter[place] += step
                above = loss()
                parameter[place] -= 2 * step
                below = loss()
                parameter[place] += step
            assert parameter.grad[place].item() == pytest.approx(((above - below) / (2 * step)).item(), rel=1e-5)


@torch.no_grad()
def _speak_again(arrays: dict[str, dict[str, torch.Tensor]], networks: Any) -> None:
    """Store what the present weights say at every step; what came before the fragment stays."""
    for name, a in arrays.items():
        a["messages"][:, 1:] = (a["obs"][:, :-1].double() @ networks[name].agent.a[0]).tanh()


def test_a_frozen_species_keeps_its_weights_while_the_other_learns() -> None:
    config = clock_config(members=2)
    config.multi_agent(policies_to_train=["listener"])
    runner, learner = runner_of(config), learner_of(config)
    before = {name: weights(m) for name, m in learner.networks.items()}
    update(learner, runner)
    assert not changed(learner.networks["speaker"], before["speaker"])
    assert changed(learner.networks["listener"], before["listener"])


@pytest.mark.parametrize(("saved", "now"), [(None, ["listener"]), (["listener"], None), (["speaker"], ["listener"])])
def test_which_species_learn_after_a_restore_is_told_by_the_config_of_now(
    saved: list[str] | None, now: list[str] | None
) -> None:
    first, second = clock_config(members=2), clock_config(members=2)
    first.multi_agent(policies_to_train=saved)
    second.multi_agent(policies_to_train=now)
    runner, learner = runner_of(second), learner_of(second)
    learner.set_state(learner_of(first).get_state())
    before = {name: weights(m) for name, m in learner.networks.items()}
    update(learner, runner)
    learned = [name for name, network in learner.networks.items() if changed(network, before[name])]
    assert learned == (["speaker", "listener"] if now is None else now)


def test_a_members_update_does_not_depend_on_the_size_of_the_population() -> None:
    """Two silent members with the same data learn what one learns alone."""

    def after(members: int) -> dict[str, torch.Tensor]:
        config = (
            PopulationPPOConfig()
            .environment(BanditWorld)
            .communication(messages=None)
            .population(agent="mlp", members=members)
            .env_runners(num_worlds_per_env_runner=4 * members, rollout_fragment_length=6)
            .training(num_epochs=3, grad_clip=0.1)
            .debugging(seed=1)
        )
        config.validate()
        learner = learner_of(config)
        alone = PopulationEnvRunner(config=_single(config), worker_index=0)
        if members == 2:
            _copy_member_zero(learner.networks["player"], learner_of(_single(config)).networks["player"])
        batch = alone.sample()
        player = {k: np.concatenate([v] * members) for k, v in batch.policy_batches["player"].items()}
        player["members"] = np.arange(members).repeat(4)[:, None, None] + np.zeros_like(player["members"])
        batch.policy_batches["player"].update(player)
        learner.update_from_fragments([batch], [4 * members], 0, {})
        return weights(learner.networks["player"])

    one, two = after(1), after(2)
    for name in one:
        for member in range(2):
            torch.testing.assert_close(two[name][member], one[name][0], atol=1e-6, rtol=1e-5)


def test_clipping_by_value_leaves_no_number_of_a_gradient_above_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    def largest(by: str) -> float:
        config = clock_config(members=2).training(grad_clip=1e-4, grad_clip_by=by, num_epochs=1)
        learner, found = learner_of(config), list[float]()
        apply = learner.apply_gradients

        def noted(gradients: dict[Any, torch.Tensor]) -> None:
            found.extend(float(gradient.abs().max()) for gradient in gradients.values())
            apply(gradients)

        monkeypatch.setattr(learner, "apply_gradients", noted)
        update(learner, runner_of(config))
        return max(found)

    assert largest("value") == pytest.approx(1e-4)
    assert largest("global_norm") < 0.9e-4


def _single(config: PopulationPPOConfig) -> PopulationPPOConfig:
    single = config.copy(copy_frozen=False)
    single.members, single.num_worlds_per_env_runner = 1, 4
    return single


def _copy_member_zero(population: Any, single: Any) -> None:
    with torch.no_grad():
        for p, q in zip(population.parameters(), single.parameters(), strict=True):
            p.copy_(q.expand_as(p))


def test_an_update_that_is_not_finite_is_left_out_and_ends_the_training_after_a_few() -> None:
    config = (
        PopulationPPOConfig()
        .environment(BanditWorld)
        .communication(messages=None)
        .population(agent="mlp")
        .env_runners(num_worlds_per_env_runner=4, rollout_fragment_length=16)
        .training(num_epochs=1)
        .fault_tolerance(max_nonfinite_updates=2)
    )
    runner, learner = runner_of(config), learner_of(config)
    before = weights(learner.networks["player"])

    def update_with_broken_values(iteration: int) -> None:
        batch = runner.sample()
        batch["player"]["values"][...] = np.nan
        learner.update_from_fragments([batch], [runner.num_worlds], iteration, {})

    update_with_broken_values(0)
    assert not changed(learner.networks["player"], before)
    with pytest.raises(FloatingPointError, match="not finite in 2 updates in a row"):
        update_with_broken_values(1)
    assert not changed(learner.networks["player"], before)


def test_the_central_critic_sees_the_worlds_state() -> None:
    config = clock_config(agent="mlp", critic="central", members=2)
    runner, learner = runner_of(config), learner_of(config)
    before = weights(learner.networks["speaker"])
    update(learner, runner)
    moved = changed(learner.networks["speaker"], before)
    assert any(name.startswith("central_critic") for name in moved)


def test_weights_are_a_function_of_the_seed() -> None:
    one, two, other = (clock_config().debugging(seed=s) for s in (3, 3, 4))
    a, b, c = (learner_of(x).networks["speaker"] for x in (one, two, other))
    assert not changed(a, weights(b))
    assert changed(a, weights(c))


def test_reinforce_makes_the_message_an_action() -> None:
    """Under reinforce the speakers' message heads learn, from no one's gradient but their own reward."""
    config = clock_config(agent="mlp", gradient="reinforce").training(entropy_coeff=0.0)
    runner, learner = runner_of(config), learner_of(config)
    before = weights(learner.networks["speaker"])
    update(learner, runner)
    with_reinforce = changed(learner.networks["speaker"], before)
    config = clock_config(agent="mlp", gradient="none").training(entropy_coeff=0.0)
    runner, learner = runner_of(config), learner_of(config)
    update(learner, runner)
    assert with_reinforce - changed(learner.networks["speaker"], before)


class Linear(nn.Module):
    """The smallest agent that keeps the contract; silent, without memory."""

    def __init__(self, spec: AgentSpec, scale: float = 1.0) -> None:
        super().__init__()
        self.head = PopulationLinear(spec.members, spec.obs_size, spec.action_params_size + 1)
        self.scale = scale

    def initial_state(self, rows: int) -> dict[str, torch.Tensor]:
        return {}

    def forward(self, obs: torch.Tensor, inbox: Any, state: Any) -> AgentOutput:
        out = self.head(obs) * self.scale
        return AgentOutput(out[..., :-1], None, out[..., -1], {}, {})

    def auxiliary_losses(self, batch: Any, outputs: AgentOutput) -> dict[str, torch.Tensor]:
        return {}


def test_a_users_agent_of_a_dozen_lines_learns_the_best_arm() -> None:
    config = (
        PopulationPPOConfig()
        .environment(BanditWorld)
        .communication(messages=None)
        .population(agent=Linear, members=3, agent_config={"scale": 2.0})
        .env_runners(num_worlds_per_env_runner=48, rollout_fragment_length=8)
        .training(lr=0.05, num_epochs=4, entropy_coeff=0.0)
        .debugging(seed=0)
    )
    runner, learner = runner_of(config), learner_of(config)
    for iteration in range(25):
        update(learner, runner, iteration)
        runner.module.set_state(learner.module.get_state())
    module: PopulationRLModule = learner.networks["player"]
    best = module.agent(torch.ones(3, 1, 1), None, {}).action_logits.softmax(-1)[:, 0, 2]
    assert (best > 0.97).all()


def test_bfloat16_autocast_learns_nearly_the_same_and_keeps_weights_in_float32() -> None:
    results = []
    for autocast in (None, "bf16"):
        config = clock_config(members=2).acceleration(autocast=autocast)
        runner, learner = runner_of(config), learner_of(config)
        before = weights(learner.networks["speaker"])
        update(learner, runner)
        after = weights(learner.networks["speaker"])
        assert all(value.dtype == torch.float32 for value in after.values())
        results.append(torch.cat([(after[n] - before[n]).flatten() for n in after]))
    exact, rounded = results
    assert rounded.isfinite().all()
    assert torch.nn.functional.cosine_similarity(exact, rounded, dim=0) > 0.8


@pytest.mark.parametrize("restored", [False, True])
def test_an_iteration_learns_with_what_schedules_say_at_its_beginning(restored: bool) -> None:
    """Also the first one of a learner that is new to the run: RLlib's schedulers remember nothing."""
    schedules = {"lr": [[0, 1e-2], [100, 0.0]], "entropy_coeff": [[0, 1.0], [100, 0.0]]}
    config = clock_config(agent="mlp").training(**schedules, num_epochs=1)
    runner, learner = runner_of(config), learner_of(config)
    if not restored:
        update(learner, runner, 0, steps=50)
    told = update(learner, runner, 1, steps=75)["speaker"]
    assert told["curr_entropy_coeff"].peek() == pytest.approx(0.25)
    assert told["default_optimizer_learning_rate"].peek() == pytest.approx(2.5e-3)
    before = weights(learner.networks["speaker"])
    update(learner, runner, 2, steps=100)
    assert not changed(learner.networks["speaker"], before)


@pytest.mark.parametrize("before", [4e-3, [[0, 4e-3], [1000, 2e-3]]])
def test_another_constant_rate_holds_from_the_first_update_after_a_restore(before: Any, monkeypatch: Any) -> None:
    first = learner_of(clock_config(agent="mlp").training(lr=before))
    update(first, runner_of(clock_config(agent="mlp")))
    config = clock_config(agent="mlp").training(lr=1e-5)
    learner, used = learner_of(config), []
    learner.set_state(first.get_state())
    once = learner._update_once

    def noted(*args: Any, **kwargs: Any) -> None:
        used.append({group["lr"] for o in learner._optimizers("speaker") for group in o.param_groups})
        once(*args, **kwargs)

    monkeypatch.setattr(learner, "_update_once", noted)
    told = update(learner, runner_of(config))["speaker"]
    assert used == [{1e-5}] * len(used) != []
    assert told["default_optimizer_learning_rate"].peek() == 1e-5


def test_statistics_reach_another_process_as_exact_as_they_are() -> None:
    """RLlib sends weights in float32."""
    learner = learner_of(clock_config())
    network = learner.networks["speaker"]
    network.returns.update(torch.tensor([[2.0], [1e8 + 1 / 3], [1 / 7]], dtype=torch.float64))
    other = learner_of(clock_config())
    other.module.set_state(learner.module.get_state())
    for name, buffer in network.returns.named_buffers():
        assert torch.equal(dict(other.networks["speaker"].returns.named_buffers())[name], buffer)


@pytest.mark.parametrize("minibatch_size", [None, 4])
@pytest.mark.parametrize("members", [1, 5])
def test_under_bfloat16_an_update_begins_at_the_policy_that_it_thinks_acted(
    members: int, minibatch_size: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rollouts are in float32: their log-probabilities are those of another policy than the learner's."""
    config = clock_config(agent="gru", members=members, gradient="reinforce", env_config={"death": 2})
    config.acceleration(autocast="bf16").training(num_epochs=1, minibatch_size=minibatch_size, lr=0.0)
    config.env_runners(num_worlds_per_env_runner=20)
    runner, learner = runner_of(config), learner_of(config)
    with torch.no_grad():  # heads start near zero: make decisions matter
        for parameter in learner.networks["speaker"].parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)), alpha=0.3)
    runner.module.set_state(learner.module.get_state())
    runner.sample()
    told = update(learner, runner)
    assert abs(told["speaker"]["approx_kl"].peek()) < 1e-7
    # Without it the first ratios are off.
    monkeypatch.setattr(PopulationPPOLearner, "_relive", lambda self, arrays: None)
    assert update(learner, runner, 1)["speaker"]["approx_kl"].peek() > 1e-6
