"""Builds with --max-tokens: a fair sample, told in the manifest, that fetches what the plan says and little more."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import yaml

from corpus.records.manifest import load_manifest
from corpus.records.stream import load_stream
from tests.conftest import recipe_dict, run_command, write_jsonl
from tests.corpus.test_build import build, tree_hashes
from tests.hub_fixtures import small_tokenizer
from tests.loopback_hub import LoopbackHub


def lines(count: int, seed: int) -> bytes:
    """JSON lines of about 440 bytes, no two alike."""
    words = " ".join(f"{random.Random(seed).getrandbits(24):x}" for _ in range(60))
    return b"".join(json.dumps({"text": f"{seed}-{n} {words}", "n": n}).encode() + b"\n" for n in range(count))


def hub_recipe(tmp_path: Path, files: list[str], **changes: Any) -> Path:
    """A recipe over a dataset of the loopback hub, with a tokenizer of its own that takes no downloads."""
    write_jsonl(tmp_path / "own.jsonl", [{"text": "0123456789abcdef " * 20}] * 40)
    recipe = recipe_dict({"own": ["own.jsonl"]}, unit_bytes=1 << 20, tokens=32 * 4 * 5000)
    recipe["tokenizer"] = {"kind": "file", "path": "tokenizer.json", "bos_token": "<s>"}
    (tmp_path / "tokenizer.json").write_bytes(small_tokenizer())
    recipe["sources"]["big"] = {
        "title": "big", "licence": "CC0-1.0", "approx_bytes_per_token": 2.0,
        "origin": {"kind": "hub", "repo": "org/big", "revision": "main", "files": files},
        "adapter": {"shape": "field", "field": "text"}, **changes,
    }  # fmt: skip
    recipe["mixture"] = {"big": {"source": "big", "weight": 1.0}}
    del recipe["sources"]["own"]
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def planned(recipe: Path, hub: LoopbackHub, limit: str) -> int:
    """What `corpus.plan --online` says the build will download."""
    told = run_command(
        "-m", "corpus.plan", str(recipe), "--max-tokens", limit, "--online", "--json", **hub.environment()
    )
    assert told.returncode == 0, told.stderr
    return int(json.loads(told.stdout)["totals"]["download_bytes"])


def test_a_little_of_large_files_is_fetched_and_the_plan_says_so(tmp_path: Path) -> None:
    files = {f"part{n % 4}/{n:02d}.jsonl": lines(20_000, n) for n in range(8)}  # 9 MB each
    with LoopbackHub(tmp_path / "hub") as hub:
        hub.add_dataset("org/big", files)
        recipe = hub_recipe(tmp_path, ["**/*.jsonl"])
        told = planned(recipe, hub, "40k")
        fetched = {}
        for workers in ("1", "4"):
            hub.requests.clear()
            out = tmp_path / workers
            done = run_command(
                "-m", "corpus.build", str(recipe), "--out", str(out), "--max-tokens", "40k", "--workers", workers,
                **hub.environment(),
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            fetched[workers] = hub.sent("/lfs/")
        assert fetched["1"] == fetched["4"]
        assert abs(fetched["1"] - told) <= 0.1 * told, (fetched, told)
        assert told < sum(map(len, files.values()))
        assert not list((tmp_path / "1" / "downloads" / "datasets").glob("**/*.jsonl"))
        assert tree_hashes(tmp_path / "1") == tree_hashes(tmp_path / "4")
    folder = next((tmp_path / "1" / "streams").glob("big-*"))
    record = load_stream(folder)
    assert record.sampled is not None and record.token_limit is not None
    assert (record.sampled.files, record.sampled.of_files) == (8, 8) and record.sampled.folders == 4
    assert record.sampled.units >= 16 and record.tokens.written >= record.token_limit
    assert record.tokens.written < 1.3 * record.token_limit
    manifests = list((tmp_path / "1").glob("small*/manifest.json"))
    assert load_manifest(manifests[0]).sources["big"].sampled == record.sampled


def test_small_files_are_fetched_whole_as_far_as_they_are_needed(tmp_path: Path) -> None:
    files = {f"{n:02d}.jsonl": lines(400, n) for n in range(60)}
    with LoopbackHub(tmp_path / "hub") as hub:
        hub.add_dataset("org/big", files)
        recipe = hub_recipe(tmp_path, ["*.jsonl"])
        told = planned(recipe, hub, "40k")
        hub.requests.clear()
        done = run_command(
            "-m", "corpus.build", str(recipe), "--out", str(tmp_path / "out"), "--max-tokens", "40k", "--workers", "3",
            **hub.environment(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        fetched = hub.sent("/lfs/")
    assert abs(fetched - told) <= 0.1 * told, (fetched, told)
    assert fetched < 0.7 * sum(map(len, files.values()))


@pytest.mark.parametrize("layout", ["one small file among large ones", "more asked for than there is"])
def test_what_units_lack_others_give(tmp_path: Path, layout: str) -> None:
    """The catalogue's bytes per token are far off, as they may be: the limit is reached all the same."""
    write_jsonl(tmp_path / "a.jsonl", [{"text": f"{n} {'word ' * 40}"} for n in range(2000)])
    write_jsonl(tmp_path / "b.jsonl", [{"text": "short"}] * 3)
    recipe = recipe_dict({"a": ["a.jsonl", "b.jsonl"]}, unit_bytes=1 << 20, tokens=32 * 4 * 400)
    recipe["sources"]["a"]["approx_bytes_per_token"] = 0.2
    if layout == "more asked for than there is":
        recipe["tokens"] = 32 * 4 * 100_000
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump(recipe))
    build(path, tmp_path / "data", "--max-tokens", "20k" if "small" in layout else "10M")
    record = load_stream(next((tmp_path / "data" / "streams").glob("a-*")))
    assert record.token_limit is not None
    if "small" in layout:
        assert record.token_limit <= record.tokens.written < 2 * record.token_limit
    else:
        assert record.documents.read == 2003 and all(unit.complete for unit in record.units)
