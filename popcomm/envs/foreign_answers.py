"""What a ParallelEnv of others answers to reset and step, unpacked: what does not fit is said in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from popcomm.errors import UserError, nearest

RESET = ("observations", "infos")
STEP = ("observations", "rewards", "terminations", "truncations", "infos")


class Answer(NamedTuple):
    """What is told of every agent, by agent; of reset there are observations and infos alone."""

    observations: dict[Any, Any]
    rewards: dict[Any, Any]
    terminated: dict[Any, Any]
    truncated: dict[Any, Any]
    infos: dict[Any, Any]


def reset_env(env: Any, seed: int | None = None, options: Any = None) -> Answer:
    """`env.reset`, whose options are passed on where there are any.

    Raises:
        UserError: it returns anything but (observations, infos), by agent; it leaves nobody to act.
    """
    told = _asked(env.reset, seed=seed) if options is None else _asked(env.reset, seed=seed, options=options)
    if isinstance(told, Mapping):
        raise UserError(
            f"reset() of '{env}' returned one dict, as before PettingZoo 1.23, and must return {_listed(RESET)}"
        )
    observations, infos = _unpacked(env, "reset", told, RESET)
    if not env.agents:
        raise UserError(f"'{env}' has no agents after reset, so it can never be stepped")
    return Answer(observations, {}, {}, {}, infos)


def step_env(env: Any, actions: Mapping[Any, Any]) -> Answer:
    """`env.step`.

    Raises:
        UserError: it returns anything but the five dicts by agent.
    """
    told = _asked(env.step, actions)
    if isinstance(told, tuple | list) and len(told) == len(STEP) - 1:
        raise UserError(
            f"step() of '{env}' returned four values, as before PettingZoo 1.22, and must return {_listed(STEP)}: "
            "`dones` are terminations where an episode ends by itself, truncations where it is cut"
        )
    return Answer(*_unpacked(env, "step", told, STEP))


def _asked(method: Callable[..., Any], *arguments: Any, **keys: Any) -> Any:
    """What a method returns. A StopIteration, as of `next(...)` at the end of the data, would pass for the end of
    whichever generator it comes through, and nobody would hear where it was."""
    try:
        return method(*arguments, **keys)
    except StopIteration as error:
        raise RuntimeError(f"StopIteration: {error}") from error


def _unpacked(env: Any, call: str, told: Any, names: tuple[str, ...]) -> tuple[dict[Any, Any], ...]:
    if not isinstance(told, tuple | list) or len(told) != len(names):
        count = f"{len(told)} values" if isinstance(told, tuple | list) else f"a {type(told).__name__}"
        raise UserError(f"{call}() of '{env}' returned {count}, and must return {_listed(names)}")
    for name, part in zip(names, told, strict=True):
        if not isinstance(part, Mapping):
            raise UserError(
                f"the {name} that {call}() of '{env}' returned are of type {type(part).__name__}, and must be a dict "
                "by agent"
            )
    return tuple(told)


def _listed(names: tuple[str, ...]) -> str:
    return f"({', '.join(names)})"


def check_keys(answer: Answer, known: frozenset[Any]) -> None:
    """Observations, rewards and flags must be of agents; infos may be of anything.

    Raises:
        UserError: a key that no agent bears.
    """
    for name, part in zip(STEP, answer[:-1], strict=False):
        if known.issuperset(part):
            continue
        strange = next(key for key in part if key not in known)
        if strange == "__all__":
            raise UserError(
                f"the {name} hold '__all__', which is RLlib's way and no agent; a ParallelEnv says it of each agent, "
                "and leaves those out of `agents` who are done"
            )
        raise UserError(f"the {name} hold '{strange}', which no agent is called; {nearest(strange, map(str, known))}")


def reward_of(agent: Any, answer: Answer) -> float:
    """The reward of an agent that acted: a number, or an array of one.

    Raises:
        UserError: there is none, or several.
    """
    reward = answer.rewards.get(agent, answer)
    if isinstance(reward, float | int):
        return reward
    if reward is answer:
        raise UserError(f"agent '{agent}' acted, and there is no reward for it")
    array = np.asarray(reward)
    if array.size == 1 and array.dtype.kind in "fiub":
        return float(array.reshape(-1)[0])
    if array.size > 1:
        raise UserError(
            f"the reward of agent '{agent}' has {array.size} numbers, and must be one; add them up, each with a weight"
        )
    raise UserError(f"the reward of agent '{agent}' is {reward!r}, and must be a number")
