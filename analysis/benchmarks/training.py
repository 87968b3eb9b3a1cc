"""Training end to end on a free environment: popcomm, RLlib's stock multi-agent PPO, and a bare loop as the ceiling.

What each of them does in an iteration is counted: optimizer steps of every weight, rows of the minibatches, and rows
that are only padding.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import ray
import torch
from popcomm.analysis.benchmarks.bare_loop import CLIP, GAMMA, HIDDEN, LAMBDA, BareLoop
from popcomm.analysis.benchmarks.common import Measurement, Work, alternating, median, median_ratio, rate, table
from popcomm.analysis.benchmarks.free_world import FreeMultiAgentEnv, FreeParallelEnv, FreeWorld
from popcomm.analysis.benchmarks.tally import Contender, Tally, accounts, calls_of
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from popcomm.rllib import PopulationPPOConfig

EPOCHS, MINIBATCHES, MAX_STEPS = 4, 4, 64
# What popcomm and RLlib are both told, so that neither's own defaults make its work another.
PPO: dict[str, float] = {
    "lr": 1e-3,
    "gamma": GAMMA,
    "lambda_": LAMBDA,
    "clip_param": CLIP,
    "vf_clip_param": 10.0,
    "entropy_coeff": 0.01,
    "vf_loss_coeff": 0.5,
    "grad_clip": 1.0,
}
# popcomm's own losses, on messages and on actions about to be ruled out, would be work that no peer does.
PLAIN_TALK: dict[str, float] = {"quality_coeff": 0.0, "message_balance_coeff": 0.0, "rare_action_share": 0.0}
# Bars are for 32 agents and more.
DISTINCT_RATE, DISTINCT_TIMES, SHARED_TIMES, OF_BARE_LOOP, BARS_FROM = 80_000.0, 18.0, 8.0, 0.85, 32
THROUGH_DICTS = "popcomm through PettingZoo"


# RLlib may collect its agent-steps from fewer environments in longer fragments; the fastest of these is measured.
RLLIB_ENVS = (1, 4, 16, 128)


class Case(NamedTuple):
    """One size; every contender collects `steps` agent-steps and makes 4 epochs of 4 minibatches of them."""

    agents: int
    worlds: int
    length: int
    distinct: bool

    @property
    def steps(self) -> int:
        return self.agents * self.worlds * self.length

    @property
    def members(self) -> int:
        return self.agents if self.distinct else 1

    @property
    def name(self) -> str:
        return f"{self.agents} agents, {f'{self.agents} distinct members' if self.distinct else 'shared weights'}"


CASES = [
    Case(agents, worlds, 16, distinct)
    for agents, worlds in ((3, 128), (32, 32), (128, 16))
    for distinct in (False, True)
]
QUICK_CASES = [Case(32, 8, 8, distinct) for distinct in (False, True)]


def run(quick: bool = False) -> list[Measurement]:
    """All cases. Rates are agent-steps per CPU second of this process."""
    torch.set_num_threads(1)
    results = []
    with local_ray():
        for case in QUICK_CASES if quick else CASES:
            measured = measure(case, repetitions=1 if quick else 3, min_seconds=0.2 if quick else 1.5)
            print(table(measured), flush=True)  # the next case takes minutes
            results += measured
    return results


def measure(case: Case, repetitions: int, min_seconds: float, with_rllib: bool = True) -> list[Measurement]:
    """Rates of the contenders in one case, and how popcomm's compares."""
    with ExitStack() as stack:

        def trained_by(config: Any, watch: Any) -> Contender:
            algorithm, work = stack.enter_context(building(config, case.agents))
            return Contender(work, lambda tally: watch(algorithm, tally))

        contenders = {
            "popcomm": trained_by(popcomm_config(case), rows_of_popcomm),
            THROUGH_DICTS: trained_by(popcomm_config(case, dicts=True), rows_of_popcomm),
            "bare loop": bare_contender(case),
        }
        if with_rllib:
            contenders["RLlib"] = trained_by(rllib_config(case, fastest_layout(case)), rows_of_rllib)
        rates = alternating({name: c.work for name, c in contenders.items()}, repetitions, min_seconds)
        counted = accounts("training", case.name, contenders, "agent-step")
    unit = "agent-steps / CPU s"
    barred = case.agents >= BARS_FROM
    bars = {"popcomm": DISTINCT_RATE} if case.distinct and barred else {}
    results = [
        Measurement("training", f"{case.name}: {name}", median(r), unit, bars.get(name), samples=tuple(r))
        for name, r in rates.items()
    ]
    times = DISTINCT_TIMES if case.distinct else SHARED_TIMES
    for name, least in (("RLlib", times), ("bare loop", OF_BARE_LOOP), (THROUGH_DICTS, None)):
        if name in rates:
            ratio = median_ratio(rates["popcomm"], rates[name])
            bar = least if barred else None
            results.append(Measurement("training", f"{case.name}: popcomm / {name}", ratio, "times", bar))
    return [*results, *counted]


@contextmanager
def trained(config: Any, agents: int) -> Iterator[Work]:
    """Work that is one `train()` of the algorithm; it returns the agent-steps that the algorithm itself counted."""
    with building(config, agents) as (_, work):
        yield work


@contextmanager
def building(config: Any, agents: int) -> Iterator[tuple[Any, Work]]:
    """The algorithm itself, and the work of `trained`."""
    algorithm = config.build_algo()
    done = 0

    def iterate() -> int:
        nonlocal done
        before, done = done, int(algorithm.train()["num_env_steps_sampled_lifetime"])
        return (done - before) * agents

    yield algorithm, iterate
    algorithm.stop()


def rows_of_popcomm(algorithm: Any, tally: Tally) -> Any:
    """Seats of the worlds in minibatches, and those of them that nobody lives on."""

    def count(arrays: Any, *_: Any, **__: Any) -> None:
        for a in arrays.values():
            alive = int(a["alive"].sum())
            tally.rows += alive
            tally.padded += a["alive"].numel() - alive

    return calls_of(algorithm.learner_group._learner, "_update_once", count)


def rows_of_rllib(algorithm: Any, tally: Tally) -> Any:
    """Rows of the minibatches of all policies, and those of them that the loss masks out."""

    def count(*, fwd_out: Any, batch: Any) -> None:
        for part in batch.values():
            size = int(part[Columns.OBS].shape[:1].numel())
            real = int(part[Columns.LOSS_MASK].sum()) if Columns.LOSS_MASK in part else size
            tally.rows += real
            tally.padded += size - real

    return calls_of(algorithm.learner_group._learner, "compute_losses", count)


def bare_loop(case: Case) -> BareLoop:
    return BareLoop(case.worlds, case.agents, case.members, case.length, EPOCHS, MINIBATCHES)


def bare_contender(case: Case) -> Contender:
    """The bare loop; what it learns from are the rows that its network sees with a gradient."""
    loop = bare_loop(case)

    def watch(tally: Tally) -> Any:
        def count(obs: torch.Tensor) -> None:
            tally.rows += obs.shape[:2].numel() if torch.is_grad_enabled() else 0

        return calls_of(loop, "network", count)

    return Contender(loop.iterate, watch)


def popcomm_config(case: Case, dicts: bool = False) -> PopulationPPOConfig:
    """popcomm in one process; members keep their seats, as RLlib's policies keep their agents.

    Args:
        dicts: the same environment as so many PettingZoo ParallelEnvs.
    """
    env: Any = (lambda env_config: FreeParallelEnv(**env_config)) if dicts else FreeWorld
    return (
        PopulationPPOConfig()
        .environment(env, env_config={"num_agents": case.agents, "max_steps": MAX_STEPS})
        .communication(messages=None)
        .population(agent="mlp", members=case.members, agent_config={"hidden": HIDDEN}, seating="fixed")
        .env_runners(num_env_runners=0, num_worlds_per_env_runner=case.worlds, rollout_fragment_length=case.length)
        .learners(num_learners=0)
        .training(**PPO, **PLAIN_TALK, num_epochs=EPOCHS, minibatch_size=case.worlds // MINIBATCHES)
        .debugging(seed=0)
    )


def fastest_layout(case: Case) -> int:
    """The number of environments with which RLlib is fastest: one iteration with each, in turn."""
    rates = {}
    for envs in sorted({min(envs, case.worlds) for envs in RLLIB_ENVS}):
        with trained(rllib_config(case, envs), case.agents) as iterate:
            rates[envs] = rate(iterate)
    return max(rates, key=rates.__getitem__)


def rllib_config(case: Case, envs: int) -> PPOConfig:
    """RLlib's new stack in one process with the same network, batch, epochs and number of minibatches.

    All its sizes are agent-steps, which it counts here: a fragment of T environment steps is one of T N agent-steps. (A
    fragment of T would make N rounds of T / N environment steps, each with a row of padding for every agent.)

    Args:
        envs: environments that the batch is collected from; fewer of them make longer fragments.
    """
    policies = {f"free_{i}" for i in range(case.agents)} if case.distinct else {"shared"}
    steps_per_policy = case.steps // len(policies)
    return (
        PPOConfig()
        .environment(FreeMultiAgentEnv, env_config={"num_agents": case.agents, "max_steps": MAX_STEPS})
        .env_runners(
            num_env_runners=0,
            num_envs_per_env_runner=envs,
            rollout_fragment_length=case.steps // envs,
            batch_mode="truncate_episodes",
        )
        .learners(num_learners=0)
        .multi_agent(
            policies=policies,
            policy_mapping_fn=lambda agent, episode, **kwargs: agent if case.distinct else "shared",
            count_steps_by="agent_steps",
        )
        .rl_module(
            model_config=DefaultModelConfig(
                fcnet_hiddens=[HIDDEN, HIDDEN], fcnet_activation="tanh", vf_share_layers=False
            )
        )
        .training(
            train_batch_size_per_learner=case.steps,
            minibatch_size=steps_per_policy // MINIBATCHES,
            num_epochs=EPOCHS,
            use_kl_loss=False,
            **PPO,
        )
        .debugging(log_level="ERROR", seed=0)
    )


@contextmanager
def local_ray() -> Iterator[None]:
    """A small Ray on loopback, which RLlib wants even where everything is in one process."""
    if ray.is_initialized():
        yield
        return
    for name in ("ray", "ray.rllib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    _start_ray()
    yield
    ray.shutdown()


def _start_ray(tries: int = 5) -> None:
    """It gives up after 30 seconds, which a busy machine may need."""
    try:
        ray.init(
            num_cpus=2,
            object_store_memory=300 * 2**20,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            _node_ip_address="127.0.0.1",
        )
    except Exception as error:
        if tries == 1 or "timed out during startup" not in str(error):
            raise
        ray.shutdown()
        _start_ray(tries - 1)
