"""The ways to talk that the learning-to-talk experiment compares."""

from __future__ import annotations

from dataclasses import dataclass

from popcomm.errors import unknown


@dataclass(frozen=True)
class Condition:
    """A way to talk.

    Args:
        title: as in the legend.
        about: as on the page.
        overrides: with $vocab, $bits and $seats of the task, and $falls and $ends, env steps between which its learning
            rate falls.
        control: without a word to understand: the bar is not asked of it.
        tasks: names of those that it is run in; None: all.
    """

    title: str
    about: str
    overrides: tuple[str, ...] = ()
    control: bool = False
    tasks: tuple[str, ...] | None = None


# Drawn symbols are said as they are trained, so that speakers must be sure of them in the end; not before the listeners
# have found out what they are about: from the start, the riddle of three stays where silence ends.
SURE_IN_THE_END = (
    "training.message_sharpness=1.0",
    "training.loss_schedules={message_sharpness: {kind: linear, begin: $falls, end: $ends, start: 0.1, stop: 1.0}}",
)

# What the agents of papers say is a part of their hidden state.
SPOKEN_STATE = (
    "communication.gradient=through",
    "population.agent_config={hidden: 64}",
    "training.message_balance_coeff=0.0",
    "training.message_sharpness=0.0",
)

CONDITIONS = {
    "relaxed": Condition(
        "relaxed",
        "the shipped config: in training symbols are points of the simplex (Gumbel-softmax)",
    ),
    "straight_through": Condition(
        "straight-through",
        "symbols that were drawn, with the gradient of their softmax; the weight of being sure of a symbol rises while "
        "learning rate and entropy fall",
        ("communication.gradient=straight_through", *SURE_IN_THE_END),
    ),
    "dru": Condition(
        "DRU",
        "DIAL's noisy channel: real numbers in training, bits in play when greedy",
        ("communication.messages={kind: dru, size: $bits}", "communication.gradient=through"),
    ),
    "vectors": Condition(
        "vectors",
        "two real numbers with normal noise of standard deviation 0.3; there are no symbols to balance",
        (
            "communication.messages={kind: vectors, size: 2, std: 0.3}",
            "communication.gradient=through",
            "training.message_balance_coeff=0.0",
            "training.message_sharpness=0.0",
        ),
    ),
    "reinforce": Condition(
        "Reinforce",
        "symbols that are learned as actions, credited with what became of those who heard them",
        ("communication.gradient=reinforce", "communication.credit=receivers"),
    ),
    "silent": Condition(
        "silent",
        "nothing is said; the network is without the parts that speak and listen, and without their losses",
        ("communication.messages=null",),
        control=True,
    ),
    "noise": Condition(
        "random messages",
        "the same network and losses, and every symbol is replaced on the way by one drawn evenly",
        ("communication.noise=1.0",),
        control=True,
    ),
    "members": Condition(
        "own weights",
        "relaxed, and each seat has weights of its own; the weight of being sure rises as in straight-through",
        ("population.members=$seats", "population.seating=fixed", *SURE_IN_THE_END),
        tasks=("switch_riddle_3", "colour_digit"),
    ),
    "commnet": Condition(
        "CommNet",
        "the agent `commnet`: the hidden state, and the mean of the others', twice within a step (K = 2 in the paper)",
        (
            "population.agent=commnet",
            "communication.messages={kind: vectors, size: 64}",
            "communication.rounds=1",
            *SPOKEN_STATE,
        ),
        tasks=("traffic_junction",),
    ),
    "ic3net": Condition(
        "IC3Net",
        "the agent `ic3net`: its hidden state goes out or not, a decision in every step",
        ("population.agent=ic3net", "communication.messages={kind: vectors, size: 64}", *SPOKEN_STATE),
        tasks=("traffic_junction",),
    ),
    "tarmac": Condition(
        "TarMAC",
        "the agent `tarmac`: values of 32 numbers, weighed by how well signatures of 16 answer the listener's query",
        ("population.agent=tarmac", "communication.messages={kind: vectors, size: 48}", *SPOKEN_STATE),
        tasks=("traffic_junction",),
    ),
    "mlp": Condition("MLP", "relaxed, with the agent `mlp`", ("population.agent=mlp", "population.agent_config={}")),
}


def condition_named(name: str) -> Condition:
    """Raises UserError: there is none."""
    if name not in CONDITIONS:
        raise unknown("--conditions", name, CONDITIONS)
    return CONDITIONS[name]
