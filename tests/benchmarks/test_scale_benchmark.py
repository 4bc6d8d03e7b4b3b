"""The benchmark of builds in many units runs, small."""

from __future__ import annotations

from benchmarks import scale_build
from tests.benchmarks.conftest import Rows


def test_rows_of_two_sizes(rows_of: Rows) -> None:
    small, large = rows_of(scale_build, "--units 5 20")
    assert (small["units"], large["units"], large["shards"]) == (5, 20, 20 * scale_build.SHARDS)
    assert {"complete stream s", "fingerprint s", "peak MB"} <= set(large)
