"""TinyAgent: tokens per second, forward and backward, and the share of the device's peak that its products reach.

    python -m popcomm.analysis.benchmarks.tiny --preset tiny-100m

On CUDA the blocks compute in bf16 and the agent is compiled. A token is a symbol heard or an observation. Operations
are those of the model, counted by torch on tensors without memory; what activation checkpointing computes again is not
work done, so it lowers the share.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from popcomm.analysis.benchmarks.common import Measurement, median, table
from torch.utils.flop_counter import FlopCounterMode

from popcomm.agents.acting import default_spec
from popcomm.agents.tiny import TinyAgent
from popcomm.channels import Inbox

# Dense bf16 operations per second with float32 sums, from the makers' data sheets, by a part of the device's name.
# The longer name comes first.
PEAKS = {
    "B200": 2250e12,
    "GH200": 989e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "RTX 4090": 165e12,
}


@dataclass(frozen=True)
class Case:
    """What is measured: rows of one observation and so many messages of the default game's four symbols."""

    preset: str
    rows: int
    messages: int
    dtype: str = "bf16"
    compiled: bool = True
    overrides: tuple[tuple[str, Any], ...] = ()

    @property
    def tokens(self) -> int:
        """Tokens of one pass."""
        kind = default_spec().messages
        assert kind is not None
        return self.rows * (1 + self.messages * kind.shape[0])

    @property
    def label(self) -> str:
        sizes = "".join(f", {key} {value}" for key, value in self.overrides)
        return f"{self.preset}{sizes}, {self.rows} x {self.tokens // self.rows} tokens, {self.dtype}"

    def agent(self) -> TinyAgent:
        return TinyAgent.preset(self.preset, dtype=self.dtype, **dict(self.overrides))


def run(quick: bool = False) -> list[Measurement]:
    """The large one where there is a GPU, a small one where there is none."""
    return measure(*default_case(quick), steps=2 if quick else 10)


def default_case(quick: bool = False) -> tuple[Case, torch.device]:
    if torch.cuda.is_available():
        return Case("tiny-100m", rows=64 if quick else 256, messages=63), torch.device("cuda")
    # Without bf16 in hardware, bf16 products were measured ten times slower than float32 ones.
    return Case("tiny-1m", 1 if quick else 16, 15, "float32", compiled=not quick), torch.device("cpu")


def compiler_at_hand(device: torch.device) -> bool:
    """Whether torch.compile can build kernels here: it needs a C++ compiler, and for CUDA Triton as well."""
    compiler = any(shutil.which(name) for name in (os.environ.get("CXX", "c++"), "g++", "clang++"))
    return compiler and (device.type == "cpu" or importlib.util.find_spec("triton") is not None)


def measure(case: Case, device: torch.device, steps: int = 10, peak: float | None = None) -> list[Measurement]:
    """Tokens/s, operations/s, the share of `peak` (operations/s; the table's if None) and, on CUDA, memory."""
    compiled = case.compiled and compiler_at_hand(device)
    if case.compiled and not compiled:
        print(f"no compiler for {device.type} at hand: measured without torch.compile")
    step = training_step(case, device, compiled)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    seconds = timed(step, device, steps)
    rates = tuple(case.tokens / s for s in seconds)
    name = f"{case.label}, {device.type}" + (", compiled" if compiled else "")
    work = operations(case) / median(seconds)
    results = [
        Measurement("tiny", f"{name}: forward + backward", median(rates), "tokens/s", samples=rates),
        Measurement("tiny", f"{name}: products", work / 1e12, "TFLOP/s"),
    ]
    peak = peak_of(device) if peak is None else peak
    if peak is not None:
        results.append(Measurement("tiny", f"{name}: share of {peak / 1e12:g} TFLOP/s", work / peak, "of peak"))
    if device.type == "cuda":
        memory = torch.cuda.max_memory_allocated(device) / 2**30
        results.append(Measurement("tiny", f"{name}: peak memory", memory, "GiB"))
    return results


def peak_of(device: torch.device) -> float | None:
    """Peak operations/s of a GPU in the table; None for others."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)


def training_step(case: Case, device: torch.device, compiled: bool) -> Callable[[], None]:
    """A function that runs the agent forward and backward on fixed random inputs."""
    torch.manual_seed(0)
    with device:
        agent = case.agent()
        obs, inbox = inputs(case)
    # Each shape is compiled once: there is only one.
    network: Any = torch.compile(agent, dynamic=False) if compiled else agent

    def step() -> None:
        agent.zero_grad(set_to_none=True)
        loss_of(network(obs, inbox, {})).backward()

    return step


def inputs(case: Case) -> tuple[torch.Tensor, Inbox]:
    """Random observations [1, R, O] and full inboxes [1, R, K, 4], on torch's default device."""
    spec, shape = default_spec(), (1, case.rows, case.messages)
    assert spec.messages is not None
    messages = torch.randint(16, (*shape, *spec.messages.shape))
    senders = torch.arange(case.messages).expand(shape) % spec.num_agents
    return torch.randn(1, case.rows, spec.obs_size), Inbox(messages, senders, torch.ones(shape, dtype=torch.bool))


def loss_of(output: Any) -> torch.Tensor:
    """A scalar whose gradient reaches every layer that acts or speaks."""
    return output.action_logits.square().mean() + output.message.square().mean() + output.value.square().mean()


def operations(case: Case) -> int:
    """Floating-point operations of one pass forward and backward without checkpointing: two for each multiplication."""
    plain = replace(case, overrides=(*case.overrides, ("checkpoint_activations", False)), dtype="float32")
    with torch.device("meta"):
        agent, (obs, inbox) = plain.agent(), inputs(plain)
        with FlopCounterMode(display=False) as counter:
            loss_of(agent(obs, inbox, {})).backward()
    return counter.get_total_flops()


def timed(step: Callable[[], None], device: torch.device, steps: int) -> list[float]:
    """Seconds of each step, after two that compile and warm up."""
    seconds = []
    for i in range(steps + 2):
        start = time.perf_counter()
        step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if i >= 2:
            seconds.append(time.perf_counter() - start)
    return seconds


def main(arguments: list[str] | None = None) -> None:
    """Measure one case from the command line."""
    usual, device = default_case()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default=usual.preset)
    parser.add_argument("--rows", type=int, default=usual.rows)
    parser.add_argument("--messages", type=int, default=usual.messages, help="messages in every inbox")
    parser.add_argument("--dtype", choices=("bf16", "float32"), default=usual.dtype)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--peak", type=float, help="operations/s that the device can do; default: from a table")
    given = parser.parse_args(arguments)
    case = Case(given.preset, given.rows, given.messages, given.dtype, not given.no_compile)
    print(table(measure(case, device, given.steps, given.peak)))


if __name__ == "__main__":
    main()
