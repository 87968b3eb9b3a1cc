"""The picture of training: small multiples of what was measured, against environment steps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter
from numpy.typing import NDArray

from popcomm.language.drawing import CATEGORIES, INK, MUTED, card, dress, legend

Array = NDArray[Any]

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
    Panel("Joint critic", {"losses/joint_critic_explained_var": "explained"}, "share of the variance of returns"),
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
