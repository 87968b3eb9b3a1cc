"""Agents in a folder: weights as safetensors, what they were built from as readable JSON, nothing pickled."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from popcomm.agents.contract import AgentSpec
from popcomm.channels.kinds import MESSAGE_KINDS, message_kind
from popcomm.channels.messages import MessageKind, Symbols
from popcomm.channels.relaxed import RelaxedSymbols
from popcomm.envs.space_json import space_from_json, space_to_json
from popcomm.errors import UserError
from popcomm.references import reference_to

FORMAT_VERSION = 1
NO_CONFIG = ("spec", "generator")  # what no config holds
WEIGHTS, CONFIG = "model.safetensors", "config.json"

Self = TypeVar("Self", bound="Pretrained")


class Pretrained:
    """Part of an agent: `save_pretrained` and `from_pretrained`.

    The agent's constructor takes a spec and other arguments. `config` holds those others, of JSON's types; they are
    noted when the agent is made, defaults included.
    """

    spec: AgentSpec
    config: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        agent = super().__new__(cls)
        if args or kwargs:  # neither, where a copy is filled by whoever makes it
            agent.config = _arguments(cls, args, kwargs)
        return agent

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write model.safetensors and config.json into a folder, which is made if need be. Returns the folder."""
        return save(self, folder)

    @classmethod
    def from_pretrained(cls: type[Self], folder: str | Path, spec: AgentSpec | None = None) -> Self:
        """The agent that was saved, on the CPU.

        Args:
            folder: what `save_pretrained` wrote.
            spec: the place where it is to act now; the one it was saved with if None. The size of the inbox and, if
                there are fewer, the number of agents may differ.

        Raises:
            UserError: no such folder, a damaged file, another class's or a later version's, a spec that does not fit.
        """
        return load(cls, folder, spec)


def _arguments(cls: type, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    """What an agent is made with, by name, but for its place and the source of its weights.

    What does not fit the constructor is left to the constructor to say.
    """
    try:
        bound = inspect.signature(cls.__init__).bind(None, *args, **kwargs)  # type: ignore[misc]
    except TypeError:
        return dict(kwargs)
    bound.apply_defaults()
    _, *given = bound.signature.parameters.values()
    found: dict[str, Any] = {}
    for parameter in given:
        value = bound.arguments[parameter.name]
        found |= value if parameter.kind is parameter.VAR_KEYWORD else {parameter.name: value}
    return {name: value for name, value in found.items() if name not in NO_CONFIG}


def as_pretrained(cls: Any) -> Any:
    """The class itself, or one like it that has `save_pretrained` and `from_pretrained`."""
    if hasattr(cls, "save_pretrained"):
        return cls
    return type(cls.__name__, (Pretrained, cls), {"__module__": cls.__module__, "__qualname__": cls.__qualname__})


def save(agent: Any, folder: str | Path, config: Mapping[str, Any] | None = None) -> Path:
    """Write an agent that has a `spec`; the config last, so that with it all is there.

    Args:
        agent: the agent.
        folder: where to.
        config: what it was made with; None: its own `config` (see `Pretrained`).

    Raises:
        UserError: the folder's name is that of a file, or the config is of types that JSON does not have.
    """
    folder = Path(folder)
    if folder.is_file():
        raise UserError(f"{folder} is a file, and an agent is saved in a folder")
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "format": "popcomm-agent",
        "format_version": FORMAT_VERSION,
        "class": type(agent).__name__,
        **_home(type(agent)),
        "spec": spec_to_json(agent.spec),
        "config": agent.config if config is None else dict(config),
    }
    try:
        text = json.dumps(about, indent=2, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(
            f"{type(agent).__name__} cannot be saved: its config {about['config']} must be of JSON's types"
        ) from error
    weights = {name: value.detach().cpu().contiguous() for name, value in agent.state_dict().items()}
    save_file(weights, folder / f".{WEIGHTS}")
    (folder / f".{WEIGHTS}").replace(folder / WEIGHTS)
    (folder / f".{CONFIG}").write_text(text + "\n")
    (folder / f".{CONFIG}").replace(folder / CONFIG)
    return folder


def load(cls: Any, folder: str | Path, spec: AgentSpec | None = None) -> Any:
    """An agent of the class from what `save` wrote; see `Pretrained.from_pretrained`."""
    folder = Path(folder)
    about = _read_config(folder, cls.__name__)
    try:
        stored, config = spec_from_json(about["spec"]), dict(about["config"])
        of_seats = getattr(cls, "collective", False)
        agent = cls(stored if spec is None else _fitted(stored, spec, folder, of_seats), **config)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / CONFIG} is damaged: {in_a_line(error)}") from error
    _fill(agent, folder / WEIGHTS)
    return agent


def _home(cls: type) -> dict[str, str]:
    """{"agent": "module:Class"} of a class that is none of popcomm's."""
    found = None if cls.__module__.startswith("popcomm.") else reference_to(cls)
    return {} if found is None else {"agent": found}


def class_named(folder: str | Path) -> tuple[str, str | None]:
    """The class of an agent that was saved, by name, and as "module:Class" where it is none of popcomm's.

    Raises:
        UserError: no such folder, or a damaged one.
    """
    about = _read_config(Path(folder))
    return str(about.get("class")), about.get("agent")


def _read_config(folder: Path, name: str | None = None) -> dict[str, Any]:
    missing = f"{folder} has no {CONFIG}, and a folder written by save_pretrained has one"
    about = read_description(folder / CONFIG, "popcomm-agent", FORMAT_VERSION, "an agent", missing)
    if name is not None and about.get("class") != name:
        raise UserError(f"{folder} holds a {about.get('class')}, and not a {name}")
    return about


def read_description(path: Path, form: str, version: int, what: str, missing: str) -> dict[str, Any]:
    """A JSON file that says of itself what it is.

    Args:
        form, version: its "format" and "format_version".
        what: it should describe, in words.
        missing: what is said where it is not there.

    Raises:
        UserError: it is not there, cannot be read, or is another one.
    """
    try:
        about = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(missing) from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {in_a_line(error)}") from error
    if not isinstance(about, dict) or about.get("format") != form:
        raise UserError(f"{path} does not describe {what} of popcomm")
    found = about.get("format_version")
    if found != version:
        raise UserError(f"{path} has format_version {found}, and this popcomm reads {version}")
    return about


def _fill(agent: nn.Module, path: Path) -> None:
    """Load the weights, all of them and no others."""
    try:
        weights = load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path.parent} has no {WEIGHTS}, and a folder written by save_pretrained has one") from error
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{path} is damaged: {in_a_line(error)}") from error
    wanted = agent.state_dict()
    for name in sorted(wanted.keys() ^ weights.keys()):
        raise UserError(
            f"{path} {'lacks' if name in wanted else 'has'} the weight '{name}', and {CONFIG} says otherwise"
        )
    try:
        # Networks that grow take the sizes that come (`popcomm.agents.reindex.take_sizes`).
        agent.load_state_dict(weights)
    except RuntimeError as error:
        different = (name for name, value in weights.items() if value.shape != wanted[name].shape)
        name = next(different, "")
        if not name:
            raise UserError(f"{path} does not fit {CONFIG}: {in_a_line(error)}") from error
        shapes = f"{tuple(weights[name].shape)}, and {CONFIG} asks for {tuple(wanted[name].shape)}"
        raise UserError(f"{path} has the weight '{name}' with shape {shapes}") from error


def _fitted(stored: AgentSpec, wanted: AgentSpec, folder: Path, of_seats: bool) -> AgentSpec:
    """The wanted spec, with the stored number of senders that it can tell apart. of_seats: of a collective.

    Raises:
        UserError: the agent cannot act there.
    """
    # Of what an agent observes only the numbers count, as long as its network has the stored shapes.
    free = {"inbox_size", "num_agents", "rounds", "species", "seat_species", "observation_space"}
    free |= set() if of_seats else {"num_seats", "seating"}
    here, there = spec_to_json(wanted), spec_to_json(stored)
    for key in (key for key in there if key not in free):
        if here[key] != there[key]:
            raise UserError(f"{folder} holds an agent for {key} = {_short(there[key])}, not {_short(here[key])}")
    if wanted.num_agents > stored.num_agents:
        raise UserError(
            f"{folder} holds an agent that tells {stored.num_agents} agents apart, and there are {wanted.num_agents}"
        )
    # Who was made to weigh candidates, or was not, is so wherever it acts: the numbers are the same.
    form = wanted.observation_space if wanted.candidates == stored.candidates else stored.observation_space
    return replace(wanted, num_agents=stored.num_agents, observation_space=form)


def _short(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    return ", ".join(f"{key} {part}" for key, part in value.items())


def in_a_line(error: Exception) -> str:
    """What an error says, for the end of a sentence of ours."""
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


# ---- the spec as JSON ----


def spec_to_json(spec: AgentSpec) -> dict[str, Any]:
    """An AgentSpec (its own fields, not those of subclasses) as types that JSON has."""
    plain = {field.name: getattr(spec, field.name) for field in fields(AgentSpec)}
    messages = spec.messages
    plain["action_space"] = space_to_json(spec.action_space)
    plain["observation_space"] = _form(spec.observation_space)
    plain["seat_species"], plain["gates"] = list(spec.seat_species), list(spec.gates)
    plain["messages"] = None if messages is None else kind_to_json(messages)
    return plain


def spec_from_json(data: Mapping[str, Any]) -> AgentSpec:
    """The inverse of `spec_to_json`.

    Raises:
        UserError, KeyError, TypeError, ValueError: the data are no spec.
    """
    seen = data.get("observation_space")  # what was saved before has none, and no seats
    made = {
        "messages": message_kind(data["messages"]),
        "action_space": space_from_json(data["action_space"]),
        "observation_space": None if seen is None else space_from_json(seen),
        "seat_species": tuple(data.get("seat_species", ())),
        "gates": tuple(data.get("gates", ())),
    }
    return AgentSpec(**{**data, **made})


def _form(space: spaces.Space | None) -> dict[str, Any] | None:
    """What is observed in its own form; None for a space that JSON does not have, which is told by its size."""
    try:
        return None if space is None else space_to_json(space)
    except UserError:
        return None


def kind_to_json(kind: MessageKind) -> dict[str, Any]:
    """The mapping that a config would have for it."""
    if not is_dataclass(kind):
        raise UserError(f"messages are {kind!r}, and of a kind of your own that is saved the class must be a dataclass")
    own: dict[str, Any] = asdict(kind)
    if isinstance(kind, RelaxedSymbols):
        return {"kind": Symbols.kind, **own, "relaxed": True}
    if type(kind) is Symbols:  # which are not, as everything saved before could not be
        del own["relaxed"], own["noise"]
    if not own.get("end_symbol", True):
        del own["end_symbol"]
    if type(kind) in MESSAGE_KINDS.values():
        return {"kind": kind.kind, **own}
    found = reference_to(type(kind))
    if found is None:
        raise UserError(f"messages are of class {type(kind).__name__}, which no module:Class names")
    return {"kind": found, **own}
