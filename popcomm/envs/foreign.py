"""What a ParallelEnv of others says of itself: what it is, its agents in order, their groups, where they stand."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from inspect import signature
from itertools import takewhile
from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv

from popcomm.envs.tuple_env import TupleParallelEnv, is_of_players
from popcomm.envs.world import Species, World
from popcomm.errors import UserError, nearest

PositionSource = Callable[[], Mapping[Any, Any]]


def create_env(creator: Callable[..., Any], env_config: dict[str, Any]) -> ParallelEnv:
    """One environment, from `creator(env_config)` or, where its signature asks for the keys, `creator(**env_config)`.

    One of Gymnasium in which all is a tuple over the players becomes a ParallelEnv (`popcomm.envs.tuple_env`).

    Raises:
        UserError: what the creator returns is no ParallelEnv; a key that it has no parameter for.
    """
    config = dict(env_config)
    env = _made_of_keywords(creator, config) if _takes_keywords(creator, config) else creator(config)
    if is_of_players(env):
        env = TupleParallelEnv(env)
    check_parallel(env, "the creator returned")
    return env


def check_parallel(env: Any, what: str = "the environment is") -> None:
    """Whether it is a ParallelEnv, by what it can do; wrappers need no base class.

    Args:
        what: how the sentence begins.

    Raises:
        UserError: it is not, in a sentence that says what it is instead.
    """
    ancestors = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(env).__mro__}
    if isinstance(env, AECEnv):
        raise UserError(f"{what} the AECEnv '{env}', and a ParallelEnv is needed; use its parallel_env()")
    if "ray.MultiAgentEnv" in ancestors and not isinstance(env, ParallelEnv):
        raise UserError(
            f"{what} {type(env).__name__}, a MultiAgentEnv of RLlib, and a ParallelEnv of PettingZoo is needed: spaces "
            "by agent from methods, `agents`, flags for each agent and no '__all__'. ParallelPettingZooEnv keeps the "
            "one that it wraps in `par_env`"
        )
    if "gymnasium.Env" in ancestors and not hasattr(env, "possible_agents"):
        raise UserError(f"{what} {type(env).__name__}, a Gymnasium Env of one agent, and a ParallelEnv is needed")
    for name in ("possible_agents", "reset", "step", "observation_space", "action_space"):
        if not hasattr(env, name):
            raise UserError(f"{what} a {type(env).__name__} without '{name}', and it must be a ParallelEnv")
        if name != "possible_agents" and not callable(getattr(env, name)):
            raise UserError(
                f"{what} a {type(env).__name__} whose '{name}' is {type(getattr(env, name)).__name__}, and in a "
                "ParallelEnv it is a method"
            )
    if not env.possible_agents:
        raise UserError(f"environment '{env}' has no possible_agents, and needs at least one")
    if not _takes_seed(env):
        raise UserError(
            f"reset() of '{env}' takes no seed, and a ParallelEnv's is reset(seed=None, options=None): without one no "
            "episode could be played again"
        )


def _takes_seed(env: Any) -> bool:
    try:
        signature(env.reset).bind(seed=0)
    except TypeError:
        return False
    except ValueError:  # what is not written in Python may not tell
        return True
    return True


def _takes_keywords(creator: Callable[..., Any], config: dict[str, Any]) -> bool:
    """RLlib's creators take the mapping; PettingZoo's `parallel_env` functions take keywords.

    Raises:
        UserError: it takes keywords, and not these.
    """
    try:
        call = signature(creator)
    except (TypeError, ValueError):
        return False
    first = next(iter(call.parameters.values()), None)
    if first is not None and first.name in {"config", "env_config"}:
        return False
    try:
        call.bind(**config)
    except TypeError as error:
        named = [name for name, p in call.parameters.items() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        # One argument, whatever it is called, and nothing of the mapping by that name: it takes the mapping. So it does
        # where there is no key that could be misspelt.
        alone = len(call.parameters) == 1 and first is not None and first.kind != first.KEYWORD_ONLY
        if not config or (alone and first is not None and first.name not in config):
            return False
        for key in config:
            if key not in named:
                raise _no_parameter(creator, key, named) from error
        raise UserError(f"env_config does not fit {_called(creator)}: {error}") from error
    return True


def _made_of_keywords(creator: Callable[..., Any], config: dict[str, Any]) -> Any:
    try:
        return creator(**config)
    except TypeError as error:
        # A function with **kwargs hands them on to one that may not take them.
        found = re.search(r"unexpected keyword argument '([^']+)'", str(error))
        if found is None or found[1] not in config:
            raise
        raise UserError(f"env_config.{found[1]} is no parameter of {_called(creator)}: {error}") from error


def _no_parameter(creator: Callable[..., Any], key: str, named: list[str]) -> UserError:
    told = nearest(key, named) if named else "it takes no keys"
    return UserError(f"env_config.{key} is no parameter of {_called(creator)}; {told}")


def _called(creator: Callable[..., Any]) -> str:
    return getattr(creator, "__qualname__", None) or repr(creator)


def natural_order(agents: list[Any]) -> list[Any]:
    """Agents sorted with numbers read as numbers.

    >>> natural_order(["agent_10", "agent_2", "speaker_0"])
    ['agent_2', 'agent_10', 'speaker_0']
    """

    def key(agent: Any) -> tuple[list[tuple[int, int, str]], str]:
        parts = re.split(r"(\d+)", str(agent))
        return [(1, int(p), "") if i % 2 else (0, 0, p) for i, p in enumerate(parts)], str(agent)

    return sorted(agents, key=key)


def group_agents(env: ParallelEnv) -> dict[str, list[Any]]:
    """{name of a species: its agents in natural order}: agents with equal spaces are of one species."""
    return group_by_spaces(
        {agent: (env.observation_space(agent), env.action_space(agent)) for agent in env.possible_agents}
    )


def group_by_spaces(told: Mapping[Any, tuple[Any, Any]]) -> dict[str, list[Any]]:
    """{name of a species: its agents in natural order}, from {agent: (what it observes, how it acts)}."""
    groups: list[list[Any]] = []
    for agent in natural_order(list(told)):
        for group in groups:
            if told[group[0]] == told[agent]:
                group.append(agent)
                break
        else:
            groups.append([agent])
    names = [_common_words(group) for group in groups]
    if not all(names) or len(set(names)) < len(names):
        names = [f"species_{i}" for i in range(len(groups))]
    return dict(zip(names, groups, strict=True))


def _common_words(agents: list[Any]) -> str:
    """The alphabetic words that all names begin with: "agent" for agent_0 and agent_1."""
    words = [re.findall(r"[A-Za-z]+", str(agent)) for agent in agents]
    alike = takewhile(lambda column: len(set(column)) == 1, zip(*words, strict=False))
    return "_".join(column[0] for column in alike)


def backing_world(env: ParallelEnv) -> World | None:
    """The World behind an environment that is the face of one."""
    for holder in (env, getattr(env, "unwrapped", env)):
        world = getattr(holder, "world", None)
        if isinstance(world, World):
            return world
    return None


def species_behind(env: ParallelEnv, agent: Any) -> Species | None:
    """The species of an agent in the World behind an environment that is the face of one."""
    world = backing_world(env)
    if world is None:
        return None
    seat = list(env.possible_agents).index(agent)
    return next(species for species in world.species.values() if species.start <= seat < species.stop)


def structure_behind(env: ParallelEnv, agent: Any, shown: spaces.Space) -> spaces.Space | None:
    """What an agent's observations are flattened from, as the World behind an environment tells it.

    A face shows numbers. None where there is no World, it says no more than they do, or what is shown is not what it
    shows: wrappers may have changed it.
    """
    species = species_behind(env, agent)
    if species is None or species.structure is None or shown != species.observation_space:
        return None
    return species.structure


def position_source(env: ParallelEnv) -> PositionSource | None:
    """A function that tells {agent: [D] array} now, or None where agents have no positions.

    Asked in this order, of the environment and then of `env.unwrapped`: the method `agent_positions()`, and `positions`
    (a mapping by agent, an array in the order of `possible_agents`, or a method that returns one of them). Where a
    World is behind the environment, its `position_size` decides whether there are any, and `last.positions` serves too.
    """
    world = backing_world(env)
    if world is not None and world.position_size == 0:
        return None
    for name in ("agent_positions", "positions"):
        for holder in (env, getattr(env, "unwrapped", env)):
            if hasattr(holder, name) and _can_be_asked(getattr(holder, name)):
                return lambda holder=holder, name=name: _as_mapping(env, getattr(holder, name))  # type: ignore[misc]
    if world is not None and hasattr(world, "last"):
        names = [agent for s in world.species.values() for agent in s.agents]
        return lambda: dict(zip(names, world.last.positions[0].cpu().numpy(), strict=True))
    return None


def _can_be_asked(value: Any) -> bool:
    """Whether it is no method, or one that needs no arguments: others are something else by the same name."""
    return not callable(value) or can_be_called(value)


def can_be_called(method: Any, *arguments: Any) -> bool:
    """Whether it is a method that takes these arguments: environments of others have attributes by our names."""
    try:
        signature(method).bind(*arguments)
    except TypeError:
        return False
    except ValueError:  # what is not written in Python may not tell
        return True
    return True


def allowed_to_speak(env: Any) -> Mapping[Any, Any]:
    """{agent: whether it may speak} as `may_speak()` tells it, of those it names; {} where there is no such method."""
    method = getattr(env, "may_speak", None)
    told = method() if can_be_called(method) else {}  # type: ignore[misc]
    return told if isinstance(told, Mapping) else {}


def _as_mapping(env: ParallelEnv, value: Any) -> Mapping[Any, Any]:
    value = value() if callable(value) else value
    if isinstance(value, Mapping):
        return value
    # `positions` of another shape is something else by the same name.
    rows = _numbers_of(value)
    if rows is None or rows.ndim != 2 or len(rows) != len(env.possible_agents):
        return {}
    return dict(zip(env.possible_agents, rows, strict=True))


def _numbers_of(value: Any) -> np.ndarray | None:
    """An array of real numbers; None where it is of something else."""
    try:
        array = np.asarray(value)
    except ValueError:  # rows of several lengths
        return None
    return array if array.dtype.kind in "fiu" else None


def position_size_of(source: PositionSource | None, agents: Sequence[Any]) -> tuple[int, str]:
    """D of what is told at the opening, and why it is not taken for positions; 0 and "" where nothing is told."""
    shown = {} if source is None else source()
    size = 0
    for agent in agents:
        if agent not in shown:
            continue
        row = _numbers_of(shown[agent])
        if row is None or row.ndim != 1 or not np.isfinite(row).all() or size not in (0, row.size):
            return 0, f"that of agent '{agent}' is {shown[agent]!r}, and must be as many finite numbers as of others"
        size = row.size
    return size, ""


def positions_now(
    source: PositionSource | None, agents: Sequence[Any], living: Collection[Any], size: int
) -> dict[Any, np.ndarray]:
    """{agent: [D] float32} of those who live, and of others where they are shown somewhere.

    Raises:
        UserError: one who lives is not shown, or where is no D finite numbers.
    """
    shown = {} if source is None else source()
    found: dict[Any, np.ndarray] = {}
    for agent in agents:
        if agent not in shown:
            if agent in living:
                raise UserError(f"agent '{agent}' lives, and no position is told of it")
            continue
        row = _numbers_of(shown[agent])
        if row is not None and row.shape == (size,) and np.isfinite(row).all():
            found[agent] = row.astype(np.float32)
        elif agent in living:
            raise UserError(
                f"the position of agent '{agent}' is {shown[agent]!r}, and must be {size} finite numbers as at the "
                "opening"
            )
    return found
