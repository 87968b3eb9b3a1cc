"""What it costs to mix tokens: FLARE, in its two ways of computing, against full softmax attention.

Forward and backward of the mixing alone (queries, keys and values are given), fp32, H = 8 heads of D = 16, M = 32
latents, one thread on the CPU; on a GPU too where there is one. All lengths have the same number of tokens in all,
16,384, in as many sequences as that gives.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from popcomm.analysis.benchmarks.common import Measurement, median, median_ratio, never_return_memory
from torch import Tensor

from popcomm.agents.flare_mixing import decode, encode, fused_decode, fused_encode, scores

HEADS, HEAD_DIM, LATENTS = 8, 16, 32
TOKENS = 16384
LENGTHS = (64, 256, 1024, 4096, 16384)
FLARE_SLOPE = 1.1

Seconds = dict[str, list[float]]


def run(quick: bool = False) -> list[Measurement]:
    """Times per sequence, their ratios, and the slopes of log(time) over log(length)."""
    torch.set_num_threads(1)
    never_return_memory()
    lengths, tokens, repetitions = (LENGTHS[:2], 512, 1) if quick else (LENGTHS, TOKENS, 3)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return [result for device in devices for result in measure(device, lengths, tokens, repetitions)]


def measure(device: str, lengths: tuple[int, ...], tokens: int, repetitions: int) -> list[Measurement]:
    """All lengths on one device."""
    taken = {n: alternating_seconds(contenders(n, max(1, tokens // n), device), device, repetitions) for n in lengths}
    results = []
    for n, seconds in taken.items():
        rows = max(1, tokens // n)
        for name, samples in seconds.items():
            micros = [1e6 * s / rows for s in samples]
            case = f"{device}, {n} tokens: {name}"
            results.append(Measurement("attention", case, median(micros), "us / sequence", samples=tuple(micros)))
        for name in ("FLARE shared", "FLARE fused"):
            case = f"{device}, {n} tokens: full / {name}"
            results.append(Measurement("attention", case, median_ratio(seconds["full"], seconds[name]), "times"))
    return results + slopes(device, taken, tokens)


def slopes(device: str, taken: Mapping[int, Seconds], tokens: int) -> list[Measurement]:
    """Exponents of the time per sequence in its length, by least squares on logarithms: 1 is linear, 2 quadratic."""
    results = []
    for name in next(iter(taken.values())):
        points = [(math.log(n), math.log(median(s[name]) / max(1, tokens // n))) for n, s in taken.items()]
        bar = None if name == "full" else FLARE_SLOPE
        case = f"{device}, {min(taken)} to {max(taken)} tokens: slope of {name}"
        results.append(Measurement("attention", case, slope(points), "", bar, at_most=True))
    return results


def slope(points: list[tuple[float, float]]) -> float:
    """Least-squares slope through (x, y) points."""
    mean_x, mean_y = (sum(values) / len(points) for values in zip(*points, strict=True))
    above = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return above / sum((x - mean_x) ** 2 for x, _ in points)


def contenders(length: int, rows: int, device: str) -> dict[str, Callable[[], None]]:
    """A forward and backward pass of each, on the same numbers."""
    generator = torch.Generator().manual_seed(0)
    normal = [torch.randn(1, rows, length, HEADS, HEAD_DIM, generator=generator) for _ in range(4)]
    q, k, v = (x.to(device).requires_grad_() for x in normal[:3])
    gradient = normal[3].to(device)
    latents = (0.1 * torch.randn(1, 1, HEADS, LATENTS, HEAD_DIM, generator=generator)).to(device).requires_grad_()

    def shared() -> None:
        s = scores(latents, k, 1.0)
        decode(s, encode(s, v, None)).backward(gradient)

    def fused() -> None:
        fused_decode(latents, k, fused_encode(latents, k, v, None, 1.0), 1.0).backward(gradient)

    def full() -> None:
        full_attention(q, k, v).backward(gradient)

    return {"full": full, "FLARE shared": shared, "FLARE fused": fused}


def full_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(D)) V by torch's fused kernel, q, k, v [1, R, N, H, D] -> [1, R, N, H, D]."""
    q, k, v = (x.squeeze(0).transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).unsqueeze(0)


def alternating_seconds(works: Mapping[str, Callable[[], None]], device: str, repetitions: int) -> Seconds:
    """Seconds of each, taken in turn after one warm-up each: CPU time of this process, or the GPU's wall time."""
    for work in works.values():
        seconds(work, device, at_least=0.0)
    taken: Seconds = {name: [] for name in works}
    for _ in range(repetitions):
        for name, work in works.items():
            taken[name].append(seconds(work, device))
    return taken


def seconds(work: Callable[[], None], device: str, at_least: float = 0.05) -> float:
    """Mean seconds of `work`, repeated until that much time has passed."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    done, start = 0, clock()
    while True:
        work()
        done += 1
        if device != "cpu":
            torch.cuda.synchronize()
        if clock() - start >= at_least:
            return (clock() - start) / done
