"""Metrics of the language while it is learned: those of the suite, on a small sample, in a small share of the time."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor

from popcomm.channels.kinds import counted, voiced
from popcomm.envs.world import Species
from popcomm.errors import UserError, unknown
from popcomm.language.arrays import as_messages, sample
from popcomm.language.corpora import Corpus
from popcomm.language.suite import DEALT, METRICS, measure
from popcomm.rllib.fragment import Fragment, said_in
from popcomm.rllib.plan import Plan
from popcomm.rllib.settings import Settings
from popcomm.rollout import seed_of

logger = logging.getLogger(__name__)

Fragments = Mapping[str, Fragment[np.ndarray]]

METRICS_BRANCH = 14
# Messages of a sample, and the share of a training's time that all measuring together may take.
SAMPLE, SHARE = 500, 0.03
# Worlds are drawn whole: of so many times as many seats and steps as messages are wanted some say nothing.
SPARE = 8


class LanguageMetrics:
    """Measures the metrics that a config names, each as often as its cost allows.

    A metric is measured in an iteration if what it cost so far is at most its part of SHARE of the time that went by
    since the first: dear ones come seldom, and a long training pays SHARE for all of them at most. When that is depends
    on the machine; what is measured then is a function of the config's seed and the iteration alone, and nothing that
    is drawn here is drawn from what training draws from.

    Args:
        settings: with the names.
        plan: what follows from it.
        attributes: [num_labels, A] int64, what labels are made of; None: they are wholes.
        clock: seconds.
    """

    def __init__(
        self,
        settings: Settings,
        plan: Plan,
        attributes: Tensor | None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        import scipy.stats  # noqa: F401 - metrics import it when they need it, and loading it is no cost of theirs

        assert plan.message_kind is not None
        self.settings, self.plan, self.kind, self.clock = settings, plan, plan.message_kind, clock
        self.attributes = None if attributes is None else attributes.cpu().numpy()
        self.spent = dict.fromkeys(settings.language_metrics, 0.0)  # seconds
        self._begun: float | None = None
        wholes = [name for name in self.spent if METRICS[name].null == DEALT]
        if self.attributes is None and wholes:
            logger.warning(
                "recording.metrics: %s asks whether similar meanings are told alike, and labels of this world have no "
                "attributes (World.label_attributes): two meanings are the same, or they differ",
                ", ".join(wholes),
            )

    def measure(self, fragments: Fragments, labels: Sequence[Tensor], iteration: int) -> dict[str, float]:
        """{metric, or metric/part: value} of those whose turn it is; nothing where nothing was said.

        Args:
            fragments: {species: arrays of B worlds and T steps}.
            labels: T of [B, N] int64; none where the world has none.
        """
        start = self.clock()
        self._begun = start if self._begun is None else self._begun
        allowed = SHARE / len(self.spent) * (start - self._begun)
        due = [name for name, spent in self.spent.items() if spent <= allowed]
        if not due:
            return {}
        seed = seed_of(self.settings.seed or 0, METRICS_BRANCH, iteration)
        corpus = sampled(self.plan, fragments, labels, self.attributes, seed)
        found: dict[str, float] = {}
        for name in due:
            if corpus is not None and all(getattr(corpus, need) is not None for need in METRICS[name].needs):
                rows, _ = measure(corpus, [name], seed, tested=False)
                found |= {row.name.replace(".", "/"): row.value for row in rows if math.isfinite(row.value)}
            now = self.clock()
            self.spent[name] += now - start
            start = now
        return found


def sampled(
    plan: Plan, fragments: Fragments, labels: Sequence[Tensor], attributes: np.ndarray | None, seed: int
) -> Corpus | None:
    """At most SAMPLE messages of whole fragments, of worlds and rows that are drawn from `seed`; None: none was said.

    Where messages are exchanged in rounds they are those of the last. Streams are the episodes of worlds, and speakers
    members, or seats where one network speaks on all of them.
    """
    speakers, kind = speaking_species(plan), plan.message_kind
    assert kind is not None
    parts = [fragments[s.name] for s in speakers]
    worlds, length = parts[0]["alive"].shape[:2]
    seats = np.concatenate([np.arange(s.start, s.stop) for s in speakers])
    enough = -(-SPARE * SAMPLE // (length * len(seats)))
    rows = sample(worlds, enough, seed)
    said = np.concatenate([said_in(a)[rows] for a in parts], 2)  # [B', T, N', ...]
    there = np.concatenate([a["alive"][rows] & _of(a, rows) for a in parts], 2)
    there &= voiced(kind, torch.from_numpy(said)).numpy()
    world, seat, step = np.nonzero(there.swapaxes(1, 2))  # a seat's messages one after another
    chosen = sample(len(world), SAMPLE, seed)
    if not len(chosen):
        return None
    world, seat, step = world[chosen], seat[chosen], step[chosen]
    at = (world, step, seat)
    symbols = counted(kind, torch.from_numpy(said[at])).numpy()
    meanings = None
    if labels:
        label = torch.stack([told[torch.from_numpy(rows)][:, seats] for told in labels], 1).cpu().numpy()[at]
        meanings = label[:, None] if attributes is None else _made_of(label, attributes)
        meanings = meanings if (label >= 0).any() else None
    over = ~np.any([a["alive"][rows].any(2) for a in fragments.values()], 0)  # [B', T]
    episode = np.cumsum(over, 1)[world, step]
    return Corpus(
        as_messages(symbols.reshape(len(symbols), -1), 0 if getattr(kind, "ends", False) else None),
        meanings,
        world * (length + 1) + episode,
        _who(plan, speakers, parts, rows)[at],
        np.concatenate([a["actions"][rows] for a in parts], 2)[at] if _choose(speakers) else None,
    )


def speaking_species(plan: Plan) -> list[Species]:
    """Those who speak, in the order of their seats."""
    return [s for s in plan.layout.species.values() if s.speaks]


def check_metrics(settings: Settings, plan: Plan) -> None:
    """Whether there is what the metrics that are asked for need.

    Raises:
        UserError: a metric that does not exist, or one of what this world or these messages have not.
    """
    names = settings.language_metrics
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise UserError(f"recording.metrics is {names!r}, and must be a list of names, such as ['message_entropy']")
    for name in names:
        if name not in METRICS:
            raise unknown("recording.metrics: the metric", str(name), METRICS)
    if not names:
        return
    kind, speakers = plan.message_kind, speaking_species(plan)
    if kind is None or not speakers:
        logger.warning("recording.metrics: nobody speaks here, so there is nothing to measure")
        return
    if kind.alphabet is None:
        raise UserError(f"recording.metrics is {list(names)}, and messages of kind {kind.kind} have no symbols; use []")
    many = [max(1, plan.species[s.name].members) for s in speakers]
    individuals = sum(many) if max(many) > 1 else sum(s.num_seats for s in speakers)
    missing = {
        "meanings": "" if plan.layout.num_labels else "this environment has no labels",
        "actions": "" if _choose(speakers) else "actions of those who speak are not Discrete",
        "speakers": "" if individuals > 1 else "there is one speaker only",
    }
    for name in names:
        for need in METRICS[name].needs:
            if missing[need]:
                able = [one for one, metric in METRICS.items() if not any(missing[n] for n in metric.needs)]
                raise UserError(
                    f"recording.metrics: {name} needs {need}, and {missing[need]}; allowed here: {', '.join(able)}"
                )


def _choose(speakers: Sequence[Species]) -> bool:
    return all(isinstance(s.action_space, spaces.Discrete) for s in speakers)


def _of(arrays: Fragment[np.ndarray], rows: np.ndarray) -> np.ndarray | bool:
    """Who may speak, where a world or a channel says so."""
    return arrays["voiced"][rows] if "voiced" in arrays else True


def _made_of(label: np.ndarray, attributes: np.ndarray) -> np.ndarray:
    """[M] labels -> [M, A], -1 where there is none."""
    return np.where(label[:, None] >= 0, attributes[label], -1)


def _who(
    plan: Plan, speakers: Sequence[Species], parts: Sequence[Fragment[np.ndarray]], rows: np.ndarray
) -> np.ndarray:
    """[B', T, N'], members, those of different species apart; or seats, where each species is one network."""
    many = [plan.species[s.name].members for s in speakers]
    if max(many) > 1:
        offsets = np.cumsum([0, *many])
        return np.concatenate([a["members"][rows] + o for a, o in zip(parts, offsets, strict=False)], 2)
    seats = np.concatenate([np.arange(s.start, s.stop) for s in speakers])
    return np.broadcast_to(seats, (len(rows), parts[0]["alive"].shape[1], len(seats)))
