"""Every recipe built whole from a loopback hub with small copies of all sources; gates, faults, mirrors, kills."""

from __future__ import annotations

import contextlib
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from corpus.catalogue.load import load_catalogue
from corpus.recipe.model import load_recipe
from corpus.recipe.shares import draws
from corpus.records.manifest import Manifest, load_manifest
from corpus.records.stream import Tokenizer, load_stream
from corpus.sources import main as sources_main
from corpus.streams.samples import decode_samples
from tests.conftest import ROOT, environment, run_command, user_error
from tests.hub_fixtures import SMALL_VOCABULARY, TOKEN, Expected, fill, revision_of, small_tokenizer
from tests.loopback_hub import Fault, Faults, LoopbackHub
from tests.waiting import wait_until

RECIPES = sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml") if path.stem not in ("sample", "own_data"))
TRUE_TOKENIZER = {"r1_phase2": 128_256, "pro_phase1": 202_048, "mobilellm": SMALL_VOCABULARY}
"""Vocabularies of the recipes built with their own tokenizer. The Llama ones take seconds to load in every process, so
the other recipes find a small tokenizer where the converted one would lie."""
EVERYTHING = [name for name, source in load_catalogue().items() if source.origin.kind != "embedded"]
SOME = [
    "starcoder", "dolmino_math", "nemotron_cc_math", "algebraic_stack", "redpajama_arxiv", "redpajama_stackexchange",
    "natural_reasoning", "gsm8k", "piqa", "open_code_reasoning_2",
]  # fmt: skip
"""Sources that between them have every origin, gate, format and join."""


class Served:
    """The hub, what each source of it holds, and a folder for builds."""

    def __init__(self, hub: LoopbackHub, expected: dict[str, Expected], folder: Path) -> None:
        self.hub, self.expected, self.folder = hub, expected, folder

    def command(self, recipe: Path, out: Path, *options: str) -> list[str]:
        """Arguments of a build."""
        return ["-m", "corpus.build", str(recipe), "--out", str(out), "--workers", "2", *options]

    def environment(self, **changes: str) -> dict[str, str]:
        """Environment of a build that reads from the hub and is logged in."""
        return {**self.hub.environment(), "HF_TOKEN": TOKEN, **changes}

    def build(self, recipe: Path, out: Path, *options: str, **changes: str) -> Manifest:
        """Run a build to its end; the token must be in nothing it says."""
        result = run_command(*self.command(recipe, out, *options), **self.environment(**changes))
        assert result.returncode == 0, result.stderr[-3000:]
        assert TOKEN not in result.stdout + result.stderr
        return load_manifest(out / yaml.safe_load(recipe.read_text())["name"])

    def check(self, manifest: Manifest, name: str) -> None:
        """One mixture entry of a manifest against what the hub serves and the catalogue says."""
        entry = manifest.sources[name]
        expected, source = self.expected[entry.source], load_catalogue()[entry.source]
        documents = entry.documents
        assert documents.dropped == dict(expected.dropped), entry.source
        assert (documents.read, documents.kept) == (expected.read, expected.kept), entry.source
        assert entry.samples > 0 and entry.tokens == entry.samples * (manifest.seq_len + 1) > 0
        assert entry.epochs == entry.samples_drawn / entry.samples
        assert (entry.licence, entry.redistributable) == (source.licence, source.redistributable)
        commit = revision_of(self.hub, entry.source)
        assert entry.revision == commit if commit else len(entry.revision) in (40, 64)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("whole")
    with LoopbackHub(folder / "hub", page=7) as hub:
        yield Served(hub, fill(hub), folder)


def write_recipe(folder: Path, name: str, sources: list[str], **changes: Any) -> Path:
    """A recipe over sources of the catalogue, with a tokenizer that loads quickly."""
    recipe = {
        "name": name,
        "family": "sample",
        "phase": "phase1",
        "summary": "a test",
        "tokenizer": {
            "kind": "hub", "repo": "TinyLlama/TinyLlama_v1.1", "revision": "main",
            "bos_token": "<s>", "eos_token": "</s>",
        },
        "seq_len": 256,
        "boundary": "both",
        "tokens": 256 * 4 * 1000,
        "mixture": {source: {"source": source, "weight": 1} for source in sources},
        "training": {
            "global_batch": 4,
            "optimizer": {"lr": 1e-3},
            "schedule": {"kind": "linear", "warmup_steps": 2, "final_fraction": 0.1},
        },
        **changes,
    }  # fmt: skip
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def streams(manifest: Manifest, out: Path) -> dict[str, dict[str, Any]]:
    """Of each stream the record, with the hashes of its index and so of its shards."""
    return {
        name: load_stream(out / manifest.recipe / entry.stream).model_dump(mode="json")
        for name, entry in manifest.sources.items()
    }


def files_with(text: str, folder: Path) -> list[Path]:
    """Files below a folder that hold a text, or have it in their name."""
    return [
        path
        for path in folder.rglob("*")
        if text in path.name or (path.is_file() and text.encode() in path.read_bytes())
    ]


def put_small_llama(data: Path) -> None:
    """A small tokenizer in the place where a build keeps the converted Llama 3 one."""
    folder = data / "tokenizers" / "llama3"
    if folder.is_dir():
        return
    folder.mkdir(parents=True)
    ends = {"<s>": "<|begin_of_text|>", "</s>": "<|end_of_text|>"}
    content = small_tokenizer(*ends.values())
    (folder / "tokenizer.json").write_bytes(content)
    facts = Tokenizer(
        name="llama3", sha256=hashlib.sha256(content).hexdigest(), vocab_size=SMALL_VOCABULARY, bos_id=1, eos_id=2,
        path="tokenizers/llama3",
    )  # fmt: skip
    meta = {"bos_token": ends["<s>"], "eos_token": ends["</s>"], "tokenizer": facts.model_dump(mode="json")}
    (folder / "meta.json").write_text(json.dumps(meta))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_built_whole(served: Served, name: str) -> None:
    path = ROOT / "recipes" / f"{name}.yaml"
    data = served.folder / ("data-true" if name in TRUE_TOKENIZER else "data-small")
    if name not in TRUE_TOKENIZER:
        put_small_llama(data)
    recipe = load_recipe(path)
    manifest = served.build(path, data)
    assert manifest.tokenizer.vocab_size == TRUE_TOKENIZER.get(name, SMALL_VOCABULARY)
    assert list(manifest.sources) == list(recipe.mixture)
    for entry in manifest.sources:
        served.check(manifest, entry)
    assert (manifest.tokens, manifest.steps) == (recipe.tokens, recipe.steps)
    assert manifest.weight_sum == recipe.weight_sum()
    drawn = draws({n: e.weight for n, e in recipe.mixture.items()}, recipe.samples)
    assert {n: s.samples_drawn for n, s in manifest.sources.items()} == drawn
    assert sum(s.tokens_drawn for s in manifest.sources.values()) == recipe.tokens
    assert abs(sum(s.weight for s in manifest.sources.values()) - 1) < 1e-12
    assert not files_with(TOKEN, data)


@pytest.fixture(scope="module")
def everything(served: Served) -> tuple[Path, Manifest]:
    """(data folder, manifest) of one build over every source of the catalogue but the embedded ones."""
    recipe = write_recipe(served.folder, "everything", EVERYTHING)
    out = served.folder / "everything-data"
    return out, served.build(recipe, out)


def test_every_source_of_the_catalogue_can_be_built(served: Served, everything: tuple[Path, Manifest]) -> None:
    _, manifest = everything
    assert list(manifest.sources) == EVERYTHING
    for name in EVERYTHING:
        served.check(manifest, name)


@pytest.mark.parametrize(
    ("source", "wanted", "absent"),
    [
        ("gsm8k", "He has 2*3=6 apples. ", "<<"),
        ("openbookqa", " ", "Answer:"),
        ("arc_challenge", "\nAnswer: ", "Z"),
        ("open_code_reasoning_2", "User: taco train 1 question 1: ", "User: -"),
        ("natural_reasoning", "\n\nAnswer: ", "some-model"),
        ("nemotron_science", "System: Be brief.\n\nUser: ", "detailed thinking"),
        ("starcoder", "<reponame>ann/demo<gh_stars>3", "max_stars"),
    ],
)
def test_records_become_the_text_that_is_meant(
    everything: tuple[Path, Manifest], source: str, wanted: str, absent: str
) -> None:
    out, manifest = everything
    folder = out / manifest.recipe / manifest.sources[source].stream
    record = load_stream(folder)
    decoded = decode_samples(folder, record, record.samples)
    text = "".join(document["text"] for _, documents in decoded for document in documents)
    assert wanted in text
    assert absent not in text


def test_closed_gates_are_named_all_at_once_before_any_work(served: Served, tmp_path: Path) -> None:
    recipe = ROOT / "recipes" / "r1_mid2.yaml"
    for token in ("", "a-token-without-access"):
        out = tmp_path / f"data{len(token)}"
        result = run_command(*served.command(recipe, out), **served.environment(HF_TOKEN=token))
        line = user_error(result)
        assert "3 of 17 sources cannot be read" in line
        for repo in ("bigcode/starcoderdata", "nvidia/Nemotron-Pretraining-Code-v1", "nvidia/Nemotron-CC-Math-v1"):
            assert f"https://huggingface.co/datasets/{repo}" in result.stderr
        assert not token or (token not in result.stderr and not files_with(token, out))
        assert not (out / "streams").exists() and not (out / "downloads" / "datasets").exists()


def test_stand_ins_take_the_place_of_gated_sources(served: Served, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "open", ["starcoder", "nemotron_cc_math", "gsm8k"])
    manifest = served.build(recipe, tmp_path / "data", "--stand-ins", HF_TOKEN="")
    used = [entry.source for entry in manifest.sources.values()]
    assert used == ["dolma_starcoder", "nemotron_sample_cc_math", "gsm8k"]
    for name in manifest.sources:
        served.check(manifest, name)


def test_sources_check_counts_files_and_bytes(
    served: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sent = served.hub.sent("")

    def check(name: str, code: int, token: str = TOKEN) -> dict[str, Any]:
        for variable, value in served.environment(HF_TOKEN=token).items():
            monkeypatch.setenv(variable, value)
        with pytest.raises(SystemExit) as ended:
            sources_main([name, "--check", "--json"])
        assert ended.value.code == code, name
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    for name in EVERYTHING:
        found, expected = check(name, 0), served.expected[name]
        assert (found["reachable"], found["gated"], found["problem"]) == (True, False, None), name
        assert found["files"] == expected.files + expected.joined_files, name
        assert found["bytes"] == expected.bytes + expected.joined_bytes, name
    gated = check("starcoder", 1, token="")
    assert (gated["reachable"], gated["gated"], gated["files"]) == (True, True, served.expected["starcoder"].files)
    assert "https://huggingface.co/datasets/bigcode/starcoderdata" in gated["fix"]
    assert served.hub.sent("") - sent < 2_000_000  # listings, and nothing of the files


class Rough(Faults):
    """Every few requests something goes wrong, in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.requests = self.bodies = self.done = 0

    def take(self, path: str, *kinds: str) -> Fault | None:
        """See Faults."""
        with self._guard:
            if "status" in kinds:
                self.requests += 1
                turn, late = divmod(self.requests, 7)
                code, after = [(503, None), (429, "0"), (429, "1"), (502, None)][turn % 4]
                fault = Fault("status", "", 1, code=code, retry_after=after) if late == 0 else None
            else:
                self.bodies += 1
                fault = Fault("cut", "", 1, after=self.bodies * 37 % 900) if self.bodies % 5 == 0 else None
            self.done += fault is not None
            return fault


@contextlib.contextmanager
def rough(hub: LoopbackHub) -> Iterator[Rough]:
    smooth, hub.faults = hub.faults, Rough()
    try:
        yield hub.faults
    finally:
        hub.faults = smooth


def same_as(everything: tuple[Path, Manifest], manifest: Manifest, out: Path) -> None:
    """The streams are those of the build over everything, byte for byte."""
    whole = streams(everything[1], everything[0])
    assert streams(manifest, out) == {name: whole[name] for name in SOME}


def test_a_failing_server_changes_nothing(served: Served, everything: tuple[Path, Manifest], tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, "some", SOME)
    with rough(served.hub) as faults:
        manifest = served.build(recipe, tmp_path / "data", "--delete-downloads")
    assert faults.done > 15
    same_as(everything, manifest, tmp_path / "data")
    assert downloaded(tmp_path / "data") == 0


def test_a_build_killed_while_it_downloads_goes_on(
    served: Served, everything: tuple[Path, Manifest], tmp_path: Path
) -> None:
    recipe, out = write_recipe(tmp_path, "some", SOME), tmp_path / "data"
    served.hub.faults.slow("stackexchange.jsonl", seconds=0.3)
    env = environment(**served.environment())
    process = subprocess.Popen(
        [sys.executable, *served.command(recipe, out)], cwd=ROOT, env=env, stderr=subprocess.DEVNULL
    )
    assert wait_until(
        lambda: any(path.stat().st_size > 150_000 for path in out.glob("downloads/partial/*.part")),
        lambda: process.poll() is None,
    )
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    served.hub.faults.clear()
    before = len(served.hub.requests)
    manifest = served.build(recipe, out)
    same_as(everything, manifest, out)
    asked = [r.range for r in served.hub.requests[before:] if "stackexchange.jsonl" in r.path and r.method == "GET"]
    assert asked and asked[0] is not None  # it went on where it was


def downloaded(out: Path) -> int:
    """Bytes of the downloads that are still there."""
    folders = (out / "downloads" / kind for kind in ("datasets", "urls"))
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def test_downloads_within_a_bound_give_the_same_streams(
    served: Served, everything: tuple[Path, Manifest], tmp_path: Path
) -> None:
    recipe, out = write_recipe(tmp_path, "some", SOME), tmp_path / "data"
    manifest = served.build(recipe, out, "--cache-limit", "2.7M")
    same_as(everything, manifest, out)
    assert 0 < downloaded(out) <= 2_700_000 < sum(served.expected[name].bytes for name in SOME)
    # Files that are joined first must be there together: too many of them are refused, not waited for.
    joined = write_recipe(tmp_path, "joined", ["open_code_reasoning_2"])
    command = served.command(joined, tmp_path / "joined", "--cache-limit", "100K")
    assert "Raise --cache-limit" in user_error(run_command(*command, **served.environment()))


def test_a_tokenizer_is_trained_on_downloads_within_a_bound(served: Served, tmp_path: Path) -> None:
    sources = ["starcoder", "algebraic_stack"]
    recipe = write_recipe(tmp_path, "trained", sources, tokenizer={"kind": "train", "vocab_size": 600})
    manifest = served.build(recipe, tmp_path / "data", "--cache-limit", "40K")
    for name in sources:
        served.check(manifest, name)


def test_a_mirror_gives_the_same_text(served: Served, everything: tuple[Path, Manifest], tmp_path: Path) -> None:
    """From a copy of the hub's files, without any request; only what names the revision may differ."""
    before = len(served.hub.requests)
    recipe, out = write_recipe(tmp_path, "some", SOME), tmp_path / "data"
    manifest = served.build(recipe, out, "--mirror", str(served.hub.root), HF_TOKEN="")
    assert len(served.hub.requests) == before
    whole = streams(everything[1], everything[0])
    for name, record in streams(manifest, out).items():
        for part in ("documents", "tokens", "samples", "text_bytes", "licence", "lengths"):
            assert record[part] == whole[name][part], (name, part)
        if record["origin"]["kind"] == "hub":
            # Pinned: streams made from the hub and from its mirror are one.
            assert record["key"] == whole[name]["key"], name
