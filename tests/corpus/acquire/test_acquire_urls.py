"""Plain URLs: what a pattern stands for, resume guarded by ETag, and lists that change."""

from __future__ import annotations

import random

import pytest

from corpus.acquire import AcquireConfig, check, fetch, list_files, transfer
from corpus.acquire.origins import UrlsOrigin
from corpus.acquire.urls import expand
from corpus.base.errors import UserError

BIG = random.Random(2).randbytes(2 << 20)
HOST = "https://files.example"


def test_ranges_keep_their_zeros():
    assert expand("a-{08..11}.gz", "s") == ["a-08.gz", "a-09.gz", "a-10.gz", "a-11.gz"]
    assert expand("{0..1}/{00..01}", "s") == ["0/00", "0/01", "1/00", "1/01"]
    assert expand("plain", "s") == ["plain"]
    for pattern in ("{5..4}", "{0..99999999}", "{0..9999}{0..9999}"):
        with pytest.raises(UserError, match="empty or too long"):
            expand(pattern, "s")


def test_a_range_of_urls_is_listed_and_fetched(hub, config, make_source):
    for number in range(3):
        hub.add_url(f"{HOST}/v1/part-{number:02d}.jsonl", b"%d" % number)
    source = make_source(UrlsOrigin(urls=[f"{HOST}/v1/part-{{00..02}}.jsonl"]))
    listing = list_files(source, config)
    assert [(file.name, file.size) for file in listing.files] == [(f"v1/part-0{n}.jsonl", 1) for n in range(3)]
    assert listing.files[0].url == f"{HOST}/v1/part-00.jsonl"
    assert [fetch(source, listing, file, config).read_bytes() for file in listing.files] == [b"0", b"1", b"2"]
    seen = len(hub.requests)
    assert list_files(source, config) == listing
    assert len(hub.requests) == seen
    offline = AcquireConfig(cache=config.cache, offline=True)
    assert fetch(source, listing, listing.files[2], offline).read_bytes() == b"2"
    mirrored = AcquireConfig(cache=config.cache, mirror=hub.root)
    copies = list_files(source, mirrored)
    assert [(file.name, file.size) for file in copies.files] == [(file.name, file.size) for file in listing.files]
    assert all(file.digest and file.digest.startswith("sha256:") for file in copies.files)


def test_a_list_of_urls_is_read_filtered_and_resolved(hub, config, make_source):
    hub.add_url(f"{HOST}/all/list.txt", f"sub/a.jsonl\n\n# no\n{HOST}/b.jsonl\n{HOST}/c.txt\nsub/a.jsonl\n".encode())
    hub.add_url(f"{HOST}/all/sub/a.jsonl", b"a")
    hub.add_url(f"{HOST}/b.jsonl", b"b")
    origin = UrlsOrigin(url_list=f"{HOST}/all/list.txt", match="*.jsonl")
    assert [file.name for file in list_files(make_source(origin), config).files] == ["all/sub/a.jsonl", "b.jsonl"]
    none = make_source(UrlsOrigin(url_list=f"{HOST}/all/list.txt", match="*.zip"))
    assert "no URL is left" in (check(none, config).problem or "")


def test_a_cut_download_continues_only_while_the_file_is_the_same(hub, config, make_source, monkeypatch):
    hub.add_url(f"{HOST}/big.bin", BIG)
    source = make_source(UrlsOrigin(urls=[f"{HOST}/big.bin"]))
    listing = list_files(source, config)
    monkeypatch.setattr(transfer, "ATTEMPTS", 1)
    hub.faults.cut("big.bin", after=1_500_000)
    with pytest.raises(UserError, match="gave up"):
        fetch(source, listing, listing.files[0], config)
    hub.add_url(f"{HOST}/big.bin", BIG[::-1])
    with pytest.raises(UserError, match=r"big\.bin: was changed on the server since it was listed.*--refresh"):
        fetch(source, listing, listing.files[0], config)
    hub.add_url(f"{HOST}/big.bin", BIG)
    assert fetch(source, listing, listing.files[0], config).read_bytes() == BIG
    assert hub.requests[-1].range == "bytes=1500000-"
    hub.add_url(f"{HOST}/big.bin", BIG + b"more")
    other = AcquireConfig(cache=config.cache / "other")
    with pytest.raises(UserError, match="2,097,156 bytes now, but had 2,097,152"):
        fetch(source, listing, listing.files[0], other)


def test_missing_and_denied_urls_name_the_file(hub, config, make_source):
    hub.add_url(f"{HOST}/a.jsonl", b"a")
    absent = check(make_source(UrlsOrigin(urls=[f"{HOST}/a.jsonl", f"{HOST}/none.jsonl"])), config)
    assert not absent.reachable
    assert "answered 404" in (absent.problem or "")
    hub.faults.status("a.jsonl", 403, times=2)
    denied = check(make_source(UrlsOrigin(urls=[f"{HOST}/a.jsonl"])), config)
    assert denied.gated
    assert "access denied (403)" in (denied.problem or "")


def test_a_server_without_head_is_asked_with_a_range(hub, config, make_source):
    hub.add_url(f"{HOST}/a.jsonl", b"abc")
    hub.faults.status("a.jsonl", 405)
    listing = list_files(make_source(UrlsOrigin(urls=[f"{HOST}/a.jsonl"])), config)
    assert listing.files[0].size == 3


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("file:///etc/passwd", "not an http"),
        (f"{HOST}/../x", r"'\.\.' part"),
        (f"{HOST}/%2e%2e/x", r"'\.\.' part"),
        (f"{HOST}/a%00", "control character"),
        ("https://me:secret@files.example/x", "user name or password"),
    ],
)
def test_hostile_urls_are_refused(hub, config, make_source, url, problem):
    with pytest.raises(UserError, match=problem) as caught:
        list_files(make_source(UrlsOrigin(urls=[url])), config)
    assert "secret" not in str(caught.value)
    assert not hub.requests


def test_equal_paths_of_two_hosts_stay_apart(hub, config, make_source):
    hub.add_url("https://one.example/a.jsonl", b"1")
    hub.add_url("https://two.example/a.jsonl", b"2")
    source = make_source(UrlsOrigin(urls=["https://one.example/a.jsonl", "https://two.example/a.jsonl"]))
    listing = list_files(source, config)
    assert [file.name for file in listing.files] == ["one.example/a.jsonl", "two.example/a.jsonl"]
    assert [fetch(source, listing, file, config).read_bytes() for file in listing.files] == [b"1", b"2"]
