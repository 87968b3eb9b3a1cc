"""Collapses of the language in the words of a report."""

from __future__ import annotations

from popcomm.analysis.run_folder import RunFolder

from popcomm.language.collapse import Episode, episodes

MOST = 5  # that are told one by one


def collapses(run: RunFolder) -> tuple[list[str], str]:
    """(What is to be said of collapses, that with which the run ends); nothing where the language was not watched.

    The longest are told in the order of time, before all others those that last.
    """
    if "language/collapse" not in run.progress:
        return [], ""
    seen = episodes(run.progress.to_dict("records"))
    if not seen:
        return ["The language never showed a sign of collapse."], ""
    steps, last = run.progress["env_steps"].to_numpy(), len(run.progress) - 1

    def told(episode: Episode) -> str:
        until = "environment steps on" if episode.last == last else f"to {steps[episode.last]:,.0f} environment steps"
        return f"from {steps[episode.first]:,.0f} {until} {episode.words}"

    longest = sorted(seen, key=lambda e: (e.last != last, e.first - e.last))[:MOST]
    rest = len(seen) - len(longest)
    more = f"; and {rest} shorter time{'s' * (rest > 1)} more" if rest else ""
    ends = [episode.words for episode in seen if episode.last == last]
    sentence = f"Collapse: {'; '.join(told(e) for e in sorted(longest, key=lambda e: e.first))}{more}."
    return [sentence], f"At the end, {'; '.join(ends)}." if ends else ""
