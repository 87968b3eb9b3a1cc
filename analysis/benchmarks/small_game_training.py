"""Trains one config for some CPU seconds, in a process of its own, and prints how it did.

    python -m popcomm.analysis.benchmarks.small_game_training FILE.yaml --seconds 40

The last line of the output is JSON: greedy and sampled return at the end, the best greedy return of all looks, episodes
and CPU seconds (training and looks; loading the libraries is not counted).
"""

from __future__ import annotations

import os

# Before torch is imported: CPU seconds are those of one core.
os.environ["OMP_NUM_THREADS"] = "1"

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LOOKS = 8  # in a training, evenly over its seconds; the last one is at the end


def train(document: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Train as the document {section: {key: value}} says until `seconds` of CPU time of this process are spent.

    Returns:
        "greedy" and "sampled", returns per agent and episode at the end; "best", the largest greedy one of all looks;
        "episodes", "cpu_s"; "curve", [[episodes, cpu_s, greedy, sampled]] of the looks.

    Raises:
        UserError: a mistake in the document.
    """
    import torch
    from popcomm.analysis.experiments.local_training import LocalTraining, Point

    from popcomm.cli import schema
    from popcomm.rllib import PopulationPPOConfig

    torch.set_num_threads(1)
    training = LocalTraining(schema.apply(document, PopulationPPOConfig()))
    curve: list[Point] = []
    while len(curve) < LOOKS:
        training.iterate()
        if training.cpu_s >= seconds * (len(curve) + 1) / LOOKS:
            curve.append(training.point())
    end = curve[-1]
    return {
        "greedy": end.greedy,
        "sampled": end.sampled,
        "best": max(point.greedy for point in curve),
        "episodes": end.episodes,
        "cpu_s": round(end.cpu_s, 1),
        "curve": [list(point) for point in curve],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    from popcomm.cli import documents
    from popcomm.errors import UserError

    parser = argparse.ArgumentParser(prog="python -m popcomm.analysis.benchmarks.small_game_training")
    parser.add_argument("file", type=Path, help="a YAML file as for `popcomm train`")
    parser.add_argument("--seconds", type=float, required=True, help="of CPU time")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    try:
        result = train(documents.load(options.file), options.seconds)
    except UserError as error:
        print(f"small_game_training: {error}", file=sys.stderr)
        return 2
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
