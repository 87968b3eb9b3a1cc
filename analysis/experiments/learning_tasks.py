"""The games of the learning-to-talk experiment, and what is asked of agents in each.

A task is a shipped config with overrides; a condition (learning_conditions.py) is overrides on top of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from string import Template
from typing import Any

import torch
from popcomm.analysis.experiments.learning_conditions import CONDITIONS, condition_named

from popcomm.cli import documents
from popcomm.envs import colour_digit_v0, predator_prey_references, relay_v0, switch_riddle_v0
from popcomm.envs.colour_digit_v0 import ColourDigitWorld
from popcomm.envs.predator_prey_v0 import PredatorPreyWorld
from popcomm.envs.relay_v0 import RelayWorld
from popcomm.envs.scripted import Randomly, episode_returns
from popcomm.envs.switch_riddle_v0 import SwitchRiddleWorld
from popcomm.envs.traffic_junction_references import Planner, gas, played, randomly
from popcomm.envs.traffic_junction_v0 import TrafficJunctionWorld
from popcomm.errors import UserError, unknown

RETURN = "return"
SCRIPTED_EPISODES = 500  # of references that are measured
MPE = (
    "env_runners.rollout_fragment_length=25",
    "communication.messages.vocab_size=8",
    "training.lr=[[0, 4.0e-3], [1000000, 4.0e-3], [3000000, 4.0e-4]]",
    "training.entropy_coeff=[[0, 0.05], [1000000, 0.05], [3000000, 0.005]]",
)

References = dict[str, float]


@dataclass(frozen=True)
class Task:
    """A game and its bar.

    Args:
        name: as on the command line.
        title: as on the page.
        file: name of a shipped config.
        overrides: "section.key=value" each.
        seats: agents in a world.
        scripts: name -> what is earned by scripts or published, in the units of `measure`; "random", "silent" and
            "oracle" where they are known.
        bar: what the greedy policy must come to: a share of the oracle's, or with `of_oracle` False a value.
        measure: "return" per agent and episode, or a metric of `LocalTraining.evaluate`.
        unit: of the measure, as on axes.
        lower: whether less is better.
        seconds: CPU budget until the bar.
        most_episodes: the same in episodes; None: as many as the time allows.
        stays: episodes trained on after the bar is first met.
        worlds: of an evaluation.
        long: runs only when it is named.
        note: a sentence for the page.
    """

    name: str
    title: str
    file: str
    seats: int
    scripts: Callable[[], References]
    bar: float
    overrides: tuple[str, ...] = ()
    of_oracle: bool = True
    measure: str = RETURN
    unit: str = "return per agent and episode"
    lower: bool = False
    seconds: float = 120.0
    most_episodes: int | None = 100_000
    stays: int = 50_000
    worlds: int = 512
    long: bool = False
    note: str = ""

    @property
    def references(self) -> References:
        """`scripts`, which some take seconds for, told once."""
        return _told(self.name)

    @property
    def threshold(self) -> float:
        """The bar in the units of the measure."""
        return self.bar * self.references["oracle"] if self.of_oracle else self.bar

    def meets(self, value: float) -> bool:
        return value <= self.threshold if self.lower else value >= self.threshold

    def close(self, sampled: float, greedy: float) -> bool:
        """Whether sampling costs a tenth of the greedy value at most."""
        lost = sampled - greedy if self.lower else greedy - sampled
        return lost <= 0.1 * abs(greedy)


def _of(module: Any, made: Callable[[], Any]) -> Callable[[], References]:
    """What the `references` of a world's file say of a world."""
    return lambda: dict(module.references(made())._asdict())


def _traffic() -> References:
    """Measured; see `popcomm.envs.traffic_junction_references`."""
    world = TrafficJunctionWorld(num_worlds=SCRIPTED_EPISODES)
    scripts = {"random": randomly(), "silent": gas, "oracle": Planner(world)}
    return {name: played(world, script).success for name, script in scripts.items()}


def _mpe(creator: str, published: References) -> Callable[[], References]:
    """What random actions earn, measured, beside what others have published."""

    def told() -> References:
        from popcomm.envs.making import make_world

        world = make_world(creator, {"max_cycles": 25, "continuous_actions": False}, 100)
        seeds, even = range(SCRIPTED_EPISODES // world.num_worlds), Randomly()
        return {"random": torch.cat([episode_returns(world, even, seed) for seed in seeds]).mean().item(), **published}

    return told


OWN_WORDS = (
    "The game has words of its own among the actions, heard through the observations in every condition, silence too; "
    "the channel that the conditions are about comes on top of them."
)
LONG: dict[str, Any] = {"seconds": 1200.0, "most_episodes": None, "long": True}


def _mpe_task(name: str, title: str, creator: str, published: References) -> Task:
    env = f"environment={{env: '{creator}', env_config: {{max_cycles: 25, continuous_actions: false}}}}"
    return Task(
        name, title, "switch_riddle", 2, _mpe(creator, published), bar=-13.0, of_oracle=False, overrides=(env, *MPE),
        worlds=128, note=OWN_WORDS, **LONG | {"seconds": 1800.0},
    )  # fmt: skip


def _of_sizes(game: str, title: str, module: Any, world: Callable[..., Any]) -> list[Task]:
    """Of three agents, and of four, who may fail a little more often."""
    return [
        Task(
            f"{game}_{seats}", title.format(seats), game, seats, _of(module, partial(world, num_agents=seats)), bar=bar,
            overrides=(f"environment.env_config.num_agents={seats}",),
        )
        for seats, bar in {3: 0.95, 4: 0.9}.items()
    ]  # fmt: skip


TASKS = {task.name: task for task in (
    *_of_sizes("switch_riddle", "Switch riddle, {} prisoners", switch_riddle_v0, SwitchRiddleWorld),
    Task("colour_digit", "Colour and digit", "colour_digit", 2, _of(colour_digit_v0, ColourDigitWorld), bar=0.95),
    *_of_sizes("relay", "Relay of {}", relay_v0, RelayWorld),
    Task(
        "predator_prey", "Predator-prey, easy", "predator_prey", 3, _of(predator_prey_references, PredatorPreyWorld),
        measure="length",  # episodes end with the step in which all are there
        unit="steps until all are at the prey", lower=True, bar=9.5, of_oracle=False, **LONG,
        note="Less is better. IC3Net publishes 8.9 steps, for rewards without the shared part.",
    ),
    Task(
        "traffic_junction", "Traffic junction, easy", "traffic_junction", 5, _traffic, bar=0.95, of_oracle=False,
        measure="success", unit="share of episodes without a crash", **LONG,
        note="Silent: all drive on and never brake; no script is known that does better in silence.",
    ),
    _mpe_task(
        "speaker_listener", "MPE, simple speaker listener", "mpe2.simple_speaker_listener_v4:parallel_env",
        {"deaf": -17.6, "IPPO, published": -13.1, "MAPPO, published": -10.7},
    ),
    _mpe_task("simple_reference", "MPE, simple reference", "mpe2.simple_reference_v3:parallel_env", {}),
)}  # fmt: skip


def task_named(name: str) -> Task:
    """Raises UserError: there is none."""
    if name not in TASKS:
        raise unknown("--tasks", name, TASKS)
    return TASKS[name]


def runs_in(condition: str, task: str) -> bool:
    """Whether that condition is run in that task."""
    chosen = condition_named(condition).tasks
    return chosen is None or task in chosen


def document(task: Task, condition: str, seed: int) -> dict[str, Any]:
    """The configuration of a run, {section: {key: value}}.

    Raises:
        UserError: the condition is not run in that task.
    """
    if not runs_in(condition, task.name):
        raise UserError(f"--conditions {condition} is not run in {task.name}")
    shipped = documents.load(task.file, list(task.overrides))
    vocab = int(shipped["communication"]["messages"]["vocab_size"])
    _, (falls, _), (ends, _) = shipped["training"]["lr"]
    values = {"vocab": vocab, "bits": math.ceil(math.log2(vocab)), "seats": task.seats, "falls": falls, "ends": ends}
    changes = [Template(text).substitute(values) for text in CONDITIONS[condition].overrides]
    return documents.load(task.file, [*task.overrides, *changes, f"debugging.seed={seed}"])


@cache
def _told(name: str) -> References:
    return TASKS[name].scripts()
