"""The suite: one table of all metrics that a corpus of messages and meanings allows, each with what chance gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from popcomm.errors import UserError, unknown
from popcomm.language import articulation, basics, compositionality, dictionary, laws, populations, signalling
from popcomm.language.arrays import NOT_SENT, as_classes, sample
from popcomm.language.corpora import Corpus
from popcomm.language.measured import Measured
from popcomm.language.mutual_information import information

Array = NDArray[Any]

MOST_PAIRS = 1_000  # rows of measures that compare all with all, or with many controls
CONTROLS = 99
FEW_SHUFFLES = 19  # of measures whose controls are slow
FEWEST_SPEAKERS, MOST_SPEAKERS = 2, 50

Found = Iterator[tuple[str, Measured]]  # ("" or the part's name, its value)


class Row(NamedTuple):
    """A number of the suite."""

    name: str
    value: float
    unit: str
    low: float  # 95 % interval; nan: none is known
    high: float
    p_value: float  # nan: nothing is compared with chance
    chance: float  # what chance gives on average; nan likewise
    note: str  # why the value is a limit


class Metric(NamedTuple):
    """A line of the table."""

    name: str  # the function's of popcomm.language
    says: str
    range: str
    unit: str
    null: str  # what chance is; "": none
    source: str
    needs: tuple[str, ...]  # of the corpus, beside messages
    measure: Callable[[Corpus, int, bool], Found]  # seed, and whether structure is tested against chance


def measure(
    corpus: Corpus, metrics: Sequence[str] | None = None, seed: int = 0, tested: bool = True
) -> tuple[list[Row], list[str]]:
    """All metrics, or those named, that the corpus allows.

    Args:
        tested: whether measures of structure stand beside chance, which takes a hundred times as long.

    Returns:
        (rows, sentences on what was left out and why).

    Raises:
        UserError: a metric that does not exist, or one that was named and needs what the corpus has not.
    """
    rows, left_out = [], []
    for name in metrics or METRICS:
        if name not in METRICS:
            raise unknown("the metric", name, METRICS)
        metric = METRICS[name]
        if missing := [need for need in metric.needs if getattr(corpus, need) is None]:
            reason = f"{name} needs {' and '.join(missing)}, and there are none"
            if metrics:
                raise UserError(reason)
            left_out.append(reason)
            continue
        for part, value in metric.measure(corpus, seed, tested):
            rows.append(_row(f"{name}.{part}" if part else name, value, metric.unit))
    return rows, left_out


def _row(name: str, value: Measured, unit: str) -> Row:
    if math.isnan(value) and not value.note:
        raise AssertionError(f"{name} is nan and does not say why")
    return Row(name, float(value), unit, *value.interval, value.p_value, value.chance, value.note)


def meaningful(corpus: Corpus) -> Corpus:
    """The rows that have a meaning: all but those whose attributes are all -1, or whose only one is negative."""
    meant = corpus.meanings
    assert meant is not None
    if not np.issubdtype(meant.dtype, np.integer):
        return corpus
    return at(corpus, np.flatnonzero((meant != NOT_SENT).any(1) if meant.shape[1] > 1 else meant[:, 0] >= 0))


def at(corpus: Corpus, rows: Array) -> Corpus:
    """Some of the rows."""
    arrays: dict[str, Any] = {key: v[rows] for key, v in corpus._asdict().items() if isinstance(v, np.ndarray)}
    return corpus._replace(**arrays, table=None)


def _structure(name: str, shuffles: int, lower: bool = False) -> Callable[[Corpus, int, bool], Found]:
    """A measure of (meanings, messages), on a sample, beside the same with other meanings."""

    def measured(corpus: Corpus, seed: int, tested: bool) -> Found:
        told = meaningful(corpus)
        told = at(told, sample(len(told.messages), MOST_PAIRS, seed))
        assert told.meanings is not None
        note = _alike(told)
        if told.meanings.shape[1] == 1:
            value = getattr(compositionality, name)(told.meanings, told.messages)
            yield "", Measured(value, note=note or "with one attribute no two meanings are alike: not tested")
            return
        if not tested:
            yield "", Measured(getattr(compositionality, name)(told.meanings, told.messages), note=note)
            return
        if name == "topographic_similarity":
            value, chance = compositionality.topographic_chance(told.meanings, told.messages, None, shuffles, seed)
        else:
            metric = getattr(compositionality, name)
            value = metric(told.meanings, told.messages)
            chance = compositionality.chance(metric, told.meanings, told.messages, shuffles, seed, lower)
        yield "", Measured(value, p_value=chance.p_value, chance=chance.mean, note=note)

    return measured


def _alike(corpus: Corpus) -> str:
    """Why there is nothing to compare; empty where there is."""
    assert corpus.meanings is not None
    if (corpus.messages == corpus.messages[0]).all():
        return "all messages are the same"
    return "all meanings are the same" if (corpus.meanings == corpus.meanings[0]).all() else ""


def _information(about: str) -> Callable[[Corpus, int, bool], Found]:
    def measured(corpus: Corpus, seed: int, _: bool) -> Found:
        corpus = meaningful(corpus) if about == "meanings" else corpus
        told, streams = getattr(corpus, about), corpus.streams
        streams = np.arange(len(corpus.messages)) if streams is None else streams
        seats = corpus.speakers if corpus.seats is None else corpus.seats
        told = told[:, 0] if told.ndim == 2 and told.shape[1] == 1 else told
        function = signalling.speaker_consistency if about == "actions" else information
        bits = function(corpus.messages, told, streams, seed=seed, seats=seats)
        # What chance gives is off the value already.
        yield "", Measured(bits, interval=bits.interval, p_value=bits.p_value, note=bits.note)
        classes = told if told.ndim == 1 and np.issubdtype(told.dtype, np.integer) else as_classes(told)
        if corpus.messages.shape[1] > 1 and (classes >= 0).sum() > 1:
            best = basics.label_information(
                corpus.messages, classes, shuffles=CONTROLS, seed=seed, streams=streams, seats=seats
            )
            yield "best_position", Measured(best.adjusted, p_value=best.p_value, note=f"position {best.position + 1}")

    return measured


def _entropy(corpus: Corpus, *_: int) -> Found:
    yield "", Measured(laws.message_entropy(corpus.messages))


def _ngrams(corpus: Corpus, *_: int) -> Found:
    for n, bits in enumerate(laws.ngram_entropies(corpus.messages, min(3, corpus.messages.shape[1])).tolist(), 1):
        yield str(n), Measured(bits)


def _zipf(corpus: Corpus, seed: int, _: bool) -> Found:
    found = laws.zipf_exponent(corpus.messages, seed=seed)
    yield "", found
    yield "r2", Measured(found.r2, note=found.note)


def _abbreviation(corpus: Corpus, seed: int, _: bool) -> Found:
    yield "", laws.law_of_abbreviation(corpus.messages, seed=seed)


def _articulation(corpus: Corpus, seed: int, _: bool) -> Found:
    told = corpus if corpus.meanings is None else meaningful(corpus)
    told = at(told, sample(len(told.messages), MOST_PAIRS, seed))
    found = articulation.harris_articulation(told.messages, told.meanings, seed=seed)
    yield "boundaries", Measured(found.boundaries_per_message)
    yield "vocabulary", Measured(found.vocabulary, chance=float(found.random_vocabulary))
    if told.meanings is not None:
        yield "w_topsim", Measured(found.w_topsim, chance=found.random_topsim)
        yield "c_topsim", Measured(found.c_topsim)


def _vocabulary(corpus: Corpus, *_: int) -> Found:
    told = meaningful(corpus)
    assert told.meanings is not None
    for part, value in dictionary.vocabulary(told.meanings, told.messages)._asdict().items():
        yield part, Measured(value)


def _similarity(corpus: Corpus, *_: int) -> Found:
    assert corpus.speakers is not None
    told = meaningful(corpus)
    assert told.speakers is not None
    speakers, size = np.unique(told.speakers, return_counts=True)
    chosen = speakers[np.argsort(-size, kind="stable")[:MOST_SPEAKERS]]
    told = at(told, np.flatnonzero(np.isin(told.speakers, chosen)))
    assert told.meanings is not None
    assert told.speakers is not None
    said = populations.similarity_of_groups(told.speakers, as_classes(told.meanings), told.messages)
    if len(said) < FEWEST_SPEAKERS or not said.shape[1]:
        why = "there is one speaker only" if len(said) < FEWEST_SPEAKERS else "no meaning was told by all speakers"
        yield "", Measured(math.nan, note=why)
    else:
        yield "", Measured(populations.inter_speaker_similarity(said))


def _teaching(corpus: Corpus, seed: int, _: bool) -> Found:
    told = meaningful(corpus)
    assert told.meanings is not None
    yield "", populations.ease_of_teaching(told.meanings, told.messages, seed=seed)


DEALT = "meanings dealt anew"  # of measures of structure
_LATER = "labels of other streams"
_TABLE = (
    Metric(
        "information", "what whole messages tell of the meaning, above chance", "0 ... H(meaning)", "bits", _LATER,
        "Vinh et al. 2010; Lowe et al. 2019", ("meanings",), _information("meanings"),
    ),
    Metric(
        "speaker_consistency", "what messages tell of their speaker's own action, above chance",
        "0 ... H(action)", "bits",
        "actions of other streams", "Jaques et al. 2019", ("actions",), _information("actions"),
    ),
    Metric(
        "topographic_similarity", "are similar meanings told alike?", "-1 ... 1", "rho", DEALT,
        "Brighton & Kirby 2006", ("meanings",), _structure("topographic_similarity", CONTROLS),
    ),
    Metric(
        "positional_disentanglement", "is each position about one attribute?", "0 ... 1", "", DEALT,
        "Chaabouni et al. 2020", ("meanings",), _structure("positional_disentanglement", CONTROLS),
    ),
    Metric(
        "bag_of_symbols_disentanglement", "is each symbol about one attribute?", "0 ... 1", "", DEALT,
        "Chaabouni et al. 2020", ("meanings",), _structure("bag_of_symbols_disentanglement", CONTROLS),
    ),
    Metric(
        "tree_reconstruction_error", "how far messages are from sums of their attributes' parts (low is good)",
        "0 ... 1", "", DEALT, "Andreas 2019", ("meanings",),
        _structure("tree_reconstruction_error", FEW_SHUFFLES, lower=True),
    ),
    Metric(
        "context_independence", "is there a symbol for each attribute value?", "0 ... 1", "", DEALT,
        "Bogin et al. 2018", ("meanings",), _structure("context_independence", FEW_SHUFFLES),
    ),
    Metric(
        "message_entropy", "how varied whole messages are", "0 ... log2 rows", "bits", "", "Shannon 1948", (), _entropy
    ),
    Metric(
        "ngram_entropies", "how sure the next symbol is, after none, one, two", "0 ... log2 V", "bits", "",
        "Shannon 1951", (), _ngrams,
    ),
    Metric(
        "vocabulary", "how many messages, synonyms and homonyms there are", "1 ...", "", "", "", ("meanings",),
        _vocabulary,
    ),
    Metric(
        "zipf_exponent", "how steeply frequencies of messages fall with their rank", "0 ...", "",
        "all messages as common", "Clauset et al. 2009", (), _zipf,
    ),
    Metric(
        "law_of_abbreviation", "are frequent messages short?", "-1 ... 1", "rho", "lengths dealt anew",
        "Zipf 1949; Ferrer-i-Cancho et al. 2013", (), _abbreviation,
    ),
    Metric(
        "harris_articulation", "do messages fall into parts, and do these carry meaning?", "", "",
        "random boundaries", "Ueda et al. 2023", (), _articulation,
    ),
    Metric(
        "inter_speaker_similarity", "do speakers say the same of the same?", "0 ... 1", "", "", "Rita et al. 2022",
        ("meanings", "speakers"), _similarity,
    ),
    Metric(
        "ease_of_teaching", "how fast a fresh listener learns", "0 ... 1", "", "", "Li & Bowling 2019",
        ("meanings",), _teaching,
    ),
)  # fmt: skip
METRICS = {metric.name: metric for metric in _TABLE}
