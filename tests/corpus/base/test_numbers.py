"""Numbers as commands read them."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.base.numbers import count
from tests.conftest import ROOT, run_command, user_error


@pytest.mark.parametrize(
    ("text", "value"),
    [("7", 7), ("10_000", 10_000), ("5e6", 5_000_000), ("20M", 20_000_000), ("1.5b", 1_500_000_000),
     ("2 T", 2 * 10**12),
     ("100GB", 10**11), ("3kb", 3000)],
)  # fmt: skip
def test_the_ways_to_write_a_count(text: str, value: int) -> None:
    assert count(text) == value


@given(st.integers(0, 2**53))
def test_whole_numbers_are_read_as_they_are_written(value: int) -> None:
    assert count(str(value)) == count(f"{value:_}") == value


@pytest.mark.parametrize("text", ["", "-1", "x", "1.5.2", "10X", "M", "0x10", "1e999", "inf", "nan"])
def test_what_is_no_count_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="not a number"):
        count(text)


@pytest.mark.parametrize("module", ["corpus.build", "corpus.plan"])
def test_both_commands_read_and_refuse_the_same(module: str) -> None:
    recipe = str(ROOT / "recipes" / "sample.yaml")
    refused = run_command("-m", module, recipe, "--max-tokens", "many")
    assert refused.returncode == 2 and "not a number: 'many'" in refused.stderr
    assert "must be positive" in user_error(run_command("-m", module, recipe, "--max-tokens", "0"))
