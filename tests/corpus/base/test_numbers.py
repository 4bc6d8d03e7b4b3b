"""Numbers as commands read them."""

from __future__ import annotations

import argparse

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.base.numbers import count, number, whole
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


@pytest.mark.parametrize(
    ("text", "value"),
    [("-3", -3), ("5.12e2", 512), ("2e12", 2 * 10**12), ("1.5k", 1500), ("9.007199254740993e15", 2**53 + 1)],
)
def test_whole_numbers_are_exact(text: str, value: int) -> None:
    assert whole(text) == value


@pytest.mark.parametrize("text", ["1.5e0", "0.5", "1.0001k", "5e-1", "80%", "many"])
def test_other_numbers_are_not_whole(text: str) -> None:
    with pytest.raises(ValueError, match=r"not a (whole )?number"):
        whole(text)


def test_shares_may_be_written_as_percentages() -> None:
    assert (float(number("80%")), float(number("2.5e-3"))) == (0.8, 0.0025)
