"""SymbolicAgent: an LSTM that speaks in symbols and listens by attention, with losses that ground what it says."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from popcomm.agents.activations import tanh
from popcomm.agents.attention import attend
from popcomm.agents.contract import AgentOutput, AgentSpec, later
from popcomm.agents.convolution import make_eye
from popcomm.agents.distributions import action_distribution
from popcomm.agents.gates import Manner, ReceiverGate, check_urgency
from popcomm.agents.grounding import Grounding, auxiliary_weights
from popcomm.agents.message_decoder import MessageDecoder
from popcomm.agents.message_encoder import MessageEncoder
from popcomm.agents.pointing import make_pointing, pointed
from popcomm.agents.population import PopulationLinear, PopulationLSTMCell, PopulationMLP
from popcomm.agents.pretrained import Pretrained
from popcomm.agents.routing import RoutedHearing
from popcomm.agents.start import POLICY_GAIN, start_memory_, start_message_head_
from popcomm.channels.mailbox import Inbox, RoutedInbox
from popcomm.checks import whole
from popcomm.errors import UserError

# Root mean square of thoughts at the start.
START_SCALE = 0.5


class SymbolicAgent(Grounding, Pretrained, nn.Module):
    """Five modules for emergent symbolic communication.

    1. Memory: an LSTM on the observation and the last attended context.
    2. Decoder: every message heard -> what its sender saw. Only in the losses.
    3. Attention over the inbox with `num_heads` heads; the query is the hidden state.
    4. Thought: the hidden layer of the policy, tanh on the observation, the hidden state and the attended context.
       Actions *and* messages are read from it, so that what is heard in a step can be said in the same step, and what a
       listener learns to tell apart a speaker can name. With heads of their own, agents stayed deaf for longer
       (docs/learning_to_talk.md). The value head is a network of its own on the same; its gradient stops before the
       memory. In PPO trials with 8 members (returns not normalised, value coefficient 0.5) the mean reward over
       training was 0.45 so and 0.32 with a shared gradient when remembering a cue, 0.53 and 0.33 when acting on a
       partner's message, but -0.27 and -0.25 when steering to a point, with nothing to remember or hear.
    5. World estimator: the attended context, without the own observation -> the world's latent state. Only in the
       losses. The own observation still reaches it through the *choice* of messages, as in any attention.

    In silence nothing is said, the context is zero, 2 and 3 do not exist, and the rest has the same sizes; the
    world estimator can then learn only the mean.

    Args:
        spec: what the network must know of its place.
        hidden_dim: width of everything.
        num_heads: attention heads; divides hidden_dim.
        reconstruction_weight: of the mean squared error of module 2.
        prediction_weight: of the mean squared error of the next observation, guessed from hidden state and action.
        world_weight: of the mean squared error of module 5.
        cost_weight: of the expected number of symbols that are not blank (L1; for vectors the L1 norm, for words the
            probability of one).
        encoder: "cnn", a small convolutional network for pictures; "flat", their numbers as they are; None: "cnn" where
            there are pictures (`popcomm.agents.convolution`). What it makes of them takes the observation's place in 1
            and 4; what is predicted and reconstructed of pictures is means over 8 x 8 parts.
        urgency: where the priority of its messages comes from, under a budget (`popcomm.agents.gates.Manner`).
        generator: source of the initial weights; torch's default one if None.

    A loss whose weight is 0 is not computed.

    Raises:
        UserError: a width below one, heads that do not divide it, a negative weight, or an encoder that does not fit.
    """

    hears_routed = True
    gives_features = takes_relaxed = gates_messages = True

    def __init__(
        self,
        spec: AgentSpec,
        hidden_dim: int = 64,
        num_heads: int = 4,
        reconstruction_weight: float = 0.1,
        prediction_weight: float = 0.1,
        world_weight: float = 0.1,
        cost_weight: float = 0.001,
        generator: torch.Generator | None = None,
        encoder: str | None = None,
        urgency: Any = None,
    ) -> None:
        super().__init__()
        _check(hidden_dim, num_heads)
        self.auxiliary_weights = auxiliary_weights(reconstruction_weight, prediction_weight, world_weight, cost_weight)
        self.spec, self.hidden_dim, self.num_heads = spec, hidden_dim, num_heads
        self.distribution = action_distribution(spec.action_space)
        p, h = spec.members, hidden_dim
        self.eye = make_eye(spec, encoder, h, generator)
        seen = spec.obs_size if self.eye is None else self.eye.size
        # Else what is seen, or the candidates, are in nothing but the observation.
        self.decides_unseen = self.eye is not None and spec.candidates is None
        self.lstm = PopulationLSTMCell(p, seen + h, h, generator=generator)
        start_memory_(self.lstm, generator)
        width = seen + 2 * h
        self.features_size = h
        self.policy = PopulationMLP(p, width, h, spec.action_params_size, gain=POLICY_GAIN, generator=generator)
        self.critic = PopulationMLP(p, width, h, 1, gain=1.0, generator=generator)
        self._add_estimators(h, h, generator)
        if spec.sends is not None:
            self.message_head = PopulationLinear(p, h, math.prod(spec.sends.params_shape), generator=generator)
            start_message_head_(self.message_head, START_SCALE, generator)
        if spec.receives is not None:
            self.encoder = MessageEncoder(p, spec.receives, h, generator=generator)
        if spec.receives is not None and "receiver" in spec.gates:
            self.gate = ReceiverGate(p, h, h, generator)
        check_urgency(spec, urgency)
        if spec.manners:
            self.manner = Manner(spec, h, urgency, generator)
        if spec.receives is not None and spec.latents:
            self.hearing = RoutedHearing(p, h, num_heads, spec.latents, generator)
        elif spec.receives is not None:
            self.query = PopulationLinear(p, h, h, generator=generator)
            if spec.sender_obs_size:
                self.decoder = MessageDecoder(p, spec.receives, h, num_heads, spec.sender_obs_size, generator)
        self.pointing = make_pointing(spec, h, START_SCALE, generator)

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        """{"h", "c", and "context" unless silent}, [P, rows, hidden_dim] zeros each."""
        names = ("h", "c") if self.spec.receives is None else ("h", "c", "context")
        shape = (self.spec.members, rows, self.hidden_dim)
        return {name: self.lstm.weight_ih.new_zeros(shape) for name in names}

    def forward(
        self,
        obs: Tensor,
        inbox: Inbox | None,
        state: Mapping[str, Tensor],
        undecided: bool = False,
        seen: Tensor | None = None,
    ) -> AgentOutput:
        """obs [P, R, O] float32, inbox [P, R, K, ...] or None -> AgentOutput; `undecided` and `seen`: see `Agent`.

        `aux` has "hidden", "context" and "features" (the thought), [P, R, hidden_dim], and unless silent "attention"
        [P, R, K], the mean over heads: it sums to one over the real messages, and to zero where there is none.
        """
        before = state["context"] if "context" in state else torch.zeros_like(state["h"])
        seen = self.see(obs) if seen is None else seen
        hidden, cell = self.lstm((seen, before), (state["h"], state["c"]))
        aux, message = {"hidden": hidden}, None
        if self.eye is not None:
            aux["seen"] = seen
        if self.spec.receives is None or inbox is None:
            context = torch.zeros_like(hidden)
        elif isinstance(inbox, RoutedInbox):
            context = inbox.hear(self.hearing, hidden, self._encoded)
        else:
            context, told = self._attend(hidden, inbox)
            aux |= told
        next_state = {"h": hidden, "c": cell}
        if self.spec.receives is not None:
            next_state["context"] = context
        aux["context"] = context
        known = torch.cat([seen, hidden, context], -1)
        aux["features"] = thought = self.policy.hidden(known)
        if self.spec.sends is not None:
            message = self.message_head(thought).unflatten(-1, self.spec.sends.params_shape)
        logits, value = later(obs) if undecided else self.decide(obs, aux)
        manner = self.manner(thought, obs) if self.spec.manners else None
        return AgentOutput(logits, message, value, next_state, aux, manner=manner)

    def see(self, obs: Tensor) -> Tensor:
        """obs [P, R, O] -> [P, R, what the eye makes of them], or obs itself without one."""
        return obs if self.eye is None else self.eye(obs)

    def decide(self, obs: Tensor, aux: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """obs [P, R, O], unless what was seen is in `aux` of those rows -> action logits [P, R, A], values [P, R]."""
        known = torch.cat([aux.get("seen", obs), aux["hidden"], aux["context"]], -1).detach()
        logits = self.policy.layers[-1](aux["features"])
        return pointed(self.pointing, logits, aux["features"], obs), self.critic(known).squeeze(-1)

    def _encoded(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        return tanh(self.encoder.encode(messages, soft))

    def _attend(self, hidden: Tensor, inbox: Inbox) -> tuple[Tensor, dict[str, Tensor]]:
        """hidden [P, R, H] -> context [P, R, H], {"attention": [P, R, K] averaged over heads, "openness": of gates}.

        Keys and values are one: head j reads the j-th part of each encoded message, and the query decides which of its
        numbers it looks at, so products with K * R rows are not needed.
        """
        heard, told = inbox.read(self._encoded), {}
        if "receiver" in self.spec.gates:
            heard, openness = self.gate(hidden, heard)
            told["openness"] = openness * inbox.mask
        context, weights = attend(heard, self.query(hidden), inbox.mask, self.num_heads)
        return context, {"attention": weights.mean(-1), **told}


def _check(hidden_dim: int, num_heads: int) -> None:
    whole("agent_config.hidden_dim", hidden_dim, 1)
    if num_heads < 1 or hidden_dim % num_heads:
        raise UserError(f"agent_config.num_heads is {num_heads}, and must divide hidden_dim = {hidden_dim}")
