"""A build that is run again goes on with the data it began with, and tells no secret of where it came from."""

from __future__ import annotations

import json
import time
from pathlib import Path

import yaml

from tests.conftest import documents, recipe_dict, run_command, user_error
from tests.hub_fixtures import small_tokenizer
from tests.loopback_hub import LoopbackHub

SECRET = "sig=VERYSECRET"  # noqa: S105


def recipe(folder: Path, origin: dict[str, object]) -> Path:
    data = recipe_dict({"a": ["unused"]})
    data["sources"]["a"]["origin"] = origin
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def rows(seed: int) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in documents(200, seed=seed)).encode()


def build(path: Path, out: Path, hub: LoopbackHub, *options: str) -> str:
    arguments = ["-m", "corpus.build", str(path), "--out", str(out), "--workers", "1", *options]
    result = run_command(*arguments, **hub.environment())
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout + result.stderr


def test_an_edit_of_another_file_upstream_makes_nothing_again(tmp_path: Path) -> None:
    with LoopbackHub(tmp_path / "hub") as hub:
        first = hub.add_dataset("org/name", {"data/a.jsonl": rows(1), "README.md": b"one"})
        path = recipe(tmp_path, {"kind": "hub", "repo": "org/name", "revision": "main", "files": ["data/*"]})
        out = tmp_path / "data"
        build(path, out, hub)
        sent = hub.sent("a.jsonl")
        streams = {file.name for file in (out / "streams").iterdir()}
        # Even of other rows, as long as nobody asks for them.
        hub.add_dataset("org/name", {"data/a.jsonl": rows(2), "README.md": b"one"})
        assert "units of" not in build(path, out, hub)
        second = hub.add_dataset("org/name", {"data/a.jsonl": rows(1), "README.md": b"two"})
        assert "units of" not in build(path, out, hub, "--refresh")
        assert {file.name for file in (out / "streams").iterdir()} == streams
        assert second != first and hub.sent("a.jsonl") == sent
        (record,) = (json.loads(file.read_bytes()) for file in out.glob("streams/*/stream.json"))
        assert record["revision"] == first and record["origin"]["commits"] == {"org/name": first}
        hub.add_dataset("org/name", {"data/a.jsonl": rows(2), "README.md": b"two"})
        assert "units of" in build(path, out, hub, "--refresh")


def test_a_signed_url_stays_out_of_what_a_build_writes_and_says(tmp_path: Path) -> None:
    with LoopbackHub(tmp_path / "hub") as hub:
        url = f"https://files.example/a.jsonl?{SECRET}"
        hub.add_url(url, rows(1))
        path = recipe(tmp_path, {"kind": "urls", "urls": [url]})
        out = tmp_path / "data"
        hub.faults.status("a.jsonl", 503)
        said = build(path, out, hub)
        written = b"".join(
            file.read_bytes()
            for part in ("streams", "small", "tokenizers")
            for file in (out / part).rglob("*.[jh][st]*")
        )
        assert b"files.example/a.jsonl" in written
        assert SECRET.encode() not in written and SECRET not in said


def test_a_tokenizer_of_a_branch_stays_too_and_without_a_network_it_is_said_soon(tmp_path: Path) -> None:
    path = recipe(tmp_path, {"kind": "files", "paths": ["a.jsonl"]})
    (tmp_path / "a.jsonl").write_bytes(rows(1))
    raw = yaml.safe_load(path.read_text())
    raw["tokenizer"] = {"kind": "hub", "repo": "org/tok", "revision": "main", "bos_token": "<s>", "eos_token": "</s>"}
    path.write_text(yaml.safe_dump(raw))
    away = {"HF_ENDPOINT": "http://127.0.0.1:9"}
    arguments = ["-m", "corpus.build", str(path), "--out", str(tmp_path / "data"), "--workers", "1"]
    started = time.monotonic()
    line = user_error(run_command(*arguments, **away))
    assert "no hub can be reached: 127.0.0.1:9" in line and "--mirror" in line and time.monotonic() - started < 60
    with LoopbackHub(tmp_path / "hub") as hub:
        hub.add_model("org/tok", {"tokenizer.json": small_tokenizer()})
        build(path, tmp_path / "data", hub)
        sent = hub.sent("tokenizer.json")
        build(path, tmp_path / "data", hub)
        assert hub.sent("tokenizer.json") == sent > 0
    assert run_command(*arguments, **away).returncode == 0
