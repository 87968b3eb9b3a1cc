"""popcomm train | sweep | submit | jobs | report | language | play | evaluate | export | channel | check-env | list.

A user's mistake is one sentence on stderr, exit code 2.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import popcomm
from popcomm.cli import cluster_commands
from popcomm.cli.ray_session import prepare_environment
from popcomm.cli.signals import INTERRUPTED, Termination
from popcomm.errors import UserError

# Commands import what they need when they run: Ray and torch take seconds, and read the environment at import.

app = typer.Typer(
    name="popcomm",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
# typer's own base of usage mistakes (an unknown option or command, a missing argument); it has no public name.
UsageError: type[Exception] = typer.BadParameter.__bases__[0]
FAILURE, USER_MISTAKE = 1, 2

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Override one value; may be given often."),
]
EnvOverrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="environment.env_config.KEY=VALUE", help="Other worlds: more seats, say; may be given often."
    ),
]
Greedy = Annotated[bool, typer.Option("--greedy", help="The likeliest actions and messages, instead of samples.")]
Population = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder, a checkpoint, or what popcomm export wrote.")
]
Trust = Annotated[
    bool,
    typer.Option("--trust", help="With --resume: read pickles in its checkpoints, too. They can run code: know whose."),
]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, as popcomm train writes it.")]


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"popcomm {popcomm.__version__}")
        raise typer.Exit


@app.callback()
def _popcomm(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version, and end.")
    ] = False,
) -> None:
    """Train populations of small agents that learn to talk, and see what language emerged."""


@app.command()
def train(
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="A YAML file, or the name of a shipped one: swarm. Not with --resume."),
    ] = None,
    overrides: Overrides = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where everything goes (default: runs/<config name>-<date-time>).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on in --run-dir, as its own config says, from the newest checkpoint.")
    ] = False,
    trust: Trust = False,
) -> int:
    """Train a population as a YAML file says."""
    from popcomm.cli import documents, run_folder

    given = overrides or []
    document, source, folder = _wanted(file, given, run_dir, resume, trust)
    notes = run_folder.not_as_in(file, folder, given) if resume and file else []
    from popcomm.cli.progress import display
    from popcomm.cli.train import run

    with documents.naming(source, given):
        summary = run(document, folder, resume, display(), notes, trust=trust)
    return INTERRUPTED if summary["interrupted"] else 0


def _wanted(
    file: str | None, overrides: list[str], run_dir: Path | None, resume: bool, trust: bool
) -> tuple[dict[str, Any], str, Path]:
    """What to do: the document, where it is from, and the folder. Told at once: neither torch nor Ray is loaded."""
    from popcomm.cli import documents, run_folder
    from popcomm.cli.ray_session import check_address

    run_folder.check_trust(trust, resume)
    if resume:
        document, config = run_folder.resumed_document(run_dir, overrides)
        source, folder = str(config), config.parent
    elif file is None:
        raise UserError("FILE is missing: a YAML file, or the name of a shipped one; or --run-dir and --resume")
    else:
        document, source = documents.load(file, overrides), file
        folder = run_dir or run_folder.default_run_dir(Path(file).stem)
    check_address()
    return document, source, folder


@app.command()
def sweep(
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="A YAML file with a section tune: model_size_sweep. Not with --resume."),
    ] = None,
    overrides: Overrides = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where everything goes (default: runs/<config name>-<date-time>).")
    ] = None,
    max_concurrent: Annotated[
        int | None, typer.Option(min=1, help="Trials at a time (default: what the file says, or the CPUs allow).")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sweep in --run-dir: the trials that are not done.")
    ] = False,
    trust: Trust = False,
) -> int:
    """Train a population for each point of a search space, with Ray Tune. Exit code 1 if a trial failed."""
    from rich.console import Console

    from popcomm.cli import documents

    given = overrides or []
    document, source, folder = _wanted(file, given, run_dir, resume, trust)
    from popcomm.cli.sweep import run

    with documents.naming(source, given):
        statuses = run(document, folder, resume, max_concurrent, Console(highlight=False), trust)
    if "interrupted" in statuses:
        return INTERRUPTED
    return FAILURE if "failed" in statuses else 0


app.command()(cluster_commands.submit)
app.add_typer(cluster_commands.jobs, name="jobs")


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="A run folder, or a sweep's; several are compared.")
    ],
    out: Annotated[Path | None, typer.Option(help="Of several: the page to write (default: comparison.html).")] = None,
) -> None:
    """Write RUN/report.html: curves, the language, conversations; of several runs, or a sweep, what differs."""
    from popcomm.analysis.comparison_report import write_comparison  # type: ignore[import-not-found]
    from popcomm.analysis.report import write_report  # type: ignore[import-not-found]
    from popcomm.analysis.sweep_report import RESULTS, write_sweep_report  # type: ignore[import-not-found]
    from popcomm.cli.run_folder import existing_run

    folders = [existing_run(run) for run in runs]
    if len(folders) > 1:
        target = out or Path("comparison.html")
        _check_writable(target, "--out", ".html")
        typer.echo(f"report: {write_comparison(folders, target)}")
        return
    if out is not None:
        raise UserError("--out is for several runs; the report of one is report.html in its folder")
    write = write_sweep_report if (folders[0] / RESULTS).is_file() else write_report
    typer.echo(f"report: {write(folders[0])}")


@app.command()
def watch(
    run: RunFolder,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Of 127.0.0.1; 0: a free one.")] = 0,
) -> None:
    """Serve RUN's report on loopback while training goes on: what is new appears by itself. Ctrl-C ends it."""
    from popcomm.analysis.watched import Watched  # type: ignore[import-not-found]
    from popcomm.analysis.watching import Server  # type: ignore[import-not-found]
    from popcomm.cli.run_folder import existing_run

    watched = Watched(existing_run(run))
    with Server(watched, port) as server:
        watched.start()
        typer.echo(f"watching {run} at {server.url} (Ctrl-C ends it)")
        sys.stdout.flush()
        server.serve_forever()


@app.command()
def language(
    source: Annotated[
        Path,
        typer.Argument(metavar="FILE_OR_RUN", help="A run folder, CSV, Parquet, JSON lines, or a dump of EGG."),
    ],
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="The JSON to write.")] = None,
    metrics: Annotated[
        list[str] | None, typer.Option("--metric", metavar="NAME", help="One of them; may be given often.")
    ] = None,
    messages: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Of messages; several: one for each position.")
    ] = None,
    meanings: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="Of meanings; several: one for each attribute.")
    ] = None,
    stream: Annotated[str | None, typer.Option(metavar="COLUMN", help="Of episodes, where rows are in time.")] = None,
    speaker: Annotated[str | None, typer.Option(metavar="COLUMN", help="Of who spoke.")] = None,
    action: Annotated[str | None, typer.Option(metavar="COLUMN", help="Of what the speaker did.")] = None,
    end_symbol: Annotated[
        int | None, typer.Option(min=0, metavar="SYMBOL", help="What ends a message; nothing behind it was said.")
    ] = None,
    lexicon: Annotated[Path | None, typer.Option(metavar="FILE", help="The CSV of all words to write.")] = None,
    exports: Annotated[
        list[Path] | None,
        typer.Option("--export", metavar="FILE", help="The corpus to write: .jsonl (XferBench) or .parquet."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of samples and controls.")] = 0,
) -> None:
    """Measure the language of a run or a corpus: what it tells, how it is built, who speaks it, beside chance."""
    from rich.console import Console

    from popcomm.cli import language as measuring
    from popcomm.language.corpora import Columns

    if json_file is not None:
        _check_writable(json_file, "--json", ".json")
    if lexicon is not None:
        _check_writable(lexicon, "--lexicon", ".csv")
    for file in exports or ():
        measuring.check_writable(file)
    columns = Columns(messages or (), meanings or (), stream, speaker, action)
    corpus = measuring.read_corpus(source, columns, end_symbol)
    if lexicon is not None and corpus.meanings is None:
        raise UserError(f"--lexicon needs meanings, and '{source}' has none")
    for file in exports or ():
        typer.echo(f"{file}: {measuring.write_corpus(corpus, file):,} rows")
    rows, left_out = measuring.measure(corpus, metrics, seed)
    measuring.print_language(corpus, rows, left_out, Console(highlight=False), words=not metrics)
    if json_file is not None:
        json_file.write_text(measuring.as_json(str(source), corpus, rows, left_out, seed), encoding="utf-8")
        typer.echo(f"{json_file}: all numbers")
    if lexicon is not None:
        measuring.write_lexicon(corpus, lexicon)
        typer.echo(f"{lexicon}: all messages with their meanings")


@app.command()
def play(
    run: Population,
    gif: Annotated[Path | None, typer.Option(help="An animated GIF to write, the messages drawn and told.")] = None,
    steps: Annotated[int, typer.Option(min=1, help="Environment steps to show.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of the episode.")] = 0,
    greedy: Greedy = False,
    overrides: EnvOverrides = None,
) -> None:
    """Let a trained population act in one world, and show what is said, symbol by symbol, and who hears it."""
    from popcomm.cli import playing
    from popcomm.cli.released import env_config_of, released

    if gif is not None:
        _check_writable(gif, "--gif", ".gif")
    with released(run) as population:
        shown = playing.moments(population, steps, seed, greedy, env_config_of(overrides), draw=gif is not None)
        playing.show(shown, gif, typer.echo)


@app.command()
def evaluate(
    run: Population,
    episodes: Annotated[int, typer.Option(min=1, help="Whole episodes, apart from those of training.")] = 100,
    greedy: Greedy = False,
    overrides: EnvOverrides = None,
    messages: Annotated[
        str, typer.Option(metavar="on|off|noise|shuffled", help="What becomes of what is said.")
    ] = "on",
    seed: Annotated[int | None, typer.Option(min=0, help="Of the episodes (default: that of the training).")] = None,
    noise: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="Return against strength: gaussian, lost, ...; may be given often."),
    ] = None,
    strengths: Annotated[
        str | None, typer.Option(metavar="S[,S...]", help="Of the noise (default: 0,0.1,0.2,0.5).")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="The JSON to write.")] = None,
    plot: Annotated[
        Path | None, typer.Option(help="The PNG to write, of noise (default: noise.png, with noise.json).")
    ] = None,
) -> None:
    """Returns of a trained population per world, agent and member, and the world's own scores, with 95 % intervals.

    With --noise: the return of a world against the strength of noise, as a table, a picture and JSON.
    """
    from rich.console import Console

    from popcomm.cli import evaluating
    from popcomm.cli.released import env_config_of, released

    if noise:
        plot = plot or Path("noise.png")
        json_file = json_file or plot.with_suffix(".json")
        _check_writable(plot, "--plot", ".png")
    elif strengths is not None or plot is not None:
        raise UserError("--strengths and --plot are of noise; say of which kind with --noise")
    if json_file is not None:
        _check_writable(json_file, "--json", ".json")
    told = {"run": str(run), "greedy": greedy, "messages": messages, "env_config": env_config_of(overrides)}
    how = {"env_config": told["env_config"], "greedy": greedy, "messages": messages, "seed": seed}
    if noise and plot and json_file:
        curves = evaluating.curves(run, noise, evaluating.strengths_of(strengths), episodes, how)
        evaluating.print_curves(curves, Console(highlight=False))
        evaluating.write_curves(curves, told, plot, json_file)
        typer.echo(f"{plot}, {json_file}: return against strength")
        return
    with released(run) as population:
        found = population.evaluate(episodes, **how)
    evaluating.print_evaluation(found, Console(highlight=False))
    if json_file is not None:
        evaluating.write_json(found, told, json_file)
        typer.echo(f"{json_file}: means and intervals")


@app.command()
def export(
    run: Population,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where it goes; new, or empty.")],
) -> None:
    """Write a trained population as safetensors and JSON: all of it for popcomm.load, and each member by itself."""
    from popcomm.cli.exporting import write
    from popcomm.cli.released import released

    with released(run) as population:
        count = write(population, folder)
    typer.echo(f"{folder}: a population for popcomm.load, and {count} members for from_pretrained")


@app.command()
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
        _check_writable(plot, "--plot", ".png")
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


@app.command("check-env")
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
    return FAILURE if found.wrong else 0


@app.command("list")
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


def main(args: list[str] | None = None) -> int:
    """Run the command line; returns its exit code.

    0, 1 for a failed trial or job or something wrong with an environment, 2 for a user's mistake, 3 for a stopped job,
    130 after Ctrl-C, 143 after SIGTERM, which is treated as Ctrl-C.

    Any other exception is a defect of popcomm or of the user's own code, and keeps its traceback (exit code 1).
    """
    prepare_environment()
    _add_working_directory()
    termination = Termination()
    with termination.as_ctrl_c():
        return termination.exit_code(_run(args))


def _run(args: list[str] | None) -> int:
    try:
        return int(app(args=args, prog_name="popcomm", standalone_mode=False) or 0)
    except UserError as error:
        return _complain(str(error))
    except UsageError as error:
        return _complain(error.format_message())  # type: ignore[attr-defined]
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED


def _complain(sentence: str) -> int:
    if sentence:  # empty after the help that a bare `popcomm` prints
        print(f"popcomm: {' '.join(sentence.split())}", file=sys.stderr)
    return USER_MISTAKE


def _add_working_directory() -> None:
    """An installed script does not search the working directory, where a user's module:attribute is."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)


def _check_writable(file: Path, option: str, suffix: str) -> None:
    if file.suffix.lower() != suffix:
        raise UserError(f"{option} {file} does not end in {suffix}")
    if not file.parent.is_dir():
        raise UserError(f"{option} {file}: the folder {file.parent} does not exist")


if __name__ == "__main__":
    sys.exit(main())
