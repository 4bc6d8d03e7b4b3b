"""`corpus.sources`: listing, showing and checking catalogue entries."""

import json

import yaml

from corpus.acquire.disk import short_hash, write_note
from corpus.catalogue.load import load_catalogue
from corpus.sources import main


def run(capsys, *argv):
    try:
        main([str(word) for word in argv])
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    out = capsys.readouterr()
    return code, out.out, out.err


def put(mirror, name, size):
    path = mirror / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


def test_the_list_has_every_source(capsys):
    code, out, _ = run(capsys)
    assert code == 0
    for name in load_catalogue():
        assert f" {name} " in out
    assert json.loads(run(capsys, "--json")[1]).keys() == load_catalogue().keys()


def test_an_entry_in_full(capsys):
    _, out, _ = run(capsys, "starcoder")
    shown = yaml.safe_load(out)
    assert shown["gate"].startswith("https://") and shown["redistributable"] is False
    assert shown["stand_ins"] == ["dolma_starcoder", "olmo_mix_starcoder"]
    assert shown["published"][0]["rows"] == 206_640_114
    assert json.loads(run(capsys, "starcoder", "--json")[1]) == shown


def test_unknown_names(capsys):
    assert run(capsys, "starcode") == (2, "", "error: no source is called 'starcode'. Did you mean 'starcoder'?\n")
    assert run(capsys, "--check")[0] == 2


def test_check_counts_files_and_bytes_without_fetching(capsys, tmp_path):
    put(tmp_path, "datasets/allenai/dolmino-mix-1124/data/wiki/wiki-0000.json.gz", 10)
    put(tmp_path, "datasets/allenai/dolmino-mix-1124/data/wiki/wiki-0001.json.gz", 5)
    put(tmp_path, "datasets/allenai/dolmino-mix-1124/data/flan/a.json.gz", 99)
    code, out, _ = run(capsys, "dolmino_wiki", "--check", "--mirror", tmp_path)
    assert (code, out) == (0, "dolmino_wiki: reachable; 2 files, 15 B\n")


def test_check_says_what_is_missing(capsys, tmp_path):
    code, out, _ = run(capsys, "dolmino_wiki", "--check", "--mirror", tmp_path, "--json")
    facts = json.loads(out)
    assert code == 1 and not facts["reachable"] and facts["files"] == 0 and facts["problem"]


def test_check_includes_what_is_joined_in(capsys, tmp_path):
    for name in ("nvidia/OpenCodeReasoning-2/train/python/a.parquet", "nvidia/OpenCodeReasoning-2/train/cpp/a.parquet"):
        put(tmp_path, f"datasets/{name}", 100)
    code, out, _ = run(capsys, "open_code_reasoning_2", "--check", "--mirror", tmp_path)
    assert code == 1 and "taco, which is joined in: " in out
    for name in (
        "BAAI/TACO/ALL/train-0.parquet", "BAAI/TACO/ALL/test-0.parquet", "codeparrot/apps/train.jsonl",
        "codeparrot/apps/test.jsonl", "deepmind/code_contests/data/train-0.parquet",
        "open-r1/codeforces/data/test-0.parquet",
    ):  # fmt: skip
        put(tmp_path, f"datasets/{name}", 1)
    code, out, _ = run(capsys, "open_code_reasoning_2", "--check", "--mirror", tmp_path)
    assert (code, out) == (0, "open_code_reasoning_2: reachable; 8 files, 206 B\n")


def test_embedded_sources_are_always_there(capsys):
    code, out, _ = run(capsys, "python_code", "--check", "--json")
    facts = json.loads(out)
    assert code == 0 and facts["reachable"] and facts["files"] == 1 and facts["bytes"] > 100_000


def test_pins_tell_what_is_read_and_what_is_not_pinned(capsys, tmp_path):
    write_note(
        tmp_path / "downloads/listings/hub" / f"ref-{short_hash('allenai/tulu-3-sft-olmo-2-mixture-0225@main')}.json",
        {"commit": "7" * 40, "resolved": "2026-11-25"},
    )
    code, out, _ = run(capsys, "--pins", "--data", tmp_path, "--json")
    assert code == 0
    found = {(pin["upstream"], pin["revision"]): pin for pin in json.loads(out)}
    for name, source in load_catalogue().items():
        if source.origin.kind == "hub":
            assert name in found[source.origin.repo, source.origin.revision]["sources"]
    loose = {pin["upstream"] for pin in found.values() if pin["revision"] and not pin["pinned"]}
    # Nobody publishes a commit of these two.
    assert loose == {"allenai/tulu-3-sft-olmo-2-mixture-0225", "nvidia/Nemotron-Pretraining-Dataset-sample"}
    tulu = found["allenai/tulu-3-sft-olmo-2-mixture-0225", "main"]
    assert (tulu["commit"], tulu["first_asked"]) == ("7" * 40, "2026-11-25")
    shown = run(capsys, "--pins", "--data", tmp_path / "none")[1]
    assert "not pinned: allenai/tulu-3-sft-olmo-2-mixture-0225, nvidia/Nemotron-Pretraining-Dataset-sample" in shown
