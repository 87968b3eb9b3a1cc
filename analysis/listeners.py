"""The sections on who listens to whom: a moment of a world, hubs and relays."""

from __future__ import annotations

import numpy as np
from popcomm.analysis import members
from popcomm.analysis.page import Section
from popcomm.analysis.run_folder import RunFolder
from popcomm.analysis.sections import counted, drawn, missing, no_links

from popcomm.language import basics, pictures


def topology(run: RunFolder) -> Section:
    talk = run.talk
    if talk.links is None:
        return missing("topology", no_links(run))
    now = talk.snapshot()
    agent, names = talk.agents
    number = "member" if talk.by_member else "seat"
    label = [names[i].split(" ")[-1] for i in agent[now.rows]]
    where = ", ".join(f"{name} {talk.column(name)[now.rows[0]]}" for name in ("iteration", "world", "step"))
    findings = [f"At {where}, {counted(len(now.rows), 'agent')} exchange {counted(len(now.links), 'message')}."]
    is_hub = None
    if now.weights is None:
        findings.append("These agents report no attention weights, so all arrows are alike.")
    else:
        is_hub = _hubs(run)[agent[now.rows]]
        top = int(now.weights.argmax())
        sender, listener = (label[i] for i in now.links[top])
        findings.append(
            f"The heaviest arrow runs from {number} {sender} to {number} {listener}: {now.weights[top]:.2f} of the "
            "listener's attention."
        )
    figure = pictures.topology(
        now.links,
        len(now.rows),
        now.weights,
        None if talk.positions is None else talk.positions[now.rows],
        talk.torus,
        talk.table["species"].take(now.rows).to_pylist() if len(talk.species) > 1 else None,
        is_hub,
        label,
        f"Who listens to whom (numbers: {number})",
    )
    return drawn("topology", findings, "", figure)


def attention_hubs(run: RunFolder) -> Section:
    talk, links = run.talk, run.talk.links
    if links is None:
        return missing("attention_hubs", no_links(run))
    if links.weights is None:
        reason = "These agents report no attention weights: nobody is a hub or a relay by attention."
        return missing("attention_hubs", reason)
    received, inbox = _received(run)
    _, names = talk.agents
    sender, listener = talk.heard
    known = listener >= 0
    relay = basics.betweenness(
        basics.attention_matrix(sender[known], listener[known], links.weights[known], len(names))
    )
    who = "member" if talk.by_member else "seat"
    is_hub, why_not = _hubs(run), members.incomparable(talk)
    top, through = int(np.nanargmax(received)), int(relay.argmax())
    gets = (
        f"{who} {names[top]} gets most, {received[top]:.2f} of its listeners' attention, {received[top] * inbox:.2f} "
        f"times the uniform share of {1 / inbox:.2f}."
    )
    headline = "" if why_not else f"Hubs: {int(is_hub.sum()) or 'none'} of {len(names)}; {gets}"
    explained = f"Attention: {gets} {why_not} {members.seeing_seats(talk)}".strip() + " So nothing is said of hubs."
    favourite = f"A listener's favourite neighbour has {links.top_attention:.2f} of its attention on average."
    if 1 / inbox > basics.HUB_WEIGHT:
        favourite += f" Among {inbox:.3g} neighbours the uniform share is over 0.2 already, so look at the ratio."
    if relay[through] > 0:
        passes = f"{relay[through]:.0%} of the strongest paths between two others run through {who} {names[through]}."
    else:
        passes = "Nobody is a relay: all strongest paths are direct."
    figure = pictures.attention_hubs(received, relay, names, inbox, who, None if why_not else is_hub)
    return drawn("attention_hubs", [headline or explained, favourite, passes], headline, figure)


def _hubs(run: RunFolder) -> np.ndarray:
    """[A] bool, which members are hubs; nobody where members cannot be compared."""
    if members.incomparable(run.talk):
        return np.zeros(len(run.talk.agents[1]), bool)
    return members.hubs(run.talk, *_received(run))


def _received(run: RunFolder) -> tuple[np.ndarray, float]:
    """(mean weight that each agent gets [A], the inbox size whose inverse is the uniform weight)."""
    links = run.talk.links
    assert links is not None
    assert links.weights is not None
    return basics.received_weight(run.talk.heard[0], links.weights, len(run.talk.agents[1])), links.inbox_size
