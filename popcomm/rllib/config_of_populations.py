"""The config's methods that say what is trained: in which world, with which channel, who, and who is selected.

A section of a YAML file is one of them, and its keys are the method's keyword arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ray.rllib.algorithms.algorithm_config import NotProvided
from typing_extensions import Self

from popcomm.envs.world import World
from popcomm.rllib.by_species import BySpecies
from popcomm.rllib.settings import Settings
from popcomm.rllib.unsupported import check_names


class ConfigOfPopulations(Settings):
    """Settings with methods to choose the population and its world."""

    def _set(self, **values: object) -> Self:
        for name, value in values.items():
            if value is not NotProvided:
                setattr(self, name, value)
        return self

    def environment(
        self,
        env: object = NotProvided,
        *,
        env_config: Mapping[str, object] | None = NotProvided,
        species: Mapping[str, Sequence[str]] | Callable[[str], str] | None = NotProvided,
        agent_id: bool = NotProvided,
        time_limit: str = NotProvided,
        processes: int | None = NotProvided,
        process_timeout: float = NotProvided,
        **kwargs: object,
    ) -> Self:
        """Choose the world.

        Args:
            env: a popcomm name ("swarm_v0"), a World class, "module:attribute", or a creator: any callable that takes
                the env_config and returns a PettingZoo ParallelEnv. Box actions are mapped to their finite bounds.
            env_config: its arguments.
            species: who is of which species, {"scout": ["a_0", "a_1"], ...}, or a function from an agent to the name
                of its species (RLlib's policy_mapping_fn is taken as that); agents of a species have the same spaces
                and share networks. None: as the environment has them, by their spaces.
            agent_id: let observations end with a one-hot of the agent's seat among those of its species.
            time_limit: what follows when an episode is truncated. "bootstrap": the value of its final observation, as
                if it went on; with gamma 1 and a limit that agents can count on, waiting for ever then costs nothing.
                "end": nothing, as if it had terminated.
            processes: of each env runner, among which its worlds are dealt out, for ParallelEnvs that are slow
                (`popcomm.envs.ProcessWorlds`); as many as worlds: one world each. None: all step in the runner's own.
            process_timeout: seconds without an answer after which such a process counts as hanging.
        """
        if env is not NotProvided:
            self._set(world=env)
            # RLlib wants a class or a registered name of its own; its runners are not asked to make it.
            super().environment(env=World)
        if env_config is not NotProvided:
            super().environment(env_config=dict(env_config or {}))
        check_names(type(self), "environment", kwargs)
        super().environment(**kwargs)
        return self._set(
            species_as=species,
            agent_id=agent_id,
            time_limit=time_limit,
            processes=processes,
            process_timeout=process_timeout,
        )

    def communication(
        self,
        messages: object = NotProvided,
        topology: object = NotProvided,
        gradient: str | None = NotProvided,
        credit: str | None = NotProvided,
        dropout: float = NotProvided,
        noise: float = NotProvided,
        reflexes: Sequence[object] = NotProvided,
        capacity: int | None = NotProvided,
        inbox: int | None = NotProvided,
        rounds: int = NotProvided,
        gate: str | Mapping[str, object] | None = NotProvided,
        budget: int | Mapping[str, object] | None = NotProvided,
        vocabulary: Mapping[str, object] | None = NotProvided,
    ) -> Self:
        """Choose the channel.

        Args:
            messages: Symbols, Words, Vectors, Dru, a MessageKind of your own, or their mapping such as {"kind":
                "symbols", "vocab_size": 64, "length": 5}, with relaxed: True points of the simplex in training;
                None silences the population, the same network otherwise.
            topology: who hears whom: a Topology, or a mapping such as {"kind": "k_nearest", "k": 4}.
            gradient: how senders learn. Symbols: "relaxed" (from their receivers' losses: in training a symbol is a
                point of the simplex, drawn anew by the present sender in every update, in play it is the likeliest
                symbol), "straight_through" (the same losses, through the symbol that was drawn), "reinforce" (as
                actions), "none". Words: all but the first. Vectors, DRU and relaxed symbols: "through", "none". A kind
                of your own: those that its class names in `gradients` (`popcomm.channels.kinds.GRADIENTS`). None:
                "relaxed" where a message is at most 64 numbers and the agent says that it `takes_relaxed` ("symbolic"
                and "mlp" do), else the next one that the kind has.
            credit: what a message is credited with under "reinforce". "step": all that follows the step in which it was
                sent. "next": only what follows the step after, when it is heard; nothing earlier can be its doing,
                unless the world charges for talk, so the estimate has less noise. "receivers": what became of those
                who heard it, in the mean; for worlds that pay each for its own doing. "counterfactual": the same, as
                far as they would have acted otherwise had its sender said something else, in expectation over what it
                might have said (COMA's baseline, `popcomm.rllib.counterfactual`); who follows nothing pays for nothing,
                and what listeners keep in memory for later steps is not counted. None: "next" where gamma is 0, else
                "step".
            dropout: probability that a receiver misses a message; through a routed channel, that all do.
            noise: symbols: probability that a symbol is replaced by a random one; words: that a bit is flipped;
                vectors: standard deviation.
            reflexes: of words: Reflex objects, or mappings such as {"kind": "word_repetition", "decision": {"kind":
                "local_rule", "target": 0.5}} (`popcomm.channels.broadcast.reflexes`).
            capacity: L, transmissions of words that a world holds in a step; what is above is dropped. None: enough
                for three standard deviations of the load when all speak (four times what is said where R >= 1).
            inbox: K, of them, that an agent can hear. None: all that it may expect.
            rounds: R, messages that agents exchange within a step, on the same observation, before they act: each is
                heard in the next round, and the last one by those who act. Networks run R + 1 times in a step, their
                memory going on. 0: a message is heard one step after it was sent.
            gate: "receiver": listeners open and shut every number of a message by their own state; "sender": speaking
                is a decision, learned by policy gradients as actions are (IC3Net); "both"; or {"kind": one of these,
                "price": c}, what a message that goes out costs, in units of reward, in what is learned from (not in
                what is logged). "none": all that is said goes out and comes in; None: so, but that "ic3net" has its
                sender's gate.
            budget: K, messages that a listener takes in a step or round: the most urgent, by a priority that senders
                learn; or {"messages": K, "patience": W, "price": c}: after W refusals in a row a sender comes first,
                and a message costs c times its priority (`popcomm.channels.gates`). None: all.
            vocabulary: of symbols: {"first": n, "schedule": ...}: n of them may be said at first, and more as the
                schedule's strength falls from 1 to 0, where all may (`popcomm.channels.vocabulary`). None: all, always.
        """
        return self._set(
            messages=messages,
            channel_topology=topology,
            message_gradient=gradient,
            message_credit=credit,
            message_dropout=dropout,
            message_noise=noise,
            reflexes=reflexes,
            channel_capacity=capacity,
            channel_inbox=inbox,
            channel_rounds=rounds,
            channel_gate=gate,
            channel_budget=budget,
            vocabulary=vocabulary,
        )

    def population(
        self,
        agent: object = NotProvided,
        members: BySpecies[int] = NotProvided,
        agent_config: Mapping[str, object] = NotProvided,
        critic: BySpecies[str] = NotProvided,
        seating: str = NotProvided,
        communities: int = NotProvided,
        mixing: float = NotProvided,
    ) -> Self:
        """Choose the population. The first four are one value for all, or {species: value, "default": value}.

        Args:
            agent: "symbolic", "mlp", "gru", "tiny", "bottom_up", "commnet", "ic3net", "tarmac",
                "heterogeneous", a class that keeps the contract of `popcomm.agents.contract`, or "module:Class".
            members: individuals with weights of their own, P per species; 1 is parameter sharing.
            agent_config: keyword arguments of the agent's constructor.
            critic: "independent", or "central": the value is a function of the world's latent state too.
            seating: "shuffled": members are drawn to seats anew when episodes start, never twice in one world where
                there are enough; "fixed": seat n of world b is member (b N + n) mod P; "communities": drawn, each from
                the community of its world; "worlds": one member, drawn, on all seats of a world. For "bottom_up",
                "shuffled" stands for "fixed", and one member for one on each seat.
            communities: equal groups of the members of every species; worlds belong to them in turn.
            mixing: share of the seats, 0 to 1, that are filled without regard to community.
        """
        settings = {} if agent_config is None else agent_config
        return self._set(
            agent=agent,
            members=members,
            agent_config=settings,
            critic=critic,
            seating=seating,
            communities=communities,
            mixing=mixing,
        )

    def survival(
        self,
        strategy: object = NotProvided,
        every: int = NotProvided,
        fitness: object = NotProvided,
        smoothing: float = NotProvided,
        mutation_std: float = NotProvided,
        crossover: float = NotProvided,
        newborns: str | None = NotProvided,
        lessons: int = NotProvided,
        hyperparameters: Mapping[str, Sequence[float]] | None = NotProvided,
        perturbation: float = NotProvided,
        within: str = NotProvided,
        mutation_schedule: object = NotProvided,
        pressure: object = NotProvided,
    ) -> Self:
        """Let members be born, reproduce and die, in one training: selection on the member axis (popcomm.evolution).

        Args:
            strategy: who has children and who is replaced: a Strategy, or a mapping such as {"kind": "top_k", "k": 20};
                kinds are "top_k", "truncation", "tournament", "age_limit" and "novelty", or "module:Class". None:
                nobody. Species with one member, and those that do not learn, are not selected. One for all species, or
                {species: strategy, "default": strategy}.
            every: iterations of a generation.
            fitness: a measure of members (`popcomm.rllib.member_statistics.MEASURES`): "return", its mean over those
                whom a member met; "shared_return", of all seats of its worlds; "reward", of a step; of talk "success",
                "listening", "influence", "message_entropy" and "agreement". Or a function, or "module:function",
                {measure: [P]} -> [P].
            smoothing: s, in [0, 1), of a member's fitness over the generations that it lived: by how much it is above
                the others who lived before and now, d <- s d + (1 - s) (x - their mean). Its first value counts as it
                is (`popcomm.evolution.lived`).
            mutation_std: of the Gaussian noise that children's weights get, as a share of each tensor's own size.
            crossover: probability that a tensor of a child is that of a second parent.
            newborns: what children begin with: "copy", their parent's weights; "fresh", new ones; "imitate", new ones,
                and a parent that lives on teaches them. None: as the strategy says, "fresh" of an age limit and "copy"
                of others.
            lessons: iterations in which newborns that imitate are taught.
            hyperparameters: {"lr" or "entropy_coeff": [lowest, highest]}: each member has its own, a multiple of the
                setting within these bounds, which children inherit and perturb.
            perturbation: factor by which a child's is above or below its parent's.
            within: "species", or "communities": children have both parents of their own community, and take its places.
            mutation_schedule: by how much `mutation_std` is multiplied while training goes on: a schedule, or a
                mapping such as {"kind": "linear", "begin": 0, "end": 100000} (`popcomm.schedules`).
            pressure: probability with which a member that the strategy replaces is replaced indeed: a number, or a
                schedule.
        """
        said = {key for key, value in locals().items() if key != "self" and value is not NotProvided}
        return self._set(
            survival_given=self.survival_given | said,
            survival_strategy=strategy,
            survival_every=every,
            survival_fitness=fitness,
            survival_smoothing=smoothing,
            mutation_std=mutation_std,
            survival_crossover=crossover,
            survival_newborns=newborns,
            survival_lessons=lessons,
            survival_hyperparameters=hyperparameters,
            survival_perturbation=perturbation,
            survival_within=within,
            mutation_schedule=mutation_schedule,
            survival_pressure=pressure,
        )
