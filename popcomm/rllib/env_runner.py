"""PopulationEnvRunner: steps a World and its channel with the population's networks, and returns fragments."""

from __future__ import annotations

import copy
import logging
import traceback
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import ray
import torch
from ray.rllib.core import COMPONENT_RL_MODULE
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.policy.sample_batch import MultiAgentBatch
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.framework import get_device
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME, WEIGHTS_SEQ_NO
from torch import Tensor

from popcomm.agents.action_bounds import ActionBounds
from popcomm.agents.contract import AgentOutput
from popcomm.agents.distributions import ActionLaw, action_law
from popcomm.agents.seating import Seating, draw, redraw
from popcomm.channels import Channel, Links
from popcomm.channels.broadcast.air import Air, Heard
from popcomm.envs.world import World, WorldStep
from popcomm.errors import UserError
from popcomm.rllib.fragment import Fragment, as_batch, not_finite
from popcomm.rllib.fragment_writer import FragmentWriter
from popcomm.rllib.listening import Listening
from popcomm.rllib.mail import LogOf, Mail, inbox_of
from popcomm.rllib.module import PopulationRLModule
from popcomm.rllib.plan import plan_of, surroundings
from popcomm.rllib.rollout_statistics import RolloutStatistics
from popcomm.rllib.settings import Settings
from popcomm.rllib.teaching import taught_rewards
from popcomm.rllib.transcript import Transcript
from popcomm.rllib.unroll import converse, open_lives
from popcomm.rllib.worlds import WorldLayout, make_world, seed_of
from popcomm.schedules import Clock

logger = logging.getLogger(__name__)

# Branches of the seed tree; the learner and the modules have others (config.py).
WORLD_BRANCH, SAMPLING_BRANCH, SEATING_BRANCH, AIR_BRANCH = 1, 2, 3, 6


# A batch, or where it lies.
Batch: TypeAlias = MultiAgentBatch | ray.ObjectRef


class Sampled(NamedTuple):
    """What a runner answers."""

    batch: Batch
    rows: int  # worlds
    metrics: Any
    steps: int  # environment steps, all worlds together
    performance: Mapping[str, float]  # measures of these steps, which fades may follow
    fades: list[dict[str, Any]]  # what the schedules of reflexes remember


class SamplingFailure(NamedTuple):
    """What it answers when sampling raised."""

    worker_index: int
    traceback: str


class PopulationEnvRunner(EnvRunner, Checkpointable):
    """B worlds, stepped T times a call. RLlib makes one per `num_env_runners`, or one in the driver.

    `sample()` returns a MultiAgentBatch {species: arrays of `fragment.allocate`}. Worlds go on where they were from one
    call to the next; seats are drawn anew where episodes start.
    """

    def __init__(self, *, config: Settings, **kwargs: object) -> None:
        super().__init__(config=config, **kwargs)
        self.plan = plan_of(config)
        self.env: World
        self.layout: WorldLayout
        self.num_worlds: int
        self._device = get_device(self.config, self.config.num_gpus_per_env_runner if self.worker_index else 0)
        self._weights_seq_no = 0
        index = self.worker_index or 0
        self.generator = torch.Generator(self._device)
        self._reseed()
        self._new = True  # has neither sampled nor been restored
        self.module: Any = None
        self.explore = bool(config.explore)
        self.make_env()
        self.make_module()
        self.statistics = RolloutStatistics(self.layout, self.channel)
        self.listening = self._listening()
        # The first runner alone keeps a transcript, and only where something will be written.
        written = self.config.conversation_every or self.config.picture_every
        recorded = self.config.run_dir is not None and index <= 1 and written
        self.transcript = Transcript(
            min(self.config.conversation_worlds, self.num_worlds) if recorded else 0,
            self.layout,
            self.channel,
            max(1, self.config.num_env_runners),
            taken=bool(self.config.conversation_every),
        )
        self._step: WorldStep | None = None
        self.transmitted: Tensor | None = None  # [B, N, ...], under way in the channel
        self.air: Air | None = None  # where reflexes act
        self.heard: Heard | None = None  # what comes over it in this step

    def _reseed(self, *branch: int) -> None:
        """Let all that is random here be a function of the config's seed, this runner's index, and `branch`."""
        index = self.worker_index or 0
        branches = (WORLD_BRANCH, SAMPLING_BRANCH, SEATING_BRANCH, AIR_BRANCH)
        self._seeds = {b: seed_of(self.config.seed, b, index, *branch) for b in branches}
        self.generator.manual_seed(self._seeds[SAMPLING_BRANCH])
        self.seating_rng = np.random.default_rng(self._seeds[SEATING_BRANCH])

    # ---- what RLlib asks for ----

    def make_env(self) -> None:
        """Make the worlds and their channel (they start at the first sample)."""
        if self.env is not None:
            self.env.close()
        config = self.config
        # The driver's own runner makes no rollouts when there are remote ones: one world is enough for the spaces.
        idle = self.worker_index == 0 and config.num_env_runners > 0
        self.num_worlds = 1 if idle else config.num_worlds_per_env_runner
        self.env = make_world(config.world, config.env_config, self.num_worlds, self._device)
        self.env.tells_state = self._reads_state = self.plan.reads_state
        self.layout = self.plan.layout
        self._bounds = {n: ActionBounds(s.action_space, self._device) for n, s in self.layout.species.items()}
        self.channel: Channel | None = self.plan.channel
        species = list(self.layout.species.values())
        self._speaks = torch.cat([torch.full((s.num_seats,), s.speaks) for s in species]).to(self._device)  # [N]
        self._hears = torch.cat([torch.full((s.num_seats,), s.hears) for s in species]).to(self._device)  # [N]
        self._foresees = {name: species.settings.gamma > 0 for name, species in self.plan.species.items()}

    def make_module(self) -> None:
        self.module = self.config.get_multi_rl_module_spec(spaces=self.get_spaces(), inference_only=True).build()
        self.module.foreach_module(lambda _, module: module.to(self._device))
        self.laws: dict[str, ActionLaw] = {n: action_law(s.action_space) for n, s in self.layout.species.items()}

    def get_spaces(self) -> dict[str, Any]:
        spaces = {name: (s.observation_space, s.action_space) for name, s in self.layout.species.items()}
        whole = tuple(next(iter(spaces.values())))
        return {**spaces, "__env__": whole, "__env_single__": whole}

    def assert_healthy(self) -> None:
        assert self.env is not None, "the worlds were not made"
        assert self.module is not None, "the networks were not made"

    def stop(self) -> None:
        if self.env is not None:
            self.env.close()

    def get_metrics(self) -> Any:
        """RLlib's reduced metrics of what was sampled since the last call."""
        self.statistics.log(self.metrics)
        if self.air is not None:
            for name, value in {**self.air.traffic.read(), **self._strengths()}.items():
                self.metrics.log_value(("channel", name), value, window=1)
        return self.metrics.reduce()

    def _strengths(self) -> dict[str, float]:
        assert self.air is not None
        return {f"{name}_strength": value for name, value in self.air.strengths().items()}

    # ---- sampling ----

    @torch.no_grad()
    def sample(
        self,
        env_steps: int | None = None,
        performance: Mapping[str, float] | None = None,
        fades: list[dict[str, Any]] | None = None,
        iteration: int = 0,
        **kwargs: Any,
    ) -> MultiAgentBatch:
        """T steps of B worlds. Rows of the batch are worlds.

        A runner that is new to a training under way (RLlib made it in place of a lost one, with the same arguments)
        does not live through the beginning again: its random numbers are a function of `env_steps`, too.

        Args:
            env_steps: the environment steps of all runners so far, which fades follow; None: this runner's, as if the
                others had made as many.
            performance: what all runners measured last, which fades may follow; None: what this one did.
            fades: what the schedules of reflexes remember in all runners; None: what they do in this one.
            iteration: of the training, which transcripts note.
        """
        if self._new and env_steps:
            self._reseed(env_steps)
            # No world has had as many episodes, so none is numbered twice.
            self.transcript.number_from(env_steps)
        self._new = False
        if env_steps is None:
            env_steps = self.num_env_steps_sampled_lifetime * max(1, self.config.num_env_runners)
        self._follow(env_steps, performance, fades)
        self.transcript.begin_fragment(iteration, env_steps)
        if self._step is None:
            self._begin(self._seeds[WORLD_BRANCH])
        length = self.config.rollout_fragment_length
        acts_by_message = self.plan.keeps_message_logp
        taught = self.config.learn_from == "answers"
        takes_turns = (self._step is not None and self._step.speaks is not None) or self._takes_turns()
        writer = FragmentWriter(
            self.layout, self.channel, self.num_worlds, length, acts_by_message, takes_turns, taught, self._reads_state
        )
        fragments = writer.arrays
        carried = {n: {k: self.seatings[n].to_worlds(v) for k, v in s.items()} for n, s in self.state.items()}
        writer.carried(carried, self.previous_obs, self.transmitted)
        self.listening.begin()
        for t in range(length):
            self._advance(t, writer)
        self._write_last(writer)
        self._check_numbers(fragments)
        # Divisions between fragments do not count: a row in which a world only starts over is no step of it.
        stepped = int(np.any([a["alive"].any(2) for a in fragments.values()], axis=0).sum())
        self.num_env_steps_sampled_lifetime += stepped
        self.statistics.count(stepped, fragments, self.env.metrics())
        self.statistics.language |= self.listening.measure(fragments, dict(self.module.items()), self.laws)
        return as_batch(fragments, stepped)

    def _check_numbers(self, fragments: Mapping[str, Fragment[np.ndarray]]) -> None:
        """What a world says must be finite: else learning would fail later, and say something else."""
        # Of answers the rewards are the networks' doing.
        told = ("obs",) if self.config.learn_from == "answers" else ("obs", "rewards")
        broken = not_finite(fragments, told)
        if broken is None:
            return
        name, key, (world, step, seat) = broken
        agent = self.layout.agents[self.layout.species[name].start + seat]
        what = "an observation" if key == "obs" else "a reward"
        raise UserError(
            f"the environment gave agent '{agent}' in world {world} {what} that is not finite, in step {step} of the "
            f"{self.config.rollout_fragment_length} of this fragment"
        )

    def _listening(self) -> Listening:
        return Listening(self.layout, self.channel, self.num_worlds, self.config.rollout_fragment_length)

    def _follow(
        self, env_steps: int, performance: Mapping[str, float] | None, fades: list[dict[str, Any]] | None
    ) -> None:
        """Let reflexes be as faded as the clock says, which counts what all runners step and stands still within a
        fragment."""
        if self.channel is not None and self.air is None:
            self.air = self.channel.open(self.num_worlds, self._seeds[AIR_BRANCH])
        if self.air is None:
            return
        if fades:
            self._remember(fades)
        self.air.observe(Clock(env_steps, self.statistics.performance if performance is None else performance))

    def _takes_turns(self) -> bool:
        """Whether a reflex may take an agent's turn to speak."""
        return self.air is not None and any(reflex.takes_turn for reflex in self.air.reflexes)

    def sample_or_say_why(
        self,
        by_reference: bool,
        env_steps: int | None = None,
        performance: Mapping[str, float] | None = None,
        fades: list[dict[str, Any]] | None = None,
        iteration: int = 0,
    ) -> Sampled | SamplingFailure:
        """The batch goes to the learners without passing the driver; a failure goes to the user with its traceback.

        RLlib would end this process on an exception, and its traceback would end with it. Where
        `fault_tolerance(restart_failed_sub_environments=True)` says so, the worlds are made anew.
        """
        try:
            batch = self.sample(env_steps, performance, fades, iteration)
        except Exception:
            failure = SamplingFailure(self.worker_index or 0, traceback.format_exc())
            if self.config.restart_failed_sub_environments:
                self.make_env()
                self.statistics = RolloutStatistics(self.layout, self.channel)
                self.listening = self._listening()
                self._step = None
                # Not the worlds of the beginning again.
                self._seeds[WORLD_BRANCH] = int(self.seating_rng.integers(2**63))
            return failure
        sent = ray.put(batch) if by_reference else batch
        measured = {name: float(value) for name, value in self.statistics.performance.items()}
        return Sampled(sent, self.num_worlds, self.get_metrics(), batch.env_steps(), measured, self.fades())

    def expect_weights(self) -> None:
        """Take the next weights whatever their number: an older checkpoint is about to be restored."""
        self._weights_seq_no = 0

    def _begin(self, seed: int | None) -> None:
        """New episodes everywhere, everything empty."""
        step = self.env.reset(seed=seed)
        worlds, n = step.alive.shape
        self.members = {
            name: draw(self.seating_rng, worlds, s.num_seats, self._members(name), self.plan.seating_rule)
            for name, s in self.layout.species.items()
        }
        self.seatings = {name: self._seat(name) for name in self.members}
        self.state = {name: self.agent(name).initial_state(self.seatings[name].rows) for name in self.members}
        self.previous_obs = {k: torch.zeros_like(v) for k, v in step.observations.items()}
        if self.channel is not None:
            kind = self.channel.messages
            self.transmitted = torch.zeros(worlds, n, *kind.shape, dtype=kind.dtype, device=self._device)
        self._arrive(step, torch.zeros_like(step.alive))
        self.reopened = np.zeros(worlds, bool)
        self.transcript.begin_episodes()

    def _members(self, name: str) -> int:
        return self.module[name].spec.members

    def agent(self, name: str) -> Any:
        """The network of a species."""
        return self.module[name].agent

    def _seat(self, name: str) -> Seating:
        return Seating(torch.as_tensor(self.members[name], device=self._device), self._members(name))

    def _arrive(self, step: WorldStep, spoke: Tensor) -> None:
        """Take in what the worlds say: who is linked to whom now, and lives that start. spoke: [B, N] bool."""
        self._step = step = self._deprived(step)
        if self.channel is None:
            return
        # Who died alone is not heard any more; at the end of an episode all are, for the value of its last row.
        there = ~step.first & (step.alive | ~step.alive.any(1, keepdim=True))
        hears = self._hears & ~step.first
        if self.air is None:
            self.links: Links = self.channel.connect(spoke & there, hears, step.positions, self.generator)
            return
        begins = (step.first | ~step.alive).all(1) & step.first.any(1)
        self.air.forget(begins.cpu().numpy())
        positions = None if step.positions is None else step.positions.cpu()
        heard = self.air.deliver((there & self._speaks).cpu().numpy(), hears.cpu().numpy(), positions)
        self.heard = Heard(*(values.to(self._device) for values in heard))
        # Who heard whom, for transcripts and pictures: repetitions and published words have no speaker.
        self.links = Links(self.heard.senders.clamp(max=self.layout.num_agents - 1), self.heard.said)

    def _deprived(self, step: WorldStep) -> WorldStep:
        """The step as agents perceive it, where reflexes take observations away."""
        if self.air is None or not self.air.deprives:
            return step
        seen, labels = dict(step.observations), step.labels
        for reflex, mask in self.air.deprived():
            if labels is not None:
                labels = labels.masked_fill(torch.from_numpy(mask).to(self._device), -1)
            for name, species in self.layout.species.items():
                space, taken = species.observation_space, mask[:, species.seats]
                values = seen[name].cpu().numpy()
                instead = reflex.perceive(values[taken], space.low, space.high, self.air.rng)
                values = values.copy()
                values[taken] = instead
                seen[name] = torch.from_numpy(values).to(self._device)
        return step._replace(observations=seen, labels=labels)

    def _reseat(self, worlds: np.ndarray) -> None:
        """Draw the seats of worlds whose episode starts. worlds: [B] bool."""
        for name in self.members:
            if self._members(name) == 1:
                continue
            drawn = redraw(self.seating_rng, self.members[name], self._members(name), worlds, self.plan.seating_rule)
            if drawn is self.members[name]:
                continue
            old, self.members[name] = self.seatings[name], drawn
            new = self.seatings[name] = self._seat(name)
            self.state[name] = {k: new.to_members(old.to_worlds(v)) for k, v in self.state[name].items()}

    def _write_last(self, writer: FragmentWriter) -> None:
        """The row after the fragment: its observations, and the values that bootstrap the returns.

        Where gamma is 0 nothing is bootstrapped: those values are 0, and spare a step of the network.
        """
        step = self._step
        assert step is not None
        state = dict(self.state)
        thought = {}
        for name, view in writer.views.items():
            if self._foresees[name]:
                thought[name], view["values"][:, -1] = self._think(name, step)
            # All rows at once: the statistics stand still within a fragment.
            members = torch.cat([view["members"], torch.from_numpy(self.members[name]).unsqueeze(1)], 1)
            values = self.module[name].returns.denormalise_of(*(x.to(self._device) for x in (view["values"], members)))
            view["values"][:] = values
            if not self._foresees[name]:
                view["values"][:, -1] = 0.0
        writer.last(step)
        self.state = state
        self.transcript.end_fragment(step, thought, self.seatings, self._told())

    def _advance(self, t: int, writer: FragmentWriter) -> None:
        """One step of all worlds, written into row t."""
        step = self._step
        assert step is not None
        if self.reopened.any():
            self._reseat(self.reopened)
        self.listening.remember(t, self.state, self.seatings)
        outputs = {name: self._act(name, t, view, step) for name, view in writer.views.items()}
        # Networks learn from what they chose, worlds get it in their bounds.
        actions = {name: self._bounds[name].of(o[0]) for name, o in outputs.items()}
        sent = None
        spoken = None
        voice = self._voice(step)
        if self.channel is not None:
            sent = self._all_said({name: o[1] for name, o in outputs.items()})
            voice = self._transmit(sent, voice, step)
            spoken = self.channel.messages.load(sent) * voice
        self.previous_obs = step.observations
        following = self.env.step(actions, spoken)
        links = self.links if self.channel is not None else None
        networks = {name: o[2] for name, o in outputs.items()}
        rewards = following.rewards
        if self.config.learn_from == "answers" and step.answers is not None:
            logits = {name: self.seatings[name].to_worlds(o.action_logits) for name, o in networks.items()}
            rewards = taught_rewards(rewards, step.answers, logits, self.laws, self.layout.species, step.action_masks)
        writer.step(t, step, following, sent, self.transmitted, links, self.heard, voice, rewards)
        # A word whose turn a reflex took was not said.
        told = step._replace(speaks=voice) if self._takes_turns() else step
        self.transcript.step(
            told, following, actions, sent, networks, self.seatings, self.members, self._told(), self.reopened
        )
        self.statistics.step(step, following)
        if self.channel is not None and self.transmitted is not None:
            voice = voice & self.channel.messages.spoken(self.transmitted)
        self._arrive(following, voice)
        # After a row in which nobody lives comes the first of a new episode.
        self.reopened = ~step.alive.any(1).cpu().numpy()

    def _told(self) -> Links | None:
        """Who hears whom in this step, for the transcript; None where nobody does, or all do through latents."""
        return None if self.channel is None or self.channel.topology.latents else self.links

    def _transmit(self, sent: Tensor, voice: Tensor, step: WorldStep) -> Tensor:
        """Send what was said, [B, N, ...]; returns whose message went out, [B, N] bool."""
        assert self.channel is not None
        if self.air is None:
            self.transmitted = self.channel.transmit(sent, self.generator)
            return voice
        self.transmitted = sent
        able, lively = voice.cpu().numpy(), step.alive.any(1).cpu().numpy()
        return torch.from_numpy(self.air.transmit(sent.cpu().numpy(), able, lively)).to(self._device)

    def _voice(self, step: WorldStep) -> Tensor:
        """[B, N] bool, whose messages count in a step."""
        voice = step.alive & self._speaks
        return voice if step.speaks is None else voice & step.speaks

    def _all_said(self, messages: dict[str, Tensor | None]) -> Tensor:
        """The messages of all seats, [B, N, ...]; zeros of species that never speak."""
        assert self.channel is not None
        kind = self.channel.messages
        for name, message in messages.items():
            species = self.layout.species[name]
            if not species.speaks:
                shape = (self.num_worlds, species.num_seats, *kind.shape)
                messages[name] = torch.zeros(shape, dtype=kind.dtype, device=self._device)
            elif message is None:
                agent = type(self.agent(name)).__name__
                raise UserError(
                    f"population.agent {agent} gave no message for species '{name}', and there is a channel"
                )
        return torch.cat([m for m in messages.values() if m is not None], 1)

    def _think(self, name: str, step: WorldStep) -> tuple[AgentOutput, Tensor]:
        """The network's output [P, R, ...] and value [B, N_s] (normalised) on the present observations."""
        module: PopulationRLModule = self.module[name]
        seating, seats = self.seatings[name], self.layout.species[name].seats
        obs = seating.to_members(step.observations[name])
        first = seating.to_members(step.first[:, seats])
        self.state[name] = open_lives(module.agent, self.state[name], first)
        inbox = None
        if self.channel is not None and self.transmitted is not None and module.spec.hears:
            hears = ~step.first if module.spec.latents else None
            if self.heard is not None:
                mail = Mail(self.heard.words, self.heard.slots, self.heard.mask, log=LogOf(*self.heard[1:3]))
            else:
                mail = Mail(self.transmitted, *self.links, hears=hears)
            inbox = inbox_of(mail, seating, seats)
        output = converse(
            module.agent, module.spec, obs, inbox, self.state[name], generator=self.generator, greedy=not self.explore
        )
        if inbox is not None and "attention" in output.aux:
            self.statistics.listened(output.aux["attention"], inbox.mask)
        world_state = None
        if step.state is not None and module.central_critic is not None:
            per_seat = step.state.unsqueeze(1).expand(-1, seating.num_seats, -1)
            world_state = seating.to_members(per_seat)
        value = module.value(output.value, obs, world_state)
        return output, seating.to_worlds(value)

    def _act(
        self, name: str, t: int, view: Fragment[Tensor], step: WorldStep
    ) -> tuple[Tensor, Tensor | None, AgentOutput]:
        """Sample actions and messages of one species; returns them in world order, with the network's output."""
        seating, law = self.seatings[name], self.laws[name]
        view["members"][:, t] = torch.from_numpy(self.members[name])
        output, value = self._think(name, step)
        self.state[name] = output.state
        view["values"][:, t] = value
        mask = None
        if step.action_masks is not None and name in step.action_masks:
            view["action_mask"][:, t] = step.action_masks[name]
            mask = seating.to_members(step.action_masks[name])
        logits = output.action_logits
        rows = law.sample(logits, self.generator, mask) if self.explore else law.mode(logits, mask)
        actions = seating.to_worlds(rows)
        view["actions"][:, t] = actions
        view["action_logp"][:, t] = seating.to_worlds(law.log_prob(logits, rows, mask))
        message = None
        if self.channel is not None and output.message is not None:
            kind = self.channel.messages
            said = output.said
            if "message_noise" in view:
                if said is not None:
                    agent = type(self.agent(name)).__name__
                    raise UserError(
                        f"population.agent {agent} says its messages itself, and {kind.kind} are said by the trainer, "
                        "with noise that it keeps"
                    )
                said = self._say_with_noise(output.message, view["message_noise"][:, t], seating)
            elif said is None:
                said = kind.sample(output.message, self.generator) if self.explore else kind.mode(output.message)
            message = seating.to_worlds(said)
            if "message_logp" in view:
                view["message_logp"][:, t] = seating.to_worlds(kind.log_prob(output.message, said))
        return actions, message, output

    def _say_with_noise(self, params: Tensor, kept: Tensor, seating: Seating) -> Tensor:
        """Messages [P, R, ...] of a reparameterised kind; the noise is written into `kept` [B, N_s, ...]."""
        assert self.channel is not None
        kind: Any = self.channel.messages
        if not self.explore:
            kept.zero_()
            return kind.mode(params)
        noise = kind.draw_noise(params, self.generator)
        kept.copy_(seating.to_worlds(noise))
        return kind.sample_with(params, noise)

    # ---- state ----

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Weights and counters; `run_state` has the rest."""
        state: dict[str, Any] = {NUM_ENV_STEPS_SAMPLED_LIFETIME: self.num_env_steps_sampled_lifetime}
        wanted = [components] if isinstance(components, str) else components
        unwanted = [not_components] if isinstance(not_components, str) else not_components or []
        if COMPONENT_RL_MODULE not in unwanted and (
            wanted is None or any(c.startswith(COMPONENT_RL_MODULE) for c in wanted)
        ):
            state[COMPONENT_RL_MODULE] = self.module.get_state(**kwargs)
            state[WEIGHTS_SEQ_NO] = self._weights_seq_no
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        if COMPONENT_RL_MODULE in state:
            sequence = state.get(WEIGHTS_SEQ_NO, 0)
            if sequence == 0 or self._weights_seq_no < sequence:
                weights = state[COMPONENT_RL_MODULE]
                self.module.set_state(ray.get(weights) if isinstance(weights, ray.ObjectRef) else weights)
            if sequence > 0:
                self._weights_seq_no = sequence

    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        return (), {"config": self.config}

    def get_checkpointable_components(self) -> list[tuple[str, Any]]:
        return [(COMPONENT_RL_MODULE, self.module)]

    def run_state(self) -> dict[str, Any]:
        """All of this runner that decides the future, but the weights: worlds, seats, mail, memories, generators.

        Where the worlds cannot be saved (foreign environments that do not pickle) "world" is None, and a restored
        runner starts new episodes.
        """
        started = self._step is not None
        state: dict[str, Any] = {
            "belongs_to": self.surroundings(),
            "generator": self.generator.get_state(),
            "seating_rng": self.seating_rng.bit_generator.state,
            "steps": self.num_env_steps_sampled_lifetime,
            "world": self.env.get_state() if started else None,
            "started": started,
            "transcript": self.transcript.get_state(),
        }
        if started:
            state |= {
                "members": self.members,
                "reopened": self.reopened,
                "state": {n: {k: v.cpu() for k, v in s.items()} for n, s in self.state.items()},
                "previous_obs": {k: v.cpu() for k, v in self.previous_obs.items()},
                "statistics": self.statistics.get_state(),
                "listening": self.listening.get_state(),
            }
            if self.transmitted is not None:
                state |= {"transmitted": self.transmitted.cpu(), "links": tuple(x.cpu() for x in self.links)}
            if self.air is not None and self.heard is not None:
                assert self._step is not None
                state |= {
                    "air": self.air.get_state(),
                    "heard": tuple(x.cpu() for x in self.heard),
                    "perceived": {k: v.cpu() for k, v in self._step.observations.items()},
                    "labels": None if self._step.labels is None else self._step.labels.cpu(),
                }
        # Worlds and networks may go on in place.
        return copy.deepcopy(state)

    def _restore_transcript(self, state: dict[str, Any]) -> None:
        """Go on writing down where a `run_state` stopped; anew where other worlds were recorded, or none."""
        saved = state.get("transcript")  # older checkpoints have none
        if saved is not None and saved["worlds"] == self.transcript.worlds:
            self.transcript.set_state(saved)
        else:
            self.transcript.number_from(state["steps"] * max(1, self.config.num_env_runners))

    def fades(self) -> list[dict[str, Any]]:
        """What the schedules of reflexes remember; nothing before the first step, or where none act."""
        return [] if self.air is None else [reflex.schedule.get_state() for reflex in self.air.reflexes]

    def set_fades(self, env_steps: int, remembered: list[dict[str, Any]]) -> None:
        """Let reflexes be as faded as after `env_steps` of all runners, with the `fades` of one of them."""
        self.num_env_steps_sampled_lifetime = env_steps // max(1, self.config.num_env_runners)
        self.air = None if self.channel is None else self.channel.open(self.num_worlds, self._seeds[AIR_BRANCH])
        if self.air is not None and remembered:
            self._remember(remembered)

    def _remember(self, fades: list[dict[str, Any]]) -> None:
        """Raises UserError: they are the fades of other reflexes."""
        assert self.air is not None
        if len(fades) != len(self.air.reflexes):
            raise UserError(
                f"the training that is gone on with has {len(fades)} communication.reflexes, and this configuration "
                f"has {len(self.air.reflexes)}; restore it with the reflexes that it was saved with"
            )
        for reflex, memory in zip(self.air.reflexes, fades, strict=True):
            reflex.schedule.set_state(memory)

    def surroundings(self) -> dict[str, str]:
        """What a `run_state` must have in common with this runner, for it to go on from there."""
        return surroundings(self.config, self.plan, self.num_worlds)

    def start_anew(self) -> None:
        """Forget the worlds and all that went on in them: the next sample starts new episodes, with random numbers that
        are a function of the steps made so far."""
        self._new = True
        self._step = self.air = self.transmitted = self.heard = None
        self.statistics = RolloutStatistics(self.layout, self.channel)
        self.listening = self._listening()

    def set_run_state(self, state: dict[str, Any]) -> None:
        """Go on from a `run_state`."""
        state = copy.deepcopy(state)  # which may be wanted again
        self.start_anew()
        self._new = False
        self.generator.set_state(state["generator"])
        self.seating_rng.bit_generator.state = state["seating_rng"]
        self.num_env_steps_sampled_lifetime = state["steps"]
        self._restore_transcript(state)
        if not state["started"]:
            return
        if self.channel is not None:
            self.air = self.channel.open(self.num_worlds, self._seeds[AIR_BRANCH])
        if self.air is not None and "air" in state:
            self.air.set_state(state["air"])
        if state["world"] is None:
            logger.warning("these worlds cannot be restored in the middle of an episode: new episodes start")
            self._begin(seed_of(self._seeds[WORLD_BRANCH], state["steps"]))
            return
        step = self.env.set_state(state["world"])
        self.members, self.reopened = state["members"], state["reopened"]
        self.seatings = {name: self._seat(name) for name in self.members}
        self.state = {n: {k: v.to(self._device) for k, v in s.items()} for n, s in state["state"].items()}
        self.previous_obs = {k: v.to(self._device) for k, v in state["previous_obs"].items()}
        self.statistics.set_state(state["statistics"])
        if "listening" in state:  # checkpoints of before it was measured have none
            self.listening.set_state(state["listening"])
        if self.channel is not None:
            self.transmitted = state["transmitted"].to(self._device)
            self.links = Links(*(x.to(self._device) for x in state["links"]))
        if self.air is not None:
            self.heard = Heard(*(x.to(self._device) for x in state["heard"]))
            labels = None if state["labels"] is None else state["labels"].to(self._device)
            seen = {k: v.to(self._device) for k, v in state["perceived"].items()}
            step = step._replace(observations=seen, labels=labels)
        self._step = step
