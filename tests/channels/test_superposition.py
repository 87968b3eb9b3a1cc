"""Vectors put together of several encoders: against sums by hand, and what training and play make of them."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from popcomm.channels import Vectors, message_kind
from popcomm.channels.superposition import MEASURES
from popcomm.errors import UserError
from tests.rllib.test_rollout import runner_of
from tests.rllib.test_rounds import stirred, swarm, tensors, unrolled

FULL = {"kind": "full"}


def kind_of(measure: str, encoders: int = 2, size: int = 2, **more: Any) -> Vectors:
    parts = {"encoders": encoders, "measure": measure}
    return message_kind({"kind": "vectors", "size": size, "superposition": parts, **more})  # type: ignore[return-value]


# Two encodings, (1, 2) and (10, 20), turned by 0 and by 60 degrees.
PARTS = torch.tensor([[1.0, 2.0, 0.0], [10.0, 20.0, math.pi / 3]], dtype=torch.float64)


def scored(*scores: float) -> torch.Tensor:
    return torch.cat([PARTS, torch.tensor(scores, dtype=torch.float64).unsqueeze(1)], 1)


def test_a_message_is_the_weighted_sum_of_turned_encodings() -> None:
    learned, logit = kind_of("learned"), math.log(3)
    assert learned.sample(scored(logit, 0.0)).tolist() == pytest.approx([0.75 + 0.25 * 5, 1.5 + 0.25 * 10])
    assert kind_of("top_1").sample(scored(0.1, 0.0)).tolist() == pytest.approx([1.0, 2.0])
    assert kind_of("top_1").sample(scored(0.0, 0.1)).tolist() == pytest.approx([5.0, 10.0])
    noise = torch.tensor([logit, 0.0])
    assert kind_of("random").sample_with(PARTS, noise).tolist() == pytest.approx([2.0, 4.0])


def test_random_weights_are_equal_in_play_and_in_the_mean_of_training() -> None:
    kind = kind_of("random")
    assert kind.mode(PARTS).tolist() == pytest.approx([3.0, 6.0])
    assert kind.soft(PARTS).tolist() == pytest.approx([3.0, 6.0])
    said = kind.sample(PARTS.expand(40_000, 2, 3), torch.Generator().manual_seed(0))
    assert said.mean(0).tolist() == pytest.approx([3.0, 6.0], abs=0.06)
    assert said[:, 0].std() > 0.5
    assert 1.0 < said[:, 0].min() < said[:, 0].max() < 5.0


def test_the_gradient_of_the_largest_reaches_the_scores_as_the_softmaxs_does() -> None:
    grads = []
    for measure in ("learned", "top_1"):
        params = scored(0.0, 0.0).requires_grad_()
        kind_of(measure).sample(params).sum().backward()
        assert params.grad is not None
        grads.append(params.grad)
    torch.testing.assert_close(grads[0][:, -1], grads[1][:, -1])
    assert grads[1][0, -1] != 0
    assert torch.equal(grads[1][1, :2], torch.zeros(2, dtype=torch.float64))  # who was not chosen learns no encoding


@pytest.mark.parametrize("measure", MEASURES)
def test_gradients_are_those_of_finite_differences(measure: str) -> None:
    kind = kind_of(measure)
    params = (PARTS if measure == "random" else scored(0.3, 0.1)).clone().requires_grad_()
    noise = kind.draw_noise(params).double()
    inputs = (params[:, :3].detach().requires_grad_(),) if measure == "top_1" else (params,)

    def said(given: torch.Tensor) -> torch.Tensor:
        whole = torch.cat([given, params[:, 3:].detach()], 1) if measure == "top_1" else given
        return kind.sample_with(whole, noise)

    assert torch.autograd.gradcheck(said, inputs)


@pytest.mark.parametrize(
    ("agent", "measure", "rounds"), [("mlp", "random", 0), ("symbolic", "random", 1), ("tiny", "top_1", 0)]
)
def test_the_learner_hears_what_was_heard(agent: str, measure: str, rounds: int) -> None:
    messages = {"kind": "vectors", "size": 3, "superposition": {"encoders": 3, "measure": measure}}
    config = swarm(rounds, messages, FULL, agent, 2)
    if agent == "tiny":
        config.population(agent_config={"hidden_dim": 16, "num_heads": 2, "latent_tokens": 4})
    runner = stirred(runner_of(config))
    runner.sample()
    arrays = tensors(runner.sample())
    run = unrolled(runner, arrays)["swarm"]
    kind: Any = runner.plan.message_kind
    seats = arrays["swarm"]
    assert float(seats["messages"].abs().max()) > 0.01
    if rounds == 0:
        members, length = run.outputs.message.shape[0], seats["alive"].shape[1]
        assert run.outputs.message.shape[-2:] == kind.params_shape
        assert members == 2
        assert length == 7
    # What the present sender says with the noise that was kept is what was said.
    said = run.inbox.soft if run.inbox is not None else None
    assert said is not None
    torch.testing.assert_close(said[run.inbox.mask], run.inbox.messages[run.inbox.mask].float(), rtol=1e-4, atol=1e-5)


def test_what_cannot_be_is_refused_in_words() -> None:
    with pytest.raises(
        UserError, match=r"messages.superposition.encoders is 1, and must be a whole number of at least 2"
    ):
        kind_of("learned", encoders=1)
    with pytest.raises(UserError, match=r"messages.superposition.measure .*'lerned'.*learned"):
        kind_of("lerned")
    with pytest.raises(
        UserError, match=r"measure is 'random', which does not go with messages.std 0.1; use learned or top_1"
    ):
        kind_of("random", std=0.1)
    with pytest.raises(UserError, match=r"messages.superposition is 4, and must be a mapping with encoders, measure"):
        Vectors(2, superposition=4)  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"'encodrs'.*encoders"):
        Vectors(2, superposition={"encodrs": 4})


def test_parts_are_clipped_together_where_they_are_private() -> None:
    kind = kind_of("learned", privacy={"epsilon": 1.0, "delta": 1e-5, "clip": 1.0})
    assert kind.center(scored(5.0, 0.0)).norm().item() == pytest.approx(1.0, rel=1e-5)
