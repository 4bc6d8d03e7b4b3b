"""Stream keys: a change of the code changes those of the streams whose bytes it may change, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corpus.acquire import AcquireConfig, SourceFile
from corpus.acquire.models import listing_of
from corpus.catalogue.models import Source
from corpus.cleaning.fields import ScoreStep
from corpus.cleaning.text import LengthStep
from corpus.records.stream import Tokenizer
from corpus.streams.plan import StreamPlan

UNIT_BYTES = 1000


def plan(ending: str, size: int = 10, cleaning: list[Any] | None = None, **source: Any) -> StreamPlan:
    """The plan of a stream of one file."""
    keys = {"title": "t", "origin": {"kind": "files", "paths": ["*"]}, "adapter": {"shape": "field"}, "licence": "x"}
    made = Source.model_validate({**keys, **source})
    return StreamPlan(
        source_name="s",
        source=made,
        origin=made.origin,
        listing=listing_of([SourceFile(f"x{ending}", "/x", size, "sha256:00")]),
        tokenizer=Tokenizer(name="t", sha256="0", vocab_size=300, bos_id=0, path="t"),
        engine="tokenizers",
        seq_len=32,
        boundary="bos",
        cleaning=cleaning or [],
        entry="s",
        malformed="drop",
        unit_bytes=UNIT_BYTES,
        token_limit=None,
        seed=17,
        data=Path("/data"),
        acquire=AcquireConfig(Path("/cache")),
    )


DOTTED = {"shape": "field", "field": "page.text"}


@pytest.mark.parametrize(
    ("made", "key"),
    [
        (plan(".jsonl"), "cca6cfe39ab6"),
        (plan(".jsonl", 5000, cleaning=[LengthStep()]), "c471a73bd40e"),
        (plan(".parquet", format="parquet"), "bb3eab44cf9e"),
        (plan(".txt", format="text"), "c5d1f57d3d57"),
    ],
)
def test_keys_of_old_stay(made: StreamPlan, key: str) -> None:
    assert made.key[:12] == key and "reading" not in made.key_inputs


@pytest.mark.parametrize(
    "made",
    [
        plan(".parquet", 5000, format="parquet"),
        plan(".parquet", format="parquet", cleaning=[LengthStep()]),
        plan(".parquet", format="parquet", adapter=DOTTED),
        plan(".jsonl", adapter=DOTTED),
        plan(".jsonl", cleaning=[ScoreStep(field="a.b", minimum=0)]),
    ],
)
def test_streams_that_may_be_read_otherwise_than_before_have_a_new_key(made: StreamPlan) -> None:
    assert made.key_inputs["reading"] == 2


def test_a_unit_looks_at_the_fields_of_the_adapter_and_of_the_steps() -> None:
    assert plan(".jsonl").fields == {"text"}
    steps = [
        LengthStep(),
        ScoreStep(field="a.b", minimum=0),
        ScoreStep(field="other", minimum=0, sources=("elsewhere",)),
    ]
    assert plan(".jsonl", cleaning=steps, adapter=DOTTED).fields == {"page.text", "a.b"}
