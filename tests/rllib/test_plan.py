"""What follows from a config, on worlds whose seats can be counted by hand; and that it follows a changed config."""

from __future__ import annotations

import ast
import pickle
from dataclasses import FrozenInstanceError, replace
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces

import popcomm.rllib
from popcomm.channels.relaxed import RelaxedSymbols
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPO, PopulationPPOConfig
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.plan import plan_of
from popcomm.rllib.settings import LEFT_OPEN
from popcomm.schedules import Clock
from tests.rllib.worlds import ClockWorld

SYMBOLS = {"kind": "symbols", "vocab_size": 8, "length": 2}


class CountedWorld(ClockWorld):
    """Counts how many of it were made; as many speakers as `seats` say."""

    made = 0

    def __init__(self, num_worlds: int, device: Any = "cpu", seats: Any = (2,)) -> None:
        super().__init__(num_worlds, device, speakers=int(np.sum(seats)))
        type(self).made += 1


def two_species(**population: Any) -> PopulationPPOConfig:
    """Two speakers that see 3 numbers and two listeners that see 4, all of whom hear the three others."""
    config = PopulationPPOConfig().environment(ClockWorld).communication(messages=SYMBOLS, topology={"kind": "full"})
    return config.population(**{"agent": "mlp", "members": {"speaker": 3, "listener": 2}, **population}).env_runners(
        num_env_runners=2, num_worlds_per_env_runner=12
    )


# ---- known answers ----


def test_networks_are_told_what_their_species_sees_hears_and_how_many_they_are() -> None:
    plan = two_species().plan
    speaker, listener = plan.species["speaker"].spec, plan.species["listener"].spec
    assert (speaker.obs_size, speaker.members, listener.obs_size, listener.members) == (3, 3, 4, 2)
    for spec in (speaker, listener):
        assert (spec.inbox_size, spec.num_agents, spec.sender_obs_size, spec.state_size) == (3, 4, 4, 2)
        assert spec.messages == plan.message_kind == RelaxedSymbols(8, 2)


def test_in_checkpoints_from_before_a_species_that_is_not_named_has_one_member() -> None:
    config = two_species(members={"listener": 2})
    del config.names_all_species  # as it was when it was pickled
    config.validate()
    assert {n: species.members for n, species in config.plan.species.items()} == {"speaker": 1, "listener": 2}


def test_a_balanced_block_seats_the_members_of_all_species_equally_often() -> None:
    """3 members on 2 seats take 3 worlds, 2 on 2 take one, 5 on 2 take 5."""
    assert two_species().plan.balanced_block == 3
    assert two_species(members={"speaker": 3, "listener": 5}).plan.balanced_block == 15
    assert two_species(members=4, seating="communities", communities=2).plan.balanced_block == 2


def test_the_worlds_are_those_of_all_runners_and_a_minibatch_has_32_for_each_members_share() -> None:
    plan = two_species().plan
    assert plan.total_worlds == 24
    assert [plan.worlds_in_minibatch(worlds) for worlds in (20, 96, 960)] == [20, 48, 48]  # 1.5 speakers to a seat


@pytest.mark.parametrize(
    ("gradient", "carries", "keeps_logp", "by_reinforce", "quality", "balance"),
    [
        (None, True, False, False, 0.5, 0.1),
        ("straight_through", True, False, False, 0.5, 0.1),
        ("reinforce", False, True, True, 0.0, 0.1),
        ("none", False, False, False, 0.0, 0.0),
    ],
)
def test_losses_of_talk_follow_from_how_senders_learn(
    gradient: str | None, carries: bool, keeps_logp: bool, by_reinforce: bool, quality: float, balance: float
) -> None:
    plan = two_species().communication(gradient=gradient).plan
    speaker = plan.species["speaker"]
    assert (plan.carries_gradients, plan.keeps_message_logp) == (carries, keeps_logp)
    assert speaker.speaks_by_reinforce == by_reinforce
    assert (speaker.quality_weight, speaker.balance_weight) == (quality, balance)
    assert (speaker.sharpness, speaker.rise) == ((0.6, pytest.approx(1 / 6)) if carries else (0.1, None))
    assert two_species().communication(messages=None).plan.species["speaker"].rise is None


def test_a_sharpness_that_is_left_open_rises_between_the_learners_updates_200_and_600() -> None:
    config = two_species().env_runners(rollout_fragment_length=8).training(num_epochs=2, minibatch_size=12)
    rise = config.plan.sharpening(config)
    assert rise is not None
    per_update = 24 * 8 / (2 * 2)  # env steps of an iteration, over its two minibatches in two epochs
    strengths = [rise.strength(Clock(round(updates * per_update))) for updates in (0, 200, 400, 600, 900)]
    assert strengths == pytest.approx([1 / 6, 1 / 6, 7 / 12, 1, 1])


@pytest.mark.parametrize(
    "training",
    [{"message_sharpness": 0.3}, {"loss_schedules": {"message_sharpness": 0.5}}],
    ids=["a number", "a schedule"],
)
def test_a_sharpness_that_is_given_stays_or_follows_its_own_schedule(training: dict[str, Any]) -> None:
    plan = (config := two_species().training(**training)).plan
    assert plan.sharpening(config) is None
    assert plan.species["speaker"].sharpness == training.get("message_sharpness", 0.1)


def test_one_species_may_have_a_sharpness_of_its_own_beside_one_that_rises() -> None:
    config = two_species().training(message_sharpness={"speaker": 0.3, "default": None})
    assert [s.rise is None for s in config.plan.species.values()] == [name == "speaker" for name in config.plan.species]
    assert config.plan.sharpening(config) is not None


def test_a_config_of_before_there_was_a_rise_goes_on_without_one() -> None:
    config = two_species()
    config.left_open = {key: value for key, value in LEFT_OPEN.items() if key != "last_message_sharpness"}
    assert config.plan.sharpening(config) is None
    assert config.plan.species["speaker"].sharpness == 0.1


class PushedWorld(ClockWorld):
    """The clock, whose speakers push by a number, or all of whom do."""

    def __init__(self, num_worlds: int, device: Any = "cpu", pushing: Any = ("speaker",)) -> None:
        super().__init__(num_worlds, device)
        push = spaces.Box(-1.0, 1.0, (1,), np.float32)
        self.species = {n: replace(s, action_space=push) if n in pushing else s for n, s in self.species.items()}


def test_actions_are_kept_open_where_any_can_be_ruled_out() -> None:
    config = PopulationPPOConfig().environment(PushedWorld).population(agent="mlp")
    assert {name: s.rare_share for name, s in plan_of(config).species.items()} == {
        "speaker": 0.0,
        "listener": LEFT_OPEN["rare_action_share"],
    }
    config.training(rare_action_share=0.25)
    assert {name: s.rare_share for name, s in plan_of(config).species.items()} == {"speaker": 0.0, "listener": 0.25}


def test_a_share_for_keeping_actions_open_is_refused_where_none_is_ever_ruled_out() -> None:
    config = PopulationPPOConfig().environment(PushedWorld, env_config={"pushing": ("speaker", "listener")})
    config.population(agent="mlp").validate()
    with pytest.raises(UserError, match=r"training.rare_action_share is 0.25, and all actions are Boxes"):
        config.copy().training(rare_action_share=0.25).validate()


def test_the_worlds_state_is_read_for_a_central_critic_or_for_losses_of_the_agents_own() -> None:
    assert not two_species(agent="mlp").plan.reads_state
    assert two_species(agent="mlp", critic="central").plan.reads_state
    assert two_species(agent="symbolic").plan.reads_state


def test_in_silence_there_is_no_channel_and_nobody_hears() -> None:
    plan = two_species().communication(messages=None).plan
    assert plan.channel is None
    assert plan.message_kind is None
    assert not plan.carries_gradients
    assert {(s.spec.inbox_size, s.balance_weight) for s in plan.species.values()} == {(0, 0.0)}


def test_an_agent_that_is_no_class_is_told() -> None:
    for agent in (3, "tests.rllib.test_plan:SYMBOLS"):
        with pytest.raises(UserError, match=r"population.agent is .*, and must be 'symbolic' or .* or a class"):
            two_species(agent=agent).validate()


# ---- a config that changes ----


def test_a_plan_stays_as_it_was_made_and_a_changed_config_has_another() -> None:
    config = two_species()
    config.validate()
    before = plan_of(config)
    config.communication(messages=None).environment(env_config={"speakers": 4})
    assert (before.layout.num_agents, before.message_kind) == (4, RelaxedSymbols(8, 2))
    assert (plan_of(config).layout.num_agents, plan_of(config).message_kind) == (6, None)
    with pytest.raises(FrozenInstanceError):
        before.total_worlds = 1  # type: ignore[misc]


def test_a_runner_has_the_plan_of_what_its_config_says_when_it_is_made() -> None:
    config = two_species()
    config.validate()
    config.communication(messages={**SYMBOLS, "vocab_size": 5}).env_runners(num_env_runners=0)
    runner = PopulationEnvRunner(config=config, worker_index=0)
    assert runner.channel is runner.plan.channel
    assert runner.sample().policy_batches["speaker"]["messages"].shape[-1] == 5


def test_the_layout_follows_an_env_config_that_is_changed_where_nobody_sees_it() -> None:
    """An array of 2000 numbers is printed without its middle."""
    seats = np.zeros(2000, int)
    seats[1000] = 2
    config = PopulationPPOConfig().environment(CountedWorld, env_config={"seats": seats})
    assert config.layout.num_agents == 4
    seats[1000] = 5
    assert config.layout.num_agents == plan_of(config).layout.num_agents == 7


def test_one_world_is_made_to_look_at_however_often_and_wherever_a_config_is_looked_at() -> None:
    CountedWorld.made = 0
    config = two_species().environment(CountedWorld, env_config={"seats": [1, 2]})
    config.validate()
    there = pickle.loads(pickle.dumps(config))
    frozen = config.copy(copy_frozen=True)
    plans = [plan_of(each) for each in (config, there, frozen, config.copy(copy_frozen=False))]
    assert CountedWorld.made == 1
    assert {plan.layout.num_agents for plan in plans} == {5}


def test_copied_and_pickled_configs_have_the_same_plan() -> None:
    config = two_species().training(minibatch_size=6)
    first, *others = (plan_of(c) for c in (config, config.copy(), pickle.loads(pickle.dumps(config))))
    same = ("message_kind", "gradient", "agent_class", "seating_rule", "balanced_block", "total_worlds")
    for plan in others:
        assert [getattr(plan, name) for name in same] == [getattr(first, name) for name in same]
        assert [s.spec for s in plan.species.values()] == [s.spec for s in first.species.values()]


def test_a_species_has_the_settings_of_its_module_as_they_are_now() -> None:
    config = two_species()

    def gammas() -> dict[str, float]:
        return {name: species.settings.gamma for name, species in plan_of(config).species.items()}

    config.multi_agent(
        algorithm_config_overrides_per_module={"speaker": PopulationPPOConfig.overrides(gamma=0.5, quality_coeff=0.0)}
    )
    config.validate()
    assert gammas() == {"speaker": 0.5, "listener": 0.95}
    assert [species.quality_weight for species in plan_of(config).species.values()] == [0.0, 0.5]
    config.training(gamma=0.9, clip_param=0.3).multi_agent(
        algorithm_config_overrides_per_module={"speaker": PopulationPPOConfig.overrides(gamma=0.25)}
    )
    assert gammas() == {"speaker": 0.25, "listener": 0.9}
    assert plan_of(config).species["speaker"].settings.clip_param == 0.3


# ---- what stands on what ----


def test_a_config_builds_the_algorithm_whose_config_it_is() -> None:
    assert PopulationPPOConfig().algo_class is PopulationPPO
    assert type(PopulationPPO.get_default_config()) is PopulationPPOConfig


def test_no_file_of_the_trainer_imports_in_a_circle_not_even_inside_a_function() -> None:
    folder = Path(popcomm.rllib.__file__).parent
    below: dict[str, set[str]] = {}
    for file in folder.glob("[a-z]*.py"):
        nodes = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)]
        names = {f"{node.module}.{alias.name}" for node in nodes for alias in node.names}
        parts = [name.split(".") for name in names if name.startswith("popcomm.rllib.")]
        below[file.stem] = {part[2] for part in parts}
    order = list(TopologicalSorter(below).static_order())  # raises CycleError, which names the circle
    for middle in ("validation", "learner"):
        chain = ("settings", "plan", middle, "config", "algorithm")
        assert sorted(chain, key=order.index) == list(chain)
