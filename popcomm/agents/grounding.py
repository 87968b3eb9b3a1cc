"""Losses that ground what agents say: in what senders saw, in what comes next, in the world, and in what it costs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from popcomm.agents.contract import AgentOutput, AgentSpec, AuxiliaryBatch
from popcomm.agents.distributions import ActionDistribution
from popcomm.agents.losses import masked_mean, masked_mse, r_squared
from popcomm.agents.message_decoder import MessageDecoder
from popcomm.agents.population import PopulationMLP
from popcomm.channels.messages import told
from popcomm.checks import number


def auxiliary_weights(reconstruction: float, prediction: float, world: float, cost: float) -> dict[str, float]:
    """{name of a loss of `Grounding`: its weight}.

    Raises:
        UserError: a negative weight.
    """
    given = {"reconstruction": reconstruction, "prediction": prediction, "world": world, "cost": cost}
    for key, weight in given.items():
        number(f"agent_config.{key}_weight", weight, "not be negative", least=0)
    return {
        "reconstruction": reconstruction,
        "prediction": prediction,
        "world_model": world,
        "message_cost": cost,
    }


class Grounding:
    """Part of an agent: its four auxiliary losses, their counts and their diagnostics.

    The agent sets the attributes below; from `outputs.aux["hidden"]` [P, R, H] it predicts the next observation.
    A loss whose weight is 0 is not computed.
    """

    spec: AgentSpec
    distribution: ActionDistribution
    auxiliary_weights: dict[str, float]
    encoder: Any  # of messages, as MessageDecoder wants it; with spec.receives
    decoder: MessageDecoder  # with spec.receives and spec.sender_obs_size
    predictor: PopulationMLP  # hidden state and action -> next observation; a glimpse of it, if it is a picture
    world_estimator: PopulationMLP  # context -> world state; with spec.state_size

    def _add_estimators(self, features: int, hidden: int, generator: torch.Generator | None) -> None:
        """Make `predictor` and `world_estimator` for hidden states and contexts of so many features."""
        p, spec = self.spec.members, self.spec
        width = features + self.distribution.num_features
        self.predictor = PopulationMLP(p, width, hidden, spec.glimpse_size, generator=generator)
        if spec.state_size:
            self.world_estimator = PopulationMLP(p, features, hidden, spec.state_size, generator=generator)

    @property
    def pays_for_messages(self) -> bool:
        """Whether `expense` of a batch is looked at."""
        return bool(self.auxiliary_weights["message_cost"])

    @property
    def without_gradient(self) -> tuple[str, ...]:
        """In silence what the world is estimated from is zero, and only its mean can be learned."""
        return () if self.spec.receives is not None else ("world_estimator.layers.0.weight",)

    def auxiliary_losses(self, batch: AuxiliaryBatch, outputs: AgentOutput) -> dict[str, Tensor]:
        """ "prediction", "world_model", "reconstruction" and "message_cost", as far as they apply: [P] each, means over
        the member's real rows (and slots and numbers)."""
        weights, row = self.auxiliary_weights, batch.mask.unsqueeze(-1)
        losses = {}
        if weights["prediction"]:
            real = (batch.mask & batch.next_mask).unsqueeze(-1)
            losses["prediction"] = masked_mse(self._predict(batch, outputs), self.spec.glimpse(batch.next_obs), real)
        if weights["world_model"] and self._has_world(batch):
            world = self._estimate_world(batch, outputs)
            losses["world_model"] = masked_mse(world, batch.world_state, row)  # type: ignore[arg-type]
        if weights["reconstruction"] and self._has_senders(batch):
            losses["reconstruction"] = masked_mse(*self._reconstruct(batch))
        if weights["message_cost"] and outputs.message is not None:
            if batch.expense is not None:
                costs = [masked_mean(batch.expense, batch.mask)]
            else:  # of what was said in every round
                said = ((outputs.message, outputs.said), *batch.earlier)
                costs = [masked_mean(self._message_cost(*one), batch.mask) for one in said]
            losses["message_cost"] = costs[0] if len(costs) == 1 else torch.stack(costs).sum(0)
        return losses

    def auxiliary_counts(self, batch: AuxiliaryBatch) -> dict[str, Tensor]:
        """{"prediction", "reconstruction": [P]}: entries behind the losses that are not means over all real rows."""
        counts = {"prediction": (batch.mask & batch.next_mask).sum(1)}
        if self._has_senders(batch):
            assert batch.sender_obs is not None
            counts["reconstruction"] = self._heard(batch).expand(batch.sender_obs.shape).flatten(1).sum(1)
        return counts

    @torch.no_grad()
    def diagnostics(self, batch: AuxiliaryBatch, outputs: AgentOutput) -> dict[str, Tensor]:
        """Scalars for the logs: "world_r2" and "reconstruction_r2", over all members' real rows together."""
        scores = {}
        if self._has_world(batch):
            world = self._estimate_world(batch, outputs)
            scores["world_r2"] = r_squared(world, batch.world_state, batch.mask.unsqueeze(-1))  # type: ignore[arg-type]
        if self._has_senders(batch):
            scores["reconstruction_r2"] = r_squared(*self._reconstruct(batch))
        return scores

    def _context(self, batch: AuxiliaryBatch, outputs: AgentOutput) -> Tensor:
        """[P, R, H], what was heard, without the own observation: what the world is estimated from."""
        return outputs.aux["context"]

    def _predict(self, batch: AuxiliaryBatch, outputs: AgentOutput) -> Tensor:
        action = self.distribution.features(batch.actions).to(_precision(batch))
        return self.predictor(torch.cat([outputs.aux["hidden"], action], -1))

    def _estimate_world(self, batch: AuxiliaryBatch, outputs: AgentOutput) -> Tensor:
        return self.world_estimator(self._context(batch, outputs).to(_precision(batch)))

    def _has_world(self, batch: AuxiliaryBatch) -> bool:
        return bool(self.spec.state_size) and batch.world_state is not None

    def _has_senders(self, batch: AuxiliaryBatch) -> bool:
        heard = self.spec.receives is not None and batch.inbox is not None
        return heard and bool(self.spec.sender_obs_size) and batch.sender_obs is not None

    def _reconstruct(self, batch: AuxiliaryBatch) -> tuple[Tensor, Tensor, Tensor]:
        """(prediction, target, mask), [P, R, K, sender_obs_size] or broadcast against it."""
        assert batch.inbox is not None
        assert batch.sender_obs is not None
        return self.decoder(self.encoder, batch.inbox), batch.sender_obs, self._heard(batch)

    def _heard(self, batch: AuxiliaryBatch) -> Tensor:
        """Which numbers of what senders saw are to be guessed: bool, broadcast against [P, R, K, sender_obs_size]."""
        assert batch.inbox is not None
        real = (batch.inbox.mask & batch.mask.unsqueeze(-1)).unsqueeze(-1)
        return real if batch.sender_obs_mask is None else real & batch.sender_obs_mask

    def _message_cost(self, params: Tensor, said: Tensor | None) -> Tensor:
        """params [P, R, *params_shape], said [P, R, *message shape] -> [P, R]."""
        expense = getattr(self.spec.sends, "expense", None)
        if expense is None:
            return params.abs().flatten(2).sum(-1)
        return expense(params, **told(self.spec.sends, said))


def _precision(batch: AuxiliaryBatch) -> torch.dtype:
    """That of observations; of bytes torch's own."""
    return batch.obs.dtype if batch.obs.dtype.is_floating_point else torch.get_default_dtype()
