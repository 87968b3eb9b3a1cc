"""`popcomm language`: what a run's language, or anybody's corpus, is like."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from popcomm.cli.options import check_writable as check_output
from popcomm.errors import UserError
from popcomm.language.corpora import Corpus, read_corpus
from popcomm.language.dictionary import lexicon
from popcomm.language.exports import check_writable, write_corpus
from popcomm.language.progress import plain
from popcomm.language.suite import METRICS, Row, meaningful, measure

MOST_SHOWN = 10  # lines of the lexicon
WIDE = "what it says"


def print_language(
    corpus: Corpus, rows: Sequence[Row], left_out: Sequence[str], console: Console, words: bool = True
) -> None:
    """A table of the numbers, what was left out, and the commonest words."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("metric", "value", "95 % interval", "chance", "p", WIDE):
        table.add_column(name, justify="right" if name in ("value", "chance", "p") else "left", no_wrap=name != WIDE)
    for row in rows:
        interval = "" if math.isnan(row.low) else f"{row.low:.3g} ... {row.high:.3g}"
        metric, _, part = row.name.partition(".")
        says = row.note or ("" if part else METRICS[metric].says)
        value = "-" if math.isnan(row.value) else f"{row.value:.4g} {row.unit}".rstrip()
        table.add_row(row.name, value, interval, _shown(row.chance), _shown(row.p_value), says)
    console.print(table, markup=False)
    for sentence in (f"{len(corpus.messages):,} messages", *corpus.notes, *left_out):
        console.print(sentence, markup=False)
    if words and corpus.meanings is not None:
        told = meaningful(corpus)
        assert told.meanings is not None
        common = lexicon(told.meanings, told.messages).messages.drop_duplicates("message").head(MOST_SHOWN)
        shown = Table(title="the commonest messages, and what they mean most often", title_justify="left", box=None)
        for name in ("message", "meaning", "p(meaning)"):
            shown.add_column(name)
        for message, meaning, p in common[["message", "meaning", "p_meaning"]].itertuples(index=False):
            shown.add_row(message or "(nothing)", meaning, f"{p:.2f}")
        console.print(shown, markup=False)


def as_json(source: str, corpus: Corpus, rows: Sequence[Row], left_out: Sequence[str], seed: int) -> str:
    """What was measured, as JSON: nan, which it has not, is null."""
    metrics = {row.name: {key: plain(value) for key, value in row._asdict().items() if key != "name"} for row in rows}
    told = {
        "source": source,
        "messages": len(corpus.messages),
        "seed": seed,
        "notes": list(corpus.notes),
        "left_out": list(left_out),
        "metrics": metrics,
    }
    return json.dumps(told, indent=2, allow_nan=False) + "\n"


def write_lexicon(corpus: Corpus, path: Path) -> None:
    """The whole lexicon as CSV."""
    told = meaningful(corpus)
    assert told.meanings is not None
    lexicon(told.meanings, told.messages).write(path)


class Outputs(NamedTuple):
    """The files that are asked for."""

    json_file: Path | None  # of all numbers
    lexicon: Path | None  # of all messages with their meanings
    exports: Sequence[Path]  # of the corpus

    def check(self) -> None:
        """Raises UserError: another suffix than it must have, or a folder that does not exist."""
        if self.json_file is not None:
            check_output(self.json_file, "--json", ".json")
        if self.lexicon is not None:
            check_output(self.lexicon, "--lexicon", ".csv")
        for file in self.exports:
            check_writable(file)

    def check_corpus(self, source: Path, corpus: Corpus) -> None:
        """Raises UserError: the corpus has not what a file needs."""
        if self.lexicon is not None and corpus.meanings is None:
            raise UserError(f"--lexicon needs meanings, and '{source}' has none")

    def write_corpus(self, corpus: Corpus) -> Iterator[str]:
        """Write it; says what was written."""
        for file in self.exports:
            yield f"{file}: {write_corpus(corpus, file):,} rows"

    def write_measures(
        self, source: Path, corpus: Corpus, rows: Sequence[Row], left_out: Sequence[str], seed: int
    ) -> Iterator[str]:
        """Write what was measured; says what was written."""
        if self.json_file is not None:
            self.json_file.write_text(as_json(str(source), corpus, rows, left_out, seed), encoding="utf-8")
            yield f"{self.json_file}: all numbers"
        if self.lexicon is not None:
            write_lexicon(corpus, self.lexicon)
            yield f"{self.lexicon}: all messages with their meanings"


def _shown(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}"


__all__ = [
    "Outputs",
    "as_json",
    "check_writable",
    "measure",
    "print_language",
    "read_corpus",
    "write_corpus",
    "write_lexicon",
]
