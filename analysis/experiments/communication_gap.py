"""What messages are worth: a talking swarm, a silent one, and one that hears random symbols instead, over seeds.

    python -m popcomm.analysis.experiments.communication_gap --seeds 5 --out runs/communication_gap [--docs docs]

Runs that are complete are not trained again, and those that were interrupted go on from their last checkpoint.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from popcomm.analysis.experiments.figures import DASHED, DOTS, DOTTED, level, of_tables, panels, seeds_and_mean
from popcomm.analysis.experiments.frame import Claim, Experiment, Options
from popcomm.analysis.experiments.intervals import Difference, difference, mean_interval
from popcomm.analysis.experiments.runs import LEAN, Run, runs_of

from popcomm.cli import documents
from popcomm.envs import swarm_references
from popcomm.envs.swarm_v0 import SwarmWorld
from popcomm.errors import UserError
from popcomm.language.drawing import BLUE, GREEN, ORANGE, PURPLE, legend

NAME = "communication_gap"
ARMS: dict[str, tuple[str, ...]] = {
    "talking": (),
    "silent": ("communication.messages=null",),
    # The same network and losses; every symbol is replaced on the way by one drawn evenly.
    "noise": ("communication.noise=1.0",),
}
CONTROLS = ("silent", "noise")
# Small enough to see within a minute or two that all parts work; what it measures means nothing.
QUICK = (
    "environment.env_config.max_steps=20",
    "env_runners.num_worlds_per_env_runner=16",
    "training.minibatch_size=16",
)
QUICK_ENV_STEPS = 3200


# ---- runs ----


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--env-steps", type=int, help="environment steps of each run [what the config's stop says]")
    parser.add_argument("--config", default="swarm", help="the config of the talking swarm [swarm]")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override, for all")


def planned(options: Options) -> list[Run]:
    """Raises UserError: not a talking swarm, or one that has no end."""
    overrides = [*(QUICK if options.quick else ()), *options.set]
    document = documents.load(options.config, overrides)
    check_document(document)
    env_steps = options.env_steps or (QUICK_ENV_STEPS if options.quick else stop_of(document))
    arms = {arm: (*LEAN, *overrides, *changes) for arm, changes in ARMS.items()}
    return runs_of(options.out, options.config, arms, range(1, options.seeds + 1), env_steps)


def stop_of(document: dict[str, Any]) -> int:
    """The environment steps at which a config stops.

    Raises:
        UserError: it says none.
    """
    steps = (document.get("stop") or {}).get("num_env_steps_sampled_lifetime")
    if steps is None:
        raise UserError("stop.num_env_steps_sampled_lifetime is missing in the config; give --env-steps")
    return int(steps)


def check_document(document: dict[str, Any]) -> None:
    """Raises UserError unless it is a talking swarm.

    The scripted controls know no other world, and of no other kind of message does the channel's noise leave nothing.
    """
    env = (document.get("environment") or {}).get("env")
    if env != "swarm_v0":
        raise UserError(f"environment.env is {env!r}, and must be 'swarm_v0' for the communication gap")
    kind = ((document.get("communication") or {}).get("messages") or {}).get("kind")
    if kind != "symbols":
        raise UserError(f"communication.messages.kind is {kind!r}, and must be 'symbols' for the communication gap")


# ---- measures ----

RETURN, LENGTH = "charts/agent_episodic_return", "charts/episodic_length"
WORLD_R2, VOCABULARY = "losses/world_r2", "language/vocabulary_used"
RECONSTRUCTION, PREDICTION = "losses/reconstruction", "losses/prediction"
# The start and the end of training, as shares of it.
FIRST, LAST = 0.05, 0.2
# What is asked of the talking swarm, and what a swarm that hears nothing of use stays below.
RETURN_AT_LEAST, R2_AT_LEAST, R2_NEAR_NONE, VOCABULARY_BELOW = 65.0, 0.65, 0.1, 0.7


def at_end(table: pd.DataFrame, key: str, share: float = LAST) -> float:
    """Mean over the last `share` of training (by environment steps); nan where it was not measured."""
    return _mean(table, key, table["env_steps"] > (1 - share) * table["env_steps"].max())


def at_start(table: pd.DataFrame, key: str, share: float = FIRST) -> float:
    """Mean over the first `share` of training, at least its first measurement; nan where there is none."""
    if key not in table:
        return float("nan")
    measured = table.dropna(subset=[key])
    begins = measured["env_steps"] <= max(share * table["env_steps"].max(), measured["env_steps"].min())
    return _mean(measured, key, begins)


def _mean(table: pd.DataFrame, key: str, rows: Any) -> float:
    return float(table.loc[rows, key].mean()) if key in table else float("nan")


# What is measured of an arm's runs, as the page names it.
MEASURES: dict[str, tuple[str, str, Callable[[pd.DataFrame, str], float]]] = {
    "world estimator R², talking": ("talking", WORLD_R2, at_end),
    "world estimator R², silent": ("silent", WORLD_R2, at_end),
    "world estimator R², noise": ("noise", WORLD_R2, at_end),
    "reconstruction loss, start": ("talking", RECONSTRUCTION, at_start),
    "reconstruction loss, end": ("talking", RECONSTRUCTION, at_end),
    "prediction loss, start": ("talking", PREDICTION, at_start),
    "prediction loss, end": ("talking", PREDICTION, at_end),
    # The share of symbols said at least a tenth as often as by chance.
    "vocabulary used, start": ("talking", VOCABULARY, at_start),
    "vocabulary used, end": ("talking", VOCABULARY, at_end),
    "vocabulary used, end, noise": ("noise", VOCABULARY, at_end),
    # 2 ** entropy / V
    "effective vocabulary, start": ("talking", "language/vocabulary_effective", at_start),
    "effective vocabulary, end": ("talking", "language/vocabulary_effective", at_end),
    "bits of a symbol on what its sender saw, end": ("talking", "language/mutual_information", at_end),
}


class Gap(NamedTuple):
    """All numbers of the experiment. Lists are [S], one number per seed, nan where it was not measured."""

    seeds: list[int]
    env_steps: int
    episode: int  # steps of a full one
    returns: dict[str, list[float]]  # {arm: per agent and full episode, at the end}
    gaps: dict[str, Difference]  # {control: of `returns`, talking minus that one}
    measures: dict[str, list[float]]  # {name of MEASURES}
    scripted: dict[str, float]
    minutes: dict[str, float]  # mean training time of a run


def common_horizon(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The tables up to where the shortest ends: a run trained for longer must not win by that."""
    horizon = min(int(table["env_steps"].max()) for table in tables)
    return [table[table["env_steps"] <= horizon] for table in tables]


def measure(
    seeds: Sequence[int], arms: Mapping[str, Sequence[pd.DataFrame]], scripted: Mapping[str, float], episode: int
) -> Gap:
    """Everything from the runs' tables.

    Args:
        seeds: of run s of every arm.
        arms: {"talking", "silent" and "noise": tables of progress}.
        scripted: mean returns of scripted swarms.
        episode: steps of a full one; returns of shorter ones (worlds that begin at different ages) are scaled to it.
    """
    tables = iter(common_horizon([table for arm in arms.values() for table in arm]))
    cut = {name: [next(tables) for _ in arm] for name, arm in arms.items()}
    returns = {
        name: [at_end(table, RETURN) / at_end(table, LENGTH) * episode for table in arm] for name, arm in cut.items()
    }
    return Gap(
        seeds=list(seeds),
        env_steps=int(cut["talking"][0]["env_steps"].max()),
        episode=episode,
        returns=returns,
        gaps={name: difference(returns["talking"], returns[name]) for name in CONTROLS},
        measures={name: [when(table, key) for table in cut[arm]] for name, (arm, key, when) in MEASURES.items()},
        scripted=dict(scripted),
        minutes={name: float(np.mean([t["time_s"].max() for t in arm])) / 60 for name, arm in cut.items()},
    )


def claims(gap: Gap) -> list[Claim]:
    """What was to be shown, what was found, and whether it holds. What was not measured does not hold."""
    mean = {name: float(np.mean(values)) for name, values in gap.measures.items()}
    earned, around = float(np.mean(gap.returns["talking"])), mean_interval(gap.returns["talking"])
    told, random = mean["world estimator R², talking"], mean["world estimator R², noise"]
    before, after = mean["vocabulary used, start"], mean["vocabulary used, end"]
    return [
        _worth(gap.gaps["noise"], "Agents that hear one another get more than the same agents hearing random symbols"),
        _worth(gap.gaps["silent"], "Agents that talk get more than silent ones"),
        Claim(
            f"Agents that talk get at least {RETURN_AT_LEAST:g} per agent and full episode",
            f"{earned:.2f} {around.shown(2, sign='')}",
            earned >= RETURN_AT_LEAST,
        ),
        Claim(
            f"Messages tell the state of the world: R² of the world estimator at least {R2_AT_LEAST}",
            f"{told:.2f}",
            told >= R2_AT_LEAST,
        ),
        Claim(
            f"Random symbols tell next to nothing of it: R² below {R2_NEAR_NONE}",
            f"{random:.2f}",
            random < R2_NEAR_NONE,
        ),
        _falls(gap, "reconstruction", "The sender's observation is reconstructed from its message better and better"),
        _falls(gap, "prediction", "The next observation is predicted better and better"),
        Claim(
            f"The language settles on a part of its symbols: vocabulary use below {VOCABULARY_BELOW:.0%} at the end",
            f"{before:.0%} → {after:.0%}",
            after < VOCABULARY_BELOW,
        ),
    ]


def _worth(gap: Difference, text: str) -> Claim:
    """Holds if the whole interval is above 0."""
    measured = f"{gap.shown(2)} per agent and full episode"
    return Claim(f"{text}: the 95 % interval of the difference excludes 0", measured, gap.paired.low > 0)


def _falls(gap: Gap, loss: str, text: str) -> Claim:
    """Holds if the loss falls in every seed."""
    first, last = (np.array(gap.measures[f"{loss} loss, {when}"]) for when in ("start", "end"))
    measured = f"{first.mean():.3f} → {last.mean():.3f}"
    return Claim(f"{text}: its loss falls in every seed", measured, bool((last < first).all()))


# ---- figure and page ----

LOOKS = {"talking": (BLUE, "-"), "silent": (ORANGE, "--"), "noise": (PURPLE, "-.")}
SCRIPTED_DOTS = {"random": DOTTED, "alone": DOTS, "told": DASHED}
LEAST_R2 = -0.5  # R² has no lower end, and a young estimator is far below zero
INTERVALS = {
    "paired": "t, paired by seed, 95 %",
    "unpaired": "t (Welch), 95 %",
    "bootstrap": "bootstrap of pairs, 95 %",
}


class Results(NamedTuple):
    gap: Gap
    arms: Mapping[str, Sequence[pd.DataFrame]]
    config: str  # the talking swarm's


def results(options: Options, made: Sequence[Run]) -> Results:
    """Of complete runs, as `planned` orders them."""
    if not all(run.is_complete() for run in made):
        raise UserError(f"{options.out} has not all of these runs yet; leave out --page-only")
    arms = {arm: [run.table for run in made[place :: len(ARMS)]] for place, arm in enumerate(ARMS)}
    env_config = made[0].document["environment"].get("env_config") or {}
    scripted = swarm_references.controls(env_config)
    episode = SwarmWorld(num_worlds=1, **env_config).max_steps
    gap = measure(range(1, len(arms["talking"]) + 1), arms, scripted, episode)
    for claim in claims(gap):
        print(f"{'yes' if claim.holds else 'NO ':<4}{claim.text}: {claim.measured}")
    return Results(gap, arms, made[0].file)


def draw(arms: Mapping[str, Sequence[pd.DataFrame]], scripted: Mapping[str, float]) -> Figure:
    """Four panels against environment steps: return, world model, losses, vocabulary. Thin lines are seeds."""
    steps = "environment steps"
    figure, every = panels(
        *("What messages are worth to a swarm", 11, 7.6),
        ("Return (grey: swarms that do not learn)", steps, "return per agent and episode"),
        (f"What is known of the world's state (cut at {LEAST_R2})", steps, "R² of the world estimator"),
        ("Losses that ground the messages (talking)", steps, "mean squared error"),
        ("Symbols in use", steps, "share of the vocabulary"),
    )
    returns, r2, losses, vocabulary = every
    for name, tables in arms.items():
        colour, dash = LOOKS[name]
        for axes, key in ((returns, RETURN), (r2, WORLD_R2), (vocabulary, VOCABULARY)):
            seeds_and_mean(axes, of_tables(tables, key), colour, dash, name)
    of = arms["talking"]
    seeds_and_mean(losses, of_tables(of, RECONSTRUCTION), BLUE, "-", "reconstruction (what the sender saw)")
    seeds_and_mean(losses, of_tables(of, PREDICTION), GREEN, "-.", "prediction (what comes next)")
    for name, value in scripted.items():
        level(returns, value, name, SCRIPTED_DOTS[name], place="outside")
    level(vocabulary, VOCABULARY_BELOW, f"{VOCABULARY_BELOW:.0%}", DOTS, place="outside")
    r2.set_ylim(max(LEAST_R2, min(-0.1, r2.get_ylim()[0])), 1)
    losses.set_ylim(bottom=0)
    vocabulary.set_ylim(0, 1.05)
    for axes in every:
        legend(axes, loc="best")
    return figure


def page(found: Results) -> dict[str, Any]:
    gap = found.gap
    # {column: values of the seeds, their format}
    returns = {name: (np.array(values), "") for name, values in gap.returns.items()}
    apart = {f"talking minus {name}": (returns["talking"][0] - returns[name][0], "+") for name in gap.gaps}
    told = {"claims": claims(gap), "columns": returns | apart, "intervals": INTERVALS}
    return {**told, "gap": gap, "config": found.config, "meanings": swarm_references.MEANINGS, "around": mean_interval}


def numbers(found: Results) -> dict[str, Any]:
    return {**found.gap._asdict(), "claims": claims(found.gap)}


EXPERIMENT = Experiment(
    NAME, __doc__, planned, page, lambda found: draw(found.arms, found.gap.scripted), results, numbers, arguments,
    seeds=5, quick=2, jobs=2,
)  # fmt: skip
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
