"""Settings of the machine that no request can succeed with, and networks that are not there: told at once, by name."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from corpus.acquire import AcquireConfig, fetch, list_files, network, preflight
from corpus.acquire.origins import HubOrigin, S3Origin, UrlsOrigin
from corpus.base.errors import UserError
from tests.conftest import ROOT, run_command, user_error

ROWS = b'{"text": "a row"}\n'
PIN = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("REQUESTS_CA_BUNDLE", "/missing/ca.pem", "/missing/ca.pem does not exist"),
        ("CURL_CA_BUNDLE", "/missing/ca.pem", "/missing/ca.pem does not exist"),
        ("SSL_CERT_FILE", "/missing/ca.pem", "/missing/ca.pem does not exist"),
        ("HTTPS_PROXY", "http://me:SECRET@proxy:port", "http://...@proxy:port is no proxy: Port"),
        ("HTTPS_PROXY", "ftp://proxy", "ftp://proxy is no proxy: the scheme is 'ftp'"),
        ("http_proxy", "http://", "http:// is no proxy: it has no host"),
        ("HTTP_PROXY", "http://me:SECRET@127.0.0.1:9", "the proxy http://...@127.0.0.1:9 cannot be reached"),
        ("HF_ENDPOINT", "huggingface.co", "huggingface.co is no address of a server: it has no scheme"),
        ("HF_ENDPOINT", "hf://huggingface.co", "the scheme is 'hf'"),
        ("AWS_ENDPOINT_URL", "minio:9000", "it has no scheme"),
    ],
)
def test_a_wrong_setting_is_named_and_not_retried(hub, config, make_source, monkeypatch, name, value, said):
    hub.add_dataset("org/name", {"data/a": ROWS})
    source = make_source(HubOrigin(repo="org/name", revision="main", files=["data/*"]))
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setenv(name, value)
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        preflight({"toy": source}, config)
    assert time.monotonic() - started < 20
    assert caught.value.where == name and said in caught.value.what and "SECRET" not in str(caught.value)
    # A source on this machine needs no network.
    (config.base_dir / "a.jsonl").write_bytes(ROWS)
    from corpus.acquire.origins import FilesOrigin

    preflight({"own": make_source(FilesOrigin(paths=["a.jsonl"]))}, config)


def test_a_setting_that_is_wrong_for_a_worker_alone_is_named_too(hub, config, make_source, monkeypatch):
    hub.add_dataset("org/name", {"data/a": ROWS})
    hub.add_url("https://files.example/a.jsonl", ROWS)
    sources = [
        make_source(HubOrigin(repo="org/name", revision="main", files=["data/*"])),
        make_source(UrlsOrigin(urls=["https://files.example/a.jsonl"])),
    ]
    listings = [list_files(source, config) for source in sources]
    monkeypatch.setenv("CORPUS_URLS_ENDPOINT", "https://127.0.0.1:9")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/missing/ca.pem")
    with pytest.raises(UserError, match=r"REQUESTS_CA_BUNDLE: /missing/ca.pem does not exist"):
        fetch(sources[1], listings[1], listings[1].files[0], config)
    monkeypatch.setenv("HF_ENDPOINT", "https://127.0.0.1:9")
    with pytest.raises(UserError, match=r"REQUESTS_CA_BUNDLE: /missing/ca.pem does not exist"):
        list_files(sources[0], AcquireConfig(cache=config.cache / "other"))


def test_without_a_network_it_is_said_once_and_soon(config, make_source, monkeypatch):
    monkeypatch.setattr(network, "PAUSE", 0.01)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:10")
    monkeypatch.setenv("CORPUS_URLS_ENDPOINT", "http://127.0.0.1:11")
    sources = {f"s{n}": make_source(HubOrigin(repo=f"o/r{n}", revision=PIN, files=["*"])) for n in range(12)}
    sources["url"] = make_source(UrlsOrigin(urls=["https://files.example/a.jsonl"]))
    sources["store"] = make_source(S3Origin(paths=["s3://bucket/*"]))
    started = time.monotonic()
    with pytest.raises(UserError) as caught:
        preflight(sources, config)
    assert time.monotonic() - started < 20
    first, *rest = caught.value.lines()
    assert first.startswith("no hub can be reached: 127.0.0.1:9 (connection refused)")
    assert "--mirror" in first and "--offline" in first
    assert rest == [
        *(f"  s{n}: 127.0.0.1:9" for n in range(12)), "  url: 127.0.0.1:11", "  store: 127.0.0.1:10",
    ]  # fmt: skip


def test_one_server_that_is_away_is_told_beside_other_errors(hub, config, make_source, monkeypatch):
    monkeypatch.setattr(network, "PAUSE", 0.01)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    hub.add_dataset("org/name", {"data/a": ROWS})
    sources = {
        "fine": make_source(HubOrigin(repo="org/name", revision="main", files=["data/*"])),
        "none": make_source(HubOrigin(repo="org/none", revision="main", files=["data/*"])),
        "store": make_source(S3Origin(paths=["s3://bucket/*"])),
    }
    with pytest.raises(UserError) as caught:
        preflight(sources, config)
    assert caught.value.what == "2 of 3 sources cannot be read"
    assert [detail.split(": ")[0] for detail in caught.value.details] == ["none", "store"]


def test_what_is_all_here_needs_no_network(hub, config, make_source, monkeypatch):
    hub.add_dataset("org/name", {"data/a": ROWS})
    source = make_source(HubOrigin(repo="org/name", revision="main", files=["data/*"]))
    listing = list_files(source, config)
    fetch(source, listing, listing.files[0], config)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert preflight({"toy": source}, config)["toy"].revision == listing.revision


def test_a_build_says_it_on_one_line_and_one_a_source(tmp_path: Path) -> None:
    recipe = str(ROOT / "recipes" / "r1_phase2.yaml")
    arguments = ["-m", "corpus.build", recipe, "--out", str(tmp_path / "data")]
    unreachable = {"HF_ENDPOINT": "http://127.0.0.1:9", "CORPUS_URLS_ENDPOINT": "http://127.0.0.1:9"}
    result = run_command(*arguments, **unreachable)
    assert "no hub can be reached" in user_error(result)
    lines = result.stderr.splitlines()
    at = next(place for place, line in enumerate(lines) if line.startswith("error:"))
    assert len(lines) - at == 1 + 14 and all(line.startswith("  ") for line in lines[at + 1 :])
