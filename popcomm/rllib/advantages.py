"""What decisions of an iteration were worth: advantages, value targets, and what messages are credited with."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from popcomm.rllib.counterfactual import add_counterfactual_credit
from popcomm.rllib.credit import add_receivers_credit
from popcomm.rllib.estimates import of_messages, of_steps, with_a_next_step
from popcomm.rllib.fragment import Fragment
from popcomm.rllib.graph import graph_of, strengths_of
from popcomm.rllib.module import PopulationRLModule
from popcomm.rllib.plan import Plan, SpeciesPlan
from popcomm.rllib.ppo import Reduce, a_step_later, member_moments, standardise
from popcomm.rllib.settings import Settings

Arrays = Mapping[str, Fragment[Tensor]]


def add_advantages(
    arrays: Arrays,
    settings: Settings,
    plan: Plan,
    modules: Mapping[str, PopulationRLModule],
    trained: Collection[str],
    otherwise: torch.Generator,
    reduce: Reduce,
) -> None:
    """Advantages and value targets for all worlds at once, and the statistics that normalise them; of species whose
    values nobody reads there are none.

    Args:
        arrays: {species: its fragment}, which get "advantages" and "value_targets" [B, T, N_s], "message_advantages"
            where messages have a credit of their own or are measured apart from the decision to speak, and "known"
            where what follows a step is not always.
        settings: how messages are credited, and what follows a time limit.
        plan: whose seats and members they are.
        modules: {species: its networks}.
        trained: species that learn.
        otherwise: random numbers of what senders might have said.
        reduce: sum over learners.
    """
    if settings.time_limit == "end":  # which leaves nothing to be hoped for after it
        for a in arrays.values():
            a["terminated"] = a["terminated"] | a["truncated"]
    _credit_listeners(arrays, settings.message_credit, plan, modules, otherwise, reduce)
    for name, a in arrays.items():
        if plan.species[name].spec.judged:
            _judge(a, plan.species[name], modules[name], name in trained, reduce)


def _credit_listeners(
    arrays: Arrays,
    credit: str | None,
    plan: Plan,
    modules: Mapping[str, PopulationRLModule],
    otherwise: torch.Generator,
    reduce: Reduce,
) -> None:
    """Messages that are credited with what became of those who heard them."""
    if plan.gradient != "reinforce" or plan.message_kind is None:  # in silence nobody hears anybody
        return
    if credit not in ("receivers", "counterfactual"):
        return
    estimates = [of_steps(a, plan.species[name].settings).advantages for name, a in arrays.items()]
    if credit == "receivers":
        graph = strengths_of(plan.channel, graph_of(plan.channel, plan.layout, modules))
        add_receivers_credit(arrays, estimates, plan, reduce, graph)
    else:
        add_counterfactual_credit(arrays, estimates, plan, modules, otherwise, reduce)


def _judge(a: Fragment[Tensor], plan: SpeciesPlan, module: PopulationRLModule, trained: bool, reduce: Reduce) -> None:
    """Of one species."""
    config, members, choices = plan.settings, plan.members, getattr(plan.species.action_space, "n", 0)
    later = plan.speaks_by_reinforce and plan.credit == "next"
    # Whoever has one action, or is supervised, decides by its messages alone.
    acts = "answers" not in a and choices != 1
    # Whoever has one action only brings about what its messages do: that is what its value is of.
    only_speaks = later and choices == 1
    known = with_a_next_step(a) if only_speaks else a["alive"]
    if only_speaks:
        a["known"] = known
    may_speak = known & a.get("voiced", known)
    estimate = (of_messages if only_speaks else of_steps)(a, config)
    decided = known
    if not acts and plan.spec.manners:
        # To stay silent is a decision, too.
        decided = known & (a["opens"] >= 0)
    elif not acts and plan.speaks_by_reinforce:
        decided = may_speak
    advantages = standardise(estimate.advantages, a["members"], decided, members, reduce)
    a["advantages"] = torch.where(decided, advantages, 0.0)
    a["value_targets"] = estimate.targets
    if later and not only_speaks:
        # Shifted first: what happened in a message's own step must not even set the scale of its credit.
        follows = a_step_later(torch.ones_like(a["rewards"]), a["alive"], a["first"]).bool() & may_speak
        credit = a_step_later(estimate.advantages, a["alive"], a["first"])
        credit = standardise(credit, a["members"], follows, members, reduce)
        a["message_advantages"] = torch.where(follows, credit, 0.0)
    elif not acts and plan.spec.manners and plan.speaks_by_reinforce and "message_advantages" not in a:
        # What is said is measured against what is said, and speaking against silence.
        said = standardise(estimate.advantages, a["members"], may_speak, members, reduce)
        a["message_advantages"] = torch.where(may_speak, said, 0.0)
    if config.normalize_returns and trained:
        moments = member_moments(estimate.targets, a["members"], known, members, reduce)
        module.returns.update(moments)
    elif trained:
        module.returns.stay_raw()
    # The statistics stand still until the next iteration; of raw returns there are none.
    a["targets"] = module.returns.normalise_of(estimate.targets, a["members"])
