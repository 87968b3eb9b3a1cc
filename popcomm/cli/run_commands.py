"""popcomm report | watch | language | play | evaluate | export: of a run that there is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from popcomm.cli.options import EnvOverrides, Greedy, Population, RunFolder, check_writable
from popcomm.errors import UserError


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
        check_writable(target, "--out", ".html")
        typer.echo(f"report: {write_comparison(folders, target)}")
        return
    if out is not None:
        raise UserError("--out is for several runs; the report of one is report.html in its folder")
    write = write_sweep_report if (folders[0] / RESULTS).is_file() else write_report
    typer.echo(f"report: {write(folders[0])}")


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
    whole: Annotated[
        bool, typer.Option("--all", help="Of a run the whole training's messages, not only the newest.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of samples and controls.")] = 0,
) -> None:
    """Measure the language of a run or a corpus: what it tells, how it is built, who speaks it, beside chance."""
    from rich.console import Console

    from popcomm.cli import language as measuring
    from popcomm.language.corpora import Columns

    outputs = measuring.Outputs(json_file, lexicon, exports or ())
    outputs.check()
    columns = Columns(messages or (), meanings or (), stream, speaker, action)
    corpus = measuring.read_corpus(source, columns, end_symbol, whole)
    outputs.check_corpus(source, corpus)
    for line in outputs.write_corpus(corpus):
        typer.echo(line)
    rows, left_out = measuring.measure(corpus, metrics, seed)
    measuring.print_language(corpus, rows, left_out, Console(highlight=False), words=not metrics)
    for line in outputs.write_measures(source, corpus, rows, left_out, seed):
        typer.echo(line)


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
        check_writable(gif, "--gif", ".gif")
    with released(run) as population:
        shown = playing.moments(population, steps, seed, greedy, env_config_of(overrides), draw=gif is not None)
        playing.show(shown, gif, typer.echo)


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
        check_writable(plot, "--plot", ".png")
    elif strengths is not None or plot is not None:
        raise UserError("--strengths and --plot are of noise; say of which kind with --noise")
    if json_file is not None:
        check_writable(json_file, "--json", ".json")
    told = {"run": str(run), "greedy": greedy, "messages": messages, "env_config": env_config_of(overrides)}
    how = {"env_config": told["env_config"], "greedy": greedy, "messages": messages, "seed": seed}
    if noise and plot and json_file:
        curves = evaluating.curves(run, noise, evaluating.strengths_of(strengths), episodes, how)
        typer.echo(evaluating.tell_curves(curves, told, plot, json_file, Console(highlight=False)))
        return
    with released(run) as population:
        found = population.evaluate(episodes, **how)
    evaluating.print_evaluation(found, Console(highlight=False))
    if json_file is not None:
        evaluating.write_json(found, told, json_file)
        typer.echo(f"{json_file}: means and intervals")


def export(
    run: Population,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where it goes; new, or empty.")],
) -> None:
    """Write a trained population as safetensors and JSON: all of it for popcomm.load, and each member by itself."""
    from popcomm.cli.exporting import check_folder, write
    from popcomm.cli.released import released

    check_folder(folder)
    with released(run) as population:
        count = write(population, folder)
    typer.echo(f"{folder}: a population for popcomm.load, and {count} members for from_pretrained")
