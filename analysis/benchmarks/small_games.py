"""Do the defaults learn to talk in games that they were not tuned on? 30 small games, 40 CPU seconds each.

    python -m popcomm.analysis.benchmarks.small_games --out runs/small_games [--docs docs]

Draws games (`popcomm.analysis.benchmarks.small_game`), trains each agent on each of them with the defaults of
PopulationPPOConfig, one process and one thread a training, and holds the greedy return at the end against the oracle.
`--set section.key=value` compares other settings. Results are appended to small_games.jsonl one by one, and those that
are there with the same seed, seconds and settings are not made again, so defaults that have changed need another
folder. Writes small_games.md and .json into the folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from popcomm.analysis.benchmarks import small_games_page
from popcomm.analysis.benchmarks.small_game import Game, draw_game, references
from popcomm.analysis.experiments.frame import published
from popcomm.analysis.experiments.runs import LOG_TAIL, TrainingError

from popcomm.agents import AGENTS
from popcomm.cli import documents
from popcomm.errors import unknown
from popcomm.language import progress

NAME = "small_games"
WORLD = "popcomm.analysis.benchmarks.small_game_world:SmallGameWorld"


@dataclass(frozen=True)
class Trial:
    """One agent in one game.

    Args:
        number: of the game, among those that the seed draws.
        seed: what games are drawn from, and of the training.
        seconds: of CPU time.
        settings: "section.key=value" each, beside the defaults.
    """

    number: int
    game: Game
    agent: str
    seed: int
    seconds: float
    settings: tuple[str, ...] = ()

    @property
    def key(self) -> dict[str, Any]:
        """What tells its result from others, as JSON gives it back."""
        return {
            "number": self.number,
            **asdict(self.game),
            "agent": self.agent,
            "seed": self.seed,
            "seconds": self.seconds,
            "settings": " ".join(self.settings),
        }

    @property
    def document(self) -> dict[str, Any]:
        """The config without `settings`: the game, the agent and the seed. All else is the defaults."""
        return {
            "environment": {"env": WORLD, "env_config": self.game.env_config},
            "communication": self.game.communication,
            "population": {"agent": self.agent},
            "debugging": {"seed": self.seed},
        }

    def train(self, folder: Path) -> dict[str, Any]:
        """Train it in a process of its own; its config and log stay in the folder, number-agent.yaml and .log.

        Returns:
            what `small_game_training` prints.

        Raises:
            TrainingError: it failed; the text has the end of its log.
            UserError: a setting that is no "section.key=value".
        """
        file = folder / f"{self.number:02d}-{self.agent}.yaml"
        documents.dump(self.document, file)
        documents.dump(documents.load(file, list(self.settings)), file)
        command = [sys.executable, "-m", f"{__package__}.small_game_training", str(file)]
        with file.with_suffix(".log").open("w+") as log:
            done = subprocess.run(
                [*command, "--seconds", str(self.seconds)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
            )
        if done.returncode:
            tail = file.with_suffix(".log").read_text(errors="replace").splitlines()[-LOG_TAIL:]
            raise TrainingError(f"{file.stem} ended with exit code {done.returncode}:\n" + "\n".join(tail))
        result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return result


def draw_trials(
    games: int, agents: Sequence[str], seed: int, seconds: float, settings: Sequence[str] = ()
) -> list[Trial]:
    """All agents in the first games that the seed draws, agent by agent within a game.

    Raises:
        UserError: an unknown agent.
    """
    for agent in agents:
        if agent not in AGENTS:
            raise unknown("--agents", agent, AGENTS)
    rng = np.random.default_rng(seed)
    drawn = [draw_game(rng) for _ in range(games)]
    return [
        Trial(number, game, agent, seed, seconds, tuple(settings))
        for number, game in enumerate(drawn, start=1)
        for agent in agents
    ]


def row_of(trial: Trial, result: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the results: the trial, what it is held against, and how it did."""
    held = references(trial.game)
    row = {**trial.key, "random": held.random, "deaf": held.silent, "oracle": held.oracle, **result}
    return {**row, "curve": json.dumps(result["curve"])}


def train_all(trials: Sequence[Trial], out: Path, jobs: int) -> None:
    """Train those that have no result yet, `jobs` at a time; each result is written as soon as it is known.

    Raises:
        TrainingError: one failed; those under way are finished, and no other is begun.
    """
    known = {json.dumps(key) for key in keys_of(read(out), trials)}
    wanted = [trial for trial in trials if json.dumps(trial.key) not in known]
    print(f"{len(trials)} trainings, {len(trials) - len(wanted)} of them there already", flush=True)
    began, folder = time.monotonic(), out / "configs"
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(trial.train, folder): trial for trial in wanted}
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                row = row_of(futures[future], future.result())
                progress.append(out / f"{NAME}.jsonl", row)
                minutes = (time.monotonic() - began) / 60
                print(f"[{done} of {len(wanted)}, {minutes:.1f} min] {small_games_page.told(row)}", flush=True)
        finally:
            pool.shutdown(cancel_futures=True)


def read(out: Path) -> list[dict[str, Any]]:
    """All results in the folder; a line that a process left unfinished is skipped."""
    file = out / f"{NAME}.jsonl"
    lines = file.read_text().splitlines() if file.is_file() else []
    return [json.loads(line) for line in lines if line.endswith("}")]


def keys_of(rows: Sequence[Mapping[str, Any]], trials: Sequence[Trial]) -> list[dict[str, Any]]:
    """Of every row, what tells it from others."""
    return [{name: row[name] for name in trials[0].key} for row in rows] if trials else []


def conclude(trials: Sequence[Trial], out: Path, command: str) -> list[Path]:
    """Write the page and the numbers of those trials that have a result; returns their paths."""
    rows, asked = read(out), {json.dumps(trial.key) for trial in trials}
    rows = [row for row, key in zip(rows, keys_of(rows, trials), strict=True) if json.dumps(key) in asked]
    rows = [{**row, "curve": json.loads(row["curve"])} for row in sorted(rows, key=lambda r: (r["number"], r["agent"]))]
    versions = {name: version(name) for name in ("popcomm", "ray", "torch")}
    page, numbers = out / f"{NAME}.md", out / f"{NAME}.json"
    page.write_text(small_games_page.markdown(rows, command, versions), encoding="utf-8")
    numbers.write_text(json.dumps({"command": command, "versions": versions, "trainings": rows}), encoding="utf-8")
    return [page, numbers]


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}.{NAME}", description=__doc__.splitlines()[0])
    parser.add_argument("--games", type=int, default=30, help="how many are drawn [30]")
    parser.add_argument("--seconds", type=float, default=40.0, help="CPU time of a training [40]")
    parser.add_argument("--agents", default="symbolic,mlp", help="names with commas between them [symbolic,mlp]")
    parser.add_argument("--seed", type=int, default=1, help="of the games and of the trainings [1]")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time [2]")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="a setting; repeatable")
    parser.add_argument("--out", type=Path, required=True, help="where configs and results go")
    parser.add_argument("--docs", type=Path, help="copy page and numbers there, too")
    options = parser.parse_args(arguments)
    if options.games < 1 or options.jobs < 1 or options.seconds <= 0:
        parser.error("--games and --jobs must be at least 1, and --seconds more than 0")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code: 0, 1 for a training that failed, 2 for a user's mistake."""
    options = parse(arguments)
    command = " ".join([f"python -m {__package__}.{NAME}", *(sys.argv[1:] if arguments is None else arguments)])

    def work() -> list[Path]:
        options.out.mkdir(parents=True, exist_ok=True)
        agents = [agent.strip() for agent in options.agents.split(",")]
        trials = draw_trials(options.games, agents, options.seed, options.seconds, options.set)
        check_settings(trials[0], options.out)
        train_all(trials, options.out, options.jobs)
        return conclude(trials, options.out, command)

    return published(NAME, work, options.docs)


def check_settings(trial: Trial, out: Path) -> None:
    """Hold the settings against the config before anything is trained.

    Raises:
        UserError: one of them is wrong.
    """
    from popcomm.cli import schema
    from popcomm.cli.ray_session import quiet_ray
    from popcomm.rllib import PopulationPPOConfig  # imports Ray, which takes seconds

    quiet_ray()
    file = out / "settings.yaml"
    documents.dump(trial.document, file)
    try:
        with documents.naming("the settings"):
            schema.apply(documents.load(file, list(trial.settings)), PopulationPPOConfig()).validate()
    finally:
        file.unlink()


if __name__ == "__main__":
    sys.exit(main())
