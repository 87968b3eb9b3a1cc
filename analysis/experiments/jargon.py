"""As agents converge to a jargon: do the reflexes of c11np help, and does the jargon outlive them?

    python -m popcomm.analysis.experiments.jargon --seeds 5 --out runs/jargon [--docs docs]

Ten members with weights of their own warn one another in alarm_v0, with no channel, with a plain one, and with more and
more reflexes, for ever or faded. Each run has a process of its own; its result is appended to results.jsonl, and runs
that are there are not made again. Writes jargon.md, .png and .json into the folder, from as many results as there are.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import shutil
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from popcomm.analysis.experiments import jargon_page
from popcomm.analysis.experiments.frame import published
from popcomm.analysis.experiments.jargon_measures import (
    at_end,
    check_measured,
    curves,
    finite,
    formed_at,
    jargon,
    over_training,
)

from popcomm.cli import documents
from popcomm.cli.ray_session import prepare_environment, ray_session
from popcomm.errors import UserError
from popcomm.language import progress
from popcomm.language.agreement import jargon_agreement
from popcomm.language.drawing import png

NAME, RESULTS, CONFIG = "jargon", "results.jsonl", "jargon"
# Reflexes that fade do so between these shares of training.
FADE_FROM, FADE_TO = 0.25, 0.5
GATE = {"kind": "gated", "measure": "jargon", "begin": 0.5, "end": 0.9}
# The settings were found in trials with seeds 1 to 3.
FIRST_SEED = 11
EVALUATION_STEPS = 128  # of every world, after training

FEEDBACK = {"kind": "immediate_feedback"}
REPETITION = {
    "kind": "word_repetition",
    "decision": {"kind": "local_rule", "target": 0.5},
    "slot": "parallel",
    "dedup": False,
}
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


def faded(reflexes: Sequence[dict[str, Any]], env_steps: int) -> list[dict[str, Any]]:
    """The same reflexes with schedules to zero by half of training: repetition falls in load, the others linearly."""
    span = {"begin": round(FADE_FROM * env_steps), "end": round(FADE_TO * env_steps)}
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
    quiet = ("recording.picture_every=0", "recording.conversation_every=0", "recording.checkpoint_every=0")
    return [*quiet, *overrides, *changes, f"debugging.seed={seed}", stop]


def train(condition: str, seed: int, env_steps: int, overrides: Sequence[str], out: Path) -> Record:
    """One run, from its start to its measures. In a process of its own: it starts Ray."""
    prepare_environment()
    import torch

    from popcomm.cli.train import checked_config

    torch.set_num_threads(1)
    given = settings(condition, seed, env_steps, overrides)
    config = checked_config(documents.load(CONFIG, given))
    folder = out / "runs" / f"{condition.replace(' ', '_').replace(',', '').replace('+_', 'plus_')}-seed{seed}"
    if folder.exists():  # what a run that was stopped has left; progress would be appended to it
        shutil.rmtree(folder)
    config.recording(run_dir=str(folder.resolve()))
    began = time.process_time()
    with ray_session(config):
        algorithm = config.build_algo()
        try:
            while algorithm.train()["popcomm"]["env_steps"] < env_steps:
                pass
            seconds = time.process_time() - began
            # The runner goes on where training ended: its reflexes are as strong as they are there.
            measured = {"end": evaluate(algorithm.env_runner_group.local_env_runner, config), "bare": bare(algorithm)}
        finally:
            algorithm.stop()
    table, kinds = progress.read(folder / "progress.jsonl"), config.layout.num_labels
    if config.message_kind is not None:
        check_measured(table)
    return {
        "condition": condition,
        "seed": seed,
        "settings": given,
        "env_steps": int(table["env_steps"].iloc[-1]),
        "kinds": kinds,
        "formed": formed_at(table, kinds),
        "over_training": over_training(table, kinds),
        "after_fade": over_training(table, kinds, FADE_TO, FADE_TO + 0.1),
        "end": {**at_end(table), **measured["end"]},
        "bare": measured["bare"],
        "references": references_of(config.env_config),
        "seconds": round(seconds, 1),
        "curves": curves(table),
    }


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


def read(results: Path) -> list[Record]:
    """All results; empty without a file."""
    lines = results.read_text().splitlines() if results.is_file() else []
    # A process that died may have left half a line.
    return [json.loads(line) for line in lines if line.endswith("}")]


def append(results: Path, record: Record) -> None:
    """Add one result."""
    # A process that died left half a line, which must not swallow this one.
    torn = results.is_file() and not results.read_bytes().endswith(b"\n")
    with results.open("a") as file:
        file.write("\n" * torn + json.dumps(record, allow_nan=False) + "\n")


def train_all(
    wanted: Sequence[tuple[str, int]], env_steps: int, overrides: Sequence[str], out: Path, jobs: int
) -> None:
    """Train (condition, seed) pairs, `jobs` at a time, each in a new process; results are written as they come."""
    # spawn: Ray and torch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context, max_tasks_per_child=1) as pool:
        futures = [pool.submit(train, name, seed, env_steps, overrides, out) for name, seed in wanted]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                record = future.result()
                append(out / RESULTS, record)
                print(f"[{done} of {len(wanted)}] {jargon_page.line(record)}", flush=True)
        finally:
            pool.shutdown(cancel_futures=True)


def conclude(out: Path, records: Sequence[Record], command: str) -> list[Path]:
    """Write the page, the figure and the numbers of these results; returns their paths."""
    versions = {name: version(name) for name in ("popcomm", "ray", "torch")}
    files = {
        f"{NAME}.md": jargon_page.markdown(records, command, versions).encode(),
        jargon_page.PICTURE: png(jargon_page.draw(records)),
        f"{NAME}.json": json.dumps({"command": command, "versions": versions, "runs": list(records)}).encode(),
    }
    for name, content in files.items():
        (out / name).write_bytes(content)
    return [out / name for name in files]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m popcomm.analysis.experiments.{NAME}", description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, help="runs of each condition; their seeds are 11, 12, ... [5]")
    parser.add_argument("--out", type=Path, required=True, help="where runs and results go")
    parser.add_argument("--env-steps", type=int, help="environment steps of each run [what the config's stop says]")
    parser.add_argument("--only", action="append", help="conditions by their whole name; again for more")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override, for all")
    parser.add_argument("--jobs", type=int, default=1, help="runs trained at a time [1]")
    parser.add_argument("--page-only", action="store_true", help="train nothing, write the page of what is there")
    parser.add_argument("--docs", type=Path, help="copy page, figure and numbers there, too")
    options = parser.parse_args(arguments)
    for name in ("seeds", "jobs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}, and must be at least 1")
    for name in options.only or ():
        if name not in conditions(1):
            parser.error(f"--only {name!r} is no condition; there are: {'; '.join(conditions(1))}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing and write the page; returns the exit code: 2 for a user's mistake."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(given)
    options.out.mkdir(parents=True, exist_ok=True)
    return published(NAME, lambda: _work(options, given), options.docs)


def _work(options: argparse.Namespace, given: Sequence[str]) -> list[Path]:
    """Train what is missing, measure and write; returns the files, the page first."""
    stop = documents.load(CONFIG, options.set)["stop"]["num_env_steps_sampled_lifetime"]
    env_steps = options.env_steps or int(stop)
    # Seeds outermost: a stop leaves whole sets of conditions.
    seeds = range(FIRST_SEED, FIRST_SEED + options.seeds)
    pairs = list(itertools.product(seeds, options.only or conditions(env_steps)))
    planned = {(name, seed): settings(name, seed, env_steps, options.set) for seed, name in pairs}
    known = _known(planned, options.out)
    if not options.page_only:
        missing = [pair for pair in planned if pair not in known]
        train_all(missing, env_steps, options.set, options.out, options.jobs)
        known = _known(planned, options.out)
    # Not what other settings left in the folder.
    records = [known[pair] for pair in planned if pair in known]
    if not records:
        raise UserError(f"--out {options.out} has no results of these settings yet; leave out --page-only")
    told = [word for word in given if word != "--page-only"]
    return conclude(options.out, records, " ".join(["python -m", f"popcomm.analysis.experiments.{NAME}", *told]))


def _known(planned: dict[tuple[str, int], list[str]], out: Path) -> dict[tuple[str, int], Record]:
    """The results that belong to these plans."""
    rows = [((row["condition"], row["seed"]), row) for row in read(out / RESULTS)]
    return {pair: row for pair, row in rows if planned.get(pair) == row["settings"]}


if __name__ == "__main__":
    prepare_environment()
    sys.exit(main())
