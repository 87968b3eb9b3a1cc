"""Dialects: populations in communities that seldom meet, and who understands whom afterwards.

    python -m popcomm.analysis.experiments.communities --out runs/communities [--seeds 3] [--docs docs]

Six speakers and six listeners play referential_v0, seated in communities with more or less exchange between them. Runs
that are in communities.json already are not made again, so a stop loses one run at most. Writes communities.md, .png
and .json into the folder after every run.
"""

from __future__ import annotations

import argparse
import itertools
import json
import shutil
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from popcomm.analysis.experiments import communities_page

from popcomm.language.drawing import png
from popcomm.rllib import PopulationPPO, PopulationPPOConfig
from popcomm.rollout.crossplay import CrossPlay, cross_play

NAME = "communities"
MEMBERS = 6  # of each species
WORLDS, MINIBATCH = 504, 126  # multiples of 6, so that all communities have equally many
VALUES, VOCABULARY, LENGTH = 10, 50, 2
MESSAGES = 600_000  # of all speakers together, in a run
LOOKS = 6  # how often a run is measured, the last time at its end
# Two communities from none to full exchange; three at the ends and in between.
ARMS = tuple(itertools.product([2], [0.0, 0.01, 0.05, 0.2, 1.0])) + tuple(itertools.product([3], [0.0, 0.05, 1.0]))

Array = NDArray[Any]
Record = dict[str, Any]


def settings(communities: int, mixing: float, seed: int) -> PopulationPPOConfig:
    """The configuration of a run."""
    return (
        PopulationPPOConfig()
        .environment("referential_v0", env_config={"attributes": 2, "values": VALUES, "rounds": 31})
        .communication(
            messages={"kind": "symbols", "vocab_size": VOCABULARY, "length": LENGTH}, gradient="straight_through"
        )
        .population(agent="gru", members=MEMBERS, seating="communities", communities=communities, mixing=mixing)
        .training(
            learn_from="answers",
            lr=5e-3,
            gamma=0.0,
            vf_clip_param=10.0,
            entropy_coeff=0.01,
            num_epochs=1,
            minibatch_size=MINIBATCH,
            message_entropy_coeff=0.1,
            quality_coeff=0.0,
            message_balance_coeff=0.0,
        )
        .env_runners(num_worlds_per_env_runner=WORLDS, rollout_fragment_length=8)
        .debugging(seed=seed)
    )


def same_community(members: int, communities: int) -> Array:
    """[P, P] bool, which members are of one community: p and q if p G // P = q G // P."""
    group = np.arange(members) * communities // members
    return group[:, None] == group[None]


def distances(messages: Array) -> Array:
    """Share of the meanings for which two speakers have different messages: [S, M, length] -> [S, S] in 0 ... 1."""
    return (messages[:, None] != messages[None]).any(-1).mean(-1)


def measure(played: CrossPlay, communities: int) -> Record:
    """Intelligibility and distance, as means within communities and between them.

    `within` and `between` are shares of meanings understood; `distance_within` is over pairs of different speakers, nan
    where a community has but one.
    """
    speakers = len(played.accuracy)
    same, apart = same_community(speakers, communities), distances(played.messages)
    others = same & ~np.eye(speakers, dtype=bool)
    return {
        "within": float(played.accuracy[same].mean()),
        "between": float(played.accuracy[~same].mean()),
        "distance_within": float(apart[others].mean()) if others.any() else float("nan"),
        "distance_between": float(apart[~same].mean()),
    }


def exchange(communities: int, mixing: float) -> float:
    """The share of conversations whose speaker and listener are of different communities.

    A seat holds a stranger with probability q = mixing (1 - 1 / G), and any other community is as likely; the two
    seats of a world are filled apart: 1 - (1 - q)^2 - q^2 / (G - 1).
    """
    q = mixing * (1 - 1 / communities)
    return 1 - (1 - q) ** 2 - q**2 / (communities - 1)


def train(communities: int, mixing: float, seed: int, messages: int) -> Record:
    """One run, measured on its way and at its end; `seconds` is CPU time of this process."""
    began = time.process_time()
    algorithm: PopulationPPO = settings(communities, mixing, seed).build_algo()
    untrained = measure(cross_play(algorithm), communities)
    curve, said, accuracy = [{"messages": 0, **untrained}], 0, float("nan")
    for look in range(1, LOOKS + 1):
        while said < messages * look / LOOKS:
            result = algorithm.train()
            said, accuracy = result["num_env_steps_sampled_lifetime"], result["popcomm"]["world/accuracy"]
        played = cross_play(algorithm)
        curve.append({"messages": said, **measure(played, communities)})
    algorithm.stop()
    return {
        "communities": communities,
        "mixing": mixing,
        "seed": seed,
        "asked": messages,
        "exchange": exchange(communities, mixing),
        **curve[-1],
        "sampled_accuracy": accuracy,
        "seconds": time.process_time() - began,
        "curve": curve,
        "matrix": played.accuracy.tolist(),
    }


def known(records: Sequence[Record], communities: int, mixing: float, seed: int, messages: int) -> bool:
    """Whether that run has been made."""
    wanted = (communities, mixing, seed, messages)
    return any((r["communities"], r["mixing"], r["seed"], r["asked"]) == wanted for r in records)


def write(out: Path, records: Sequence[Record], command: str) -> list[Path]:
    """The numbers, the figure and the page of the runs so far; returns their paths."""
    versions = {name: version(name) for name in ("popcomm", "ray", "torch")}
    whole = {"command": command, "versions": versions, "runs": list(records)}
    files = {
        f"{NAME}.json": json.dumps(whole, indent=1).encode(),
        communities_page.PICTURE: png(communities_page.draw(records)),
        f"{NAME}.md": communities_page.markdown(records, command, versions).encode(),
    }
    for name, content in files.items():
        (out / name).write_bytes(content)
    return [out / name for name in files]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog=f"python -m popcomm.analysis.experiments.{NAME}", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="runs of each kind; their seeds are 1, 2, ... [3]")
    parser.add_argument("--messages", type=int, default=MESSAGES, help=f"said in each run [{MESSAGES}]")
    parser.add_argument("--out", type=Path, required=True, help="where the results go")
    parser.add_argument("--docs", type=Path, help="copy page, figure and numbers there, too")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)
    command = f"python -m popcomm.analysis.experiments.{NAME} --seeds {options.seeds} --messages {options.messages}"
    command += f" --out {options.out}"
    path = options.out / f"{NAME}.json"
    records: list[Record] = json.loads(path.read_text())["runs"] if path.exists() else []
    # Seeds outermost: a stop leaves whole sets of arms.
    for seed, (communities, mixing) in itertools.product(range(1, options.seeds + 1), ARMS):
        if not known(records, communities, mixing, seed, options.messages):
            records.append(train(communities, mixing, seed, options.messages))
            print({k: v for k, v in records[-1].items() if k not in ("curve", "matrix")}, flush=True)
            write(options.out, records, command)
    files = write(options.out, records, command)
    if options.docs:
        options.docs.mkdir(parents=True, exist_ok=True)
        for file in files:
            shutil.copy(file, options.docs)


if __name__ == "__main__":
    main()
