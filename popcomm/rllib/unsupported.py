"""Settings of RLlib that a population has no use for are refused, with what to use instead, so that none is ignored."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import cache

from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.policy.policy import PolicySpec

from popcomm.errors import ALSO_CALLED, UserError, nearest, unknown
from popcomm.rllib.by_species import LEARNING
from popcomm.rllib.plan import Plan
from popcomm.rllib.refused_settings import NETWORK, REFUSED
from popcomm.rllib.settings import Settings

# Methods that RLlib's users look for a keyword in.
METHODS = """
    environment env_runners learners training communication population acceleration recording evaluation fault_tolerance
    multi_agent rl_module callbacks resources reporting checkpointing debugging framework offline_data experimental
"""


# Where a setting does act after all.
ACTS: dict[str, Callable[[Settings], bool]] = {
    "grad_clip_by": lambda settings: settings.grad_clip_by == "value",
    "local_gpu_idx": lambda settings: bool(settings.num_gpus_per_learner or settings.num_gpus_per_env_runner),
    "learner_config_dict": lambda settings: settings._learner_class is not None,
}


def check_unsupported(settings: Settings, plan: Plan) -> None:
    """Raises UserError for the first setting of RLlib that was given another value, and that nothing would look at."""
    if settings.in_evaluation:
        return  # RLlib's own copy, with what evaluation needs
    _check_values(settings, filled_in(settings, plan), "")
    for name, own in settings.algorithm_config_overrides_per_module.items():
        if name not in plan.species:
            raise unknown("rl_module.algorithm_config_overrides_per_module: the species", name, plan.species)
        _check_own(name, own, settings)
    for name, species in plan.species.items():
        if settings.own_settings(name):
            _check_values(species.settings, filled_in(settings, plan), f" of species '{name}'")
    _check_spec(settings, plan)


def _check_own(species: str, own: Mapping[str, object], settings: Settings) -> None:
    """Whether each setting that one species has of its own is one that species can have of their own."""
    for key, value in own.items():
        if key not in LEARNING and key not in REFUSED and not same_setting(value, getattr(settings, key, None)):
            raise UserError(
                f"rl_module.algorithm_config_overrides_per_module of '{species}' has {key} {_shown(value)}, which is "
                f"one for all species; species can have their own {', '.join(sorted(LEARNING))}"
            )


def check_names(config: type, method: str, given: Collection[str]) -> None:
    """Raises UserError for a keyword that a config's method does not take, with the one that was meant."""
    known = _keywords_of(config, method)
    for name in given:
        if name in known:
            continue
        for other in ALSO_CALLED.get(name, name), name:
            homes = [home for home in METHODS.split() if other in _keywords_of(config, home)]
            if homes and method not in homes:
                raise UserError(f"{method}.{name} does not exist; '{other}' is a key of '{homes[0]}'")
        raise UserError(f"{method}.{name} does not exist; {nearest(name, known)}")


def _keywords_of(config: type, method: str) -> list[str]:
    return [name for cls in config.__mro__ for name in _keywords(vars(cls).get(method))]


def _keywords(function: object) -> list[str]:
    if not inspect.isfunction(function):
        return []
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.name != "self" and p.kind is not p.VAR_KEYWORD]


def filled_in(settings: Settings, plan: Plan) -> dict[str, object]:
    """{attribute: value} of RLlib's settings that follow from a population's, and that RLlib itself reads."""
    return {
        "policies": {name: PolicySpec() for name in plan.species},
        "num_envs_per_env_runner": settings.num_worlds_per_env_runner,
        "train_batch_size_per_learner": max(1, plan.total_worlds // max(1, settings.num_learners)),
    }


def load_paths(settings: Settings) -> dict[str, str | None]:
    """{species: folder of weights to begin with} of `.rl_module(rl_module_spec=MultiRLModuleSpec(...))`."""
    given = settings._rl_module_spec
    return {} if given is None else {name: spec.load_state_path for name, spec in given.rl_module_specs.items()}


@cache
def _defaults() -> Settings:
    return Settings()


def _check_values(settings: Settings, filled: Mapping[str, object], of_whom: str) -> None:
    before = settings.filled_in  # by an earlier `validate`; the user may have changed what it followed from
    for attribute, (key, instead) in REFUSED.items():
        value, default = getattr(settings, attribute), getattr(_defaults(), attribute)
        if same_setting(value, default) or (attribute in ACTS and ACTS[attribute](settings)):
            continue
        known = attribute.removeprefix("_")
        if any(known in values and same_setting(value, values[known]) for values in (filled, before)):
            continue
        if attribute == "policies" and any(
            _only_names(value, names) for names in (default, filled["policies"], before.get("policies"))
        ):
            continue
        if attribute == "tf_session_args" and value == default | _defaults().local_tf_session_args:
            continue  # as RLlib's group of runners leaves it
        shown = _shown(list(value) if attribute == "policies" else value)
        raise UserError(f"{key}{of_whom} is {shown}, and has no effect here; {instead}")


def _check_spec(settings: Settings, plan: Plan) -> None:
    """Of a module's spec only the folder of its weights is of use: the network is popcomm's to make."""
    given, key = settings._rl_module_spec, "rl_module.rl_module_spec"
    if given is None:
        return
    if not isinstance(given, MultiRLModuleSpec):
        raise UserError(
            f"{key} is of one module, and a population has one per species; use MultiRLModuleSpec(rl_module_specs="
            "{species: RLModuleSpec(load_state_path=...)})"
        )
    for name, spec in given.rl_module_specs.items():
        if name not in plan.species:
            raise unknown(f"{key}: the species", name, plan.species)
        if replace(spec, load_state_path=None) != RLModuleSpec():
            raise UserError(f"{key} of '{name}' says more than load_state_path, which has no effect here; {NETWORK}")


def _only_names(policies: object, species: object) -> bool:
    """Whether RLlib's policies are the species, with nothing said of them."""
    if not isinstance(policies, Collection) or not isinstance(species, Mapping) or set(policies) != set(species):
        return False
    specs = policies.values() if isinstance(policies, Mapping) else ()
    return not any(isinstance(spec, PolicySpec) and (spec.policy_class or spec.config) for spec in specs)


def same_setting(value: object, default: object) -> bool:
    """Equality that holds for classes and functions that went through a pickle, and is False between arrays."""
    if value is default:
        return True
    if callable(value) and callable(default):
        return _name(value) == _name(default)
    try:
        return bool(value == default)
    except (AttributeError, TypeError, ValueError):
        return False


def _name(thing: object) -> tuple[object, object]:
    return getattr(thing, "__module__", None), getattr(thing, "__qualname__", thing)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    text = " ".join((getattr(value, "__name__", None) or repr(value)).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
