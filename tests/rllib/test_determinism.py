"""What a seed makes of torch, and what is not loaded for it."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from popcomm.rllib import determinism
from popcomm.rllib.adam import Adam
from popcomm.rllib.determinism import tell_compiler, without_compiler

ROOT = Path(__file__).parents[2]
UPDATE = """
import sys
from tests.rllib.test_learner import learner_of, update
from tests.rllib.test_rollout import clock_config, runner_of

import torch

config = clock_config(agent="mlp").debugging(seed=1)
update(learner_of(config), runner_of(config))
assert torch.are_deterministic_algorithms_enabled()
slow = {"torch._dynamo", "torch._inductor", "sympy", "scipy.special", "scipy.sparse", "scipy.spatial"}
print(*sorted(slow & {*sys.modules}))
"""


@pytest.fixture
def as_before() -> object:
    mode = torch.get_deterministic_debug_mode()
    yield
    torch.set_deterministic_debug_mode(mode)


def test_an_update_with_a_seed_is_deterministic_and_loads_neither_a_compiler_nor_scipy() -> None:
    done = subprocess.run([sys.executable, "-c", UPDATE], cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(("mode", "warn_only", "debug_mode"), [(True, False, 2), (True, True, 1), (False, False, 0)])
def test_without_its_compiler_torch_is_as_deterministic_as_it_was_told(
    monkeypatch: pytest.MonkeyPatch, as_before: object, mode: bool, warn_only: bool, debug_mode: int
) -> None:
    theirs = torch.use_deterministic_algorithms
    monkeypatch.setattr(determinism, "COMPILER", "a module that nobody loads")
    with without_compiler():
        torch.use_deterministic_algorithms(mode, warn_only=warn_only)
    assert torch.get_deterministic_debug_mode() == debug_mode
    assert torch.use_deterministic_algorithms is theirs


def test_whoever_compiles_has_the_compiler_told(monkeypatch: pytest.MonkeyPatch, as_before: object) -> None:
    import torch._inductor.config as of_compiler

    monkeypatch.setattr(determinism, "COMPILER", "a module that nobody loads")
    monkeypatch.setattr(of_compiler, "deterministic", False)
    with without_compiler():
        torch.use_deterministic_algorithms(True)
    assert not of_compiler.deterministic
    tell_compiler()
    assert of_compiler.deterministic
    assert torch.get_deterministic_debug_mode() == 2


@pytest.mark.parametrize("fused", [True, False])
def test_adam_is_torchs_bit_for_bit_and_takes_its_state(fused: bool) -> None:
    start = torch.randn(50, generator=torch.Generator().manual_seed(0))
    theirs, ours = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    first, second = torch.optim.Adam([theirs], lr=0.1, fused=fused), Adam([ours], lr=0.1, fused=fused)
    for step in range(6):
        if step == 3:  # another of ours goes on from there
            second = Adam([ours], lr=0.1, fused=fused)
            second.load_state_dict(copy.deepcopy(first.state_dict()))
        for p, optimizer in ((theirs, first), (ours, second)):
            p.pow(4).sum().backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=step % 2 == 0)
            assert p.grad is None if step % 2 == 0 else not p.grad.any()
        assert torch.equal(theirs, ours)
    assert not torch.equal(ours, start)
