"""BenchMARL's IPPO on a VMAS scenario, one iteration at a time."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from popcomm.analysis.benchmarks.bare_loop import CLIP, GAMMA, HIDDEN, LAMBDA
from popcomm.analysis.benchmarks.tally import Contender, Tally, calls_of


class Sizes(NamedTuple):
    """What both libraries are told."""

    worlds: int
    agents: int
    length: int
    epochs: int
    minibatches: int
    max_steps: int = 100

    @property
    def steps(self) -> int:
        """Agent-steps of an iteration."""
        return self.worlds * self.agents * self.length


class Turns:
    """Runs a training that knows no single iterations in a thread that stops at the end of each of them."""

    def __init__(self, run: Any) -> None:
        self._go, self._done, self._over = threading.Semaphore(0), threading.Semaphore(0), False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._live, args=(run,), daemon=True)
        self._thread.start()

    def _live(self, run: Any) -> None:
        torch.set_num_threads(1)
        try:
            self._go.acquire()
            run()
        except BaseException as error:
            self._failure = error
        finally:
            self._done.release()

    def pause(self) -> None:
        """Called by the training when an iteration is done.

        Raises:
            SystemExit: there are no more to be made.
        """
        self._done.release()
        self._go.acquire()
        if self._over:
            raise SystemExit

    def advance(self) -> None:
        """One iteration; raises what the training raised."""
        self._go.release()
        self._done.acquire()
        if self._failure is not None:
            raise self._failure

    def end(self) -> None:
        """Let the training end where it is."""
        self._over = True
        self._go.release()
        self._thread.join()


@contextmanager
def contender(sizes: Sizes, scenario: str = "SIMPLE_SPREAD") -> Iterator[Contender]:
    """IPPO with popcomm's network, batch, epochs and minibatches; shared weights, one process."""
    from benchmarl.algorithms import IppoConfig
    from benchmarl.environments import VmasTask
    from benchmarl.experiment import Experiment, ExperimentConfig
    from benchmarl.models.mlp import MlpConfig

    config = ExperimentConfig.get_from_yaml()
    config.prefer_continuous_actions, config.share_policy_params = False, True
    config.gamma, config.lr, config.clip_grad_val = GAMMA, 1e-3, 1.0
    config.max_n_iters, config.max_n_frames = 10**9, None
    config.on_policy_n_envs_per_worker = sizes.worlds
    config.on_policy_collected_frames_per_batch = sizes.worlds * sizes.length
    config.on_policy_n_minibatch_iters = sizes.epochs
    config.on_policy_minibatch_size = sizes.worlds * sizes.length // sizes.minibatches
    config.evaluation, config.create_json, config.loggers = False, False, []
    algorithm = IppoConfig.get_from_yaml()
    algorithm.clip_epsilon, algorithm.lmbda, algorithm.entropy_coef, algorithm.critic_coef = CLIP, LAMBDA, 0.01, 0.5
    network = MlpConfig(num_cells=[HIDDEN, HIDDEN], activation_class=torch.nn.Tanh, layer_class=torch.nn.Linear)
    task = getattr(VmasTask, scenario).get_from_yaml()
    task.config.update(max_steps=sizes.max_steps, n_agents=sizes.agents)
    with tempfile.TemporaryDirectory() as folder:
        config.save_folder = folder
        experiment = Experiment(
            task=task,
            algorithm_config=algorithm,
            model_config=network,
            critic_model_config=network,
            seed=0,
            config=config,
        )
        turns = Turns(experiment.run)
        # Not as one of its callbacks, which it pickles.
        experiment._on_train_end = lambda training_td, group: turns.pause()

        def iterate() -> int:
            turns.advance()
            return sizes.steps

        def watch(tally: Tally) -> Any:
            def count(data: Any) -> None:
                tally.rows += data.numel() * sizes.agents

            (group,) = experiment.losses
            return calls_of(experiment.losses[group], "forward", count)

        yield Contender(iterate, watch)
        turns.end()
