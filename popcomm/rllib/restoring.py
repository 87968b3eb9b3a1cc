"""Restoring: from a checkpoint to a training that goes on where that was saved, and what of it RLlib does not know."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ray.rllib.callbacks.utils import make_callback
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_LEARNER_GROUP, COMPONENT_RL_MODULE
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from popcomm.errors import UserError
from popcomm.rllib import checkpoints
from popcomm.rllib.checkpoints import PathLike
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.learners import ask

logger = logging.getLogger(__name__)

# Parts of a species' module that settings bring: how the names of their arrays begin, what they are, which settings.
PARTS = (
    ("lessons_left", "lessons of newborns that imitate", "survival.newborns or survival.strategy"),
    ("lr_scale", "learning rates of each member", "survival.hyperparameters or survival.strategy"),
    ("entropy_coeff_scale", "entropy weights of each member", "survival.hyperparameters or survival.strategy"),
    ("quality.", "a head that predicts what actions are worth", "training.quality_coeff or training.learn_from"),
    ("central_critic.", "a central critic", "population.critic"),
    ("links.", "links that are learned", "communication.topology"),
)
SAVE_SECONDS = 120.0  # for env runners to hand out their state
# What `surroundings` did not say at first: who is of which species, where a user says so.
UNSAID = ("species",)
RUNNER_STATES, CLOCK, SURVIVAL, LEDGER, AHEAD = "runner_states", "clock", "survival", "ledger", "ahead"


def made(cls: Any, path: PathLike, config: Any, trust: bool) -> Any:
    """The algorithm of a checkpoint. config: the one to make it with; None: that of the checkpoint.

    Raises:
        UserError: see `PopulationPPO.from_checkpoint`.
    """
    folder = Path(checkpoints.local_path(path))
    config = checkpoints.read_config(folder) if config is None else config
    algorithm = (config.algo_class or cls)(config=config)
    try:
        if not isinstance(algorithm, cls):
            raise UserError(f"{folder} is of a {type(algorithm).__name__}, which is no {cls.__name__}")
        algorithm.restore_from_path(path, trust=trust)
    except BaseException:
        algorithm.stop()  # nobody else could, and it has processes and the run folder
        raise
    return algorithm


def restore(algorithm: Any, folder: Path, component: str | None, trust: bool, by_rllib: Callable[[], None]) -> None:
    """Let an algorithm go on from a checkpoint, and look whether its weights are those that were saved.

    Args:
        algorithm: a PopulationPPO.
        folder: of the checkpoint, or with `component`, of that component in one.
        component: RLlib's name of what alone is restored.
        trust: read pickles, too.
        by_rllib: reads RLlib's pickles, of a checkpoint of an earlier popcomm that is trusted.

    Raises:
        CheckpointError: it is damaged, does not fit, or cannot be restored without pickles that are not trusted.
    """
    manifest = checkpoints.verify(folder) if component is None else None
    pickled = trust and not checkpoints.has_state(folder)
    state, left_out = (None, []) if pickled else checkpoints.read_state(folder, trust)
    # Before it is taken in: networks that come and go in size may have grown by then.
    misfit = "" if state is None or component else other_parts(_saved_parts(state), _parts(algorithm))
    try:
        if state is None:
            by_rllib()
        else:
            _take_in(algorithm, state, component)
    except (RuntimeError, KeyError, ValueError) as error:
        if isinstance(error, UserError) and not misfit:
            raise
        # torch's words for weights of other shapes: the network's code or configuration is not what it was.
        raise checkpoints.CheckpointError(f"{folder} does not fit this population: {misfit or error}") from error
    if manifest is not None:
        digest = checkpoints.weight_digest(algorithm)
        if misfit and digest != manifest["weights"]:
            raise checkpoints.CheckpointError(f"{folder} does not fit this population: {misfit}")
        checkpoints.check_weights(manifest, digest, folder)
    if "world" in left_out:
        logger.warning(
            "the worlds of %s are in pickles, which are read with trust=True (--trust) alone: they start new episodes",
            folder,
        )


def _take_in(algorithm: Any, state: dict[str, Any], component: str | None) -> None:
    """The state of a checkpoint, or of a component in it."""
    for part in reversed(component.split("/") if component else ()):
        state = {part: state}
    learner = state.get(COMPONENT_LEARNER_GROUP, {}).get(COMPONENT_LEARNER, {})
    number = learner.pop(WEIGHTS_SEQ_NO, None)  # with it, a learner would refuse weights that are older than its own
    algorithm.set_state(state)
    if number is not None:
        algorithm.learner_group.set_state({COMPONENT_LEARNER: {WEIGHTS_SEQ_NO: number}})


# ---- what networks are made of ----


def other_parts(saved: Mapping[str, Iterable[str]], here: Mapping[str, Iterable[str]]) -> str:
    """Which parts settings gave or took since, in a sentence; empty where none.

    Args:
        saved, here: {species: names of its module's arrays}.

    >>> other_parts({"a": ["agent.w"]}, {"a": ["agent.w", "central_critic.w"]})
    "species 'a' lacks a central critic there, which population.critic asks for now; resume with what it was then"
    """
    for species in sorted(saved.keys() & here.keys()):
        for name, what, settings in PARTS:
            had, has = (any(array.startswith(name) for array in side[species]) for side in (saved, here))
            if had != has:
                return (
                    f"species '{species}' {'has' if had else 'lacks'} {what} there, which {settings} "
                    f"{'does without' if had else 'asks for'} now; resume with what it was then"
                )
    return ""


def _saved_parts(state: Mapping[str, Any]) -> dict[str, list[str]]:
    modules = state.get(COMPONENT_LEARNER_GROUP, {}).get(COMPONENT_LEARNER, {}).get(COMPONENT_RL_MODULE, {})
    return {species: list(arrays) for species, arrays in modules.items()}


def _parts(algorithm: Any) -> dict[str, list[str]]:
    def names(learner: Any) -> dict[str, list[str]]:
        return {species: list(network.state_dict()) for species, network in learner.networks.items()}

    return ask(algorithm.learner_group, names)[0]


def send_weights(algorithm: Any, runners: list[int] | None = None) -> None:
    """Send remote runners, or all of them, the learners' weights, once those that were sent before have arrived."""
    # Waiting keeps runs reproducible: RLlib drops a sync whose predecessor is still under way.
    algorithm.env_runner_group.sync_weights(
        from_worker_or_learner_group=algorithm.learner_group,
        to_worker_indices=runners,
        inference_only=True,
        timeout_seconds=algorithm.config.sample_timeout_s,
    )


def give_weights(algorithm: Any, runners: list[int] | None = None) -> None:
    """Send them, and wait until they have arrived or their runners are known to have ended."""
    send_weights(algorithm, runners)
    algorithm.env_runner_group.fetch_ready_async_reqs(
        tags="set_state", timeout_seconds=algorithm.config.sample_timeout_s
    )


def bring_up_to_date(algorithm: Any, runners: list[int]) -> None:
    """Give runners what was learned, and tell the user's callbacks: what RLlib does with those whose loss it noticed.

    Those that have ended again are left to RLlib, which notices by this.

    Args:
        algorithm: a PopulationPPO.
        runners: those that Ray began anew before anybody noticed.
    """
    give_weights(algorithm, runners)
    group, config = algorithm.env_runner_group, algorithm.config
    healthy = set(group.healthy_env_runner_ids())
    given = [runner for runner in runners if runner in healthy]
    if not given:
        return
    told = {"algorithm": algorithm, "is_evaluation": False}
    make_callback(
        "on_env_runners_recreated",
        algorithm.callbacks,
        config.callbacks_on_env_runners_recreated,
        kwargs={**told, "env_runner_group": group, "env_runner_indices": given},
    )
    # The same under its name of before, which RLlib still calls.
    make_callback(
        "on_workers_recreated", algorithm.callbacks, kwargs={**told, "worker_set": group, "worker_ids": given}
    )


# ---- what RLlib does not know ----


def own_state(algorithm: Any) -> dict[str, Any]:
    """What of the runners, the clock and selection decides the future."""
    # Not for ever, where one hangs; a checkpoint without its state starts new episodes when it is restored.
    runners = algorithm.foreach_sampling_runner(lambda runner: (runner.worker_index, runner.run_state()), SAVE_SECONDS)
    clock = {
        "performance": algorithm.performance,
        "fades": algorithm.known_fades,
        "schedules": algorithm.schedules.get_state(),
    }
    selection = {} if algorithm.survival is None else {SURVIVAL: algorithm.survival.get_state()}
    ahead = algorithm.ahead.get_state()
    own = {RUNNER_STATES: runners, CLOCK: clock, LEDGER: algorithm.ledger.get_state()}
    return {**own, **selection, **({AHEAD: ahead} if ahead else {})}


def set_own_state(algorithm: Any, state: Mapping[str, Any]) -> None:
    """Go on from an `own_state`; runners that are others than those of the state start new episodes."""
    clock = state.get(CLOCK, {})  # older checkpoints have none
    algorithm.performance, algorithm.known_fades = clock.get("performance"), clock.get("fades")
    algorithm.schedules.set_state(clock.get("schedules", {}))
    algorithm.ledger.set_state(state.get(LEDGER, {}))
    if algorithm.survival is not None and SURVIVAL in state:
        algorithm.survival.set_state(state[SURVIVAL])
    elif algorithm.survival is not None and CLOCK in state:  # a whole checkpoint, and not a component of one
        algorithm.survival.begin_at(algorithm.iteration)
    # What was sampled ahead goes with the worlds that it led to.
    algorithm.ahead.forget()
    saved = dict(state.get(RUNNER_STATES, []))
    if not saved:
        return
    here = dict(algorithm.foreach_sampling_runner(lambda runner: (runner.worker_index, runner.surroundings())))
    difference = _difference(saved, here)
    if difference:
        logger.warning(
            "the checkpoint's env runners have %s: learning and fades go on, and the worlds start new episodes",
            difference,
        )
        algorithm.start_anew()
        return

    def set_run_state(runner: PopulationEnvRunner) -> None:
        runner.set_run_state(saved[runner.worker_index])

    algorithm.foreach_sampling_runner(set_run_state)
    algorithm.ahead.set_state(state.get(AHEAD, ()), algorithm.metrics)


def _difference(saved: Mapping[int, Mapping[str, Any]], here: Mapping[int, Mapping[str, str]]) -> str:
    """What keeps runners from going on from the saved states, in words; empty where they can."""
    if saved.keys() != here.keys():
        return f"{len(saved)} runners, not {len(here)}"
    for index, now in here.items():
        then = saved[index].get("belongs_to", now)  # older checkpoints do not say
        for name in {**now, **then}:  # either may lack what is not in use
            is_unsaid = name in UNSAID and name not in then
            if then.get(name) != now.get(name) and not is_unsaid:
                return f"{name} {then.get(name)}, not {now.get(name)}"
    return ""
