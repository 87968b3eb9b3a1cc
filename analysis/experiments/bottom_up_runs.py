"""Runs of bottom_up_networks: navigation and traffic with every way to come by a graph, and their noise."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from popcomm.analysis.experiments.local_training import LocalTraining
from torch import Tensor

from popcomm.envs.navigation_references import assigned, own
from popcomm.envs.navigation_v0 import NavigationWorld
from popcomm.envs.scripted import Randomly, episode_returns
from popcomm.envs.sumo_map import SumoMap
from popcomm.envs.traffic_v0 import TrafficWorld
from popcomm.rllib import PopulationPPOConfig
from popcomm.rollout.population import Population

ARMS = ("csnr", "raw", "random", "given", "none", "full")
HIDDEN, LAYERS, EPISODE = 32, 3, 25
TRAFFIC_EPISODE, TRAFFIC_FRAGMENT = 720, 90
GROWTHS = 8  # until the budget is spent, half way through
EVALUATED = 7  # seed of the episodes after training
KINDS = {
    "gaussian": (0.1, 0.3, 1.0),
    "bias": (0.1, 0.3, 1.0),
    "missing": (0.1, 0.3, 0.6),
    "stuck": (0.1, 0.3, 0.6),
    "delay": (1, 2, 4),
    "adversarial": (0.03, 0.1, 0.3),
}
NOISY_ARMS = ("csnr", "none", "full")

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Game:
    """A world that all arms learn in.

    Args:
        agents: N.
        share: of the operations of a dense network, the budget of what grows.
        env_steps: of a run.
        worlds: stepped together.
        view: how far agents of navigation see; None: it is traffic.
        arms: what is compared.
        noise: {kind: strengths} that what was learned is played in.
    """

    agents: int
    share: float
    env_steps: int
    worlds: int
    view: float | None = None
    arms: tuple[str, ...] = ARMS
    noise: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def is_navigation(self) -> bool:
        return self.view is not None

    @property
    def env_config(self) -> dict[str, Any]:
        if not self.is_navigation:
            return {"net": "grid4x4", "reward": "queue", "reward_share": 0.5}
        return {"num_agents": self.agents, "view": self.view, "extent": (self.agents / 3) ** 0.5}

    @property
    def fragment(self) -> int:
        """Rows of an iteration: of navigation an episode, and the row that opens the next."""
        return EPISODE + 1 if self.is_navigation else TRAFFIC_FRAGMENT

    @property
    def fragments(self) -> int:
        """Iterations that an episode takes."""
        return 1 if self.is_navigation else TRAFFIC_EPISODE // TRAFFIC_FRAGMENT

    @cached_property
    def roads(self) -> list[list[int]]:
        """[[sender, receiver]] of lights that a street joins; of navigation each hears so many of the next seats."""
        if not self.is_navigation:
            world = TrafficWorld(**self.env_config)
            try:
                return neighbours(world.plan)
            finally:
                world.close()
        reach = max(1, round(self.agents * self.share - 1))  # as many as the budget of what grows
        return [[(i + k) % self.agents, i] for i in range(self.agents) for k in range(1, reach + 1)]

    def growth(self, arm: str) -> dict[str, Any]:
        """`agent_config.growth`: so many edges at once that the budget is spent half way."""
        if arm in ("none", "full"):
            return {"criterion": arm}
        if arm == "given":
            return {"criterion": "oracle", "edges": self.roads}
        iterations = self.env_steps // (self.worlds * (self.fragment - self.is_navigation))
        edges = LAYERS * self.agents * (self.agents * self.share - 1)
        every = max(1, round(iterations / 2 / GROWTHS))
        return {"criterion": arm, "flops": self.share, "every": every, "at_once": max(1, round(edges / GROWTHS))}

    def settings(self, arm: str, seed: int) -> PopulationPPOConfig:
        """The configuration of a run."""
        return (
            PopulationPPOConfig()
            .environment("navigation_v0" if self.is_navigation else "traffic_v0", env_config=self.env_config)
            .communication(messages=None)
            .population(
                agent="bottom_up",
                agent_config={"hidden": HIDDEN, "blocks": "shared", "growth": self.growth(arm)},
            )
            .training(lr=5e-3, gamma=0.8 if self.is_navigation else 0.95, lambda_=0.9, entropy_coeff=0.005,
                      num_epochs=4, minibatch_size=min(64, self.worlds))
            .env_runners(num_worlds_per_env_runner=self.worlds, rollout_fragment_length=self.fragment)
            .debugging(seed=seed)
        )  # fmt: skip


# A radius beyond every square: all is seen, the own landmark first.
ALL = 100.0
FEW = ("csnr", "random", "none", "full")
GAMES = {
    "3 agents, own landmark": Game(3, 0.6, 80_000, 64, 0.0),
    "3 agents, all": Game(3, 0.6, 80_000, 64, ALL),
    "5 agents, own landmark": Game(5, 0.4, 96_000, 64, 0.0),
    "5 agents, all": Game(5, 0.4, 96_000, 64, ALL),
    "7 agents, own landmark": Game(7, 0.25, 128_000, 64, 0.0, noise=KINDS),
    "7 agents, all": Game(7, 0.25, 128_000, 64, ALL),
    "16 agents, near": Game(16, 0.25, 80_000, 64, 0.8, FEW),
    "16 agents, all": Game(16, 0.25, 48_000, 64, ALL, FEW),
    "traffic grid4x4": Game(16, 0.25, 28_800, 2, noise={"gaussian": KINDS["gaussian"]}),
}


def neighbours(plan: SumoMap) -> list[list[int]]:
    """[[sender, receiver]], lights of which one has a lane after it that the other has before it."""
    before, after = ([set(lanes) for lanes in each] for each in (plan.incoming, plan.outgoing))
    seats = range(len(before))
    return [[j, i] for i in seats for j in seats if i != j and after[j] & before[i]]


# ---- runs ----


def train(game: str, arms: Sequence[str], seed: int, env_steps: int) -> Record:
    """All these arms, one after another; `seconds` is CPU time of the whole."""
    began = time.process_time()
    found = {arm: learned(GAMES[game], arm, seed, env_steps) for arm in arms}
    return {"runs": found, "scripts": scripts(GAMES[game]), "seconds": time.process_time() - began}


def learned(game: Game, arm: str, seed: int, env_steps: int) -> dict[str, Any]:
    """One run, and what it earns afterwards by the likeliest choices; `seconds` is CPU time of its iterations.

    "curve" has returns per agent and episode as they were in training.
    """
    training = LocalTraining(game.settings(arm, seed))
    agent = next(iter(training.learner.networks.values())).agent
    curve, shares, began = [], [], time.process_time()
    try:
        while training.env_steps < env_steps:
            training.iterate()
            shares.append(agent.measures()["bottom_up/flops_share"])
            curve.append({"env_steps": training.env_steps, "score": played(training)})
        seconds = time.process_time() - began
        told = {key.split("/")[1]: value for key, value in agent.measures().items()}
        population = training.population()
    finally:
        training.runner.stop()
    return {
        **told, "curve": curve, "seconds": seconds, "share_of_training": float(np.mean(shares)),
        **evaluated(game, population), **({} if game.is_navigation else on_roads(game, links(agent))),
        "noise": in_noise(game, population) if arm in NOISY_ARMS else {},
    }  # fmt: skip


def played(training: LocalTraining) -> float:
    """Return per agent and episode of the last fragment."""
    (arrays,) = training.fragment.policy_batches.values()
    alive = arrays["alive"]
    return float(arrays["rewards"][alive].mean()) * training.runner.env.max_steps


def links(agent: Any) -> list[tuple[int, int]]:
    """[(sender, receiver)] that any layer of the actor joins."""
    pairs = [agent.edges(name).tolist() for name in agent.layers if name.startswith("actor.")]
    return sorted({(s, r) for layer in pairs for s, r in layer})


def on_roads(game: Game, found: Sequence[Sequence[int]]) -> dict[str, float]:
    """The share of pairs that a street joins: of those found (nan of none), and of all."""
    joined = {tuple(pair) for pair in game.roads}
    hits = [tuple(pair) in joined for pair in found]
    return {
        "road_share": float(np.mean(hits)) if hits else float("nan"),
        "road_chance": len(joined) / (game.agents * (game.agents - 1)),
    }


def evaluated(game: Game, population: Population, noise: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """ "score", the return per agent and episode by the likeliest choices, and "scores", the world's own."""
    episodes = 200 if game.is_navigation else 2
    found = population.evaluate(episodes, greedy=True, seed=EVALUATED, noise=noise)
    scores = {name: float(np.mean(values)) for name, values in found.scores_of_rounds.items()}
    return {"score": found.return_mean / game.agents, "scores": scores}


def in_noise(game: Game, population: Population) -> dict[str, dict[str, float]]:
    """{kind: {strength: score}}, in the same episodes as without it."""
    return {
        kind: {
            f"{strength:g}": evaluated(game, population, {"kind": kind, "strength": strength})["score"]
            for strength in strengths
        }
        for kind, strengths in game.noise.items()
    }


def scripts(game: Game) -> dict[str, float]:
    """{script: return per agent and episode} of navigation; docs/environments.md has traffic's."""
    if not game.is_navigation:
        return {}
    world = NavigationWorld(200, **game.env_config)
    known: dict[str, Callable[[Any], dict[str, Tensor]]] = {
        "random": Randomly(EVALUATED),
        "own": own,
        "assigned": assigned,
    }
    return {name: float(episode_returns(world, script, EVALUATED).mean()) for name, script in known.items()}
