"""What a scaled-down build reads of a source: many units of different files and folders, whatever its shape."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from corpus.acquire import SourceFile
from corpus.documents.sampling import SPREAD, Sample, folder_of, planned_bytes, sample_units


def files_of(*groups: tuple[str, int, int], ending: str = "jsonl") -> list[SourceFile]:
    """Files (folder, how many, bytes of each)."""
    return [
        SourceFile(f"{folder}/{n:04d}.{ending}", "", size, None) for folder, many, size in groups for n in range(many)
    ]


def sample(files: list[SourceFile], limit: int, file_format: str = "jsonl", seed: int = 17) -> Sample:
    """With units of 128 MiB, samples of 2,049 ids, 4 bytes a token."""
    return sample_units(files, file_format, unit_bytes=128 << 20, seed=seed, limit=limit, row=2049, bytes_per_token=4.0)


def first(of: Sample) -> list[str]:
    """Names of the files that the first SPREAD units begin in."""
    return [unit.pieces[0].file for unit in of.units[:SPREAD]]


def test_a_sample_has_many_files_and_all_of_a_few_folders() -> None:
    languages = files_of(*((f"lang{n}", 4 + n, 300 << 20) for n in range(60)), ending="parquet")
    for seed in range(5):
        seen = first(sample(languages, 20_000_000, "parquet", seed))
        assert len(set(seen)) == SPREAD and len(set(map(folder_of, seen))) >= 20
    uneven = files_of(("big", 40, 1 << 30), ("small", 1, 1 << 20), ("tiny", 1, 1 << 10))
    assert {folder_of(name) for name in first(sample(uneven, 20_000_000))} == {"big", "small", "tiny"}
    one = [SourceFile("all.jsonl", "", 74_000_000_000, None)]
    starts = sorted(unit.pieces[0].start for unit in sample(one, 20_000_000).units[:SPREAD])
    gaps = [b - a for a, b in zip(starts, starts[1:], strict=False)]
    assert max(gaps) < 3 * 74_000_000_000 / SPREAD and sample(one, 20_000_000).cap == 20_000_000 / SPREAD


def test_few_or_uneven_files_give_more_each() -> None:
    files = files_of(("a", 1, 100_000_000), ("b", 2, 40_000), ending="parquet")
    made = sample(files, 1_000_000, "parquet")
    assert 1_000_000 / 3 < made.cap <= 1_000_000


@given(
    st.lists(st.integers(0, 50_000_000), min_size=1, max_size=60),
    st.sampled_from(["jsonl", "parquet", "text"]),
    st.integers(1, 10**9),
    st.randoms(),
)
def test_all_of_a_source_is_in_some_unit_whatever_the_listing_order(
    sizes: list[int], file_format: str, limit: int, rng: random.Random
) -> None:
    files = [SourceFile(f"{n % 7}/{n:03d}", "", size, None) for n, size in enumerate(sizes)]
    made = sample(files, limit, file_format)
    assert [unit.index for unit in made.units] == list(range(len(made.units)))
    read = dict.fromkeys((file.name for file in files), 0)
    for unit in made.units:
        for piece in unit.pieces:
            read[piece.file] += 1 if piece.end < 0 else piece.end - piece.start
    assert all(count == 1 or count == size for count, size in zip(read.values(), sizes, strict=True))
    assert 1 <= made.cap <= max(limit, 2049)
    assert planned_bytes(made, files) <= sum(sizes)
    shuffled = list(files)
    rng.shuffle(shuffled)
    assert sample(shuffled, limit, file_format) == made
