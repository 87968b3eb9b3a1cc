"""What all benchmarks share: CPU time, repetitions that alternate, and measurements with their bars."""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

Work = Callable[[], int]


@dataclass(frozen=True)
class Measurement:
    """One number, and what it is held against."""

    benchmark: str
    case: str
    value: float
    unit: str
    bar: float | None = None
    at_most: bool = False  # the bar is an upper bound
    samples: tuple[float, ...] = ()

    @property
    def passed(self) -> bool | None:
        """None where there is no bar."""
        if self.bar is None:
            return None
        return self.value <= self.bar if self.at_most else self.value >= self.bar

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


def rate(work: Work, min_seconds: float = 0.0) -> float:
    """Units of work per CPU second of this process. `work` does some and returns how much; it is repeated until
    `min_seconds` of CPU time have passed."""
    done, start = 0, time.process_time()
    while True:
        done += work()
        spent = time.process_time() - start
        if spent >= min_seconds and spent > 0:
            return done / spent


def alternating(contenders: Mapping[str, Work], repetitions: int, min_seconds: float = 0.0) -> dict[str, list[float]]:
    """Rates of all contenders, taken in turn after one warm-up each: what disturbs the machine disturbs all alike."""
    for work in contenders.values():
        work()
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repetitions):
        for name, work in contenders.items():
            rates[name].append(rate(work, min_seconds))
    return rates


def median(samples: Iterable[float]) -> float:
    return statistics.median(samples)


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median of the ratios of neighbouring repetitions."""
    return median(a / b for a, b in zip(above, below, strict=True))


def table(measurements: Sequence[Measurement]) -> str:
    """The measurements as a Markdown table, which a terminal shows just as well."""
    header = ("benchmark", "case", "measured", "bar", "")
    verdict = {True: "pass", False: "FAIL", None: ""}
    rows = [(m.benchmark, m.case, f"{_number(m.value)} {m.unit}", _bar(m), verdict[m.passed]) for m in measurements]
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [" | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) for row in [header, *rows]]
    lines.insert(1, " | ".join("-" * max(w, 3) for w in widths))
    return "\n".join(f"| {line} |" for line in lines)


def _bar(m: Measurement) -> str:
    return "" if m.bar is None else f"{'<=' if m.at_most else '>='} {_number(m.bar)}"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def never_return_memory() -> None:
    """Make glibc keep freed buffers.

    It maps buffers of 32 MiB and more afresh every time (no larger threshold can be set), and so faults in every page
    again: buffers that reach this size with the length would bend the slope. Without glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        m_trim_threshold, m_mmap_max = -1, -4
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)
