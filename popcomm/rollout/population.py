"""Population: members, their channel and their worlds, out of any trainer and without Ray."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from popcomm.agents.seating import SHUFFLED, SeatingRule
from popcomm.checks import true_or_false, whole
from popcomm.envs.layout import WorldLayout
from popcomm.errors import UserError, unknown
from popcomm.rollout.evaluation import Evaluation, evaluate, worlds_for
from popcomm.rollout.files import write
from popcomm.rollout.interference import in_turn, interference
from popcomm.rollout.loop import Loop
from popcomm.rollout.members import Members
from popcomm.rollout.noise import Hindrance, HindranceLike, hindrance_of
from popcomm.rollout.players import Players
from popcomm.rollout.recipes import ChannelRecipe, EnvRecipe
from popcomm.rollout.rollout import Rollout
from popcomm.rollout.seeds import Seeds, seed_of
from popcomm.schedules import Clock

# A tree of random numbers beside that of training.
EVALUATION_BRANCH = 8


class Population(Mapping[str, Members]):
    """{species: its members}, which act in any PettingZoo loop, play in worlds of their own, and are evaluated in them.

    `popcomm.load` makes one of a run, a checkpoint or an exported folder, and `PopulationPPO.population()` of what is
    trained. In a loop:

        population.reset(env)
        observations, infos = env.reset()
        terminations = truncations = {}
        while env.agents:
            actions = population.act(observations, infos=infos, terminations=terminations, truncations=truncations)
            observations, rewards, terminations, truncations, infos = env.step(actions)

    Args:
        members: {species: Members}.
        layout: of the worlds that they act in.
        channel: what passes between them; None in silence.
        env: what worlds are made from; None: it could not be written down, and they only act in loops.
        seating: how members come to their seats.
        clock, fades: how far training was, and what the schedules of reflexes remember of it.
        num_worlds: B, of rollouts that do not say otherwise.
        seed: of the training.
    """

    def __init__(
        self,
        members: Mapping[str, Members],
        layout: WorldLayout,
        channel: ChannelRecipe | None = None,
        env: EnvRecipe | None = None,
        seating: SeatingRule = SHUFFLED,
        clock: Clock | None = None,
        fades: Sequence[Mapping[str, Any]] = (),
        num_worlds: int = 1,
        seed: int | None = None,
    ) -> None:
        self.members, self.layout, self.channel, self.env = dict(members), layout, channel, env
        self.seating, self.clock, self.fades = seating, clock or Clock(0), list(fades)
        self.num_worlds, self.seed = num_worlds, seed
        self._loop: Loop | None = None

    def __getitem__(self, species: str) -> Members:
        """The members of a species; population[species][member] is one of them.

        Raises:
            UserError: no such species.
        """
        if species not in self.members:
            raise unknown("the species", species, self.members)
        return self.members[species]

    def __iter__(self) -> Iterator[str]:
        return iter(self.members)

    def __len__(self) -> int:
        return len(self.members)

    # ---- in a loop ----

    def reset(self, env: Any = None, seed: int | None = None) -> None:
        """An episode begins: memories are empty, nobody has said anything, and members are seated anew.

        Args:
            env: the environment of the loop. It is asked who acts (`agents`), where agents are, where the topology
                needs that, who may speak (`may_speak`) and whose life has begun (`lives`), and it is told what messages
                cost (`speak`), where it has such methods. None: the one that observations know, as those of popcomm's
                environments do; or nobody: all may speak, talk is free, and who is in the observations acts.
            seed: of all that is random from here on, as `rollout(seed, worlds=1)` has it; None: it goes on, at first
                from 0.
        """
        self._looped().begin(env, seed)

    def act(
        self,
        observations: Mapping[Any, Any],
        greedy: bool = False,
        infos: Mapping[Any, Any] | None = None,
        terminations: Mapping[Any, Any] | None = None,
        truncations: Mapping[Any, Any] | None = None,
    ) -> dict[Any, Any]:
        """One step: what everybody does, as the environment's action spaces want it.

        What agents say is heard by those who are in the next call's observations; memories are kept until `reset`. An
        agent that is not in the observations is dead, or not there; one that comes again begins a new life.

        Args:
            observations: {agent: its observation, of the environment's space}; an "action_mask" in it is obeyed.
            greedy: the likeliest actions and messages instead of samples.
            infos: {agent: its info}, needed only where action masks are in infos.
            terminations, truncations: {agent: whether it is done}, of the step before; needed only where agents that
                are done may stay in `agents`. As in training, their next life begins at once; one that is done in its
                first step, too, is merely kept there: it gets the first action of its space until no flag says that it
                is done. Where nobody goes on, nobody acts: {}. In the first step of an episode they are not looked at.

        Raises:
            UserError: an agent that has no seat, an observation that is not of its space, a mask or positions that are
                needed and not there; one who is done, and no environment to ask whether it stays.
        """
        return self._looped().act(observations, greedy, infos, terminations, truncations)

    def _looped(self) -> Loop:
        if self._loop is None:
            channel = None if self.channel is None else self.channel.make(self.layout)
            players = Players(self.layout, self.members, channel, 1, Seeds.of(0, 0), self.seating)
            players.in_play = True
            self._loop = Loop(players, self.clock, self.fades)
        return self._loop

    # ---- in worlds of its own ----

    def rollout(
        self,
        seed: int = 0,
        greedy: bool = False,
        worlds: int | None = None,
        env_config: Mapping[str, Any] | None = None,
    ) -> Rollout:
        """Worlds in which it plays as it is now (`popcomm.rollout.Playable`), on this process's CPU.

        Raises:
            UserError: an env_config that does not fit the environment or the members, or no environment.
        """
        return self._played(Seeds.of(seed, 0), greedy, worlds or self.num_worlds, env_config)

    def _played(
        self,
        seeds: Seeds,
        greedy: bool,
        worlds: int,
        env_config: Mapping[str, Any] | None,
        noise: Hindrance | None = None,
    ) -> Rollout:
        if self.env is None:
            raise UserError(
                "this population does not know its environment, which no module:attribute names; play it in a loop "
                "with population.act, or load it with popcomm.load(path, env=...)"
            )
        world = self.env.make(worlds, env_config)
        layout = WorldLayout.of(world)
        recipe = self.channel
        if noise is not None:
            world, recipe = noise.of_world(world), noise.of_channel(recipe)
        channel = None if recipe is None else recipe.make(layout)
        self._check_fit(layout, channel)
        rollout = Rollout(world, self.members, channel, seeds=seeds, seating=self.seating, explore=not greedy)
        rollout.players.in_play = True
        rollout.follow(self.clock, self.fades)
        if noise is not None:
            noise.of_players(rollout.players)
        return rollout

    def evaluate(
        self,
        episodes: int = 100,
        env_config: Mapping[str, Any] | None = None,
        greedy: bool = False,
        messages: str | None = None,
        seed: int | None = None,
        noise: HindranceLike | None = None,
    ) -> Evaluation:
        """Returns in episodes apart from those of training, the same ones every time, with intervals.

        Args:
            episodes: how many; a few more where members would not sit equally often.
            env_config: keys that differ from those of training, e.g. {"num_agents": 50}.
            greedy: the likeliest actions and messages instead of samples.
            messages: "on" or None as in training; "off": nobody is heard; "noise": random ones in place of what is
                said; "shuffled": what the same seat says in another world.
            seed: of the episodes; None: that of the training. Either way they are not those of training.
            noise: how it is hindered, such as {"kind": "gaussian", "strength": 0.1} (`popcomm.rollout.noise`).

        Raises:
            UserError: as `rollout`; no episodes, messages or noise that there are not, or an episode that does not end.
        """
        whole("episodes", episodes, 1)
        true_or_false("greedy", greedy)
        hindrance = hindrance_of(noise)
        garble = interference(messages)
        if garble is not None and self.channel is None:
            raise UserError(f"messages is '{messages}', and this population is silent; use 'on'")
        root = seed if seed is not None else self.seed if self.seed is not None else 0
        worlds, rounds = worlds_for(episodes, self._block())
        if messages == "shuffled" and worlds == 1:  # which has no other world
            worlds, rounds = 2, -(-episodes // 2)
        begun = {} if self.env is None else self.env.whole_episodes()
        seeds = Seeds.of(seed_of(root, EVALUATION_BRANCH))
        rollout = self._played(seeds, greedy, worlds, {**begun, **(env_config or {})}, hindrance)
        rollout.players.interference = in_turn(garble, rollout.players.interference)
        try:
            return evaluate(rollout, rounds)
        finally:
            rollout.close()

    def _block(self) -> int:
        """The fewest worlds whose seats hold every member equally often, as far as there are few."""
        most = max(
            self.seating.block(len(members), self.layout.species[name].num_seats)
            for name, members in self.members.items()
        )
        return min(most, self.num_worlds)

    def in_worlds_of(self, env_config: Mapping[str, Any]) -> Population:
        """The same members, to act in worlds of another env_config, such as {"num_agents": 50}.

        Raises:
            UserError: an env_config that does not fit the environment or the members, or no environment.
        """
        rollout = self._played(Seeds.of(0), False, 1, env_config)
        rollout.close()
        assert self.env is not None
        env = replace(self.env, env_config=self.env.merged(env_config))
        return Population(
            self.members, rollout.players.layout, self.channel, env, self.seating, self.clock, self.fades,
            self.num_worlds, self.seed,
        )  # fmt: skip

    def _check_fit(self, layout: WorldLayout, channel: Any) -> None:
        if layout.species.keys() != self.members.keys():
            raise UserError(
                f"the worlds have the species {', '.join(layout.species)}, and the population has "
                f"{', '.join(self.members)}"
            )
        seats = layout.num_agents + bool(channel is not None and channel.size)
        kinds = tuple(name for name, species in layout.species.items() for _ in range(species.num_seats))
        for name, species in layout.species.items():
            inbox = channel.inbox_size if channel is not None and species.hears else 0
            self.members[name].check_fit(species, inbox, seats, kinds)

    # ---- files ----

    def save_pretrained(self, folder: str | Path) -> Path:
        """Write a folder that `popcomm.load` reads: safetensors and JSON (`popcomm.rollout.files`). Returns it.

        Raises:
            UserError: something that cannot be written down, such as messages of a class without a name.
        """
        write(
            Path(folder), self.members, self.layout, self.channel, self.env, self.seating, self.clock, self.fades,
            num_worlds=self.num_worlds, seed=self.seed,
        )  # fmt: skip
        return Path(folder)
