"""Builds of which nothing will come, or too little, say so early, for all sources at once, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from corpus.pipeline.barren import ENOUGH, spread_first
from tests.conftest import documents, recipe_dict, run_command, user_error, write_jsonl


def refused(tmp_path: Path, recipe: dict[str, Any]) -> tuple[str, str, int]:
    """(the error, all of stderr, how many units had been made) of a build that must fail."""
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(recipe))
    result = run_command("-m", "corpus.build", str(path), "--out", str(tmp_path / "data"), "--workers", "2")
    return user_error(result), result.stderr, len(list((tmp_path / "data").glob("streams/*/units/*")))


def large(tmp_path: Path, *names: str) -> dict[str, list[str]]:
    """Sources of about 160 units each."""
    for seed, name in enumerate(names):
        write_jsonl(tmp_path / f"{name}.jsonl", documents(1500, seed=seed))
    return {name: [f"{name}.jsonl"] for name in names}


def test_steps_that_drop_everything_end_the_build_early(tmp_path: Path) -> None:
    sources = large(tmp_path, "a", "b", "c")
    steps = [
        {"step": "length", "min_chars": 10**6, "sources": ["a"]},
        {"step": "language", "languages": ["en"], "sources": ["b"]},
    ]
    _, told, made = refused(tmp_path, recipe_dict(sources, unit_bytes=2048, cleaning=steps))
    assert "nothing is kept of 2 of 3 sources" in told
    lines = [line.strip() for line in told.splitlines()]
    a, b = (next(line for line in lines if line.startswith(f"source '{name}': all of its")) for name in "ab")
    assert "by length at a.jsonl:0" in a and "units tried (of" in a
    assert "by language at b.jsonl:0" in b
    assert "source 'c'" not in told and told.count("warning: source 'a'") == 1
    assert made < 250  # of about 480
    dedup = [*steps, {"step": "exact_dedup"}]
    _, told, made = refused(tmp_path, recipe_dict(sources, unit_bytes=2048, cleaning=dedup, name="dedup"))
    assert "by length at a.jsonl:0" in told and "for exact_dedup" in told


def test_too_little_of_several_sources_is_one_message(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": "x"}, {"txet": "y"}])
    write_jsonl(tmp_path / "b.jsonl", [{"text": "z"}, {"text": ""}])
    write_jsonl(tmp_path / "c.jsonl", documents(60))
    _, told, _ = refused(tmp_path, recipe_dict({name: [f"{name}.jsonl"] for name in "abc"}))
    assert "2 of 3 sources yield too little" in told
    assert "source 'a' yields less than one sample of 33 tokens: 2 records read, 1 kept" in told
    assert "missing_field at a.jsonl:14" in told and "empty at b.jsonl:14" in told


def test_too_many_epochs_are_refused_as_soon_as_a_source_is_made(tmp_path: Path) -> None:
    sources = {"a": ["few.jsonl"], **large(tmp_path, "b", "c")}
    write_jsonl(tmp_path / "few.jsonl", documents(20))
    recipe = recipe_dict(sources, unit_bytes=2048, tokens=32 * 4 * 2000)
    recipe["mixture"]["a"]["max_epochs"] = 2
    line, _, made = refused(tmp_path, recipe)
    assert "the phase would repeat 'a'" in line and "max_epochs 2" in line
    assert made < 200  # of about 320


@given(st.integers(0, 5000))
def test_every_unit_is_made_and_the_first_are_spread(units: int) -> None:
    order = spread_first(units)
    assert sorted(order) == list(range(units))
    if units > ENOUGH:
        assert max(order[:ENOUGH]) >= units * (ENOUGH - 1) // ENOUGH and order[0] == 0
