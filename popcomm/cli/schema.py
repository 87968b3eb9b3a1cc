"""A document -> a config: each section is a config method, its keys are the method's keyword arguments.

Nothing here knows the methods by name: they are found by looking at the config class, so a new setting is a new
parameter and nothing else. Every mistake is told before work starts, with the key, the value and what is allowed.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from popcomm.agents import AGENTS
from popcomm.channels.kinds import MESSAGE_KINDS, message_kind
from popcomm.channels.topology import TOPOLOGIES, make_topology
from popcomm.cli.documents import load, shown
from popcomm.cli.sources import SUPPLIED
from popcomm.cli.types import REFERENCE, Parameters, convert, parameters
from popcomm.envs import WORLDS
from popcomm.envs.species import DEFAULT
from popcomm.errors import ALSO_CALLED, UserError, nearest
from popcomm.references import attribute, class_of
from popcomm.sources import of_a_source

__all__ = ["STOP_KEYS", "apply", "load", "sections", "stop_bounds"]

Config = TypeVar("Config")

STOP_KEYS = (
    "training_iteration",
    "num_env_steps_sampled_lifetime",
    "num_agent_steps_sampled_lifetime",
    "time_total_s",
    "episode_return_mean",
)
RUN_SECTIONS = ("stop", "tune")
NO_SETTINGS = ("copy", "update_from_dict")


def apply(document: Mapping[str, Mapping[str, Any]], config: Config) -> Config:
    """Call the config method of every section with its keys; `stop` is checked, and `tune` is left to the sweep.

    Args:
        document: {section: {key: value}} as `load` returns it.
        config: any RLlib AlgorithmConfig; changed in place.

    Returns:
        The config.

    Raises:
        UserError: an unknown section or key, a value of the wrong type, or one that the method itself refuses.
    """
    known = sections(type(config))
    for section in document:
        if section not in known and section not in RUN_SECTIONS:
            raise UserError(_no_section(section, known))
    if not document.get("environment", {}).get("env"):
        raise UserError(f"environment.env is missing; for example one of {', '.join(sorted(WORLDS))}")
    stop_bounds(document)
    for section, given in document.items():
        if section not in RUN_SECTIONS:
            _call(config, section, _arguments(section, given, known))
    return config


def converted(document: Mapping[str, Mapping[str, Any]], config_class: type, section: str) -> dict[str, Any]:
    """A section with its values as `apply` gives them to the config's method.

    Raises:
        UserError: an unknown key, or a value of the wrong type.
    """
    return _arguments(section, document.get(section) or {}, sections(config_class))


def sections(config_class: type) -> dict[str, Parameters]:
    """{method: its parameters} of the public methods that set something and return the config."""
    found = {}
    for name, _ in inspect.getmembers(config_class, inspect.isfunction):
        if not name.startswith(("_", "get_")) and name not in NO_SETTINGS and _returns_config(config_class, name):
            takes = parameters(config_class, name)
            if takes.annotations:
                found[name] = takes
    return found


def stop_bounds(document: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """{metric: bound}: training ends when any of them is reached. Empty where the document has no `stop`.

    Raises:
        UserError: a metric that is none of STOP_KEYS, or a bound that is no positive number.
    """
    bounds = {}
    for key, value in (document.get("stop") or {}).items():
        if key not in STOP_KEYS:
            raise UserError(f"stop.{key} does not exist; {nearest(key, STOP_KEYS)}")
        bound = convert(f"stop.{key}", value, float)
        # Returns may be negative all along, so a bound on them may be too.
        if not math.isfinite(bound) or (bound <= 0 and key != "episode_return_mean"):
            raise UserError(f"stop.{key} is {shown(value)}, and must be a positive number")
        bounds[key] = bound
    return bounds


def _returns_config(config_class: type, name: str) -> bool:
    """Whether a class says of the method that it returns the config, as RLlib's chained methods do."""
    own = {"Self", *(cls.__name__ for cls in config_class.__mro__)}
    for cls in config_class.__mro__:
        function = vars(cls).get(name)
        if function is not None:
            returned = inspect.signature(function).return_annotation
            if getattr(returned, "__name__", str(returned)).rpartition(".")[2] in own:
                return True
    return False


def _no_section(section: str, known: Mapping[str, Parameters]) -> str:
    home = _homes(section, known)
    if home:
        return f"{section} is no section; it is a key of {home}"
    return f"the section '{section}' does not exist; {nearest(section, [*known, *RUN_SECTIONS])}"


def _homes(key: str, known: Mapping[str, Parameters]) -> str:
    return " and of ".join(f"'{name}'" for name, takes in known.items() if key in takes.annotations)


def _arguments(section: str, given: Mapping[str, Any], known: Mapping[str, Parameters]) -> dict[str, Any]:
    takes = known[section]
    for key in given:
        if key not in takes.annotations:
            home = _homes(key, known)
            raise UserError(
                f"{section}.{key} does not exist; "
                + (f"'{key}' is a key of {home}" if home else _also_called(key, section, known))
            )
    values = {
        # "vmas:navigation" is no module:attribute.
        key: value if of_a_source(value) else convert(f"{section}.{key}", value, takes.annotations[key])
        for key, value in given.items()
    }
    nested = {"environment": _environment, "population": _population, "communication": _communication}
    return nested[section](values) if section in nested else values


def _also_called(key: str, section: str, known: Mapping[str, Parameters]) -> str:
    """A hint at the key of that meaning, which may be one of another section."""
    name, takes = ALSO_CALLED.get(key, ""), known[section].annotations
    home = "" if name in takes else "'stop'" if name in STOP_KEYS else _homes(name, known)
    return f"did you mean '{name}', a key of {home}?" if home else nearest(key, takes)


def _call(config: Any, section: str, arguments: dict[str, Any]) -> None:
    try:
        getattr(config, section)(**arguments)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"{section}: {' '.join(str(error).split())}") from error


def _environment(values: dict[str, Any]) -> dict[str, Any]:
    env = values.get("env")
    if of_a_source(env):
        return values
    if isinstance(env, str) and env not in WORLDS:
        raise UserError(f"environment.env '{env}' does not exist; {nearest(env, WORLDS)}, or name a module:attribute")
    world = WORLDS[env] if isinstance(env, str) else env
    if isinstance(world, type) and values.get("env_config"):
        values["env_config"] = _fit("environment.env_config", world, values["env_config"])
    return values


def _population(values: dict[str, Any]) -> dict[str, Any]:
    agent, given = values.get("agent"), values.get("agent_config")
    if isinstance(agent, dict):
        values["agent"] = agent = {name: _network(f"population.agent.{name}", one) for name, one in agent.items()}
    elif agent is not None:
        agent = _network("population.agent", agent)
    if given and all(isinstance(inner, dict) for inner in given.values()) and not _are_keywords(agent, given):
        networks = {name: agent.get(name, agent.get(DEFAULT)) if isinstance(agent, dict) else agent for name in given}
        values["agent_config"] = {
            name: _fitted(f"population.agent_config.{name}", networks[name], inner) for name, inner in given.items()
        }
    elif given and not isinstance(agent, dict):
        values["agent_config"] = _fitted("population.agent_config", agent, given)
    return values


def _are_keywords(agent: Any, given: Mapping[str, Any]) -> bool:
    """Whether mappings are arguments of the one network that there is, and not each a species'."""
    network = AGENTS.get(agent) if isinstance(agent, str) else agent
    if not isinstance(network, type):
        return False
    return any(key in parameters(network, "__init__").annotations for key in given)


def _network(key: str, agent: Any) -> Any:
    """What an agent is in YAML: a name of AGENTS, or the class that "module:Class" names."""
    if not isinstance(agent, str):
        return agent
    if REFERENCE.match(agent):
        return attribute(key, agent)
    if agent not in AGENTS:
        raise UserError(f"{key} '{agent}' does not exist; {nearest(agent, AGENTS)}, or name a module:Class")
    return agent


def _fitted(key: str, agent: Any, given: Mapping[str, Any]) -> Mapping[str, Any]:
    network = AGENTS[agent] if isinstance(agent, str) else agent
    return _fit(key, network, given) if isinstance(network, type) else given


def _communication(values: dict[str, Any]) -> dict[str, Any]:
    builds: tuple[tuple[str, dict[str, type], Callable[[Any], Any]], ...] = (
        ("messages", MESSAGE_KINDS, message_kind),
        ("topology", TOPOLOGIES, make_topology),
    )
    for key, classes, build in builds:
        value = values.get(key)
        if value is None:
            continue
        if not isinstance(value, dict):
            raise UserError(f"communication.{key} is {shown(value)}, and must be a mapping such as {{kind: {value}}}")
        if "kind" in value:
            rest = {name: v for name, v in value.items() if name != "kind"}
            fitted = _fit(f"communication.{key}", class_of(f"communication.{key}", value["kind"], classes), rest)
            values[key] = {"kind": value["kind"], **fitted}
        build(values[key])  # raises what is wrong with the values themselves
    return values


def _fit(name: str, cls: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given arguments, checked against what the class is constructed from."""
    takes = parameters(cls, "__init__")
    allowed = [key for key in takes.annotations if key not in SUPPLIED]
    for key in given:
        if key not in allowed and not takes.takes_more:
            raise UserError(f"{name}.{key} does not exist; {nearest(str(key), allowed)}")
    return {key: convert(f"{name}.{key}", value, takes.annotations.get(key, Any)) for key, value in given.items()}
