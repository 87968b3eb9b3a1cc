"""TinyAgent's benchmark counts what it says, and its path (bf16, compiled) runs on a CPU."""

from __future__ import annotations

import math

import pytest
import torch
from popcomm.analysis.benchmarks import tiny

C, HEADS, M, DEPTH = 16, 4, 4, 2
CPU = torch.device("cpu")
SMALL = (("hidden_dim", C), ("num_heads", HEADS), ("latent_tokens", M), ("depth", DEPTH))


def case_of(rows: int = 3, **config: bool) -> tiny.Case:
    return tiny.Case("tiny-1m", rows, messages=5, overrides=SMALL, **config)  # type: ignore[arg-type]


def test_every_symbol_and_every_observation_is_a_token() -> None:
    assert case_of().tokens == 3 * (1 + 5 * 4)


def test_operations_are_two_per_multiplication_thrice_for_forward_and_both_gradients() -> None:
    case, narrow = case_of(), C
    # Keys, values and output; scores, encode and decode; the two layers of the MLP, in the last block for one token.
    blocks = DEPTH * case.tokens * (3 * C * C + 3 * C * M) + ((DEPTH - 1) * case.tokens + case.rows) * 4 * C * C
    heads = case.rows * C * (20 + 4 * 16) + case.rows * narrow
    # Inputs without a gradient: the observation, and the hidden state where the critic reads it.
    without = case.rows * (22 * C + C * narrow)
    assert tiny.operations(case) == 6 * (blocks + heads) + 4 * without


def test_the_rates_are_of_tokens_and_operations_and_the_share_is_of_the_given_peak() -> None:
    tokens, products, share = tiny.measure(case_of(compiled=False), CPU, steps=3, peak=2e12)
    assert len(tokens.samples) == 3
    assert all(math.isfinite(m.value) and m.value > 0 for m in (tokens, products, share))
    per_token = tiny.operations(case_of()) / case_of().tokens
    assert products.value * 1e12 == pytest.approx(tokens.value * per_token)
    assert share.value == pytest.approx(products.value / 2)


def test_without_a_compiler_it_says_so_and_measures_all_the_same(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    measured = tiny.measure(case_of(), CPU, steps=1)
    assert "no compiler for cpu at hand" in capsys.readouterr().out
    assert not any("compiled" in m.case for m in measured)


def test_the_peak_is_that_of_the_named_device(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"NVIDIA H100 PCIe": 756e12, "NVIDIA H100 80GB HBM3": 989e12, "NVIDIA A100-SXM4-80GB": 312e12, "Else": None}
    for name, peak in names.items():
        monkeypatch.setattr("torch.cuda.get_device_name", lambda device, name=name: name)
        assert tiny.peak_of(torch.device("cuda")) == peak
    assert tiny.peak_of(CPU) is None


def test_the_program_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    tiny.main(["--rows", "1", "--messages", "1", "--steps", "1", "--no-compile", "--dtype", "bf16", "--peak", "1e12"])
    assert "tiny-1m, 1 x 5 tokens, bf16" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.skipif(not tiny.compiler_at_hand(CPU), reason="needs a C++ compiler")
def test_the_compiled_agent_computes_in_one_graph_what_the_plain_one_does() -> None:
    torch._dynamo.reset()
    case = case_of()
    agent, (obs, inbox) = case.agent(), tiny.inputs(case)
    compiled = torch.compile(agent, dynamic=False, fullgraph=True)

    def gradients(network: torch.nn.Module) -> list[torch.Tensor]:
        agent.zero_grad(set_to_none=True)
        tiny.loss_of(network(obs, inbox, {})).backward()
        return [p.grad.clone() for p in agent.parameters() if p.grad is not None]

    plain = gradients(agent)
    # Of the bias of keys only the noise of bfloat16 is left, against gradients a hundred times as large beside it.
    noise = 1e-3 * max(float(one.abs().max()) for one in plain)
    for one, two in zip(plain, gradients(compiled), strict=True):
        torch.testing.assert_close(one, two, atol=noise + 0.02 * float(one.abs().max()), rtol=0.1)
    assert any("compiled" in m.case for m in tiny.measure(case, CPU, steps=1))
