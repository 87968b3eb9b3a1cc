"""Referential games played on long after they are won, with the language written down at checkpoints."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from popcomm.analysis.experiments.records import isolated

Array = NDArray[Any]

ROUNDS = 31  # games in an episode of the environment, one message each; one more step for the last answers
WORLDS, FRAGMENT = 520, 8  # as many worlds as seat five members equally often; 4,160 steps in an iteration
VOCABULARY, LENGTH = 50, 2
COPIES = 64  # messages drawn for each meaning and speaker at a checkpoint
RATIO = 2**0.5  # of the iterations of a checkpoint and the next


class Diary(NamedTuple):
    """C checkpoints of S speakers and L listeners, M meanings."""

    games: Array  # [C] int64, messages sent so far (each world's, whoever of the members sat there)
    accuracy: Array  # [C, S, L], cross-play, greedy
    said: Array  # [C, S, M, length], the greedy message on each meaning
    drawn: Array  # [C, S, M, COPIES, length], messages drawn from the policy

    def save(self, path: Path) -> None:
        """Write an .npz file, which appears whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        half_written = path.with_suffix(".half.npz")
        np.savez_compressed(half_written, **self._asdict())
        os.replace(half_written, path)

    @classmethod
    def load(cls, path: Path) -> Diary:
        with np.load(path) as stored:
            return cls(**{name: stored[name] for name in cls._fields})


@dataclass(frozen=True)
class Play:
    """One training: P speakers and P listeners, paired at random, who go on for so many iterations.

    Args:
        path: the .npz file of its Diary.
        members: P.
        bonus: weight of the entropy bonus of messages.
        seed: of everything random.
        iterations: of 520 worlds and 8 steps each.
    """

    path: Path
    members: int
    bonus: float
    seed: int
    iterations: int

    @property
    def checkpoints(self) -> list[int]:
        """Iterations after which the language is written down: 1, 2, 3, 4, 6, 8, 11, ... and the last."""
        return spaced(self.iterations)

    def is_complete(self) -> bool:
        return self.path.is_file() and len(Diary.load(self.path).games) == len(self.checkpoints)

    def config(self) -> Any:
        """The PopulationPPOConfig. gamma is 0: messages learn by the gradient of who hears them, not by rewards."""
        from popcomm.rllib import PopulationPPOConfig  # imports Ray, which takes seconds

        return (
            PopulationPPOConfig()
            .environment("referential_v0", env_config={"rounds": ROUNDS})
            .communication(
                messages={"kind": "symbols", "vocab_size": VOCABULARY, "length": LENGTH},
                gradient="straight_through",
            )
            .population(agent="gru", members={"speaker": self.members, "listener": self.members})
            .training(
                learn_from="answers",
                lr=5e-3,
                gamma=0.0,
                vf_clip_param=10.0,
                num_epochs=1,
                minibatch_size=WORLDS // 4,
                message_entropy_coeff=self.bonus,
                quality_coeff=0.0,
                message_balance_coeff=0.0,
            )
            .env_runners(num_worlds_per_env_runner=WORLDS, rollout_fragment_length=FRAGMENT)
            .debugging(seed=self.seed)
        )

    @property
    def name(self) -> str:
        return self.path.stem

    def train(self) -> None:
        """Play all iterations, in a process of its own."""
        isolated(played, self)


def played(play: Play) -> None:
    """Play all iterations; the Diary so far is on disk after each checkpoint."""
    from popcomm.cli.ray_session import ray_session

    pages: list[tuple[Any, ...]] = []
    config = play.config()
    with ray_session(config):
        algorithm = config.build_algo()
        try:
            for iteration in range(1, play.iterations + 1):
                steps = algorithm.train()["popcomm"]["env_steps"]
                if iteration in play.checkpoints:
                    pages.append(_written(algorithm, steps, play.seed))
                    Diary(*(np.stack(column) for column in zip(*pages, strict=True))).save(play.path)
        finally:
            algorithm.stop()


def spaced(last: int) -> list[int]:
    """1, 2, 3, 4, 6, 8, 11, 16, ...: whole numbers about RATIO apart, and the last."""
    powers = RATIO ** np.arange(1 + np.floor(np.log(last) / np.log(RATIO)))
    return sorted({*(int(p) for p in np.round(powers)), last})


def _written(algorithm: Any, steps: int, seed: int) -> tuple[Any, ...]:
    """A row of each field of the Diary."""
    from popcomm.envs.making import make_world
    from popcomm.rollout.crossplay import cross_play

    # Cross-play puts the learner's weights into the local module.
    found, config = cross_play(algorithm), algorithm.config
    agent = algorithm.env_runner_group.local_env_runner.module["speaker"].unwrapped().agent
    world = make_world(config.world, config.env_config, 1)
    # With the same random numbers at all checkpoints, messages would diverge less than independent ones do.
    drawn = drawn_messages(agent, world, np.random.SeedSequence([seed, steps]).generate_state(1)[0].item())
    return np.int64(steps * ROUNDS // (ROUNDS + 1)), found.accuracy, found.messages.astype(np.int16), drawn


def drawn_messages(agent: Any, world: Any, seed: int) -> Array:
    """Messages of all speakers on each of M meanings, from the policy as it is: [S, M, COPIES, length] int16.

    Args:
        agent: the speakers' network.
        world: a ReferentialWorld.
        seed: of what is drawn.
    """
    import torch

    generator, meanings = torch.Generator().manual_seed(seed), world.meanings
    view = world.views(torch.arange(len(meanings)), generator).speaker.repeat_interleave(COPIES, 0)
    with torch.no_grad():
        obs = view.expand(agent.spec.members, *view.shape)
        said = agent(obs, None, agent.initial_state(len(view)), generator=generator).said
    assert said is not None
    return said.reshape(len(said), len(meanings), COPIES, -1).numpy().astype(np.int16)
