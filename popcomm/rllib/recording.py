"""Recording: what training writes into the run folder, against environment steps; and what callbacks logged."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    EPISODE_LEN_MEAN,
    EPISODE_RETURN_MEAN,
    EVALUATION_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    NUM_EPISODES_LIFETIME,
)
from torch.utils.tensorboard import SummaryWriter

from popcomm.channels.vocabulary import narrowed
from popcomm.evolution import lineage_file
from popcomm.language import basics, collapse, progress
from popcomm.language.recording import conversation_path, write_conversations
from popcomm.rllib import evaluating, federated, generations
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.rewind import PROGRESS, TENSORBOARD, rewind
from popcomm.rllib.settings import Settings
from popcomm.rllib.speaking import most_entropy
from popcomm.run_lock import RunLock, take

# RLlib's names of learner results -> CleanRL's.
LOSS_NAMES = {
    "vf_loss": "value_loss",
    "vf_explained_var": "explained_variance",
    "default_optimizer_learning_rate": "learning_rate",
    "num_non_finite_updates": "non_finite_updates",
}
CLOCKS = ("env_steps", "agent_steps", "time_s", "iteration")
COUNTED = ("non_finite_updates",)  # summed over species
# What RLlib and popcomm themselves tell of an iteration; all else is from a user's callbacks.
OF_ITERATIONS = """
    timers env_runners learners evaluation num_training_step_calls_per_iteration num_env_steps_sampled_lifetime
    num_env_steps_sampled_lifetime_throughput num_agent_steps_sampled_lifetime fault_tolerance env_runner_group
    done training_iteration trial_id experiment_tag date timestamp time_this_iter_s time_total_s pid hostname node_ip
    config time_since_restore iterations_since_restore timesteps_total episodes_total timesteps_this_iter
    episodes_this_iter should_checkpoint checkpoint_dir_name perf popcomm collapse member survival
"""
OF_RUNNERS = """
    num_env_steps_sampled num_env_steps_sampled_lifetime num_env_steps_sampled_lifetime_throughput
    num_agent_steps_sampled num_agent_steps_sampled_lifetime num_module_steps_sampled num_module_steps_sampled_lifetime
    num_episodes num_episodes_lifetime episode_return_mean episode_return_min episode_return_max episode_len_mean
    episode_return_mean_low episode_return_mean_high agent_episode_returns_mean module_episode_returns_mean reward_mean
    language world channel
"""
OF_EVALUATIONS = """
    num_healthy_workers actor_manager_num_outstanding_async_reqs num_remote_worker_restarts
    num_env_runners_dropped_lifetime
"""


class Recording:
    """Writes progress.jsonl, TensorBoard events, conversations and pictures, where the config names a run folder."""

    def __init__(self) -> None:
        self.writer: SummaryWriter | None = None
        self.start: float | None = None
        self.last = (0.0, 0, 0)
        self.watch = collapse.Watch()
        self._lock: RunLock | None = None

    def take(self, run_dir: str | None) -> None:
        """Take the folder for what is written from now on, until it is closed.

        Raises:
            UserError: another training has it, or it cannot be written.
        """
        self._lock = None if run_dir is None else take(Path(run_dir), "recording.run_dir")

    def measure(self, algorithm: Algorithm, result: dict[str, Any]) -> None:
        """Put the scalars of an iteration into its result, as "popcomm", and the signs of a collapse."""
        config = algorithm.config
        scalars = self._scalars(algorithm, result)
        if config.message_kind is not None:
            scalars |= _speakers_choice(scalars, most_entropy(_said_now(config.message_kind, scalars)))
            self.watch, held = collapse.observe(self.watch, collapse.Measures.of(scalars))
            scalars |= _signs(held)
            result["collapse"] = held
        result["popcomm"] = scalars

    def write(self, algorithm: Algorithm, result: Mapping[str, Any]) -> None:
        """Write down a result that was measured, with what callbacks put into it."""
        config = algorithm.config
        if config.run_dir is None:
            return
        scalars = logged_by_callbacks(result) | result["popcomm"]
        run_dir, iteration, steps = Path(config.run_dir), algorithm.iteration, scalars["env_steps"]
        run_dir.mkdir(parents=True, exist_ok=True)
        scalars["iteration"] = iteration
        members = generations.arrays(algorithm.members) | algorithm.ledger.arrays()
        members |= federated.arrays(algorithm.plan, algorithm.learner_statistics(result))
        progress.append(run_dir / PROGRESS, {**scalars, **generations.in_lines(members)})
        # What this process finds there is that of a training that went on beyond the checkpoint.
        if algorithm.survival is not None and (algorithm.selected or self.writer is None):
            lineage_file.write(run_dir, algorithm.survival.table())
        writer = self._writer(run_dir, steps)
        for name, values in members.items():
            if np.isfinite(values).any():
                writer.add_histogram(name, values[np.isfinite(values)], steps)
        for name, value in scalars.items():
            if name not in CLOCKS and value is not None and np.isfinite(value):
                writer.add_scalar(name, value, steps)
        writer.add_scalar("charts/agent_steps", scalars["agent_steps"], steps)
        talk, draw = _due(iteration, config.conversation_every), _due(iteration, config.picture_every)
        rows = transcript_rows(algorithm, talk) if talk or draw else {}
        if talk and rows:
            said, survival = np.asarray(rows["iteration"]), algorithm.survival
            before = np.zeros_like(said) if survival is None else survival.generations_before(said)
            told = rows | {"generation": before}
            write_conversations(conversation_path(run_dir, iteration), told, config.layout.torus)
        if draw and rows:
            self._draw(writer, config, rows, steps)
        writer.flush()

    def close(self) -> None:
        """Nothing more is written, and the folder is free."""
        if self.writer is not None:
            self.writer.close()
        if self._lock is not None:
            self._lock.release()

    @staticmethod
    def _draw(writer: SummaryWriter, config: Settings, rows: dict[str, Any], steps: int) -> None:
        from popcomm.language.drawing import pixels

        for name, figure in _pictures(config, rows).items():
            writer.add_image(name, pixels(figure), steps, dataformats="HWC")

    def _resumed(
        self, algorithm: Algorithm, result: Mapping[str, float], now: float
    ) -> tuple[float, tuple[float, int, int]]:
        """Where the clock and the counters of this process start: after what a run folder already has.

        After a crash the folder goes on beyond the checkpoint that was restored, and is rewound. The watch over the
        language goes on from there, too; without a run folder it begins anew.
        """
        start = now - result.get("time_this_iter_s", 0.0)
        if algorithm.config.run_dir is None:
            return start, (start, 0, 0)
        run_dir = Path(algorithm.config.run_dir)
        rewind(run_dir, algorithm.iteration)
        before = progress.read(run_dir / PROGRESS)
        if before.empty:
            return start, (start, 0, 0)
        self.watch = collapse.replay(before.to_dict("records"))
        line = before.iloc[-1]
        return start - float(line["time_s"]), (start, int(line["env_steps"]), int(line["agent_steps"]))

    def _writer(self, run_dir: Path, steps: int) -> SummaryWriter:
        """Events from `steps` on that an earlier process wrote are hidden."""
        if self.writer is None:
            self.writer = SummaryWriter(str(run_dir / TENSORBOARD), purge_step=steps)
        return self.writer

    def _scalars(self, algorithm: Algorithm, result: dict[str, Any]) -> dict[str, Any]:
        """CleanRL's names; means over species, and each species' own where there are several."""
        now = time.monotonic()
        if self.start is None:
            self.start, self.last = self._resumed(algorithm, result, now)
        sampled = result.get(ENV_RUNNER_RESULTS, {})
        env_steps = result[NUM_ENV_STEPS_SAMPLED_LIFETIME]
        agent_steps = result["num_agent_steps_sampled_lifetime"]
        seconds = max(now - self.last[0], 1e-9)
        scalars: dict[str, Any] = {
            "env_steps": env_steps,
            "agent_steps": agent_steps,
            "time_s": now - self.start,
            "charts/SPS": (env_steps - self.last[1]) / seconds,
            "charts/agent_SPS": (agent_steps - self.last[2]) / seconds,
            "charts/reward": sampled.get("reward_mean"),
        }
        self.last = (now, env_steps, agent_steps)
        if sampled.get(NUM_EPISODES_LIFETIME):
            scalars["charts/episodic_return"] = sampled[EPISODE_RETURN_MEAN]
            scalars["charts/episodic_length"] = sampled[EPISODE_LEN_MEAN]
            scalars["charts/agent_episodic_return"] = sampled[EPISODE_RETURN_MEAN] / algorithm.config.layout.num_agents
        for group in ("language", "world", "channel"):
            scalars |= {f"{group}/{name}": float(value) for name, value in sampled.get(group, {}).items()}
        scalars |= algorithm.ledger.scalars()
        scalars |= federated.scalars(algorithm.plan.federated, algorithm.learner_statistics(result))
        scalars |= evaluating.scalars(result) | generations.scalars(algorithm.selected)
        scalars |= algorithm.schedules.scalars() | algorithm.attendance.scalars(result)
        scalars |= algorithm.ahead.scalars()
        return scalars | _losses(algorithm.learner_statistics(result))


def logged_by_callbacks(result: Mapping[str, Any]) -> dict[str, float]:
    """{"env_runners/name": value} of all numbers in a result that are neither RLlib's nor popcomm's, by their paths.

    >>> logged_by_callbacks({"env_runners": {"falls": 2, "reward_mean": 0.1}, "mine": {"a": True, "b": "text"}})
    {'env_runners/falls': 2.0, 'mine/a': 1.0}
    """
    evaluation = result.get(EVALUATION_RESULTS, {})
    parts = {
        "": (result, OF_ITERATIONS),
        f"{ENV_RUNNER_RESULTS}/": (result.get(ENV_RUNNER_RESULTS, {}), OF_RUNNERS),
        f"{EVALUATION_RESULTS}/": (evaluation, OF_ITERATIONS + OF_EVALUATIONS),
        f"{EVALUATION_RESULTS}/{ENV_RUNNER_RESULTS}/": (evaluation.get(ENV_RUNNER_RESULTS, {}), OF_RUNNERS),
    }
    found: dict[str, float] = {}
    for path, (values, told) in parts.items():
        found |= _numbers({key: value for key, value in values.items() if key not in told.split()}, path)
    return found


def _numbers(values: Mapping[str, Any], path: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            found |= _numbers(value, f"{path}{key}/")
        elif isinstance(value, int | float | np.number | np.bool_):
            found[f"{path}{key}"] = float(value)
    return found


def _speakers_choice(scalars: Mapping[str, float], most: float) -> dict[str, float]:
    """The entropy of speakers' choices as a share of the most, over the steps in which they may speak."""
    share = scalars.get("losses/message_entropy", math.nan) / (most * (scalars.get("language/voiced", 1.0) or math.nan))
    return {"language/message_entropy_share": share} if math.isfinite(share) else {}


def _said_now(kind: Any, scalars: Mapping[str, float]) -> Any:
    """The kind of message, of a vocabulary that grows with the symbols that are open by now."""
    many = scalars.get("channel/open_symbols")
    return kind if many is None else narrowed(kind, int(many))


def _signs(held: Mapping[str, str]) -> dict[str, int]:
    """language/collapse: how many signs of it hold; and each of them, 0 or 1."""
    each = {f"language/{sign}": int(sign in held) for sign in collapse.SIGNS}
    return {"language/collapse": len(held), **each}


def _losses(species: dict[str, dict[str, float]]) -> dict[str, float]:
    """losses/<name>: the mean over species; losses/<species>/<name> too where there are several.

    losses/non_finite_updates are the updates of single members that were left out: a sum over species. What a network
    tells of itself has a group in its name, and stays there instead of among the losses.
    """
    collected: dict[str, list[float]] = {}
    result: dict[str, float] = {}
    for name, values in species.items():
        for key, value in values.items():
            short = LOSS_NAMES.get(key, key)
            if short.startswith("num_") or not isinstance(value, int | float | np.number):
                continue
            collected.setdefault(short, []).append(float(value))
            if len(species) > 1:
                group, _, rest = _grouped(short).partition("/")
                result[f"{group}/{name}/{rest}"] = float(value)
    pooled = {short: np.sum(values) if short in COUNTED else np.mean(values) for short, values in collected.items()}
    return result | {_grouped(short): float(value) for short, value in pooled.items()}


def _grouped(name: str) -> str:
    return name if "/" in name else f"losses/{name}"


def _due(iteration: int, every: int) -> bool:
    return bool(every) and iteration % every == 0


def transcript_rows(algorithm: Algorithm, taken: bool) -> dict[str, Any]:
    """Rows of the recorded worlds, from the first runner if it lives.

    Args:
        taken: they are written, and so must not come a second time.
    """

    def rows(runner: PopulationEnvRunner) -> dict[str, Any]:
        return runner.transcript.take(iteration) if taken else runner.transcript.rows()

    group, iteration = algorithm.env_runner_group, algorithm.iteration
    if algorithm.config.num_env_runners == 0:
        return rows(group.local_env_runner)
    patience = algorithm.config.sample_timeout_s
    answers = group.foreach_env_runner(rows, local_env_runner=False, remote_worker_ids=[1], timeout_seconds=patience)
    return answers[0] if answers else {}


def _pictures(config: Settings, rows: dict[str, Any]) -> dict[str, Any]:
    """Who listened to whom in the last heard step of the first recorded world, and which symbols are used."""
    # Here, since matplotlib takes longer to load than many a run takes to begin.
    from popcomm.language import pictures, topology_picture

    figures: dict[str, Any] = {}
    heard = [i for i, receivers in enumerate(rows.get("receivers") or []) if len(receivers)]
    if heard:
        last = heard[-1]
        moment = [name for name in ("world", "episode", "step", "round") if name in rows]
        same = [i for i in heard if all(rows[name][i] == rows[name][last] for name in moment)]
        links = np.array([(rows["sender"][i], r) for i in same for r in rows["receivers"][i]])
        weights = rows.get("weights")
        layout = config.layout
        places = None
        if "position" in rows and len(same) == layout.num_agents:
            places = np.asarray(rows["position"])[same]
        figures["topology"] = topology_picture.topology(
            links,
            layout.num_agents,
            None if weights is None else np.concatenate([weights[i] for i in same]),
            places,
            layout.torus,
        )
    kind = config.message_kind
    said = [message for message in rows.get("symbols", ()) if message is not None]
    if kind is not None and kind.alphabet is not None and said:
        longest = max(map(len, said))
        symbols = np.stack([np.pad(message, (0, longest - len(message)), constant_values=-1) for message in said])
        figures["symbol_use"] = pictures.symbol_use(basics.symbol_counts(symbols, kind.alphabet))
    return figures
