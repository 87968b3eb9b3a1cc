"""What is the smallest model that learns to talk? Success against the number of weights, in two worlds.

    python -m popcomm.analysis.experiments.model_size --out runs/model_size [--docs docs]

Part "game": a speaker and a listener, TinyAgents from 1,000 to 10 million weights, play referential_v0 for the same
number of messages, and are then tried on all meanings. Part "swarm": boids of several sizes, talking and silent, in
swarm_v0. Results are appended to results.jsonl one by one, and those that are there are not made again. Writes
model_size.md, .png and .json into the folder, from as many results as there are.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from popcomm.analysis.experiments import model_size_page, runs
from popcomm.analysis.experiments.frame import published
from popcomm.analysis.experiments.gap_measures import RETURN, at_end

from popcomm.cli import documents
from popcomm.cli.ray_session import prepare_environment, ray_session
from popcomm.cli.train import checked_config
from popcomm.language import progress
from popcomm.language.drawing import png

NAME, RESULTS = "model_size", "results.jsonl"
GAME, SWARM = "model_size_sweep", "swarm"  # shipped configs
MESSAGES, LONG = 40_000, 5  # per run; how many times as many in long runs
LOOKS = 20  # at the accuracy, while a run lasts
HEAD_WIDTH = 8  # as wide as FLARE's own measurements favour
# Of a network: what has a part in no action and no message.
IDLE = ("critic", "predictor", "world_estimator", "decoder")


@dataclass(frozen=True)
class Shape:
    """Of a TinyAgent."""

    width: int
    depth: int = 2

    @property
    def heads(self) -> int:
        """At least one for each symbol of a message."""
        return max(2, self.width // HEAD_WIDTH)

    @property
    def lr(self) -> float:
        """Adam's step size goes with 1 / width, as for all matrices in Yang et al. 2022 (Tensor Programs V), but is at
        most 0.003: the best of a few trials at widths 16, 64 and 256."""
        return min(0.003, 0.2 / self.width)

    @property
    def entropy(self) -> float:
        """Weight of the messages' entropy (nats): narrow pairs do not get off the ground with more, wide ones stop
        at messages with two meanings with less. From trials at widths 16, 64 and 104."""
        return 0.05 if self.width > 100 else 0.02


@dataclass(frozen=True)
class Trial:
    """One run of the game."""

    shape: Shape
    seed: int
    messages: int = MESSAGES

    @property
    def key(self) -> dict[str, Any]:
        """What tells its result from others."""
        return {"part": "game", **asdict(self.shape), "seed": self.seed, "budget": self.messages}

    @property
    def document(self) -> dict[str, Any]:
        agent = "population.agent_config"
        return documents.load(
            GAME,
            [
                f"{agent}.hidden_dim={self.shape.width}",
                f"{agent}.num_heads={self.shape.heads}",
                f"{agent}.depth={self.shape.depth}",
                f"training.lr={self.shape.lr}",
                f"training.message_entropy_coeff={self.shape.entropy}",
                f"debugging.seed={self.seed}",
            ],
        )


# The ladder, 1,000 to 10 million weights; the same number of weights in fewer or more layers; more messages.
LADDER = tuple(Shape(width) for width in (4, 8, 16, 32, 56, 104, 184, 320, 600))
OTHER_DEPTHS = (Shape(48, 1), Shape(24, 4))
LARGE = 1_500_000  # weights from which on there is one seed
LONGER = tuple(Shape(width) for width in (8, 16, 32))
SWARM_WIDTHS, SWARM_HEADS, SWARM_STEPS = (4, 16, 64), 4, 40_000


def trials(seeds: int) -> list[Trial]:
    """All runs of the game: the ladder with a seed at a time, so that there is a first picture early."""
    planned = [Trial(shape, 1) for shape in LADDER] + [Trial(shape, 1, LONG * MESSAGES) for shape in LONGER]
    small = [shape for shape in LADDER if weights_of(Trial(shape, 1).document) < LARGE]
    planned += [Trial(shape, seed) for seed in range(2, seeds + 1) for shape in small]
    return planned + [Trial(shape, seed) for shape in OTHER_DEPTHS for seed in range(1, seeds + 1)]


def weights_of(document: dict[str, Any]) -> int:
    """Numbers, over one member of every species, that have a part in what is said and done."""
    config = checked_config(document)
    with torch.device("meta"):
        plan = config.plan
        agents = [plan.agent_class(species.spec, **config.agent_config) for species in plan.species.values()]
    parts = [(name, part) for agent in agents for name, part in agent.named_children() if name not in IDLE]
    return sum(p.numel() for _, part in parts for p in part.parameters())


def play(trial: Trial) -> dict[str, Any]:
    """Train a pair for the trial's messages and try it on all meanings, everybody taking its likeliest choice.

    Returns:
        "accuracy" at the end, share of all meanings that are named in full; "curve" [[messages, accuracy]]; "weights";
        "cpu_s".
    """
    from popcomm.rllib.crossplay import cross_play

    config, began = checked_config(trial.document), time.process_time()
    rounds = config.env_config["rounds"]
    curve: list[tuple[int, float]] = []
    with ray_session(config):
        algo = config.build_algo()
        try:
            messages = 0
            while messages < trial.messages:
                steps = algo.train()["popcomm"]["env_steps"]
                # The last step of an episode is for answers only.
                messages = steps * rounds // (rounds + 1)
                if messages >= trial.messages * (len(curve) + 1) / LOOKS:
                    curve.append((messages, float(cross_play(algo).accuracy.mean())))
        finally:
            algo.stop()
    seconds = time.process_time() - began
    return {"weights": weights_of(trial.document), "accuracy": curve[-1][1], "curve": curve, "cpu_s": round(seconds, 1)}


def play_all(planned: Sequence[Trial], results: Path) -> None:
    """Play what is not there yet; each result is written as soon as it is known."""
    known = [{key: row[key] for key in planned[0].key} for row in read(results, "game")]
    for number, trial in enumerate(planned, start=1):
        if trial.key in known:
            continue
        result = {**trial.key, **play(trial)}
        progress.append(results, {**result, "curve": json.dumps(result["curve"])})
        print(
            f"[{number} of {len(planned)}] {result['weights']:,} weights, seed {trial.seed}, {trial.messages:,} "
            f"messages: accuracy {result['accuracy']:.2f} ({result['cpu_s']:.0f} s)",
            flush=True,
        )


def swarm_runs(out: Path, seeds: int) -> Iterator[tuple[dict[str, Any], runs.Run]]:
    """(what tells it from others, the run): boids of every width, talking and silent."""
    lean = ("recording.picture_every=0", "recording.conversation_every=0", "recording.checkpoint_every=0")
    for seed in range(1, seeds + 1):
        for width in SWARM_WIDTHS:
            size = (f"population.agent_config.hidden_dim={width}", f"population.agent_config.num_heads={SWARM_HEADS}")
            for arm, changes in {"talking": (), "silent": ("communication.messages=null",)}.items():
                path = out / "runs" / f"{arm}-width{width}-seed{seed}"
                overrides = (*lean, *size, *changes, f"debugging.seed={seed}")
                key = {"part": "swarm", "arm": arm, "width": width, "seed": seed}
                yield key, runs.Run(path, SWARM, overrides, SWARM_STEPS)


def fly_all(out: Path, seeds: int, results: Path) -> None:
    """Train the swarms that are not there yet, one at a time.

    Raises:
        TrainingError: one failed.
    """
    known = [{key: row[key] for key in ("part", "arm", "width", "seed")} for row in read(results, "swarm")]
    for key, run in swarm_runs(out, seeds):
        if key in known:
            continue
        runs.train_all([run], 1)
        table = run.table
        measured = {"return": at_end(table, RETURN), "seconds": float(table["time_s"].iloc[-1])}
        progress.append(results, {**key, "weights": weights_of(run.document), "budget": SWARM_STEPS, **measured})


def read(results: Path, part: str) -> list[dict[str, Any]]:
    """The results of a part, "game" or "swarm"; empty without a file."""
    lines = results.read_text().splitlines() if results.is_file() else []
    # A process that died may have left half a line.
    rows = [row for row in (json.loads(line) for line in lines if line.endswith("}")) if row["part"] == part]
    return [{**row, "curve": json.loads(row["curve"])} if part == "game" else row for row in rows]


def conclude(out: Path, command: str) -> list[Path]:
    """Write the page, the figure and the numbers of all results there are; returns their paths."""
    games, swarms = read(out / RESULTS, "game"), read(out / RESULTS, "swarm")
    versions = {"popcomm": version("popcomm"), "ray": version("ray"), "torch": version("torch")}
    files = {
        f"{NAME}.md": model_size_page.markdown(games, swarms, command, versions).encode(),
        model_size_page.PICTURE: png(model_size_page.draw(games, swarms)),
        f"{NAME}.json": json.dumps({"command": command, "versions": versions, "game": games, "swarm": swarms}).encode(),
    }
    for name, content in files.items():
        (out / name).write_bytes(content)
    return [out / name for name in files]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m popcomm.analysis.experiments.{NAME}", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where runs and results go")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each small size; their seeds are 1, 2, ... [3]")
    parser.add_argument("--swarm-seeds", type=int, default=1, help="runs of each swarm; 0 leaves them out [1]")
    parser.add_argument("--page-only", action="store_true", help="train nothing, write the page of what is there")
    parser.add_argument("--docs", type=Path, help="copy page, figure and numbers there, too")
    options = parser.parse_args(arguments)
    if options.seeds < 1 or options.swarm_seeds < 0:
        parser.error("--seeds must be at least 1, and --swarm-seeds at least 0")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing and write the page; returns the exit code: 2 for a user's mistake, 1 for a failed run."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parse(given)
    prepare_environment()
    options.out.mkdir(parents=True, exist_ok=True)
    return published(NAME, lambda: _work(options, given), options.docs)


def _work(options: argparse.Namespace, given: Sequence[str]) -> list[Path]:
    """Train what is missing, measure and write; returns the files, the page first."""
    if not options.page_only:
        play_all(trials(options.seeds), options.out / RESULTS)
        fly_all(options.out, options.swarm_seeds, options.out / RESULTS)
    told = [word for word in given if word != "--page-only"]
    return conclude(options.out, " ".join(["python -m", f"popcomm.analysis.experiments.{NAME}", *told]))


if __name__ == "__main__":
    sys.exit(main())
