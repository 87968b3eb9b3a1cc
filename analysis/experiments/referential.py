"""The reconstruction game beside EGG's baselines: accuracy and speed of pairs and of populations that all meet.

    python -m popcomm.analysis.experiments.referential --seeds 3 --out runs/referential [--docs docs]

Trains in this process, one run after another, and writes referential.md and .json into the folder after each of them;
runs that are there already are not trained again.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from popcomm.analysis.experiments import referential_page

from popcomm.cli import documents, schema
from popcomm.cli.ray_session import prepare_environment, quiet_ray, ray_session
from popcomm.errors import UserError

NAME = "referential"
MESSAGES = 320_000  # the budget of every run, EGG's of the baselines
REINFORCE = ("communication.gradient=reinforce", "training.message_entropy_coeff=0.2", "training.lr=3e-3")

# In populations the rewards age with every update of the other members: two updates for each batch instead of ten.
FRESH = ("env_runners.num_worlds_per_env_runner=100", "training.minibatch_size=50", "training.lr=4e-3")


@dataclass(frozen=True)
class Case:
    """A row of the table: a shipped config with overrides."""

    name: str
    file: str
    overrides: tuple[str, ...] = ()


def of_size(members: int) -> tuple[str, str]:
    return (f"population.members.speaker={members}", f"population.members.listener={members}")


CASES = (
    Case("pair, straight-through", "referential"),
    Case("pair, Reinforce", "referential", (*REINFORCE, "training.minibatch_size=64")),
    Case("population 5 x 5, straight-through", "referential_population", of_size(5)),
    Case("population 5 x 5, Reinforce", "referential_population", (*of_size(5), *REINFORCE, *FRESH)),
    Case("population 10 x 10, straight-through", "referential_population", of_size(10)),
    Case("pair, silent", "referential", ("communication.messages=null",)),
)


@dataclass(frozen=True)
class Outcome:
    """What one run came to. Accuracies are of all pairs on all meanings, everybody taking its likeliest choice."""

    case: str
    seed: int
    settings: list[str]  # what was changed in the shipped config
    messages: int
    cpu_seconds: float  # of this process, training alone
    mean: float  # mean over pairs of the share of meanings understood whole
    least: float  # of the worst pair
    attributes: float  # mean share of attributes understood
    curve: list[tuple[int, float]]  # (messages, accuracy in training, of sampled words and sampled answers)

    @property
    def rate(self) -> float:
        """Messages per CPU second."""
        return self.messages / self.cpu_seconds


def train(case: Case, seed: int, budget: int, overrides: Sequence[str] = ()) -> Outcome:
    """Train one run to its budget of messages and cross-play its members."""
    from popcomm.rllib import PopulationPPOConfig

    quiet_ray()
    settings = settings_of(case, seed, budget, overrides)
    document = documents.load(case.file, settings[1:])
    config = schema.apply(document, PopulationPPOConfig())
    with ray_session(config):
        algorithm = config.build_algo()
        try:
            said, curve, began = 0, [], time.process_time()
            while said < budget:
                said += _messages(algorithm)
                curve.append((said, algorithm.train()["popcomm"].get("world/accuracy", float("nan"))))
            seconds = time.process_time() - began
            mean, least, attributes = _understood(algorithm)
        finally:
            algorithm.stop()
    return Outcome(case.name, seed, settings, said, seconds, mean, least, attributes, curve)


def settings_of(case: Case, seed: int, budget: int, overrides: Sequence[str]) -> list[str]:
    """What makes a run what it is: its budget, and the changes to the shipped config."""
    return [f"{budget} messages", *case.overrides, *overrides, f"debugging.seed={seed}"]


def _messages(algorithm: Any) -> int:
    """Messages of one iteration: in `rounds` of every `rounds + 2` rows of an episode something is said."""
    config = algorithm.config
    rounds = config.env_config["rounds"]
    rows = config.plan.total_worlds * config.rollout_fragment_length
    return round(rows * config.env_config["speakers"] * rounds / (rounds + 2))


def _understood(algorithm: Any) -> tuple[float, float, float]:
    """Mean and least accuracy of all pairs, and the share of attributes; in silence what the runs last scored."""
    from popcomm.rllib.crossplay import cross_play

    if algorithm.config.message_kind is None:
        scored = algorithm.train()["popcomm"]
        return scored["world/accuracy"], scored["world/accuracy"], scored["world/attribute_accuracy"]
    played = cross_play(algorithm)
    return float(played.accuracy.mean()), float(played.accuracy.min()), float(played.attribute_accuracy.mean())


def main(arguments: Sequence[str] | None = None) -> int:
    """Train what is missing, write the table; returns the exit code: 2 for a user's mistake."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    parser = argparse.ArgumentParser(prog=f"python -m popcomm.analysis.experiments.{NAME}", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each kind; their seeds are 1, 2, ... [3]")
    parser.add_argument("--out", type=Path, required=True, help="where results go")
    parser.add_argument("--messages", type=int, default=MESSAGES, help=f"budget of each run [{MESSAGES:,}]")
    parser.add_argument("--only", action="append", help="cases by a part of their name; again for more")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override, for all")
    parser.add_argument("--docs", type=Path, help="write page and numbers there, too")
    options = parser.parse_args(given)
    wanted = [c for c in CASES if not options.only or any(part in c.name for part in options.only)]
    options.out.mkdir(parents=True, exist_ok=True)
    command = " ".join(["python -m", f"popcomm.analysis.experiments.{NAME}", *given])
    store = options.out / f"{NAME}.json"
    try:
        done = _stored(store)
        for case in wanted:
            for seed in range(1, options.seeds + 1):
                settings = settings_of(case, seed, options.messages, options.set)
                if not any(o.case == case.name and o.settings == settings for o in done):
                    done.append(train(case, seed, options.messages, options.set))
                    store.write_text(json.dumps([asdict(o) for o in done], indent=1))
                    print(referential_page.line(done[-1]), flush=True)
    except UserError as error:
        print(f"{NAME}: {error}", file=sys.stderr)
        return 2
    seeds = range(1, options.seeds + 1)
    planned = [(c.name, settings_of(c, seed, options.messages, options.set)) for c in CASES for seed in seeds]
    done = [o for o in done if (o.case, o.settings) in planned]  # not what other settings left in the folder
    for folder in filter(None, (options.out, options.docs)):
        folder.mkdir(parents=True, exist_ok=True)
        referential_page.write(folder, [c.name for c in CASES], done, command)
    print(f"page: {options.out / f'{NAME}.md'}")
    return 0


def _stored(store: Path) -> list[Outcome]:
    if not store.is_file():
        return []
    return [Outcome(**{**kept, "curve": [tuple(p) for p in kept["curve"]]}) for kept in json.loads(store.read_text())]


if __name__ == "__main__":
    prepare_environment()
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    import torch

    torch.set_num_threads(1)
    sys.exit(main())
