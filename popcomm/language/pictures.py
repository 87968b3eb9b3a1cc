"""Pictures of a language: arrays in, matplotlib Figure out. `png` makes a file of a figure, `pixels` an array.

The picture of who listens to whom is in topology_picture.py.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, StrMethodFormatter
from numpy.typing import NDArray

from popcomm.language.basics import HUB_RATIO, HUB_WEIGHT, USED_SHARE, Information, Specialisation, entropy
from popcomm.language.drawing import (
    BLUE,
    CATEGORIES,
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

__all__ = [
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
FEW_SYMBOLS = 0.7  # a vocabulary used less than this is a sign of specialisation


class Panel(NamedTuple):
    """One of the small multiples of training."""

    title: str
    lines: dict[str, str]  # {key of progress.jsonl: name in the legend}
    unit: str = ""


PANELS = (
    Panel("Return per agent", {"charts/agent_episodic_return": ""}, "reward of an episode"),
    Panel("Reward per agent and step", {"charts/reward": ""}, "reward"),
    Panel("Answers", {"world/accuracy": "all right", "world/attribute_accuracy": "attributes right"}, "share"),
    Panel("Loss of the answers", {"losses/answer_loss": "cross-entropy"}, "nats"),
    Panel("Policy loss", {"losses/policy_loss": ""}),
    Panel("Value loss", {"losses/value_loss": ""}),
    Panel("Entropy of actions", {"losses/entropy": ""}, "nats"),
    Panel("Entropy of messages, by the policy", {"losses/message_entropy": ""}, "nats"),
    Panel("Size of the updates", {"losses/approx_kl": "approx. KL (nats)", "losses/clipfrac": "share clipped"}),
    Panel("Explained variance", {"losses/explained_variance": "of the critic"}, "1 = perfect"),
    Panel("World model", {"losses/world_r2": "R² of the world's state"}, "1 = perfect"),
    Panel(
        "Auxiliary losses",
        {
            "losses/reconstruction": "reconstruction",
            "losses/prediction": "prediction",
            "losses/world_model": "world model",
            "losses/message_cost": "message cost",
        },
    ),
    Panel("Entropy of symbols, as used", {"language/symbol_entropy": ""}, "bits per symbol"),
    Panel("Vocabulary used", {"language/vocabulary_used": ""}, "share of the symbols"),
    Panel("Symbols tell of what was seen", {"language/mutual_information": ""}, "bits"),
    Panel("Agreement of members", {"language/agreement": "same word for the same thing"}, "share of the members"),
    Panel(
        "Channel load", {"channel/load": "on the air", "channel/distinct_words": "different words"}, "words per step"
    ),
    Panel("Reproduction of words", {"channel/reproduction": "R"}, "copies of a copy"),
    Panel("Lifetime of words", {"channel/lifetime": ""}, "steps"),
    Panel("Lost on the channel", {"channel/drops": "no room in the log"}, "share of transmissions"),
    Panel(
        "Strength of reflexes",
        {
            "channel/immediate_feedback_strength": "feedback",
            "channel/word_repetition_strength": "repetition",
            "channel/publishing_strength": "publishing",
            "channel/sensory_deprivation_strength": "deprivation",
        },
        "1 = full",
    ),
    Panel("Weight of the favourite neighbour", {"language/top_attention": ""}, "share of attention"),
    Panel("Privacy spent in an episode", {"privacy/epsilon": "by the member that spent most"}, "epsilon"),
    Panel("Privacy spent in all", {"privacy/epsilon_all": "by the member that spent most"}, "epsilon"),
    Panel("Privacy of updates spent", {"federated/epsilon": "by all updates of a member"}, "epsilon"),
    Panel("Length of federated updates", {"federated/update_norm": "before clipping"}, "L2 norm"),
    Panel("Speed", {"charts/agent_SPS": "agent steps", "charts/SPS": "environment steps"}, "per second"),
)


def training_progress(
    progress: Mapping[str, Array], x: str = "env_steps", ends: Mapping[str, float] | None = None
) -> Figure:
    """Small multiples of what was measured against environment steps.

    Args:
        progress: {key of progress.jsonl: [I]}, a DataFrame for instance; panels without a finite number are left out.
        ends: the numbers in the legends; a key without one has none. None: means of the last few iterations.
    """
    keys = [key for panel in PANELS for key in panel.lines if key in progress]
    series = {key: np.asarray(progress[key], dtype=float) for key in keys}
    series = {key: values for key, values in series.items() if np.isfinite(values).any()}
    panels = [panel for panel in PANELS if any(key in series for key in panel.lines)]
    columns = 3
    rows = max(1, -(-len(panels) // columns))
    figure = card(10.5, 0.7 + 2.15 * rows, "Training progress")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    steps = np.asarray(progress[x], dtype=float) if x in progress else np.zeros(0)
    for axes, panel in zip(grid, panels, strict=False):
        _training_panel(axes, panel, steps, series, ends)
    for axes in grid[max(0, len(panels) - columns) : len(panels)]:
        axes.set_xlabel("environment steps", fontsize=9, color=MUTED)
    return figure


def _training_panel(
    axes: Axes, panel: Panel, steps: Array, series: Mapping[str, Array], ends: Mapping[str, float] | None
) -> None:
    dress(axes, y=panel.unit)
    axes.set_title(panel.title, fontsize=9.5, color=INK, loc="left")
    shown = [key for key in panel.lines if key in series]
    for key, colour in zip(shown, CATEGORIES, strict=False):
        real = np.isfinite(series[key])
        t, values = steps[real], series[key][real]
        smooth, width = _smoothed(values)
        axes.plot(t, values, color=colour, linewidth=1.0 if width > 1 else 1.7, alpha=0.3 if width > 1 else 1.0)
        last = float(values[-width:].mean()) if ends is None else ends.get(key)
        if last is None:
            label = panel.lines[key] or None
        else:
            name = panel.lines[key] or "last"
            label = f"{name}: {last:,.0f}" if abs(last) >= 1000 else f"{name}: {last:.3g}"
        marker = "o" if len(values) < 3 else None
        axes.plot(t, smooth, color=colour, linewidth=1.7, label=label, marker=marker, markersize=4)
    if panel.unit == "1 = perfect":
        # Early critics are worse than the mean by orders of magnitude, which would flatten all that follows.
        lowest = min(series[key][np.isfinite(series[key])].min() for key in shown)
        axes.set_ylim(max(-1.0, min(-0.05, lowest)), 1.05)
    if panel.unit.startswith("share of the symbols"):
        axes.set_ylim(0, 1.05)
        axes.axhline(FEW_SYMBOLS, color=MUTED, linewidth=1, linestyle=":", label=f"{FEW_SYMBOLS:.0%}")
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.margins(x=0.02, y=0.12)
    if axes.get_legend_handles_labels()[0]:
        legend(axes, fontsize=7.5, handlelength=1.2)


def _smoothed(values: Array) -> tuple[Array, int]:
    """Mean over the few iterations around each, whose number is also returned; the same values when they are few."""
    width = len(values) // 25
    if width < 2:
        return values, 1
    sums = np.cumsum(np.insert(values, 0, 0.0))
    middle = np.arange(len(values))
    start, end = np.maximum(0, middle - width // 2), np.minimum(len(values), middle + width // 2 + 1)
    return (sums[end] - sums[start]) / (end - start), width


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
    figure = card(
        10.5, 4.4, "Attention hubs and relays" + ("" if shown == len(names) else f" (first {shown} of {len(names)})")
    )
    left, right = figure.subplots(1, 2)
    order = np.argsort(-np.nan_to_num(received, nan=-1.0), kind="stable")[:shown]
    colours = np.where(np.zeros(len(names), bool) if is_hub is None else is_hub, ORANGE, BLUE)
    dress(left, "Mean weight that listeners give to a sender", who, "share of attention")
    left.bar(np.arange(shown), np.nan_to_num(received[order]), color=colours[order], width=0.75)
    left.axhline(
        1 / inbox_size,
        color=INK,
        linestyle="--",
        linewidth=1.2,
        label=f"uniform, 1/{inbox_size:.3g} = {1 / inbox_size:.2f}",
    )
    least = max(HUB_WEIGHT, HUB_RATIO / inbox_size)
    if is_hub is not None:
        left.axhline(least, color=VERMILLION, linestyle=":", linewidth=1.4, label=f"least of a hub, {least:.2f}")
        if is_hub.any():
            left.bar([0], [0], color=ORANGE, label="hub")
    left.set_ylim(0, max(np.nan_to_num(received).max(), least) * 1.35)
    legend(left, loc="upper right")
    order_right = np.argsort(-relay, kind="stable")[:shown]
    dress(right, "Relays: strongest paths between two others that pass through", who, "share of paths")
    right.bar(np.arange(shown), relay[order_right], color=colours[order_right], width=0.75)
    right.set_ylim(0, max(float(relay.max()), 0.05) * 1.2)
    for axes, which in ((left, order), (right, order_right)):
        turned = sum(len(names[i]) + 1 for i in which) > 55
        axes.set_xticks(
            np.arange(shown),
            [names[i] for i in which],
            rotation=60 if turned else 0,
            ha="right" if turned else "center",
        )
    return figure


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
