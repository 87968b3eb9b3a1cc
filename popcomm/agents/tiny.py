"""TinyAgent: a small transformer of FLARE blocks that reads every symbol it hears as a token of its own."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from popcomm.agents.acting import Acting, default_spec
from popcomm.agents.activations import tanh
from popcomm.agents.contract import AgentOutput, AgentSpec, AuxiliaryBatch
from popcomm.agents.distributions import action_distribution
from popcomm.agents.flare import FlareBlock
from popcomm.agents.flare_memory import FlareMemory
from popcomm.agents.flare_mixing import scores
from popcomm.agents.grounding import Grounding, auxiliary_weights
from popcomm.agents.message_decoder import MessageDecoder
from popcomm.agents.message_encoder import MessageEncoder
from popcomm.agents.pointing import make_pointing, pointed
from popcomm.agents.population import (
    PopulationLayerNorm,
    PopulationLinear,
    PopulationMLP,
    orthogonal_layer_,
)
from popcomm.agents.pretrained import Pretrained
from popcomm.agents.routing import RoutedHearing
from popcomm.agents.speech import message_head as make_message_head
from popcomm.agents.start import POLICY_GAIN
from popcomm.agents.tiny_presets import tiny_size
from popcomm.agents.tiny_start import hear_in_order_, let_through_, look_at_positions_
from popcomm.agents.token_encoder import TokenEncoder
from popcomm.channels.mailbox import Inbox, RoutedInbox
from popcomm.errors import unknown

MEMORIES = ("none", "flare")


class TinyAgent(Grounding, Acting, Pretrained, nn.Module):
    """FLARE blocks over the tokens of one step; the observation's token is read out.

    Tokens: the observation; with a memory, what was read from it one step before; every symbol of every message heard
    (symbol + position in the message + sender), or every vector or word (+ sender). Empty slots are masked. The inbox
    is a set, of any size. Actions and messages come from the observation's token, the value from two layers on it whose
    gradient stops there (see SymbolicAgent for what that was worth).

    Grounding losses are SymbolicAgent's. The world is estimated from the messages alone, as the decoder reads them, so
    never from the own observation.

    Args:
        spec: what the network must know of its place; that of `popcomm.CommunicationEnv` if None.
        hidden_dim: C, width of every token (768).
        num_heads: H, attention heads; divides hidden_dim (12).
        latent_tokens: M, latents of each head (32).
        depth: number of blocks (4).
        memory: "none", or "flare": a fixed-size memory of the episode, M latents of the tokens read out so far.
        message_head: "parallel", all symbols at once, or "autoregressive", one after another (see speech.py).
        kv_layers: hidden layers of the maps to keys and values; -1 is a single linear one.
        reconstruction_weight, prediction_weight, world_weight, cost_weight: of the grounding losses.
        checkpoint_activations: recompute blocks in the backward pass: memory for time.
        dtype: "float32", or "bf16" for the blocks' products (autocast); weights and outputs stay float32. CPUs without
            bf16 in hardware are slower with it.
        preset: a name in TINY_PRESETS, for the sizes that are not given.
        generator: source of the initial weights; torch's default one if None.

    Raises:
        UserError: an unknown preset, memory, head or dtype; heads that do not divide the width; a number below one.
    """

    hears_routed = True
    gives_features = True

    def __init__(
        self,
        spec: AgentSpec | None = None,
        hidden_dim: int | None = None,
        num_heads: int | None = None,
        latent_tokens: int | None = None,
        depth: int | None = None,
        memory: str = "none",
        message_head: str = "parallel",
        kv_layers: int = -1,
        reconstruction_weight: float = 0.1,
        prediction_weight: float = 0.1,
        world_weight: float = 0.1,
        cost_weight: float = 0.001,
        checkpoint_activations: bool | None = None,
        dtype: str | None = None,
        preset: str | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        size = tiny_size(
            preset,
            hidden_dim=hidden_dim,
            num_heads=num_heads,
            latent_tokens=latent_tokens,
            depth=depth,
            checkpoint_activations=checkpoint_activations,
            dtype=dtype,
        )
        if memory not in MEMORIES:
            raise unknown("agent_config.memory", memory, MEMORIES)
        self.auxiliary_weights = auxiliary_weights(reconstruction_weight, prediction_weight, world_weight, cost_weight)
        self.spec, self.size = default_spec() if spec is None else spec, size
        self.config: dict[str, Any] = {
            **asdict(size),
            "memory": memory,
            "message_head": message_head,
            "kv_layers": kv_layers,
            "reconstruction_weight": reconstruction_weight,
            "prediction_weight": prediction_weight,
            "world_weight": world_weight,
            "cost_weight": cost_weight,
        }
        self.distribution = action_distribution(self.spec.action_space)
        self._add_trunk(kv_layers, memory, generator)
        self._add_heads(message_head, generator)
        self.pointing = make_pointing(self.spec, self.features_size, generator=generator)

    @classmethod
    def preset(cls, name: str, spec: AgentSpec | None = None, **overrides: Any) -> TinyAgent:
        """A size by name, e.g. `TinyAgent.preset("tiny-10m", memory="flare")`.

        Raises:
            UserError: no such preset; and as the constructor does.
        """
        return cls(spec, preset=name, **overrides)

    def _add_trunk(self, kv_layers: int, memory: str, generator: torch.Generator | None) -> None:
        spec, width = self.spec, self.size.hidden_dim
        p, heads, latents = spec.members, self.size.num_heads, self.size.latent_tokens
        self.observe = PopulationLinear(p, spec.obs_size, width, generator=generator)
        self.blocks = nn.ModuleList(
            FlareBlock(width, heads, latents, kv_layers=kv_layers, scale="auto", members=p, generator=generator)
            for _ in range(self.size.depth)
        )
        for block in self.blocks:
            let_through_(cast(FlareBlock, block), generator)
        self.norm = PopulationLayerNorm(p, width)
        self.memory: FlareMemory | None = None
        if memory == "flare":
            self.memory = FlareMemory(width, heads, latents, members=p, scale="auto", generator=generator)
            self.recall = PopulationLinear(p, width, width, generator=generator)

    def _add_heads(self, message_head: str, generator: torch.Generator | None) -> None:
        spec, width = self.spec, self.size.hidden_dim
        # Estimators and critic hang on a wide trunk, and need not be as wide.
        p, narrow = spec.members, min(width, 256)
        self.policy = PopulationLinear(p, width, spec.action_params_size, generator=generator)
        # The token that is read out is normalised, twice as large as what others act on.
        orthogonal_layer_(self.policy, POLICY_GAIN / 2, generator)
        self.features_size = width
        self.critic = PopulationMLP(p, width, narrow, 1, gain=1.0, generator=generator)
        self._add_estimators(width, narrow, generator)
        if spec.sends is not None:
            self.message_head = make_message_head(message_head, p, width, spec.sends, generator)
        self.autoregressive = spec.sends is not None and message_head == "autoregressive"
        if spec.receives is not None:
            if spec.latents:
                self.encoder: Any = MessageEncoder(p, spec.receives, width, generator=generator)
                self.hearing = RoutedHearing(p, width, self.size.num_heads, spec.latents, generator)
                return
            self.encoder = TokenEncoder(p, spec.receives, width, spec.num_agents, generator)
            if self.encoder.symbolic:
                hear_in_order_(cast(FlareBlock, self.blocks[0]), self.encoder.positions.weight)
            if spec.sender_obs_size:
                heads = self.size.num_heads
                self.decoder = MessageDecoder(p, spec.receives, width, heads, spec.sender_obs_size, generator)
                look_at_positions_(self.decoder, spec.receives)

    def initial_state(self, rows: int) -> dict[str, Tensor]:
        """{} without a memory; else the FlareMemory's, and "read" [P, rows, C], what was read from it last."""
        if self.memory is None:
            return {}
        shape = (self.spec.members, rows, self.size.hidden_dim)
        return {**self.memory.initial_state(rows), "read": self.norm.weight.new_zeros(shape)}

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
        """One step.

        Args:
            obs: [P, R, O] float32.
            inbox: [P, R, K, ...], or None.
            state: as `initial_state` gives it.
            said, generator, greedy, open_symbols: for the autoregressive head: a message [P, R, L] whose distribution
                is wanted, or how to say one.

        Returns:
            AgentOutput. `aux` has "hidden" [P, R, C] and, where messages are heard and no gradients are wanted,
            "attention" [P, R, K], of the observation's token to each message in the first block: it sums to one over
            the real messages, and to zero where there is none. Through a routed channel what is heard is one token,
            "context" [P, R, C].
        """
        hidden, aux = self._read_out(obs, inbox, state)
        next_state: dict[str, Tensor] = {}
        if self.memory is not None:
            kept = {name: value for name, value in state.items() if name != "read"}
            read, next_state = self.memory(hidden, kept)
            hidden, next_state["read"] = hidden + read, read
        message = spoken = None
        if self.spec.sends is not None:
            message, spoken = self.message_head(hidden, said, generator, greedy, open_symbols)
        value = self.critic(hidden.detach()).squeeze(-1)
        logits = pointed(self.pointing, self.policy(hidden), hidden, obs)
        return AgentOutput(logits, message, value, next_state, {**aux, "hidden": hidden, "features": hidden}, spoken)

    def _read_out(
        self, obs: Tensor, inbox: Inbox | None, state: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """What the blocks make of the observation's token, normalised: [P, R, C]; and the attention, if it is due."""
        aux = {}
        with self._precision(obs.device):
            tokens, mask = self._tokens(obs, inbox, state)
            if isinstance(inbox, RoutedInbox):
                aux["context"] = inbox.hear(self.hearing, tokens[:, :, 0], self._encoded)
                tokens = torch.cat([tokens, aux["context"].unsqueeze(2)], 2)
            elif inbox is not None and mask is not None and not torch.is_grad_enabled():
                aux["attention"] = self._attention(tokens, mask, inbox.mask)
            *blocks, last = self.blocks
            for block in blocks:
                tokens = self._run(block, tokens, mask)
            own = self._run(first_token, last, tokens, mask)
        return self.norm(own.to(obs.dtype)), aux

    def _run(self, function: Callable[..., Tensor], *arguments: Any) -> Tensor:
        if self.size.checkpoint_activations and torch.is_grad_enabled():
            return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)
        return function(*arguments)

    def _attention(self, tokens: Tensor, mask: Tensor, real: Tensor) -> Tensor:
        """How much each message counts in what the first block tells the observation's token, mean over heads.

        tokens [P, R, N, C], mask [P, R, N], real [P, R, K] -> [P, R, K]. It is the first row of the head's matrix
        W = softmax over M (S) softmax over N (S)^T, summed over the symbols of a message.
        """
        block: Any = self.blocks[0]
        q, k, _ = block.attention.queries_keys_values(block.attention_norm(tokens), mask)
        s = scores(q, k, block.attention.scale).float()
        encode = s.masked_fill(~mask[:, None, :, :, None], -math.inf).softmax(-2)
        row = (encode * s[..., :1, :].softmax(-1)).sum(-1).mean(1)
        slots = real.shape[-1]
        heard = row[..., row.shape[-1] - slots * self.encoder.tokens_per_message :]
        heard = heard.unflatten(-1, (slots, -1)).sum(-1) * real
        return heard / heard.sum(-1, keepdim=True).clamp(min=torch.finfo(heard.dtype).tiny)

    def _precision(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        if self.size.dtype == "bf16":
            return torch.autocast(device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def _tokens(self, obs: Tensor, inbox: Inbox | None, state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor | None]:
        """Tokens [P, R, N, C], the observation's first, and which are real [P, R, N] bool; None if all are."""
        tokens = [self.observe(obs).unsqueeze(2)]
        if self.memory is not None:
            tokens.append(self.recall(state["read"]).unsqueeze(2))
        if inbox is None or self.spec.receives is None or isinstance(inbox, RoutedInbox):
            return torch.cat(tokens, 2), None
        heard, real = self.encoder(inbox)
        own = real.new_ones(*real.shape[:2], len(tokens))
        return torch.cat([*tokens, heard], 2), torch.cat([own, real], 2)

    def _context(self, batch: AuxiliaryBatch, outputs: AgentOutput) -> Tensor:
        """[P, R, C], the mean over real messages of what the decoder reads in them; zeros where there is none."""
        if "context" in outputs.aux:
            return outputs.aux["context"]
        if batch.inbox is None or self.spec.receives is None or not self.spec.sender_obs_size:
            return torch.zeros_like(outputs.aux["hidden"])
        heard = batch.inbox.read(self._reading)
        weight = batch.inbox.mask / batch.inbox.mask.sum(-1, keepdim=True).clamp(min=1)
        return (heard * weight.unsqueeze(-1)).sum(-2)

    def _encoded(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        return tanh(self.encoder.encode(messages, soft))

    def _reading(self, messages: Tensor, soft: Tensor | None) -> Tensor:
        return tanh(self.decoder.attend(self.encoder, messages, soft))


def first_token(block: FlareBlock, tokens: Tensor, mask: Tensor | None) -> Tensor:
    """What a block makes of the first token, [P, R, C]: after the last block the others' MLP is not needed."""
    own = tokens.select(2, 0) + block.attention(block.attention_norm(tokens), mask).select(2, 0)
    return own + block.mlp(block.mlp_norm(own))
