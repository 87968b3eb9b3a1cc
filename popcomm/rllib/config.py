"""PopulationPPOConfig: RLlib's chained configuration, with populations and channels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModuleSpec
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from typing_extensions import Self

from popcomm.channels import MessageKind
from popcomm.envs.species import DEFAULT
from popcomm.envs.world import World
from popcomm.evolution.strategy import IMITATE
from popcomm.rllib import validation
from popcomm.rllib.by_species import LEARNING, RLLIBS, BySpecies, is_by_species
from popcomm.rllib.env_runner import PopulationEnvRunner
from popcomm.rllib.graph import links_of
from popcomm.rllib.learner import PopulationPPOLearner
from popcomm.rllib.module import PopulationMultiRLModule, PopulationRLModule
from popcomm.rllib.plan import Plan, messages_of, plan_of
from popcomm.rllib.settings import Settings
from popcomm.rllib.survival_plan import first_scales
from popcomm.rllib.unsupported import check_names, filled_in, load_paths
from popcomm.rollout import seed_of

MODULE_BRANCH = 5


class PopulationPPOConfig(Settings):
    """Configuration of PopulationPPO.

    >>> config = (PopulationPPOConfig()
    ...     .environment("swarm_v0", env_config={"num_agents": 10})
    ...     .communication(messages={"kind": "symbols", "vocab_size": 64, "length": 5}, topology={"kind": "ring"})
    ...     .population(agent="symbolic", members=10)
    ...     .env_runners(num_worlds_per_env_runner=4))
    >>> config.layout.num_agents
    10

    Settings of PPO start where agents learned to talk (docs/learning_to_talk.md): many small steps, and an entropy
    bonus that keeps listeners trying. A unit of its own: `minibatch_size` and `train_batch_size_per_learner` count
    worlds (rows of a fragment), and the latter follows from the runners and their worlds.
    """

    # PopulationPPO, which names itself here: it stands on this.
    algorithm: ClassVar[type | None] = None

    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class or self.algorithm)
        self.env_runner_cls = PopulationEnvRunner

    # ---- chained methods ----

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
    ) -> PopulationPPOConfig:
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
    ) -> PopulationPPOConfig:
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
    ) -> PopulationPPOConfig:
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
    ) -> PopulationPPOConfig:
        """Let members be born, reproduce and die, in one training: selection on the member axis (popcomm.evolution).

        Args:
            strategy: who has children and who is replaced: a Strategy, or a mapping such as {"kind": "top_k", "k": 20};
                kinds are "top_k", "truncation", "tournament", "age_limit" and "novelty", or "module:Class". None:
                nobody. Species with one member, and those that do not learn, are not selected.
            every: iterations of a generation.
            fitness: a measure of members (`popcomm.rllib.member_statistics.MEASURES`): "return", its mean over those
                whom a member met; "shared_return", of all seats of its worlds; "reward", of a step; of talk "success",
                "listening", "influence", "message_entropy" and "agreement". Or a function, or "module:function",
                {measure: [P]} -> [P].
            smoothing: of a member's fitness over the generations that it lived, in [0, 1): m <- s m + (1 - s) x.
            mutation_std: of the Gaussian noise that children's weights get, as a share of each tensor's own size.
            crossover: probability that a tensor of a child is that of a second parent.
            newborns: what children begin with: "copy", their parent's weights; "fresh", new ones; "imitate", new ones,
                and their parent teaches them. None: as the strategy says, "fresh" of an age limit and "copy" of others.
            lessons: iterations in which newborns that imitate are taught.
            hyperparameters: {"lr" or "entropy_coeff": [lowest, highest]}: each member has its own, a multiple of the
                setting within these bounds, which children inherit and perturb.
            perturbation: factor by which a child's is above or below its parent's.
            within: "species", or "communities": children take the places of their own community alone.
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

    def training(
        self,
        *,
        learn_from: str = NotProvided,
        lr: BySpecies[float | list[list[int | float]]] = NotProvided,
        gamma: BySpecies[float | None] = NotProvided,
        lambda_: BySpecies[float] = NotProvided,
        clip_param: BySpecies[float] = NotProvided,
        vf_loss_coeff: BySpecies[float] = NotProvided,
        vf_clip_param: BySpecies[float] = NotProvided,
        grad_clip: BySpecies[float | None] = NotProvided,
        grad_clip_by: BySpecies[str] = NotProvided,
        quality_coeff: BySpecies[float | None] = NotProvided,
        message_balance_coeff: BySpecies[float | None] = NotProvided,
        message_kl_coeff: BySpecies[float] = NotProvided,
        message_sharpness: BySpecies[float | None] = NotProvided,
        normalize_returns: BySpecies[bool] = NotProvided,
        entropy_coeff: BySpecies[float | list[list[int | float]]] = NotProvided,
        rare_action_share: BySpecies[float | None] = NotProvided,
        entropy_over_worlds: BySpecies[float | None] = NotProvided,
        message_entropy_coeff: BySpecies[float] = NotProvided,
        loss_schedules: Mapping[str, object] | None = NotProvided,
        federated: Mapping[str, object] | None = NotProvided,
        **kwargs: object,
    ) -> PopulationPPOConfig:
        """PPO's settings are RLlib's; `minibatch_size` counts worlds per learner (None: 32, `worlds_in_minibatch`).

        All of those here but `learn_from`, `loss_schedules` and `federated` are one value for all, or {species: value,
        "default": value}.

        `vf_clip_param` is infinite: RLlib's 10 is meant for raw returns, and of normalised ones it would hide whatever
        lies more than 3.2 deviations off. Its unit is that of the squared error: variances of the returns with
        `normalize_returns`, else rewards squared.

        Args:
            learn_from: "rewards", or "answers" where the world knows the right actions of a species (signalling games
                do): its actions are then learned from them by cross-entropy, as EGG trains receivers, and in steps
                that call for an answer the reward of all is the log-probability (nats) of the right ones.
            normalize_returns: let value networks predict returns normalised by each member's running statistics.
            entropy_coeff: weight of the actions' entropy (nats), or RLlib's schedule of it: [environment steps, weight]
                pairs, from step 0 on.
            rare_action_share: share of it, 0 to 1, that pulls at actions that are about to be ruled out
                (`popcomm.agents.openness`): the gradient of the entropy fades with the probability of an action, this
                one does not, and an action that was wrong before anybody spoke is tried again. None: 1.
            entropy_over_worlds: share of it, 0 to 1, that is for the entropy of what a member does in a step on a seat
                in all worlds together (`popcomm.rllib.exploration`), and not in each: all actions are tried, and each
                may follow what was heard none the less. None: 0.5 where one of several actions is chosen and messages
                are heard, else 0.
            message_entropy_coeff: weight of the entropy bonus of messages (nats of a whole message).
            loss_schedules: {loss: schedule}, by how much its weight is multiplied while training goes on, e.g.
                {"message_cost": {"kind": "linear", "begin": 0, "end": 100000, "start": 0, "stop": 1}} for symbols that
                cost nothing at first. Losses of the network's own, and "quality", "message_balance",
                "message_sharpness", "message_kl" and "message_entropy", those alone that have a weight.
            quality_coeff: weight of the squared error of a head that predicts the return of the action taken (in the
                units of normalised returns); its gradient tells senders what helped (`popcomm.agents.quality`). None:
                0.5 where messages carry gradients and the agent gives "features", and 0 elsewhere.
            message_balance_coeff: weight of the entropy (nats) of what a member says in a step on a seat, averaged over
                worlds, and of a pull at symbols that are hardly said (`popcomm.rllib.balance`): no symbol
                stays unused. None: 0.1 where messages are learned and can be counted, else 0.
            message_sharpness: share of that weight, 0 to 1, that goes to a low entropy of what is said in each world,
                so that a message says something. At 1 both together are the information of messages on what the sender
                knows, and senders name anything at all before anyone asked. None: 0.1.
            message_kl_coeff: weight of the divergence (nats) of what is said from what was said when it was sampled.
            federated: members learn apart, and every few iterations all of a species go on from the mean of their
                weights (`popcomm.rllib.federated`): {"every": iterations, "clip": L2 norm of a member's update, in the
                units of the weights, "epsilon": e, "delta": d, "rounds": how many there will be}. With the last three
                every member adds noise to its own update, so that all its updates together are (e, d)-private
                (docs/privacy.md); without, they are published as they are, and without "clip" as long as they are. All
                begin with the weights of the first. Species of one member are left out. None: nobody is averaged.
        """
        given = {key: value for key, value in locals().items() if key in LEARNING and value is not NotProvided}
        check_names(type(self), "training", kwargs)
        for_all = self._apart(given)
        super().training(**kwargs, **{key: for_all.pop(key) for key in RLLIBS if key in for_all})
        return self._set(learn_from=learn_from, loss_schedules=loss_schedules, federated=federated, **for_all)

    def _apart(self, given: Mapping[str, object]) -> dict[str, object]:
        """Keep what differs between species; returns {setting: value} of what holds for all, or for the rest."""
        apart = {key: value for key, value in given.items() if is_by_species(value)}
        kept = {key: values for key, values in self.learning_by_species.items() if key not in given}
        self._set(learning_by_species=kept | apart, _per_module_overrides={})
        for_all = {key: value for key, value in given.items() if key not in apart}
        return for_all | {key: values[DEFAULT] for key, values in apart.items() if DEFAULT in values}

    def env_runners(
        self,
        *,
        num_worlds_per_env_runner: int = NotProvided,
        step_timeout_s: float | None = NotProvided,
        overlap: bool = NotProvided,
        **kwargs: object,
    ) -> PopulationPPOConfig:
        """Rollouts.

        Args:
            num_worlds_per_env_runner: B, copies of the environment stepped together by each runner.
            step_timeout_s: seconds after which a step of all of them counts as hanging, and is interrupted with an
                error that names it (`popcomm.rllib.step_limit`). None: never; what hangs in a remote runner is then
                found when nothing came of it in `sample_timeout_s`.
            overlap: let remote runners sample the next fragment while the learners update from the last one
                (`popcomm.rllib.overlap`). They then act with weights that are one update old, which PPO's ratio
                corrects. Where a generation of `survival` ends nothing is sampled ahead. Not with `num_env_runners` 0,
                autocast, or networks that grow.
        """
        check_names(type(self), "env_runners", kwargs)
        super().env_runners(**kwargs)
        return self._set(
            num_worlds_per_env_runner=num_worlds_per_env_runner, step_timeout_s=step_timeout_s, overlap=overlap
        )

    def acceleration(
        self, autocast: str | None = NotProvided, tf32: bool = NotProvided, compile: bool = NotProvided
    ) -> PopulationPPOConfig:
        """What makes learners faster on a GPU; all off by default.

        Args:
            autocast: "bf16" runs the networks' forward passes in bfloat16.
            tf32: let matrix products of float32 use TensorFloat-32.
            compile: torch.compile the networks.
        """
        return self._set(autocast=autocast, tf32=tf32, compile_agents=compile)

    def evaluation(self, *, evaluation_config: Mapping[str, object] | None = NotProvided, **kwargs: object) -> Self:
        """RLlib's evaluation: every `evaluation_interval` iterations, `evaluation_duration` whole episodes apart from
        those of training, the same ones each time (`popcomm.rllib.evaluating`).

        Args:
            evaluation_config: "explore", where False takes the likeliest actions and messages; "env_config", keys that
                differ from those of training.
        """
        check_names(type(self), "evaluation", kwargs)
        return super().evaluation(evaluation_config=evaluation_config, **kwargs)

    def fault_tolerance(
        self, *, max_empty_iterations: int = NotProvided, max_nonfinite_updates: int = NotProvided, **kwargs: object
    ) -> PopulationPPOConfig:
        """What to endure.

        Args:
            max_empty_iterations: iterations in a row without any sample before training stops with an error.
            max_nonfinite_updates: updates in a row in which no member of a species has a finite gradient, before it
                does. Members without one are left out of an update, and the others learn.
        """
        check_names(type(self), "fault_tolerance", kwargs)
        super().fault_tolerance(**kwargs)
        return self._set(max_empty_iterations=max_empty_iterations, max_nonfinite_updates=max_nonfinite_updates)

    def recording(
        self,
        run_dir: str | None = NotProvided,
        conversation_every: int = NotProvided,
        conversation_worlds: int = NotProvided,
        picture_every: int = NotProvided,
        checkpoint_every: int = NotProvided,
        keep_checkpoints: int | None = NotProvided,
        importance_every: int = NotProvided,
        metrics: Sequence[str] = NotProvided,
    ) -> PopulationPPOConfig:
        """What to write. Intervals are iterations; 0 is never.

        Args:
            run_dir: the run folder; None writes nothing. Under tune.Tuner every trial writes into its own folder,
                that of its Result.
            conversation_every: write what was said since the last time, every step once: of each world the last 256
                steps at most, so longer intervals leave gaps.
            conversation_worlds: worlds whose conversations are written, the first ones of the first runner.
            picture_every: draw pictures for TensorBoard.
            checkpoint_every: how often `popcomm train` saves a checkpoint; one at its end in any case.
            keep_checkpoints: how many it keeps, the newest ones, and the last one that verifies in any case. None: all.
                With `checkpoint_every` 0 there is one of each time that it was resumed.
            importance_every: ask, in `conversation_worlds` worlds of the first runner, what listeners would have done
                without each message, and with what its sender would have said otherwise, for as long as a fragment
                (`language/importance`, and of each pair of seats or species without; `popcomm.rollout.importance`).
            metrics: of `popcomm language`, such as ["topographic_similarity"], as `language/<metric>`: of at most 500
                messages of the first runner, each as often as all of them together cost 3 % of the time.
        """
        return self._set(
            run_dir=None if run_dir is None else run_dir if run_dir is NotProvided else str(run_dir),
            conversation_every=conversation_every,
            conversation_worlds=conversation_worlds,
            picture_every=picture_every,
            checkpoint_every=checkpoint_every,
            keep_checkpoints=keep_checkpoints,
            importance_every=importance_every,
            language_metrics=metrics,
        )

    def _set(self, **values: object) -> PopulationPPOConfig:
        for name, value in values.items():
            if value is not NotProvided:
                setattr(self, name, value)
        return self

    # ---- what follows ----

    @property
    def plan(self) -> Plan:
        """What follows from the settings as they are now."""
        return plan_of(self)

    @property
    def message_kind(self) -> MessageKind | None:
        """The kind of message that is sent in training, or None."""
        return messages_of(self)

    # ---- what RLlib asks for ----

    def get_default_learner_class(self) -> type[PopulationPPOLearner]:
        return PopulationPPOLearner

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=PopulationRLModule)

    def get_multi_rl_module_spec(
        self, *, env: object = None, spaces: object = None, inference_only: bool = False, **kwargs: object
    ) -> MultiRLModuleSpec:
        """One RLModule per species. What `.rl_module(rl_module_spec=...)` says of where to load weights is kept."""
        specs, plan, paths = {}, plan_of(self), load_paths(self)
        for index, (name, species) in enumerate(plan.species.items()):
            scales, taught = {}, False
            if plan.survival is not None and name in plan.survival.strategies:
                scales = first_scales(plan.survival, species.members, self.seed, index)
                taught = plan.survival.begin_with(name) == IMITATE
            specs[name] = RLModuleSpec(
                module_class=PopulationRLModule,
                observation_space=species.species.observation_space,
                action_space=species.species.action_space,
                model_config={
                    "spec": species.spec,
                    "agent": species.agent_class,
                    "agent_config": dict(species.agent_config),
                    "critic": species.critic,
                    "quality": species.quality_weight > 0,
                    "seed": seed_of(self.seed, MODULE_BRANCH, index),
                    "scales": scales,
                    "taught": taught,
                    "links": links_of(plan, name),
                },
                load_state_path=paths.get(name),
            )
        return MultiRLModuleSpec(multi_rl_module_class=PopulationMultiRLModule, rl_module_specs=specs)

    def get_evaluation_config_object(self) -> Self | None:
        """RLlib's copy for its evaluation runners, whose worlds stay those of training: an evaluation makes its own."""
        config = super().get_evaluation_config_object()
        if config is not None:
            config.env_config = self.env_config
        return config

    def validate(self) -> None:
        """Check everything before any work starts.

        Raises:
            UserError: in one sentence, the key, its value, and what is allowed.
        """
        plan = validation.check(self)
        self.filled_in = filled_in(self, plan)
        self._set(**self.filled_in)
        super().validate()

    def validate_train_batch_size_vs_rollout_fragment_length(self) -> None:
        """RLlib compares env steps here; a batch of whole worlds is what the runners sample by construction."""

    def get_rollout_fragment_length(self, worker_index: int = 0) -> int:
        return self.rollout_fragment_length
