"""Settings that may differ between species: one value for all, or {species: value, "default": value}."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard, TypeVar

from popcomm.envs.species import DEFAULT
from popcomm.envs.world import Species
from popcomm.errors import UserError, unknown

T = TypeVar("T")

BySpecies: TypeAlias = T | Mapping[str, T]

# What each species learns with: settings of `training`, RLlib's and those of populations.
RLLIBS = ("lr", "gamma", "lambda_", "clip_param", "vf_clip_param", "vf_loss_coeff", "grad_clip", "grad_clip_by")
LEARNING = (
    *RLLIBS,
    "entropy_coeff",
    "normalize_returns",
    "rare_action_share",
    "entropy_over_worlds",
    "message_entropy_coeff",
    "quality_coeff",
    "message_balance_coeff",
    "message_kl_coeff",
    "message_sharpness",
)


def is_by_species(value: object) -> TypeGuard[Mapping[str, Any]]:
    """Whether a value is given by species: a mapping, and none that stands for values yet to be tried.

    >>> is_by_species({"default": 0.1}), is_by_species({"grid_search": [0.1, 0.2]})
    (True, False)
    """
    return isinstance(value, Mapping) and not (set(value) == {"grid_search"} and isinstance(value["grid_search"], list))


def of_species(key: str, value: Any, species: Species) -> Any:
    """The value for one species.

    Args:
        key: what it is the value of, named in errors.
        value: one for all, or {species: value, "default": value}.

    Raises:
        UserError: a mapping that has none for this species.
    """
    if not isinstance(value, Mapping):
        return value
    if species.name not in value and DEFAULT not in value:
        agents = f" ({_few(species.agents)})" if species.agents else ""
        raise UserError(f"{key} says nothing of species '{species.name}'{agents}; name it, or give a '{DEFAULT}'")
    return value.get(species.name, value.get(DEFAULT))


def _few(agents: Sequence[str]) -> str:
    shown = agents if len(agents) <= 3 else (agents[0], "...", agents[-1])
    return ", ".join(shown)


def check_species(key: str, value: Any, species: Mapping[str, Species]) -> None:
    """Raises UserError unless a mapping by species names all of them, or has a default, and names no other."""
    if not isinstance(value, Mapping):
        return
    for name in value:
        if name not in species and name != DEFAULT:
            raise unknown(f"{key}: the species", name, [*species, DEFAULT])
    for one in species.values():
        of_species(key, value, one)


def keywords_by_species(value: Mapping[str, Any], species: Collection[str]) -> bool:
    """Whether keyword arguments are given by species: mappings, of which one at least is a species' or the default."""
    of_mappings = bool(value) and all(isinstance(inner, Mapping) for inner in value.values())
    return of_mappings and any(name in species or name == DEFAULT for name in value)
