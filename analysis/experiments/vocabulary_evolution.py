"""Does a vocabulary settle? Its drift over training, in referential games and in the swarm, over seeds.

    python -m popcomm.analysis.experiments.vocabulary_evolution --out runs/vocabulary_evolution [--docs docs]

What is complete is not trained again. Writes vocabulary_evolution.md, .png and .json into the folder, also while some
of the runs are still to come (`--measure`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from popcomm.analysis.experiments import evolution_page, runs
from popcomm.analysis.experiments.evolution_games import Diary, Play, play_all
from popcomm.analysis.experiments.evolution_measures import Curve, of_games, of_swarm
from popcomm.analysis.experiments.frame import published
from popcomm.analysis.history import History

from popcomm.errors import UserError
from popcomm.language.drawing import png

NAME = "vocabulary_evolution"
PARTS = ("games", "swarm")
# Members of each species, weight of the entropy bonus, seeds left out at the end: five and five cost most, and a swarm.
GAMES = {"pair, bonus": (1, 0.1, 0), "pair, no bonus": (1, 0.0, 0), "five and five, bonus": (5, 0.1, 1)}
SWARM_FEWER = 1
ITERATIONS, ENV_STEPS = 256, 130_000
QUICK_ITERATIONS, QUICK_ENV_STEPS = 4, 4_000
# Conversations often enough that no episode is missed, and of enough worlds for thousands of messages a window.
RECORDED = (
    "recording.picture_every=0",
    "recording.conversation_every=5",
    "recording.conversation_worlds=16",
    "recording.checkpoint_every=0",
)
QUICK = (
    "environment.env_config.max_steps=20",
    "env_runners.num_worlds_per_env_runner=32",
    "training.minibatch_size=32",
    "recording.conversation_every=2",
)
WINDOWS_IN_EPISODE = 2


class Plan(NamedTuple):
    """All trainings, by arm of the experiment."""

    games: dict[str, list[Play]]
    swarm: list[runs.Run]


def plan(out: Path, seeds: int, parts: Sequence[str], quick: bool, config: str = "swarm") -> Plan:
    """Runs of seeds 1 ... `seeds`, of one seed fewer (but at least one) where they cost most."""
    iterations, env_steps = (QUICK_ITERATIONS, QUICK_ENV_STEPS) if quick else (ITERATIONS, ENV_STEPS)
    games = {
        arm: [
            Play(out / "games" / f"{arm.replace(', ', '-').replace(' ', '-')}-seed{seed}.npz", *how, seed, iterations)
            for seed in range(1, max(1, seeds - fewer) + 1)
        ]
        for arm, (*how, fewer) in GAMES.items()
    }
    swarm = [
        runs.Run(
            out / "runs" / f"swarm-seed{seed}",
            config,
            (*RECORDED, *(QUICK if quick else ()), f"debugging.seed={seed}"),
            env_steps,
        )
        for seed in range(1, max(1, seeds - SWARM_FEWER) + 1)
    ]
    return Plan(games if "games" in parts else {}, swarm if "swarm" in parts else [])


def train(planned: Plan, say: Callable[[str], None] = print) -> None:
    """Train what is not complete, one after another."""
    play_all(sorted((play for arm in planned.games.values() for play in arm), key=lambda play: play.seed), say)
    runs.train_all(planned.swarm, 1, say)


def measure(planned: Plan) -> dict[str, list[Curve]]:
    """The curves of what is complete; arms without any are left out."""
    arms = {
        arm: [of_games(Diary.load(play.path), play.seed) for play in plays if play.is_complete()]
        for arm, plays in planned.games.items()
    }
    arms[evolution_page.SWARM] = [_swarm_curve(run) for run in planned.swarm if run.is_complete()]
    return {arm: curves for arm, curves in arms.items() if curves}


def _swarm_curve(run: runs.Run) -> Curve:
    document = run.document
    steps = document["environment"]["env_config"]["max_steps"]
    return of_swarm(
        History.read(run.path, most_parts=None),
        document["debugging"]["seed"],
        document["env_runners"]["num_worlds_per_env_runner"],
        steps,
        steps // WINDOWS_IN_EPISODE,
        document["communication"]["messages"]["vocab_size"],
    )


def conclude(out: Path, arms: dict[str, list[Curve]], command: str) -> list[Path]:
    """Write the page, the figure and the numbers; returns their paths.

    Raises:
        UserError: no run is complete.
    """
    if not arms:
        raise UserError(f"--measure: no run in {out} is complete; leave it out to train them")
    versions = {name: version(name) for name in ("popcomm", "ray", "torch")}
    files = {
        f"{NAME}.md": evolution_page.markdown(arms, [command], versions).encode(),
        evolution_page.PICTURE: png(evolution_page.draw(arms)),
        f"{NAME}.json": json.dumps(evolution_page.as_json(arms, [command], versions), allow_nan=False).encode(),
    }
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (out / name).write_bytes(content)
    return [out / name for name in files]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m popcomm.analysis.experiments.{NAME}", description=__doc__)
    parser.add_argument(
        "--seeds",
        type=int,
        default=3,
        help="pairs of each kind, and one more than the larger runs; seeds are 1, 2, ... [3]",
    )
    parser.add_argument("--out", type=Path, required=True, help="where runs and results go")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what is looked at [both]")
    parser.add_argument("--measure", action="store_true", help="train nothing, measure what is complete")
    parser.add_argument("--quick", action="store_true", help="a few iterations, to see that it works")
    parser.add_argument("--docs", type=Path, help="copy page, figure and numbers there, too")
    options = parser.parse_args(arguments)
    if options.seeds < 1:
        parser.error(f"--seeds is {options.seeds}, and must be at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, measure, write; returns the exit code: 2 for a user's mistake, 1 for a failed run."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(given)
    return published(NAME, lambda: _work(options, given), options.docs)


def _work(options: argparse.Namespace, given: Sequence[str]) -> list[Path]:
    """Train what is missing, measure and write; returns the files, the page first."""
    planned = plan(options.out, options.seeds, options.parts, options.quick)
    if not options.measure:
        train(planned)
    shown = [word for word in given if word != "--measure"]
    command = " ".join(["python -m", f"popcomm.analysis.experiments.{NAME}", *shown])
    return conclude(options.out, measure(planned), command)


if __name__ == "__main__":
    sys.exit(main())
