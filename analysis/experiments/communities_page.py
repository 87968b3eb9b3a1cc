"""The communities experiment as a page: a figure and tables in Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from popcomm.analysis.experiments.intervals import difference

from popcomm.language.drawing import BLUE, INK, MUTED, ORANGE, card, dress, heatmap, legend

PICTURE = "communities.png"
CHANCE = 0.01  # one meaning of a hundred, guessed
SOME = 0.05  # the mixing that the claims are about
MATRIX_ARMS = ((2, 0.0), (2, SOME))
COLOURS = {"within": BLUE, "between": ORANGE}
MARKERS = {2: ("o", "-"), 3: ("^", ":")}  # by communities
JITTER = 0.06

Record = Mapping[str, Any]
Records = Sequence[Record]


def arms(records: Records) -> dict[tuple[int, float], list[Record]]:
    """{(communities, mixing): its runs by seed}, in order."""
    found: dict[tuple[int, float], list[Record]] = {}
    for record in sorted(records, key=lambda r: (r["communities"], r["mixing"], r["seed"])):
        found.setdefault((record["communities"], record["mixing"]), []).append(record)
    return found


def draw(records: Records) -> Figure:
    """Intelligibility and distance against mixing, every seed a point; and who understands whom in single runs."""
    by_arm = arms(records)
    mixings = sorted({mixing for _, mixing in by_arm})
    figure = card(11, 8.2, "Communities that seldom meet: who understands whom, and who says the same")
    axes = figure.subplots(2, 2)
    dress(axes[0, 0], "Intelligibility", "mixing", "share of meanings understood")
    dress(axes[0, 1], "Distance of languages", "mixing", "share of meanings said differently")
    for key in COLOURS:
        _lines(axes[0, 0], by_arm, mixings, key, key)
        _lines(axes[0, 1], by_arm, mixings, f"distance_{key}", key)
    axes[0, 0].axhline(CHANCE, color=MUTED, linewidth=1.2, linestyle=(0, (1, 3)), label="chance")
    for panel in axes[0]:
        panel.set_xticks(range(len(mixings)), [f"{m:g}" for m in mixings])
        panel.set_ylim(-0.03, 1.05)
    legend(axes[0, 0], loc="best")
    for panel, arm in zip(axes[1], MATRIX_ARMS, strict=True):
        _matrix(panel, by_arm.get(arm, []), arm)
    return figure


def _lines(axes: Axes, by_arm: Any, mixings: list[float], key: str, kind: str) -> None:
    """Points of all seeds and the line of their means, for each number of communities."""
    for communities, (marker, dash) in MARKERS.items():
        runs = {mixing: found for (groups, mixing), found in by_arm.items() if groups == communities}
        if not runs:
            continue
        places = [mixings.index(mixing) for mixing in runs]
        colour, shift = COLOURS[kind], JITTER if communities == 3 else -JITTER
        label = f"{kind}, {communities} communities"
        means = [float(np.mean([r[key] for r in found])) for found in runs.values()]
        axes.plot(places, means, dash, color=colour, linewidth=1.8, label=label)
        for place, found in zip(places, runs.values(), strict=True):
            axes.plot(np.full(len(found), place + shift), [r[key] for r in found], marker, color=colour, markersize=5)


def _matrix(axes: Axes, runs: Records, arm: tuple[int, float]) -> None:
    communities, mixing = arm
    dress(axes, grid=None)
    if not runs:
        axes.set_title(f"mixing {mixing:g}: no run yet", fontsize=10, loc="left", color=INK)
        return
    dress(axes, f"Mixing {mixing:g}, seed {runs[0]['seed']}: speakers by listeners", "listener", "speaker", grid=None)
    matrix = np.array(runs[0]["matrix"])
    heatmap(axes, matrix, "share of meanings understood", vmin=0, vmax=1)
    for edge in np.arange(1, communities) * len(matrix) / communities - 0.5:
        axes.axhline(edge, color="white", linewidth=2)
        axes.axvline(edge, color="white", linewidth=2)
    for (row, column), value in np.ndenumerate(matrix):
        ink = "white" if value < 0.6 else "black"
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8, color=ink)


def markdown(records: Records, command: str, versions: Mapping[str, str]) -> str:
    """The page; the picture lies beside it. command: what made all this."""
    by_arm = arms(records)
    seeds, messages = sorted({r["seed"] for r in records}), max(r["asked"] for r in records)
    lines = [
        "# Communities and dialects",
        "",
        "Six speakers and six listeners learn to name 100 meanings (two attributes of ten values) with two symbols out "
        "of 50. Every world has one of each, and belongs to a community; a share of the seats, `mixing`, is filled "
        "without regard to community. Who understands whom afterwards?",
        "",
        "```yaml",
        "population:",
        "  agent: gru",
        "  members: 6",
        "  seating: communities",
        "  communities: 2",
        "  mixing: 0.05",
        "```",
        "",
        f"Written by `{command}`. {len(seeds)} seeds, at least {messages:,} messages of all speakers together in each "
        f"run, {sum(r['seconds'] for r in records) / 60:.0f} CPU minutes for {len(records)} runs "
        f"({', '.join(f'{name} {v}' for name, v in versions.items())}).",
        "",
        f"![Intelligibility, distance and two matrices]({PICTURE})",
        "",
        "Points are seeds, lines their means. Agents take their likeliest choice (`popcomm.rollout.crossplay`).",
        "",
        "## What was found",
        "",
        *_table(["two communities", "measured", "holds"], [[*claim[:2], _verdict(claim)] for claim in claims(by_arm)]),
        "",
        "These statements and their limits were written when a trial and the first ten runs had been seen, so the "
        "later runs are what tests them.",
        "",
        "Where the middle two hold, strangers are understood while they still talk differently. A likely reason, which "
        "was not tested by itself: listeners can learn several words for a meaning, and speakers who are understood "
        "have nothing to gain from giving up their own.",
        "",
        "## Intelligibility",
        "",
        "The share of the 100 meanings that a listener names whole when it hears what a speaker says of them: the mean "
        "over pairs of one community, over pairs of different ones, and their difference within a run with its 95 % "
        "interval (Student's t over seeds). Chance is 0.01; before training it is "
        f"{_untrained(records):.3f}.",
        "",
        *_intelligibility(by_arm),
        "",
        "*Across* is the share of conversations between communities: 1 - (1 - q)^2 - q^2 / (G - 1) with "
        "q = mixing (1 - 1 / G).",
        "",
        "## What mixing does to strangers",
        "",
        "Intelligibility between communities minus that of the same seeds at mixing 0.",
        "",
        *_effects(by_arm),
        "",
        "## Distance of languages",
        "",
        "The share of meanings for which two speakers say different messages: pairs of different speakers of one "
        "community, and of two.",
        "",
        *_distances(by_arm),
        "",
        "## On the way",
        "",
        "Intelligibility between communities (and within), means over seeds, by messages said so far. Exchange works "
        "by the number of meetings, so these numbers depend on when one looks.",
        "",
        *_curves(by_arm),
        "",
        "## What this is not",
        "",
        "Few seeds, one game, one network, one length of training; no run was continued to see whether dialects merge "
        "in the end. An entropy bonus keeps the messages varied all along: in the last fragment, where everybody "
        "samples, speakers were understood by those they met "
        f"{np.mean([r['sampled_accuracy'] for r in records]):.0%} of the time (mean over all runs), less than the "
        "tables say of likeliest choices. Intervals are not cut at 0 and 1.",
    ]
    return "\n".join(lines) + "\n"


class Claim(NamedTuple):
    """A statement that the runs bear out or not."""

    text: str
    measured: str
    holds: bool


def claims(by_arm: Mapping[tuple[int, float], Records]) -> list[Claim]:
    """What is said of two communities, as far as there are runs."""
    none, some, full = (by_arm.get((2, mixing), []) for mixing in (0.0, SOME, 1.0))
    found = []
    if none:
        highest = max(r["between"] for r in none)
        text = f"Those who never meet understand one another as by chance: at most {3 * CHANCE:g} in every run"
        found.append(Claim(text, f"at most {highest:.3f}", highest <= 3 * CHANCE))
    shared = [(a, b) for a in some for b in none if a["seed"] == b["seed"]]
    if shared:
        gain = difference([a["between"] for a, _ in shared], [b["between"] for _, b in shared])
        text = f"Mixing {SOME:g} makes strangers understood: the interval of the gain over mixing 0 excludes 0"
        found.append(Claim(text, f"{gain.mean:+.3f} {gain.paired.shown(3)}", gain.paired.low > 0))
        apart = difference([a["distance_between"] for a in some], [a["distance_within"] for a in some])
        text = f"At mixing {SOME:g} they still speak more differently than those of one community: it excludes 0"
        found.append(Claim(text, f"{apart.mean:+.3f} {apart.paired.shown(3)}", apart.paired.low > 0))
    if full:
        gap = max(abs(r["within"] - r["between"]) for r in full)
        text = "At mixing 1 there are no strangers: within and between differ by 0.01 at most in every run"
        found.append(Claim(text, f"at most {gap:.3f}", gap <= 0.01))
    return found


def _verdict(claim: Claim) -> str:
    return "yes" if claim.holds else "**no**"


def _untrained(records: Records) -> float:
    return float(np.mean([[r["curve"][0]["within"], r["curve"][0]["between"]] for r in records]))


def _mean(runs: Records, key: str, digits: int = 3) -> str:
    """Mean over seeds, with the least and the greatest."""
    values = [r[key] for r in runs]
    return f"{np.mean(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _gap(first: Sequence[float], second: Sequence[float]) -> str:
    apart = difference(first, second)
    return f"{apart.mean:+.3f} {apart.paired.shown(3)}"


def _intelligibility(by_arm: Mapping[tuple[int, float], Records]) -> list[str]:
    rows = [
        [
            f"{communities}",
            f"{mixing:g}",
            f"{runs[0]['exchange']:.3f}",
            f"{len(runs)}",
            _mean(runs, "within"),
            _mean(runs, "between"),
            _gap([r["within"] for r in runs], [r["between"] for r in runs]),
        ]
        for (communities, mixing), runs in by_arm.items()
    ]
    return _table(["communities", "mixing", "across", "seeds", "within", "between", "within - between"], rows)


def _effects(by_arm: Mapping[tuple[int, float], Records]) -> list[str]:
    rows = []
    for (communities, mixing), runs in by_arm.items():
        apart = {r["seed"]: r["between"] for r in by_arm.get((communities, 0.0), [])}
        shared = [r for r in runs if r["seed"] in apart]
        if mixing and shared:
            gained = _gap([r["between"] for r in shared], [apart[r["seed"]] for r in shared])
            rows.append([f"{communities}", f"{mixing:g}", gained])
    return _table(["communities", "mixing", "gain [95 %]"], rows)


def _distances(by_arm: Mapping[tuple[int, float], Records]) -> list[str]:
    rows = [
        [
            f"{communities}",
            f"{mixing:g}",
            _mean(runs, "distance_within"),
            _mean(runs, "distance_between"),
            _gap([r["distance_between"] for r in runs], [r["distance_within"] for r in runs]),
        ]
        for (communities, mixing), runs in by_arm.items()
    ]
    return _table(["communities", "mixing", "within", "between", "between - within"], rows)


def _curves(by_arm: Mapping[tuple[int, float], Records]) -> list[str]:
    """One row per arm; the moments are those of the first run, and the others' are the same to an iteration."""
    moments = [point["messages"] for point in next(iter(by_arm.values()))[0]["curve"]]
    rows = []
    for (communities, mixing), runs in by_arm.items():
        points = [
            tuple(np.mean([r["curve"][i][key] for r in runs]) for key in ("between", "within"))
            for i in range(len(moments))
        ]
        rows.append([f"{communities}", f"{mixing:g}", *(f"{between:.2f} ({within:.2f})" for between, within in points)])
    return _table(["communities", "mixing", *(f"{m / 1000:.0f}k" for m in moments)], rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows)]
