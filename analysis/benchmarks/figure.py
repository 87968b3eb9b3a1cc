"""The figure of the scaling benchmark: microseconds per agent-step against size, both axes logarithmic."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from popcomm.analysis.benchmarks.common import Measurement, median

# Okabe and Ito's colours, told apart with every common kind of colour vision; markers differ too.
STYLES = (("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"))


def curves(measurements: Sequence[Measurement]) -> dict[str, list[tuple[int, Measurement]]]:
    """{curve: [(size, measurement)]} of the scaling benchmark's cases, "<curve>: <size> <what>"."""
    result: dict[str, list[tuple[int, Measurement]]] = {}
    for m in measurements:
        if m.benchmark == "scaling" and m.unit.startswith("us"):
            curve, _, size = m.case.rpartition(": ")
            result.setdefault(f"{curve}, by {size.split()[1]}", []).append((int(size.split()[0]), m))
    return result


def draw(measurements: Sequence[Measurement], path: Path) -> None:
    """Write the figure; bars run from the fastest repetition to the slowest."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = dict(zip(("agents", "members"), figure.subplots(1, 2, sharey=True), strict=True))
    for (curve, points), (colour, marker) in zip(curves(measurements).items(), STYLES, strict=False):
        name, _, by = curve.rpartition(", by ")
        middle = [median(m.samples) for _, m in points]
        low = [v - min(m.samples) for v, (_, m) in zip(middle, points, strict=True)]
        high = [max(m.samples) - v for v, (_, m) in zip(middle, points, strict=True)]
        axes[by].errorbar(
            [size for size, _ in points], middle, [low, high], label=name, color=colour, marker=marker, capsize=3
        )
    axes["agents"].set_xlabel("agents in a world, N")
    axes["members"].set_xlabel("members with weights of their own, P")
    axes["agents"].set_ylabel("CPU time per agent-step (µs)")
    for axis in axes.values():
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_yticks([5, 10, 20, 50, 100], ["5", "10", "20", "50", "100"])
        axis.set_yticks([], minor=True)
        axis.grid(alpha=0.3)
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False)
    figure.savefig(path, dpi=150)
