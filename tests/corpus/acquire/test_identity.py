"""What a build goes by: where a branch first stood, contents instead of commits, mirrors that are what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest

from corpus.acquire import AcquireConfig, fetch, list_files
from corpus.acquire.identity import file_identities, key_revision, recorded_origin
from corpus.acquire.origins import HubOrigin, UrlsOrigin
from corpus.base.errors import UserError

ROWS = b'{"text": "a row"}\n'
PIN = "0123456789abcdef0123456789abcdef01234567"


def toy(revision: str) -> HubOrigin:
    return HubOrigin(repo="org/name", revision=revision, files=["data/*"])


def identity(source, listing):
    return [key_revision(source.origin, listing), file_identities(source.origin, listing)]


def test_a_branch_stays_where_it_was_first_seen_until_it_is_refreshed(hub, config, make_source):
    first = hub.add_dataset("org/name", {"data/a": ROWS, "README.md": b"one"})
    source = make_source(toy("main"))
    before = list_files(source, config)
    assert (before.revision, before.commits) == (first, (("org/name", first),))
    second = hub.add_dataset("org/name", {"data/a": ROWS, "README.md": b"two"})
    asked = len(hub.requests)
    assert list_files(source, config) == before and len(hub.requests) == asked
    after = list_files(source, replace(config, refresh=True))
    assert after.revision == second != first
    assert list_files(source, config) == after
    # Nothing that was asked for has changed, so nothing is made again.
    assert identity(source, after) == identity(source, before)
    hub.add_dataset("org/name", {"data/a": b"other", "README.md": b"two"})
    assert identity(source, list_files(source, replace(config, refresh=True))) != identity(source, before)


def test_a_pin_is_what_its_key_holds(hub, config, make_source):
    hub.add_dataset("org/name", {"data/a": ROWS}, revision=PIN)
    for pin in (PIN, PIN[:7]):
        source = make_source(toy(pin))
        assert identity(source, list_files(source, config)) == [PIN, [["data/a", len(ROWS), None]]]


def test_a_list_of_urls_is_read_again_when_it_is_refreshed(hub, config, make_source):
    hub.add_url("https://files.example/list.txt", b"https://files.example/a.jsonl\n")
    hub.add_url("https://files.example/a.jsonl", ROWS)
    source = make_source(UrlsOrigin(url_list="https://files.example/list.txt"))
    before = list_files(source, config)
    hub.add_url("https://files.example/a.jsonl", ROWS * 2)
    assert list_files(source, config) == before
    assert list_files(source, replace(config, refresh=True)).files[0].size == 2 * len(ROWS)


def test_a_mirror_has_the_hubs_identity(hub, config, make_source, tmp_path):
    hub.add_dataset("org/name", {"data/a": ROWS, "data/big": ROWS * 2000}, revision=PIN)
    source = make_source(toy(PIN))
    from_hub = list_files(source, config)
    mirrored = AcquireConfig(cache=tmp_path / "other", mirror=hub.root)
    unchecked = list_files(source, mirrored)
    assert identity(source, unchecked) == identity(source, from_hub)
    assert all(file.digest.startswith("sha256:") for file in unchecked.files)
    told = recorded_origin(source.origin, unchecked)
    assert told["commits"] == {"org/name": PIN} and len(told["unchecked_mirror"]) == 40
    # With the hub's listing at hand the mirror is held against it.
    checked = list_files(source, replace(config, mirror=hub.root))
    assert identity(source, checked) == identity(source, from_hub)
    assert [file.digest for file in checked.files] == [file.digest for file in from_hub.files]
    assert "unchecked_mirror" not in recorded_origin(source.origin, checked)
    assert fetch(source, checked, checked.files[1], replace(config, mirror=hub.root)).read_bytes() == ROWS * 2000


@pytest.mark.parametrize("name", ["a", "big"])
def test_a_mirror_that_differs_from_the_hub_is_refused(hub, config, make_source, name):
    hub.add_dataset("org/name", {"data/a": ROWS, "data/big": ROWS * 2000}, revision=PIN)
    source = make_source(toy(PIN))
    list_files(source, config)
    copy = hub.root / "datasets/org/name/data" / name
    mirrored = replace(config, mirror=hub.root)
    copy.write_bytes(copy.read_bytes().replace(b"row", b"bow"))
    listing = list_files(source, mirrored)
    with pytest.raises(UserError, match=rf"data/{name}: is not the hub's file: it has (git|sha256) .* instead of"):
        fetch(source, listing, next(file for file in listing.files if file.name == f"data/{name}"), mirrored)
    copy.write_bytes(b"short")
    with pytest.raises(UserError, match="is not the hub's file: it has 5 bytes instead of"):
        list_files(source, mirrored)


def test_a_mirror_of_a_branch_shows_no_commit(hub, make_source, tmp_path):
    hub.add_dataset("org/name", {"data/a": ROWS})
    config = AcquireConfig(cache=tmp_path / "cache", mirror=hub.root)
    source = make_source(toy("main"))
    listing = list_files(source, config)
    assert listing.revision.startswith("content-") and listing.commits == ()
    (hub.root / "datasets/org/name/data/a").write_bytes(ROWS.replace(b"row", b"bow"))
    assert identity(source, list_files(source, config)) != identity(source, listing)


def test_no_secret_of_a_url_is_written_down(hub, config, make_source):
    url = "https://files.example/a.jsonl?sv=1&sig=SECRET"
    hub.add_url(url, ROWS)
    source = make_source(UrlsOrigin(urls=[url]))
    listing = list_files(source, config)
    assert fetch(source, listing, listing.files[0], config).read_bytes() == ROWS
    told = recorded_origin(source.origin, listing)
    assert told["urls"][0].startswith("https://files.example/a.jsonl#query-")
    assert "SECRET" not in str(told) + source.model_dump_json()
    other = make_source(UrlsOrigin(urls=["https://files.example/a.jsonl?sv=1&sig=OTHER"]))
    assert recorded_origin(other.origin, listing) != told
    for bad in ("ftp://me:SECRET@files.example/a?sig=SECRET", "https://me:SECRET@files.example/a.jsonl?sig=SECRET"):
        with pytest.raises(UserError) as caught:
            list_files(make_source(UrlsOrigin(urls=[bad])), config)
        assert "SECRET" not in str(caught.value)
