"""What emerged: metrics as pure functions on arrays, pictures, and the files in which conversations are kept.

`popcomm.language.topographic_similarity(meanings, messages)` and its kin are imported when they are asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from popcomm.loading import when_asked

if TYPE_CHECKING:
    from popcomm.language.articulation import harris_articulation
    from popcomm.language.compositionality import (
        bag_of_symbols_disentanglement,
        context_independence,
        positional_disentanglement,
        topographic_similarity,
        tree_reconstruction_error,
    )
    from popcomm.language.corpora import Corpus, read_corpus
    from popcomm.language.dictionary import lexicon, vocabulary
    from popcomm.language.exports import write_corpus
    from popcomm.language.importance import counterfactual_importance, importance_matrix
    from popcomm.language.laws import law_of_abbreviation, message_entropy, ngram_entropies, zipf_exponent
    from popcomm.language.mutual_information import information
    from popcomm.language.populations import (
        ease_of_teaching,
        generalisation_gap,
        inter_speaker_similarity,
        mutual_intelligibility,
    )
    from popcomm.language.signalling import (
        causal_influence_of_communication,
        instantaneous_coordination,
        positive_listening,
        positive_signalling,
        speaker_consistency,
    )

__all__ = [
    "Corpus",
    "bag_of_symbols_disentanglement",
    "causal_influence_of_communication",
    "context_independence",
    "counterfactual_importance",
    "ease_of_teaching",
    "generalisation_gap",
    "harris_articulation",
    "importance_matrix",
    "information",
    "instantaneous_coordination",
    "inter_speaker_similarity",
    "law_of_abbreviation",
    "lexicon",
    "message_entropy",
    "mutual_intelligibility",
    "ngram_entropies",
    "positional_disentanglement",
    "positive_listening",
    "positive_signalling",
    "read_corpus",
    "speaker_consistency",
    "topographic_similarity",
    "tree_reconstruction_error",
    "vocabulary",
    "write_corpus",
    "zipf_exponent",
]

_MODULES = {
    "articulation": ("harris_articulation",),
    "compositionality": (
        "bag_of_symbols_disentanglement",
        "context_independence",
        "positional_disentanglement",
        "topographic_similarity",
        "tree_reconstruction_error",
    ),
    "corpora": ("Corpus", "read_corpus"),
    "dictionary": ("lexicon", "vocabulary"),
    "exports": ("write_corpus",),
    "importance": ("counterfactual_importance", "importance_matrix"),
    "laws": ("law_of_abbreviation", "message_entropy", "ngram_entropies", "zipf_exponent"),
    "mutual_information": ("information",),
    "populations": (
        "ease_of_teaching",
        "generalisation_gap",
        "inter_speaker_similarity",
        "mutual_intelligibility",
    ),
    "signalling": (
        "causal_influence_of_communication",
        "instantaneous_coordination",
        "positive_listening",
        "positive_signalling",
        "speaker_consistency",
    ),
}
__getattr__ = when_asked(__name__, _MODULES)  # scipy takes its time


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
