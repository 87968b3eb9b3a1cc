"""Pictures of a factory: machines with their heat, wear and queues, who sees them, who acts, and who heard whom."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from popcomm.envs.drawn_figure import blank, pixels
from popcomm.envs.drawn_legend import OUTLINED, legend_below
from popcomm.envs.drawn_links import draw_links
from popcomm.envs.factory_machines import ACTIONS, HOT, LIMIT, ROOM, Machines

# Okabe & Ito's palette, which the colour-blind can tell apart; species also differ in their shape.
BLUE, ORANGE, GREEN, VERMILION = "#56B4E9", "#E69F00", "#009E73", "#D55E00"
PURPLE, GREY, BLACK = "#CC79A7", "#999999", "#000000"
LOOKS = {"sensor": ("o", BLUE), "processor": ("D", PURPLE), "actuator": ("s", ORANGE)}
LOW, HIGH = 1.15, 2.35  # where machines stand


def draw_factory(
    machines: Machines,
    repairs: np.ndarray,
    chosen: np.ndarray,
    sent: np.ndarray,
    peak: bool,
    delicate: bool,
    links: np.ndarray | None = None,
    title: str = "",
) -> np.ndarray:
    """An RGB picture [480, 480, 3] uint8.

    Args:
        machines: of one factory, [M] each.
        repairs: [M] bool, of those that are down: under repair, and not broken.
        chosen: [M] int, the actuators' last actions; -1 none yet.
        sent: [P] int, to which machines processors last sent orders; -1 none yet.
        peak, delicate: whether the tariff is high, and whether the product bears no heat.
        links: [M, 2] int, (sender, receiver) pairs whose messages were heard.
        title: a line of text above.
    """
    figure, axes = blank((0.02, 0.09, 0.96, 0.84), title)
    count, processors = len(chosen), len(sent)
    axes.set(xlim=(-0.5, count - 0.5), ylim=(0.0, 4.0))
    axes.axis("off")
    places = _places(count, processors)
    for machine in range(count):
        _draw_machine(axes, machine, machines, bool(repairs[machine]), LIMIT if delicate else None)
    if links is not None:
        draw_links(axes, places, links, min(9.0, 40.0 / count), zorder=5)
    names = ["sensor"] * count + ["processor"] * processors + ["actuator"] * count
    for (x, y), name in zip(places, names, strict=True):
        shape, colour = LOOKS[name]
        axes.plot(x, y, marker=shape, color=colour, markersize=min(13.0, 60.0 / count), markeredgecolor=BLACK, zorder=6)
    size = min(8.5, 80.0 / count)
    for machine, action in enumerate(chosen):
        told = ACTIONS[action] if action >= 0 else ""
        axes.text(machine, 0.22, told, ha="center", va="center", fontsize=size)
    for (x, y), goal in zip(places[count : count + processors], sent, strict=True):
        if goal >= 0:
            axes.text(x, y + 0.17, f"orders to {goal}", ha="center", fontsize=7.0)
    known = f"{'peak' if peak else 'low'} tariff, {'delicate' if delicate else 'robust'} product"
    axes.text((count - 1) / 2, 3.85, known, ha="center", va="center", fontsize=8.5, color=VERMILION if peak else BLACK)
    _legend(figure, links is not None, delicate)
    return pixels(figure)


def _places(count: int, processors: int) -> np.ndarray:
    """[2 M + P, 2], of the seats: sensors above their machines, processors above all, actuators below."""
    row = np.arange(count, dtype=float)
    middle = (np.arange(processors) + 0.5) * count / processors - 0.5
    heights = ((row, 2.85), (middle, 3.45), (row, 0.55))
    return np.concatenate([np.stack((x, np.full(len(x), y)), 1) for x, y in heights])


def _draw_machine(axes: Any, machine: int, now: Machines, repaired: bool, limit: float | None) -> None:
    """Its body in the state it is in, a thermometer, a bar of wear, and the jobs that wait."""
    down, shaking = bool(now.down[machine] > 0), bool(now.shaking[machine])
    left = machine - 0.36
    face = "#EEEEEE" if not down else GREY
    axes.add_patch(Rectangle((left, LOW), 0.72, HIGH - LOW, facecolor=face, edgecolor=BLACK, linewidth=0.8, zorder=1))
    if shaking:
        for shift in (-0.03, 0.03):
            corner = (left + shift, LOW + shift)
            axes.add_patch(
                Rectangle(corner, 0.72, HIGH - LOW, fill=False, edgecolor=VERMILION, linewidth=0.8, zorder=1)
            )
    status = ("under repair" if repaired else "broken") if down else "vibrates" if shaking else ""
    size = max(min(7.0, 42.0 / len(now.down)), 4.0)
    axes.text(machine, HIGH - 0.16, f"{machine}\n{status}".strip(), ha="center", va="center", fontsize=size, zorder=2)
    heat, wear = float(now.temperature[machine]), float(now.wear[machine])
    bottom, height = LOW + 0.1, 0.78
    bars = ((0.06, heat / HOT, ORANGE if bool(now.cooled[machine]) else VERMILION), (0.2, wear, BLACK))
    for shift, filled, colour in bars:
        frame: dict[str, Any] = {"edgecolor": BLACK, "linewidth": 0.5, "zorder": 2}
        axes.add_patch(Rectangle((left + shift, bottom), 0.09, height, facecolor="#FFFFFF", **frame))
        axes.add_patch(Rectangle((left + shift, bottom), 0.09, height * min(filled, 1.0), facecolor=colour, **frame))
    if limit is not None:
        y = bottom + height * limit / HOT
        axes.plot((left + 0.03, left + 0.18), (y, y), color=BLACK, linewidth=1.6, zorder=3)
    for job in range(min(round(float(now.queue[machine])), int(ROOM))):
        x, y = left + 0.38 + 0.1 * (job % 3), bottom + 0.08 + 0.19 * (job // 3)
        axes.plot(x, y, marker="s", color=GREEN, markersize=min(4.0, 25.0 / len(now.down)), zorder=2)


def _legend(figure: Figure, linked: bool, delicate: bool) -> None:
    looks = LOOKS.items()
    handles = [Line2D([], [], marker=m, color=c, markersize=6, label=name, **OUTLINED) for name, (m, c) in looks]
    bars = ((ORANGE, "heat"), (VERMILION, "uncooled"), (BLACK, "wear"))
    handles += [Line2D([], [], color=c, linewidth=4, solid_capstyle="butt", label=name) for c, name in bars]
    handles += [
        Line2D([], [], marker="s", linestyle="none", color=GREEN, markersize=4, label="job"),
    ]
    if delicate:
        handles.append(Line2D([], [], color=BLACK, linewidth=1.6, label=f"limit, {LIMIT:g} K"))
    if linked:
        handles.append(Line2D([], [], color=GREEN, label="heard"))
    legend_below(figure, handles, fontsize=6.5, handletextpad=0.3, columnspacing=0.7, handlelength=1.0)
