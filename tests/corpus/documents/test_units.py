"""Unit planning: every byte of every file in exactly one unit, whatever the order of files."""

from __future__ import annotations

import random
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from corpus.acquire import SourceFile
from corpus.documents.units import MAX_FILES_PER_UNIT, WHOLE, plan_units


def files_of(sizes: list[int | None], ending: str = ".jsonl") -> list[SourceFile]:
    return [SourceFile(f"f{n:05d}{ending}", f"/x/{n}", size, None) for n, size in enumerate(sizes)]


@given(st.lists(st.one_of(st.none(), st.integers(0, 5000)), min_size=1, max_size=40), st.integers(100, 3000))
def test_units_cover_every_byte_once(sizes: list[int | None], unit_bytes: int) -> None:
    files = files_of(sizes)
    covered: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for unit in plan_units(files, "jsonl", unit_bytes):
        for piece in unit.pieces:
            covered[piece.file].append((piece.start, piece.end))
    for file in files:
        ranges = sorted(covered[file.name])
        if ranges == [(0, WHOLE)]:
            continue
        assert ranges[0][0] == 0 and ranges[-1][1] == file.size
        assert all(a[1] == b[0] for a, b in zip(ranges, ranges[1:], strict=False))
        assert all(end - start <= unit_bytes for start, end in ranges)


@given(st.lists(st.integers(0, 5000), min_size=1, max_size=30), st.randoms())
def test_plan_does_not_depend_on_listing_order(sizes: list[int], rng: random.Random) -> None:
    files = files_of(sizes)
    shuffled = list(files)
    rng.shuffle(shuffled)
    assert plan_units(files, "jsonl", 1000) == plan_units(shuffled, "jsonl", 1000)


def test_compressed_files_are_never_cut_and_large_parquet_is() -> None:
    assert len(plan_units(files_of([10_000], ".jsonl.zst"), "jsonl", 1000)) == 1
    assert len(plan_units(files_of([10_000], ".parquet"), "parquet", 1000)) == 10


def test_tiny_files_share_units_up_to_a_bound() -> None:
    units = plan_units(files_of([1] * 30_000), "jsonl", 1 << 20)
    assert len(units) == -(-30_000 // MAX_FILES_PER_UNIT)


def test_small_compressed_files_are_grouped_by_the_text_in_them() -> None:
    files = {name: [SourceFile(f"{part}.{name}", "", 30, None) for part in range(8)] for name in ("jsonl", "jsonl.zst")}
    assert [len(unit.pieces) for unit in plan_units(files["jsonl"], "jsonl", 120)] == [4, 4]
    assert [len(unit.pieces) for unit in plan_units(files["jsonl.zst"], "jsonl", 240)] == [2, 2, 2, 2]
