"""What is talk worth to agents of different types, and what do gates, rounds, priorities and learned graphs add?

    python -m popcomm.analysis.experiments.heterogeneous --out runs/heterogeneous [--seeds 5] [--docs docs] [--quick]

factory_v0 and platoon_v0: types with networks of their own that talk, against silent ones, random symbols, and one
network for all types; and with one mechanism more at a time. In a game of calls: how many may talk at once, with gates
and without. Each run has a process of its own; its result is appended to results.jsonl, and runs that are there are not
made again. Writes heterogeneous.md, .png and .json into the folder.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from popcomm.analysis.experiments.figures import DOTTED, level, of_runs, panels, seeds_and_mean, seeds_and_means
from popcomm.analysis.experiments.frame import Claim, Experiment, Options, outdone
from popcomm.analysis.experiments.heterogeneous_arms import (
    BESIDE,
    CALL,
    CALLERS,
    CONTROLS,
    FACTORY,
    GAMES,
    KINDS,
    PLATOON,
    WAYS,
    arms_in,
    calls,
    settings,
    told_of,
)
from popcomm.analysis.experiments.heterogeneous_talk import MEASURES, STATES, overheard, pairs, urgency
from popcomm.analysis.experiments.intervals import difference, mean_shown
from popcomm.analysis.experiments.local_training import LocalTraining
from popcomm.analysis.experiments.records import RESULTS, Trial, arms_of, results_of

from popcomm.envs import factory_references, platoon_references
from popcomm.envs.factory_machines import SLOW
from popcomm.envs.scripted import Randomly, episode_returns
from popcomm.language.drawing import BLUE, GREEN, MUTED, ORANGE, PURPLE, VERMILLION, legend
from popcomm.language.nulls import LEVEL
from popcomm.rllib import PopulationPPOConfig

NAME = "heterogeneous"
STEPS = {
    FACTORY: 80_000,
    PLATOON: 60_000,
    CALL: 20_000,
}  # environment steps of a run, and before it, in platoon, as many to learn to drive
QUICK_STEPS = {FACTORY: 8_192, PLATOON: 4_096, CALL: 2_000}
LOOKS, EVALUATED, OVERHEARD = 4, 128, 48  # measurements of a run; worlds of each, and those that are listened to
LISTENED = ((FACTORY, "talk"), (FACTORY, "full"), (PLATOON, "talk"), (PLATOON, "full"))  # to whose pairs

Record = Mapping[str, Any]


# ---- runs ----


def planned(options: Options) -> list[Trial]:
    """All arms of a seed, then those of the next."""
    steps, arms = QUICK_STEPS if options.quick else STEPS, [(CALL, way) for way in WAYS]
    arms = [(game, arm) for game in GAMES for arm in arms_in(game)] + arms
    keys = [
        {"game": game, "arm": arm, "seed": seed, "env_steps": steps[game]}
        for seed in range(1, options.seeds + 1)
        for game, arm in arms
    ]
    return [Trial(options.out / RESULTS, key, train) for key in keys]


def train(game: str, arm: str, seed: int, env_steps: int) -> Record:
    """One run, or of calls one of each number of callers; `seconds` is CPU time of its iterations."""
    if game == CALL:
        made = {str(callers): learned(calls(arm, callers, seed), env_steps, 1) for callers in CALLERS}
        return {"scores": {n: run["curve"][-1]["score"] for n, run in made.items()}, "seconds": total(made.values())}
    config, driver = settings(game, arm, seed, env_steps), None
    if game == PLATOON:
        driver = learned(settings(game, arm, seed, env_steps, driving=True), env_steps, 1)
    run = learned(config, env_steps, LOOKS, driver and driver["training"])
    training, played = run.pop("training"), {}
    run["seconds"] += driver["seconds"] if driver else 0.0
    if arm != "silent" and arm != "rounds":
        talk = overheard(training.population(), OVERHEARD, training.runner.env.max_steps, seed)
        played = urgency(talk) | ({"pairs": pairs(talk)} if arm in ("talk", "full") else {})
    greedy, score = training.greedy(), run["curve"][-1]["score"]
    return {"score": score, "greedy": greedy, **run, **played}


def learned(
    config: PopulationPPOConfig, env_steps: int, looks: int, driver: LocalTraining | None = None
) -> dict[str, Any]:
    """Train to so many steps; returns by sampled choices on the way, and what the world tells of these episodes.

    driver: whose weights are begun with; parts that it has not are new.
    """
    training, curve, seconds, began, world = LocalTraining(config, EVALUATED), [], 0.0, time.process_time(), {}
    if driver is not None:
        training.learner.module.set_state(driver.learner.module.get_state())
    for steps in training.looks(env_steps, looks):
        seconds += time.process_time() - began
        returns, world = training.evaluate(True)
        curve.append({"env_steps": steps, "score": float(returns.mean())})
        began = time.process_time()
    return {"training": training, "curve": curve, "world": world, "seconds": seconds}


def total(runs: Iterable[Record]) -> float:
    return sum(run["seconds"] for run in runs)


class Results(NamedTuple):
    records: list[dict[str, Any]]
    scripted: dict[str, dict[str, float]]  # {game: {script: mean return of a seat and episode}}


def results(options: Options, trials: Sequence[Trial]) -> Results:
    """Of the runs that are made, and of scripts in the same worlds."""
    return Results(results_of(trials), {game: scripted(game) for game in GAMES})


def scripted(game: str, worlds: int = 512) -> dict[str, float]:
    """What scripts earn in the world of a game; `factory_references` and `platoon_references` say what they do."""
    env = settings(game, "talk", 1, 1)
    scripts = {
        FACTORY: {"alone": factory_references.Alone(SLOW, 8), "told": factory_references.Told()},
        PLATOON: {"alone": platoon_references.alone, "told": platoon_references.Told()},
    }[game]
    return {
        name: float(episode_returns(env.make_world(worlds), script, 1).mean())
        for name, script in {"random": Randomly(), **scripts}.items()
    }


# ---- measures ----


def grouped(records: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    """{(game, arm): its runs by seed}."""
    return arms_of(records, lambda r: (r["game"], r["arm"]))


def claims(records: Sequence[Record]) -> list[Claim]:
    groups, found = grouped(records), list[Claim]()
    for game in GAMES:
        talk = groups.get((game, "talk"), [])
        for arm in CONTROLS:
            text = f"{game}: types that talk earn more than {told_of(game, arm)[0]} ({{seeds}} seeds)"
            found += outdone(text, talk, groups.get((game, arm), []), score, 2, least=2)
        for arm in arms_in(game):
            if arm not in (*CONTROLS, "talk", "full"):
                base = BESIDE.get((game, arm), "talk")
                text = f"{game}: {told_of(game, arm)[0]}: more than `{base}` ({{seeds}} seeds)"
                found += outdone(text, groups.get((game, arm), []), groups.get((game, base), []), score, 2, least=2)
    for arm, key in (("sender gate", "spoke"), ("budget", "priority")):
        found += louder(groups.get((PLATOON, arm), []), key)
    many = str(CALLERS[-1])
    for way in list(WAYS)[1:]:
        text = f"{many} callers: {way} earns more than no gate ({{seeds}} seeds)"
        found += outdone(text, groups.get((CALL, way), []), groups.get((CALL, "no gate"), []), at(many), 3, least=2)
    return found


def score(record: Record) -> float:
    return float(record["score"])


def at(callers: str) -> Callable[[Record], float]:
    return lambda record: float(record["scores"][callers])


def louder(runs: Sequence[Record], key: str) -> list[Claim]:
    """That emergency vehicles speak more often, or more urgently, on critical missions than without one."""
    if len(runs) < 2:
        return []
    gap = difference(*([run[f"{key} {state}"] for run in runs] for state in ("critical", "idle")))
    what = "speak more often" if key == "spoke" else "call themselves more urgent"
    text = f"Emergency vehicles {what} on critical missions than without one ({len(runs)} seeds)"
    return [Claim(text, gap.shown(3), gap.paired.low > 0)]


def told_pairs(runs: Sequence[Record]) -> list[dict[str, Any]]:
    """Of every pair of types the mean bits over seeds, and in how many seeds p is at most LEVEL."""
    found = []
    for number, pair in enumerate(runs[0]["pairs"] if runs else ()):
        row = {"from": pair["from"], "to": pair["to"]}
        for measure in MEASURES:
            each = [one for run in runs if (one := run["pairs"][number][measure]) is not None]
            if each:
                row[measure] = (np.mean([one["bits"] for one in each]), sum(one["p"] <= LEVEL for one in each))
        found.append(row)
    return found


# ---- figure and page ----

LOOKED = {"talk": BLUE, "silent": ORANGE, "noise": PURPLE, "padded": VERMILLION}
WAY_COLOURS = dict(zip(WAYS, (MUTED, GREEN, BLUE, PURPLE), strict=True))


def draw(found: Results) -> Figure:
    """Returns over the training, and at its end by arm; calls; and when emergency vehicles speak."""
    groups, steps = grouped(found.records), "environment steps"
    labels = [(f"{game}: return", steps, "per seat and episode, sampled") for game in GAMES]
    labels += [(f"{game}: at the end", "", "per seat and episode") for game in GAMES]
    labels += [
        ("Calls: overload", "callers", "share right"),
        ("platoon: when they speak", "", "share of steps, priority"),
    ]
    figure, axes = panels("Types that talk", 12, 13, *labels)
    for game, over, end in zip(GAMES, axes[:2], axes[2:4], strict=True):
        for arm, colour in LOOKED.items():
            seeds_and_mean(over, of_runs(groups.get((game, arm), [])), colour, "-", arm)
        arms = [arm for arm in arms_in(game) if (game, arm) in groups]
        scores = {place: [score(run) for run in groups[game, arm]] for place, arm in enumerate(arms)}
        seeds_and_means(end, scores, BLUE)
        end.set_xticks(range(len(arms)), arms, rotation=35, ha="right")
        for name, value in found.scripted[game].items():
            for one in (over, end):
                level(one, value, name, DOTTED, place="outside")
        legend(over, loc="best")
    for way, colour in WAY_COLOURS.items():
        runs = groups.get((CALL, way), [])
        seeds_and_means(
            axes[4], {n: [at(str(n))(r) for r in runs] for n in CALLERS if runs}, colour, "o", way, linewidth=2
        )
    axes[4].set_xscale("log", base=2)
    axes[4].set_xticks(CALLERS, [str(n) for n in CALLERS])
    level(axes[4], 1 / KINDS, "chance")
    legend(axes[4], loc="best")
    for key, arm, colour in (("spoke", "sender gate", BLUE), ("priority", "budget", ORANGE)):
        runs = groups.get((PLATOON, arm), [])
        when = {place: [r[f"{key} {state}"] for r in runs] for place, state in enumerate(STATES) if runs}
        seeds_and_means(axes[5], when, colour, "o", f"{key} ({arm})", linewidth=2)
    axes[5].set_xticks(range(len(STATES)), ["no mission", "on one", "critical one"])
    legend(axes[5], loc="best")
    return figure


def page(found: Results) -> dict[str, Any]:
    groups = grouped(found.records)
    told = {f"{game}, {told_of(game, arm)[0]}": told_pairs(groups.get((game, arm), [])) for game, arm in LISTENED}
    return {
        "records": found.records, "groups": groups, "claims": claims(found.records), "scripted": found.scripted,
        "games": GAMES, "told_of": told_of, "shown": shown, "pairs": told, "ways": WAYS, "callers": CALLERS,
        "kinds": KINDS, "calls": {way: groups[CALL, way] for way in WAYS if (CALL, way) in groups}, "states": STATES,
        "called": called,
        "steps": {game: next((r["env_steps"] for r in found.records if r["game"] == game), 0) for game in STEPS},
        "minutes": total(found.records) / 60,
    }  # fmt: skip


def shown(runs: Sequence[Record], key: str, digits: int = 2) -> str:
    """The mean of the runs in a measure, with its interval."""
    return mean_shown([run[key] for run in runs], digits)


def called(runs: Sequence[Record], callers: int) -> str:
    """The mean share that is right with so many callers, with its interval."""
    return mean_shown([at(str(callers))(run) for run in runs], 2)


EXPERIMENT = Experiment(
    NAME, __doc__, planned, page, draw, results, lambda found: {"runs": found.records, "scripted": found.scripted},
    seeds=5, quick=1,
)  # fmt: skip
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
