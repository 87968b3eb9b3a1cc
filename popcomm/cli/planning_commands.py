"""popcomm channel | check-env | list: what is asked before a training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from popcomm.cli.options import check_writable
from popcomm.errors import UserError

WRONG = 1  # exit code where something is wrong with an environment


def channel(
    topology: Annotated[str, typer.Option(help="Who hears whom: full, ring, k_nearest, star.")] = "full",
    agents: Annotated[int, typer.Option(min=1, max=2000, help="N, in a world.")] = 10,
    k: Annotated[int | None, typer.Option(help="Others that an agent hears (ring, k_nearest).")] = None,
    feedback: Annotated[bool, typer.Option(help="Whether a sender hears itself (immediate_feedback).")] = True,
    bits: Annotated[int, typer.Option(help="Bits of a word.")] = 32,
    min_on: Annotated[int, typer.Option(help="Fewest bits of a word that are on.")] = 7,
    max_on: Annotated[int, typer.Option(help="Most bits of a word that are on.")] = 9,
    rule: Annotated[str, typer.Option(help="Who repeats: local_rule, bernoulli, per_agent.")] = "local_rule",
    target: Annotated[float | None, typer.Option(help="R of local_rule (default: 0.5).")] = None,
    p: Annotated[
        str | None,
        typer.Option(metavar="P[,P...]", help="Probability of bernoulli, or one of each agent of per_agent."),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="New words a step from all agents (default: N, one from each).")
    ] = None,
    publish: Annotated[float, typer.Option(help="New words a step that are published to all.")] = 0.0,
    loss: Annotated[float, typer.Option(help="Chance of a step with more than the log or an inbox holds.")] = 0.001,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the positions (k_nearest; default: 0).")] = None,
    plot: Annotated[Path | None, typer.Option(help="The PNG to write: survival and load.")] = None,
) -> None:
    """Design a channel of words: do repeated words die out, what load do they make, how large must log and inbox be."""
    from rich.console import Console

    from popcomm.cli import channel as design

    if plot is not None:
        check_writable(plot, "--plot", ".png")
    audience = design.Graph.of(topology, agents, k, feedback, seed or 0)
    if seed is not None and topology != "k_nearest":
        raise UserError(f"--seed {seed} is of the positions of k_nearest; {topology} has none")
    repetition = design.Repetition.of(rule, target, p, audience)
    words = {"kind": "words", "bits": bits, "min_on": min_on, "max_on": max_on}
    plan = design.plan(words, audience, repetition, agents if rate is None else rate, publish, loss)
    design.print_plan(plan, Console(highlight=False))
    if plot is not None:
        from popcomm.cli.channel_picture import draw

        plot.write_bytes(draw(plan))
        typer.echo(f"{plot}: survival of a word, and the tail of the load")


def check_env(
    environment: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:ATTRIBUTE", help="What makes a PettingZoo ParallelEnv; or vmas:NAME, gymnasium:ID."
        ),
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A key of its env_config; may be given often."),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each trial; more than an episode has.")] = 200,
    worlds: Annotated[int | None, typer.Option(min=1, help="Copies in training (default: 16).")] = None,
    iterations: Annotated[int, typer.Option(min=0, help="Of the training that is timed; 0: no training.")] = 3,
) -> int:
    """Look at an environment before training in it: what popcomm finds, what is wrong, how fast it is.

    Two copies are held against plain loops with the same seeds and actions. Exit code 1 if something is wrong.
    """
    from rich.console import Console

    from popcomm.cli import check_env as checking

    if worlds is not None and not iterations:
        raise UserError(f"--worlds {worlds} is of the training, and with --iterations 0 there is none")
    copies = checking.WORLDS if worlds is None else worlds
    found = checking.check(environment, checking.env_config_of(settings or []), steps, copies, iterations)
    checking.print_check(environment, found, Console(highlight=False))
    return WRONG if found.wrong else 0


def list_(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One of them: what it is made from, with the defaults.")
    ] = None,
) -> None:
    """List environments, agents, message kinds, topologies, reflexes and the configs that ship with popcomm."""
    from rich.console import Console

    from popcomm.cli.listing import print_listing, print_name

    console = Console(highlight=False)
    if name is None:
        print_listing(console)
    else:
        print_name(console, name)
