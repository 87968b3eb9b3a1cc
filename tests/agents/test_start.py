"""How agents start: messages that differ but prefer nothing, actions that follow them, and speech that has listened."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from gymnasium import spaces

from popcomm.agents import AGENTS, AgentSpec
from popcomm.agents.population import PopulationLinear, PopulationLSTMCell
from popcomm.agents.start import MESSAGE_SPREAD, start_memory_, start_message_head_
from popcomm.channels import Inbox, Symbols
from popcomm.channels.relaxed import RelaxedSymbols

TINY: dict[str, Any] = {"hidden_dim": 64, "num_heads": 4, "latent_tokens": 4, "depth": 2}
SPEAKERS: dict[str, tuple[str, dict[str, Any]]] = {
    "symbolic": ("symbolic", {}),
    "mlp": ("mlp", {}),
    "gru": ("gru", {}),
    "tiny": ("tiny", TINY),
    "tiny, one symbol after another": ("tiny", {**TINY, "message_head": "autoregressive"}),
}
SEEDS, ROWS, OBS = range(8), 128, 10


def started(name: str, kind: Any, seed: int) -> tuple[Any, torch.Generator]:
    agent, config = SPEAKERS[name]
    generator = torch.Generator().manual_seed(seed)
    spec = AgentSpec(OBS, spaces.Discrete(4), kind, inbox_size=2, num_agents=3, sender_obs_size=OBS)
    return AGENTS[agent](spec, generator=generator, **config), generator


def heard(kind: Any, generator: torch.Generator) -> Inbox:
    """One random message for each row."""
    messages = kind.sample(torch.zeros(1, ROWS, 1, *kind.params_shape), generator)
    one = torch.ones(1, ROWS, 1, dtype=torch.bool)
    return Inbox(messages, one.long(), one)


@torch.no_grad()
def answers(name: str, kind: Any, seed: int) -> tuple[float, float]:
    """Share of the largest entropy that messages have, and how far actions go apart over two random messages."""
    agent, generator = started(name, kind, seed)
    obs, state = torch.randn(1, ROWS, OBS, generator=generator), agent.initial_state(ROWS)
    inboxes = [heard(kind, generator) for _ in range(2)]
    one, other = (agent(obs, inbox, state) for inbox in inboxes)
    most = float(kind.entropy(torch.zeros(kind.params_shape)))
    p, q = (output.action_logits.softmax(-1) for output in (one, other))
    differ = (inboxes[0].messages != inboxes[1].messages).flatten(2).any(-1)
    return float(kind.entropy(one.message).mean()) / most, float((p - q).abs().sum(-1)[differ].mean()) / 2


KINDS: list[Any] = [Symbols(2, 1), Symbols(8, 1), Symbols(64, 3)]


@pytest.mark.parametrize(
    ("name", "kind"),
    [*itertools.product(SPEAKERS, KINDS), ("symbolic", RelaxedSymbols(8, 1)), ("mlp", RelaxedSymbols(8, 1))],
    ids=str,
)
def test_messages_start_nearly_even_and_actions_follow_them(name: str, kind: Any) -> None:
    entropies, moves = zip(*(answers(name, kind, seed) for seed in SEEDS), strict=True)
    assert 0.9 < sum(entropies) / len(SEEDS) < 0.99
    assert sum(moves) / len(SEEDS) > 0.05


@pytest.mark.parametrize("symbols", [2, 16, 200])
def test_logits_of_messages_start_with_the_same_spread_whatever_the_alphabet(symbols: int) -> None:
    """Also where there are more symbols than the 32 inputs. The normal inputs have the root mean square 0.5."""
    generator = torch.Generator().manual_seed(0)
    layer = PopulationLinear(3, 32, symbols, generator=generator)
    start_message_head_(layer, 0.5, generator)
    logits = layer(0.5 * torch.randn(3, 2000, 32, generator=generator)).detach()
    assert float(logits.std()) == pytest.approx(MESSAGE_SPREAD, rel=0.05)
    assert not layer.bias.any()


@pytest.mark.parametrize("name", SPEAKERS)
def test_what_is_said_in_a_step_depends_on_what_is_heard_in_it(name: str) -> None:
    """A hop of a relay takes one step: another message heard makes another distribution of the message said."""
    kind = Symbols(8, 1)
    agent, generator = started(name, kind, 0)
    obs, state = torch.randn(1, ROWS, OBS, generator=generator), agent.initial_state(ROWS)
    one = heard(kind, generator)
    other = one._replace(messages=(one.messages + 1) % 8)
    said = torch.zeros(1, ROWS, 1, dtype=torch.int64)
    how = {"said": said} if getattr(agent, "autoregressive", False) else {}
    params = [agent(obs, inbox, state, **how).message.softmax(-1) for inbox in (one, one, other)]
    assert torch.equal(params[0], params[1])
    assert ((params[0] - params[2]).abs().sum(-1) > 1e-3).float().mean() > 0.9


@pytest.mark.parametrize("name", SPEAKERS)
def test_a_gradient_goes_from_what_is_said_to_what_was_heard_in_the_same_step(name: str) -> None:
    kind = Symbols(8, 1)
    agent, generator = started(name, kind, 0)
    obs, inbox = torch.randn(1, ROWS, OBS, generator=generator), heard(kind, generator)
    soft = F.one_hot(inbox.messages, 8).float().requires_grad_()
    how = {"said": torch.zeros(1, ROWS, 1, dtype=torch.int64)} if getattr(agent, "autoregressive", False) else {}
    output = agent(obs, inbox._replace(soft=soft), agent.initial_state(ROWS), **how)
    output.message[..., 0].sum().backward()
    assert soft.grad is not None
    assert (soft.grad.flatten(2).abs().sum(-1) > 0).all()


@pytest.mark.parametrize("name", SPEAKERS)
def test_features_are_all_that_actions_follow_from(name: str) -> None:
    """As wide as the agent says, and with a way back to what was heard; the same features give the same actions."""
    kind = Symbols(4, 1)
    agent, generator = started(name, kind, 0)
    inbox = heard(kind, generator)
    soft = F.one_hot(inbox.messages, 4).float().requires_grad_()
    obs = torch.randn(1, ROWS, OBS, generator=generator)
    features = agent(obs, inbox._replace(soft=soft), agent.initial_state(ROWS)).aux["features"]
    assert agent.gives_features
    assert features.shape == (1, ROWS, agent.features_size)
    assert torch.autograd.grad(features.square().sum(), soft)[0].abs().max() > 0
    assert math.isfinite(float(features.detach().abs().max()))


# ---- memory ----


@pytest.mark.parametrize("inputs", [12, 80])
def test_a_memory_starts_loud_and_still_tells_inputs_apart_three_steps_later(inputs: int) -> None:
    """Inputs of length 2, as an observation of a few ones beside what is heard; then the same input in all rows."""
    generator = torch.Generator().manual_seed(0)
    cell = PopulationLSTMCell(3, inputs, 64, generator=generator)
    start_memory_(cell, generator)
    seen = 2 * F.normalize(torch.randn(3, 500, inputs, generator=generator), dim=-1)
    state = (torch.zeros(3, 500, 64), torch.zeros(3, 500, 64))
    with torch.no_grad():
        state = cell(seen, state)
        at_once = state[0].std(1).mean()
        for _ in range(3):
            state = cell(torch.ones(3, 500, inputs) * 2 / math.sqrt(inputs), state)
    assert 0.1 < float(at_once) < 0.5
    assert float(state[0].std(1).mean()) > 0.25 * float(at_once)


def test_a_memory_keeps_and_lets_out_more_than_it_forgets_and_prefers_no_content() -> None:
    cell = PopulationLSTMCell(2, 20, 64, generator=torch.Generator().manual_seed(0))
    start_memory_(cell, torch.Generator().manual_seed(1))
    enter, forget, new, leave = (cell.bias_ih + cell.bias_hh).detach().chunk(4, -1)
    assert not new.any()
    for block, open_ in ((enter, 0.0), (forget, 1.0), (leave, 1.0)):
        assert float(block.mean()) == pytest.approx(open_, abs=0.1)
