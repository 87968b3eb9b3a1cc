"""GRUAgent: the recurrent sender and receiver of signalling games in one network."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from popcomm.agents.contract import AgentOutput, AgentSpec, AuxiliaryBatch
from popcomm.agents.convolution import make_eye
from popcomm.agents.message_encoder import lookup
from popcomm.agents.pointing import make_pointing, pointed
from popcomm.agents.population import PopulationGRUCell, PopulationLinear, PopulationMLP, linear
from popcomm.agents.pretrained import Pretrained
from popcomm.agents.speech import AutoregressiveSpeech
from popcomm.agents.start import POLICY_GAIN
from popcomm.channels.ending import sent
from popcomm.channels.mailbox import Inbox
from popcomm.channels.messages import Symbols
from popcomm.checks import whole
from popcomm.errors import UserError

# Variance of a GRU's state at the start; that of an observation's numbers is taken for 1.
START_VARIANCE = 0.05


def start_scale(seen: int, heard: int) -> float:
    """Root mean square, at the start, of so many numbers seen and heard."""
    return math.sqrt((seen + START_VARIANCE * heard) / (seen + heard))


class MessageReader(nn.Module):
    """A GRU over the symbols of each message: inbox [P, R, K, L] -> [P, R, K, hidden], its state after the last sent.

    Symbols are looked up in one table, with the straight-through gradient where the inbox has one.

    Args:
        members: P.
        kind: Symbols.
        hidden: width of the GRU.
        embedding: width of the symbols' embeddings.
        generator: source of the initial weights; torch's default one if None.
    """

    def __init__(
        self, members: int, kind: Symbols, hidden: int, embedding: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.ends = kind.ends
        self.symbols = nn.Parameter(torch.randn(members, kind.vocab_size, embedding, generator=generator))
        self.cell = PopulationGRUCell(members, embedding, hidden, generator=generator)

    def forward(self, inbox: Inbox) -> Tensor:
        return inbox.read(self._read)

    def _step(self, symbol: Tensor, state: Tensor | None) -> Tensor:
        """symbol [P, R, 3 hidden] out of a table -> [P, R, hidden]."""
        bias = self.cell.bias_ih
        return self.cell.step(symbol + (bias if len(bias) == 1 else bias.unsqueeze(1)), state)

    def _read(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        """messages [P, ..., L] int64, soft [P, ..., L, V] or None -> [P, ..., hidden]."""
        between = messages.shape[1:-1]
        softs = None if soft is None else soft.unsqueeze(-2)
        # Of few symbols the cell's own product is made in the table, once for all who read them.
        fold = self.symbols.size(1) <= messages[0].numel()
        # Without the bias, which is no symbol's own: `soft` would get a gradient of it.
        table = linear(self.symbols, self.cell.weight_ih) if fold else self.symbols
        feed = self._step if fold else self.cell
        first, *rest = lookup(table, messages.unsqueeze(-1), softs).flatten(1, -3).unbind(-2)
        state = feed(first, None)
        if self.ends:
            there = sent(messages).flatten(1, -2).unsqueeze(-1)
            for position, symbol in enumerate(rest, 1):
                state = torch.where(there[:, :, position], feed(symbol, state), state)
            return state.unflatten(1, between)
        for symbol in rest:
            state = feed(symbol, state)
        return state.unflatten(1, between)


class GRUAgent(Pretrained, nn.Module):
    """The sender and receiver of signalling games (Lazaridou 2018; EGG's RnnSender and RnnReceiver) as one agent.

    What it sees, and the mean of the messages it heard (each read by a GRU), start a GRU that speaks symbol by symbol.
    Actions are linear in what it heard, what it saw, and their product; values are a tanh network's on the same, whose
    gradient stops there. It remembers nothing between steps. Parts for which its species has no use do not exist: a
    mute one has no speech, a deaf one reads nothing.

    Args:
        spec: what the network must know of its place.
        hidden: width of the GRUs.
        embedding: width of the symbols' embeddings.
        encoder: "cnn", a small convolutional network for pictures; "flat", their numbers as they are; None: "cnn" where
            there are pictures (`popcomm.agents.convolution`). What it makes of them takes the observation's place.
        generator: source of the initial weights; torch's default one if None.

    Raises:
        UserError: a width below one, messages that are not symbols, or an encoder that does not fit.
    """

    has_auxiliary_losses = False
    gives_features = judges_apart = True

    def __init__(
        self,
        spec: AgentSpec,
        hidden: int = 128,
        embedding: int = 32,
        generator: torch.Generator | None = None,
        encoder: str | None = None,
    ) -> None:
        super().__init__()
        for name, width in (("hidden", hidden), ("embedding", embedding)):
            whole(f"agent_config.{name}", width, 1)
        if spec.messages is not None and not isinstance(spec.messages, Symbols):
            raise UserError(f"population.agent 'gru' speaks in symbols, and messages are {spec.messages.kind}")
        self.spec, p = spec, spec.members
        self.autoregressive = spec.sends is not None
        # A silent network is as large as a talking one; only a deaf species does without what it never gets.
        self.width = 0 if spec.messages is not None and not spec.hears else hidden
        self.eye = make_eye(spec, encoder, hidden, generator)
        seen = spec.obs_size if self.eye is None else self.eye.size
        self.features_size = size = seen + 2 * self.width
        if isinstance(spec.receives, Symbols):
            self.reader = MessageReader(p, spec.receives, hidden, embedding, generator)
            self.see = PopulationLinear(p, seen, hidden, generator=generator)
        if spec.sends is not None:
            in_features, scale = seen + self.width, start_scale(seen, self.width)
            self.speech = AutoregressiveSpeech(p, in_features, spec.sends, hidden, embedding, generator, scale)
        gain = POLICY_GAIN / 2 / start_scale(seen, 2 * self.width)  # logits as large as those of an MLPAgent
        self.policy = PopulationMLP(p, size, spec.action_params_size, gain=gain, generator=generator)
        self.critic = PopulationMLP(p, size, hidden // 2 or 1, 1, gain=1.0, generator=generator)
        self.pointing = make_pointing(spec, size, start_scale(seen, 2 * self.width), generator)

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        """Nothing is remembered."""
        return {}

    def forward(
        self,
        obs: Tensor,
        inbox: Inbox | None,
        state: Mapping[str, Tensor],
        said: Tensor | None = None,
        generator: torch.Generator | None = None,
        greedy: bool = False,
        open_symbols: int | None = None,
    ) -> AgentOutput:
        """obs [P, R, O] float32, inbox [P, R, K, L] or None -> AgentOutput; see `Agent` for the keywords."""
        whole, obs = obs, obs if self.eye is None else self.eye(obs)
        features, thought = obs, obs
        if self.width:
            heard = asked = obs.new_zeros(*obs.shape[:-1], self.width)
            if inbox is not None and self.spec.receives is not None:
                heard = self._hear(inbox)
                asked = heard * self.see(obs).tanh()
            features, thought = torch.cat([obs, heard, asked], -1), torch.cat([obs, heard], -1)
        message = None
        if self.autoregressive:
            message, said = self.speech(thought, said, generator, greedy, open_symbols)
        value = self.critic(features.detach()).squeeze(-1) if self.spec.judged else obs.new_zeros(obs.shape[:2])
        logits = pointed(self.pointing, self.policy(features), features, whole)
        return AgentOutput(logits, message, value, {}, {"features": features}, said)

    def _hear(self, inbox: Inbox) -> Tensor:
        """[P, R, hidden], the mean over real messages; zeros where there is none."""
        weight = inbox.mask / inbox.mask.sum(-1, keepdim=True).clamp(min=1)
        return (self.reader(inbox) * weight.unsqueeze(-1)).sum(-2)

    def auxiliary_losses(self, batch: AuxiliaryBatch, outputs: AgentOutput) -> dict[str, Tensor]:
        """None."""
        return {}
