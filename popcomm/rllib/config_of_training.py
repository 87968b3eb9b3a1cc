"""The config's methods that say how populations are trained: losses, runners, what is endured and what is written down.

A section of a YAML file is one of them, and its keys are the method's keyword arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from ray.rllib.algorithms.algorithm_config import NotProvided
from typing_extensions import Self

from popcomm.envs.species import DEFAULT
from popcomm.rllib.by_species import LEARNING, RLLIBS, BySpecies, is_by_species
from popcomm.rllib.config_of_populations import ConfigOfPopulations
from popcomm.rllib.population_checks import check_trained
from popcomm.rllib.unsupported import check_names


class ConfigOfTraining(ConfigOfPopulations):
    """The same with methods to choose how it is trained."""

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
        entropy_over_worlds: BySpecies[float] = NotProvided,
        message_entropy_coeff: BySpecies[float] = NotProvided,
        loss_schedules: Mapping[str, object] | None = NotProvided,
        federated: Mapping[str, object] | None = NotProvided,
        joint_critic: bool | Mapping[str, object] | None = NotProvided,
        **kwargs: object,
    ) -> Self:
        """PPO's settings are RLlib's; `minibatch_size` counts worlds per learner (None: 32, `worlds_in_minibatch`).

        All of those here but `learn_from`, `loss_schedules`, `federated` and `joint_critic` are one value for all, or
        {species: value, "default": value}.

        `vf_clip_param` is infinite: RLlib's 10 is meant for raw returns, and of normalised ones it would hide whatever
        lies more than 3.2 deviations off. Its unit is that of the squared error: variances of the returns with
        `normalize_returns`, else rewards squared.

        Args:
            learn_from: "rewards", or "answers" where the world knows the right actions of a species (signalling games
                do): its actions are then learned from them by cross-entropy, as EGG trains receivers, and in steps
                that call for an answer the reward of all is the log-probability (nats) of the right ones.
            normalize_returns: let value networks predict returns normalised by each member's running statistics. It may
                be another one when training is resumed: what they predict stays the same, in the other units.
            entropy_coeff: weight of the actions' entropy (nats), or RLlib's schedule of it: [environment steps, weight]
                pairs, from step 0 on.
            rare_action_share: share of it, 0 to 1, that pulls at actions that are about to be ruled out
                (`popcomm.agents.openness`): the gradient of the entropy fades with the probability of an action, this
                one does not, and an action that was wrong before anybody spoke is tried again. None: 1.
            entropy_over_worlds: share of it, 0 to 1, that is for the entropy of what a member does in a step on a seat
                in all worlds together (`popcomm.rllib.exploration`), and not in each: all actions are tried, and each
                may follow what was heard none the less. Where two kinds share a word it parted them, and it solved no
                more small games on the whole (docs/learning_to_talk.md).
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
                knows, and senders name anything at all before anyone asked. None: 0.1; where symbols carry gradients
                (relaxed, straight_through) it rises to 0.6 between the learner's updates 200 and 600, unless
                `loss_schedules` has another rise: who is still deaf by then has something to begin with.
            message_kl_coeff: weight of the divergence (nats) of what is said from what was said when it was sampled.
            federated: members learn apart, and every few iterations all of a species go on from the mean of their
                weights (`popcomm.rllib.federated`): {"every": iterations, "clip": L2 norm of a member's update, in the
                units of the weights, "epsilon": e, "delta": d, "rounds": how many there will be}. With the last three
                every member adds noise to its own update, so that all its updates together are (e, d)-private
                (docs/privacy.md); without, they are published as they are, and without "clip" as long as they are. All
                begin with the weights of the first. Species of one member are left out. None: nobody is averaged.
            joint_critic: true, or a mapping with some of {"weight": 1, "temperature": 0.3, "lr": 0.004, "epochs": 4,
                "hidden": 64}: a critic that sees what all seats saw and do learns what each action of each would have
                been worth, and policies are drawn towards softmax(Q / temperature) (`popcomm.rllib.joint_learning`):
                listeners are told what they should have done, and by their gradients senders what to say. For Discrete
                actions; temperature is in deviations of the returns. It has no part in play. None: there is none.
        """
        given = {key: value for key, value in locals().items() if key in LEARNING and value is not NotProvided}
        check_names(type(self), "training", kwargs)
        for_all = self._apart(given)
        super().training(**kwargs, **{key: for_all.pop(key) for key in RLLIBS if key in for_all})
        return self._set(
            learn_from=learn_from,
            loss_schedules=loss_schedules,
            federated=federated,
            joint_critic=joint_critic,
            **for_all,
        )

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
    ) -> Self:
        """Rollouts.

        Args:
            num_worlds_per_env_runner: B, copies of the environment stepped together by each runner.
            step_timeout_s: seconds after which a step of all of them counts as hanging, and is interrupted with an
                error that names it (`popcomm.rllib.step_limit`). None: never; what hangs in a remote runner is then
                found when nothing came of it in `sample_timeout_s`.
            overlap: let remote runners sample the next fragment while the learners update from the last one
                (`popcomm.rllib.overlap`). They then act with weights that are one update old, which costs return
                where updates are large (docs/overlap.md). Where a generation of `survival` ends nothing is sampled
                ahead. Not with `num_env_runners` 0, autocast, or networks that grow.
        """
        check_names(type(self), "env_runners", kwargs)
        super().env_runners(**kwargs)
        return self._set(
            num_worlds_per_env_runner=num_worlds_per_env_runner, step_timeout_s=step_timeout_s, overlap=overlap
        )

    def acceleration(
        self, autocast: str | None = NotProvided, tf32: bool = NotProvided, compile: bool = NotProvided
    ) -> Self:
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
    ) -> Self:
        """What to endure.

        Args:
            max_empty_iterations: iterations in a row without any sample before training stops with an error.
            max_nonfinite_updates: updates in a row in which no member of a species has a finite gradient, before it
                does. Members without one are left out of an update, and the others learn.
        """
        check_names(type(self), "fault_tolerance", kwargs)
        super().fault_tolerance(**kwargs)
        return self._set(max_empty_iterations=max_empty_iterations, max_nonfinite_updates=max_nonfinite_updates)

    def multi_agent(
        self, *, policies_to_train: Collection[str] | Callable[..., bool] | None = NotProvided, **kwargs: object
    ) -> Self:
        """RLlib's; its policies are the species.

        Args:
            policies_to_train: the species that learn, ["listener"], or a function from a species and RLlib's batch to
                whether it does. None: all.
        """
        if policies_to_train is not NotProvided:
            check_trained(policies_to_train)
        check_names(type(self), "multi_agent", kwargs)
        super().multi_agent(policies_to_train=policies_to_train, **kwargs)
        return self

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
    ) -> Self:
        """What to write. Intervals are iterations; 0 is never.

        Args:
            run_dir: the run folder; None writes nothing. It belongs to one algorithm at a time, until its `stop()`.
                Under tune.Tuner every trial writes into its own folder, that of its Result.
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
