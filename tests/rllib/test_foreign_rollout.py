"""Environments of others in the env runner: bounds of actions, who reads the state, broken numbers, lives put back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.fragment import as_tensors, not_finite
from popcomm.rllib.rows import Rows
from popcomm.rllib.unroll import Unroller
from tests.envs.test_foreign_answers import Arena, Duo, Stateful
from tests.rllib.test_rollout import runner_of
from tests.rllib.worlds import BanditWorld

SYMBOLS = {"kind": "symbols", "vocab_size": 3, "length": 1}


def config_of(env: Any, agent: str = "mlp", messages: Any = None, **population: Any) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment(env)
        .communication(messages=messages, topology={"kind": "full"}, gradient="none" if messages else None)
        .population(agent=agent, **population)
        .env_runners(num_worlds_per_env_runner=3, rollout_fragment_length=10)
        .debugging(seed=2)
    )


class Prices(Duo):
    """Asks for a number between 300 and 500, and for one without bounds; keeps what it got."""

    asked: list[np.ndarray] = []  # noqa: RUF012

    def action_space(self, agent: str) -> spaces.Space:
        return spaces.Box(np.array([300, -np.inf], np.float32), np.array([500, np.inf], np.float32))

    def step(self, actions: dict[str, Any]) -> Any:
        Prices.asked.extend(actions.values())
        return super().step(actions)


def test_box_actions_reach_the_environment_in_its_bounds_and_the_learner_as_they_were_drawn() -> None:
    Prices.asked.clear()
    runner = runner_of(config_of(lambda _: Prices()))
    arrays = as_tensors(dict(runner.sample().policy_batches["bird"]))
    lived = arrays["alive"].flatten()
    drawn = arrays["actions"].flatten(0, 2)[lived]
    asked = torch.from_numpy(np.stack(Prices.asked))
    # Both in some order: of time and world here, of world and time there.
    expected = torch.stack([(400 + 100 * drawn[:, 0]).clamp(300, 500), drawn[:, 1]], 1)
    assert torch.allclose(expected.sort(0).values, asked.sort(0).values)
    assert asked[:, 0].std() > 30
    assert drawn[:, 0].abs().max() > 1


def test_mapping_to_the_bounds_cannot_be_turned_off() -> None:
    config = config_of(lambda _: Prices())
    config.environment(normalize_actions=False)
    with pytest.raises(UserError, match=r"normalize_actions is false, .*; a Box without bounds"):
        config.validate()


@pytest.mark.parametrize(
    ("agent", "critic", "reads"),
    [("mlp", "independent", False), ("mlp", "central", True), ("symbolic", "independent", True)],
)
def test_the_state_is_read_where_a_critic_or_a_loss_wants_it(agent: str, critic: str, reads: bool) -> None:
    runner = runner_of(config_of(lambda _: Stateful(), agent, critic=critic))
    before = Stateful.asked
    batch = runner.sample()
    assert (Stateful.asked > before) == reads
    assert ("world_state" in batch["bird"]) == reads
    if reads:
        times = batch["bird"]["obs"][:, :-1, 0, 0]
        np.testing.assert_array_equal(batch["bird"]["world_state"][..., 0], times)


def test_a_world_of_ones_own_that_gives_what_is_no_number_is_told_so() -> None:
    config = config_of(BanditWorld)
    config.environment(env_config={"nan": True})
    runner = runner_of(config)
    with pytest.raises(
        UserError, match="gave agent 'player_0' in world 0 an observation that is not finite, in step 9"
    ):
        runner.sample()


def test_numbers_whose_sum_is_not_finite_are() -> None:
    huge = np.full((2, 3, 1), 3e38, np.float32)
    with np.errstate(over="ignore"):
        assert not_finite({"a": {"rewards": huge}}, ["rewards"]) is None
        huge[1, 2, 0] = np.inf
        assert not_finite({"a": {"rewards": huge}}, ["rewards"]) == ("a", "rewards", (1, 2, 0))


@pytest.mark.parametrize("agent", ["mlp", "symbolic"])
def test_lives_that_are_put_back_at_once_begin_without_memory_in_runner_and_learner(agent: str) -> None:
    """At the weights that acted, the learner finds the values that the runner wrote down, across such a birth."""
    config = config_of(lambda _: Arena(), agent, SYMBOLS, members=2)
    runner: PopulationEnvRunner = runner_of(config)
    arrays = {name: as_tensors(dict(a)) for name, a in runner.sample().policy_batches.items()}
    bird = arrays["bird"]
    again = bird["terminated"] & bird["first"][:, 1:]
    assert again[0, :, 0].nonzero().flatten().tolist() == [1, 4, 9]
    assert bird["rewards"][0, :7, 0].tolist() == [1.0] * 7
    networks = {name: runner.module[name] for name in arrays}
    run = Unroller(networks, {"bird": slice(0, 2)}, config.message_kind, through=False).run(arrays)["bird"]
    value = networks["bird"].returns.denormalise(run.outputs.value)
    rows = Rows(bird, run.places, 2)
    torch.testing.assert_close(value[run.mask], rows["values"][run.mask], atol=1e-5, rtol=1e-5)
    # Nobody hears what was said before it came to life, nor the words of who died.
    assert not bird["inbox_mask"][:, 2].any()


def test_processes_change_no_bit_of_a_rollout_and_are_looked_for_at_the_border() -> None:
    def fragment(processes: int | None) -> dict[str, torch.Tensor]:
        config = config_of("tests.envs.faulty_env:made", messages=SYMBOLS).environment(processes=processes)
        runner = runner_of(config)
        try:
            return as_tensors(dict(runner.sample().policy_batches["a"]))
        finally:
            runner.stop()

    alone, apart = fragment(None), fragment(2)
    assert alone.keys() == apart.keys()
    assert all(torch.equal(alone[key].nan_to_num(), apart[key].nan_to_num()) for key in alone)
    with pytest.raises(UserError, match="processes is 2, and swarm_v0 steps all of its worlds together"):
        PopulationPPOConfig().environment("swarm_v0", processes=2).validate()
    with pytest.raises(UserError, match=r"environment\.processes is 0"):
        config_of("tests.envs.faulty_env:made").environment(processes=0).validate()
