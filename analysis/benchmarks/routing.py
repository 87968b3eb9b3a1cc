"""Hearing all others of a world: routed through latents, and exactly. Time and memory of a pass against the agents.

A pass is forward and backward of one world, float32, one thread. Time is CPU time of this process; memory is the growth
of the resident memory at its peak during one pass, in a process of its own for each case.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from popcomm.analysis.benchmarks import memory
from popcomm.analysis.benchmarks.common import (
    Measurement,
    Work,
    alternating,
    median,
    median_ratio,
    never_return_memory,
    rate,
)

from popcomm.agents.routing import attend_all, default_scale, route

AGENTS = (64, 256, 1024, 4096, 16384)
LATENTS, HEADS, WIDTH = 32, 8, 16
FIT_FROM, SLOPE = 256, 1.1
FASTER_AT, FASTER = 4096, 30.0
TIME, MEMORY = "ms / pass", "MiB"
# Okabe and Ito's colours, told apart with every common kind of colour vision; markers differ too.
STYLES = {"routed": ("#0072B2", "o"), "exact": ("#D55E00", "s")}
# glibc's name for mallopt.
M_MMAP_THRESHOLD = -3


def run(quick: bool = False) -> list[Measurement]:
    """All sizes; slopes are least-squares fits in log-log coordinates over FIT_FROM agents and more."""
    torch.set_num_threads(1)
    never_return_memory()
    sizes = AGENTS[:3] if quick else AGENTS
    times = [result for agents in sizes for result in _times(agents, quick)]
    peaks = [
        Measurement("routing", f"{name}, {agents} agents: memory", _peak(name, agents), MEMORY)
        for agents in sizes
        for name in STYLES
    ]
    slopes = [
        Measurement("routing", f"{name}: slope of the time", slope(times, name, TIME), "", bar, at_most=True)
        for name, bar in (("routed", SLOPE), ("exact", None))
    ]
    slopes += [
        Measurement("routing", f"{name}: slope of the memory", slope(peaks, name, MEMORY), "") for name in STYLES
    ]
    return [*times, *peaks, *slopes]


def curve(measurements: Sequence[Measurement], name: str, unit: str) -> list[tuple[int, Measurement]]:
    """[(agents, measurement)] of the cases "<name>, <agents> agents..." in that unit."""
    return [(int(m.case.split()[1]), m) for m in measurements if m.case.startswith(f"{name}, ") and m.unit == unit]


def slope(measurements: Sequence[Measurement], name: str, unit: str) -> float:
    """The exponent of the number of agents, over FIT_FROM agents and more."""
    points = [(agents, m.value) for agents, m in curve(measurements, name, unit) if agents >= FIT_FROM]
    sizes, values = np.log(np.array(points)).T
    return float(np.polyfit(sizes, values, 1)[0])


def one_pass(name: str, agents: int) -> Work:
    """Work that is one forward and backward pass, of "routed" or "exact" hearing."""
    generator = torch.Generator().manual_seed(0)
    shape = (1, 1, agents, HEADS, WIDTH)
    grad, queries, keys, values = (torch.randn(shape, generator=generator) for _ in range(4))
    latents, present = torch.randn(1, HEADS, LATENTS, WIDTH, generator=generator), torch.ones(1, agents).bool()
    learned = [latents] if name == "routed" else []
    inputs = [x.requires_grad_() for x in (queries, keys, values, *learned)]

    def work() -> int:
        if name == "routed":
            heard = route(queries, keys, values, latents, present, default_scale(WIDTH))
        else:
            heard = attend_all(queries, keys, values, present, WIDTH**-0.5)
        torch.autograd.grad(heard, inputs, grad)
        return 1

    return work


def _times(agents: int, quick: bool) -> list[Measurement]:
    """Both contenders in turn, and how many times the exact one takes."""
    works = {name: one_pass(name, agents) for name in STYLES}
    # The heap grows during the first passes, by pages that the kernel has to clear.
    rate(works["routed"], 0.1 if quick else 1.0)
    repetitions = 1 if quick else 7 if agents <= 1024 else 3 if agents <= 4096 else 1
    rates = alternating(works, repetitions, 0.05 if quick else 0.5)
    results = []
    for name, samples in rates.items():
        millis = tuple(1e3 / r for r in samples)
        results.append(Measurement("routing", f"{name}, {agents} agents: time", median(millis), TIME, samples=millis))
    bar = FASTER if agents == FASTER_AT else None
    ratio = median_ratio(rates["routed"], rates["exact"])
    return [*results, Measurement("routing", f"{agents} agents: exact / routed", ratio, "times", bar)]


def _peak(name: str, agents: int) -> float:
    """MiB by which one pass raises the resident memory of a fresh process at its peak.

    Raises:
        RuntimeError: the process failed; the text has what it said.
    """
    command = [sys.executable, "-m", "popcomm.analysis.benchmarks.routing", name, str(agents)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(f"the pass of '{name}' with {agents} agents failed:\n{answer.stderr}")
    return float(json.loads(answer.stdout.splitlines()[-1])) / 2**20


def _pass_memory(name: str, agents: int) -> int:
    """Bytes by which one pass raises the resident memory of this process at its peak: gradients and what is between.

    The kernel's mark of the peak is reset before. The `ru_maxrss` of a child does not do: it starts from its parent's.
    """
    torch.set_num_threads(1)
    # Every larger buffer is a mapping of its own that leaves when it is freed: what is counted is what is in use.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**16)
    one_pass(name, min(AGENTS))()
    work = one_pass(name, agents)
    Path("/proc/self/clear_refs").write_text("5")
    before = memory.status("VmRSS")
    work()
    return memory.status("VmHWM") - before


def draw(measurements: Sequence[Measurement], path: Path) -> None:
    """Write the figure; bars run from the fastest repetition to the slowest."""
    figure = Figure(figsize=(8, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = zip(
        figure.subplots(1, 2), (TIME, MEMORY), ("CPU time of a pass (ms)", "peak memory of a pass (MiB)"), strict=True
    )
    for axis, unit, label in panels:
        for name, (colour, marker) in STYLES.items():
            points = curve(measurements, name, unit)
            middle = [m.value for _, m in points]
            low = [m.value - min(m.samples, default=m.value) for _, m in points]
            high = [max(m.samples, default=m.value) - m.value for _, m in points]
            sizes = [agents for agents, _ in points]
            text = f"{name}, slope {slope(measurements, name, unit):.2f}"
            axis.errorbar(sizes, middle, [low, high], label=text, color=colour, marker=marker, capsize=3)
        axis.set_xscale("log", base=2)
        axis.set_yscale("log")
        axis.set_xticks(sizes, [f"{agents:,}" for agents in sizes])
        axis.set_xlabel("agents in the world, N")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    print(json.dumps(_pass_memory(sys.argv[1], int(sys.argv[2]))))
