"""Tokenizers made elsewhere: from a file or a hub, what their records say, and what goes wrong with them."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from corpus.acquire import AcquireConfig, network
from corpus.base.errors import UserError
from corpus.base.files import fingerprint
from corpus.records.manifest import load_manifest
from corpus.records.stream import Tokenizer, load_stream
from corpus.tokenization import hub as seam
from corpus.tokenization.hub import hub_tokenizer
from corpus.tokenization.resolve import resolve_tokenizer
from corpus.tokenization.specs import FileTokenizer, HubTokenizer
from tests.conftest import run_command, user_error
from tests.corpus.tokenization.variants import byte_level, with_token, written
from tests.loopback_hub import LoopbackHub


def lossy() -> dict[str, Any]:
    """Without spaces."""
    return byte_level() | {"pre_tokenizer": {"type": "Whitespace"}}


def test_a_build_refuses_a_lossy_tokenizer_or_records_the_loss(
    make_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    written(tmp_path / "tok", lossy())
    given: dict[str, Any] = {"kind": "file", "path": "tok", "bos_token": "<s>"}
    command = ["-m", "corpus.build", str(make_recipe(tokenizer=given)), "--out", str(tmp_path / "data")]
    error = user_error(run_command(*command, "--workers", "1"))
    assert "tokenizer tok: this tokenizer loses text: of 'The caf" in error.replace('"', "'")
    assert "tokenizer.allow_lossy: true" in error and not (tmp_path / "data" / "streams").exists()
    make_recipe(tokenizer=given | {"allow_lossy": True})
    result = run_command(*command, "--workers", "1")
    assert result.returncode == 0 and "note: this tokenizer loses text, as the recipe allows" in result.stderr
    manifest = load_manifest(tmp_path / "data" / "small")
    record = load_stream(tmp_path / "data" / "small" / manifest.sources["a"].stream)
    assert manifest.tokenizer.loses and manifest.tokenizer.loses == record.tokenizer.loses


def test_recipes_and_records_without_the_new_keys_keep_their_fingerprints() -> None:
    spec = FileTokenizer(path="tok", bos_token="<s>")  # noqa: S106
    assert spec.model_dump(mode="json") == {"kind": "file", "path": "tok", "bos_token": "<s>", "eos_token": None}
    assert spec.model_copy(update={"allow_lossy": True}).model_dump()["allow_lossy"] is True
    old = {"name": "t", "sha256": "0", "vocab_size": 3, "bos_id": 0, "eos_id": None, "path": "tokenizers/t"}
    record = Tokenizer.model_validate(old)
    assert fingerprint(record.model_dump(mode="json")) == fingerprint(old)
    assert Tokenizer.model_validate(old | {"commit": "c"}).model_dump(mode="json") == old | {"commit": "c"}


def test_a_missing_special_token_names_the_file_and_those_that_are_near(tmp_path: Path) -> None:
    data = byte_level()
    for number in range(300):
        data = with_token(data, f"<|reserved_{number}|>", special=True)
    data = with_token(data, "<|begin_of_text|>", special=True)
    path = written(tmp_path / "tok", data)
    spec = FileTokenizer(path=str(path.parent), bos_token="<|begin_of_txt|>")  # noqa: S106
    with pytest.raises(UserError) as told:
        resolve_tokenizer(spec, "bos", "r", {}, AcquireConfig(tmp_path / "c"), tmp_path / "data", print)
    line = told.value.one_line()
    assert line.startswith(f"{path}: '<|begin_of_txt|>' is no special token") and "'<|begin_of_text|>'" in line
    assert len(line) < 400


def test_the_commit_of_a_hub_tokenizer_is_recorded_and_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = HubTokenizer(repo="org/tok", revision="main", bos_token="<s>")  # noqa: S106
    config = AcquireConfig(tmp_path / "cache")

    def resolved(data: str) -> Tokenizer:
        return resolve_tokenizer(spec, "bos", "r", {}, config, tmp_path / data, print)

    with LoopbackHub(tmp_path / "hub") as hub:
        for name, value in hub.environment().items():
            monkeypatch.setenv(name, value)
        commit = hub.add_model("org/tok", {"tokenizer.json": json.dumps(byte_level()).encode()})
        first = resolved("data")
        assert first.commit == commit and len(commit) == 40
        assert resolved("data") == first
        hub.add_model("org/tok", {"tokenizer.json": json.dumps(with_token(byte_level(), "<x>")).encode()})
        before = len(hub.requests)
        assert resolved("elsewhere") == first, "a branch that moves on does not move a build"
        assert len(hub.requests) == before
        config = replace(config, refresh=True)
        assert resolved("elsewhere").commit not in (commit, None), "but --refresh does"
    mirrored = AcquireConfig(tmp_path / "cache", mirror=tmp_path / "hub")
    assert hub_tokenizer(spec, mirrored, print)[1] is None


def test_without_a_network_it_gives_up_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def unknown(*_: Any, **__: Any) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", unknown)
    monkeypatch.setattr(network, "PAUSE", 0.0)
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.invalid")
    for name in network.PROXIES:
        monkeypatch.delenv(name, raising=False)
    news: list[str] = []
    spec = HubTokenizer(repo="org/tok", revision="main")
    with pytest.raises(UserError, match=r"no hub can be reached: hub\.invalid \(its name is not known .*--mirror"):
        hub_tokenizer(spec, AcquireConfig(tmp_path), news.append)
    assert news == [] and capfd.readouterr().err == ""
    with pytest.raises(UserError, match="without --offline"):
        hub_tokenizer(spec, AcquireConfig(tmp_path, offline=True), news.append)


def test_a_hub_that_hangs_up_is_not_asked_for_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """The library's own retries stay, in silence; ours are few, one line each."""
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setattr(network, "unreachable", lambda _: {})
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name in network.PROXIES:
        monkeypatch.delenv(name, raising=False)
    news: list[str] = []
    with pytest.raises(UserError, match="the hub gave no answer"):
        hub_tokenizer(HubTokenizer(repo="org/tok", revision="main"), AcquireConfig(tmp_path), news.append)
    assert len(news) == seam.CONNECTION_ATTEMPTS - 1
    assert "Retrying" not in capfd.readouterr().err
