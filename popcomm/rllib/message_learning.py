"""How messages are learned with: what a config asks for, held against what its kind of message knows."""

from __future__ import annotations

import logging
from typing import Any

import torch

from popcomm.agents import AGENTS
from popcomm.channels import Channel, message_kind
from popcomm.channels.kinds import gradients_of
from popcomm.channels.messages import reparameterised
from popcomm.checks import one_of
from popcomm.errors import UserError
from popcomm.rllib.drafts import draft_of
from popcomm.rllib.plan import Plan, gate_of
from popcomm.rllib.settings import Settings

logger = logging.getLogger(__name__)

CREDITS = ("step", "next", "receivers", "counterfactual")


def check_gradient(messages: Any, plan: Plan) -> None:
    """Whether senders can learn as it is planned.

    Args:
        messages: as the config names the kind, which says what it knows.

    Raises:
        UserError: the kind does not know the gradient, or lacks what it asks for.
    """
    kind = message_kind(messages)
    if kind is None or plan.message_kind is None:
        return
    known = gradients_of(kind)
    if plan.gradient not in known:
        hint = "" if len(known) > 1 else " (a class of your own names what else it knows in `gradients`)"
        raise UserError(
            f"communication.gradient is {plan.gradient!r}, and for {kind.kind} must be one of: {', '.join(known)}{hint}"
        )
    said = plan.message_kind  # in training; of "relaxed" another one
    gradients_of(said)
    noise = 0.0 if plan.channel is None else plan.channel.noise
    if noise and plan.carries_gradients and reparameterised(said) and not hasattr(said, "transmitted_again"):
        raise UserError(
            f"communication.noise is {noise}, and {said.kind} have no 'transmitted_again', by which messages are "
            "made anew that a noisy channel changed; use 0"
        )


def check_credit(settings: Settings, plan: Plan) -> None:
    """Whether messages that are learned as actions get any credit, and get it for what they did."""
    chosen = settings.message_credit
    if chosen is not None:
        one_of("communication.credit", chosen, CREDITS)
    if plan.message_kind is None:
        return
    if plan.gradient != "reinforce":
        if chosen not in (None, "step"):
            raise UserError(
                f"communication.credit is '{chosen}', and communication.gradient is '{plan.gradient}', under which "
                "messages are no actions; use gradient 'reinforce', or leave credit out"
            )
        return
    for credit in sorted({species.credit for species in plan.species.values() if species.species.speaks}):
        _check_one_credit(credit, settings, plan)


def _check_one_credit(credit: str, settings: Settings, plan: Plan) -> None:
    rounds = plan.channel.rounds if plan.channel is not None else 0
    if rounds and credit in ("next", "counterfactual"):
        raise UserError(
            f"communication.credit is '{credit}', which looks one step ahead, and in communication.rounds = {rounds} a "
            "message is heard in the step in which it is said; use 'step' or 'receivers'"
        )
    if (
        not rounds
        and settings.message_credit not in (None, "next", "counterfactual")
        and any(s.settings.gamma == 0 for s in plan.species.values() if s.species.speaks)
    ):
        raise UserError(
            f"training.gamma is 0, and under communication.credit '{credit}' messages, heard one step later, then get "
            "no credit; use credit 'next' or a gamma above 0"
        )
    if credit == "step":
        return
    cost = settings.env_config.get("message_cost")
    if cost:
        raise UserError(
            f"communication.credit is '{credit}', which does not count environment.env_config.message_cost = {cost}; "
            "use 'step'"
        )
    _check_price_of_silence(credit, plan)
    # RLlib derives a config for evaluation, with fragments of one step, and validates it whether it evaluates or not.
    if not rounds and settings.rollout_fragment_length < 2 and not settings.in_evaluation:
        raise UserError(
            f"env_runners.rollout_fragment_length is 1, and communication.credit '{credit}' looks one step ahead: at "
            "least 2"
        )
    if credit in ("receivers", "counterfactual") and plan.routed:
        raise UserError(
            f"communication.credit is '{credit}', and through topology routed nobody hears a message of its own; use "
            "'step' or 'next'"
        )
    if credit == "counterfactual":
        _check_asked(f"communication.credit is '{credit}'", plan, "use 'step' or 'next'")


def _check_price_of_silence(credit: str, plan: Plan) -> None:
    """Where silence is one of the messages, what it spares is its sender's, in the step in which it is said."""
    kind = plan.message_kind
    if plan.channel is None or kind is None or bool(kind.spoken(torch.zeros(1, *kind.shape, dtype=kind.dtype)).all()):
        return
    for key, price in _prices(plan.channel).items():
        raise UserError(
            f"communication.credit is '{credit}', which does not count communication.{key} = {price}, that silence "
            f"among {kind.kind} spares; use 'step'"
        )


def _check_asked(what: str, plan: Plan, instead: str) -> None:
    """Whether listeners can be asked about single messages."""
    for name, species in plan.species.items():
        if species.spec.hears and getattr(species.agent_class, "collective", False):
            raise UserError(
                f"{what}, and the {species.agent_class.__name__} of species '{name}' is one network of all seats, "
                f"whose seats cannot be asked apart; {instead}"
            )


def check_gates(settings: Settings, plan: Plan) -> None:
    """Whether networks have the gates that are asked for, and their decisions something to learn from."""
    channel = plan.channel
    if channel is None or not (channel.gates.names or channel.budget.ranks):
        return
    gate, budget = _gate_told(settings), f"communication.budget is {settings.channel_budget!r}"
    # What a receiver's gate lets in is no decision: of priorities beside one the budget asks.
    decision = gate if channel.gates.sender else budget
    if getattr(channel.messages, "mechanism", None) is not None and (channel.gates.sender or channel.budget.ranks):
        raise UserError(
            f"{decision}, and whether a sender speaks and how urgently tells of what it saw, which messages.privacy "
            "does not hide; use a gate of the receiver, or leave privacy out"
        )
    for name, species in plan.species.items():
        if not getattr(species.agent_class, "gates_messages", False):
            able = " or ".join(repr(known) for known, one in AGENTS.items() if getattr(one, "gates_messages", False))
            raise UserError(
                f"{gate if channel.gates.names else budget}, and population.agent {species.agent_class.__name__} of "
                f"species '{name}' has no gates; use {able}"
            )
        decides = species.species.speaks and (channel.gates.sender or channel.budget.ranks)
        if decides and species.settings.gamma == 0 and not channel.rounds:
            raise UserError(
                f"training.gamma is 0, and {decision}, so that a decision to speak, heard one step later, gets no "
                "credit; use a gamma above 0, or communication.rounds"
            )
        alone = species.speaks_by_reinforce and getattr(species.species.action_space, "n", 0) == 1
        if alone and species.credit == "next":
            _check_no_price(name, channel)
    if channel.gates.sender and channel.rounds > 1 and plan.gradient == "reinforce":
        raise UserError(
            f"{gate}, and with communication.gradient 'reinforce' the messages of communication.rounds = "
            f"{channel.rounds} are one decision, which is not made where one of them is not said; use another gradient"
        )
    if settings.learn_from == "answers" and _prices(channel):
        priced = gate if channel.gates.price else budget
        raise UserError(f"{priced}, and training.learn_from 'answers' replaces the rewards that a price is taken from")


def _gate_told(settings: Settings) -> str:
    told = f"communication.gate is {gate_of(settings)!r}"
    return told if settings.channel_gate is not None else f"{told} where it is left out ('none' takes it away)"


def _check_no_price(species: str, channel: Channel) -> None:
    """Raises UserError: those who have one action are charged for messages in a step that credit 'next' leaves out."""
    for key, price in _prices(channel).items():
        raise UserError(
            f"communication.credit is 'next', which for species '{species}' with its one action does not count "
            f"communication.{key} = {price}; use 'step'"
        )


def _prices(channel: Channel) -> dict[str, float]:
    """{key: what is charged for messages}, those that are."""
    each = {"gate.price": channel.gates.price, "budget.price": channel.budget.price}
    return {key: price for key, price in each.items() if price}


def check_importance(settings: Settings, plan: Plan) -> None:
    """Whether there is somebody to be asked how much messages matter."""
    every = settings.importance_every
    if not every:
        return
    if plan.message_kind is None:
        logger.warning("recording.importance_every: nobody speaks here, so there is nothing to measure")
        return
    what = f"recording.importance_every is {every}"
    if not settings.conversation_worlds:
        raise UserError(f"{what}, and recording.conversation_worlds is 0, so there is no world to ask in; at least 1")
    if plan.channel is not None and plan.channel.rounds:
        raise UserError(f"{what}, and communication.rounds is {plan.channel.rounds}, in which it is not known; use 0")
    if plan.routed:
        raise UserError(f"{what}, and through topology routed nobody hears a message of its own; leave it out")
    _check_asked(what, plan, "leave it out")


def check_relaxed(plan: Plan) -> None:
    """Whether networks speak in points of the simplex: constructors say so, here without memory for weights."""
    if plan.gradient != "relaxed" or plan.message_kind is None:
        return
    for species in plan.species.values():
        draft_of(species)
