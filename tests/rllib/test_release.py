"""A population out of its trainer: what it does in a plain PettingZoo loop is what it does in the rollout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces

import popcomm
from popcomm.agents import AgentSpec
from popcomm.envs import WORLDS, WorldParallelEnv
from popcomm.envs.foreign import create_env
from popcomm.envs.pettingzoo import ParallelEnvWorld
from popcomm.envs.world import World
from popcomm.errors import UserError
from popcomm.rllib import PopulationPPOConfig
from popcomm.rllib.release import population_of
from popcomm.rollout import Rollout, Seeds
from popcomm.rollout.population import Population
from popcomm.schedules import Clock
from tests.envs.scripted_env import ScriptedEnv
from tests.envs.test_foreign_answers import Arena, Duo, KeepsItsDead
from tests.rllib.test_rollout import runner_of
from tests.rllib.worlds import ClockWorld
from tests.rollout.test_rollout import Crier

SYMBOLS = {"kind": "symbols", "vocab_size": 5, "length": 2}
WORDS = {"kind": "words", "bits": 8, "min_on": 2, "max_on": 4}
TINY = {"hidden_dim": 8, "num_heads": 2, "latent_tokens": 2, "depth": 1}
SCRIPT: list[dict[str, str]] = [{}, {"a_1": "terminated", "a_2": "born"}, {}, {"a_1": "born"}, {"a_0": "truncated"}, {}]


def scripted(config: dict[str, Any]) -> ScriptedEnv:
    return ScriptedEnv(SCRIPT, show_seed=True, **config)


def arena(config: dict[str, Any]) -> Arena:
    return Arena()


class Raised(KeepsItsDead):
    """KeepsItsDead that goes on for three steps after bird_0 was raised, and whose first action is 4."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 8

    def action_space(self, agent: str) -> spaces.Space:
        return spaces.Discrete(3, start=4)


def raised(config: dict[str, Any]) -> Raised:
    return Raised()


class CutAndBack(Duo):
    """bird_1 is truncated in every step, and stays: of two lives of one step the second is not known to be one."""

    def __init__(self) -> None:
        super().__init__(steps=7)

    def step(self, actions: dict[str, Any]) -> Any:
        seen, paid, ended, over, told = super().step(actions)
        return seen, paid, ended, over | {"bird_1": True}, told


def cut_and_back(config: dict[str, Any]) -> CutAndBack:
    return CutAndBack()


LIVES = {"arena": arena, "raised": raised, "cut and back": cut_and_back}


class Masked(ClockWorld):
    """ClockWorld that lets speakers choose what is not their turn."""

    def __init__(self, num_worlds: int = 1, **options: Any) -> None:
        super().__init__(num_worlds, **options)
        speakers = self.species["speaker"]
        self.species = {**self.species, "speaker": type(speakers)(**{**vars(speakers), "has_action_mask": True})}

    def _say(self, *args: Any) -> Any:
        said = super()._say(*args)
        masks = torch.ones(self.num_worlds, 2, 3, dtype=torch.bool)
        masks[torch.arange(self.num_worlds), :, self.time % 3] = False
        self.last = said._replace(action_masks={"speaker": masks})
        return self.last


CASES: dict[str, dict[str, Any]] = {
    "near ones of ten members": {
        "env": "swarm_v0", "env_config": {"num_agents": 5, "max_steps": 6}, "members": 10,
        "messages": SYMBOLS, "topology": {"kind": "k_nearest", "k": 2},
    },
    "relaxed symbols": {
        "env": "swarm_v0", "env_config": {"num_agents": 3, "max_steps": 6}, "messages": {**SYMBOLS, "relaxed": True},
    },
    "silence": {"env": "swarm_v0", "env_config": {"num_agents": 3, "max_steps": 6}, "messages": None, "agent": "mlp"},
    "numbers": {"env": ClockWorld, "messages": {"kind": "vectors", "size": 3}, "agent": "mlp", "members": 3},
    "bits": {"env": ClockWorld, "messages": {"kind": "dru", "size": 3}, "topology": {"kind": "routed", "latents": 2}},
    "deaths": {"env": ClockWorld, "env_config": {"death": 2}, "messages": SYMBOLS, "members": 4, "seating": "fixed"},
    "masks": {"env": Masked, "messages": SYMBOLS},
    "reflexes": {
        "env": ClockWorld, "messages": WORDS, "topology": {"kind": "ring"},
        "reflexes": [
            {"kind": "word_repetition", "slot": "hijack"},
            {"kind": "publishing", "rate": 0.5},
            {"kind": "sensory_deprivation", "when": 0.3, "mode": "noise"},
        ],
    },
    "a lexicon": {"env": ClockWorld, "messages": {**WORDS, "vocab": 16}, "agent": "tiny", "agent_config": TINY},
    "speakers and listeners": {
        "env": "referential_v0", "env_config": {"attributes": 2, "values": 3, "rounds": 3},
        "messages": SYMBOLS, "agent": "gru", "agent_config": {"hidden": 8, "embedding": 4}, "members": 2,
    },
    "turns to speak": {
        "env": "referential_v0",
        "env_config": {"attributes": 2, "values": 3, "rounds": 3, "roles": "swapping", "num_agents": 4},
        "messages": SYMBOLS, "members": 2,
    },
    "seats that are filled again": {
        "env": "traffic_junction_v0", "env_config": {"level": "easy", "add_rate": 0.5}, "messages": SYMBOLS,
    },
    "a curriculum": {
        "env": ClockWorld,
        "messages": SYMBOLS,
        "topology": {"kind": "curriculum", "schedule": {"kind": "linear", "begin": 0, "end": 9}, "least": 1},
    },
    "a vocabulary that grows": {
        "env": ClockWorld,
        "messages": SYMBOLS,
        "vocabulary": {"first": 2, "schedule": {"kind": "linear", "begin": 0, "end": 9}},
    },
    "births in the midst": {"env": scripted, "messages": SYMBOLS, "members": 2},
    **{
        f"lives put back: {name}": {"env": env, "messages": SYMBOLS, "agent": "gru", "agent_config": {"hidden": 8}}
        for name, env in LIVES.items()
    },
    "masks of others": {"env": scripted, "env_config": {"mask": "observation"}, "messages": SYMBOLS},
    "masks in infos": {"env": scripted, "env_config": {"mask": "info"}, "messages": SYMBOLS},
    "a chain": {"env": "mpe2.simple_world_comm_v3:parallel_env", "env_config": {"max_cycles": 5}, "messages": SYMBOLS,
                "topology": {"kind": "chain"}},
    "named species that know their seats": {
        "env": ClockWorld, "env_config": {"death": 2}, "messages": SYMBOLS, "agent_id": True,
        "species": {"late": ["listener_1"], "speaker": ["speaker_1", "speaker_0"], "early": ["listener_0"]},
        "agent": {"late": "mlp", "default": "gru"}, "agent_config": {"late": {"hidden": 4}, "default": {"hidden": 8}},
        "members": {"speaker": 3, "default": 1},
    },
    "species by a function": {
        "env": scripted, "env_config": {"mask": "info"}, "messages": SYMBOLS, "agent_id": True,
        "species": lambda agent: "odd" if int(agent[-1]) % 2 else "even",
    },
}  # fmt: skip


def population(case: dict[str, Any]) -> Population:
    """As it is at the start, before any training."""
    case = dict(case)
    env = case.pop("env")
    talk = {key: case.pop(key) for key in ("messages", "topology", "reflexes", "vocabulary") if key in case}
    seats = {key: case.pop(key) for key in ("species", "agent_id") if key in case}
    config = (
        PopulationPPOConfig()
        .environment(env, env_config=case.pop("env_config", {}), **seats)
        .communication(**talk)
        .population(**case)
        .env_runners(num_worlds_per_env_runner=12)
        .debugging(seed=3)
    )
    return population_of(config, config.get_multi_rl_module_spec(inference_only=True).build(), Clock(5), [])


def env_of(found: Population, rollout: Rollout) -> tuple[Any, int]:
    """A plain environment, and the seed with which it is what the rollout's only world is."""
    env, env_config = found.env.env, dict(found.env.env_config)  # type: ignore[union-attr]
    seed = Seeds.of(0, 0).world
    made = WORLDS.get(env, env) if isinstance(env, str) else env
    if isinstance(made, type) and issubclass(made, World):
        return WorldParallelEnv(made(num_worlds=1, **env_config), "plain"), seed
    world: Any = rollout.world
    if isinstance(env, str):
        from popcomm.references import attribute

        made = attribute("env", env)
    return create_env(made, env_config), world.seeds[0]


# Observations of popcomm's worlds know their environment; of others it must be told who is done.
OTHERS = (scripted, *LIVES.values())
OWN = [name for name, case in CASES.items() if case["env"] not in OTHERS and "mpe2" not in str(case["env"])]


@pytest.mark.parametrize(("name", "told"), [*((name, True) for name in CASES), *((name, False) for name in OWN)])
def test_a_plain_loop_does_what_the_rollout_does(name: str, told: bool) -> None:
    found = population(CASES[name])
    rollout = found.rollout(greedy=True, worlds=1)
    rollout.begin()
    env, seed = env_of(found, rollout)
    found.reset(env if told else None)
    observations, infos = env.reset(seed=seed)
    ended, cut, steps = None, None, 0
    while env.agents:
        alive = rollout.players.now.alive[0].tolist()  # type: ignore[union-attr]
        actions = found.act(observations, greedy=True, infos=infos, terminations=ended, truncations=cut)
        turn, _ = rollout.step()
        assert set(actions) == set(env.agents)
        for species, chosen in turn.bounded.items():
            places = found.layout.species[species]
            for i, agent in enumerate(found.layout.agents[places.seats]):
                if agent in actions and alive[places.start + i]:
                    done = np.asarray(actions[agent]) - getattr(env.action_space(agent), "start", 0)
                    np.testing.assert_array_equal(done, chosen[0, i].numpy(), f"step {steps}")
        observations, _, ended, cut, infos = env.step(actions)
        steps += 1
    assert steps > 2
    assert not rollout.players.now.alive.any()  # type: ignore[union-attr]


class Weighted(Crier):
    """Crier with a weight, which a trainer's networks have."""

    def __init__(self, spec: AgentSpec) -> None:
        super().__init__(spec)
        self.weight = torch.nn.Parameter(torch.zeros(1))


# What Crier does, who says its age and does what it hears, 2 at most: {environment: {agent: its actions}}. Nobody hears
# in the first step of its life, nor what was said by one who died; the dead that are kept make the first action.
HEARD = {
    "arena": {"bird_0": [0, 0, 0, 2, 2, 0, 2], "bird_1": [0, 0, 0, 0, 1, 0, 0]},
    "raised": {"bird_0": [4, 4, 4, 4, 4, 4, 6, 6], "bird_1": [4, 4, 4, 4, 4, 4, 4, 5]},
    "cut and back": {"bird_0": [0, 0, 0, 0, 0, 0, 0], "bird_1": [0, 0, 0, 0, 0, 0, 0]},
}


def crying(env: Any) -> PopulationPPOConfig:
    return (
        PopulationPPOConfig()
        .environment(env)
        .communication(messages={"kind": "symbols", "vocab_size": 6, "length": 1}, gradient="none")
        .population(agent=Weighted)
        .env_runners(num_worlds_per_env_runner=2, rollout_fragment_length=9, explore=False)
    )


@pytest.mark.parametrize("name", LIVES)
def test_lives_that_are_put_back_at_once_begin_anew_in_a_loop_as_in_the_training_runner(name: str) -> None:
    config = crying(LIVES[name])
    runner = runner_of(config)
    batch = runner.sample().policy_batches["bird"]
    found = population_of(config, runner.module, Clock(0), [])
    env, ended, cut = LIVES[name]({}), None, None
    done: dict[str, list[int]] = {"bird_0": [], "bird_1": []}
    for _ in range(2):  # episodes; flags of the first are still handed over when the second begins
        found.reset(env)
        observations, _ = env.reset()
        done = {agent: [] for agent in done}
        while env.agents:
            actions = found.act(observations, greedy=True, terminations=ended, truncations=cut)
            for agent, action in actions.items():
                done[agent].append(int(action))
            observations, _, ended, cut, _ = env.step(actions)
        assert done == HEARD[name]
    first = env.action_space("bird_0").start
    for seat, agent in enumerate(env.possible_agents):
        lived = batch["alive"][0, : len(done[agent]), seat]
        ran = np.where(lived, batch["actions"][0, : len(done[agent]), seat], 0) + first
        assert ran.tolist() == done[agent]


def test_an_environment_that_tells_of_lives_is_believed_and_not_the_flags() -> None:
    """All are killed and put back in steps 2 and 3: elsewhere that is the end, and the second time they are kept."""

    class Reborn(ParallelEnvWorld):
        def step(self, actions: Any, spoken: Any = None) -> Any:
            told = super().step(actions, spoken)
            again = torch.full_like(told.first, 2 <= self._episode[0]["step"] <= 3)
            self._last = told._replace(terminated=again | told.terminated, first=again | told.first)
            return self._last

    config = crying(lambda _: Duo(6))
    found = population_of(config, runner_of(config).module, Clock(0), [])
    env = WorldParallelEnv(Reborn(lambda _: Duo(6), 1), "reborn")
    observations, _ = env.reset()
    found.reset()
    heard, ended, cut = [], None, None
    while env.agents:
        actions = found.act(observations, greedy=True, terminations=ended, truncations=cut)
        heard.append([int(actions[agent]) for agent in env.possible_agents])
        observations, _, ended, cut, _ = env.step(actions)
    assert heard == [[0, 0], [0, 0], [0, 0], [0, 0], [0, 0], [1, 1]]


def test_where_nobody_goes_on_nobody_acts() -> None:
    class Forgets(Duo):
        """Leaves all in `agents` when the episode is over."""

        def step(self, actions: dict[str, Any]) -> Any:
            told = super().step(actions)
            self.agents = list(self.possible_agents)
            return told

    found, env = population(CASES["lives put back: arena"]), Forgets()
    found.reset(env)
    observations, _ = env.reset()
    ended = cut = None
    steps = 0
    while actions := found.act(observations, terminations=ended, truncations=cut):
        observations, _, ended, cut, _ = env.step(actions)
        steps += 1
    assert steps == env.steps


def test_flags_are_of_agents_and_one_who_is_done_needs_an_environment_to_ask() -> None:
    found, env = population(CASES["lives put back: arena"]), Arena()
    observations, _ = env.reset()
    found.reset(env)
    with pytest.raises(UserError, match="the terminations hold '__all__', which is RLlib's way and no agent"):
        found.act(observations, terminations={"__all__": False})
    with pytest.raises(UserError, match="the truncations hold 'bird_2', which no agent is called"):
        found.act(observations, truncations={"bird_2": False})
    found.reset()
    found.act(observations, terminations={"bird_0": False})
    with pytest.raises(UserError, match=r"agent 'bird_0' is done, and whether it stays .* population.reset\(env\)"):
        found.act(observations, terminations={"bird_0": True})
    gone = {"bird_1": observations["bird_1"]}
    assert set(found.act(gone, terminations={"bird_0": True})) == {"bird_1"}


def test_an_info_without_a_mask_allows_all_and_no_infos_at_all_are_told() -> None:
    """As in training, where environments may tell of masks where something is forbidden alone."""
    found = population(CASES["masks in infos"])
    rollout = found.rollout(greedy=True, worlds=1)
    rollout.begin()
    env, seed = env_of(found, rollout)
    found.reset(env)
    observations, infos = env.reset(seed=seed)
    first, *_ = observations
    without = {agent: {} if agent == first else info for agent, info in infos.items()}
    assert set(found.act(observations, greedy=True, infos=without)) == set(env.agents)
    found.reset(env)
    with pytest.raises(UserError, match=rf"the action_mask of agent '{first}' is in its info: act\(observations"):
        found.act(observations, greedy=True)


def test_every_episode_begins_without_memories_and_with_members_drawn_anew() -> None:
    found = population(CASES["deaths"] | {"seating": "shuffled", "env_config": {}})
    rollout = found.rollout(greedy=True, worlds=1)
    rollout.begin()
    env, seed = env_of(found, rollout)
    drawn = []
    observations, _ = env.reset(seed=seed)
    for _ in range(3):
        found.reset()  # nothing here needs the environment
        while env.agents:
            actions = found.act(observations, greedy=True)
            turn, _ = rollout.step()
            assert list(actions.values()) == torch.cat(list(turn.bounded.values()), 1)[0].tolist()
            drawn.append(turn.members["speaker"].tolist())
            observations = env.step(actions)[0]
        rollout.step()  # in which nobody lives
        observations, _ = env.reset()
    assert len({str(seats) for seats in drawn}) > 1


@pytest.mark.parametrize("name", CASES)
def test_what_was_saved_is_loaded_and_does_the_same(name: str, tmp_path: Path) -> None:
    found = population(CASES[name])
    again = popcomm.load(found.save_pretrained(tmp_path / "saved"))
    assert again.layout == found.layout
    assert {species: len(members) for species, members in again.items()} == {s: len(m) for s, m in found.items()}
    one, other = found.rollout(seed=5, worlds=4), again.rollout(seed=5, worlds=4)
    one.begin()
    other.begin()
    for _ in range(6):
        (turn, after), (same, then) = one.step(), other.step()
        assert all(torch.equal(turn.bounded[species], same.bounded[species]) for species in turn.bounded)
        assert torch.equal(after.rewards, then.rewards)
        if turn.sent is not None and same.sent is not None:
            assert torch.equal(turn.sent, same.sent)


def test_relaxed_symbols_are_symbols_out_of_the_trainer() -> None:
    rollout = population(CASES["relaxed symbols"]).rollout(worlds=2)
    rollout.begin()
    sent = [rollout.step()[0].sent for _ in range(4)]
    assert all(set(messages.unique().tolist()) == {0.0, 1.0} for messages in sent if messages is not None)
