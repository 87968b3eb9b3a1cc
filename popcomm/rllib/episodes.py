"""Episodes, as a user's callbacks see them: made only where somebody asks for them."""

from __future__ import annotations

import copy
import logging
import pickle
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from popcomm.envs.world import Species, WorldStep
from popcomm.rllib.callbacks import RunnerCallbacks
from popcomm.rollout import Rollout, Turn

logger = logging.getLogger(__name__)


class Episode:
    """One episode of one world: the part of RLlib's MultiAgentEpisode that a population has.

    It knows its sums and its last step; what was before it, a callback keeps in `custom_data`. Observations are those
    that networks see, flat; actions are those that the environment gets.

    Attributes:
        id_: a name of its own.
        env_index: b, the world.
        agent_ids: names of the seats.
        custom_data: the user's, for the length of the episode; a checkpoint keeps it where it can be pickled.
        returns: [N] float64, of the seats.
        env_t: steps made.
        is_terminated, is_truncated: how it ended, if it did.
    """

    def __init__(self, book: Episodes, env_index: int) -> None:
        self.id_ = uuid.uuid4().hex
        self.env_index = env_index
        self.custom_data: dict[Any, Any] = {}
        self.is_terminated = self.is_truncated = False
        self.returns = np.zeros(len(book.agent_ids))
        self.env_t = self._agent_steps = 0
        self.agent_ids = book.agent_ids
        self._species = book.species
        self._turn: Turn | None = None
        self._after: WorldStep | None = None

    @property
    def is_done(self) -> bool:
        return self.is_terminated or self.is_truncated

    def __len__(self) -> int:
        return self.env_t

    def env_steps(self) -> int:
        return self.env_t

    def agent_steps(self) -> int:
        """Steps of all seats, of those that lived."""
        return self._agent_steps

    def module_for(self, agent_id: str) -> str:
        """The species of a seat."""
        return next(name for _, name, _, agent in self._seats() if agent == agent_id)

    def get_return(self) -> float:
        """Of all seats together."""
        return float(self.returns.sum())

    def get_returns(self) -> dict[str, float]:
        """{agent: return}."""
        return dict(zip(self.agent_ids, self.returns.tolist(), strict=True))

    def get_observations(self, indices: int = -1) -> dict[str, np.ndarray]:
        """{agent: [O] float32}, what the last step led to, of those who see it."""
        self._only_last(indices)
        assert self._after is not None
        alive = self._after.alive[self.env_index].cpu().numpy() | self._acted()
        seen = {name: values[self.env_index].cpu().numpy() for name, values in self._after.observations.items()}
        return {agent: seen[name][s] for n, name, s, agent in self._seats() if alive[n]}

    def get_actions(self, indices: int = -1) -> dict[str, np.ndarray]:
        """{agent: action}, of the last step."""
        self._only_last(indices)
        if self._turn is None:
            return {}
        bounded, acted = self._turn.bounded, self._acted()
        return {
            agent: bounded[name][self.env_index, s].cpu().numpy() for n, name, s, agent in self._seats() if acted[n]
        }

    def get_rewards(self, indices: int = -1) -> dict[str, float]:
        """{agent: the world's reward}, of the last step."""
        self._only_last(indices)
        assert self._after is not None
        rewards, acted = self._after.rewards[self.env_index].tolist(), self._acted()
        return {agent: rewards[n] for n, _, _, agent in self._seats() if acted[n]}

    def get_messages(self, indices: int = -1) -> dict[str, np.ndarray]:
        """{agent: what it said in the last step}, of those who spoke."""
        self._only_last(indices)
        if self._turn is None or self._turn.sent is None:
            return {}
        voice, sent = self._turn.voice[self.env_index], self._turn.sent[self.env_index]
        return {agent: sent[n].cpu().numpy() for n, _, _, agent in self._seats() if voice[n]}

    def get_members(self) -> dict[str, int]:
        """{agent: the member of its species that sat there in the last step}."""
        if self._turn is None:
            return {}
        members = self._turn.members
        return {agent: int(members[name][self.env_index, s]) for _, name, s, agent in self._seats()}

    def __getattr__(self, name: str) -> NoReturn:
        has = sorted(known for known in {*vars(type(self)), *vars(self)} if not known.startswith("_"))
        raise AttributeError(f"an episode of a population has no '{name}'; it has: {', '.join(has)}")

    def _seats(self) -> Iterator[tuple[int, str, int, str]]:
        """(seat of the world, species, seat of the species, name)."""
        for name, species in self._species.items():
            for s, n in enumerate(range(species.start, species.stop)):
                yield n, name, s, self.agent_ids[n]

    def _acted(self) -> np.ndarray:
        """[N] bool, who made the last step; nobody before the first."""
        if self._turn is None:
            return np.zeros(len(self.agent_ids), bool)
        return self._turn.seen.alive[self.env_index].cpu().numpy()

    def _only_last(self, indices: object) -> None:
        if indices != -1:
            raise ValueError(f"episodes of a population keep their last step only: index -1, not {indices!r}")


class Episodes:
    """Follows the episodes of a rollout, and calls hooks.

    Hooks get `episode`, `env` (the worlds), `env_index` (which of them), `rl_module`, `env_runner`, `metrics_logger`.

    Args:
        rollout: whose episodes.
        callbacks: who wants to know.
        rl_module: of the env runner.
    """

    def __init__(self, rollout: Rollout, callbacks: RunnerCallbacks, rl_module: object) -> None:
        self.rollout, self.callbacks, self.rl_module = rollout, callbacks, rl_module
        layout = rollout.players.layout
        self.species: Mapping[str, Species] = layout.species
        self.agent_ids = layout.agents
        self.running: dict[int, Episode] = {}  # {b: episode}

    def create(self) -> None:
        """Before a step, or the first: worlds that have no episode get one."""
        now = self.rollout.players.now
        over = np.ones(self.rollout.players.num_worlds, bool)
        if now is not None:
            over = ~now.alive.any(1).cpu().numpy()
        for world in np.flatnonzero(over).tolist():
            self.running[world] = Episode(self, world)
            self._call("on_episode_created", self.running[world])

    def begin(self) -> None:
        """After the first reset."""
        assert self.rollout.players.now is not None
        for world in self.running:
            self._start(world, self.rollout.players.now)

    def step(self, turn: Turn, after: WorldStep) -> None:
        """Take in one step of all worlds."""
        alive = turn.seen.alive.cpu().numpy()
        rewards = after.rewards.cpu().numpy()
        goes_on = after.alive.any(1).cpu().numpy()
        cut = after.truncated.any(1).cpu().numpy()
        acted = alive.any(1)
        for world in np.flatnonzero(acted).tolist():
            episode = self.running[world]
            episode._turn, episode._after = turn, after
            episode.returns += rewards[world]
            episode.env_t += 1
            episode._agent_steps += int(alive[world].sum())
            if not goes_on[world]:
                episode.is_truncated = bool(cut[world])
                episode.is_terminated = not cut[world]
            self._call("on_episode_step", episode)
            if episode.is_done:
                self._call("on_episode_end", episode, prev_episode_chunks=[])
        for world in np.flatnonzero(~acted & goes_on).tolist():
            self._start(world, after)

    def _start(self, world: int, after: WorldStep) -> None:
        self.running[world]._after = after
        self._call("on_episode_start", self.running[world])

    def _call(self, hook: str, episode: Episode, **more: object) -> None:
        if hook in self.callbacks.wanted:
            of_episode = {"episode": episode, "env_index": episode.env_index}
            self.callbacks.call(hook, **of_episode, env=self.rollout.world, rl_module=self.rl_module, **more)

    # ---- checkpoints ----

    def get_state(self) -> dict[int, dict[str, Any]]:
        """{b: what is kept of its episode}; without custom_data where that cannot be pickled."""
        return {world: _kept(episode) for world, episode in self.running.items()}

    def set_state(self, state: Mapping[int, Mapping[str, Any]]) -> None:
        """Go on in episodes under way.

        One that is not in the state, or whose custom_data is not, is told to callbacks as if it started here.
        """
        now = self.rollout.players.now
        assert now is not None
        self.running = {}
        for world in range(self.rollout.players.num_worlds):
            self.running[world] = episode = Episode(self, world)
            episode._after = now
            kept = state.get(world, {})
            vars(episode).update({key: value for key, value in kept.items() if key != "custom_data"})
            if "custom_data" in kept:
                episode.custom_data = kept["custom_data"]
            elif bool(now.alive[world].any()):
                self._call("on_episode_created", episode)
                self._call("on_episode_start", episode)


def _kept(episode: Episode) -> dict[str, Any]:
    kept = {name: getattr(episode, name) for name in ("id_", "returns", "env_t", "_agent_steps", "custom_data")}
    kept |= {name: getattr(episode, name) for name in ("is_terminated", "is_truncated")}
    try:
        pickle.dumps(copy.deepcopy(episode.custom_data))
    except Exception as error:  # whatever the user's objects raise
        logger.warning("custom_data of an episode is not in the checkpoint: %s", error)
        del kept["custom_data"]
    return kept
