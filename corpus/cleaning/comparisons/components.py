"""Which documents are joined, directly or through others: connected components over pairs, part by part.

A pair is (later document, earlier one). Each part of the documents is looked at with the pairs that touch it, and
leaves pairs with the earliest document it can see from each; so labels only sink. Rounds alternate between the pairs
whose later document is of the part, which keeps their number down, and all that touch it, until one of the latter
changes nothing anywhere: then every document but the first of its component has one pair, with that first one.
(After the small and large stars of Kiveris et al. 2014, "Connected Components in MapReduce and Beyond".)
"""

from __future__ import annotations

import numpy as np

from corpus.cleaning.comparisons.droplists import Ids

BYTES_PER_PAIR = 160
"""Peak memory of connect per pair: the pairs, their sorted copies, and both documents' places among the others."""


def distinct(later: Ids, earlier: Ids) -> tuple[Ids, Ids]:
    """The pairs without repeats, in order."""
    order = np.lexsort((earlier, later))
    later, earlier = later[order], earlier[order]
    new = np.ones(len(later), np.bool_)
    new[1:] = (later[1:] != later[:-1]) | (earlier[1:] != earlier[:-1])
    return later[new], earlier[new]


def connect(later: Ids, earlier: Ids) -> tuple[Ids, Ids]:
    """A pair with the first document of its component, for every other document of these pairs, in order."""
    documents, places = np.unique(np.concatenate([later, earlier]), return_inverse=True)
    a, b = places.reshape(2, -1)
    label = np.arange(len(documents))
    while True:
        before = label
        lowest = np.minimum(label[a], label[b])
        label = label.copy()
        # The label of a document is hooked too: else labels would travel one pair a round.
        np.minimum.at(label, before[a], lowest)
        np.minimum.at(label, before[b], lowest)
        np.minimum.at(label, a, lowest)
        np.minimum.at(label, b, lowest)
        label = label[label]
        if np.array_equal(label, before):
            break
    joined = np.flatnonzero(label != np.arange(len(label)))
    return documents[joined], documents[label[joined]]
