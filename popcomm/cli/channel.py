"""`popcomm channel`: how large a channel of words must be, before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from popcomm import theory
from popcomm.channels.topology import Custom, Topology, make_topology
from popcomm.checks import at_least_zero, between
from popcomm.errors import UserError, unknown

Array = NDArray[Any]

GENERATIONS = (1, 2, 5, 10, 20, 50)
RULES = ("local_rule", "bernoulli", "per_agent")
GRAPHS = ("full", "ring", "k_nearest", "star")
WITH_K = ("ring", "k_nearest")
DEFAULT_TARGET = 0.5
LEAST_LOSS = 1e-9
# Agents by how much they hear, of which the inbox is computed: the first is the largest on all but odd graphs.
CANDIDATES = 8


@dataclass(frozen=True)
class Graph:
    """Who hears whom: hears [N, N], row by sender; settings is the topology's YAML."""

    name: str
    hears: Array
    feedback: bool
    settings: dict[str, Any]
    note: str

    @classmethod
    def of(cls, name: str, agents: int, k: int | None, feedback: bool, seed: int) -> Graph:
        """Raises UserError: no such topology, or a k that it has no use for, or more than there are others."""
        if name not in GRAPHS:
            raise unknown("--topology", name, GRAPHS)
        if k is not None and name not in WITH_K:
            raise UserError(f"--k {k} is for {' and '.join(WITH_K)}; {name} has no k")
        settings: dict[str, Any] = {"kind": name}
        note = ""
        topology: Topology
        if name == "star":
            adjacency = _star(agents)
            settings = {"kind": "custom", "adjacency": adjacency}
            topology, note = Custom(adjacency), "agent 0 hears all and is heard by all"
        else:
            settings |= {} if k is None else {"k": k}
            topology = make_topology(settings)
            if isinstance(used := getattr(topology, "k", None), int):
                settings["k"] = used
        positions = None
        if topology.needs_positions:
            positions = torch.rand(1, agents, 2, generator=torch.Generator().manual_seed(seed))
            note = f"on a torus with random positions, seed {seed}"
        topology.inbox_size(agents)  # refuses a k that is too large
        links = topology.connect(torch.ones(1, agents, dtype=torch.bool), positions, (1.0, 1.0))
        hears = np.eye(agents) if feedback else np.zeros((agents, agents))
        listener, place = links.mask[0].nonzero(as_tuple=True)
        hears[links.senders[0, listener, place].numpy(), listener.numpy()] = 1.0
        return cls(name, hears, feedback, settings, note)


@dataclass(frozen=True)
class Repetition:
    """How often each agent repeats what it hears: p [N]; settings is the decision's YAML."""

    p: Array
    settings: dict[str, Any]

    @classmethod
    def of(cls, rule: str, target: float | None, p: str | None, audience: Graph) -> Repetition:
        """Raises UserError: no such rule, a value that is not its own, or a target that nothing would hold."""
        if rule not in RULES:
            raise unknown("--rule", rule, RULES)
        if rule == "local_rule":
            if p is not None:
                raise UserError("--p is for bernoulli and per_agent; local_rule takes --target")
            wanted = DEFAULT_TARGET if target is None else at_least_zero("--target", target)
            if wanted >= 1:
                raise UserError(
                    f"--target is {wanted:g}, and must be below 1: at R >= 1 words multiply without end, and a rule "
                    "without a brake does nothing against it"
                )
            return cls(theory.local_rule(audience.hears, wanted), {"kind": rule, "target": wanted})
        if target is not None:
            raise UserError(f"--target is for local_rule; {rule} takes --p")
        agents = len(audience.hears)
        values = _parsed(rule, p)
        if rule == "bernoulli":
            if len(values) != 1:
                raise UserError(f"--p has {len(values)} numbers, and bernoulli takes one; per_agent takes one for each")
            return cls(np.full(agents, values[0]), {"kind": rule, "p": values[0]})
        if len(values) != agents:
            raise UserError(f"--p has {len(values)} numbers, and per_agent takes one for each of {agents} agents")
        return cls(np.array(values), {"kind": rule, "p": values})


@dataclass(frozen=True)
class Plan:
    """What there is to know of a channel; rates and loads in transmissions a step."""

    words: dict[str, Any]
    audience: Graph
    repetition: Repetition
    rate: float
    publish: float
    loss: float
    word_count: int
    word_chance: float
    radius: float
    threshold: float
    extinction: Array  # [N]
    progeny: tuple[Array, Array]  # mean and variance by sender, [N]
    alive: Array  # [N, len(GENERATIONS)]
    load: theory.LoadByType
    exact: theory.StationaryLoad | None  # the distribution of the load, where all transmissions are alike
    heard: Array  # [S], of the agent that hears most: which sources, the publisher last
    heard_mean: Array  # [N]
    capacity: int
    inbox: int

    @property
    def hears_all(self) -> bool:
        return bool(self.heard.all())

    def M(self) -> Array:
        return theory.next_generation_matrix(self.audience.hears, self.repetition.p)


def plan(
    words: dict[str, Any], audience: Graph, repetition: Repetition, rate: float, publish: float, loss: float
) -> Plan:
    """All numbers of a channel with `rate` new words a step, equally from all agents, and `publish` from nobody.

    Raises:
        UserError: a gate, rate or loss that is none, or R >= 1.
    """
    gate = (words["bits"], words["min_on"], words["max_on"])
    count, chance = theory.word_count(*gate), theory.word_probability(*gate)
    rate, publish = at_least_zero("--rate", rate), at_least_zero("--publish", publish)
    loss = between("--loss", loss, LEAST_LOSS, 0.5)
    hears, p = audience.hears, repetition.p
    M = theory.next_generation_matrix(hears, p)
    radius, threshold = float(theory.spectral_radius(M)), float(theory.repetition_threshold(hears))
    extinction = theory.extinction_by_type(M)
    if radius >= 1.0 - 1e-12:
        raise UserError(
            f"R is {radius:.4g} with these p, and must be below 1: at R >= 1 words multiply without end and no log "
            f"holds them (a word dies out with probability {_span(extinction)}); on this topology R is 1 at a common p "
            f"of {threshold:.4g}"
        )
    sources = np.full(len(p), rate / len(p))
    if publish:
        # Nobody's words are heard by all, and nobody repeats as nobody.
        hears = np.vstack([hears, np.ones(len(p))])
        M = np.block([[M, np.zeros((len(p), 1))], [p, 0.0]])
        sources = np.append(sources, publish)
    load = theory.load_by_type(sources, M)
    exact = theory.stationary_load(rate + publish, M[0]) if _alike(M) else None
    capacity = max(1, exact.capacity(loss) if exact else load.capacity(loss))
    mean, heard, inbox = _inbox(load, hears, exact, loss)
    return Plan(
        words, audience, repetition, rate, publish, loss, count, chance, radius, threshold, extinction,
        theory.progeny_moments(M[: len(p), : len(p)]),
        theory.alive_by_type(M[: len(p), : len(p)], GENERATIONS),
        load, exact, heard, mean, capacity, max(1, min(inbox, capacity)),
    )  # fmt: skip


def _alike(M: Array) -> bool:
    """Whether repeats have the same distribution for every source, so that the whole load is of one type."""
    rows = np.sort(M, 1)
    return bool(np.allclose(rows, rows[0], rtol=1e-12, atol=0.0))


def _inbox(
    load: theory.LoadByType, hears: Array, exact: theory.StationaryLoad | None, loss: float
) -> tuple[Array, Array, int]:
    """Mean that each agent hears [N], the sources that the busiest hears [S], and the inbox that suffices for it."""
    square = np.zeros(load.M.shape)
    square[:, : hears.shape[1]] = hears
    mean, var = (v[: hears.shape[1]] for v in load.heard(square))
    busiest = np.argsort(-(mean + 3.0 * np.sqrt(var)), kind="stable")
    _, first = np.unique(np.round(np.stack([mean, var], 1)[busiest], 9), axis=0, return_index=True)
    candidates = busiest[np.sort(first)[:CANDIDATES]]
    if exact and hears[:, candidates[0]].all():
        return mean, hears[:, candidates[0]], exact.capacity(loss)
    sizes = [load.capacity(loss, hears[:, j]) for j in candidates]
    return mean, hears[:, candidates[int(np.argmax(sizes))]], max(sizes)


def _star(agents: int) -> list[list[int]]:
    hub, leaf = [0] + [1] * (agents - 1), [1] + [0] * (agents - 1)
    return [hub, *[leaf] * (agents - 1)]  # one and the same leaf: YAML writes it once


def _parsed(rule: str, p: str | None) -> list[float]:
    if p is None:
        raise UserError(f"--rule {rule} needs --p, a probability" + (" for each agent" if rule == "per_agent" else ""))
    values = []
    for part in p.split(","):
        try:
            value = float(part)
        except ValueError:
            raise UserError(f"--p {p}: {part.strip()!r} is no number") from None
        values.append(between("--p", value, 0, 1))
    return values


# ---- printing ----


def print_plan(plan: Plan, console: Console) -> None:
    """Print every quantity with its unit and what it means, and the YAML that makes such a channel."""
    table = Table(show_header=False, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column()
    for row in _rows(plan):
        table.add_row(*row)
    console.print(table, markup=False)
    console.print("\nto paste into a config:", style="bold")
    console.print(_yaml(plan), markup=False, soft_wrap=True, end="")


def _rows(plan: Plan) -> list[tuple[str, str, str]]:
    agents = len(plan.repetition.p)
    mean, var = plan.progeny
    alive = dict(zip(GENERATIONS, plan.alive.mean(0).tolist(), strict=True))
    limit = "exact" if plan.exact else "by Chernoff's bound: sure, a little large"
    sureness = limit if plan.exact and plan.hears_all else "by Chernoff's bound, for who hears most"
    note = f"; {plan.audience.note}" if plan.audience.note else ""
    published = f", {plan.publish:g} of them published to all" if plan.publish else ""
    hearing = plan.audience.hears.sum(0)
    rows = [
        ("words", f"{plan.word_count:,}", f"of {plan.words['bits']} bits, {_on(plan.words)} of them on"),
        ("random bits that are a word", f"{plan.word_chance:.3g}", "probability, if bits are fair"),
        ("an agent hears", _span(hearing), f"agents of {agents}, {_itself(plan)}{note}"),
        ("p, repetition", _span(plan.repetition.p), "probability with which an agent repeats"),
        ("R, reproduction", f"{plan.radius:.4g}", "repeats for each transmission"),
        ("threshold p", f"{plan.threshold:.4g}", "common p that would make R = 1 here"),
        ("extinction", _span(plan.extinction), "probability that a word dies out"),
        ("transmissions of a word", _span(mean), "mean, itself included, by sender"),
        ("standard deviation of it", _span(np.sqrt(var)), "transmissions, by sender"),
        *[
            (
                f"alive after {g} steps" if g > 1 else "alive after 1 step",
                f"{chance:.3g}",
                "probability, mean over senders",
            )
            for g, chance in alive.items()
        ],
        ("new words", f"{plan.rate + plan.publish:g}", f"a step{published}"),
        (
            "load",
            f"{plan.load.total_mean:.4g} ± {plan.load.total_var**0.5:.3g}",
            "transmissions a step, mean ± s.d.",
        ),
        ("heard by an agent", _span(plan.heard_mean), "transmissions a step, mean"),
        ("capacity", str(plan.capacity), f"of the log, in transmissions: P(more) < {plan.loss:g}, {limit}"),
        ("inbox", str(plan.inbox), f"of an agent, likewise: P(more) < {plan.loss:g}, {sureness}"),
    ]
    return rows


def _on(words: dict[str, Any]) -> str:
    return f"{words['min_on']} to {words['max_on']}"


def _itself(plan: Plan) -> str:
    return "itself included" if plan.audience.feedback else "itself not"


def _span(values: Array) -> str:
    """One number where all print alike, or least ... most."""
    low, high = f"{values.min():.4g}", f"{values.max():.4g}"
    return low if low == high else f"{low} ... {high}"


def _yaml(plan: Plan) -> str:
    reflexes: list[dict[str, Any]] = [{"kind": "immediate_feedback"}] if plan.audience.feedback else []
    reflexes.append({"kind": "word_repetition", "decision": plan.repetition.settings})
    if plan.publish:
        reflexes.append({"kind": "publishing", "rate": plan.publish})
    communication = {
        "messages": plan.words,
        "topology": plan.audience.settings,
        "reflexes": reflexes,
        "capacity": plan.capacity,
        "inbox": plan.inbox,
    }
    return yaml.safe_dump(
        {"communication": communication}, sort_keys=False, default_flow_style=None, width=float("inf")
    )
