"""The ceiling: PPO on stacked weights written out by hand, with nothing around it."""

from __future__ import annotations

import torch
from popcomm.analysis.benchmarks.free_world import NUM_ACTIONS, OBS_SIZE, FreeWorld
from torch import Tensor

from popcomm.agents.activations import tanh
from popcomm.agents.population import linear, orthogonal_

GAMMA, LAMBDA, CLIP, HIDDEN = 0.95, 0.95, 0.2, 64


class BareLoop:
    """PPO of P members on a FreeWorld: member n sits on seat n of every world (P = N), or one on all (P = 1).

    Tensors are member-major from the start, so nothing is permuted, looked up, recorded or logged.
    """

    def __init__(self, worlds: int, agents: int, members: int, length: int, epochs: int, minibatches: int) -> None:
        self.world = FreeWorld(worlds, agents)
        self.members, self.length, self.epochs, self.minibatches = members, length, epochs, minibatches
        self.rows = worlds * agents // members
        sizes = [(OBS_SIZE, 2 * HIDDEN), *[(HIDDEN, HIDDEN)] * 2, (HIDDEN, NUM_ACTIONS), (HIDDEN, 1)]
        self.weights = [orthogonal_(torch.empty(members, i, o)).requires_grad_() for i, o in sizes]
        self.biases = [torch.zeros(members, o).requires_grad_() for _, o in sizes]
        self.optimizer = torch.optim.Adam([*self.weights, *self.biases], lr=1e-3, fused=True)
        self.generator = torch.Generator().manual_seed(0)
        self.obs = self._rows(self.world.reset().observations["free"])

    def _rows(self, values: Tensor) -> Tensor:
        """[B, N, ...] -> [P, R, ...]."""
        return values.reshape(1, self.rows, *values.shape[2:]) if self.members == 1 else values.transpose(0, 1)

    def network(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        """obs [P, R, O] -> logits [P, R, A], values [P, R]."""
        layers = list(zip(self.weights, self.biases, strict=True))
        actor, critic = tanh(linear(obs, *layers[0])).chunk(2, -1)
        actor, critic = tanh(linear(actor, *layers[1])), tanh(linear(critic, *layers[2]))
        return linear(actor, *layers[3]), linear(critic, *layers[4]).squeeze(-1)

    def iterate(self) -> int:
        """One iteration; returns its agent-steps."""
        self._update(*self._rollout())
        return self.length * self.rows * self.members

    @torch.no_grad()
    def _rollout(self) -> tuple[Tensor, ...]:
        obs, actions, log_probs, values, rewards, ended = [], [], [], [], [], []
        for _ in range(self.length):
            logits, value = self.network(self.obs)
            log_p = logits.log_softmax(-1)
            action = (log_p - torch.empty_like(log_p).exponential_(generator=self.generator).log_()).argmax(-1)
            step = self.world.step({"free": action})
            obs.append(self.obs)
            actions.append(action)
            log_probs.append(log_p.gather(-1, action.unsqueeze(-1)).squeeze(-1))
            values.append(value)
            rewards.append(self._rows(step.rewards))
            ended.append(self._rows(step.truncated))
            self.obs = self._rows(step.observations["free"])
        values.append(self.network(self.obs)[1])
        advantages = [torch.zeros_like(values[0])] * (self.length + 1)
        for t in range(self.length - 1, -1, -1):
            delta = rewards[t] + GAMMA * values[t + 1] - values[t]
            advantages[t] = delta + GAMMA * LAMBDA * ~ended[t] * advantages[t + 1]
        advantage = torch.stack(advantages[:-1], 2)
        targets = advantage + torch.stack(values[:-1], 2)
        advantage = (advantage - advantage.mean((1, 2), keepdim=True)) / advantage.std((1, 2), keepdim=True)
        return torch.stack(obs, 2), torch.stack(actions, 2), torch.stack(log_probs, 2), advantage, targets

    def _update(self, *batch: Tensor) -> None:
        for _ in range(self.epochs):
            for rows in torch.randperm(self.rows, generator=self.generator).chunk(self.minibatches):
                # [P, R, T, ...] -> [P, R T, ...]
                parts = [values.index_select(1, rows).flatten(1, 2) for values in batch]
                obs, actions, old, advantage, target = parts
                logits, value = self.network(obs)
                log_p = logits.log_softmax(-1)
                ratio = (log_p.gather(-1, actions.unsqueeze(-1)).squeeze(-1) - old).exp()
                surrogate = torch.min(advantage * ratio, advantage * ratio.clamp(1 - CLIP, 1 + CLIP))
                entropy = -(log_p.exp() * log_p).sum(-1)
                loss = (0.5 * (value - target).square() - surrogate - 0.01 * entropy).mean(1).sum()
                self.optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_([*self.weights, *self.biases], 1.0)
                self.optimizer.step()
