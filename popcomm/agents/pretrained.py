"""Agents in a folder: weights as safetensors, what they were built from as readable JSON, nothing pickled."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from gymnasium import spaces
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from popcomm.agents.contract import AgentSpec
from popcomm.channels.kinds import MESSAGE_KINDS, message_kind
from popcomm.channels.messages import MessageKind, Symbols
from popcomm.channels.relaxed import RelaxedSymbols
from popcomm.errors import UserError

FORMAT_VERSION = 1
WEIGHTS, CONFIG = "model.safetensors", "config.json"

Self = TypeVar("Self", bound="Pretrained")


class Pretrained:
    """Part of an agent: `save_pretrained` and `from_pretrained`.

    The agent's constructor takes a spec and keyword arguments; `config` holds those arguments, of JSON's types.
    """

    spec: AgentSpec
    config: dict[str, Any]

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


def save(agent: Any, folder: str | Path) -> Path:
    """Write an agent that has `spec` and `config` (see `Pretrained`); the config last, so that with it all is there.

    Raises:
        UserError: the folder's name is that of a file.
    """
    folder = Path(folder)
    if folder.is_file():
        raise UserError(f"{folder} is a file, and an agent is saved in a folder")
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "format": "popcomm-agent",
        "format_version": FORMAT_VERSION,
        "class": type(agent).__name__,
        "spec": spec_to_json(agent.spec),
        "config": agent.config,
    }
    text = json.dumps(about, indent=2, allow_nan=False)
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
        agent = cls(stored if spec is None else _fitted(stored, spec, folder), **config)
    except UserError:
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / CONFIG} is damaged: {_sentence(error)}") from error
    _fill(agent, folder / WEIGHTS)
    return agent


def _read_config(folder: Path, name: str) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        about = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise UserError(f"{folder} has no {CONFIG}, and a folder written by save_pretrained has one") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {_sentence(error)}") from error
    if not isinstance(about, dict) or about.get("format") != "popcomm-agent":
        raise UserError(f"{path} does not describe an agent of popcomm")
    version = about.get("format_version")
    if version != FORMAT_VERSION:
        raise UserError(f"{path} has format_version {version}, and this popcomm reads {FORMAT_VERSION}")
    if about.get("class") != name:
        raise UserError(f"{folder} holds a {about.get('class')}, and not a {name}")
    return about


def _fill(agent: nn.Module, path: Path) -> None:
    """Load the weights, all of them and no others."""
    try:
        weights = load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"{path.parent} has no {WEIGHTS}, and a folder written by save_pretrained has one") from error
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{path} is damaged: {_sentence(error)}") from error
    wanted = agent.state_dict()
    for name in sorted(wanted.keys() ^ weights.keys()):
        raise UserError(
            f"{path} {'lacks' if name in wanted else 'has'} the weight '{name}', and {CONFIG} says otherwise"
        )
    for name, value in weights.items():
        if value.shape != wanted[name].shape:
            shapes = f"{tuple(value.shape)}, and {CONFIG} asks for {tuple(wanted[name].shape)}"
            raise UserError(f"{path} has the weight '{name}' with shape {shapes}")
    with torch.no_grad():
        agent.load_state_dict(weights)


def _fitted(stored: AgentSpec, wanted: AgentSpec, folder: Path) -> AgentSpec:
    """The wanted spec, with the stored number of senders that it can tell apart.

    Raises:
        UserError: the agent cannot act there.
    """
    free = {"inbox_size", "num_agents"}
    here, there = spec_to_json(wanted), spec_to_json(stored)
    for key in (key for key in there if key not in free):
        if here[key] != there[key]:
            raise UserError(f"{folder} holds an agent for {key} = {_short(there[key])}, not {_short(here[key])}")
    if wanted.num_agents > stored.num_agents:
        raise UserError(
            f"{folder} holds an agent that tells {stored.num_agents} agents apart, and there are {wanted.num_agents}"
        )
    return replace(wanted, num_agents=stored.num_agents)


def _short(value: Any) -> str:
    if not isinstance(value, Mapping):
        return str(value)
    return ", ".join(f"{key} {part}" for key, part in value.items())


def _sentence(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


# ---- the spec as JSON ----


def spec_to_json(spec: AgentSpec) -> dict[str, Any]:
    """An AgentSpec (its own fields, not those of subclasses) as types that JSON has."""
    plain = {field.name: getattr(spec, field.name) for field in fields(AgentSpec)}
    messages = spec.messages
    plain["action_space"] = _space_to_json(spec.action_space)
    plain["messages"] = None if messages is None else _kind_to_json(messages)
    return plain


def spec_from_json(data: Mapping[str, Any]) -> AgentSpec:
    """The inverse of `spec_to_json`.

    Raises:
        UserError, KeyError, TypeError, ValueError: the data are no spec.
    """
    messages = message_kind(data["messages"])
    return AgentSpec(**{**data, "action_space": _space_from_json(data["action_space"]), "messages": messages})


def _kind_to_json(kind: MessageKind) -> dict[str, Any]:
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
    return {"kind": f"{type(kind).__module__}:{type(kind).__qualname__}", **own}


def _space_to_json(space: spaces.Space) -> dict[str, Any]:
    if isinstance(space, spaces.Discrete):
        return {"kind": "discrete", "n": int(space.n), "start": int(space.start)}
    if isinstance(space, spaces.MultiDiscrete):
        return {"kind": "multi_discrete", "nvec": space.nvec.tolist()}
    assert isinstance(space, spaces.Box), space  # the contract knows no other
    return {"kind": "box", "low": _bounds(space.low), "high": _bounds(space.high)}


def _bounds(values: np.ndarray) -> list[float | str]:
    """Numbers as JSON has them; infinite ones, which it has not, as "inf" and "-inf"."""
    return [float(v) if math.isfinite(v) else str(float(v)) for v in values]


def _space_from_json(data: Mapping[str, Any]) -> spaces.Space:
    if data["kind"] == "discrete":
        return spaces.Discrete(data["n"], start=data["start"])
    if data["kind"] == "multi_discrete":
        return spaces.MultiDiscrete(data["nvec"])
    if data["kind"] == "box":
        low, high = (np.array([float(v) for v in data[key]], np.float32) for key in ("low", "high"))
        return spaces.Box(low, high, dtype=np.float32)
    raise ValueError(f"no action space of kind '{data['kind']}'")
