"""Who heard whom, and how often: a graph of the recorded conversations that can be looked into."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from popcomm.analysis.page import Arrow, Graph, Node, Section
from popcomm.analysis.run_folder import RunFolder
from popcomm.analysis.sections import closer, counted

MOST_NODES, MOST_ARROWS = 40, 300

Place = tuple[float, float]


def exchanges(run: RunFolder) -> Section | None:
    """An arrow for each two of whom one heard the other, those who only listen included; None: nobody heard anybody."""
    talk = run.talk.everyone
    if talk.links is None:
        return None
    sender, listener = talk.heard
    heard = pd.DataFrame({"sender": sender, "listener": listener, "episode": talk.episodes[talk.links.row]})
    heard["weight"] = np.nan if talk.links.weights is None else talk.links.weights
    heard = heard[heard["listener"] >= 0]
    graph = _graph(heard, talk.agents[1], "member" if talk.by_member else "seat")
    return closer("exchanges", [], None, graph=graph)


def _graph(heard: pd.DataFrame, names: list[str], who: str) -> Graph:
    """Of links with sender, listener (agents), episode and weight: the agents with most of them, on a circle."""
    sent, got = heard["sender"].value_counts(), heard["listener"].value_counts()
    both = sent.add(got, fill_value=0)
    shown = sorted(both.nlargest(MOST_NODES).index.astype(int))
    place = {agent: _on_circle(i, len(shown)) for i, agent in enumerate(shown)}
    pairs = heard.groupby(["sender", "listener"]).agg(
        count=("episode", "size"), episodes=("episode", "nunique"), weight=("weight", "mean")
    )
    pairs = pairs[[s in place and t in place for s, t in pairs.index]].nlargest(MOST_ARROWS, "count", keep="first")
    arrows = []
    for (s, t), pair in pairs[::-1].iterrows():  # the commonest last, on top
        text = (
            f"{who} {names[s]} to {who} {names[t]}: heard {counted(int(pair['count']), 'time')} in "
            f"{counted(int(pair['episodes']), 'episode')}, {pair['count'] / got[t]:.0%} of all that {names[t]} heard"
        )
        if math.isfinite(pair["weight"]):
            text += f"; attention {pair['weight']:.2f} on average"
        arrows.append(Arrow(_bow(place[s], place[t]), float(pair["count"] / pairs["count"].max()), text))
    caption = f"{counted(len(pairs), 'arrow')} between {counted(len(shown), who)}; the darker, the more often."
    if len(shown) < len(both):
        caption += f" The {len(shown)} of {len(both)} that were heard or heard most."
    return Graph([_node(place[a], names[a], who, sent.get(a, 0), got.get(a, 0)) for a in shown], arrows, caption)


def _node(place: Place, name: str, who: str, sent: int, got: int) -> Node:
    text = f"{who} {name}: was heard {counted(int(sent), 'time')}, heard {counted(int(got), 'message')}"
    return Node(*place, name, text)


def _on_circle(i: int, of: int) -> Place:
    angle = 2 * math.pi * i / of - math.pi / 2
    return round(50 + 42 * math.cos(angle), 2), round(50 + 42 * math.sin(angle), 2)


def _bow(start: Place, stop: Place) -> str:
    """A bow from one place to another, to the right of the straight line, so that there and back are two; or a loop."""
    (x, y), (u, v) = start, stop
    if start == stop:
        out_x, out_y = (x - 50) / 42, (y - 50) / 42
        return (
            f"M{x:.1f},{y:.1f} C{x + 8 * (out_x - out_y):.1f},{y + 8 * (out_y + out_x):.1f} "
            f"{x + 8 * (out_x + out_y):.1f},{y + 8 * (out_y - out_x):.1f} {x:.1f},{y:.1f}"
        )
    length = math.hypot(u - x, v - y)
    middle_x, middle_y = (x + u) / 2 - 0.12 * (v - y), (y + v) / 2 + 0.12 * (u - x)
    end_x, end_y = u - 3.6 * (u - middle_x) / (length / 2), v - 3.6 * (v - middle_y) / (length / 2)
    return f"M{x:.1f},{y:.1f} Q{middle_x:.1f},{middle_y:.1f} {end_x:.1f},{end_y:.1f}"
