"""As agents converge to a jargon: do the reflexes of c11np help, and does the jargon outlive them?

    python -m popcomm.analysis.experiments.jargon --seeds 5 --out runs/jargon [--docs docs]

Ten members with weights of their own warn one another in alarm_v0, with no channel, with a plain one, and with more and
more reflexes, for ever or faded.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from popcomm.analysis.experiments import jargon_measures as measures
from popcomm.analysis.experiments.figures import level, mean_of, of_tables, panels
from popcomm.analysis.experiments.frame import Experiment, Options
from popcomm.analysis.experiments.intervals import mean_interval, share_interval
from popcomm.analysis.experiments.jargon_measures import PLAIN, Records, arms, claims, finite, jargon, value
from popcomm.analysis.experiments.records import RESULTS, Trial
from popcomm.analysis.experiments.runs import LEAN, algorithm_of

from popcomm.cli import documents
from popcomm.cli.train import checked_config
from popcomm.language import progress
from popcomm.language.agreement import jargon_agreement
from popcomm.language.drawing import GREEN, INK, MUTED, ORANGE, PURPLE, SKY, VERMILLION

NAME = CONFIG = "jargon"
# Reflexes that fade do so from this share of training on, to measures.FADE_TO.
FADE_FROM = 0.25
GATE = {"kind": "gated", "measure": "jargon", "begin": 0.5, "end": 0.9}
# The settings were found in trials with seeds 1 to 3.
FIRST_SEED = 11
EVALUATION_STEPS = 128  # of every world, after training

FEEDBACK = {"kind": "immediate_feedback"}
ECHO = {"decision": {"kind": "local_rule", "target": 0.5}, "slot": "parallel", "dedup": False}
REPETITION = {"kind": "word_repetition", **ECHO}
PUBLISHING = {"kind": "publishing", "rate": 0.5}
DEPRIVATION = {"kind": "sensory_deprivation", "mode": "withdraw", "when": 0.1}
LADDER: dict[str, tuple[dict[str, Any], ...]] = {
    "no reflexes": (),
    "feedback": (FEEDBACK,),
    "+ repetition": (FEEDBACK, REPETITION),
    "+ publishing": (FEEDBACK, REPETITION, PUBLISHING),
    "+ deprivation": (FEEDBACK, REPETITION, PUBLISHING, DEPRIVATION),
}
FADING = ("+ repetition", "+ publishing", "+ deprivation")

Record = dict[str, Any]


# ---- runs ----


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--env-steps", type=int, help="environment steps of each run [what the config's stop says]")
    parser.add_argument("--only", action="append", help="conditions by their whole name; again for more")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override, for all")


def check(options: Options) -> str | None:
    for name in options.only or ():
        if name not in conditions(1):
            return f"--only {name!r} is no condition; there are: {'; '.join(conditions(1))}"
    return None


def planned(options: Options) -> list[Trial]:
    """Seeds outermost: a stop leaves whole sets of conditions.

    Raises:
        UserError: overrides under which a condition cannot be trained.
    """
    stop = documents.load(CONFIG, options.set)["stop"]["num_env_steps_sampled_lifetime"]
    env_steps = options.env_steps or int(stop)
    names = options.only or list(conditions(env_steps))
    for name in () if options.page_only else names:
        checked_config(documents.load(CONFIG, settings(name, FIRST_SEED, env_steps, options.set)))
    runs = itertools.product(range(FIRST_SEED, FIRST_SEED + options.seeds), names)
    keys = [
        {"condition": name, "seed": seed, "settings": settings(name, seed, env_steps, options.set)}
        for seed, name in runs
    ]
    return [Trial(options.out / RESULTS, key, partial(train, options.out)) for key in keys]


def faded(reflexes: Sequence[dict[str, Any]], env_steps: int) -> list[dict[str, Any]]:
    """The same reflexes with schedules to zero by half of training: repetition falls in load, the others linearly."""
    span = {"begin": round(FADE_FROM * env_steps), "end": round(measures.FADE_TO * env_steps)}
    kinds = {"word_repetition": "load_linear"}
    return [{**r, "schedule": {"kind": kinds.get(r["kind"], "linear"), **span}} for r in reflexes]


def conditions(env_steps: int) -> dict[str, dict[str, Any]]:
    """{name: what it changes in the config's `communication`}, for runs of so many environment steps."""
    found: dict[str, dict[str, Any]] = {"no channel": {"messages": None, "reflexes": [], "capacity": None}}
    found |= {name: {"reflexes": [dict(r) for r in reflexes]} for name, reflexes in LADDER.items()}
    found |= {f"{name}, fading": {"reflexes": faded(LADDER[name], env_steps)} for name in FADING}
    whole = [{**reflex, "schedule": dict(GATE)} for reflex in LADDER["+ deprivation"]]
    return found | {"+ deprivation, gated": {"reflexes": whole}}


def settings(condition: str, seed: int, env_steps: int, overrides: Sequence[str]) -> list[str]:
    """What makes a run what it is, as overrides of the shipped config."""
    changes = [f"communication.{key}={json.dumps(value)}" for key, value in conditions(env_steps)[condition].items()]
    stop = f"stop={{num_env_steps_sampled_lifetime: {env_steps}}}"
    return [*LEAN, "recording.checkpoint_every=0", *overrides, *changes, f"debugging.seed={seed}", stop]


def train(out: Path, condition: str, seed: int, settings: Sequence[str]) -> Record:
    """One run, from its start to its measures; progress goes into a folder of `out`."""
    document = documents.load(CONFIG, list(settings))
    config, env_steps = checked_config(document), document["stop"]["num_env_steps_sampled_lifetime"]
    folder = out / "runs" / f"{condition.replace(' ', '_').replace(',', '').replace('+_', 'plus_')}-seed{seed}"
    if folder.exists():  # what a run that was stopped has left; progress would be appended to it
        shutil.rmtree(folder)
    config.recording(run_dir=str(folder.resolve()))
    began = time.process_time()
    with algorithm_of(config) as algorithm:
        while algorithm.train()["popcomm"]["env_steps"] < env_steps:
            pass
        seconds = time.process_time() - began
        # The runner goes on where training ended: its reflexes are as strong as they are there.
        end, without = evaluate(algorithm.env_runner_group.local_env_runner, config), bare(algorithm)
    table, kinds = progress.read(folder / "progress.jsonl"), config.layout.num_labels
    if config.message_kind is not None:
        measures.check_measured(table)
    over = measures.over_training
    return {
        "env_steps": int(table["env_steps"].iloc[-1]), "kinds": kinds, "formed": measures.formed_at(table, kinds),
        "over_training": over(table, kinds),
        "after_fade": over(table, kinds, measures.FADE_TO, measures.FADE_TO + 0.1),
        "end": {**measures.at_end(table), **end}, "bare": without, "references": references_of(config.env_config),
        "seconds": round(seconds, 1), "curves": measures.curves(table),
    }  # fmt: skip


def bare(algorithm: Any) -> dict[str, float | None]:
    """What remains when all reflexes are taken away: new episodes on the same channel without them."""
    from popcomm.rllib.env_runner import PopulationEnvRunner

    config = algorithm.config.copy(copy_frozen=False)
    config.communication(reflexes=[])
    config.recording(run_dir=None)
    runner = PopulationEnvRunner(config=config, worker_index=0)
    runner.module.set_state(algorithm.learner_group.get_weights())
    try:
        runner.sample()  # the first words are on their way after it
        return evaluate(runner, config)
    finally:
        runner.stop()


def evaluate(runner: Any, config: Any, steps: int = EVALUATION_STEPS) -> dict[str, float | None]:
    """Reward per agent-step, informed, false alarms, agreement, distinct words and jargon over `steps` of every world.

    Agents choose as they do in training. Occasions to name a kind are those in which an agent perceives one.
    """
    kinds, fragments = config.layout.num_labels, max(1, steps // config.rollout_fragment_length)
    counted: list[dict[str, float]] = []
    rewards, words, labels, members = [], [], [], []
    for _ in range(fragments):
        batch = next(iter(runner.sample().policy_batches.values()))
        alive = np.asarray(batch["alive"])
        counted.append(dict(runner.statistics.world))
        rewards.append(np.asarray(batch["rewards"])[alive])
        if "messages" in batch:
            sent = batch["sent"] if "sent" in batch else batch["messages"][:, 1:]
            words.append(np.asarray(sent)[alive])
            labels.append(perceived(np.asarray(batch["obs"])[:, :-1][alive], kinds))
            members.append(np.asarray(batch["members"])[alive])
    found = {"reward": float(np.concatenate(rewards).mean())}
    for name in ("informed", "false_alarms"):
        known = [part[name] for part in counted if name in part]
        found[name] = float(np.mean(known)) if known else float("nan")
    if words:
        told = jargon_agreement(*(np.concatenate(part) for part in (words, labels, members)), num_labels=kinds)
        score = jargon(told.mean, told.distinct, kinds)
        found |= {"agreement": told.mean, "distinct": told.distinct, "jargon": score}
    return {name: finite(number) for name, number in found.items()}


def perceived(obs: np.ndarray, kinds: int) -> np.ndarray:
    """Observations [M, kinds + 2] of alarm_v0 -> the kind that is seen [M], -1: none."""
    return np.where(obs[:, kinds] > 0, obs[:, :kinds].argmax(-1), -1)


def references_of(env_config: dict[str, Any]) -> dict[str, float]:
    """What scripted troops earn per agent-step in these worlds."""
    from popcomm.envs.alarm_references import references
    from popcomm.envs.alarm_v0 import AlarmWorld

    return references(AlarmWorld(**env_config))._asdict()


# ---- figure and page ----

COLOURS = {
    "no channel": MUTED, PLAIN: INK, "feedback": SKY, "+ repetition": ORANGE, "+ publishing": GREEN,
    "+ deprivation": PURPLE,
}  # fmt: skip
DASHES = {"fading": "--", "gated": ":"}
PANELS = {
    "reward": ("Reward (grey levels: scripted)", "per agent-step"),
    "agreement": ("Agreement", "share of members with the population's word"),
    "distinct": ("Different words for the kinds", "words"),
    "load": ("Load of the channel", "transmissions per world and step"),
}
LEVELS = {"forage": "forage", "watch": "watch", "hear": "heard once", "told": "told"}


def draw(records: Records) -> Figure:
    """Reward, agreement, distinct words and load over training: means over seeds, a line for each condition."""
    labels = ((title, "environment steps", unit) for title, unit in PANELS.values())
    figure, every = panels("As agents converge to a jargon", 11.5, 8.4, *labels)
    for axes, name in zip(every, PANELS, strict=True):
        for condition, runs in arms(records).items():
            stem, _, way = condition.partition(", ")
            look = {"color": COLOURS.get(stem, VERMILLION), "linestyle": DASHES.get(way, "-")}
            if curves := of_tables([pd.DataFrame(r["curves"]) for r in runs], name):
                axes.plot(*mean_of(curves), **look, label=condition)
    for name, label in LEVELS.items():
        level(every[0], float(np.mean([r["references"][name] for r in records])), label, place="outside")
    every[1].set_ylim(0, 1.05)
    level(every[1], measures.AGREED, "")
    handles = every[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncol=5, fontsize=8, frameon=False)
    return figure


def page(records: Records) -> dict[str, Any]:
    by_arm = arms(records)

    def middle(runs: Records, key: str) -> float:
        return float(np.mean([value(r, key) for r in runs]))

    def measured(runs: Records, key: str) -> str:
        """Mean over seeds and its interval, where all were measured."""
        mean, around = middle(runs, key), mean_interval([value(r, key) for r in runs])
        if np.isnan(mean):
            return "-"
        return f"{mean:.3f}" + ("" if np.isnan(around.low) else f" {around.shown(3, '')}")

    def against_plain(name: str, key: str, digits: int) -> str:
        told = measures.apart(by_arm[name], by_arm.get(PLAIN, []), key)
        silent = key == "formed" and name == "no channel"
        return "-" if told is None or np.isnan(told.mean) or silent else told.shown(digits)

    def formed(runs: Records) -> str:
        count = sum(r["formed"] is not None for r in runs)
        return f"{count} of {len(runs)} {share_interval(count, len(runs)).shown(2, '')}"

    constants = {"agreed": measures.AGREED, "kept": measures.KEPT, "at_end": measures.AT_END, "plain": PLAIN}
    functions = {"middle": middle, "measured": measured, "against_plain": against_plain, "formed": formed}
    return {"records": records, "arms": by_arm, "claims": claims(records), **constants, **functions}


EXPERIMENT = Experiment(NAME, __doc__, planned, page, draw, arguments=arguments, check=check, seeds=5)
main = EXPERIMENT.main

if __name__ == "__main__":
    sys.exit(main())
