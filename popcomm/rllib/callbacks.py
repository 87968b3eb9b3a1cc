"""A user's callbacks: which of RLlib's hooks a population calls, and those of an env runner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.utils import force_list

from popcomm.errors import UserError, nearest
from popcomm.rllib.settings import Settings

# Called by the algorithm, as RLlib's own does it.
OF_ALGORITHM = (
    "on_algorithm_init",
    "on_train_result",
    "on_evaluate_start",
    "on_evaluate_end",
    "on_checkpoint_loaded",
    "on_env_runners_recreated",
    "on_workers_recreated",
)
OF_EPISODES = ("on_episode_created", "on_episode_start", "on_episode_step", "on_episode_end")
OF_RUNNER = ("on_environment_created", *OF_EPISODES, "on_sample_end")
HOOKS = (*OF_ALGORITHM, *OF_RUNNER)

OFFLINE = "populations learn from what they live through"
# {hook of RLlib that nothing here would call: what to use instead}
NEVER_CALLED = {
    "on_create_policy": "networks are made by population.agent",
    "on_postprocess_trajectory": "use training.learner_class, a PopulationPPOLearner of your own",
    "on_learn_on_batch": "use training.learner_class, a PopulationPPOLearner of your own",
    "on_sub_environment_created": "use on_environment_created, which gets all worlds of an env runner",
    "on_evaluate_offline_start": OFFLINE,
    "on_evaluate_offline_end": OFFLINE,
    "on_offline_eval_runners_recreated": OFFLINE,
}


class RecordingCallback(RLlibCallback):
    """What recorded in checkpoints of before; recording is no callback any more (popcomm.rllib.recording)."""


def check_callbacks(settings: Settings) -> None:
    """Raises UserError for a hook that a user's class or setting has, and that would never be called."""
    for given in force_list(settings.callbacks_class):
        cls = getattr(given, "func", given)  # of a functools.partial
        if isinstance(cls, type):
            for name in dir(cls):
                _check_hook(f"callbacks.callbacks_class {cls.__name__} has", name, cls)
    for name, instead in NEVER_CALLED.items():
        if getattr(settings, f"callbacks_{name}", None) is not None:
            raise UserError(f"callbacks.{name} is set, and is never called here; {instead}")


def _check_hook(who: str, name: str, cls: type) -> None:
    if not name.startswith("on_") or name in HOOKS or not _overridden(cls, name):
        return
    if name in NEVER_CALLED:
        raise UserError(f"{who} {name}, which is never called here; {NEVER_CALLED[name]}")
    raise UserError(f"{who} {name}, which is no hook of RLlib; {nearest(name, HOOKS)}")


def _overridden(cls: type, hook: str) -> bool:
    return getattr(cls, hook, None) is not getattr(RLlibCallback, hook, None)


class RunnerCallbacks:
    """The hooks of one env runner that somebody wants; what nobody wants is not there, and costs nothing.

    Args:
        settings: with the user's classes, of which instances are made, and functions.
        of_runner: what every hook gets as keyword arguments: env_runner, metrics_logger.
    """

    def __init__(self, settings: Settings, of_runner: Mapping[str, Any]) -> None:
        self.objects = [make() for make in force_list(settings.callbacks_class)]
        self.of_runner = dict(of_runner)
        self.wanted: dict[str, list[Callable[..., Any]]] = {}
        for hook in OF_RUNNER:
            methods = [getattr(own, hook) for own in self.objects if _overridden(type(own), hook)]
            calls = methods + force_list(getattr(settings, f"callbacks_{hook}", None))
            if calls:
                self.wanted[hook] = calls

    @property
    def follow_episodes(self) -> bool:
        """Whether anybody wants to know of episodes."""
        return any(hook in self.wanted for hook in OF_EPISODES)

    def call(self, hook: str, **arguments: object) -> None:
        """Call those who want it, classes before functions, as RLlib does."""
        for wanted in self.wanted.get(hook, ()):
            wanted(**self.of_runner, **arguments)
