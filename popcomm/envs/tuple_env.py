"""Environments of Gymnasium for several players, in which everything is a tuple over them, as ParallelEnvs."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from inspect import signature
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator
from pettingzoo import ParallelEnv

from popcomm.envs.flat_spaces import FlatAction
from popcomm.errors import UserError, nearest
from popcomm.references import imported

# {how its environments begin: the package that registers them}, which is also popcomm's extra.
PACKAGES = {"Foraging": "lbforaging", "rware": "rware"}


def from_gymnasium(env: Any, **kwargs: Any) -> TupleParallelEnv:
    """A ParallelEnv of an environment of Gymnasium for several players, as lbforaging and rware have them.

    Args:
        env: its id (of lbforaging or rware, "module:id" of others, or one that is registered), an environment, or what
            makes one.
        kwargs: for `gymnasium.make`, or for what makes it.

    Raises:
        UserError: no such environment, a package that is not installed, arguments that do not fit, or one of a single
            player.
    """
    if isinstance(env, str):
        return TupleParallelEnv(_registered(env, kwargs))
    return TupleParallelEnv(env(**kwargs) if callable(env) else env)


def is_of_players(env: Any) -> bool:
    """Whether it is an environment of Gymnasium whose action space is a tuple."""
    return not hasattr(env, "possible_agents") and hasattr(env, "action_space") and bool(_parts(env.action_space))


class TupleParallelEnv(ParallelEnv):
    """The players are agent_0, agent_1, ...; those who are done leave, and their first action goes on being made.

    Rewards and flags may be one for all or one for each. `info` goes to all where it is one dict. Positions are those
    of `players[i].position` (lbforaging) or `agents[i].x` and `.y` (rware), cells of the grid.

    Args:
        game: an environment of Gymnasium; its observation and action space are tuples (Tuple, tuple or list) of equal
            length.

    Raises:
        UserError: its spaces are others; in reset and step, an answer that is not a tuple over the players.
    """

    def __init__(self, game: Any) -> None:
        seen, acts = (_parts(getattr(game, f"{what}_space", None)) for what in ("observation", "action"))
        if not acts or len(seen) != len(acts):
            raise UserError(
                f"'{game}' has the observation space {getattr(game, 'observation_space', None)} and the action space "
                f"{getattr(game, 'action_space', None)}, and both must be tuples over the players"
            )
        self.game = game
        self.possible_agents = [f"agent_{i}" for i in range(len(acts))]
        self.agents: list[str] = []
        self._observed, self._acts = (dict(zip(self.possible_agents, p, strict=True)) for p in (seen, acts))
        self._idle = {agent: FlatAction(space, agent).idle for agent, space in self._acts.items()}
        spec = getattr(game, "spec", None)
        self.metadata = {**(getattr(game, "metadata", None) or {}), "name": spec.id if spec else type(game).__name__}
        self.render_mode = getattr(game, "render_mode", None)

    def observation_space(self, agent: str) -> spaces.Space:
        return self._observed[agent]

    def action_space(self, agent: str) -> spaces.Space:
        return self._acts[agent]

    def reset(self, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        told = self.game.reset(seed=seed) if options is None else self.game.reset(seed=seed, options=options)
        if not isinstance(told, tuple) or len(told) != 2:
            raise UserError(f"reset() of '{self.game}' must return (observations, info), as Gymnasium's do")
        self.agents = list(self.possible_agents)
        return self._each("observations", told[0]), self._infos(told[1])

    def step(self, actions: Mapping[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        chosen = tuple(actions.get(agent, self._idle[agent]) for agent in self.possible_agents)
        told = self.game.step(chosen)
        if not isinstance(told, tuple) or len(told) != 5:
            raise UserError(
                f"step() of '{self.game}' must return (observations, rewards, terminated, truncated, info), as "
                "Gymnasium's do"
            )
        seen, paid = self._each("observations", told[0]), self._each("rewards", told[1], shared=True)
        ended, cut = (self._each("flags", flags, shared=True) for flags in told[2:4])
        there, infos = self.agents, self._infos(told[4])
        self.agents = [agent for agent in there if not ended[agent] and not cut[agent]]
        kept = ({agent: part[agent] for agent in there} for part in (seen, paid, ended, cut, infos))
        return tuple(kept)  # type: ignore[return-value]

    def render(self) -> Any:
        return self.game.render()

    def close(self) -> None:
        self.game.close()

    def _each(self, what: str, told: Any, shared: bool = False) -> dict[str, Any]:
        """By agent. shared: one that is no tuple goes to all."""
        if shared and np.ndim(told) == 0:
            return dict.fromkeys(self.possible_agents, told)
        if not isinstance(told, tuple | list | np.ndarray) or len(told) != len(self.possible_agents):
            count = f"{len(told)} of them" if hasattr(told, "__len__") else f"a {type(told).__name__}"
            raise UserError(
                f"'{self.game}' has {len(self.possible_agents)} players, and its {what} are {count}; there must be one "
                "for each"
            )
        return dict(zip(self.possible_agents, told, strict=True))

    def _infos(self, info: Any) -> dict[str, Any]:
        if isinstance(info, tuple | list):
            return self._each("infos", info)
        return {agent: dict(info or {}) for agent in self.possible_agents}

    def agent_positions(self) -> dict[str, np.ndarray]:
        """{agent: [2] float32}, of those who stand somewhere; empty where the game does not tell."""
        places = zip(self.possible_agents, _standing(self.game), strict=False)
        return {agent: np.asarray(place, np.float32) for agent, place in places if place is not None}


def _standing(game: Any) -> list[Any]:
    """Where the players are, in order (None: nowhere yet); empty where the game does not tell."""
    inner = getattr(game, "unwrapped", game)
    players, robots = getattr(inner, "players", None), getattr(inner, "agents", None)
    if isinstance(players, list) and players and hasattr(players[0], "position"):
        return [player.position for player in players]
    if isinstance(robots, list) and robots and hasattr(robots[0], "x") and hasattr(robots[0], "y"):
        return [(robot.x, robot.y) for robot in robots]
    return []


def _parts(space: Any) -> tuple[Any, ...]:
    """The spaces of a Tuple, or of a tuple or list of spaces; () of anything else."""
    parts = space.spaces if isinstance(space, spaces.Tuple) else space
    return tuple(parts) if isinstance(parts, tuple | list) else ()


def check_registered(name: str) -> None:
    """Import the package that registers an environment, and look whether it did.

    Raises:
        UserError: it is not installed, or there is no such environment.
    """
    key, begins = f"environment.env 'gymnasium:{name}'", name.rpartition(":")[2]
    package = next((package for prefix, package in PACKAGES.items() if begins.startswith(prefix)), "")
    if package and find_spec(package) is None:
        raise UserError(f"{key} needs {package}, which is not installed: pip install 'popcomm[{package}]'")
    module = package or name.rpartition(":")[0]
    try:
        if module:
            imported(key, module)
        gymnasium.spec(begins)
    except ImportError as error:
        raise UserError(f"{key} does not exist: importing {module} says: {error}") from error
    except gymnasium.error.Error as error:
        hint = nearest(begins, gymnasium.registry)
        # Thousands are registered; without a near one nobody would read them.
        near = hint if hint.startswith("did you mean") else "gymnasium.registry has the names"
        raise UserError(f"{key} does not exist; {near}") from error


def _registered(name: str, kwargs: Mapping[str, Any]) -> Any:
    """`gymnasium.make`."""
    check_registered(name)
    begins = name.rpartition(":")[2]
    try:
        # Gymnasium's checker expects one player.
        return gymnasium.make(begins, disable_env_checker=True, **kwargs)
    except gymnasium.error.Error as error:
        raise UserError(f"environment.env 'gymnasium:{name}': {error}") from error
    except TypeError as error:
        _check_keys(begins, kwargs)
        said = str(error).partition(" was raised from")[0]
        raise UserError(f"environment.env_config does not fit gymnasium:{name}: {said}") from error


def _check_keys(name: str, kwargs: Mapping[str, Any]) -> None:
    """Raises UserError for an argument that neither `gymnasium.make` nor the environment has."""
    entry = gymnasium.spec(name).entry_point
    made_by = load_env_creator(entry) if isinstance(entry, str) else entry
    takes = {**signature(gymnasium.make).parameters, **(signature(made_by).parameters if made_by else {})}
    known = {key for key, parameter in takes.items() if parameter.kind is not parameter.VAR_KEYWORD}
    for key in kwargs:
        if key not in known:
            raise UserError(f"environment.env_config.{key} does not exist in gymnasium:{name}; {nearest(key, known)}")
