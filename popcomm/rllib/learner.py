"""PopulationPPOLearner: one update of all species from fragments, with gradients between agents."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import ray
import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import COMPONENT_OPTIMIZER, COMPONENT_RL_MODULE
from ray.rllib.policy.sample_batch import MultiAgentBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME
from torch import Tensor

from popcomm.agents.distributions import action_distribution
from popcomm.rllib.adam import Adam
from popcomm.rllib.advantages import add_advantages
from popcomm.rllib.determinism import leave_new_memory, tell_compiler, without_compiler
from popcomm.rllib.distributed import fewest, learners_together, rank, reduction, summed, take_from_the_first
from popcomm.rllib.estimates import of_messages as _of_messages  # noqa: F401 - its name of before
from popcomm.rllib.federated import Federation
from popcomm.rllib.fragment import plain
from popcomm.rllib.gradients import MemberGuard, at_own_rates, clipped, set_rates, sum_over_learners
from popcomm.rllib.graph import graph_of, strengths_of
from popcomm.rllib.growth import Growth, Ownership, agreed_seed
from popcomm.rllib.joint_learning import JOINT_BRANCH, JointLearning
from popcomm.rllib.learning_statistics import Totals, log_graph, log_iteration, log_measures
from popcomm.rllib.lessons import end_lessons, teachers
from popcomm.rllib.loopback import stay_on_loopback
from popcomm.rllib.memory import MANY_WEIGHTS, give_back
from popcomm.rllib.module import PopulationRLModule
from popcomm.rllib.plan import plan_of
from popcomm.rllib.settings import Settings
from popcomm.rllib.shares import Arrays, LostFragments, agreed_share, minibatches, select
from popcomm.rllib.sharing import own_parameters
from popcomm.rllib.species_loss import SpeciesLoss, check_scheduled
from popcomm.rllib.succession import Succession, carry_out, weight_diversity
from popcomm.rllib.unroll import SpeciesUnroll, Unroller
from popcomm.rollout import seed_of

LEARNER_BRANCH, LESSON_BRANCH, CREDIT_BRANCH = 4, 9, 12
GROWTH, FEDERATION, JOINT = "growth", "federation", "joint_critic"  # in a learner's state

logger = logging.getLogger(__name__)


class PopulationPPOLearner(PPOTorchLearner):
    """PPO on fragments. Rows are worlds; minibatches are worlds; one optimizer per species.

    A member's loss is the mean over its own rows and the losses of members are added up, so that a member learns as it
    would alone, whatever the size of the population. With several learners each has a share of the worlds, and counts,
    moments and gradients are summed over them: the result is that of one learner on all worlds up to the order of
    summation.
    """

    def __init__(self, **kwargs: Any) -> None:
        with without_compiler():
            super().__init__(**kwargs)
        if self.config.num_learners:  # they are about to meet
            stay_on_loopback()

    def build(self) -> None:
        super().build()
        leave_new_memory()
        self._known_parameters: dict[str, list[torch.nn.Parameter]] = {}
        config = self.config
        self.plan = plan_of(config)
        self.species = self.plan.layout.species
        if config.tf32 and self.device.type == "cuda":
            torch.set_float32_matmul_precision("high")
        elif config.tf32:
            logger.warning("acceleration.tf32 is true, and has no effect on the %s: it is of GPUs", self.device.type)
        if config.compile_agents:
            tell_compiler()
            for module in self.networks.values():
                module.agent.compile()
        self.graph = graph_of(self.plan.channel, self.plan.layout, self.networks)
        self.unroller = Unroller(
            self.networks,
            {name: s.seats for name, s in self.species.items()},
            self.plan.message_kind,
            self.plan.carries_gradients,
            strengths_of(self.plan.channel, self.graph),
            bool(config.explore),
        )
        self._otherwise = torch.Generator(self.device)  # what senders might have said
        self.guards = {
            name: MemberGuard(name, module.spec.members, config.max_nonfinite_updates)
            for name, module in self.networks.items()
        }
        self.losses = {
            name: SpeciesLoss(
                module, self.plan.species[name], action_distribution(self.species[name].action_space), self.species
            )
            for name, module in self.networks.items()
        }
        check_scheduled(self.losses.values(), config.loss_schedules or {})
        agents = {name: module.agent for name, module in self.networks.items()}
        seed = agreed_seed(config.seed, self.device, learners_together())
        self.growth = Growth(agents, self._optimizers, seed)
        self.federation: Federation | None = None
        if self.plan.federated is not None:
            members = {name: s.members for name, s in self.plan.species.items() if s.members > 1}
            self.federation = Federation(self.plan.federated, members, self._parameters, seed)
        self.joint: JointLearning | None = None
        if self.plan.joint_critic is not None:
            self.joint = JointLearning(self.plan.joint_critic, self.plan, seed, self.device)

    @property
    def networks(self) -> dict[str, PopulationRLModule]:
        """{species: PopulationRLModule}, on this learner's device."""
        return {name: self.module[name].unwrapped() for name in self.module.keys()}  # noqa: SIM118 - not a dict

    def configure_optimizers_for_module(self, module_id: str, config: Settings) -> None:
        """RLlib's hook: its Adam, fused: one pass over all weights, a third of the time on CPUs."""
        params = self.get_parameters(self.module[module_id])
        optimizer = Adam(params, fused=True)
        self.register_optimizer(module_id=module_id, optimizer=optimizer, params=params, lr_or_lr_schedule=config.lr)

    def get_parameters(self, module: Any) -> Sequence[torch.nn.Parameter]:
        """RLlib's hook: but for those that another species owns, whose optimizer steps them with all gradients."""
        return own_parameters(module.unwrapped(), super().get_parameters(module))

    def _parameters(self, name: str) -> list[torch.nn.Parameter]:
        """A species' parameters; walking its modules at every update would cost as much as a small network."""
        if name not in self._known_parameters:
            self._known_parameters[name] = list(self.get_parameters(self.networks[name]))
        return self._known_parameters[name]

    def _make_modules_ddp_if_necessary(self) -> None:
        """RLlib's hook: no DDP wrapper, which would not see gradients that cross species; they are summed later.

        The weights start alike because they are a function of the seed; without a seed rank 0's are taken by all.
        """
        take_from_the_first(self.networks.values())

    # ---- the update ----

    def update_from_fragments(
        self,
        batches: Sequence[MultiAgentBatch | ray.ObjectRef],
        rows: Sequence[int],
        iteration: int,
        timesteps: Mapping[str, int],
        scales: Mapping[str, float] | None = None,
    ) -> object:
        """One iteration of PPO.

        Args:
            batches: the env runners' batches, or references to them; all learners get the same list.
            rows: worlds in each batch.
            iteration: decides the order of the minibatches, together with the seed.
            timesteps: RLlib's counters when this iteration began, which its schedules follow.
            scales: {loss: by how much its weight is multiplied}.

        Returns:
            RLlib's reduced metrics; or `LostFragments`, and nothing is learned by anybody.
        """
        own_rank, block = rank(), self.plan.balanced_block
        arrays = agreed_share(batches, rows, own_rank, learners_together(), block, self.device, summed)
        if isinstance(arrays, LostFragments):
            return arrays
        self.before_gradient_based_update(timesteps=dict(timesteps))
        if sum(p.numel() for name in self.networks for p in self._parameters(name)) >= MANY_WEIGHTS:
            give_back()
        if self.federation is not None:
            self.federation.begin()
        for loss in self.losses.values():
            loss.scales = scales or {}
        self._otherwise.manual_seed(seed_of(self.config.seed or 0, CREDIT_BRANCH, iteration, own_rank))
        self._add_advantages(arrays)
        worlds = len(next(iter(arrays.values()))["alive"])
        self._learn_jointly(arrays, worlds, iteration)
        if self.config.autocast and worlds:
            self._relive(arrays)
        order = np.random.default_rng(seed_of(self.config.seed, LEARNER_BRANCH, iteration))
        self._asked = torch.Generator(self.device)  # teachers
        self._asked.manual_seed(seed_of(self.config.seed or 0, LESSON_BRANCH, iteration, own_rank))
        totals: Totals = {}
        updates = 0
        for epoch in range(self.config.num_epochs):
            parts = self._minibatches(worlds, order)
            # Later epochs repeat the samples: what grows is decided by the first.
            self.growth.watch(self._trained if epoch == 0 else ())
            for number, chosen in enumerate(parts, 1):
                last = epoch == self.config.num_epochs - 1 and number == len(parts)
                self._update_once(select(arrays, chosen), totals, diagnose=last)
                self.growth.grow(iteration, number, ends=number == len(parts))
            updates += len(parts)
        self.growth.watch(())
        end_lessons(self.networks.values())
        log_iteration(self.metrics, totals, arrays, self.guards, updates, summed)
        log_measures(self.metrics, {name: network.agent for name, network in self.networks.items()})
        if self.graph is not None:
            self.graph.settle(timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0))
            log_graph(self.metrics, self.graph, self.networks)
        if self.joint is not None:
            self.joint.log(self.metrics)
        if self.federation is not None:
            self.federation.end(iteration, self._trained)
            self.federation.log(self.metrics)
        self.after_gradient_based_update(timesteps=dict(timesteps))
        return self.metrics.reduce()

    def before_gradient_based_update(self, *, timesteps: dict[str, int]) -> None:
        """RLlib's hook: learning rates and entropy coefficients are those of the step that is given.

        RLlib looks at its schedules after an update, and they remember nothing: the first one after a restore would
        have the values of step 0.
        """
        super().before_gradient_based_update(timesteps=timesteps)
        step = timesteps.get(NUM_ENV_STEPS_SAMPLED_LIFETIME, 0)
        for name in self.networks:
            self.entropy_coeff_schedulers_per_module[name].update(timestep=step)
            set_rates(self._optimizers(name), self.plan.species[name].settings.lr, step)

    def _add_advantages(self, arrays: Arrays) -> None:
        """What the decisions in all worlds were worth."""
        trained, otherwise = self._trained, self._otherwise
        add_advantages(arrays, self.config, self.plan, self.networks, trained, otherwise, summed)

    def _learn_jointly(self, arrays: Arrays, worlds: int, iteration: int) -> None:
        """Let the joint critic learn, and say what actions were worth."""
        if self.joint is None:
            return
        order = np.random.default_rng(seed_of(self.config.seed, JOINT_BRANCH, iteration))
        epochs = (self._minibatches(worlds, order) for _ in range(self.joint.ways.epochs))
        self.joint.learn(arrays, [part for parts in epochs for part in parts], reduction())

    def _minibatches(self, worlds: int, order: np.random.Generator) -> list[Tensor | None]:
        """Rows of each minibatch of one epoch; None for all at once. Every learner makes equally many."""
        # The smallest share decides, so that nobody waits for a learner that has run out of worlds.
        smallest = fewest(worlds, self.device)  # 0 when lost runners left one of them without
        size = self.plan.worlds_in_minibatch(smallest)
        count = math.ceil(smallest / size) if smallest else 0
        return list(minibatches(worlds, count, size, self.plan.balanced_block, order, self.device))

    def _unroll(self, arrays: Arrays) -> dict[str, SpeciesUnroll]:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.autocast == "bf16"):
            return self.unroller.run(arrays)

    @torch.no_grad()
    def _relive(self, arrays: Arrays) -> None:
        """Replace the log-probabilities of what was decided by the learner's own, in its own precision.

        Runners act in float32. In the ratio of the two the rounding of bfloat16 would pass for a change of the policy.
        """
        worlds = len(next(iter(arrays.values()))["alive"])
        for rows in torch.arange(worlds, device=self.device).split(self.plan.worlds_in_minibatch(worlds)):
            part = select(arrays, rows)
            for name, run in self._unroll(part).items():
                whole = plain(arrays[name])
                for key, values in self.losses[name].decisions.relived(part[name], run).items():
                    whole[key] = whole[key].index_copy(0, rows, values)

    def _update_once(self, arrays: Arrays, totals: Totals, diagnose: bool) -> None:
        """One gradient step on some worlds; the sums of what is to be logged are added to `totals`."""
        gradients = self.compute_gradients(self._losses(arrays, totals, diagnose))
        self.apply_gradients(self.postprocess_gradients(gradients))
        # RLlib drops them when the next ones are computed: a copy of all weights beside the next rollout and unroll.
        for name in self.networks:
            for optimizer in self._optimizers(name):
                optimizer.zero_grad(set_to_none=True)

    def _losses(self, arrays: Arrays, totals: Totals, diagnose: bool) -> dict[str, Tensor]:
        """{species that learns: its loss} on some worlds.

        The unroll ends with this method, so that of it only what gradients are made of is there while they are.
        """
        unrolled = self._unroll(arrays)
        shown = self._shown(arrays)
        losses: dict[str, Tensor] = {}
        reduce = reduction()
        for name, run in unrolled.items():
            if not self.should_module_be_updated(name):
                continue
            entropy_coeff = self.entropy_coeff_schedulers_per_module[name].get_current_value()
            losses[name], logged = self.losses[name](
                arrays[name], run, entropy_coeff, arrays, reduce, diagnose, shown.get(name), self._asked
            )
            price = None if self.graph is None else self.graph.penalty(name, learners_together())
            losses[name] = losses[name] if price is None else losses[name] + price
            sums = totals.setdefault(name, {})
            for key, value in logged.items():
                sums.setdefault(key, []).append(value.detach())
        return losses

    def _optimizers(self, name: str) -> list[torch.optim.Optimizer]:
        return [optimizer for _, optimizer in self.get_optimizers_for_module(name)]

    @property
    def _trained(self) -> list[str]:
        return [name for name in self.networks if self.should_module_be_updated(name)]

    def postprocess_gradients(self, gradients_dict: object) -> dict[object, Tensor]:
        """Drop those of frozen species, which others' losses reach through messages; sum over learners; clip.

        Returns:
            {parameter reference: gradient} of the species that learn.
        """
        parameters = [p for name in self._trained for p in self._parameters(name)]
        if learners_together() > 1:
            sum_over_learners(parameters, summed)
        self.growth.collect(summed)
        self._norms: dict[str, tuple[Tensor, Ownership]] = {}
        for name in self._trained:
            found = clipped(self.networks[name], self._parameters(name), self.plan.species[name].settings)
            if found is not None:
                self._norms[name] = found
        return {self.get_param_ref(p): p.grad for p in parameters if p.grad is not None}

    def apply_gradients(self, gradients_dict: object) -> None:
        """Step the optimizers, but for members without a row, and for those whose gradient is not finite: these are
        left out and counted.

        Raises:
            FloatingPointError: a species has had no finite gradient for fault_tolerance.max_nonfinite_updates updates.
        """
        for name, (norms, ownership) in self._norms.items():
            optimizers, owners, rows = self._optimizers(name), ownership.owners, self.losses[name].rows
            if ownership.as_one:  # which lives where any of its seats does
                rows = rows.sum().expand_as(rows)
            with at_own_rates(optimizers, self.networks[name].scale("lr"), owners):
                self.guards[name].step(optimizers, norms, owners, rows)

    # ---- survival ----

    def _shown(self, arrays: Arrays) -> dict[str, SpeciesUnroll]:
        """What parents do in place of those whom they teach, {species: ...}; empty where nobody is taught."""
        taught = [name for name, module in self.networks.items() if module.is_taught]
        if not taught:
            return {}
        with torch.no_grad(), teachers([self.networks[name] for name in taught]):
            run = self._unroll(arrays)
        return {name: run[name] for name in taught}

    def succeed(self, successions: Mapping[str, Succession]) -> dict[str, float]:
        """The next generation of some species takes its places.

        Returns:
            {species: how much its members' weights differ} (`weight_diversity`).
        """
        for name, succession in successions.items():
            carry_out(succession, self.networks[name], self._optimizers(name))
            self.guards[name].begin_anew(succession.newborn)
            if succession.newborn.any():
                self.growth.begin_anew(name)
        return {name: weight_diversity(self.networks[name]) for name in successions}

    # ---- state ----

    def get_state(self, components: Any = None, *, not_components: Any = None, **kwargs: object) -> dict[str, Any]:
        """RLlib's state, what networks that grow have been watched for, and what members had in common."""
        state = super().get_state(components, not_components=not_components, **kwargs)
        if self.growth.sums and self._check_component(GROWTH, components, not_components):
            state[GROWTH] = self.growth.get_state()
        if self.federation is not None and self._check_component(FEDERATION, components, not_components):
            state[FEDERATION] = self.federation.get_state()
        if self.joint is not None and self._check_component(JOINT, components, not_components):
            state[JOINT] = self.joint.get_state()
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        # What Ray hands out is one memory for all learners of a node, and optimizers step their moments in place.
        state = {key: copy.deepcopy(part) if key != COMPONENT_RL_MODULE else part for key, part in state.items()}
        state.pop("should_module_be_updated", None)  # which species learn is told by the config of now
        super().set_state(state)
        if COMPONENT_OPTIMIZER in state:  # and not weights alone
            self.growth.set_state(state.get(GROWTH, {}), self.device)
        if self.federation is not None and COMPONENT_RL_MODULE in state:
            self.federation.set_state(state.get(FEDERATION, {}), self.device)
        if self.joint is not None and COMPONENT_OPTIMIZER in state:
            self.joint.set_state(state.get(JOINT, {}))
