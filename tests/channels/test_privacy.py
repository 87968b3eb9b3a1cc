"""Private messages: noise by the accountant, the bound it gives held against attacks, and what is refused."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
import torch
from pettingzoo.utils import ParallelEnv
from scipy.stats import norm

from popcomm.channels import Vectors, message_kind
from popcomm.channels.kinds import gradients_of
from popcomm.channels.messages import likeliest
from popcomm.channels.privacy import Privacy
from popcomm.envs import swarm_v0, with_messages
from popcomm.errors import UserError

DELTA = 1e-5
WAYS = {"epsilon": 1.0, "delta": DELTA, "clip": 1.0}


def private(size: int = 4, **changes: Any) -> Vectors:
    return message_kind({"kind": "vectors", "size": size, "privacy": {**WAYS, **changes}})  # type: ignore[return-value]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def leaks(sigma: float, epsilon: float, sensitivity: float = 1.0) -> float:
    """The smallest delta of a normal mechanism (Balle & Wang 2018, theorem 5)."""
    half, far = sensitivity / (2 * sigma), epsilon * sigma / sensitivity
    return float(norm.cdf(half - far) - math.exp(epsilon) * norm.cdf(-half - far))


def test_sigma_is_the_known_one_of_the_analytic_gaussian_mechanism() -> None:
    """3.7306 for (1, 1e-5) and a sensitivity of 1; two messages lie 2 clip apart at most, n take sqrt(n) of it."""
    assert Privacy(**WAYS, messages=1).sigma == pytest.approx(2 * 3.730632, rel=1e-6)
    assert Privacy(1.0, DELTA, 0.5, 16).sigma == pytest.approx(4 * 3.730632, rel=1e-6)
    for epsilon in (0.1, 1.0, 5.0):
        assert leaks(Privacy(epsilon, DELTA, 1.0).sigma, epsilon, 2.0) == pytest.approx(DELTA, rel=1e-6)


def test_what_is_spent_composes_as_the_accountants_loss_distributions_do() -> None:
    """Another accountant of dp-accounting, which composes event by event."""
    from dp_accounting import GaussianDpEvent, pld

    hidden = Privacy(2.0, DELTA, 0.7, messages=10)
    counts = np.array([[0, 1], [10, 40]])
    spent = hidden.spent(counts)
    assert spent[0, 0] == 0
    assert spent[1, 0] == pytest.approx(2.0, rel=1e-6)
    for count, epsilon in zip(counts.flat[1:], spent.flat[1:], strict=True):
        accountant = pld.PLDAccountant()
        accountant.compose(GaussianDpEvent(hidden.sigma / hidden.sensitivity), int(count))
        assert epsilon == pytest.approx(accountant.get_epsilon(DELTA), rel=2e-3)


def test_messages_are_clipped_and_as_noisy_as_sigma_says() -> None:
    kind, params = private(), torch.tensor([30.0, 0.0, 0.0, 0.0]).expand(40_000, 4)
    assert kind.mechanism is not None
    for said in (kind.sample(params, generator()), likeliest(kind, params, generator(1)), kind.mode(params)):
        assert said.std(0).numpy() == pytest.approx(kind.mechanism.sigma, rel=0.02)
        assert said.mean(0).numpy() == pytest.approx([1.0, 0.0, 0.0, 0.0], abs=5 * kind.mechanism.sigma / 200)


def test_no_vector_is_longer_than_the_clip_and_short_ones_stay_what_they_are() -> None:
    kind = private(clip=0.3)
    params = torch.randn(10_000, 4, generator=generator()) * torch.logspace(-3, 4, 10_000).unsqueeze(1)
    clipped = kind.center(params).double()
    assert clipped.norm(dim=-1).max() <= 0.3
    short = params.norm(dim=-1) < 0.299
    assert torch.equal(clipped[short], params[short].double())


def test_gradients_pass_the_clipping_and_stay_finite_at_zero() -> None:
    kind = private(3)
    params = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.2, 0.0], [3.0, 4.0, 0.0]], dtype=torch.float64, requires_grad=True)
    noise = kind.draw_noise(params, generator()).double()
    assert torch.autograd.gradcheck(lambda p: kind.sample_with(p, noise), params)
    kind.sample_with(params, noise).sum().backward()
    assert params.grad is not None
    assert torch.isfinite(params.grad).all()
    assert gradients_of(kind) == ("through", "none")


def rebuilt(kind: Vectors, observations: torch.Tensor, encoder: torch.Tensor, messages: int) -> float:
    """R² of observations [M, O] that least squares makes of so many messages of each; 0: as good as guessing the mean.

    The attacker knows the encoder, and shrinks what it finds as it best does in hindsight.
    """
    params = (observations @ encoder).expand(messages, -1, -1)
    heard = kind.sample(params, generator(7)).mean(0)
    found = torch.linalg.lstsq(encoder.T, heard.T).solution.T
    best = (found * observations).sum() / found.square().sum()
    return 1 - float((best * found - observations).square().sum() / observations.square().sum())


def test_an_observation_is_rebuilt_from_messages_unless_they_are_private() -> None:
    encoder = torch.randn(4, 6, generator=generator(1))
    seen = torch.nn.functional.normalize(torch.randn(500, 4, generator=generator(2)), dim=1)
    encoder /= torch.linalg.matrix_norm(encoder, 2)  # so that nothing is clipped away
    assert rebuilt(Vectors(6), seen, encoder, 20) > 0.9999
    assert rebuilt(private(6, messages=20), seen, encoder, 20) < 0.02


def told_apart(kind: Vectors, messages: int) -> float:
    """How often the best guess is right which of two observations, whose messages differ most, was told of."""
    truth = torch.randint(2, (20_000,), generator=generator(3)) * 2 - 1
    params = torch.tensor([5.0, 0.0]) * truth.view(1, -1, 1)
    heard = kind.sample(params.expand(messages, -1, -1), generator(4)).mean(0)
    return float((heard[:, 0].sign() == truth).float().mean())


def test_two_observations_are_told_apart_no_better_than_epsilon_allows_however_many_messages_were_planned() -> None:
    """At most e^epsilon / (1 + e^epsilon), and delta (Kairouz, Oh & Viswanath 2015)."""
    most = math.e / (1 + math.e) + DELTA
    for messages in (1, 50):
        kind = private(2, messages=messages)
        assert kind.mechanism is not None
        found = told_apart(kind, messages)
        assert found == pytest.approx(norm.cdf(math.sqrt(messages) / kind.mechanism.sigma), abs=0.015)
        assert found < most
    assert told_apart(private(2, messages=1), 50) > most
    assert told_apart(Vectors(2), 1) == 1.0
    # Noise of scale 1 / epsilon hides nothing of numbers that nothing bounds.
    assert told_apart(Vectors(2, std=1.0), 1) > 0.99


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"epsilon": 0}, r"messages.privacy.epsilon is 0, and must be a finite number above 0"),
        ({"epsilon": -1.0}, "epsilon is -1.0, and must be"),
        ({"epsilon": math.inf}, "epsilon is inf, and must be"),
        ({"delta": 0.0}, "messages.privacy.delta is 0.0, and must lie between 0 and 1, both excluded"),
        ({"delta": 1}, "delta is 1, and must lie"),
        ({"clip": 0}, "messages.privacy.clip is 0, and must be a finite number above 0"),
        ({"messages": 0}, "messages.privacy.messages is 0, and must be a whole number of at least 1"),
        ({"epsilom": 2}, "'epsilom'.*epsilon"),
        ({"clip": None}, "messages.privacy.clip is None"),
    ],
)
def test_what_gives_no_guarantee_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        private(**changes)


def test_privacy_without_a_clip_or_with_a_std_is_refused() -> None:
    with pytest.raises(UserError, match=r"messages.privacy has no 'clip', and needs epsilon, delta and clip"):
        Vectors(4, privacy={"epsilon": 1.0, "delta": DELTA})
    with pytest.raises(UserError, match=r"messages.std is 0.5, and follows from messages.privacy"):
        Vectors(4, std=0.5, privacy=WAYS)
    with pytest.raises(UserError, match=r"messages.privacy is 3, and must be a mapping"):
        Vectors(4, privacy=3)  # type: ignore[arg-type]


def test_without_dp_accounting_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dp_accounting", None)
    with pytest.raises(
        UserError, match=r"needs dp-accounting, which is not installed: pip install 'popcomm\[privacy\]'"
    ):
        private()
    assert Vectors(4).mechanism is None


def test_an_environment_that_only_delivers_does_not_promise_privacy() -> None:
    env: ParallelEnv = swarm_v0.parallel_env(num_agents=3)
    with pytest.raises(UserError, match=r"messages.privacy is a promise of who says them"):
        with_messages(env, private(), {"kind": "full"})
