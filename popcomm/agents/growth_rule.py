"""GrowthRule: which edges a collective grows, when, and within which budget; read from `agent_config.growth`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from popcomm.agents.growth_criteria import CRITERIA, Criterion
from popcomm.checks import count, number, one_of, share
from popcomm.errors import UserError, unknown

KEY = "agent_config.growth"
GROUPS = ("actor", "critic")
# Criteria that look at no gradient: by chance; controls, which never grow; and a graph that is given.
WITHOUT_GRADIENTS = ("random", "none", "full", "oracle")
KEYS = ("criterion", "edges", "flops", "threshold", "every", "at_once", "window", "warm_up", "stop", "prune")
SHARE = 0.25  # of all edges, the budget where neither a budget nor a threshold is given


@dataclass(frozen=True)
class Pool:
    """Layers whose edges are one budget."""

    layers: tuple[str, ...]
    edges: int  # the most of each network
    flops: float | None  # the most of them, as a share of a dense collective's; None: no limit


@dataclass(frozen=True)
class GrowthRule:
    """When and how much. `GrowthRule.of` reads it, and says what the keys are."""

    criterion: str
    pools: tuple[Pool, ...]
    threshold: float
    every: int
    at_once: int
    window: int
    warm_up: int
    stop: int | None
    prune: float
    graph: Tensor | None = field(default=None, compare=False)  # [E, 2] int64 (sender, receiver), of an oracle

    @classmethod
    def of(cls, given: Mapping[str, Any], layers: Sequence[str], seats: int) -> GrowthRule:
        """Read `agent_config.growth`; docs/bottom_up.md tells what each key does.

        Args:
            given: criterion ("csnr"), edges (a number for the actor and as many for the critic, or {"actor", "critic"
                or a layer's name: number}; of an oracle the pairs), flops (a share of a dense collective's), threshold
                (of the score), every (iterations between growths), at_once (edges of a growth, in each pool and
                network), window (iterations before a growth in which gradients are looked at; all of them), warm_up
                (iterations that nothing is looked at), stop (the last iteration that may grow), prune
                (share of the edges that each growth first drops, the weakest).
            layers: their names, "actor.0" and so on.
            seats: N.

        Raises:
            UserError: an unknown key, a value out of its range, or a budget above a dense collective's.
        """
        if not isinstance(given, Mapping):
            raise UserError(f'{KEY} is {given!r}, and must be a mapping such as {{"criterion": "csnr", "edges": 8}}')
        for key in given:
            if key not in KEYS:
                raise unknown(f"{KEY}: the key", str(key), KEYS)
        name = one_of(f"{KEY}.criterion", given.get("criterion", "csnr"), (*CRITERIA, *WITHOUT_GRADIENTS))
        every, warm_up = (
            count(f"{KEY}.every", given.get("every", 5), 1),
            count(f"{KEY}.warm_up", given.get("warm_up", 0), 0),
        )
        at_once = count(f"{KEY}.at_once", given.get("at_once", max(1, seats // 4)), 1)
        window = count(f"{KEY}.window", given.get("window", every), 1)
        if "window" in given and name in ("random", "oracle"):
            raise UserError(
                f"{KEY}.window is {window}, and has no effect: criterion '{name}' looks at no gradient; leave it out"
            )
        if window > every:
            raise UserError(
                f"{KEY}.window is {window}, and between growths there are {every} iterations (every): at most {every}"
            )
        stop = given.get("stop")
        if stop is not None and count(f"{KEY}.stop", stop, 1) < warm_up + every:
            raise UserError(
                f"{KEY}.stop is {stop}, and the first growth would be in iteration {warm_up + every} (warm_up + "
                "every), so that no step of growth is left"
            )
        threshold = _threshold(name, given)
        edges, graph = given.get("edges"), None
        if name == "oracle":
            edges, graph = None, _graph(edges, seats)
        flops = given.get("flops")
        if flops is not None:
            share(f"{KEY}.flops", flops)
            _check_flops(flops, seats)
        part = SHARE if edges is None and flops is None and given.get("threshold") is None else 1.0
        pools = _pools(edges, flops, layers, seats, part)
        prune = share(f"{KEY}.prune", given.get("prune", 0.0))
        return cls(name, pools, threshold, every, at_once, window, warm_up, stop, prune, graph)

    @property
    def looks(self) -> Criterion | None:
        """The criterion, if it looks at gradients."""
        return CRITERIA.get(self.criterion)

    @property
    def grows(self) -> bool:
        """Whether there ever are other edges than at the start."""
        return self.looks is not None or self.criterion == "random"

    def watches(self, iteration: int) -> bool:
        """Whether gradients are looked at in an iteration; they count from 1."""
        since = iteration - self.warm_up
        if self.looks is None or since < 1:
            return False
        left = -since % self.every  # iterations until it grows
        return left < self.window and (self.stop is None or iteration + left <= self.stop)

    def due(self, iteration: int) -> bool:
        """Whether it grows at the end of an iteration; they count from 1."""
        since = iteration - self.warm_up
        return self.grows and since > 0 and since % self.every == 0 and (self.stop is None or iteration <= self.stop)


def _threshold(criterion: str, given: Mapping[str, Any]) -> float:
    known = CRITERIA.get(criterion)
    if given.get("threshold") is not None:
        return number(f"{KEY}.threshold", given["threshold"], "be a number of at least 0", least=0.0)
    budget = given.get("edges") is not None or given.get("flops") is not None
    return -math.inf if budget or known is None else known.threshold


def _graph(edges: Any, seats: int) -> Tensor:
    """[E, 2] int64, the pairs of an oracle, each once."""
    pairs = edges.tolist() if isinstance(edges, Tensor) else edges
    key = f"{KEY}.edges"
    if not isinstance(pairs, Sequence) or isinstance(pairs, str):
        raise UserError(f"{key} is {edges!r}, and of criterion 'oracle' it must be [[sender, receiver], ...]")
    for pair in pairs:
        numbers = list(pair) if isinstance(pair, Sequence) and not isinstance(pair, str) else [pair]
        fits = len(numbers) == 2 and all(isinstance(n, int) and 0 <= n < seats for n in numbers)
        if not fits or numbers[0] == numbers[1]:
            raise UserError(f"{key} has {pair!r}, and must have pairs of two different seats, 0 to {seats - 1}")
    return torch.tensor(pairs, dtype=torch.int64).view(-1, 2).unique(dim=0)


def _check_flops(flops: float, seats: int) -> None:
    if flops * seats < 1:
        raise UserError(
            f"{KEY}.flops is {flops}, and the own blocks of {seats} seats alone are 1 / {seats} of a dense collective; "
            f"at least {1 / seats:.3g}"
        )


def _pools(edges: Any, flops: float | None, layers: Sequence[str], seats: int, part: float) -> tuple[Pool, ...]:
    """Layers by whose budget they grow; those that a mapping does not name never do.

    Args:
        part: the budget where there is none, as a share of all edges.
    """
    budgets = edges if isinstance(edges, Mapping) else {group: edges for group in GROUPS}
    allowed = [*GROUPS, *layers]
    for name in budgets:
        if name not in allowed:
            raise unknown(f"{KEY}.edges: the layer", str(name), allowed)
    pools = []
    for name, most in budgets.items():
        own = (name,) if name in layers else tuple(n for n in layers if n.startswith(f"{name}.") and n not in budgets)
        key = f"{KEY}.edges{f'.{name}' if isinstance(edges, Mapping) else ''}"
        dense = len(own) * seats * (seats - 1)
        if most is not None and count(key, most, 0) > dense:
            raise UserError(f"{key} is {most}, and {name} has {dense} edges when it is dense: at most {dense}")
        pools.append(Pool(own, math.ceil(dense * part) if most is None else most, flops))
    return tuple(pools)
