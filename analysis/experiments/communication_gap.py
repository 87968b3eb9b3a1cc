"""What messages are worth: a talking swarm, a silent one, and one that hears random symbols instead, over seeds.

    python -m popcomm.analysis.experiments.communication_gap --seeds 5 --out runs/communication_gap [--docs docs]

Runs that are complete are not trained again, and those that were interrupted go on from their last checkpoint. Writes
communication_gap.md, .png and .json into the folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from popcomm.analysis.experiments import gap_page, runs, swarm_controls
from popcomm.analysis.experiments.frame import published
from popcomm.analysis.experiments.gap_measures import claims, measure

from popcomm.envs.swarm_v0 import SwarmWorld
from popcomm.errors import UserError
from popcomm.language.drawing import png

NAME = "communication_gap"
ARMS: dict[str, tuple[str, ...]] = {
    "talking": (),
    "silent": ("communication.messages=null",),
    # The same network and losses; every symbol is replaced on the way by one drawn evenly.
    "noise": ("communication.noise=1.0",),
}
# Nobody looks at the language of these runs but through progress.jsonl.
LEAN = ("recording.picture_every=0", "recording.conversation_every=0")
# Small enough to see within a minute or two that all parts work; what it measures means nothing.
QUICK = (
    "environment.env_config.max_steps=20",
    "env_runners.num_worlds_per_env_runner=16",
    "training.minibatch_size=16",
)
QUICK_SEEDS, QUICK_ENV_STEPS = 2, 3200


def plan(
    out: Path, seeds: Sequence[int], config: str, overrides: Sequence[str], env_steps: int
) -> dict[str, list[runs.Run]]:
    """{"talking", "silent" and "noise": a run for each seed}."""
    return {
        arm: [
            runs.Run(
                out / "runs" / f"{arm}-seed{seed}",
                config,
                (*LEAN, *overrides, *changes, f"debugging.seed={seed}"),
                env_steps,
            )
            for seed in seeds
        ]
        for arm, changes in ARMS.items()
    }


def conclude(out: Path, seeds: Sequence[int], arms: dict[str, list[runs.Run]], command: str) -> list[Path]:
    """Measure complete runs and write the page, the figure and the numbers; returns their paths."""
    tables = {name: [run.table for run in arm] for name, arm in arms.items()}
    env_config = arms["talking"][0].document["environment"].get("env_config") or {}
    levels = swarm_controls.controls(env_config)
    gap = measure(seeds, tables, levels, SwarmWorld(num_worlds=1, **env_config).max_steps)
    versions = {"popcomm": version("popcomm"), "ray": version("ray"), "torch": version("torch")}
    files = {
        f"{NAME}.md": gap_page.markdown(gap, arms["talking"][0].file, command, versions).encode(),
        gap_page.PICTURE: png(gap_page.draw(tables, levels)),
        f"{NAME}.json": json.dumps(gap_page.as_json(gap, command, versions), indent=1, allow_nan=False).encode(),
    }
    for name, content in files.items():
        (out / name).write_bytes(content)
    for claim in claims(gap):
        print(f"{'yes' if claim.holds else 'NO ':<4}{claim.text}: {claim.measured}")
    return [out / name for name in files]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m popcomm.analysis.experiments.{NAME}", description=__doc__)
    parser.add_argument("--seeds", type=int, help="runs of each kind; their seeds are 1, 2, ... [5]")
    parser.add_argument("--out", type=Path, required=True, help="where runs and results go")
    parser.add_argument("--env-steps", type=int, help="environment steps of each run [what the config's stop says]")
    parser.add_argument("--config", default="swarm", help="the config of the talking swarm [swarm]")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override, for all kinds"
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs trained at a time [2]")
    parser.add_argument("--quick", action="store_true", help="tiny worlds and few steps, to see that it works")
    parser.add_argument("--docs", type=Path, help="copy page, figure and numbers there, too")
    options = parser.parse_args(arguments)
    if options.seeds is None:
        options.seeds = QUICK_SEEDS if options.quick else 5
    for name in ("seeds", "jobs"):
        if getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}, and must be at least 1")
    return options


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, measure, write; returns the exit code: 2 for a user's mistake, 1 for a failed run."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(given)
    return published(NAME, lambda: _work(options, given), options.docs)


def _work(options: argparse.Namespace, given: Sequence[str]) -> list[Path]:
    """Train what is missing, measure and write; returns the files, the page first."""
    overrides = [*(QUICK if options.quick else ()), *options.set]
    seeds = list(range(1, options.seeds + 1))
    document = runs.documents.load(options.config, overrides)
    check_document(document)
    env_steps = options.env_steps or (QUICK_ENV_STEPS if options.quick else stop_of(document))
    arms = plan(options.out, seeds, options.config, overrides, env_steps)
    # Runs of a seed next to one another, so that a first look is fair.
    runs.train_all([run for of_seed in zip(*arms.values(), strict=True) for run in of_seed], options.jobs)
    command = " ".join(["python -m", f"popcomm.analysis.experiments.{NAME}", *given])
    return conclude(options.out, seeds, arms, command)


if __name__ == "__main__":
    sys.exit(main())
