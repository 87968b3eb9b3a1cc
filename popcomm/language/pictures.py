"""Pictures of a language: arrays in, matplotlib Figure out. `png` makes a file of a figure, `pixels` an array.

The picture of who listens to whom is in topology_picture.py, that of training in training_picture.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, StrMethodFormatter
from numpy.typing import NDArray

from popcomm.language.basics import HUB_RATIO, HUB_WEIGHT, USED_SHARE, Information, Specialisation, entropy
from popcomm.language.drawing import (
    BLUE,
    INK,
    MOST_ROWS,
    MUTED,
    ORANGE,
    VERMILLION,
    card,
    dress,
    heatmap,
    legend,
    pixels,
    png,
    sparse_ticks,
)
from popcomm.language.topology_picture import topology
from popcomm.language.training_picture import FEW_SYMBOLS, PANELS, training_progress

__all__ = [
    "PANELS",
    "attention_hubs",
    "pixels",
    "png",
    "symbol_specialisation",
    "symbol_use",
    "temporal_patterns",
    "topology",
    "training_progress",
]

Array = NDArray[Any]

MOST_SYMBOLS = 96  # columns of a heatmap that can still be told apart
MOST_TRANSITIONS = 16  # symbols in a transition matrix that can still be read


def symbol_use(counts: Array) -> Figure:
    """Which symbols are used where, and how unequally.

    Args:
        counts: [L, V] how often each symbol stands at each position, from `basics.symbol_counts`.
    """
    length, vocab = counts.shape
    pooled = counts.sum(0)
    total = max(int(pooled.sum()), 1)
    used = int((pooled > USED_SHARE / vocab * total).sum())
    figure = card(10.5, 5.2 + 0.1 * min(length, 12), "Symbol use")
    top, bottom = figure.subplots(2, 1, height_ratios=[1, 1.35])
    few = vocab <= MOST_SYMBOLS
    shown = np.arange(vocab) if few else np.argsort(-pooled, kind="stable")[:MOST_SYMBOLS]
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    which = "symbol (0 is the blank)" if few else f"the {MOST_SYMBOLS} most used of {vocab} symbols, most used first"
    dress(top, "How often each symbol stands at each position of a message", which, "position", None)
    # A root scale shows rare symbols, and grey those that are never said.
    said = np.where(share > 0, share, np.nan)[:, shown]
    heatmap(top, said, "share (grey: never)", norm=PowerNorm(0.5, vmin=0, vmax=max(float(share.max()), 1e-9)))
    top.set_yticks(sparse_ticks(length, 12), sparse_ticks(length, 12) + 1)
    ticks = sparse_ticks(len(shown), 32)
    top.set_xticks(ticks, shown[ticks])
    _rank_frequency(bottom, pooled / total, used, vocab, float(entropy(pooled)))
    return figure


def _rank_frequency(axes: Axes, share: Array, used: int, vocab: int, bits: float) -> None:
    ranked = np.sort(share)[::-1][: int((share > 0).sum())]
    title = (
        f"{used} of {vocab} symbols are used ({used / vocab:.0%}); {bits:.2f} of {np.log2(vocab):.2f} bits per symbol"
    )
    dress(axes, title, "rank of the symbol, most used first", "share of all symbols", "both")
    axes.loglog(
        np.arange(1, len(ranked) + 1), ranked, color=BLUE, marker="o", markersize=3.5, linewidth=1.4, label="this run"
    )
    axes.axhline(1 / vocab, color=MUTED, linestyle="--", linewidth=1, label=f"all symbols equally often (1/{vocab})")
    if len(ranked):
        zipf = ranked[0] / np.arange(1, vocab + 1)
        axes.loglog(
            np.arange(1, vocab + 1), zipf, color=ORANGE, linestyle=":", linewidth=1.3, label="Zipf's law, exponent 1"
        )
    axes.axvline(
        FEW_SYMBOLS * vocab, color=VERMILLION, linewidth=1, linestyle=":", label=f"{FEW_SYMBOLS:.0%} of the vocabulary"
    )
    axes.set_xlim(0.9, vocab * 1.15)
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda part, _: f"{100 * part:g}%"))
    axes.minorticks_off()
    legend(axes, loc="lower left")


def attention_hubs(
    received: Array,
    relay: Array,
    names: Sequence[str],
    inbox_size: float,
    who: str = "seat",
    is_hub: Array | None = None,
) -> Figure:
    """Who is listened to, and who passes things on.

    Args:
        received: [N] mean weight from listeners (`basics.received_weight`), nan for those whom nobody hears.
        relay: [N] betweenness, 0 ... 1.
        names: N names.
        inbox_size: K, messages that a listener hears at once; uniform attention gives each 1 / K.
        who: what they are names of.
        is_hub: [N] bool, as `basics.hubs` has it, or a stricter rule; None: nothing is to be said of hubs.
    """
    shown = min(len(names), MOST_ROWS)
    more = "" if shown == len(names) else f" (first {shown} of {len(names)})"
    figure = card(10.5, 4.4, "Attention hubs and relays" + more)
    left, right = figure.subplots(1, 2)
    colours = np.where(np.zeros(len(names), bool) if is_hub is None else is_hub, ORANGE, BLUE)
    heard = np.argsort(-np.nan_to_num(received, nan=-1.0), kind="stable")[:shown]
    dress(left, "Mean weight that listeners give to a sender", who, "share of attention")
    left.bar(np.arange(shown), np.nan_to_num(received[heard]), color=colours[heard], width=0.75)
    least = _lines_of_hubs(left, inbox_size, is_hub)
    left.set_ylim(0, max(np.nan_to_num(received).max(), least) * 1.35)
    legend(left, loc="upper right")
    relays = np.argsort(-relay, kind="stable")[:shown]
    dress(right, "Relays: strongest paths between two others that pass through", who, "share of paths")
    right.bar(np.arange(shown), relay[relays], color=colours[relays], width=0.75)
    right.set_ylim(0, max(float(relay.max()), 0.05) * 1.2)
    for axes, which in ((left, heard), (right, relays)):
        _name_bars(axes, [names[i] for i in which])
    return figure


def _lines_of_hubs(axes: Axes, inbox_size: float, is_hub: Array | None) -> float:
    """Draw the weight of uniform attention, and the least of a hub, which is returned."""
    even, least = 1 / inbox_size, max(HUB_WEIGHT, HUB_RATIO / inbox_size)
    axes.axhline(even, color=INK, linestyle="--", linewidth=1.2, label=f"uniform, 1/{inbox_size:.3g} = {even:.2f}")
    if is_hub is not None:
        axes.axhline(least, color=VERMILLION, linestyle=":", linewidth=1.4, label=f"least of a hub, {least:.2f}")
        if is_hub.any():
            axes.bar([0], [0], color=ORANGE, label="hub")
    return least


def _name_bars(axes: Axes, names: Sequence[str]) -> None:
    turned = sum(len(name) + 1 for name in names) > 55
    axes.set_xticks(np.arange(len(names)), names, rotation=60 if turned else 0, ha="right" if turned else "center")


def symbol_specialisation(groups: Mapping[str, tuple[Specialisation, Sequence[str]]]) -> Figure:
    """Which symbols go with which label or member: one row of panels for each way of grouping.

    Args:
        groups: {title: (specialisation of G groups, their G names)}; groups without messages are left out.
    """
    sizes = [min(int((s.counts > 0).sum()), MOST_ROWS) for s, _ in groups.values()]
    heights = [max(1.2, 0.2 * size) + 0.9 for size in sizes]
    figure = card(10.5, sum(heights) + 0.6, "Symbol specialisation")
    grid = figure.subplots(len(groups), 2, squeeze=False, width_ratios=[3.2, 1], height_ratios=heights)
    for (left, right), (title, (found, names)) in zip(grid, groups.items(), strict=True):
        _specialisation_row(left, right, title, found, names)
    return figure


def _specialisation_row(left: Axes, right: Axes, title: str, found: Specialisation, names: Sequence[str]) -> None:
    heard = np.flatnonzero(found.counts > 0)
    rows = np.sort(heard[np.argsort(-found.counts[heard], kind="stable")][:MOST_ROWS])
    distribution = found.probabilities[rows]
    columns = _by_owner(distribution)
    more = "" if len(rows) == len(heard) else f" ({len(rows)} of {len(heard)} with most messages)"
    dress(left, title + more, "symbol: first those that all rows share, then by the row that uses it most", "", None)
    heatmap(left, distribution[:, columns], "P(symbol | row)", vmin=0)
    ticks = sparse_ticks(len(columns), 28)
    left.set_xticks(ticks, columns[ticks])
    left.set_yticks(np.arange(len(rows)), [names[i] for i in rows])
    y = np.arange(len(rows))
    dress(right, "Distance from all", "bits; orange: by chance", "", "x")
    right.barh(y, found.divergence[rows], color=BLUE, height=0.7)
    right.plot(
        found.chance[rows],
        y,
        linestyle="none",
        marker="|",
        markersize=9,
        markeredgewidth=2,
        color=ORANGE,
    )
    right.set_yticks(y, [""] * len(y))
    right.set_ylim(len(rows) - 0.5, -0.5)
    right.set_xlim(0, max(0.05, 1.1 * float(np.nanmax(found.divergence[rows]))))


def _by_owner(distribution: Array) -> Array:
    """Columns of P(symbol | row) [rows, V] in an order that shows a code as a diagonal; at most MOST_SYMBOLS."""
    most, mean = distribution.max(0), distribution.mean(0)
    used = np.argsort(-mean, kind="stable")[:MOST_SYMBOLS]
    used = used[most[used] > 0]
    # A symbol belongs to a row that uses it clearly more than the others; the rest is common stock, most used first.
    owner = np.where(most > 1.5 * mean, distribution.argmax(0), -1)[used]
    return used[np.argsort(owner, kind="stable")]


def temporal_patterns(lags: Sequence[int], information: Sequence[Information], transitions: Array) -> Figure:
    """Does what was said before tell what is said next?

    Args:
        lags: steps back.
        information: I(m_t; m_{t - lag}) for each lag, with its shuffled control.
        transitions: [V, V] counts, row = symbol now, column = the same sender's next one at that position.
    """
    figure = card(10.5, 4.6, "Temporal patterns")
    left, right = figure.subplots(1, 2, width_ratios=[1, 1.15])
    x = np.asarray(lags)
    dress(
        left,
        "What a symbol tells of the one some steps later",
        "steps between them",
        "mutual information, bits per position",
    )
    left.fill_between(
        x, [i.low for i in information], [i.high for i in information], color=ORANGE, alpha=0.35, linewidth=0
    )
    left.plot(
        x,
        [i.chance for i in information],
        color=ORANGE,
        linestyle="--",
        label="same symbols, steps shuffled (95% band)",
    )
    left.plot(x, [i.bits for i in information], color=BLUE, marker="o", markersize=5, label="this run")
    left.set_xticks(x)
    left.set_ylim(0, 1.3 * max([i.bits for i in information] + [i.high for i in information] + [0.01]))
    legend(left, loc="upper right")
    used = np.argsort(-(transitions.sum(0) + transitions.sum(1)), kind="stable")[:MOST_TRANSITIONS]
    used = np.sort(used[(transitions.sum(0) + transitions.sum(1))[used] > 0])
    distribution = transitions[used] / np.maximum(transitions[used].sum(1, keepdims=True), 1)
    dress(
        right,
        f"The next symbol, given this one ({len(used)} most used)",
        "next symbol at the same position",
        "symbol",
        None,
    )
    heatmap(right, distribution[:, used], "P(next | symbol)", vmin=0)
    right.set_xticks(np.arange(len(used)), used)
    right.set_yticks(np.arange(len(used)), used)
    return figure
