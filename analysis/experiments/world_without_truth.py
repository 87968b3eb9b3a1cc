"""What do messages tell of the world that nothing made them tell? Probes of frozen messages, trained afterwards.

    python -m popcomm.analysis.experiments.world_without_truth --out runs/truth [--seeds 5] [--docs docs] [--quick]

A swarm of which three of ten boids perceive the beacon. Beside the agents whose messages are shaped by the world's true
state (a loss of guessing it from what was heard), there are such that never see it: with and without the loss of
guessing what the sender of a message saw. A probe learns from episodes of the frozen population to tell the state of
the world from what all boids say in a step, and is examined on others; what it comes to with the states of other
episodes, with messages drawn evenly and with those of an untrained population stands beside.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from operator import itemgetter
from textwrap import fill
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from popcomm.analysis.experiments import probes
from popcomm.analysis.experiments.frame import Claim, Experiment, Options, outdone
from popcomm.analysis.experiments.intervals import mean_shown, paired
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.records import Trial, arms_of, trials_of

from popcomm.cli import documents, schema
from popcomm.language.drawing import BLUE, GREEN, INK, MUTED, ORANGE, PURPLE, card, dress, legend
from popcomm.rllib import PopulationPPOConfig
from popcomm.rollout.population import Population

NAME = "world_without_truth"
BOIDS, SCOUTS, LENGTH_OF_EPISODE, SYMBOLS, LENGTH = 10, 3, 100, 16, 3
STEPS, QUICK_STEPS = 260_000, 2_560  # environment steps of a run
EPISODES, QUICK_EPISODES = 160, 20  # that a probe has
WORLDS, EVALUATION_WORLDS = 256, 128
# {arm: weights of the losses of guessing the world's state, and what the sender saw}
ARMS = {"supervised": (0.1, 1.0), "unsupervised": (0.0, 1.0), "rewards": (0.0, 0.0)}
TITLES = {
    "supervised": "supervised on the true state",
    "unsupervised": "without the true state",
    "rewards": "without it, nor what senders saw",
}
# Parts of the state [11] (`popcomm.envs.swarm_v0`).
PARTS = {
    "centroid": slice(0, 4), "velocity": slice(4, 6), "dispersion": slice(6, 7), "beacon": slice(7, 11),
}  # fmt: skip
MOMENTS = ("untrained", "trained")

Array = NDArray[Any]
Record = Mapping[str, Any]


# ---- runs ----


def planned(options: Options) -> list[Trial]:
    size = (QUICK_STEPS, QUICK_EPISODES) if options.quick else (STEPS, EPISODES)
    arms = [{"arm": arm} for arm in ARMS]
    return trials_of(options, train, arms, env_steps=size[0], episodes=size[1])


def settings(arm: str, seed: int, env_steps: int) -> PopulationPPOConfig:
    """The configuration of a run: the shipped swarm, with fewer messages."""
    world, reconstruction = ARMS[arm]
    own = {
        "environment.env_config.num_agents": BOIDS,
        "environment.env_config.scout_fraction": SCOUTS / BOIDS,
        "environment.env_config.max_steps": LENGTH_OF_EPISODE,
        "communication.messages.vocab_size": SYMBOLS,
        "communication.messages.length": LENGTH,
        "population.agent_config.world_weight": world,
        "population.agent_config.reconstruction_weight": reconstruction,
        "training.lr": [[0, 2e-3], [env_steps, 3e-4]],
        "env_runners.num_worlds_per_env_runner": WORLDS,
        "debugging.seed": seed,
    }
    return schema.apply(
        documents.load("swarm", [f"{key}={value}" for key, value in own.items()]), PopulationPPOConfig()
    )


def train(arm: str, seed: int, env_steps: int, episodes: int) -> Record:
    """One run, probed before and after; `seconds` is CPU time of this process, `score` the likeliest choices' return.

    "world_r2": of the agents' own estimator in the last iteration, each from what it hears; of the supervised arm.
    """
    began = time.process_time()
    training = LocalTraining(settings(arm, seed, env_steps), EVALUATION_WORLDS)
    score_before, before = training.greedy(), probed(training.population(), seed, episodes)
    told: Mapping[str, Any] = {}
    while training.env_steps < env_steps:
        told = training.iterate()
    said, state = heard_in(training.population(), seed, episodes)
    noise = np.random.default_rng(seed).integers(SYMBOLS, size=said.shape)
    own = {key[-1]: value for key, value in flat(told).items()}.get("world_r2")
    return {
        "untrained": before, "trained": of_messages(said, state),
        "drawn evenly": of_messages(noise, state, nonlinear=False), "world_r2": own,
        "score_before": score_before, "score": training.greedy(), "seconds": time.process_time() - began,
    }  # fmt: skip


def flat(told: Mapping[Any, Any], above: tuple[Any, ...] = ()) -> dict[tuple[Any, ...], float]:
    """Numbers of nested mappings by their path; what RLlib's statistics hold is looked at."""
    found: dict[tuple[Any, ...], float] = {}
    for key, value in told.items():
        if isinstance(value, Mapping):
            found |= flat(value, (*above, key))
        else:
            found[(*above, key)] = float(value.peek() if hasattr(value, "peek") else value)
    return found


def heard_in(population: Population, seed: int, episodes: int) -> tuple[Array, Array]:
    """What all say in whole episodes of new worlds, sampled as in training, and the state of the world meanwhile.

    Returns:
        messages [E, T, N, L] int64, state [E, T, S] float32.
    """
    rollout = population.rollout(seed=1000 + seed, worlds=episodes, env_config={"stagger": False})
    rollout.begin()
    said, states = [], []
    for _ in range(LENGTH_OF_EPISODE):
        turn, _ = rollout.step()
        assert turn.sent is not None
        assert turn.seen.state is not None
        said.append(turn.sent.cpu().numpy())
        states.append(turn.seen.state.cpu().numpy().copy())
    rollout.close()
    return np.stack(said, 1), np.stack(states, 1)


def probed(population: Population, seed: int, episodes: int) -> Record:
    return of_messages(*heard_in(population, seed, episodes))


def of_messages(messages: Array, state: Array, nonlinear: bool = True) -> Record:
    """R2 of the state by probes of messages [E, T, N, L]: of all of it, of its parts, and of controls.

    Args:
        state: [E, T, S].
        nonlinear: whether a probe with a hidden layer is trained, too.
    """
    features = probes.one_hot(messages, SYMBOLS)
    linear = probes.ridge(features, state)
    deep = probes.network(features, state) if nonlinear else None
    return {
        "linear": linear.mean, "control": linear.control, "highest": linear.highest, "p_value": linear.p_value,
        "deep": None if deep is None else float(deep.mean()),
        **{part: probes.of_group(linear.r2, where) for part, where in PARTS.items()},
    }  # fmt: skip


# ---- measures ----


def grouped(records: Sequence[Record]) -> dict[str, list[Record]]:
    """{arm: its runs by seed}, in the order of ARMS."""
    return arms_of(records, itemgetter("arm"), ARMS)


def above(record: Record, moment: str = "trained") -> float:
    """R2 of the linear probe less that of its controls."""
    return float(record[moment]["linear"] - record[moment]["control"])


def claims(groups: Mapping[str, Sequence[Record]]) -> list[Claim]:
    """What was to be shown, as far as there are runs."""
    found: list[Claim] = []
    for arm in list(ARMS)[1:]:
        runs = groups.get(arm, [])
        gain = paired(runs, runs, above, lambda record: above(record, "untrained"))
        if gain is None or len(runs) < 2:
            continue
        low = max(run["trained"]["p_value"] for run in runs)
        text = f"{TITLES[arm].capitalize()}, messages tell of the world: above {probes.SHIFTS} controls in every run"
        found.append(Claim(text, f"p at most {low:.3f}", all(above_all(run) for run in runs)))
        text = f"{TITLES[arm].capitalize()}, they tell more than an untrained population's ({len(runs)} seeds)"
        found.append(Claim(text, gain.shown(3), gain.paired.low > 0))
    for arm in list(ARMS)[1:]:
        text = f"Supervised messages tell more of the world than those {TITLES[arm]} ({{seeds}} seeds)"
        found += outdone(text, groups.get("supervised", []), groups.get(arm, []), above, least=2)
    return found


def above_all(record: Record) -> bool:
    return bool(record["trained"]["linear"] > record["trained"]["highest"])


# ---- figure and page ----

COLOURS = {"supervised": ORANGE, "unsupervised": BLUE, "rewards": GREEN}
PLACES = ("linear", *PARTS)


def draw(records: Sequence[Record]) -> Figure:
    """R2 of the state and of its parts, before and after training and by chance, a run a point."""
    groups = grouped(records)
    figure = card(12, 4.8, "The world's state, as probes read it from messages")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.5])
    dress(left, "All of the state", "", "R² on held-out episodes")
    looks = (("untrained", "linear", MUTED), ("trained", "control", PURPLE), ("trained", "linear", None))
    for place, (arm, runs) in enumerate(groups.items()):
        for shift, (moment, key, colour) in enumerate(looks):
            values = [run[moment][key] for run in runs]
            x = place + 0.24 * (shift - 1)
            label = "untrained" if moment == "untrained" else "states of other episodes"
            named = colour is not None and not place
            left.scatter([x] * len(values), values, s=22, color=colour or COLOURS[arm], label=label if named else None)
            left.plot([x - 0.09, x + 0.09], [np.mean(values)] * 2, color=INK, linewidth=1.6)
    left.scatter([], [], s=22, facecolors="none", edgecolors=INK, label="trained, in the colours on the right")
    left.set_xticks(range(len(groups)), [fill(TITLES[arm], 24) for arm in groups])
    dress(right, "Its parts, trained", "", "R² on held-out episodes")
    for shift, (arm, runs) in enumerate(groups.items()):
        for place, part in enumerate(PARTS):
            values, x = [run["trained"][part] for run in runs], place + 0.24 * (shift - 1)
            label = TITLES[arm] if not place else None
            right.scatter([x] * len(values), values, s=22, color=COLOURS[arm], label=label)
            right.plot([x - 0.09, x + 0.09], [np.mean(values)] * 2, color=INK, linewidth=1.6)
    right.set_xticks(range(len(PARTS)), list(PARTS))
    for axes in (left, right):
        axes.axhline(0, color=MUTED, linewidth=0.8)
        legend(axes, loc="best")
    return figure


def page(records: Sequence[Record]) -> dict[str, Any]:
    groups = grouped(records)

    def shown(runs: Sequence[Record], moment: str, key: str) -> str:
        return mean_shown([run[moment][key] for run in runs], 3)

    return {
        "records": records, "groups": groups, "claims": claims(groups), "titles": TITLES, "shown": shown,
        "moments": MOMENTS, "parts": list(PARTS), "weights": ARMS, "boids": BOIDS, "scouts": SCOUTS,
        "symbols": SYMBOLS, "length": LENGTH, "shifts": probes.SHIFTS, "steps": records[0]["env_steps"],
        "episodes": records[0]["episodes"], "episode": LENGTH_OF_EPISODE,
    }  # fmt: skip


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, seeds=5, quick=1)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
