"""MLPAgent: the 2 x 64 actor and critic of the peers' baselines, with a mean-pooled inbox and a message head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from popcomm.agents.activations import activation_function
from popcomm.agents.contract import AgentOutput, AgentSpec, AuxiliaryBatch, later
from popcomm.agents.convolution import make_eye
from popcomm.agents.gates import Manner, ReceiverGate, check_urgency
from popcomm.agents.message_encoder import MessageEncoder
from popcomm.agents.pointing import make_pointing, pointed
from popcomm.agents.population import PopulationLinear, orthogonal_, orthogonal_layer_
from popcomm.agents.pretrained import Pretrained
from popcomm.agents.start import POLICY_GAIN, start_message_head_
from popcomm.channels.mailbox import Inbox
from popcomm.checks import whole

# Root mean square of the actor's last activations at the start.
START_SCALE = 0.5


class MLPAgent(Pretrained, nn.Module):
    """Separate actor and critic of two hidden layers each; no recurrent state.

    Orthogonal start: gain sqrt(2) in hidden layers, as in CleanRL's PPO, and 1 in both heads (`popcomm.agents.start`).
    The first layers of actor and critic lie side by side in one weight: one product, two networks. What is heard enters
    both: encoded per message (so that two messages are told from their mixture), averaged over the real messages, added
    before the first activation. In silence those parts do not exist and all the others are the same.

    Args:
        spec: what the network must know of its place.
        hidden: width of every hidden layer.
        activation: "tanh" or "relu".
        encoder: "cnn", a small convolutional network for pictures, which actor and critic share; "flat", their numbers
            as they are; None: "cnn" where there are pictures (`popcomm.agents.convolution`).
        urgency: where the priority of its messages comes from, under a budget (`popcomm.agents.gates.Manner`).
        generator: source of the initial weights; torch's default one if None.

    Raises:
        UserError: a width below one, an unknown activation or encoder, or a "cnn" where there is no picture.
    """

    has_auxiliary_losses = False
    gives_features = takes_relaxed = gates_messages = True

    def __init__(
        self,
        spec: AgentSpec,
        hidden: int = 64,
        activation: str = "tanh",
        generator: torch.Generator | None = None,
        encoder: str | None = None,
        urgency: Any = None,
    ) -> None:
        super().__init__()
        whole("agent_config.hidden", hidden, 1)
        self.features_size = hidden
        self.spec, self.hidden, self.activation = spec, hidden, activation_function(activation)
        p = spec.members
        self.eye = make_eye(spec, encoder, hidden, generator)
        seen = spec.obs_size if self.eye is None else self.eye.size
        self.first = PopulationLinear(p, seen, 2 * hidden, generator=generator)
        self.actor = PopulationLinear(p, hidden, hidden, generator=generator)
        self.critic = PopulationLinear(p, hidden, hidden, generator=generator)
        self.policy_head = PopulationLinear(p, hidden, spec.action_params_size, generator=generator)
        self.value_head = PopulationLinear(p, hidden, 1, generator=generator)
        self._start(generator)
        if spec.receives is not None:
            self.encoder = MessageEncoder(p, spec.receives, hidden, generator=generator)
            self.heard = PopulationLinear(p, hidden, 2 * hidden, bias=False, generator=generator)
            if "receiver" in spec.gates:
                self.gate = ReceiverGate(p, hidden, hidden, generator)
        if spec.sends is not None:
            params = math.prod(spec.sends.params_shape)
            self.message_head = PopulationLinear(p, hidden, params, generator=generator)
            start_message_head_(self.message_head, START_SCALE, generator)
        check_urgency(spec, urgency)
        if spec.manners:
            self.manner = Manner(spec, hidden, urgency, generator)
        self.pointing = make_pointing(spec, hidden, START_SCALE, generator)
        self.decides_unseen = self.pointing is None

    def _start(self, generator: torch.Generator | None) -> None:
        for half in self.first.weight.data.chunk(2, -1):
            orthogonal_(half, math.sqrt(2), generator)
        nn.init.zeros_(self.first.bias)  # type: ignore[arg-type]
        gains = {
            self.actor: math.sqrt(2),
            self.critic: math.sqrt(2),
            self.policy_head: POLICY_GAIN,
            self.value_head: 1.0,
        }
        for layer, gain in gains.items():
            orthogonal_layer_(layer, gain, generator)

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        """Nothing is remembered."""
        return {}

    def forward(
        self,
        obs: Tensor,
        inbox: Inbox | None,
        state: Mapping[str, Tensor],
        undecided: bool = False,
        seen: Tensor | None = None,
    ) -> AgentOutput:
        """obs [P, R, O] float32, inbox [P, R, K, ...] or None -> AgentOutput without state; `undecided` and `seen`: see
        `Agent`.

        `aux` has "features", the actor's second hidden layer, and "judging", the critic's first one before its
        activation, [P, R, hidden].
        """
        first = self.see(obs) if seen is None else seen
        aux: dict[str, Tensor] = {}
        if inbox is not None and self.spec.receives is not None:
            first = first + self.heard(self._pool(inbox, first, aux))
        # Views; the critic's half waits for `decide`.
        actor, critic = first.chunk(2, -1)
        actor = self.activation(self.actor(self.activation(actor)))
        message = None
        if self.spec.sends is not None:
            message = self.message_head(actor).unflatten(-1, self.spec.sends.params_shape)
        aux |= {"features": actor, "judging": critic}
        logits, value = later(obs) if undecided else self.decide(obs, aux)
        manner = self.manner(actor, obs) if self.spec.manners else None
        return AgentOutput(logits, message, value, {}, aux, manner=manner)

    def see(self, obs: Tensor) -> Tensor:
        """obs [P, R, O] -> [P, R, 2 hidden], the first layers of actor and critic, before what is heard."""
        return self.first(obs if self.eye is None else self.eye(obs))

    def decide(self, obs: Tensor, aux: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """`aux` of rows, and of obs [P, R, O] the candidates, if any -> action logits [P, R, A], values [P, R]."""
        value = self.value_head(self.activation(self.critic(self.activation(aux["judging"])))).squeeze(-1)
        return pointed(self.pointing, self.policy_head(aux["features"]), aux["features"], obs), value

    def _pool(self, inbox: Inbox, first: Tensor, aux: dict[str, Tensor]) -> Tensor:
        """[P, R, hidden], the mean over real messages, as far as they are let in; zero where there is none.

        first: [P, R, 2 hidden], what is seen, before the first activation.
        """
        if inbox.gate is None:  # once for each message that was posted, and not for all who hear it
            heard = inbox.read(self._encoded)
        else:
            heard = self.activation(self.encoder(inbox))
        if "receiver" in self.spec.gates:
            heard, openness = self.gate(self.activation(first[..., : self.hidden]), heard)
            aux["openness"] = openness * inbox.mask
        weight = inbox.mask / inbox.mask.sum(-1, keepdim=True).clamp(min=1)
        return (heard * weight.unsqueeze(-1)).sum(-2)

    def _encoded(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        return self.activation(self.encoder.encode(messages, soft))

    def auxiliary_losses(self, batch: AuxiliaryBatch, outputs: AgentOutput) -> dict[str, Tensor]:
        """It has none."""
        return {}
