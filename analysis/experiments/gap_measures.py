"""What the communication gap is measured by: each number from progress.jsonl, per arm and seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from popcomm.analysis.experiments.intervals import Difference, difference, mean_interval

RETURN, LENGTH = "charts/agent_episodic_return", "charts/episodic_length"
WORLD_R2, VOCABULARY = "losses/world_r2", "language/vocabulary_used"
EFFECTIVE = "language/vocabulary_effective"
RECONSTRUCTION, PREDICTION = "losses/reconstruction", "losses/prediction"
INFORMATION = "language/mutual_information"

# The start and the end of training, as shares of it.
FIRST, LAST = 0.05, 0.2
# What is asked of the talking swarm, and what a swarm that hears nothing of use stays below.
RETURN_AT_LEAST, R2_AT_LEAST, R2_NEAR_NONE, VOCABULARY_BELOW = 65.0, 0.65, 0.1, 0.7
CONTROLS = ("silent", "noise")


class Claim(NamedTuple):
    """Something the experiment was to show."""

    text: str
    measured: str
    holds: bool


class Gap(NamedTuple):
    """All numbers of the experiment. Lists are [S], one number per seed, nan where it was not measured.

    Arms are "talking", "silent" and "noise".
    """

    seeds: list[int]
    env_steps: int
    episode: int  # steps of a full one
    returns: dict[str, list[float]]  # {arm: per agent and full episode, at the end}
    gaps: dict[str, Difference]  # {control: of `returns`, talking minus that one}
    world_r2: dict[str, list[float]]  # {arm}, at the end
    reconstruction: dict[str, list[float]]  # {"first", "last"}, talking
    prediction: dict[str, list[float]]
    vocabulary: dict[
        str, list[float]
    ]  # {"first", "last"}, share of symbols said at least a tenth as often as by chance
    vocabulary_noise: list[float]  # the same of the arm "noise", at the end
    effective: dict[str, list[float]]  # 2 ** entropy / V
    information: list[float]  # bits, talking, at the end
    scripted: dict[str, float]
    minutes: dict[str, float]  # mean training time of a run


def at_end(table: pd.DataFrame, key: str, share: float = LAST) -> float:
    """Mean over the last `share` of training (by environment steps); nan where it was not measured."""
    return _mean(table, key, table["env_steps"] > (1 - share) * table["env_steps"].max())


def at_start(table: pd.DataFrame, key: str, share: float = FIRST) -> float:
    """Mean over the first `share` of training, at least its first measurement; nan where there is none."""
    if key not in table:
        return float("nan")
    measured = table.dropna(subset=[key])
    begins = measured["env_steps"] <= max(share * table["env_steps"].max(), measured["env_steps"].min())
    return _mean(measured, key, begins)


def _mean(table: pd.DataFrame, key: str, rows: Any) -> float:
    return float(table.loc[rows, key].mean()) if key in table else float("nan")


def common_horizon(tables: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    """The tables up to where the shortest ends: a run trained for longer must not win by that."""
    horizon = min(int(table["env_steps"].max()) for table in tables)
    return [table[table["env_steps"] <= horizon] for table in tables]


def measure(
    seeds: Sequence[int],
    arms: Mapping[str, Sequence[pd.DataFrame]],
    scripted: Mapping[str, float],
    episode: int,
) -> Gap:
    """Everything from the runs' tables.

    Args:
        seeds: of run s of every arm.
        arms: {"talking", "silent" and "noise": tables of progress}.
        scripted: mean returns of scripted swarms.
        episode: steps of a full one; returns of shorter ones (worlds that begin at different ages) are scaled to it.
    """
    tables = iter(common_horizon([table for arm in arms.values() for table in arm]))
    cut = {name: [next(tables) for _ in arm] for name, arm in arms.items()}
    returns = {name: [_full_return(table, episode) for table in arm] for name, arm in cut.items()}

    def both(key: str) -> dict[str, list[float]]:
        return {"first": [at_start(t, key) for t in cut["talking"]], "last": [at_end(t, key) for t in cut["talking"]]}

    return Gap(
        seeds=list(seeds),
        env_steps=int(cut["talking"][0]["env_steps"].max()),
        episode=episode,
        returns=returns,
        gaps={name: difference(returns["talking"], returns[name]) for name in CONTROLS},
        world_r2={name: [at_end(t, WORLD_R2) for t in arm] for name, arm in cut.items()},
        reconstruction=both(RECONSTRUCTION),
        prediction=both(PREDICTION),
        vocabulary=both(VOCABULARY),
        vocabulary_noise=[at_end(t, VOCABULARY) for t in cut["noise"]],
        effective=both(EFFECTIVE),
        information=[at_end(t, INFORMATION) for t in cut["talking"]],
        scripted=dict(scripted),
        minutes={name: float(np.mean([t["time_s"].max() for t in arm])) / 60 for name, arm in cut.items()},
    )


def _full_return(table: pd.DataFrame, episode: int) -> float:
    """Per agent and episode of that many steps, at the end."""
    return at_end(table, RETURN) / at_end(table, LENGTH) * episode


def claims(gap: Gap) -> list[Claim]:
    """What was to be shown, what was found, and whether it holds. What was not measured does not hold."""
    r2 = {name: np.mean(values) for name, values in gap.world_r2.items()}
    earned, level = float(np.mean(gap.returns["talking"])), mean_interval(gap.returns["talking"])
    return [
        Claim(
            "Agents that hear one another get more than the same agents hearing random symbols: the 95 % interval of "
            "the difference excludes 0",
            _shown(gap.gaps["noise"]),
            gap.gaps["noise"].paired.low > 0,
        ),
        Claim(
            "Agents that talk get more than silent ones: the 95 % interval of the difference excludes 0",
            _shown(gap.gaps["silent"]),
            gap.gaps["silent"].paired.low > 0,
        ),
        Claim(
            f"Agents that talk get at least {RETURN_AT_LEAST:g} per agent and full episode",
            f"{earned:.2f} {level.shown(2, sign='')}",
            earned >= RETURN_AT_LEAST,
        ),
        Claim(
            f"Messages tell the state of the world: R² of the world estimator at least {R2_AT_LEAST}",
            f"{r2['talking']:.2f}",
            bool(r2["talking"] >= R2_AT_LEAST),
        ),
        Claim(
            f"Random symbols tell next to nothing of it: R² below {R2_NEAR_NONE}",
            f"{r2['noise']:.2f}",
            bool(r2["noise"] < R2_NEAR_NONE),
        ),
        _falls("The sender's observation is reconstructed from its message better and better", gap.reconstruction),
        _falls("The next observation is predicted better and better", gap.prediction),
        Claim(
            f"The language settles on a part of its symbols: vocabulary use below {VOCABULARY_BELOW:.0%} at the end",
            f"{np.mean(gap.vocabulary['first']):.0%} → {np.mean(gap.vocabulary['last']):.0%}",
            bool(np.mean(gap.vocabulary["last"]) < VOCABULARY_BELOW),
        ),
    ]


def _shown(gap: Difference) -> str:
    return f"{gap.mean:+.2f} {gap.paired.shown(2)} per agent and full episode"


def _falls(text: str, losses: Mapping[str, Sequence[float]]) -> Claim:
    """Holds if the loss falls in every seed."""
    first, last = np.array(losses["first"]), np.array(losses["last"])
    return Claim(
        f"{text}: its loss falls in every seed", f"{first.mean():.3f} → {last.mean():.3f}", bool((last < first).all())
    )
