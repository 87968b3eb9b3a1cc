"""Do hubs emerge where the world appoints nobody? Concentration of attention and of paths in a swarm, over training.

    python -m popcomm.analysis.experiments.emergent_hubs --out runs/emergent_hubs [--seeds 5] [--docs docs] [--quick]

Boids that perceive a beacon only near it (no scouts) hear their four nearest and attend to them: boids that share one
network, boids with weights of their own, boids whose symbols are drawn evenly on the way whatever they say (random),
and silent ones, of whom only who stands near whom is left. At looks over training whole episodes are played, and it is
measured how unevenly attention falls on senders and how much of the shortest paths runs through single boids, against
the same play with every listener's weights dealt anew among those whom it hears.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray
from popcomm.analysis.experiments.figures import DOTTED, of_runs, seeds_and_mean
from popcomm.analysis.experiments.frame import Claim, Experiment, Options
from popcomm.analysis.experiments.intervals import mean_interval, mean_shown, paired
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.records import Trial, arms_of, trials_of

from popcomm.channels import KNearest
from popcomm.cli import documents, schema
from popcomm.language.attention import attention_matrix, betweenness
from popcomm.language.drawing import BLUE, GREEN, MUTED, ORANGE, card, dress, legend
from popcomm.language.nulls import share_as_large
from popcomm.rllib import PopulationPPOConfig
from popcomm.rollout.population import Population

NAME = "emergent_hubs"
BOIDS, NEAREST, RADIUS, LENGTH = 10, 4, 2.0, 100
STEPS, QUICK_STEPS = 100_000, 2_560  # environment steps of a run
LOOKS = 6  # at what was learned, beside the one before training
PLAYED = 24  # worlds of a look, one episode each
SHUFFLES = 19  # controls; of betweenness, which is slow, fewer
PATHS = 5

Array = NDArray[Any]
Record = Mapping[str, Any]

# {arm: what it changes in the shipped swarm}
ARMS: dict[str, dict[str, Any]] = {
    "talking": {},
    "individuals": {"population.members": BOIDS},
    "random": {"communication.noise": 1.0},
    "silent": {"communication.messages": None},
}
TITLES = {
    "talking": "talking, one network", "individuals": "talking, weights of their own", "random": "random symbols",
    "silent": "silent: who stands near whom",
}  # fmt: skip


# ---- runs ----


def planned(options: Options) -> list[Trial]:
    return trials_of(options, train, [{"arm": arm} for arm in ARMS], env_steps=QUICK_STEPS if options.quick else STEPS)


def settings(arm: str, seed: int, env_steps: int) -> PopulationPPOConfig:
    """The configuration of a run: the shipped swarm, in which nobody is a scout, with shorter messages."""
    own = {
        "environment.env_config.num_agents": BOIDS,
        "environment.env_config.max_steps": LENGTH,
        "environment.env_config.scout_fraction": None,
        "environment.env_config.sensing_radius": RADIUS,
        "communication.messages.vocab_size": 16,
        "communication.messages.length": 3,
        "communication.topology.k": NEAREST,
        "training.lr": [[0, 2e-3], [env_steps, 3e-4]],
        "debugging.seed": seed,
        **ARMS[arm],
    }
    document = documents.load("swarm", [f"{key}={json.dumps(value)}" for key, value in own.items()])
    return schema.apply(document, PopulationPPOConfig())


def train(arm: str, seed: int, env_steps: int) -> Record:
    """One run, looked at before, on its way and at its end; `seconds` is CPU time of this process."""
    began = time.process_time()
    training, curve = LocalTraining(settings(arm, seed, env_steps), PLAYED), []
    for steps in training.looks(env_steps, LOOKS):
        curve.append({"env_steps": steps, **looked_at(listened(training.population(), seed), seed)})
    return {"curve": curve, "seconds": time.process_time() - began}


# ---- what is listened to ----


class Attention(NamedTuple):
    """E episodes of T steps: whom every boid hears, and how much it attends to each; B = E worlds."""

    senders: Array  # [B, T, N, K] int64
    weights: Array  # [B, T, N, K], 0 where nobody is heard; rows that hear somebody sum to 1
    mask: Array  # [B, T, N, K] bool
    perceiving: Array  # [B, T, N] bool, who perceives the beacon
    members: Array  # [B, N], who sits where
    score: float  # mean return


def listened(population: Population, seed: int) -> Attention:
    """Whole episodes of new worlds, sampled as in training. The silent hear nobody: all whom they would, alike."""
    rollout = population.rollout(seed=1000 + seed, worlds=PLAYED, env_config={"stagger": False})
    rollout.begin()
    near, rows, score = KNearest(NEAREST), [], 0.0
    for _ in range(LENGTH):
        turn, after = rollout.step()
        act, seating = turn.acts["swarm"], turn.seatings["swarm"]
        if turn.mail is None:
            links = near.connect(turn.seen.alive, turn.seen.positions, rollout.world.torus)
            weights = links.mask / links.mask.sum(-1, keepdim=True).clamp(min=1)
        else:
            links, weights = turn.mail.links, seating.to_worlds(act.thought.output.aux["attention"])
        perceiving = turn.seen.observations["swarm"][..., -1] > 0
        rows.append([values.numpy().copy() for values in (links.senders, weights * links.mask, links.mask, perceiving)])
        score += float(after.rewards.mean())
    # Boids that share a network are told apart by their seats.
    shared = rollout.players.actors["swarm"].members == 1
    members = np.tile(np.arange(BOIDS), (PLAYED, 1)) if shared else turn.members["swarm"].copy()
    rollout.close()
    return Attention(*(np.stack(column, 1) for column in zip(*rows, strict=True)), members, score)


def dealt(found: Attention, rng: np.random.Generator) -> Attention:
    """The control: each listener's weights change places among those whom it hears in that step.

    Who stands near whom and how sharply all attend stay; whom attention falls on is chance.
    """
    # Those who are heard stand first in both orders, in random places.
    order = np.argsort(rng.random(found.weights.shape) + 2.0 * ~found.mask, -1)
    places = np.argsort(~found.mask, -1, kind="stable")
    weights = np.empty_like(found.weights)
    np.put_along_axis(weights, places, np.take_along_axis(found.weights, order, -1), -1)
    return found._replace(weights=weights)


def gini(values: Array) -> float:
    """Gini's coefficient of shares [N] that are not negative: 0 all alike, 1 - 1 / N all on one; nan of zeros.

    >>> gini(np.array([1.0, 1.0])), gini(np.array([0.0, 0.0, 0.0, 2.0]))
    (0.0, 0.75)
    """
    total, n = values.sum(), len(values)
    if not total > 0:
        return float("nan")
    return float((2 * np.arange(1, n + 1) - n - 1) @ np.sort(values) / (n * total))


def matrices(found: Attention) -> Array:
    """[B, N (sender), N (listener)], the share of each listener's attention over an episode."""
    worlds, steps, n, k = found.senders.shape
    receivers = np.broadcast_to(np.arange(n)[:, None], (steps, n, k))
    made = [
        attention_matrix(
            found.senders[b][found.mask[b]], receivers[found.mask[b]], found.weights[b][found.mask[b]], n
        )
        for b in range(worlds)
    ]  # fmt: skip
    return np.stack(made)


def received(found: Attention) -> float:
    """Gini's coefficient of the attention that seats get within an episode, the mean over episodes."""
    return float(np.mean([gini(matrix.sum(1)) for matrix in matrices(found)]))


def between(found: Attention) -> float:
    """The largest share of the shortest paths between two others that runs through one boid, the mean over episodes."""
    return float(np.mean([betweenness(matrix).max() for matrix in matrices(found)]))


def to_perceivers(found: Attention) -> float:
    """Attention to those who perceived the beacon when they spoke, over an even share of it.

    Of listeners that hear both such and others; 1 where attention does not tell them apart; nan: there are none.
    """
    before = found.perceiving[:, :-1, :]  # what is heard in a step was said in the one before
    senders, weights, mask = (values[:, 1:] for values in (found.senders, found.weights, found.mask))
    worlds, steps = np.indices(senders.shape)[:2]
    knows = before[worlds, steps, senders] & mask
    both = knows.any(-1) & (mask & ~knows).any(-1)
    if not both.any():
        return float("nan")
    even = knows.sum(-1)[both] / mask.sum(-1)[both]
    return float((weights * knows).sum(-1)[both].mean() / even.mean())


def lasting(found: Attention) -> float:
    """Gini's coefficient of the attention that members get over all episodes together."""
    per_seat = np.stack([matrix.sum(1) for matrix in matrices(found)])
    count = np.bincount(found.members.ravel())
    total = np.bincount(found.members.ravel(), per_seat.ravel())
    return gini(total[count > 0] / count[count > 0])


def swapped(found: Attention, rng: np.random.Generator) -> Attention:
    """The control of `lasting`: who is who is drawn anew in every episode."""
    return found._replace(members=rng.permuted(found.members, axis=1))


# {measure: what it is, its control, and how many of these}
MEASURES: dict[str, tuple[Callable[[Attention], float], Callable[..., Attention], int]] = {
    "received": (received, dealt, SHUFFLES), "between": (between, dealt, PATHS),
    "perceivers": (to_perceivers, dealt, SHUFFLES), "lasting": (lasting, swapped, SHUFFLES),
}  # fmt: skip


def looked_at(found: Attention, seed: int) -> Record:
    """All measures, each with the mean of its controls, and how often these are as large."""
    rng, told = np.random.default_rng(seed), {}
    told["score"], told["top"] = found.score, float(found.weights.max(-1)[found.mask.any(-1)].mean())
    told["perceiving"] = float(found.perceiving.mean())
    for name, (measure, control, count) in MEASURES.items():
        value = measure(found)
        controls = np.array([measure(control(found, rng)) for _ in range(count)])
        told |= {
            name: value, f"{name} by chance": float(controls.mean()),
            f"{name} above": value - float(controls.mean()), f"{name} p": share_as_large(value, controls),
        }  # fmt: skip
    return told


# ---- measures ----


def grouped(records: Sequence[Record]) -> dict[str, list[Record]]:
    """{arm: its runs by seed}, in the order of ARMS."""
    return arms_of(records, itemgetter("arm"), ARMS)


def at_end(key: str) -> Callable[[Record], float]:
    return lambda run: float("nan") if run["curve"][-1][key] is None else float(run["curve"][-1][key])


def at_start(key: str) -> Callable[[Record], float]:
    return lambda run: float("nan") if run["curve"][0][key] is None else float(run["curve"][0][key])


CLAIMS = (
    ("Attention gathers on few within an episode", "received above", 3),
    ("Shortest paths run through few", "between above", 3),
    ("Those who perceive the beacon are listened to more", "perceivers above", 2),
)


def claims(groups: Mapping[str, Sequence[Record]]) -> list[Claim]:
    """What was to be shown, as far as there are runs."""
    found = []
    for arm in ("talking", "individuals"):
        runs = groups.get(arm, [])
        if len(runs) < 2:
            continue
        for text, key, digits in CLAIMS:
            values = [at_end(key)(run) for run in runs]
            told = f"{text} ({TITLES[arm]}): above their control at the end"
            found.append(Claim(told, mean_shown(values, digits, "+"), mean_interval(values).low > 0))
            for other, name in (("random", "random symbols"), ("silent", "silence")):
                if key == "perceivers above" and other == "silent":
                    continue
                gap = paired(runs, groups.get(other, []), at_end(key))
                if gap is not None:
                    found.append(Claim(f"... more than with {name}", gap.shown(digits), gap.paired.low > 0))
            grown = paired(runs, runs, at_end(key), at_start(key))
            assert grown is not None
            found.append(Claim("... more than before training", grown.shown(digits), grown.paired.low > 0))
    runs = groups.get("individuals", [])
    if len(runs) > 1:
        values = [at_end("lasting above")(run) for run in runs]
        text = "Individuals are hubs that last: attention to members, over episodes, above seats dealt anew"
        found.append(Claim(text, mean_shown(values, 3, "+"), mean_interval(values).low > 0))
    return found


# ---- figure and page ----

COLOURS = {"talking": BLUE, "individuals": GREEN, "random": ORANGE, "silent": MUTED}
PANELS = {
    "received above": ("Attention received, Gini above its control", "within an episode"),
    "between above": ("Largest betweenness, above its control", "share of shortest paths"),
    "perceivers": ("Attention to those who perceive", "over an even share"),
    "lasting above": ("Attention to members, Gini above its control", "over all episodes"),
    "top": ("Largest weight of a listener", "share of its attention"),
    "score": ("Return", "per boid and episode"),
}


def draw(records: Sequence[Record]) -> Figure:
    """All measures over training, seeds thin and means thick."""
    groups = grouped(records)
    figure = card(14, 7.4, "Hubs that nobody appoints, over training")
    for axes, (key, (title, unit)) in zip(figure.subplots(2, 3).ravel(), PANELS.items(), strict=True):
        dress(axes, title, "environment steps", unit)
        for arm, runs in groups.items():
            _curve(axes, runs, key, arm)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        even = {"perceivers": 1.0, "top": 1 / NEAREST, "score": None}.get(key, 0.0)
        if even is not None:
            axes.axhline(even, color=MUTED, linestyle=DOTTED, linewidth=1)
        if key == "score":  # where there is room
            legend(axes, loc="lower right", fontsize=7)
    return figure


def _curve(axes: Axes, runs: Sequence[Record], key: str, arm: str) -> None:
    known = [run for run in runs if all(point[key] is not None for point in run["curve"])]
    seeds_and_mean(axes, of_runs(known, key), COLOURS[arm], "-", TITLES[arm])


def page(records: Sequence[Record]) -> dict[str, Any]:
    groups = grouped(records)

    def shown(runs: Sequence[Record], key: str, when: int = -1, digits: int = 3) -> str:
        values = [run["curve"][when][key] for run in runs]
        return "-" if any(value is None for value in values) else mean_shown(values, digits)

    def certain(runs: Sequence[Record], key: str) -> str:
        """In how many runs no control is as large, or hardly any."""
        return f"{sum(run['curve'][-1][f'{key} p'] <= 0.05 for run in runs)} of {len(runs)}"

    return {
        "records": records, "groups": groups, "claims": claims(groups), "titles": TITLES, "shown": shown,
        "certain": certain, "boids": BOIDS, "nearest": NEAREST, "radius": RADIUS, "length": LENGTH, "played": PLAYED,
        "shuffles": SHUFFLES, "paths": PATHS, "steps": records[0]["env_steps"],
    }  # fmt: skip


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, seeds=5, quick=1)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
