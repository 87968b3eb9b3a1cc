"""The losses that networks bring along themselves: their targets from an unrolled fragment, weighted and logged."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from popcomm.agents.contract import Agent, AuxiliaryBatch
from popcomm.envs.world import Species
from popcomm.rllib.fragment import Fragment
from popcomm.rllib.module import PopulationRLModule
from popcomm.rllib.ppo import Reduce, same
from popcomm.rllib.rows import Rows
from popcomm.rllib.unroll import SpeciesUnroll


class OwnLosses:
    """Of the networks of one species.

    Args:
        module: the networks.
        species: all of the world, for what senders saw.
    """

    def __init__(self, module: PopulationRLModule, species: Mapping[str, Species]) -> None:
        self.module, self.species = module, species

    def __call__(
        self,
        run: SpeciesUnroll,
        rows: Rows,
        world: Mapping[str, Fragment[Tensor]],
        scales: Mapping[str, float],
        counts: Tensor,
        reduce: Reduce,
        diagnose: bool,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Their sum, weighted, over members, and what to log.

        Args:
            run: the unrolled outputs.
            rows: this species' arrays.
            world: the arrays of all species [B, T, N, ...].
            scales: {loss: by how much its weight is multiplied now}.
            counts: [P], real rows of all learners.
            reduce: sum over learners.
            diagnose: whether to log the network's diagnostics, too.
        """
        agent, weights = self.module.agent, self.module.auxiliary_weights
        total = run.mask.new_zeros((), dtype=torch.float32)
        logged: dict[str, Tensor] = {}
        if not getattr(agent, "has_auxiliary_losses", True):
            # The targets are gathered for nobody else, and with an inbox they are larger than all the rest.
            return total, logged
        batch = _auxiliary_batch(run, rows, world, self.species, self.module.spec.rounds)
        losses = agent.auxiliary_losses(batch, run.outputs)
        # A network averages over the rows it is given; with several learners that is its share of all rows.
        rows_share = run.mask.sum(1) / counts
        shares = _shares(agent, batch, reduce)
        for name, per_member in losses.items():
            part = per_member * shares.get(name, rows_share)
            total = total + weights.get(name, 1.0) * scales.get(name, 1.0) * part.sum()
            logged[name] = part.detach().sum() / len(part)
        if diagnose and hasattr(agent, "diagnostics"):
            with torch.no_grad():
                learners = reduce(torch.ones((), device=run.mask.device))
                logged.update({k: v / learners for k, v in agent.diagnostics(batch, run.outputs).items()})
        return total, logged


def _shares(agent: Agent, batch: AuxiliaryBatch, reduce: Reduce) -> dict[str, Tensor]:
    """{loss: [P]}, this learner's share of what a loss averages over, where that is not the rows."""
    if reduce is same or not hasattr(agent, "auxiliary_counts"):
        return {}
    counts = {name: count.double() for name, count in agent.auxiliary_counts(batch).items()}
    return {name: (count / reduce(count.clone()).clamp(min=1)).float() for name, count in counts.items()}


def _auxiliary_batch(
    run: SpeciesUnroll,
    rows: Rows,
    world: Mapping[str, Fragment[Tensor]],
    species: Mapping[str, Species],
    rounds: int = 0,
) -> AuxiliaryBatch:
    """Targets for a network's own losses, in the order of its rows. species: all of the world; rounds: of a step."""
    arrays = rows.arrays
    alive, first = arrays["alive"], arrays["first"]
    # The row after a life's last step has its final observation; only a new life's first one must not be predicted.
    next_mask = alive & ~first[:, 1:]
    sender_obs, sender_mask = _what_senders_saw(run, rows, world, species, rounds)
    return AuxiliaryBatch(
        obs=rows["obs"],
        next_obs=rows.gather(arrays["obs"][:, 1:]),
        next_mask=rows.gather(next_mask) & run.mask,
        actions=rows["actions"],
        inbox=run.inbox,
        sender_obs=sender_obs,
        sender_obs_mask=sender_mask,
        world_state=rows.world_state(),
        mask=run.mask,
        earlier=tuple((spoken.params, spoken.said) for spoken in run.earlier),
        expense=run.expense,
    )


def _what_senders_saw(
    run: SpeciesUnroll,
    rows: Rows,
    world: Mapping[str, Fragment[Tensor]],
    species: Mapping[str, Species],
    rounds: int,
) -> tuple[Tensor | None, Tensor | None]:
    """What the sender of every heard message saw when it spoke, [P, T R, K, Omax], and which numbers are real.

    Of pictures it is a glimpse.
    """
    if run.inbox is None:
        return None, None
    width = max(species[name].glimpse_size for name in world)
    seen, real = [], []
    for name, a in world.items():
        # One step before: the carried observation, then those of steps 0 ... T - 2. In rounds, in the same step.
        previous = torch.cat([a["previous_obs"].unsqueeze(1), a["obs"][:, : rows.length - 1]], 1)
        before = a["obs"][:, : rows.length] if rounds else previous
        before = species[name].glimpse(before)
        missing = width - before.shape[-1]
        seen.append(torch.nn.functional.pad(before, (0, missing)))
        real.append(torch.arange(width, device=before.device).lt(before.shape[-1]).expand(before.shape[2], width))
    everyone = torch.cat(seen, 2)  # [B, T, N, Omax]
    real_numbers = torch.cat(real, 0)  # [N, Omax]
    worlds, length, seats = everyone.shape[:3]
    # Of repeated and published words nobody saw anything one step before.
    senders = run.inbox.senders.clamp(max=seats - 1)
    step = torch.arange(worlds * length, device=senders.device)
    step = rows.gather(step.view(worlds, length, 1).expand(-1, -1, rows.arrays["alive"].shape[2]))
    flat = (step.unsqueeze(-1) * seats + senders).reshape(-1)
    sender_obs = everyone.reshape(-1, width).index_select(0, flat).view(*senders.shape, width)
    heard = run.inbox.mask if run.inbox.direct is None else run.inbox.mask & run.inbox.direct
    return sender_obs, heard.unsqueeze(-1) & real_numbers[senders]
