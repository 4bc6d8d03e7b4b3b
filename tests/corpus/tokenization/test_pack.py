"""Packing arithmetic: no id lost, none twice, boundaries where documents meet."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.tokenization.pack import Packer, join_tail, with_boundaries

BOS, EOS = 1000, 1001
docs = st.lists(st.lists(st.integers(0, 999), max_size=30), max_size=20)


def flat(documents: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.array([i for document in documents for i in document], np.uint32),
        np.array([len(document) for document in documents], np.int64),
    )


@given(docs, st.sampled_from(["bos", "eos", "both"]))
def test_boundaries_surround_each_document(documents: list[list[int]], boundary: str) -> None:
    out = with_boundaries(*flat(documents), boundary, BOS, EOS)
    expected: list[int] = []
    for document in documents:
        expected += [BOS] * (boundary != "eos") + document + [EOS] * (boundary != "bos")
    assert out.tolist() == expected


@given(st.lists(docs, max_size=6), st.integers(2, 40))
def test_packer_loses_nothing_over_any_batching(batches: list[list[list[int]]], row: int) -> None:
    packer = Packer(row, "uint16")
    rows, everything = [], []
    for documents in batches:
        ids = with_boundaries(*flat(documents), "both", BOS, EOS)
        everything += ids.tolist()
        got = packer.add(ids)
        assert got.shape[1] == row and got.dtype == np.uint16
        rows += got.reshape(-1).tolist()
    assert rows + packer.tail.tolist() == everything
    assert len(packer.tail) < row


@pytest.mark.parametrize(
    ("boundary", "fragment", "ids", "added"),
    [
        ("bos", [5, 6], [BOS, 5, 6], 1),
        ("bos", [BOS, 5], [BOS, 5], 0),
        ("bos", [], [], 0),
        ("eos", [5, EOS], [5, EOS], 0),
        ("both", [5, EOS], [5, EOS], 0),
    ],
)
def test_a_fragment_never_joins_the_document_before_it(
    boundary: str, fragment: list[int], ids: list[int], added: int
) -> None:
    out, count = join_tail(np.array(fragment, np.uint32), boundary, BOS)
    assert (out.tolist(), count) == (ids, added)
